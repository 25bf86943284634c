"""Images on blocked layouts as convolution kernels see them: two spatial dims and a border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir.dims import Dim
from ...ir.windows import Window
from ..tir.builder import BufferTensor, Builder, index

Expr = Any


@dataclass
class Image:
    """An input image of two spatial dims (H is 1 for 1-D), borders included."""

    tensor: BufferTensor
    height: Any
    width: Any
    block: int

    def turned(self, b: Builder) -> Image:
        """The image with height and width exchanged, where one of them is 1."""
        n, blocks = self.tensor.shape[:2]
        view = b.view(self.tensor, (n, blocks, self.width, self.height, self.block))
        return Image(view, self.width, self.height, self.block)


@dataclass(frozen=True)
class Geometry:
    """Window sizes as (height, width) pairs."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[Dim, Dim]
    end: tuple[Dim, Dim]

    @classmethod
    def of(cls, w: Window) -> Geometry:
        def pair(values: tuple[Any, ...], filler: int) -> tuple[Any, Any]:
            return (filler, values[0]) if len(values) == 1 else (values[0], values[1])

        return cls(
            pair(w.kernel, 1), pair(w.strides, 1), pair(w.dilations, 1), pair(w.begin, 0),
            pair(w.end, 0),
        )  # fmt: skip

    @property
    def padded(self) -> bool:
        return any(p != 0 for p in (*self.begin, *self.end))

    @property
    def vertical(self) -> bool:
        """Does the window leave the second dim alone?"""
        return (self.kernel[1], self.strides[1], self.begin[1], self.end[1]) == (1, 1, 0, 0)

    def turned(self) -> Geometry:
        """The geometry with height and width exchanged."""
        return Geometry(
            self.kernel[::-1], self.strides[::-1], self.dilations[::-1], self.begin[::-1],
            self.end[::-1],
        )  # fmt: skip


def as_image(b: Builder, x: BufferTensor) -> Image:
    """View ``[N, Cb, *S, c]`` with two spatial dims."""
    n, blocks, *spatial, block = x.shape
    height, width = spatial if len(spatial) == 2 else (1, spatial[0])
    view = x if len(spatial) == 2 else b.view(x, (n, blocks, 1, width, block))
    return Image(view, height, width, int(block))


def pad_image(b: Builder, image: Image, g: Geometry, value: int, slack: int = 0) -> Image:
    """The image with its border of ``value`` in workspace; itself where there is none.

    ``slack`` is how many positions past the right border kernels read without using them.
    """
    if not g.padded and not slack:
        return image
    top, left, right = b.dim(g.begin[0]), b.dim(g.begin[1]), b.dim(g.end[1]) + slack
    height = image.height + top + b.dim(g.end[0])
    width = image.width + left + right
    n, blocks = image.tensor.shape[:2]
    out = b.workspace((n, blocks, height, width, image.block), image.tensor.dtype, "padded")
    zero = tirx.const(value, image.tensor.compute_dtype)
    lanes = image.block

    def row(at: tuple[Expr, ...]) -> None:
        i, c, h = at
        inside = tirx.all(h >= index(top), h < index(top) + index(image.height))
        with b.when(inside):
            _fill(b, out, (i, c, h), 0, left, lanes, zero)
            with b.loop(image.width) as w:
                _lanes(b, lanes, lambda v: out.store(
                    (i, c, h, w + left, v), image.tensor[i, c, h - top, w, v]))  # fmt: skip
            _fill(b, out, (i, c, h), image.width + left, right, lanes, zero)
        with b.when(tirx.Not(inside)):
            _fill(b, out, (i, c, h), 0, width, lanes, zero)

    b.nest((n, blocks, height), row, cost=64 * lanes, sequential_last=True)
    return Image(out, height, width, image.block)


def _fill(
    b: Builder, out: BufferTensor, at: tuple[Expr, ...], start: Any, count: Any, lanes: int,
    value: Expr,
) -> None:  # fmt: skip
    with b.loop(count) as w:
        _lanes(b, lanes, lambda v: out.store((*at, w + start, v), value))


def _lanes(b: Builder, lanes: int, body: Callable[[Expr], None]) -> None:
    with b.loop(lanes, "vectorized" if lanes > 1 else "serial") as v:
        body(v)
