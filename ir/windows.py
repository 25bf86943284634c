"""Geometry of sliding windows: convolutions and pools over symbolic spatial dims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OperandError
from .dims import Dim, ceil_div, dim_max, dim_min, is_static
from .graph import Node
from .registry import InferContext, attribute
from .types import Shape


@dataclass(frozen=True)
class Window:
    """A window over each spatial dim: its extent, steps and the padding before and after.

    ``mode`` is the ``auto_pad`` that the padding came from (``NOTSET``: given explicitly).
    """

    kernel: Shape
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: Shape
    end: Shape
    mode: str = "NOTSET"

    @property
    def rank(self) -> int:
        return len(self.kernel)

    def reach(self, i: int) -> Dim:
        """Input positions that the window spans along spatial dim ``i``."""
        return (self.kernel[i] - 1) * self.dilations[i] + 1

    @property
    def is_padded(self) -> bool:
        return any(p != 0 for p in (*self.begin, *self.end))


@dataclass(frozen=True)
class ConvShape:
    """What the tiling of a convolution depends on.

    ``channels`` and ``filters`` are those of one group; ``image`` are the spatial extents of the
    result (None: not known). ``integer``: the operands are bytes. Their sums may be known to be
    short (see :mod:`.short_sums`).
    """

    channels: int
    filters: int
    group: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    image: tuple[int | None, ...]
    integer: bool
    short_sums: bool = False


def conv_window(node: Node, spatial: Shape, kernel: Shape) -> Window:
    """The window of a convolution over ``spatial`` extents, automatic padding resolved.

    ``kernel`` comes from the weight's shape. Raises ``ValueError`` for attributes that do not fit.
    """
    given = attribute(node, "kernel_shape")
    if given and any(is_static(k) and k != g for k, g in zip(kernel, given, strict=True)):
        raise OperandError(f"kernel_shape {tuple(given)} differs from the weight's {tuple(kernel)}")
    return _resolve(node, spatial, kernel)


def pool_window(node: Node, spatial: Shape) -> Window:
    """The window of a pool; raises ``ValueError`` for attributes that do not fit."""
    kernel = attribute(node, "kernel_shape")
    if not kernel:
        raise OperandError("kernel_shape is missing")
    return _resolve(node, spatial, tuple(kernel))


def window_steps(node: Node, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and dilations of ``rank`` spatial dims, all positive (``ValueError`` otherwise)."""
    strides = _per_dim(node, "strides", rank, 1)
    dilations = _per_dim(node, "dilations", rank, 1)
    if any(v < 1 for v in (*strides, *dilations)):
        raise OperandError(f"strides {strides} and dilations {dilations} must be positive")
    return strides, dilations


def _resolve(node: Node, spatial: Shape, kernel: Shape) -> Window:
    rank = len(spatial)
    if len(kernel) != rank:
        raise OperandError(f"a kernel of rank {len(kernel)} does not fit {rank} spatial dims")
    strides, dilations = window_steps(node, rank)
    mode = attribute(node, "auto_pad") or "NOTSET"
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = _same_pads(spatial, kernel, strides, dilations, mode)
    elif mode == "VALID":
        begin, end = (0,) * rank, (0,) * rank
    elif mode == "NOTSET":
        pads = _per_dim(node, "pads", 2 * rank, 0)
        begin, end = pads[:rank], pads[rank:]
    else:
        raise OperandError(f"unknown auto_pad {mode!r}")
    return Window(kernel, strides, dilations, begin, end, mode)


def _per_dim(node: Node, name: str, count: int, default: int) -> tuple[int, ...]:
    values: Any = attribute(node, name)
    if not values:
        return (default,) * count
    if len(values) != count:
        raise OperandError(f"{name} has {len(values)} entries, not {count}")
    return tuple(int(v) for v in values)


def _same_pads(
    spatial: Shape,
    kernel: Shape,
    strides: Sequence[int],
    dilations: Sequence[int],
    mode: str,
) -> tuple[Shape, Shape]:
    begin: list[Dim] = []
    end: list[Dim] = []
    for extent, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        total = (ceil_div(extent, stride) - 1) * stride + (k - 1) * dilation + 1 - extent
        total = dim_max(total, 0)
        less = total // 2
        begin.append(less if mode == "SAME_UPPER" else total - less)
        end.append(total - less if mode == "SAME_UPPER" else less)
    return tuple(begin), tuple(end)


def window_output(window: Window, spatial: Shape, ceil_mode: bool = False) -> Shape:
    """Output extents of a window sliding over ``spatial``; raises ``ValueError`` if it does not
    fit.

    With ``ceil_mode`` a last partial window counts if it starts inside the image or its leading
    padding; automatic padding ignores ``ceil_mode``.
    """
    return tuple(_slides(window, i, extent, ceil_mode) for i, extent in enumerate(spatial))


def require_fit(ctx: InferContext, window: Window, spatial: Shape, ceil_mode: bool = False) -> None:
    """Record that a window must fit into the padded image.

    Automatic padding makes it fit; with ``ceil_mode`` part of it must fit.
    """
    if window.mode.startswith("SAME"):
        return
    for i, extent in enumerate(spatial):
        padded = extent + window.begin[i] + window.end[i]
        partial = window.strides[i] if ceil_mode and window.mode == "NOTSET" else 0
        why = f"a window that fits the padded spatial dim {i}"
        ctx.require_at_most(window.reach(i) - partial, padded, why)


def _slides(window: Window, i: int, extent: Dim, ceil_mode: bool) -> Dim:
    stride = window.strides[i]
    if window.mode.startswith("SAME"):
        return ceil_div(extent, stride)
    free = extent + window.begin[i] + window.end[i] - window.reach(i)
    partial = stride if ceil_mode and window.mode == "NOTSET" else 0
    if is_static(free) and free + partial < 0:
        raise OperandError(
            f"a window of {window.reach(i)} does not fit spatial dim {i} "
            f"of {extent} padded by {window.begin[i]} and {window.end[i]}"
        )
    if not ceil_mode or window.mode != "NOTSET":
        return free // stride + 1
    return dim_min(ceil_div(extent + window.begin[i], stride), ceil_div(free, stride) + 1)


def transpose_window(node: Node, spatial: Shape, kernel: Shape) -> tuple[Window, Shape]:
    """The window of a ConvTranspose over input ``spatial``, and its output's extents.

    The padding is what the output loses on either side, as ONNX's ConvTranspose-22 defines it.
    Raises ``ValueError`` for attributes that do not fit.
    """
    rank = len(spatial)
    strides, dilations = window_steps(node, rank)
    extra = _per_dim(node, "output_padding", rank, 0)
    full = tuple(
        stride * (n - 1) + e + (k - 1) * d + 1
        for n, k, stride, d, e in zip(spatial, kernel, strides, dilations, extra, strict=True)
    )
    mode = attribute(node, "auto_pad") or "NOTSET"
    wanted: Shape = tuple(attribute(node, "output_shape") or ())[-rank:]
    if not wanted and mode.startswith("SAME"):
        wanted = tuple(n * s for n, s in zip(spatial, strides, strict=True))
    if wanted:
        total = tuple(dim_max(f - w, 0) for f, w in zip(full, wanted, strict=True))
        less = tuple(t // 2 for t in total)
        more = tuple(t - h for t, h in zip(total, less, strict=True))
        begin, end = (less, more) if mode == "SAME_UPPER" else (more, less)
        return Window(kernel, strides, dilations, begin, end, mode), wanted
    pads = _per_dim(node, "pads", 2 * rank, 0) if mode == "NOTSET" else (0,) * (2 * rank)
    begin, end = pads[:rank], pads[rank:]
    out = tuple(f - b - e for f, b, e in zip(full, begin, end, strict=True))
    return Window(kernel, strides, dilations, begin, end, mode), out


def unpool_shape(node: Node, shape: Shape) -> Shape:
    """The smallest shape (N, C, ...) that a MaxPool with MaxUnpool's window pools to ``shape``."""
    kernel = attribute(node, "kernel_shape")
    rank = len(shape) - 2
    strides, _ = window_steps(node, rank)
    pads = _per_dim(node, "pads", 2 * rank, 0)
    ends = zip(pads[:rank], pads[rank:], strict=True)
    spatial = (
        (n - 1) * s - b - e + k
        for n, s, k, (b, e) in zip(shape[2:], strides, kernel, ends, strict=True)
    )
    return (*shape[:2], *spatial)


__all__ = [
    "Window",
    "conv_window",
    "pool_window",
    "require_fit",
    "transpose_window",
    "unpool_shape",
    "window_output",
    "window_steps",
]
