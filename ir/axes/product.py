"""Axis maps of matrix products: of floats, of integers with their parameters, and packed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dims import Dim, is_static, known_equal
from .build import Builder, Rule, rule
from .map import Axis, AxisMap, Combine, Kind, Piece, whole


@dataclass
class Matrices:
    """The axes of a product: those of the batch with their dims, rows, inner and columns."""

    lead: list[Axis]
    lead_shape: list[Dim]
    rows: Axis | None
    columns: Axis | None

    def result(self) -> list[Axis]:
        ends = [axis for axis in (self.rows, self.columns) if axis is not None]
        return [*self.lead, *ends]


def multiply(
    b: Builder, left: int, right: int, combine: Combine | None, kinds: Sequence[Kind] = ()
) -> Matrices:
    """Describe operands and result of NumPy's ``matmul`` with ``transA`` and ``transB``.

    ``kinds`` are the kinds of the left operand's batch and rows, if not MAPPED.
    """
    x, w = b.shape(left), b.shape(right)
    ends = (len(x) > 1) + (len(w) > 1)
    lead_shape = list(b.out()[: len(b.out()) - ends])
    kind = kinds[0] if kinds else Kind.MAPPED
    lead = b.axes(lead_shape, kind)
    swap_x = bool(b.attr("transA")) and len(x) > 1
    swap_w = bool(b.attr("transB")) and len(w) > 1
    rows = whole(b.factor(x[-1] if swap_x else x[-2], kind)) if len(x) > 1 else None
    columns = whole(b.factor(w[-2] if swap_w else w[-1])) if len(w) > 1 else None
    sizes = x[-2] if swap_x else x[-1], w[-1] if swap_w or len(w) == 1 else w[-2]
    inner = whole(b.reduced(next((d for d in sizes if is_static(d)), sizes[0]), combine))
    _operand(b, left, lead, lead_shape, [rows, inner], swap_x)
    _operand(b, right, lead, lead_shape, [inner, columns], swap_w)
    b.give([*lead, *(axis for axis in (rows, columns) if axis is not None)])
    return Matrices(lead, lead_shape, rows, columns)


def _operand(
    b: Builder, i: int, lead: list[Axis], lead_shape: list[Dim], ends: list[Axis | None],
    swapped: bool,
) -> None:  # fmt: skip
    own = [axis for axis in ends if axis is not None]
    last = b.shape(i)[len(b.shape(i)) - len(own) :]
    b.broadcast(i, [*lead, *(own[::-1] if swapped else own)], [*lead_shape, *last])


def _lines(b: Builder, i: int, product: Matrices, axis: Axis | None, size: Dim, row: bool) -> None:
    """A parameter of one number, a vector along ``axis``, or of the axes of the product."""
    if axis is None or not b.has(i):
        return
    if len(b.shape(i)) < 2:
        b.entries(i, axis, size)
        return
    one: Axis = (Piece(()),)
    ends = [axis, one] if row else [one, axis]
    sizes: list[Dim] = [size, 1] if row else [1, size]
    b.broadcast(i, [*product.lead, *ends], [*product.lead_shape, *sizes])


def product(
    left: int = 0, right: int = 1, *, combine: Combine | None = Combine.SUM,
    rows: Sequence[int] = (), columns: Sequence[int] = (), addend: int | None = None,
) -> Rule:  # fmt: skip
    """The rule of a matrix product of two operands.

    ``rows`` and ``columns`` are parameters of one number, or of one for each row or column.
    ``addend`` broadcasts to the result. ``combine`` only applies if no activation follows.
    """

    @rule
    def describe(b: Builder) -> AxisMap | None:
        found = multiply(b, left, right, None if b.attr("activation") else combine)
        height = b.out()[-2] if found.rows is not None and len(b.out()) > 1 else 1
        for i in rows:
            _lines(b, i, found, found.rows, height, row=True)
        for i in columns:
            _lines(b, i, found, found.columns, b.out()[-1] if b.out() else 1, row=False)
        if addend is not None:
            b.broadcast(addend, found.result(), b.out())
        return b.build(addends=[] if addend is None else [addend])

    return describe


@rule
def dynamic_quantized_product(b: Builder) -> AxisMap | None:
    """The left operand is quantized over its whole range, so each result depends on all of it."""
    found = multiply(b, 0, 1, None, [Kind.NORMALIZED])
    for i in (2, 3):
        _lines(b, i, found, found.columns, b.out()[-1], row=False)
    b.entries(4, found.columns or (Piece(()),), b.out()[-1])
    return b.build(addends=[4])


@rule
def product_of_few_bits(b: Builder) -> AxisMap | None:
    """``MatMulNBits``: weights ``[N, blocks, bytes]``, scales ``[(N, blocks)]`` or apart."""
    count = int(b.attr("N"))
    n = b.factor(count)
    *lead, inner = b.axes(b.shape())
    b.withdraw(inner)
    b.take(0, [*lead, inner])
    for i in (1, 2, 3, 5):
        if b.has(i):
            b.take(i, _by_column(b, i, n, count))
    b.give([*lead, whole(n)])
    return b.build(addends=[5], counts={"N": (n,)})


def _by_column(b: Builder, i: int, n: int, count: int) -> list[Axis]:
    """Axes of a tensor with equally many elements for each column, one column after the other."""
    first, *rest = b.shape(i)
    if known_equal(first, count):
        return [whole(n), *(b.opaque(d) for d in rest)]
    if rest or not known_equal(first % count, 0):
        b.withdraw(whole(n))
        return [b.opaque(d) for d in (first, *rest)]
    return [whole(n, b.factor(first // count, Kind.OPAQUE))]


@rule
def packed_product(b: Builder) -> AxisMap | None:
    """``kiln.MatMulPacked``: ``[.., K]`` by ``[Nt, K, t]``; columns are (tile, column of it)."""
    *lead, k = b.shape()
    tiles, rows, width = b.shape(1)
    full = known_equal(tiles * width, b.attr("columns"))
    axes = b.axes(lead)
    if not full or not known_equal(rows, k) or int(b.attr("depth")) > 1:
        b.take(0, [*axes, b.opaque(k)])
        b.give([*axes, b.opaque(b.out()[-1])])
        return b.build(addends=[2])
    tile, column = b.factor(tiles), b.factor(width)
    inner = whole(b.reduced(k, Combine.SUM))
    b.take(0, [*axes, inner])
    b.take(1, [whole(tile), inner, whole(column)])
    b.take(2, [whole(tile, column)])
    b.give([*axes, whole(tile, column)])
    return b.build(addends=[2], counts={"columns": (tile, column)})


@rule
def determinant(b: Builder) -> AxisMap | None:
    """Each matrix becomes a number."""
    *lead, rows, columns = b.shape()
    axes = b.axes(lead)
    b.take(0, [*axes, b.opaque(rows), b.opaque(columns)])
    b.give(axes)
    return b.build()


__all__ = [
    "determinant", "dynamic_quantized_product", "packed_product", "product", "product_of_few_bits",
]  # fmt: skip
