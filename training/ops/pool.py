"""Pools, over windows and over whole images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ...errors import OperandError
from ...ir.evaluators.windows import Frame, pool_frame
from ..emit import Call, Tensor, emits
from .products import borders
from .reduce import root

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {
    1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d,
}  # fmt: skip


@emits("MaxPool")
def max_pool(call: Call) -> Tensor | list[Tensor]:
    """MaxPool-22 over x [N, C, *spatial]; indices only where storage_order is 0."""
    x = call[0]
    frame = pool_frame(call.node, x.shape[2:])
    padded = _padded(x, frame, -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min)
    pool = _by_rank(_MAX, x.dim() - 2)
    indexed = len(call.node.outputs) > 1
    # Only floats have a kernel; these integers are small enough for a float to hold.
    work = padded if x.is_floating_point() else padded.to(torch.float64)
    found = pool(work, frame.kernel, frame.strides, 0, frame.dilations, return_indices=indexed)
    if not indexed:
        return _cut(found, frame).to(x.dtype)
    if call.attr("storage_order"):
        raise OperandError("indices by columns (storage_order 1) do not run in PyTorch")
    values, places = (_cut(t, frame) for t in found)
    return [values.to(x.dtype), _places(places, frame, x.shape, padded.shape)]


def _places(places: Tensor, frame: Frame, shape: torch.Size, padded: torch.Size) -> Tensor:
    """Flat indices in a whole tensor from those in each padded plane."""
    total = torch.zeros_like(places)
    step = 1
    for before, own, wide in reversed(
        list(zip(frame.before, shape[2:], padded[2:], strict=True))
    ):  # fmt: skip
        total = total + (places % wide - before) * step
        places = places // wide
        step *= own
    planes = torch.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
    return total + planes.to(total.device) * step


@emits("AveragePool")
def average_pool(call: Call) -> Tensor:
    """AveragePool-22 over x [N, C, *spatial]; what ``ceil_mode`` adds does not count."""
    x = call[0]
    frame = pool_frame(call.node, x.shape[2:])
    total = _window_sum(_padded(x, frame, 0.0), frame)
    if not any((*frame.before, *frame.after, *frame.extra)):
        return total / torch.Size(frame.kernel).numel()
    border = 1.0 if call.attr("count_include_pad") else 0.0
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    counted = F.pad(ones, borders(frame.before, frame.after), value=border)
    counted = F.pad(counted, borders([0] * len(frame.extra), frame.extra))
    return total / _window_sum(counted, frame)


@emits("LpPool")
def lp_pool(call: Call) -> Tensor:
    x, p = call[0], call.attr("p")
    frame = pool_frame(call.node, x.shape[2:])
    return root(_window_sum(_padded(x.abs() ** p, frame, 0.0), frame), p)


def _padded(x: Tensor, frame: Frame, value: float) -> Tensor:
    after = [a + e for a, e in zip(frame.after, frame.extra, strict=True)]
    if not any((*frame.before, *after)):
        return x
    return F.pad(x, borders(frame.before, after), value=value)


def _cut(x: Tensor, frame: Frame) -> Tensor:
    """The windows that the op has: padding may leave room for one more."""
    return _at_end(x, [slice(0, n) for n in frame.output])


def _window_sum(x: Tensor, frame: Frame) -> Tensor:
    """The sum of each window of a padded tensor."""
    if set(frame.dilations) == {1}:
        mean = _by_rank(_AVERAGE, len(frame.kernel))(x, frame.kernel, frame.strides)
        return _cut(mean, frame) * torch.Size(frame.kernel).numel()
    total = torch.zeros((*x.shape[:2], *frame.output), dtype=x.dtype, device=x.device)
    for offset in frame.offsets():
        starts = [o * d for o, d in zip(offset, frame.dilations, strict=True)]
        parts = [
            slice(start, start + (n - 1) * step + 1, step)
            for start, n, step in zip(starts, frame.output, frame.strides, strict=True)
        ]
        total = total + _at_end(x, parts)
    return total


def _at_end(x: Tensor, parts: list[slice]) -> Tensor:
    """Slices of the last axes."""
    place: tuple[Any, ...] = (..., *parts)
    return x[place]


def _by_rank(table: dict[int, Callable[..., Tensor]], rank: int) -> Callable[..., Tensor]:
    found = table.get(rank)
    if found is None:
        raise OperandError(f"pools over {rank} spatial dims do not run in PyTorch")
    return found


# ---- whole images --------------------------------------------------------------------------------


def _image(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@emits("GlobalAveragePool")
def global_average_pool(call: Call) -> Tensor:
    return call[0].mean(_image(call[0]), keepdim=True)


@emits("GlobalMaxPool")
def global_max_pool(call: Call) -> Tensor:
    return call[0].amax(_image(call[0]), keepdim=True)


@emits("GlobalLpPool")
def global_lp_pool(call: Call) -> Tensor:
    p = call.attr("p")
    return root((call[0].abs() ** p).sum(_image(call[0]), keepdim=True), p)
