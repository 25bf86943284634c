"""Type inference of ``DFT`` and ``STFT``."""

from __future__ import annotations

from typing import Any

from ..axes.indexing import dft, stft
from ..dims import Dim
from ..registry import InferContext, op
from ..shapes import normalize_axis
from ..types import Shape, Type


def dft_axis(ctx: Any, rank: int) -> int | None:
    """The axis of a DFT node (an infer or lower context), or None until it runs."""
    if not ctx.has(2):
        return rank - 2
    known = ctx.known(2)
    return None if known is None else normalize_axis(int(known.reshape(-1)[0]), rank)


def _bins(ctx: InferContext, n: Dim) -> Dim:
    """Length of the transformed axis for a transform of length ``n``."""
    return n // 2 + 1 if ctx.attr("onesided") and not ctx.attr("inverse") else n


def _check_complex(ctx: InferContext, shape: Shape) -> None:
    if len(shape) < 2 or shape[-1] not in (1, 2):
        raise ctx.error(f"the last axis must hold 1 (real) or 2 (complex) values, not {shape}")
    if ctx.attr("onesided") and not ctx.attr("inverse") and shape[-1] == 2:
        raise ctx.error("a one-sided transform takes a real signal")


@op(
    "DFT",
    axes=dft,
)
def _infer_dft(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    _check_complex(ctx, x.dims)
    real = ctx.attr("inverse") and ctx.attr("onesided")
    axis = dft_axis(ctx, x.rank)
    if axis is None and not ctx.has(1) and not ctx.attr("onesided"):
        lead: Shape = x.dims[:-1]  # whatever the axis is
    elif axis is None:
        lead = tuple(ctx.fresh_dim() for _ in x.dims[:-1])
    else:
        if axis == x.rank - 1:
            raise ctx.error("cannot transform the axis of real and imaginary parts")
        lead = (*x.dims[:axis], _transformed(ctx, x.dims[axis]), *x.dims[axis + 1 : -1])
    return [x.with_shape((*lead, 1 if real else 2))]


def _transformed(ctx: InferContext, extent: Dim) -> Dim:
    known = ctx.known(1)
    if ctx.has(1):
        ctx.require_values(1, 1, None, "a positive dft_length")
    if known is not None:
        return _bins(ctx, known.reshape(-1)[0].item())
    if ctx.has(1):
        return ctx.fresh_dim()
    both = ctx.attr("inverse") and ctx.attr("onesided")
    return 2 * (extent - 1) if both else _bins(ctx, extent)


@op(
    "STFT",
    axes=stft,
)
def _infer_stft(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    _check_complex(ctx, x.dims)
    if x.rank != 3:
        raise ctx.error(f"the signal must be [batch, length, 1 or 2], not {x}")
    n = _stft_length(ctx, x.dims[1])
    step = ctx.known(1)
    ctx.require_values(1, 1, None, "a positive frame_step")
    if n is not None:
        ctx.require_at_most(n, x.dims[1], "frames no longer than the signal")
        ctx.require_at_most(1, n, "frames of at least 1 sample")
    if ctx.has(3):
        ctx.require_values(3, 1, x.dims[1], "a frame_length within the signal")
        if ctx.has(2):
            window = ctx.tensor(2).dims[0]
            ctx.require_values(3, window, window, "a window of one frame's length")
    if step is None or n is None:
        frames: Dim = ctx.fresh_dim()
    else:
        frames = (x.dims[1] - n) // step.reshape(-1)[0].item() + 1
    bins = ctx.fresh_dim() if n is None else _bins(ctx, n)
    return [x.with_shape((x.dims[0], frames, bins, 2))]


def _stft_length(ctx: InferContext, signal: Dim) -> Dim | None:
    """The frame length, or None until it is read at run time."""
    if ctx.has(2):
        return ctx.tensor(2).dims[0]
    if not ctx.has(3):
        return signal
    known = ctx.known(3)
    return None if known is None else known.reshape(-1)[0].item()
