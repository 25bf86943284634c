"""Quantization and integer products against onnx.reference and onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, backend_cases, run_case, run_graph, run_op
from reference import code, reference, runtime
from support.integer_products import dynamic_matmul, matmul_to_float, qgemm

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import run_node
from graphkiln.ir.types import array_type

OPS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul",
       "MatMulInteger")  # fmt: skip
MS = "com.microsoft"
QUANTIZED = ["int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2"]
FLOAT8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]


@pytest.mark.parametrize("case", backend_cases(*OPS), ids=lambda c: c.name)
def test_onnx_case(case: Any) -> None:
    run_case(case)


def numpy_type(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def integers(rng: np.random.Generator, dtype: str, shape: Any) -> np.ndarray:
    info = ml_dtypes.iinfo(numpy_type(dtype))
    return rng.integers(int(info.min), int(info.max) + 1, shape).astype(numpy_type(dtype))


def granularity(kind: str) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The shape of the parameters of a (3, 5, 7) tensor, and the attributes that say so."""
    return {
        "tensor": ((), {}), "one": ((1,), {}), "axis": ((5,), {"axis": -2}),
        "block": ((3, 2, 7), {"axis": 1, "block_size": 3}),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [*((d, "block") for d in QUANTIZED), ("int8", "tensor"), ("uint8", "one"), ("uint8", "axis")],
)
def test_quantize_and_back(dtype: str, kind: str) -> None:
    rng = np.random.default_rng(len(dtype))
    shape, attrs = granularity(kind)
    x = (rng.standard_normal((3, 5, 7)) * 40).astype(np.float32)
    x.flat[:3] = [1e30, -1e30, np.inf]
    scale = rng.uniform(0.3, 2, shape).astype(np.float32)
    zero = integers(rng, dtype, shape)
    (q,) = run_op("QuantizeLinear", [x, scale, zero], attrs)
    (want,) = reference("QuantizeLinear", [np.clip(x, -1e5, 1e5), scale, zero], attrs)
    assert_close(q, want)
    (back,) = run_op("DequantizeLinear", [q, scale, zero], attrs)
    (want,) = reference("DequantizeLinear", [q, scale, zero], attrs)
    assert_close(back, want)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("dtype", FLOAT8)
def test_quantize_to_float8(dtype: str, saturate: int) -> None:
    x = np.random.default_rng(0).standard_normal(200).astype(np.float32) * 300
    x[:4] = [np.inf, -np.inf, np.nan, 1e6]
    zero = np.zeros((), numpy_type(dtype))
    inputs = [x, np.float32(1.7), zero]
    (want,) = reference("QuantizeLinear", inputs, {"saturate": saturate})
    (got,) = run_op("QuantizeLinear", inputs, {"saturate": saturate})
    np.testing.assert_array_equal(got.view(np.uint8) & 0x7F, want.view(np.uint8) & 0x7F)
    (back,) = run_op("DequantizeLinear", [got, np.float32(1.7)])
    assert_close(back, got.astype(np.float32) * np.float32(1.7))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("precision", [0, 1])
def test_quantize_of_narrow_floats(dtype: str, precision: int) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((64, 64)) * 20).astype(numpy_type(dtype))
    scale = np.array(0.37, numpy_type(dtype))
    attrs = {"precision": precision, "output_dtype": code(np.zeros(1, np.int8))}
    (want,) = reference("QuantizeLinear", [x, scale], attrs)
    (got,) = run_op("QuantizeLinear", [x, scale], attrs)
    assert_close(got, want)


def test_dequantize_to_another_type() -> None:
    x = integers(np.random.default_rng(0), "int8", (4, 6))
    scale = np.linspace(0.1, 2, 6).astype(np.float32)
    attrs = {"output_dtype": code(np.zeros(1, np.float16))}
    (want,) = reference("DequantizeLinear", [x, scale], attrs)
    (got,) = run_op("DequantizeLinear", [x, scale], attrs)
    assert_close(got, want)
    (wide,) = run_op("DequantizeLinear", [x.astype(np.int32) * 1000, scale])
    assert_close(wide, x * np.float32(1000) * scale)


@pytest.mark.parametrize("shape", [(7,), (3, 40), (2, 3, 5, 6)])
def test_dynamic_quantize(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    for x in (rng.standard_normal(shape), rng.uniform(1, 2, shape), np.zeros(shape)):
        wants = reference("DynamicQuantizeLinear", [x.astype(np.float32)], num_outputs=3)
        gots = run_op("DynamicQuantizeLinear", [x.astype(np.float32)], num_outputs=3,
                      symbolic=True)  # fmt: skip
        for got, want in zip(gots, wants, strict=True):
            assert_close(got, want)


@settings(max_examples=12)
@given(st.sampled_from(["int8", "uint8"]), st.sampled_from(["int8", "uint8"]),
       st.sampled_from([((5, 7), (7, 33)), ((2, 3, 4, 7), (7, 5)), ((3, 4, 7), (3, 7, 6)),
                        ((2, 1, 4, 7), (3, 7, 1)), ((7,), (7, 6)), ((5, 7), (7,))]),
       st.integers(0, 3), st.sampled_from([False, True, "distinct"]))  # fmt: skip
def test_matmul_integer(left: str, right: str, shapes: Any, zeros: int, symbolic: Any) -> None:
    rng = np.random.default_rng(zeros)
    a, b = integers(rng, left, shapes[0]), integers(rng, right, shapes[1])
    inputs = [
        a, b, integers(rng, left, ()) if zeros & 1 else None,
        integers(rng, right, shapes[1][-1] if b.ndim == 2 and zeros > 1 else ()),
    ]  # fmt: skip
    (want,) = reference("MatMulInteger", inputs)
    (got,) = run_op("MatMulInteger", inputs, symbolic=symbolic)
    assert_close(got, want)


def test_matmul_integer_with_a_zero_point_per_row() -> None:
    rng = np.random.default_rng(0)
    a, b = integers(rng, "uint8", (2, 4, 7)), integers(rng, "int8", (7, 5))
    zero = integers(rng, "uint8", (2, 4, 1))
    (got,) = run_op("MatMulInteger", [a, b, zero])
    assert_close(got, (a.astype(np.int32) - zero) @ b.astype(np.int32))


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_qlinear_matmul(dtype: str, per_column: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = integers(rng, dtype, (2, 9, 31)), integers(rng, dtype, (31, 12))
    count = (12,) if per_column else ()
    inputs = [
        a, np.float32(0.02), integers(rng, dtype, ()), b,
        rng.uniform(0.01, 0.03, count).astype(np.float32), integers(rng, dtype, count),
        np.float32(0.7), integers(rng, dtype, ()),
    ]  # fmt: skip
    (want,) = reference("QLinearMatMul", inputs)
    (got,) = run_op("QLinearMatMul", inputs)
    assert_close(got, want)
    assert len(np.unique(got)) > 10


def f32(*values: float) -> list[np.ndarray]:
    return [np.float32(v) for v in values]


def check_ms(op: str, inputs: list[Any], attrs: dict[str, Any] | None = None, off: int = 0) -> None:
    """Kernel and evaluator against onnxruntime; quantized results may be ``off`` by so much."""
    (want,) = runtime(op, inputs, attrs, MS)
    compare_ms(op, inputs, want, attrs, off)


def compare_ms(
    op: str, inputs: list[Any], want: np.ndarray, attrs: dict[str, Any] | None = None, off: int = 0
) -> None:
    """:func:`check_ms` against given results."""
    node = Graph().add_node(op, [], attrs, domain=MS)
    for got in (*run_op(op, inputs, attrs, MS), *run_node(node, inputs)):
        assert got.dtype == want.dtype and got.shape == want.shape
        if want.dtype.kind == "f":
            assert_close(got, want, rtol=1e-4, atol=1e-4)
        else:
            difference = np.abs(got.astype(np.int32) - want.astype(np.int32))
            assert difference.max() <= off and np.mean(difference > 0) < 0.02


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_qlinear_binary(op: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b = integers(rng, dtype, (2, 3, 17)), integers(rng, dtype, (3, 1))
    zeros = integers(rng, dtype, 3)
    scales = f32(0.03, 0.05, 0.06 if op == "QLinearAdd" else 0.3)
    inputs = [a, scales[0], zeros[0], b, scales[1], zeros[1], scales[2], zeros[2]]
    check_ms(op, inputs, off=1 if op == "QLinearAdd" else 0)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_qlinear_unary_and_softmax(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = integers(rng, dtype, (4, 33))
    zero = integers(rng, dtype, 2)
    low = np.array(np.iinfo(dtype).min, dtype)
    check_ms("QLinearSigmoid", [x, np.float32(0.05), zero[0], np.float32(1 / 256), low])
    check_ms("QLinearLeakyRelu", [x, np.float32(0.05), zero[0], np.float32(0.04), zero[1]],
             {"alpha": 0.2})  # fmt: skip
    softmax = [x, np.float32(0.05), zero[0], np.float32(1 / 256), low]
    for attrs in ({"axis": -1, "opset": 13}, {"axis": 1, "opset": 12}):
        check_ms("QLinearSoftmax", softmax, attrs, off=1)


def test_qlinear_concat() -> None:
    rng = np.random.default_rng(2)
    a, b = integers(rng, "uint8", (2, 3, 4)), integers(rng, "uint8", (2, 5, 4))
    inputs = [np.float32(0.1), np.uint8(100), a, np.float32(0.07), np.uint8(90),
              b, np.float32(0.1), np.uint8(100)]  # fmt: skip
    check_ms("QLinearConcat", inputs, {"axis": 1})


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_qlinear_pools(dtype: str, last: int) -> None:
    rng = np.random.default_rng(3)
    x, zero = integers(rng, dtype, (2, 6, 7, 5)), integers(rng, dtype, 2)
    inputs = [x, np.float32(0.05), zero[0], np.float32(0.03), zero[1]]
    check_ms("QLinearGlobalAveragePool", inputs, {"channels_last": last})
    for include in (0, 1):
        attrs = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1),
                 "count_include_pad": include, "channels_last": last}  # fmt: skip
        check_ms("QLinearAveragePool", inputs, attrs, off=1)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("quantized", [False, True])
def test_qgemm(transposed: int, quantized: bool) -> None:
    rng = np.random.default_rng(4)
    a = integers(rng, "uint8", (31, 6) if transposed else (6, 31))
    b = integers(rng, "int8", (9, 31) if transposed else (31, 9))
    bias = rng.integers(-500, 500, 9).astype(np.int32)
    scales = rng.uniform(0.01, 0.03, 9).astype(np.float32)
    inputs = [a, np.float32(0.02), np.uint8(120), b, scales, integers(rng, "int8", 9), bias]
    if quantized:
        inputs += [np.float32(0.5), np.uint8(130)]
    attrs = {"transA": transposed, "transB": transposed, "alpha": 0.8}
    want = qgemm(*inputs[:7], bool(transposed), 0.8, inputs[7:])
    compare_ms("QGemm", inputs, want, attrs)


@pytest.mark.parametrize("bias", [False, True])
def test_float_results_of_integer_products(bias: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = integers(rng, "uint8", (2, 6, 31)), integers(rng, "int8", (31, 9))
    scales = rng.uniform(0.01, 0.03, 9).astype(np.float32)
    addend = [rng.standard_normal(9).astype(np.float32)] if bias else []
    zeros = [np.uint8(120), integers(rng, "int8", 9)]
    inputs = [a, b, np.float32(0.02), scales, *zeros, *addend]
    compare_ms("MatMulIntegerToFloat", inputs, matmul_to_float(*inputs))
    x = rng.standard_normal((2, 6, 31)).astype(np.float32)
    inputs = [x, b, scales, zeros[1], *addend]
    compare_ms("DynamicQuantizeMatMul", inputs, dynamic_matmul(*inputs))


def with_open_rows(op: str, inputs: list[Any], attrs: dict[str, Any]) -> Graph:
    """One op whose first input has open dims, except for the last."""
    types = [array_type(np.asarray(a)) for a in inputs]
    dims = [sym(f"r{i}") for i in range(types[0].rank - 1)]
    types[0] = types[0].with_shape((*dims, types[0].dims[-1]))
    graph = Graph()
    values = [graph.add_input(f"x{i}", t) for i, t in enumerate(types)]
    node = graph.add_node(op, values, attrs, domain=MS)
    graph.set_outputs([node.out()])
    infer_types(graph)
    return graph


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", ["none", "packed", "float"])
@pytest.mark.parametrize(
    ("rows", "n", "k", "block"),
    [
        ((2, 3), 10, 80, 32),
        ((1,), 12, 64, 16),
        ((19,), 7, 130, 128),
        ((0,), 4, 32, 32),
        ((5, 7), 20, 96, 32),
    ],
)
def test_matmul_nbits(
    bits: int, zero: str, rows: tuple[int, ...], n: int, k: int, block: int
) -> None:
    rng = np.random.default_rng(bits)
    blocks = -(-k // block)
    a = rng.standard_normal((*rows, k)).astype(np.float32)
    packed = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (n, blocks)).astype(np.float32)
    zeros: list[Any] = []
    if zero == "packed":
        zeros = [rng.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)]
    elif zero == "float":
        zeros = [rng.uniform(0, 2**bits, (n, blocks)).astype(np.float32)]
    codes = np.unpackbits(packed, axis=-1, bitorder="little").reshape(n, blocks, block, bits)
    values = (codes * 2 ** np.arange(bits)).sum(-1).astype(np.float32)
    middle = np.full((n, blocks), 2.0 ** (bits - 1), np.float32)
    if zero == "packed":
        fields = np.unpackbits(zeros[0], axis=-1, bitorder="little").reshape(n, -1, bits)
        middle = (fields * 2 ** np.arange(bits)).sum(-1)[:, :blocks].astype(np.float32)
    elif zero == "float":
        middle = zeros[0]
    weights = ((values - middle[..., None]) * scales[..., None]).reshape(n, -1)[:, :k]
    attrs = {"K": k, "N": n, "bits": bits, "block_size": block}
    inputs = [a, packed, scales, *zeros]
    node = Graph().add_node("MatMulNBits", [], attrs, domain=MS)
    results = [*run_op("MatMulNBits", inputs, attrs, MS), *run_node(node, inputs)]
    results += run_graph(with_open_rows("MatMulNBits", inputs, attrs), inputs)
    for got in results:
        assert_close(got, a @ weights.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Tanh", "Sigmoid"])
def test_fused_gemm(activation: str) -> None:
    rng = np.random.default_rng(6)
    a, b, c = (rng.standard_normal(s).astype(np.float32) for s in ((7, 5), (9, 7), (9,)))
    attrs: dict[str, Any] = {"activation": activation, "transA": 1, "transB": 1, "beta": 0.5}
    if activation == "LeakyRelu":
        attrs["activation_alpha"] = 0.3
    check_ms("FusedGemm", [a, b, c], attrs)


def test_ms_quantize_per_axis() -> None:
    rng = np.random.default_rng(7)
    x = (rng.standard_normal((3, 5)) * 10).astype(np.float32)
    scale, zero = rng.uniform(0.1, 1, 5).astype(np.float32), integers(rng, "uint16", 5)
    check_ms("QuantizeLinear", [x, scale, zero], {"axis": 1})
    check_ms("DequantizeLinear", [integers(rng, "uint16", (3, 5)), scale, zero], {"axis": 1})
