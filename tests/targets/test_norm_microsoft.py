"""com.microsoft's layer normalizations: compiled code and evaluation against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from oputil import assert_close, one_node, run_op
from reference import runtime

import graphkiln
from graphkiln.ir.interpreter import run_node
from graphkiln.ir.registry import InferenceError
from graphkiln.runtime import InputError

EPSILON = {"epsilon": 1e-5}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")


def agree(
    op: str, inputs: list[Any], outputs: int, compared: tuple[int, ...],
    domain: str = "com.microsoft",
) -> None:  # fmt: skip
    want = runtime(op, inputs, EPSILON, domain, outputs)
    node = one_node(op, inputs, EPSILON, domain, outputs).nodes[0]
    results = [
        run_op(op, inputs, EPSILON, domain, outputs),
        run_op(op, inputs, EPSILON, domain, outputs, symbolic=True),
        run_node(node, inputs),
    ]
    for result in results:
        for i in compared:
            assert_close(np.asarray(result[i]), want[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("skip", [(2, 5, 32), (1, 5, 32), (5, 32)])
def test_skip_layer_normalization(extra, skip):
    rest = [normal(32) + 1, normal(32) - 1][:extra]
    inputs = [normal(2, 5, 32), normal(*skip), normal(32), *rest]
    agree("SkipLayerNormalization", inputs, 4, (0, 3))


@pytest.mark.parametrize("bias", [False, True])
def test_skip_simplified_layer_normalization(bias):
    inputs = [normal(2, 5, 32), normal(2, 5, 32) + 1, normal(32), *([normal(32)] if bias else [])]
    agree("SkipSimplifiedLayerNormalization", inputs, 4, (0, 3))


def test_simplified_layer_normalization():
    agree("SimplifiedLayerNormalization", [normal(2, 5, 32), normal(32)], 1, (0,), domain="")


@pytest.mark.parametrize("segments", [False, True])
def test_embed_layer_normalization(segments):
    ids = np.arange(14, dtype=np.int32).reshape(2, 7)
    tables = [normal(20, 32), normal(10, 32), normal(2, 32) if segments else None]
    kinds = ids % 2 if segments else None
    mask = (ids % 3 > 0).astype(np.int32) if segments else None
    inputs = [ids, kinds, *tables, normal(32), normal(32), mask]
    agree("EmbedLayerNormalization", inputs, 3, (0, 1, 2))


def test_embed_layer_normalization_with_positions():
    ids = np.arange(14, dtype=np.int32).reshape(2, 7)
    tables = [normal(20, 32), normal(10, 32), None]
    inputs = [ids, None, *tables, normal(32), normal(32), None, ids % 10]
    agree("EmbedLayerNormalization", inputs, 2, (0, 1))


@pytest.mark.parametrize("op", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("place", [2, 3])
def test_parameters_have_a_number_for_each_place(op, place):
    """onnxruntime broadcasts none of them, and kernels read as many as a row has."""
    inputs = [normal(2, 3, 8), normal(2, 3, 8), normal(8), normal(8)]
    for shape in ((1,), (1, 8)):
        inputs[place] = normal(*shape)
        with pytest.raises(InferenceError, match="gamma, beta and bias"):
            one_node(op, inputs, EPSILON, "com.microsoft", 1)


EMBED = [
    np.zeros((2, 7), np.int32), np.zeros((2, 7), np.int32), normal(20, 8), normal(10, 8),
    normal(2, 8), normal(8), normal(8), np.zeros((2, 7), np.int32), np.zeros((2, 7), np.int32),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, np.zeros((2, 6), np.int32)), (3, normal(10, 9)), (3, normal(10)), (4, normal(2, 1)),
        (5, normal(1)), (6, normal(7)), (7, np.zeros((7,), np.int32)),
        (8, np.zeros((1, 7), np.int32)),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit(place, value):
    one_node("EmbedLayerNormalization", EMBED, EPSILON, "com.microsoft", 2)
    inputs = [*EMBED[:place], value, *EMBED[place + 1 :]]
    with pytest.raises(InferenceError):
        one_node("EmbedLayerNormalization", inputs, EPSILON, "com.microsoft", 2)


def test_more_words_than_positions():
    inputs = [*EMBED[:3], normal(6, 8), *EMBED[4:7]]
    with pytest.raises(InferenceError, match="positions"):
        one_node("EmbedLayerNormalization", inputs, EPSILON, "com.microsoft", 1)


@pytest.mark.parametrize(("place", "row"), [(0, 20), (0, -1), (1, 2), (8, 10)])
def test_rows_that_a_table_lacks(place, row):
    ids = np.zeros((2, 7), np.int32)
    ids[1, 3] = row
    names = [f"x{i}" for i in range(len(EMBED))]
    node = helper.make_node(
        "EmbedLayerNormalization", names, ["y"], domain="com.microsoft", **EPSILON
    )
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
         for n, a in zip(names, EMBED, strict=True)],
        [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = graphkiln.compile(model, jobs=1).session(threads=1)
    feeds = dict(zip(names, EMBED, strict=True))
    session.run(None, feeds)
    with pytest.raises(InputError, match="rows that the table has"):
        session.run(None, feeds | {names[place]: ids})
