"""Kernels widen weights of 16 bits in registers: the same bits as by float32 weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphkiln
from graphkiln.ir.types import to_numpy_dtype

CASES = {
    "direct": ("Conv<strides=[2, 2], pads=[3, 3, 3, 3]>(x, w)", (32, 3, 7, 7), (1, 3, 20, 20)),
    "winograd": ("Conv<pads=[1, 1, 1, 1]>(x, w)", (32, 32, 3, 3), (1, 32, 28, 28)),
    "grouped": ("Conv<group=2>(x, w)", (16, 8, 3, 3), (2, 16, 9, 9)),
    "depthwise": ("Conv<group=24, pads=[1, 1, 1, 1]>(x, w)", (24, 1, 3, 3), (1, 24, 9, 9)),
    "transposed": ("ConvTranspose<strides=[2, 2]>(x, w)", (16, 8, 3, 3), (1, 16, 7, 7)),
    "line": ("Conv(x, w)", (16, 8, 5), (1, 8, 40)),
    "matrix": ("MatMul(x, w)", (40, 70), (9, 40)),
    "gemm": ("Gemm<transB=1, alpha=0.5>(x, w)", (70, 40), (9, 40)),
    "stack of matrices": ("MatMul(x, w)", (3, 40, 20), (3, 9, 40)),
}


def net(op: str, weights: np.ndarray, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A product by weights that are widened where they are narrow."""
    dims = ", ".join(map(str, shape))
    is_narrow = weights.dtype != np.float32
    text = "w = Cast<to=1>(h) " if is_narrow else ""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[{dims}] x) => (float y)'
        f" {{ {text}y = {op} }}"
    )
    name = "h" if is_narrow else "w"
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_float32(name: str, kind: str) -> None:
    op, shape, given = CASES[name]
    rng = np.random.default_rng(0)
    narrow = rng.standard_normal(shape).astype(to_numpy_dtype(kind))
    x = rng.standard_normal(given).astype(np.float32)
    artifact = graphkiln.compile(net(op, narrow, given), jobs=1)
    held = [array for _, array in artifact.contents.weights if array.size >= narrow.size]
    assert [array.dtype.itemsize for array in held] == [2]
    (found,) = artifact.session(threads=1).run(None, {"x": x})
    wide = graphkiln.compile(net(op, narrow.astype(np.float32), given), jobs=1)
    (wanted,) = wide.session(threads=1).run(None, {"x": x})
    np.testing.assert_array_equal(found, wanted)
