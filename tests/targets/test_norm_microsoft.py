"""com.microsoft's layer normalizations: compiled code and evaluation against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oputil import assert_close, one_node, run_op
from reference import runtime

from graphkiln.ir.interpreter import run_node

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
