"""The rows of an input as sliding-window kernels read them: padded, with contiguous columns.

The kernels have a tile of neighbouring output columns in registers, so for each kernel position
they load a run of input columns. :class:`Rows` reads the input in place where possible. Otherwise
it copies the input once, padded. If the stride of the last dim is not 1, the copy is ordered by
phases, so that the columns of a run are contiguous: for stride 2, columns 0, 2, 4 ... and then 1,
3, 5 ...
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast, dtype_of, storage_dtype


@dataclass(frozen=True)
class Geometry:
    """A window in a kernel's terms: extents and leading padding are ints or expressions.

    ``guarded`` says for each spatial dim whether some window may leave the input.
    """

    kernel: tuple[Any, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[Any, ...]
    guarded: tuple[bool, ...]

    def along(self, dims: Collection[int]) -> Geometry:
        """The window along some dims only: one position, where it stands, along the others."""

        def kept(values: tuple[Any, ...], other: Any) -> tuple[Any, ...]:
            return tuple(v if d in dims else other for d, v in enumerate(values))

        return Geometry(
            kept(self.kernel, 1), kept(self.strides, 1), kept(self.dilations, 1),
            kept(self.begin, 0), kept(self.guarded, False),
        )  # fmt: skip

    @property
    def is_pointwise(self) -> bool:
        """Does every output read only the input at its own index?"""
        ones = all(as_int(k) == 1 for k in self.kernel) and all(s == 1 for s in self.strides)
        return ones and not any(self.guarded)


@dataclass(frozen=True)
class Columns:
    """Tiles of ``tile`` columns that cover ``extent`` columns.

    If they do not fit, the last tile begins earlier, to be full (``overlaps``), or it reaches past
    the end.
    """

    extent: Any
    tile: int

    @property
    def known(self) -> int | None:
        return as_int(self.extent)

    @property
    def overlaps(self) -> bool:
        return self.known is not None and self.known >= self.tile

    @property
    def count(self) -> Any:
        if self.known is not None:
            return -(-self.known // self.tile)
        return tirx.floordiv(self.extent + (self.tile - 1), index(self.tile))

    @property
    def pitch(self) -> Any:
        """Columns that the tiles touch."""
        return self.extent if self.overlaps else self.count * self.tile

    def start(self, t: Expr) -> Expr:
        if self.overlaps and self.known % self.tile:  # type: ignore[operator]
            return tirx.min(t * self.tile, index(self.extent - self.tile))
        return t * self.tile

    def each(self, b: Builder, start: Expr, body: Callable[[Expr], None]) -> None:
        """Run ``body(lane)`` for the lanes of the tile at ``start`` that are within the extent."""
        if self.overlaps:
            with b.lanes(self.tile) as lane:
                body(lane)
        elif self.known is not None:
            with b.loop(self.known) as lane:
                body(lane)
        else:
            with b.when(start + self.tile <= self.extent), b.lanes(self.tile) as lane:
                body(lane)
            with (
                b.when(start + self.tile > self.extent),
                b.loop(self.extent - start) as lane,
            ):
                body(lane)


@dataclass(frozen=True)
class Rows:
    """The input as rows; ``split`` if its last dim is ordered by phases."""

    data: BufferTensor
    geometry: Geometry
    split: bool

    @staticmethod
    def of(b: Builder, x: TensorExpr, geometry: Geometry, spatial: Sequence[Any],
           columns: Columns, fill: Expr) -> Rows:  # fmt: skip
        """The rows of ``x`` (N, C, ...) for ``spatial`` outputs, with ``fill`` as padding."""
        plain = isinstance(x, BufferTensor) and storage_dtype(x.dtype) == dtype_of(fill)
        whole = columns.overlaps and geometry.strides[-1] == 1
        if plain and whole and not any(geometry.guarded):
            assert isinstance(x, BufferTensor)
            return Rows(x, geometry, False)
        return Rows(_copy(b, x, geometry, spatial, columns, fill), geometry,
                    geometry.strides[-1] > 1)  # fmt: skip

    def locate(self, n: Expr, c: Expr, line: Sequence[Expr], k: Sequence[Expr]) -> list[Expr]:
        """Indices of the column that output column 0 of row ``line`` reads at ``k``."""
        g = self.geometry
        at = [n, c]
        for d, o in enumerate(line):
            at.append(o * g.strides[d] + k[d] * g.dilations[d])
        step = k[-1] * g.dilations[-1]
        if self.split:
            stride = index(g.strides[-1])
            return [*at, tirx.floormod(step, stride), tirx.floordiv(step, stride)]
        return [*at, step]

    def load(self, located: list[Expr], column: Expr) -> Expr:
        return self.data.at(*located[:-1], located[-1] + column)


def _copy(
    b: Builder, x: TensorExpr, g: Geometry, spatial: Sequence[Any], columns: Columns, fill: Expr
) -> BufferTensor:
    *outer, _ = spatial
    stride, reach = g.strides[-1], (g.kernel[-1] - 1) * g.dilations[-1]
    lines = [
        _lines(o, s, (k - 1) * d + 1)
        for o, s, k, d in zip(outer, g.strides, g.kernel, g.dilations, strict=False)
    ]
    shift = reach // stride if isinstance(reach, int) else tirx.floordiv(reach, index(stride))
    phases = [_phases(g)] if stride > 1 else []
    rows = b.workspace(
        (*x.shape[:2], *lines, *phases, columns.pitch + shift), dtype_of(fill), "rows"
    )

    def body(at: tuple[Expr, ...]) -> None:
        n, c, *line = at
        last = line[-1] * stride + line[-2] if stride > 1 else line[-1]
        rows.store(at, padded(x, g, (n, c), [*line[: len(outer)], last], fill))

    b.nest(rows.shape, body, cost=4 + x.cost)
    return rows


def _lines(count: Any, stride: int, reach: Any) -> Any:
    """Lines from the first to the last that ``count`` windows of ``reach`` lines read."""
    lines = (count - 1) * stride + reach
    known, length = as_int(lines), as_int(reach)
    if known is not None:
        return max(known, 0)
    # No windows leave less than nothing where a step is longer than a window.
    can_be_negative = length is None or length < stride
    return tirx.max(lines, index(0)) if can_be_negative else lines


def _phases(g: Geometry) -> int:
    k = as_int(g.kernel[-1])
    return g.strides[-1] if k is None or g.dilations[-1] > 1 else min(k, g.strides[-1])


def padded(
    x: TensorExpr, g: Geometry, lead: tuple[Expr, ...], at: Sequence[Expr], fill: Expr
) -> Expr:
    """The element at padded spatial indices ``at``, or ``fill`` where that is outside."""
    inside: list[Expr] = []
    where: list[Expr] = []
    for d, i in enumerate(at):
        extent = index(x.shape[len(lead) + d])
        i = i - g.begin[d]
        if g.guarded[d] or d == len(at) - 1:
            inside.append(tirx.all(i >= 0, i < extent))
            i = tirx.max(tirx.min(i, extent - 1), index(0))
        where.append(i)
    value = cast(x.at(*lead, *where), dtype_of(fill))
    return tirx.Select(tirx.all(*inside), value, fill)


__all__ = ["Columns", "Geometry", "Rows", "padded"]
