"""Quantized convolutions and products: dot products of 8-bit integers, then scaling and rounding.

Zero points stay out of the inner loop: ``sum (x - zx) * w = sum x*w - zx * sum w``, and the second
term is a constant, which becomes part of the bias. Padding holds ``zx``, which stands for 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir.graph import Node, Value
from ...ir.registry import attribute
from ...ir.types import BYTES
from .conv import Work, by_channel, convolve
from .planner import Planner
from .product import pack_weights, with_depth
from .weights import Weights

_F32 = np.float32

_OPEN_PARAMETERS = "a scale, a zero point or its bias is not constant, or a scale is not float32"
_OTHER_SCALES = "its scales or its bias are not for each column, or for all"
_NO_MATRIX = "its weights are no matrix"


@dataclass(frozen=True)
class _Operands:
    """Integer data, its zero point, and constant int8 weights with zero point 0.

    ``key`` is the value that the weights come from.
    """

    x: Value
    zero: int
    weight: np.ndarray
    key: Value


def _padded(p: Planner, node: Node, count: int) -> list[Value | None]:
    """The node's inputs, with None up to ``count``."""
    inputs = p.graph.inputs_of(node)
    return [*inputs, *[None] * (count - len(inputs))]


def _constant(value: Value | None, default: float) -> np.ndarray | None:
    """A constant's array; ``default`` for an input that is not given, None for run-time values."""
    return np.asarray(default) if value is None else value.constant


def _operands(
    p: Planner, node: Node, x: Value | None, zx: Value | None, w: Value | None, zw: Value | None
) -> _Operands | None:
    """The operands of a dot product that the target has; None, with the reason told, if not."""
    found = _operands_or_reason(p, x, zx, w, zw)
    if isinstance(found, str):
        p.keep(node, found)
        return None
    return found


def _operands_or_reason(
    p: Planner, x: Value | None, zx: Value | None, w: Value | None, zw: Value | None
) -> _Operands | str:
    objection = None if x is None else dot_objection(p, x)
    if objection is not None:
        return objection
    if x is None or w is None or w.constant is None:
        return "its weights are not constant"
    zero = _constant(zx, 0)
    if zero is None or zero.size != 1:
        return "the zero point of its data is not one constant"
    weight = _signed(w.constant, _constant(zw, 0))
    if weight is None:
        return "its weights are not symmetric: their zero point is not the middle"
    return _Operands(x, int(zero.reshape(())), weight, w)


def dot_objection(p: Planner, x: Value) -> str | None:
    """Why the target has no dot product of 8-bit integers that takes ``x``, or None."""
    if p.layouts.dot_depth == 1:
        return "the target has no dot product of 8-bit integers"
    wanted = BYTES if p.layouts.activation is None else (p.layouts.activation,)
    return None if x.dtype in wanted else f"dot products take {' or '.join(wanted)}, not {x.dtype}"


def _signed(w: np.ndarray, zero: np.ndarray | None) -> np.ndarray | None:
    """8-bit weights as int8 with zero point 0; None where the zero point does not allow it.

    uint8 with zero point 128 is int8 with its highest bit flipped.
    """
    if zero is None:
        return None
    if w.dtype == np.int8:
        return w if not np.any(zero) else None
    if w.dtype == np.uint8 and np.all(zero == 128):
        return (w ^ np.uint8(128)).view(np.int8)
    return None


def _scales(*values: Value | None) -> list[np.ndarray] | None:
    """Constant float32 scales; None where one is not."""
    arrays = [None if v is None else v.constant for v in values]
    known = [a for a in arrays if a is not None and a.dtype == _F32]
    return known if len(known) == len(values) else None


# ---- convolution ---------------------------------------------------------------------------------


def convolution(p: Planner, node: Node) -> None:
    """``QLinearConv``."""
    x, sx, zx, w, sw, zw, sy, zy, bias = _padded(p, node, 9)
    operands = _operands(p, node, x, zx, w, zw)
    if operands is None:
        return
    scales, given = _scales(sx, sw, sy), _constant(bias, 0)
    if scales is None or given is None or zy is None or zy.constant is None:
        return p.keep(node, _OPEN_PARAMETERS)
    total = _sums(p, node, operands, given)
    if total is None:
        return
    scale = np.asarray(scales[0].reshape(-1) * scales[1].reshape(-1) / scales[2].reshape(-1))
    p.convert(node, _requantize_blocks(p, node, total, scale, zy), "integer convolutions")


def integer_convolution(p: Planner, node: Node) -> None:
    """``ConvInteger``."""
    x, w, zx, zw = _padded(p, node, 4)
    operands = _operands(p, node, x, zx, w, zw)
    if operands is None:
        return
    total = _sums(p, node, operands, np.zeros((), np.int32))
    if total is not None:
        p.convert(node, total, "integer convolutions")


def _sums(p: Planner, node: Node, o: _Operands, bias: np.ndarray) -> Value | None:
    """``sum (x - zero) * w + bias`` in blocks, as int32."""
    w = o.weight
    correction = o.zero * w.reshape(w.shape[0], -1).sum(axis=1, dtype=np.int64)
    start = (bias.reshape(-1) - correction).astype(np.int32)
    return convolve(p, Work.of(node, o.x, w, start, (o.key, "signed"), p.layouts.dot_depth, o.zero))


def _requantize_blocks(
    p: Planner, node: Node, total: Value, scale: np.ndarray, zero: Value
) -> Value:  # fmt: skip
    packed = by_channel(p, scale, int(total.shape[1]), total.rank - 1)
    factor = p.constant((node, "scale"), packed, f"{node.out().name}_scale")
    return p.add("Requantize", [total, factor, _scalar(p, node, zero)], like=node)


def _scalar(p: Planner, node: Node, zero: Value) -> Value:
    array = zero.constant
    assert array is not None
    return p.constant((node, "zero"), array.reshape(()), f"{node.out().name}_zero_point")


# ---- products ------------------------------------------------------------------------------------


def product(p: Planner, node: Node) -> None:
    """``QLinearMatMul`` by constant weights."""
    a, sa, za, b, sb, zb, sy, zy = _padded(p, node, 8)
    operands, scales = _operands(p, node, a, za, b, zb), _scales(sa, sb, sy)
    if operands is None:
        return
    if scales is None or zy is None or zy.constant is None:
        return p.keep(node, _OPEN_PARAMETERS)
    if not _is_matrix(operands):
        return p.keep(node, _NO_MATRIX)
    columns = operands.weight.shape[1]
    single = all(a.size == 1 for a in (scales[0], scales[2], zy.constant))
    if not single or not _by_column(scales[1], columns):
        return p.keep(node, _OTHER_SCALES)
    total = _product(p, node, operands, np.zeros((), np.int32))
    scale = scales[0].reshape(-1) * scales[1].reshape(-1) / scales[2].reshape(-1)
    p.replace(node, _requantize_rows(p, node, total, scale, zy), "integer matmuls")


def gemm(p: Planner, node: Node) -> None:
    """``QGemm`` by constant weights, with 8-bit or float results."""
    a, sa, za, b, sb, zb, c, sy, zy = _padded(p, node, 9)
    operands, scales, bias = _operands(p, node, a, za, b, zb), _scales(sa, sb), _constant(c, 0)
    if operands is None:
        return
    steps = _scales(sy) if zy is not None else []
    if scales is None or bias is None or steps is None or (zy is not None and zy.constant is None):
        return p.keep(node, _OPEN_PARAMETERS)
    if attribute(node, "transA"):
        return p.keep(node, "its first operand is transposed")
    if attribute(node, "transB"):
        operands = _Operands(operands.x, operands.zero, operands.weight.T, operands.key)
    columns = operands.weight.shape[1]
    if bias.size not in (1, columns) or not _by_column(scales[1], columns):
        return p.keep(node, _OTHER_SCALES)
    scale = scales[0].reshape(-1) * scales[1].reshape(-1) * _F32(attribute(node, "alpha"))
    if zy is None:
        total = _product(p, node, operands, bias)
        exact = p.add("Cast", [total], {"to": 1}, domain="", like=node)
        factor = p.constant((node, "scale"), _fit(scale), f"{node.out().name}_scale")
        p.replace(node, p.add("Mul", [exact, factor], domain="", like=node), "integer matmuls")
        return
    total = _product(p, node, operands, bias)
    scale = scale / steps[0].reshape(())
    p.replace(node, _requantize_rows(p, node, total, scale, zy), "integer matmuls")


def integer_product(p: Planner, node: Node) -> None:
    """``MatMulInteger`` by constant weights; the zero point of the data may be a run-time value."""
    a, b, za, zb = _padded(p, node, 4)
    dynamic = za is not None and za.constant is None
    operands = _operands(p, node, a, None if dynamic else za, b, zb)
    if operands is None:
        return
    if not _is_matrix(operands):
        return p.keep(node, _NO_MATRIX)
    if dynamic and za is not None and za.tensor_type.numel != 1:
        return p.keep(node, "the zero point of its data is not one number")
    total = _product(p, node, operands, np.zeros((), np.int32))
    if dynamic:
        zero = p.add("Reshape", [p.add("Cast", [za], {"to": 6}, domain="")], {"shape": ()})
        sums = operands.weight.sum(axis=0, dtype=np.int32)
        weights = p.constant((operands.key, "sums"), sums, f"{operands.key.name}_sums")
        shift = p.add("Mul", [weights, zero], domain="")
        total = p.add("Sub", [total, shift], domain="", like=node)
    p.replace(node, total, "integer matmuls")


def _is_matrix(o: _Operands) -> bool:
    return o.weight.ndim == 2 and o.x.rank >= 2


def _by_column(scale: np.ndarray, columns: int) -> bool:
    return scale.size == 1 or scale.shape[-1] == columns == scale.size


def _product(p: Planner, node: Node, o: _Operands, bias: np.ndarray) -> Value:
    """``(x - zero) @ w + bias`` as int32."""
    columns = o.weight.shape[1]
    correction = o.zero * o.weight.sum(axis=0, dtype=np.int64)
    start = (bias.reshape(-1) - correction).astype(np.int32)
    depth = p.layouts.dot_depth
    transposed = bool(attribute(node, "transB"))
    weights = Weights(o.weight, np.ones((), _F32), o.key.name, (o.key, "signed", transposed))
    row: list[Value] = []
    if np.any(start):
        row.append(p.constant((node, "start"), start, f"{node.out().name}_bias"))
    operands = pack_weights(p, o.x, weights, depth).operands(p, f"{weights.name}_packed", row)
    x, attrs = with_depth(p, o.x, weights.array.shape[0]), {"columns": columns, "depth": depth}
    return p.add("MatMulPacked", [x, *operands], attrs, like=node)


def _requantize_rows(
    p: Planner, node: Node, total: Value, scale: np.ndarray, zero: Value
) -> Value:  # fmt: skip
    factor = p.constant((node, "scale"), _fit(scale), f"{node.out().name}_scale")
    return p.add("Requantize", [total, factor, _scalar(p, node, zero)], like=node)


def _fit(scale: np.ndarray) -> np.ndarray:
    return np.asarray(scale.reshape(()) if scale.size == 1 else scale.reshape(-1))
