"""Lowering of MatMulNBits: weights of a few bits are unpacked once, then multiplied as floats."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.contract import At, Contraction, contract
from ...tir.extents import index, product
from ...tir.numeric import cast
from ..registry import LowerContext, lowering


@lowering("com.microsoft.MatMulNBits")
def lower_matmul_nbits(c: LowerContext) -> TensorExpr:
    """MatMulNBits-1: ``A @ W^T + bias``, W (N, K) in blocks along K, each with a scale."""
    b, a, out = c.b, c.buffered(0), c.result()
    columns, inner = int(c.attr("N")), int(c.attr("K"))
    rows = product(a.shape[:-1])
    left, result = b.view(a, (rows, inner)), b.view(out, (rows, columns))
    weights = _unpacked(c, columns, inner)
    bias = c.buffered(5) if c.has(5) else None

    def store(_at: At, i: Expr, j: Expr, value: Expr) -> None:
        result.store((i, j), value if bias is None else value + bias[j])

    contraction = Contraction(
        (), rows, columns, (inner,),
        lambda _at, i, k: left[i, k[0]], lambda _at, k, j: weights[j, k[0]], store, "float32",
    )  # fmt: skip
    contract(b, contraction, "inner")
    return out


def _unpacked(c: LowerContext, columns: int, inner: int) -> BufferTensor:
    """The weights as float32 (N, K)."""
    b, bits, block = c.b, int(c.attr("bits")), int(c.attr("block_size"))
    blocks = -(-inner // block)
    packed = b.view(c.buffered(1), (columns, blocks, block * bits // 8))
    scales = b.view(c.buffered(2), (columns, blocks))
    zero = _zero_points(c, columns, blocks, bits)
    out = b.workspace((columns, inner), "float32", "weights")

    def body(at: tuple[Expr, ...]) -> None:
        n, k = at
        group, place = tirx.floordiv(k, index(block)), tirx.floormod(k, index(block))
        code = _field(packed, (n, group), place, bits)
        out.store(at, (code - zero(n, group)) * scales[n, group])

    b.nest(out.shape, body, cost=8)
    return out


def _field(packed: BufferTensor, lead: tuple[Expr, ...], place: Expr, bits: int) -> Expr:
    """Field ``place`` of bytes that hold several, the first in the lowest bits, as float32."""
    each = 8 // bits
    byte = cast(packed.at(*lead, tirx.floordiv(place, index(each))), "int32")
    shift = cast(tirx.floormod(place, index(each)) * bits, "int32")
    mask = tirx.const((1 << bits) - 1, "int32")
    return cast(tirx.bitwise_and(tirx.shift_right(byte, shift), mask), "float32")


def _zero_points(
    c: LowerContext, columns: int, blocks: int, bits: int
) -> Callable[[Expr, Expr], Expr]:
    """The zero point of block ``group`` of row ``n`` as float32: given, packed, or the middle."""
    if not c.has(3):
        middle = tirx.const(float(1 << (bits - 1)), "float32")
        return lambda _n, _group: middle
    given = c.buffered(3)
    if given.dtype != "uint8":
        unpacked = c.b.view(given, (columns, blocks))
        return lambda n, group: unpacked[n, group]
    packed = c.b.view(given, (columns, -(-blocks * bits // 8)))
    return lambda n, group: _field(packed, (n,), group, bits)
