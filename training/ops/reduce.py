"""Reductions over axes, sums along an axis, the places of extremes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..emit import Call, Tensor, emits

_Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def root(x: Tensor, degree: float) -> Tensor:
    """``x ** (1 / degree)`` of ``x >= 0``, with a gradient of 0 where ``x`` is 0.

    The slope there is infinite, and times the slope of 0 of the powers that were summed up to ``x``
    it would be NaN.
    """
    at_zero = x == 0
    powers: Tensor = torch.where(at_zero, 1.0, x) ** (1.0 / degree)
    return torch.where(at_zero, 0.0, powers)


_REDUCTIONS: dict[str, _Reduce] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: root((x * x).sum(axes, keepdim=keep), 2),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep),
}


def _register(key: str, function: _Reduce) -> None:
    @emits(key)
    def emit(call: Call) -> Tensor:
        x, axes = call[0], call.ints(1)
        keep = bool(call.attr("keepdims"))
        if not axes:
            axes = [] if call.attr("noop_with_empty_axes") else list(range(x.dim()))
        if not axes:
            # One element each: what stays of the function, such as a magnitude or a square.
            return function(x.unsqueeze(0), (0,), False).to(x.dtype)
        return function(x, tuple(axes), keep).to(x.dtype)


for _key, _function in _REDUCTIONS.items():
    _register(_key, _function)


@emits("ArgMax")
def arg_max(call: Call) -> Tensor:
    return _place(call, torch.argmax)


@emits("ArgMin")
def arg_min(call: Call) -> Tensor:
    return _place(call, torch.argmin)


def _place(call: Call, find: Callable[..., Tensor]) -> Tensor:
    """The first place along the axis, or with ``select_last_index`` the last one."""
    x, axis, keep = call[0], call.attr("axis"), bool(call.attr("keepdims"))
    best = torch.take_along_dim(x, find(x, axis, keepdim=True), axis)
    places = torch.arange(x.shape[axis], device=x.device)
    places = places.reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))
    last = bool(call.attr("select_last_index"))
    found = torch.where(x == best, places, -1 if last else x.shape[axis])
    return found.amax(axis, keepdim=keep) if last else found.amin(axis, keepdim=keep)


@emits("CumSum")
def cum_sum(call: Call) -> Tensor:
    x, axis = call[0], int(call[1])
    x = x.flip(axis) if call.attr("reverse") else x
    if call.attr("exclusive") and x.shape[axis]:
        # Not the whole sum less the element, which an infinity would turn into NaN.
        first = torch.zeros_like(x.narrow(axis, 0, 1))
        x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    total = x.cumsum(axis, dtype=x.dtype)
    return total.flip(axis) if call.attr("reverse") else total


@emits("TopK")
def top_k(call: Call) -> list[Tensor]:
    """The ``k`` greatest or least along an axis, in order; of equal ones the first comes first."""
    x, count, axis = call[0], int(call[1]), call.attr("axis")
    order = torch.sort(x, dim=axis, descending=bool(call.attr("largest")), stable=True).indices
    order = order.narrow(axis, 0, count)
    return [torch.take_along_dim(x, order, axis), order]
