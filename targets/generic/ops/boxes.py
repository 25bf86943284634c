"""Lowerings of non-maximum suppression: the boxes that each class keeps, and their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast, dtype_of
from ..constants import literal
from ..registry import LowerContext, lowering, sizes
from .movement_params import fresh_sizes, scalar_param

At = tuple[Expr, ...]

_BLOCK = 8
"""Kept boxes that one vector operation compares a candidate with."""
_LOW, _HIGH, _AREA = (0, 1), (2, 3), 4
"""Places of a box's lower corner, upper corner and area."""


@lowering("kiln.KeptBoxes")
def _kept_boxes(ctx: LowerContext) -> TensorExpr:
    """NonMaxSuppression-11: candidates leave a heap by falling score, and stay unless a box that
    stayed before covers too much of them.
    """
    b, boxes, scores, out = ctx.b, ctx.input(0), ctx.input(1), ctx.result()
    batches, classes, count = scores.shape
    room = out.shape[2]
    lines = product((batches, classes))
    heap = _Heap(
        b, b.workspace((lines, count), "float32", "scores"),
        b.workspace((lines, count), "int32", "boxes"),
    )  # fmt: skip
    blocks = tirx.floordiv(index(room) + (_BLOCK - 1), index(_BLOCK))
    kept = b.workspace((lines, blocks, _AREA + 1, _BLOCK), "float32", "kept")
    limit = _first(ctx, 2, literal(0, "int64"))
    overlap = _first(ctx, 3, literal(0.0, "float32"))
    least = _first(ctx, 4, literal(float("-inf"), "float32"))
    centered = bool(ctx.attr("center_point_box"))

    def body(at: At) -> None:
        batch, label = at
        line = b.let(batch * classes + label)
        size = heap.fill(line, count, lambda i: scores[(batch, label, i)], least)
        most = b.let(tirx.min(limit, index(room)))
        found = b.scalar("int64", 0)
        with b.while_(tirx.all(size.get() > 0, found.get() < most)):
            place = b.let(heap.pop(line, size))
            box = _Box.of(b, [boxes[(batch, index(place), index(i))] for i in range(4)], centered)
            with b.when(tirx.Not(_covered(b, kept, line, found.get(), box, overlap))):
                _keep(b, kept, line, found.get(), box)
                out.store((batch, label, found.get()), cast(place, "int64"))
                found.set(found.get() + 1)
        with b.loop(index(room) - found.get()) as rest:
            out.store((batch, label, found.get() + rest), literal(-1, "int64"))

    if as_int(room) != 0:
        b.nest((batches, classes), body, 16 * (as_int(count) or 1_000), sequential_last=True)
    return out


def _first(ctx: LowerContext, i: int, default: Expr) -> Expr:
    """The first element of input ``i``; ``default`` if it is omitted or has none."""
    if not ctx.has(i) or as_int(product(ctx.input(i).shape)) == 0:
        return default
    if as_int(product(ctx.input(i).shape)) is not None:
        return scalar_param(ctx, i)
    found = ctx.b.scalar(dtype_of(default), default)
    with ctx.b.when(product(ctx.input(i).shape) > 0):
        found.set(scalar_param(ctx, i))
    return found.get()


@dataclass(frozen=True)
class _Box:
    """A box's corners, the lower one first, and its area; expressions of float32."""

    parts: tuple[Expr, ...]

    @classmethod
    def of(cls, b: Builder, numbers: list[Expr], centered: bool) -> _Box:
        """From two opposite corners, or from the center and the extents."""
        first, second = numbers[:2], numbers[2:]
        if centered:
            halves = [n / literal(2.0, "float32") for n in second]
            first, second = (
                [f - h for f, h in zip(first, halves, strict=True)],
                [f + h for f, h in zip(first, halves, strict=True)],
            )
        pairs = list(zip(first, second, strict=True))
        low = [b.element(tirx.min(f, s)) for f, s in pairs]
        high = [b.element(tirx.max(f, s)) for f, s in pairs]
        area = b.element((high[0] - low[0]) * (high[1] - low[1]))
        return cls((*low, *high, area))


def _keep(b: Builder, kept: BufferTensor, line: Expr, n: Expr, box: _Box) -> None:
    """Remember a box as number ``n``; others of its block have no area, and so cover nothing."""
    block, lane = tirx.floordiv(n, index(_BLOCK)), tirx.floormod(n, index(_BLOCK))
    with b.when(lane.equal(index(0))), b.loop(_BLOCK) as i:
        kept.store((line, block, index(_AREA), i), literal(0.0, "float32"))
    for i, value in enumerate(box.parts):
        kept.store((line, block, index(i), lane), value)


def _covered(
    b: Builder, kept: BufferTensor, line: Expr, count: Expr, box: _Box, overlap: Expr
) -> Expr:
    """Is the intersection with some kept box over the union larger than ``overlap``?"""
    blocks = b.let(tirx.floordiv(count + (_BLOCK - 1), index(_BLOCK)))
    block, covered = b.scalar("int64", 0), b.scalar("int32", 0)
    with b.while_(tirx.all(block.get() < blocks, covered.get().equal(0))):
        here = b.let(block.get())
        with b.loop(_BLOCK) as i:

            def part(k: int, i: Expr = i) -> Expr:
                return kept[(line, here, index(k), i)]

            covered.set(covered.get() | cast(_overlaps(part, box, overlap), "int32"))
        block.set(here + 1)
    return covered.get() > 0


def _overlaps(part: Callable[[int], Expr], box: _Box, overlap: Expr) -> Expr:
    """Does a kept box with these parts cover too much of ``box``?"""
    nothing = literal(0.0, "float32")

    def extent(axis: int) -> Expr:
        low = tirx.max(part(_LOW[axis]), box.parts[_LOW[axis]])
        high = tirx.min(part(_HIGH[axis]), box.parts[_HIGH[axis]])
        return tirx.max(high - low, nothing)

    shared = extent(0) * extent(1)
    union = part(_AREA) + box.parts[_AREA] - shared
    solid = (shared > nothing) & (part(_AREA) > nothing) & (box.parts[_AREA] > nothing)
    return solid & (shared / union > overlap)


@dataclass(frozen=True)
class _Heap:
    """A heap of candidates for each line, the best on top: by score, of equals the first box."""

    b: Builder
    scores: BufferTensor
    places: BufferTensor

    def fill(self, line: Expr, count: Any, score: Callable[[Expr], Expr], least: Expr) -> Any:
        """Take the boxes with scores above ``least``; gives a variable, how many these are."""
        b = self.b
        size = b.scalar("int64", 0)
        with b.loop(count) as i:
            value = b.element(score(i))
            with b.when(value > least):
                self._put(line, size.get(), value, cast(i, "int32"))
                size.set(size.get() + 1)
        inner = b.let(tirx.floordiv(size.get(), index(2)))
        with b.loop(inner) as i:
            self._sift_down(line, inner - 1 - i, size.get())
        return size

    def pop(self, line: Expr, size: Any) -> Expr:
        """Remove the best; gives its box."""
        b = self.b
        best = b.scalar("int32", self.places[(line, index(0))])
        size.set(size.get() - 1)
        last = b.let(size.get())
        self._put(line, index(0), self.scores[(line, last)], self.places[(line, last)])
        self._sift_down(line, index(0), last)
        return best.get()

    def _put(self, line: Expr, i: Expr, score: Expr, place: Expr) -> None:
        self.scores.store((line, i), score)
        self.places.store((line, i), place)

    def _better(self, line: Expr, i: Expr, j: Expr) -> Expr:
        a, c = self.scores[(line, i)], self.scores[(line, j)]
        first = self.places[(line, i)] < self.places[(line, j)]
        return (a > c) | (a.equal(c) & first)

    def _sift_down(self, line: Expr, start: Expr, size: Expr) -> None:
        """Move candidate ``start`` down until no child among the first ``size`` is better."""
        b = self.b
        node = b.scalar("int64", start)
        with b.while_(2 * node.get() + 1 < size):
            child = b.scalar("int64", 2 * node.get() + 1)
            right = b.let(tirx.min(child.get() + 1, size - 1))
            with b.when(self._better(line, right, child.get())):
                child.set(right)
            sinks = b.let(self._better(line, child.get(), node.get()))
            with b.when(sinks):
                self._swap(line, b.let(node.get()), b.let(child.get()))
            node.set(tirx.Select(sinks, child.get(), size))

    def _swap(self, line: Expr, i: Expr, j: Expr) -> None:
        b = self.b
        score, place = b.element(self.scores[(line, i)]), b.let(self.places[(line, i)])
        self._put(line, i, self.scores[(line, j)], self.places[(line, j)])
        self._put(line, j, score, place)


# ---- rows ----------------------------------------------------------------------------------------


def _each_kept(b: Builder, kept: TensorExpr, visit: Callable[[At, Expr], None]) -> None:
    """Call ``visit`` for every kept box: batch, class, and the box."""
    batches, classes, room = kept.shape
    with b.grid(batches, classes) as (batch, label), b.loop(room) as i:
        box = b.let(kept[(batch, label, i)])
        with b.when(box >= 0):
            visit((batch, label), box)


@sizes("kiln.BoxRows")
def _box_row_sizes(ctx: LowerContext) -> list[Expr]:
    total = ctx.b.scalar("int64", 0)
    _each_kept(ctx.b, ctx.input(0), lambda _at, _box: total.set(total.get() + 1))
    return fresh_sizes(ctx, (total.get(), 3))


@lowering("kiln.BoxRows")
def _box_rows(ctx: LowerContext) -> TensorExpr:
    b, out = ctx.b, ctx.result()

    def body(_at: At) -> None:
        found = b.scalar("int64", 0)

        def row(at: At, box: Expr) -> None:
            for i, value in enumerate((*at, box)):
                out.store((found.get(), index(i)), value)
            found.set(found.get() + 1)

        _each_kept(b, ctx.input(0), row)

    b.nest((), body)
    return out
