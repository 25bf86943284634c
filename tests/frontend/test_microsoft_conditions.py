"""What com.microsoft's operations need of sizes and values is checked, with dims known and open."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import graphkiln
from graphkiln.errors import GraphkilnError

Array = np.ndarray
_RNG = np.random.default_rng(0)


def _floats(*shape: int) -> Array:
    return _RNG.normal(size=shape).astype(np.float32)


def _bytes(*shape: int) -> Array:
    return _RNG.integers(0, 255, shape).astype(np.uint8)


def _scale(*shape: int) -> Array:
    return np.full(shape, 0.02, np.float32)


def _ids(number: int) -> Array:
    return np.full((1, 3), number, np.int64)


ZERO = np.zeros((), np.uint8)
HEADS = {"num_heads": 2}
BLOCKS = {"K": 32, "N": 3, "bits": 4, "block_size": 16}
X = _floats(1, 3, 4)

# Operation, inputs that fit, which of them is replaced, by what, attributes.
CASES: dict[str, tuple[str, list[Array], int, Array, dict[str, Any]]] = {
    "bias of heads": ("MultiHeadAttention", [X, X, X, _floats(12)], 3, _floats(1), HEADS),
    "values": ("MultiHeadAttention", [X, X, X], 2, _floats(1, 5, 4), HEADS),
    "keys": ("MultiHeadAttention", [X, X, X], 1, _floats(1, 3, 8), HEADS),
    "batch": ("MultiHeadAttention", [X, X, X], 0, _floats(2, 3, 4), HEADS),
    "skip": ("BiasAdd", [X, _floats(4), X], 2, _floats(1, 3, 1), {}),
    "bias of rows": (
        "QGemm", [_bytes(2, 4), _scale(), ZERO, _bytes(4, 6), _scale(), ZERO,
                  np.zeros(6, np.int32)], 6, np.zeros(3, np.int32), {},
    ),
    "bias of floats": (
        "FusedGemm", [_floats(2, 3), _floats(3, 5), _floats(5)], 2, _floats(4),
        {"activation": "Relu"},
    ),
    "blocks": ("MatMulNBits", [_floats(2, 32), _bytes(3, 2, 8), _scale(6)], 1, _bytes(3, 1, 8),
               BLOCKS),
    "scales": ("MatMulNBits", [_floats(2, 32), _bytes(3, 2, 8), _scale(6)], 2, _scale(4), BLOCKS),
    "zero points": (
        "MatMulNBits", [_floats(2, 32), _bytes(3, 2, 8), _scale(6), _bytes(3)], 3, _bytes(1),
        BLOCKS,
    ),
    "parts": (
        "QLinearConcat", [_scale(), ZERO, _bytes(2, 3), _scale(), ZERO, _bytes(2, 3), _scale(),
                          ZERO], 5, _bytes(1, 3), {"axis": 1},
    ),
    "angles": (
        "RotaryEmbedding", [_floats(1, 3, 8), _ids(1), _floats(10, 2), _floats(10, 2)], 3,
        _floats(9, 2), HEADS,
    ),
    "position": (
        "RotaryEmbedding", [_floats(1, 3, 8), _ids(9), _floats(10, 2), _floats(10, 2)], 1,
        _ids(10), HEADS,
    ),
    "first position": (
        "RotaryEmbedding", [_floats(1, 3, 8), _ids(7)[0, :1], _floats(10, 2), _floats(10, 2)], 1,
        _ids(8)[0, :1], HEADS,
    ),
}  # fmt: skip


def _model(op: str, inputs: list[Array], attrs: dict[str, Any], opened: bool) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(inputs))]
    infos = [
        helper.make_tensor_value_info(
            n, helper.np_dtype_to_tensor_dtype(a.dtype),
            [f"{n}_{j}" for j in range(a.ndim)] if opened else a.shape,
        )
        for n, a in zip(names, inputs, strict=True)
    ]  # fmt: skip
    node = helper.make_node(op, names, ["y"], domain="com.microsoft", **attrs)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _run(op: str, inputs: list[Array], attrs: dict[str, Any], opened: bool) -> None:
    session = graphkiln.compile(_model(op, inputs, attrs, opened), jobs=1).session(threads=1)
    session.run(None, {f"x{i}": a for i, a in enumerate(inputs)})


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(case: str, opened: bool) -> None:
    op, inputs, place, value, attrs = CASES[case]
    _run(op, inputs, attrs, opened)
    with pytest.raises(GraphkilnError) as error:
        _run(op, [*inputs[:place], value, *inputs[place + 1 :]], attrs, opened)
    assert type(error.value).__name__ in ("FrontendError", "InputError")


@pytest.mark.parametrize("name", ["K", "N", "block_size"])
@pytest.mark.parametrize("value", [0, -16, None])
def test_numbers_of_blocks_are_told_by_name(name: str, value: int | None) -> None:
    attrs = {k: v for k, v in {**BLOCKS, name: value}.items() if v is not None}
    model = _model("MatMulNBits", [_floats(2, 32), _bytes(3, 2, 8), _scale(6)], attrs, False)
    with pytest.raises(GraphkilnError, match=f"{name} must be a whole number from 1 on"):
        graphkiln.compile(model, jobs=1)
