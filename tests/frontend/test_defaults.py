"""Initializers among the inputs: defaults that a run may replace, or constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from frontend.build import FLOAT, INT64, model, node, refusal, value

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.frontend.export import to_onnx
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.text import print_graph

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def listed(defaults: dict[str, np.ndarray], nodes: list[onnx.NodeProto], **shapes: Any) -> Any:
    """A model of ``x`` whose initializers all stand among the inputs."""
    proto = model(nodes, [value("x", ("N", 3))], ["y"], defaults)
    for name, array in defaults.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.graph.input.append(value(name, shapes.get(name, array.shape), kind))
    return proto


def scaled(**shapes: Any) -> Any:
    defaults = {"w": np.array([1, 2, 3], np.float32), "b": np.array(0.5, np.float32)}
    return listed(defaults, [node("Mul", "x w", "m"), node("Add", "m b", "y")], **shapes)


GIVEN: tuple[dict[str, Any], ...] = (
    {}, {"w": np.array([3, 0, -1], np.float32)}, {"b": np.array(7, np.float32)},
    {"w": np.zeros(3, np.float32), "b": np.array(-1, np.float32)}, {},
)  # fmt: skip


@pytest.mark.parametrize("native", [True, False])
def test_a_run_may_replace_defaults(native: bool) -> None:
    proto = scaled()
    if not native:
        proto.graph.node.append(node("NonZero", "x", "z"))
        proto.graph.output.append(onnx.ValueInfoProto(name="z"))
    theirs = onnxruntime.InferenceSession(proto.SerializeToString())
    mine = graphkiln.compile(proto, jobs=1).session()
    assert [i.name for i in mine.get_inputs()] == ["x"]
    assert [(i.name, i.type, i.shape) for i in mine.get_overridable_initializers()] == [
        ("w", "tensor(float)", [3]), ("b", "tensor(float)", [])
    ]  # fmt: skip
    for given in GIVEN:
        feeds = {"x": X, **given}
        expected = theirs.run(["y"], feeds)[0]
        np.testing.assert_array_equal(mine.run(["y"], feeds)[0], expected)
        np.testing.assert_array_equal(evaluate(load_model(proto).graph, feeds)[0], expected)
    with pytest.raises(graphkiln.InputError, match="'w'"):
        mine.run(None, {"x": X, "w": np.zeros(4, np.float32)})


def test_a_default_of_an_open_size() -> None:
    """Its own size where nothing is given, another one where a run gives it."""
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    proto = model([node("Gather", "t i", "y")], [value("i", (2,), INT64)], ["y"], {"t": table})
    proto.graph.input.append(value("t", ("R", 2)))
    mine = graphkiln.compile(proto, jobs=1).session()
    i, longer = np.array([3, 0]), np.ones((9, 2), np.float32)
    np.testing.assert_array_equal(mine.run(None, {"i": i})[0], table[[3, 0]])
    np.testing.assert_array_equal(mine.run(None, {"i": i + 5, "t": longer})[0], np.ones((2, 2)))
    with pytest.raises(graphkiln.InputError):
        mine.run(None, {"i": i + 5})


def test_text_and_export_keep_defaults() -> None:
    graph = load_model(scaled()).graph
    text = print_graph(graph)
    assert "%w {default=tensor float32[3] [1.0, 2.0, 3.0]}: float32[3]" in text
    assert print_graph(parse_graph(text)) == text
    again = load_model(to_onnx(graph)).graph
    for given in GIVEN:
        feeds = {"x": X, **given}
        np.testing.assert_array_equal(evaluate(again, feeds)[0], evaluate(graph, feeds)[0])


def test_defaults_of_other_element_types() -> None:
    half = np.array([0.5, 2, -1], np.float32)
    proto = listed({"w": half}, [node("Cast", "w", "c", to=FLOAT), node("Mul", "x c", "y")])
    (tensor,) = proto.graph.initializer
    tensor.CopyFrom(onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [3], half))
    proto.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    mine = graphkiln.compile(proto, jobs=1).session()
    np.testing.assert_array_equal(mine.run(None, {"x": X})[0], X * half)
    twos = np.full(3, 2, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(mine.run(None, {"x": X, "w": twos})[0], X * 2)


def weighty() -> Any:
    weights = {"w": np.ones((3, 100), np.float32), "b": np.zeros(100, np.float32)}
    return listed(weights, [node("Gemm", "x w b", "y")])


def test_models_that_list_their_weights_have_constants() -> None:
    found = load_model(weighty())
    assert [v.name for v in found.graph.inputs] == ["x"]
    assert "('w' and 1 more) are taken as constants" in found.warnings[0]
    opened = load_model(weighty(), input_defaults="open").graph
    assert [v.name for v in opened.inputs] == ["x", "w", "b"]
    mine = graphkiln.compile(weighty(), jobs=1, input_defaults="open").session()
    w = np.full((3, 100), 2, np.float32)
    np.testing.assert_array_equal(mine.run(None, {"x": X, "w": w})[0], X @ w)
    np.testing.assert_array_equal(mine.run(None, {"x": X})[0], X @ np.ones((3, 100)))


@pytest.mark.parametrize("mode", ["constant", "auto"])
def test_before_version_4_initializers_are_constants(mode: Any) -> None:
    proto = scaled()
    if mode == "auto":
        proto.ir_version = 3
    assert [v.name for v in load_model(proto, input_defaults=mode).graph.inputs] == ["x"]


def test_what_must_be_known_is_a_constant() -> None:
    resize = node(
        "Resize", "x s s", "y", mode="linear",
        coordinate_transformation_mode="tf_half_pixel_for_nn",
    )  # fmt: skip
    proto = listed({"s": np.array([2, 1], np.float32)}, [resize])
    proto.opset_import[0].version = 11
    assert "scales or sizes that are constants" in refusal(proto, input_defaults="open").reason
    found = load_model(proto)
    assert [v.name for v in found.graph.inputs] == ["x"]
    assert "they would leave open what must be known" in found.warnings[-1]


def test_strings_are_constants() -> None:
    words = {"w": np.array(["a", "b", "c"], object)}
    proto = model([node("Gather", "w i", "y")], [value("i", (2,), INT64)], ["y"], words)
    proto.graph.input.append(value("w", (3,), onnx.TensorProto.STRING))
    found = load_model(proto, input_defaults="open")
    assert [v.name for v in found.graph.inputs] == ["i"]
    assert "strings cannot be kept as defaults" in found.warnings[0]


def test_an_unknown_mode() -> None:
    with pytest.raises(graphkiln.errors.GraphkilnError, match="auto, open, constant, not 'opne'"):
        graphkiln.compile(scaled(), input_defaults="opne")


@pytest.mark.parametrize("shape", [(4,), (3, 1), ()])
def test_a_default_that_does_not_fit(shape: tuple[int, ...]) -> None:
    assert "its initializer float32[3]" in refusal(scaled(w=shape), input_defaults="open").reason


def test_a_default_that_cannot_be_read_is_told() -> None:
    proto = model([node("Add", "x w", "y")], [value("x", (2,)), value("w", (2,))], ["y"],
                  {"w": np.ones(2, np.float32)})  # fmt: skip
    proto.graph.initializer[0].raw_data = b"\0" * 7
    assert "initializer 'w'" in str(refusal(proto))
