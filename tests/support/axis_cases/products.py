"""Matrix products, quantization, and recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphkiln.ir.packing import pack_matmul_weight, pack_recurrent_weight

from .base import MS, Array, Case, Draw, case


def _matrices(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes that ``matmul`` takes."""
    m, k, n = d.dim(), d.dim(), d.dim()
    lead = d.shape(0, 2)
    left = d.pick((m, k), (k,), (*d.squeezed(lead), m, k))
    right = d.pick((k, n), (k,), (*lead, k, n))
    return left, right


@case("MatMul")
def matmul(d: Draw, key: str) -> Case:
    left, right = _matrices(d)
    return Case(key, [d.floats(*left), d.floats(*right)])


@case(MS + "FusedMatMul")
def fused_matmul(d: Draw, key: str) -> Case:
    shapes, attrs = list(_matrices(d)), {}
    for i, name in enumerate(("transA", "transB")):
        if len(shapes[i]) > 1 and d.flag():
            *lead, a, b = shapes[i]
            shapes[i], attrs[name] = (*lead, b, a), 1
    return Case(key, [d.floats(*shape) for shape in shapes], {**attrs, "alpha": 0.5})


def _gemm(d: Draw) -> tuple[int, int, tuple[int, int], tuple[int, int], dict[str, Any]]:
    m, k, n = d.dim(), d.dim(), d.dim()
    a, b = d.dim(0, 1), d.dim(0, 1)
    attrs = {"transA": a, "transB": b}
    return m, n, (k, m) if a else (m, k), (n, k) if b else (k, n), attrs


@case("Gemm", MS + "FusedGemm")
def gemm(d: Draw, key: str) -> Case:
    m, n, left, right, attrs = _gemm(d)
    attrs |= {"alpha": 0.5, "beta": 2.0}
    if key != "Gemm":
        attrs["activation"] = d.pick("", "Relu")
    inputs = [d.floats(*left), d.floats(*right)]
    if d.flag():
        inputs.append(d.floats(*d.squeezed((m, n))))
    return Case(key, inputs, attrs)


def _line(d: Draw, size: int, scale: bool) -> Array:
    """A parameter for all, or for each of ``size``."""
    shape = d.pick((), (size,)) if size > 1 else ()
    return d.positive(*shape) if scale else d.ints(0, 9, *shape, dtype="uint8")


@case("MatMulInteger")
def matmul_integer(d: Draw, key: str) -> Case:
    left, right = _matrices(d)
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    zeros = [_line(d, rows, False), _line(d, columns, False)]
    return Case(key, [d.bytes(*left), d.bytes(*right), *zeros])


@case("QLinearMatMul")
def qlinear_matmul(d: Draw, key: str) -> Case:
    m, k, n = d.dim(), d.dim(), d.dim()
    left = [d.bytes(2, m, k), np.float32(0.1), np.uint8(3)]
    right = [d.bytes(2, k, n), _line(d, n, True), _line(d, n, False)]
    return Case(key, [*left, *right, np.float32(30), np.uint8(100)])


@case(MS + "MatMulIntegerToFloat")
def matmul_integer_to_float(d: Draw, key: str) -> Case:
    m, k, n = d.dim(), d.dim(), d.dim()
    left, right = d.bytes(d.dim(), m, k), d.bytes(k, n)
    scales = [np.float32(0.1), _line(d, n, True), np.uint8(3), _line(d, n, False)]
    return Case(key, [left, right, *scales, d.floats(n)])


@case(MS + "DynamicQuantizeMatMul")
def dynamic_matmul(d: Draw, key: str) -> Case:
    m, k, n = d.dim(), d.dim(), d.dim()
    parameters = [_line(d, n, True), _line(d, n, False), d.floats(n)]
    return Case(key, [d.floats(d.dim(), m, k), d.bytes(k, n), *parameters])


@case(MS + "QGemm")
def qgemm(d: Draw, key: str) -> Case:
    _, n, left, right, attrs = _gemm(d)
    data = [d.bytes(*left), np.float32(0.1), np.uint8(3)]
    weights = [d.bytes(*right), _line(d, n, True), _line(d, n, False)]
    bias = d.ints(-99, 99, n, dtype="int32")
    return Case(key, [*data, *weights, bias, np.float32(30), np.uint8(100)], attrs)


@case(MS + "MatMulNBits")
def matmul_nbits(d: Draw, key: str) -> Case:
    n, k = d.dim(), d.pick(16, 32)
    blocks = k // 16
    scales = d.positive(n, blocks)
    weights = [d.bytes(n, blocks, 8), scales.reshape(d.pick(-1, (n, blocks))), d.bytes(n)]
    inputs = [d.floats(d.dim(), k), *weights, None, d.floats(n)]
    return Case(key, inputs, {"K": k, "N": n, "bits": 4, "block_size": 16})


@case("kiln.MatMulPacked")
def packed_matmul(d: Draw, key: str) -> Case:
    k, n = d.dim(), d.pick(2, 4, 3)
    w = pack_matmul_weight(d.floats(k, n), 2)
    return Case(key, [d.floats(*d.shape(0, 2), k), w, d.floats(n)], {"columns": n})


@case("Einsum")
def einsum(d: Draw, key: str) -> Case:
    equation = d.pick(
        "ij,jk->ik", "bij,bkj->bik", "ij->j", "ii->i", "ij,ij->", "...i,ij->...j", "a,b,c->cab",
        "bhsd,bhtd->bhst", "ijk->kij", "ii,i",
    )  # fmt: skip
    sizes = {c: d.dim() for c in "abcdhijkst"}
    terms = equation.replace("...", "st").partition("->")[0].split(",")
    return Case(key, [d.floats(*(sizes[c] for c in t)) for t in terms], {"equation": equation})


@case("Det")
def det(d: Draw, key: str) -> Case:
    n = d.dim(1, 3)
    return Case(key, [d.floats(*d.shape(0, 2), n, n)])


# ---- quantization --------------------------------------------------------------------------------


@case("QuantizeLinear", "DequantizeLinear")
def quantize(d: Draw, key: str) -> Case:
    shape = [d.dim() for _ in range(d.dim(1, 3))]
    axis, block = d.dim(0, len(shape) - 1), d.pick(0, 2)
    parameters = d.pick((), (shape[axis],))
    if block:
        shape[axis] = 2 * shape[axis] - d.dim(0, 1)
        parameters = [-(-n // 2) if a == axis else n for a, n in enumerate(shape)]
    x = d.floats(*shape) if key.startswith("Q") else d.bytes(*shape)
    attrs = {"axis": axis, **({"block_size": block} if block else {})}
    scale, zero = d.positive(*parameters) * np.float32(0.1), d.bytes(*parameters)
    return Case(key, [x, scale, zero], attrs)


@case(MS + "QuantizeLinear", MS + "DequantizeLinear")
def quantize_microsoft(d: Draw, key: str) -> Case:
    shape = d.shape(1)
    axis = d.dim(0, len(shape) - 1)
    parameters = d.pick((), (shape[axis],))
    x = d.floats(*shape) if "Quant" in key and "Dequant" not in key else d.bytes(*shape)
    scale, zero = d.positive(*parameters) * np.float32(0.1), d.bytes(*parameters)
    return Case(key, [x, scale, zero], {"axis": axis})


@case("DynamicQuantizeLinear")
def dynamic_quantize(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape(1))], outputs=3)


# ---- recurrent layers ----------------------------------------------------------------------------


_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _layer(d: Draw, states: int, hidden: int) -> tuple[int, Array, list[Array], dict[str, Any]]:
    """Directions, X, the lengths with initial states, and attributes."""
    steps, batch = d.dim(1, 3), d.dim()
    direction, layout = d.pick("forward", "reverse", "bidirectional"), d.dim(0, 1)
    count = 2 if direction == "bidirectional" else 1
    shape = (batch, steps) if layout else (steps, batch)
    state = (batch, count, hidden) if layout else (count, batch, hidden)
    lengths = d.ints(1, steps + 1, batch, dtype="int32")
    attrs = {"direction": direction, "layout": layout, "hidden_size": hidden}
    x = d.floats(*shape, d.dim())
    return count, x, [lengths, *(d.floats(*state) for _ in range(states))], attrs


@case("RNN", "GRU", "LSTM")
def recurrent(d: Draw, key: str) -> Case:
    states, hidden, gates = 2 if key == "LSTM" else 1, d.dim(), _GATES[key]
    count, x, rest, attrs = _layer(d, states, hidden)
    rows = gates * hidden
    weights = [d.floats(count, rows, n) for n in (x.shape[2], hidden)]
    peepholes = [d.floats(count, 3 * hidden)] if states == 2 else []
    inputs = [x, *weights, d.floats(count, 2 * rows), *rest, *peepholes]
    return Case(key, inputs, attrs, states + 1)


@case("kiln.RNNPacked", "kiln.GRUPacked", "kiln.LSTMPacked")
def packed_recurrent(d: Draw, key: str) -> Case:
    name = key.removeprefix("kiln.").removesuffix("Packed")
    states, hidden, gates = 2 if name == "LSTM" else 1, d.dim(), _GATES[name]
    count, x, rest, attrs = _layer(d, states, hidden)
    r = pack_recurrent_weight(d.floats(count, gates * hidden, hidden), gates, 2)
    columns = d.floats(*x.shape[:2], count * r.shape[1] * r.shape[3])
    return Case(key, [columns, r, None, *rest], attrs, states + 1)


@case(MS + "DynamicQuantizeLSTM")
def quantized_lstm(d: Draw, key: str) -> Case:
    hidden, count = d.dim(), d.dim(1, 2)
    steps, batch, inputs = d.dim(1, 3), d.dim(), d.dim()
    weights = [d.bytes(count, n, 4 * hidden) for n in (inputs, hidden)]
    each = d.pick((count,), (count, 4 * hidden))
    scales = [x for _ in range(2) for x in (d.positive(*each) * 0.01, d.bytes(*each))]
    scales = [s.astype(np.float32) if s.dtype.kind == "f" else s for s in scales]
    states = [d.floats(count, batch, hidden) for _ in range(2)]
    data = [d.floats(steps, batch, inputs), *weights, d.floats(count, 8 * hidden), None]
    attrs = {"direction": "bidirectional" if count == 2 else "forward", "hidden_size": hidden}
    return Case(key, [*data, *states, d.floats(count, 3 * hidden), *scales], attrs, 3)
