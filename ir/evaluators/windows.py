"""Sliding windows: what convolution and pooling share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute


@dataclass(frozen=True)
class Window:
    """A sliding window over spatial axes; every field has one entry an axis.

    ``extra`` is padding after ``after`` that only a rounded-up output size needs.
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
        """What kernel position ``offset`` sees: shape ``[..., *output]``, a view."""
        index: list[Any] = [
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, self.dilations, self.output, self.strides, strict=True)
        ]
        return at_end(padded, index)

    def pad(self, x: np.ndarray, value: Any) -> np.ndarray:
        """``x`` with the borders the window reaches into."""
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


def window_of(node: Node, spatial: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window that the attributes of a Conv or pooling node describe.

    ``spatial`` are the input's extents, ``kernel`` the kernel's. Raises ``ValueError`` where the
    kernel is larger than the padded input.
    """
    rank = len(spatial)
    strides = tuple(attribute(node, "strides") or (1,) * rank)
    dilations = tuple(attribute(node, "dilations") or (1,) * rank)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = _padding(node, spatial, spans, strides)
    ceil = bool(attribute(node, "ceil_mode"))
    output, extra = [], []
    for n, span, s, b, a in zip(spatial, spans, strides, before, after, strict=True):
        room = n + b + a - span
        steps = -(-room // s) if ceil else room // s
        if ceil and steps * s >= n + b:
            steps -= 1
        if steps < 0:
            raise ValueError(f"a window of {span} does not fit an extent of {n + b + a}")
        output.append(steps + 1)
        extra.append(max(0, steps * s - room))
    return Window(
        tuple(kernel), strides, dilations, before, after, tuple(extra), tuple(output)
    )


def _padding(
    node: Node, spatial: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(spatial)
    mode = attribute(node, "auto_pad") or "NOTSET"
    if mode == "NOTSET":
        pads = tuple(attribute(node, "pads") or (0,) * 2 * rank)
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [
        max(0, (-(-n // s) - 1) * s + span - n)
        for n, span, s in zip(spatial, spans, strides, strict=True)
    ]
    return split_padding(totals, upper=mode == "SAME_UPPER")


def split_padding(
    totals: Sequence[int], *, upper: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after; an odd one goes after where ``upper``, else before."""
    small = tuple(t // 2 for t in totals)
    large = tuple(t - t // 2 for t in totals)
    return (small, large) if upper else (large, small)
