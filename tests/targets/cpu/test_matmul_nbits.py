"""MatMulNBits of few rows: by words, or with activations in bytes where the model allows that."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import graphkiln
from graphkiln.targets import parse_target

MS = "com.microsoft"
BYTES = parse_target("cpu").features.dot is not None
"""Are there dot products of bytes here?"""


class Product:
    """A model of one product by random weights of a few bits, and what it should give."""

    def __init__(
        self, rows: Any, k: int, n: int, block: int, level: int = 4, bias: bool = False,
        bits: int = 4,
    ) -> None:  # fmt: skip
        random = np.random.default_rng(k + n + block)
        self.block, self.k, self.bits = block, k, bits
        size = (n, k // block, block * bits // 8)
        self.packed = random.integers(0, 256, size).astype(np.uint8)
        self.scales = random.uniform(0.01, 0.1, (n, k // block)).astype(np.float32)
        self.bias = random.standard_normal(n).astype(np.float32) if bias else None
        attrs = {"K": k, "N": n, "bits": bits, "block_size": block, "accuracy_level": level}
        names = ["x", "w", "s", *(["", "", "b"] if bias else [])]
        node = helper.make_node("MatMulNBits", names, ["y"], domain=MS, **attrs)
        weights = {"w": self.packed, "s": self.scales, **({"b": self.bias} if bias else {})}
        graph = helper.make_graph(
            [node], "product",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [rows, k])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, n])],
            [numpy_helper.from_array(a, name) for name, a in weights.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
        self.model = helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def codes(self) -> np.ndarray:
        """[N, blocks, block], around 0."""
        most, shifts = (1 << self.bits) - 1, range(0, 8, self.bits)
        fields = np.stack([self.packed >> shift & most for shift in shifts], axis=-1)
        codes = fields.reshape(*self.scales.shape, self.block).astype(np.float64)
        return codes - (1 << (self.bits - 1))

    def exact(self, x: np.ndarray) -> np.ndarray:
        weights = (self.codes() * self.scales[..., None]).reshape(len(self.packed), -1)
        return self._with_bias(x.astype(np.float64) @ weights.T)

    def quantized(self, x: np.ndarray) -> np.ndarray:
        """With each block of ``x`` rounded to 127 steps of its largest magnitude."""
        blocks = x.reshape(len(x), -1, self.block)
        top = np.abs(blocks).max(-1, keepdims=True)
        with np.errstate(all="ignore"):
            steps = np.where(top > 0, np.float32(127) / top, 0).astype(np.float32)
        codes = np.rint(blocks * steps).astype(np.float64)
        scale = top[..., 0].astype(np.float64) / 127
        return self._with_bias(np.einsum(
            "mbk,mb,nbk,nb->mn", codes, scale, self.codes(), self.scales, optimize=True
        ))  # fmt: skip

    def _with_bias(self, result: np.ndarray) -> np.ndarray:
        return result if self.bias is None else result + self.bias

    def run(self, x: np.ndarray) -> np.ndarray:
        (result,) = graphkiln.compile(self.model).session().run(None, {"x": x})
        return result


def activations(rows: int, k: int) -> np.ndarray:
    """Blocks of very different magnitudes, and one of zeros."""
    random = np.random.default_rng(rows)
    x = random.standard_normal((rows, k)) * 10.0 ** random.integers(-3, 3, (rows, k // 32)).repeat(
        32, axis=1
    )
    x[:, :32] = 0
    return x.astype(np.float32)


def assert_near(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("rows", [1, 2, 5, 16])
@pytest.mark.parametrize(
    ("k", "n", "block", "bits"),
    [
        (256, 12, 32, 4), (128, 7, 128, 4), (512, 10, 16, 4), (512, 4, 256, 4),
        (64, 9, 16, 8), (256, 6, 64, 8), (256, 8, 128, 2), (96, 8, 32, 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bias", [False, True])
def test_weights_become_floats_beside_the_products(rows, k, n, block, bits, bias):
    product = Product(rows, k, n, block, level=0, bias=bias, bits=bits)
    x = np.random.default_rng(rows).standard_normal((rows, k)).astype(np.float32)
    assert_near(product.run(x), product.exact(x), 2e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_may_be_open(bits):
    product = Product("rows", 256, 12, 32, level=0, bits=bits)
    for rows in (1, 3, 16, 17, 40):
        x = np.random.default_rng(rows).standard_normal((rows, 256)).astype(np.float32)
        assert_near(product.run(x), product.exact(x), 2e-6)


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
@pytest.mark.parametrize(
    ("rows", "k", "n", "block", "bits", "bias"),
    [
        (17, 256, 48, 32, 4, False), ("rows", 512, 80, 16, 4, True), (40, 256, 16, 64, 8, True),
        (33, 512, 32, 128, 2, False), ("rows", 128, 16, 128, 8, False),
    ],
)  # fmt: skip
def test_many_rows_share_panels_of_floats(rows, k, n, block, bits, bias, target):
    """Tiles of columns that are whole and that are not, for both sizes of registers."""
    product = Product(rows, k, n, block, level=0, bias=bias, bits=bits)
    session = graphkiln.compile(product.model, target, jobs=1).session()
    for count in (rows,) if isinstance(rows, int) else (3, 17, 61):
        x = np.random.default_rng(count).standard_normal((count, k)).astype(np.float32)
        assert_near(session.run(None, {"x": x})[0], product.exact(x), 2e-6)


@pytest.mark.skipif(not BYTES, reason="no dot products of bytes")
@pytest.mark.parametrize(
    ("rows", "k", "n", "block"), [(1, 256, 12, 32), (3, 512, 7, 64), (16, 128, 10, 32)]
)
@pytest.mark.parametrize("bias", [False, True])
def test_activations_are_bytes_where_the_model_says_so(rows, k, n, block, bias):
    product, x = Product(rows, k, n, block, bias=bias), activations(rows, k)
    got = product.run(x)
    assert_near(got, product.quantized(x), 1e-6)
    assert_near(got, product.exact(x), 2e-2)


@pytest.mark.skipif(not BYTES, reason="no dot products of bytes")
def test_as_onnxruntime_does():
    """Which multiplies bytes where it knows the weights beforehand."""
    product, x = Product(2, 512, 40, 32), activations(2, 512)
    session = onnxruntime.InferenceSession(product.model.SerializeToString())
    assert_near(product.run(x), session.run(None, {"x": x})[0], 1e-5)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_other_levels_keep_floats(level):
    product, x = Product(1, 256, 12, 32, level), activations(1, 256)
    assert_near(product.run(x), product.exact(x), 1e-6)


@pytest.mark.skipif(not BYTES, reason="no dot products of bytes")
def test_open_rows_choose_when_they_run():
    product = Product("rows", 256, 12, 32)
    few, many = activations(16, 256), activations(17, 256)
    assert_near(product.run(few), product.quantized(few), 1e-6)
    assert_near(product.run(many), product.exact(many), 1e-6)


@pytest.mark.parametrize(("k", "block"), [(96, 32), (256, 16), (512, 256)])
def test_blocks_that_do_not_fill_vectors_keep_floats(k, block):
    product = Product(1, k, 8, block)
    x = np.random.default_rng(1).standard_normal((1, k)).astype(np.float32)
    assert_near(product.run(x), product.exact(x), 1e-6)


@pytest.mark.skipif(not BYTES, reason="no dot products of bytes")
def test_what_is_not_finite_stays_so():
    product, x = Product(1, 256, 12, 32), activations(1, 256)
    x[0, 40] = np.nan
    assert np.isnan(product.run(x)).all()
    x[0, 40] = np.inf
    assert not np.isfinite(product.run(x)).any()
