"""Images on blocked layouts as convolution kernels see them, with borders.

There are at least two spatial dims. The last two are rows and columns; a 1-D input is an image of
one row. The dims before them, such as the depth of a volume, only add loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir.dims import Dim
from ...ir.windows import Window
from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor, Builder
from ..tir.extents import as_int, index

Expr = Any


@dataclass
class Image:
    """An input image ``[N, Cb, *extents, block]`` of two spatial dims or more, with its border."""

    tensor: BufferTensor

    @property
    def extents(self) -> tuple[Any, ...]:
        return self.tensor.shape[2:-1]

    @property
    def height(self) -> Any:
        return self.extents[-2]

    @property
    def width(self) -> Any:
        return self.extents[-1]

    @property
    def block(self) -> int:
        return int(self.tensor.shape[-1])

    def reordered(self, b: Builder, order: Sequence[int]) -> Image:
        """A view with the dims in another order, for which only dims of size 1 may move."""
        n, blocks = self.tensor.shape[:2]
        extents = (self.extents[i] for i in order)
        return Image(b.view(self.tensor, (n, blocks, *extents, self.block)))


@dataclass(frozen=True)
class Geometry:
    """Window sizes and padding, one element for each spatial dim of an :class:`Image`."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[Dim, ...]
    end: tuple[Dim, ...]

    @classmethod
    def of(cls, w: Window) -> Geometry:
        def filled(values: tuple[Any, ...], filler: int) -> tuple[Any, ...]:
            return (filler, *values) if len(values) == 1 else tuple(values)

        return cls(
            filled(w.kernel, 1), filled(w.strides, 1), filled(w.dilations, 1), filled(w.begin, 0),
            filled(w.end, 0),
        )  # fmt: skip

    @property
    def padded(self) -> bool:
        return any(p != 0 for p in (*self.begin, *self.end))

    def leaves_alone(self, i: int) -> bool:
        """Is each output along dim ``i`` computed from the input at the same index alone?"""
        return (self.kernel[i], self.strides[i], self.begin[i], self.end[i]) == (1, 1, 0, 0)

    def reordered(self, order: Sequence[int]) -> Geometry:
        """The geometry with the dims in another order."""

        def moved(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in order)

        return Geometry(
            moved(self.kernel), moved(self.strides), moved(self.dilations), moved(self.begin),
            moved(self.end),
        )  # fmt: skip


def as_image(b: Builder, x: BufferTensor) -> Image:
    """A view of ``[N, Cb, *S, c]`` with at least two spatial dims: 1-D gets a height of 1."""
    n, blocks, *spatial, block = x.shape
    return Image(x if len(spatial) > 1 else b.view(x, (n, blocks, 1, *spatial, block)))


def long_rows(image: Image, g: Geometry) -> tuple[int, ...]:
    """The order of dims that makes rows long: dims of size 1 come first, so a column becomes a row.

    Only dims move that the window leaves alone. Memory stays as it is, since their size is 1.
    """
    dims = range(len(image.extents))
    return tuple(sorted(dims, key=lambda i: as_int(image.extents[i]) != 1 or not g.leaves_alone(i)))


def element(ctx: TemplateContext, i: int) -> Expr:
    """Operand ``i``, a scalar; 0 of the type of the image where it is not given."""
    return ctx.input(i)[()] if ctx.has(i) else tirx.const(0, ctx.input(0).compute_dtype)


def pad_image(b: Builder, image: Image, g: Geometry, value: Expr, slack: int = 0) -> Image:
    """A copy of the image with a border of ``value``, or the image itself if it needs no border.

    ``slack`` columns more are added on the right, for kernels that read past the border (and use
    nothing of what they read there).
    """
    if not g.padded and not slack:
        return image
    *before, left = (b.dim(p) for p in g.begin)
    *after, right = (b.dim(p) for p in g.end)
    right = right + slack
    *inner, columns = image.extents
    outer = [e + p + q for e, p, q in zip(inner, before, after, strict=True)]
    width = columns + left + right
    n, blocks = image.tensor.shape[:2]
    out = b.workspace((n, blocks, *outer, width, image.block), image.tensor.dtype, "padded")
    lanes = image.block

    def row(at: tuple[Expr, ...]) -> None:
        i, c, *place = at
        borders = list(zip(place, before, inner, strict=True))
        source = [p - first for p, first, _ in borders]
        limits = [
            t for p, first, extent in borders
            for t in (p >= index(first), p < index(first) + index(extent))
        ]  # fmt: skip
        inside = tirx.all(*limits)
        with b.when(inside):
            _fill(b, out, at, 0, left, lanes, value)
            with b.loop(columns) as w:
                _lanes(b, lanes, lambda v: out.store(
                    (*at, w + left, v), image.tensor[(i, c, *source, w, v)]))  # fmt: skip
            _fill(b, out, at, columns + left, right, lanes, value)
        with b.when(tirx.Not(inside)):
            _fill(b, out, at, 0, width, lanes, value)

    b.nest((n, blocks, *outer), row, cost=64 * lanes, sequential_last=True)
    return Image(out)


def _fill(
    b: Builder, out: BufferTensor, at: tuple[Expr, ...], start: Any, count: Any, lanes: int,
    value: Expr,
) -> None:  # fmt: skip
    with b.loop(count) as w:
        _lanes(b, lanes, lambda v: out.store((*at, w + start, v), value))


def _lanes(b: Builder, lanes: int, body: Callable[[Expr], None]) -> None:
    with b.loop(lanes, "vectorized" if lanes > 1 else "serial") as v:
        body(v)
