"""Sliding windows over arrays: what convolution and pooling share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..dims import Dim
from ..graph import Node
from ..registry import attribute
from ..windows import Window, conv_window, pool_window, window_output


@dataclass(frozen=True)
class Frame:
    """A sliding window over axes of known extents; every field has one entry for each axis.

    ``extra`` is padding after ``after`` that is only needed if ``ceil_mode`` rounded the output
    size up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    extra: tuple[int, ...]
    output: tuple[int, ...]

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Every position in the kernel."""
        return product(*(range(k) for k in self.kernel))

    def view(self, padded: np.ndarray, offset: Sequence[int]) -> np.ndarray:
        """The elements at kernel position ``offset`` of all windows: ``[..., *output]``, a view."""
        index: list[Any] = [
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, self.dilations, self.output, self.strides, strict=True)
        ]
        return at_end(padded, index)

    def pad(self, x: np.ndarray, value: Any) -> np.ndarray:
        """``x`` with the borders that windows reach into."""
        borders = [(b, a + e) for b, a, e in zip(self.before, self.after, self.extra, strict=True)]
        if not any(b or a for b, a in borders):
            return x
        widths = [(0, 0)] * (x.ndim - len(borders)) + borders
        return np.pad(x, widths, constant_values=value)


def at_end(x: np.ndarray, index: Sequence[Any]) -> np.ndarray:
    """``x[..., *index]``: indices of the last axes."""
    place: tuple[Any, ...] = (..., *index)
    view: np.ndarray = x[place]
    return view


def conv_frame(node: Node, spatial: Sequence[int], kernel: Sequence[int]) -> Frame:
    """The frame of a convolution with weights of extents ``kernel``."""
    return _frame(node, conv_window(node, tuple(spatial), tuple(kernel)), spatial)


def pool_frame(node: Node, spatial: Sequence[int]) -> Frame:
    """The frame of a pool."""
    return _frame(node, pool_window(node, tuple(spatial)), spatial)


def _frame(node: Node, window: Window, spatial: Sequence[int]) -> Frame:
    output = ints(window_output(window, tuple(spatial), bool(attribute(node, "ceil_mode"))))
    before, after = ints(window.begin), ints(window.end)
    extra = tuple(
        max(0, (count - 1) * stride + int(window.reach(i)) - extent - before[i] - after[i])
        for i, (count, stride, extent) in enumerate(
            zip(output, window.strides, spatial, strict=True)
        )
    )
    return Frame(
        ints(window.kernel), window.strides, window.dilations, before, after, extra, output
    )


def ints(dims: Sequence[Dim]) -> tuple[int, ...]:
    """Dims that are known to be ints."""
    return tuple(int(d) for d in dims)
