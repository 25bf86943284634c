"""Non-maximum suppression, compiled, against its reference and onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)
from onnx.numpy_helper import from_array
from onnxruntime import InferenceSession
from oputil import Array, run_op

from graphkiln.driver import import_model
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import evaluate

Inputs = list[Array | None]


def model_of(inputs: Inputs, centered: int, constants: tuple[int, ...] = ()) -> ModelProto:
    """A model of one NonMaxSuppression; inputs ``constants`` are initializers."""
    names = [name if a is not None else "" for name, a in zip("bslit", inputs, strict=False)]
    node = make_node("NonMaxSuppression", names, ["y"], center_point_box=centered)
    types = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    named = [(i, n, a) for i, (n, a) in enumerate(zip(names, inputs, strict=True)) if a is not None]
    graph = make_graph(
        [node], "boxes",
        [make_tensor_value_info(n, types[str(a.dtype)], a.shape)
         for i, n, a in named if i not in constants],
        [make_tensor_value_info("y", TensorProto.INT64, [None, 3])],
        [from_array(a, n) for i, n, a in named if i in constants],
    )  # fmt: skip
    return make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)


def suppress(inputs: Inputs, centered: int = 0) -> Array:
    """The rows that onnxruntime selects."""
    data = model_of(inputs, centered).SerializeToString()
    session = InferenceSession(data, providers=["CPUExecutionProvider"])
    feeds = {n: a for n, a in zip("bslit", inputs, strict=False) if a is not None}
    return np.asarray(session.run(None, feeds)[0])


def apart(inputs: Inputs, centered: int, constants: tuple[int, ...]) -> tuple[Graph, Node]:
    """NonMaxSuppression as it is imported, and the node that finds the boxes."""
    graph = import_model(model_of(inputs, centered, constants).SerializeToString()).graph
    (node,) = [n for n in graph.nodes if n.key == "kiln.KeptBoxes"]
    return graph, node


def compiled(inputs: Inputs, centered: int = 0, constants: tuple[int, ...] = ()) -> Array:
    """The rows by compiled code for its parts, with which the interpreter agrees."""
    graph, node = apart(inputs, centered, constants)
    (kept,) = run_op("KeptBoxes", inputs, node.attrs, "kiln", const_inputs=constants)
    (rows,) = run_op("BoxRows", [kept], {}, "kiln")
    feeds = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    (same,) = evaluate(graph, {v.name: a for v, a in zip(graph.inputs, feeds, strict=True)})
    np.testing.assert_array_equal(same, rows)
    return rows


@st.composite
def cases(draw: st.DrawFn) -> tuple[Inputs, int, tuple[int, ...]]:
    """Inputs, whether boxes are given by their centers, and which inputs are constants.

    Numbers are few, so that there are equal scores, boxes that touch, and boxes without area.
    """
    batch, classes, count = (
        draw(st.integers(low, high)) for low, high in ((1, 2), (1, 3), (0, 30))
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    boxes = rng.integers(0, 6, (batch, count, 4)).astype(np.float32)
    scores = rng.integers(-3, 4, (batch, classes, count)).astype(np.float32)
    special = draw(st.sampled_from([None, np.nan, np.inf, -np.inf]))
    if special is not None:
        scores[rng.random(scores.shape) < 0.2] = special
    given_inputs: Inputs = [boxes, scores]
    given_inputs.append(np.array([draw(st.sampled_from([-1, 0, 1, 3, 8, 9, 100]))]))
    given_inputs.append(np.float32([draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))]))
    if draw(st.booleans()):
        given_inputs.append(np.float32([draw(st.sampled_from([-2.0, 0.0, 1.5]))]))
    constants = draw(st.sampled_from([(), (2,), (2, 3)]))
    return given_inputs, draw(st.integers(0, 1)), constants


@settings(max_examples=25)
@given(cases())
def test_selections(case: tuple[Inputs, int, tuple[int, ...]]) -> None:
    inputs, centered, constants = case
    np.testing.assert_array_equal(compiled(inputs, centered, constants), suppress(inputs, centered))


def test_more_boxes_than_a_block() -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 100, (2, 700, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 9, corners.shape)], axis=-1)
    scores = rng.random((2, 2, 700)).astype(np.float32)
    inputs: Inputs = [boxes.astype(np.float32), scores, np.array([400]), np.float32([0.2])]
    got = compiled(inputs)
    assert len(got) > 400
    np.testing.assert_array_equal(got, suppress(inputs))


def test_without_a_limit_nothing_is_selected() -> None:
    boxes, scores = np.ones((1, 2, 4), np.float32), np.ones((1, 1, 2), np.float32)
    assert compiled([boxes, scores]).shape == (0, 3)


def test_a_constant_limit_bounds_the_room() -> None:
    boxes, scores = np.ones((1, 20, 4), np.float32), np.ones((1, 1, 20), np.float32)
    _, node = apart([boxes, scores, np.array([5])], 0, (2,))
    assert node.out().shape == (1, 1, 5)


@pytest.mark.parametrize("limit", [2**62, 2**63 - 1])
def test_limits_that_keep_all(limit: int) -> None:
    boxes = np.float32([[[0, 0, 1, 1], [5, 5, 6, 6]]])
    inputs: Inputs = [boxes, np.ones((1, 1, 2), np.float32), np.array([limit])]
    for constants in ((), (2,)):
        assert compiled(inputs, constants=constants).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_limits_and_thresholds_without_elements_are_the_defaults() -> None:
    boxes, scores = np.float32([[[0, 0, 1, 1], [5, 5, 6, 6]]]), np.float32([[[-5, 3]]])
    none = np.zeros(0, np.float32)
    for symbolic in (False, "distinct"):
        args = {"center_point_box": 0, "most": 9}, "kiln"
        (kept,) = run_op("KeptBoxes", [boxes, scores, np.array([7]), none, none], *args,
                         symbolic=symbolic)  # fmt: skip
        assert kept[0, 0].tolist() == [1, 0]
        (kept,) = run_op("KeptBoxes", [boxes, scores, none.astype(np.int64)], *args,
                         symbolic=symbolic)  # fmt: skip
        assert kept[0, 0].tolist() == [-1, -1]
