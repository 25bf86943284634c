"""Gathers and scatters by tensors of indices."""

from __future__ import annotations

import torch

from ...errors import OperandError
from ..emit import Call, Tensor, emits

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _from_front(indices: Tensor, size: int) -> Tensor:
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@emits("Gather", weights=(0,))
def gather(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis") % call[0].dim()
    indices = _from_front(call[1], x.shape[axis])
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@emits("GatherElements")
def gather_elements(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis")
    return torch.gather(x, axis, _from_front(call[1], x.shape[axis]))


@emits("GatherND")
def gather_nd(call: Call) -> Tensor:
    x, indices, batch = call[0], call[1].long(), call.attr("batch_dims")
    lead = [
        torch.arange(n, device=x.device).reshape(-1, *[1] * (indices.dim() - 2 - i))
        for i, n in enumerate(indices.shape[:batch])
    ]
    return x[(*lead, *indices.unbind(-1))]


@emits("ScatterElements")
def scatter_elements(call: Call) -> Tensor:
    """Of duplicates without a reduction, which one stays is not defined."""
    x, axis, updates, how = call[0], call.attr("axis"), call[2], call.attr("reduction")
    indices = _from_front(call[1], x.shape[axis])
    if how == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, _REDUCE[how])


@emits("ScatterND")
def scatter_nd(call: Call) -> Tensor:
    """With a reduction only where that is a sum."""
    x, where, how = call[0], call[1].long().unbind(-1), call.attr("reduction")
    if how not in ("none", "add"):
        raise OperandError(f"a scatter of slices with reduction {how!r} does not run in PyTorch")
    return x.index_put(where, call[2], accumulate=how == "add")


@emits("ai.onnx.ml.ArrayFeatureExtractor")
def array_feature_extractor(call: Call) -> Tensor:
    x = call[0] if call[0].dim() > 1 else call[0].unsqueeze(0)
    return x.index_select(-1, call[1].reshape(-1).long())


@emits("OneHot")
def one_hot(call: Call) -> Tensor:
    indices, depth, values = call[0], int(call[1]), call[2]
    axis = call.attr("axis") % (indices.dim() + 1)
    places = indices.unsqueeze(axis).trunc() if indices.is_floating_point() else (
        indices.unsqueeze(axis)
    )  # fmt: skip
    steps = torch.arange(depth, device=indices.device)
    steps = steps.reshape(-1, *[1] * (indices.dim() - axis))
    return torch.where((places == steps) | (places == steps - depth), values[1], values[0])


@emits("Compress")
def compress(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis")
    places = call[1].nonzero().reshape(-1)
    return x.reshape(-1)[places] if axis is None else x.index_select(axis, places)


@emits("NonZero")
def non_zero(call: Call) -> Tensor:
    return call[0].nonzero().T


@emits("ReverseSequence")
def reverse_sequence(call: Call) -> Tensor:
    x, lengths = call[0], call[1].long()
    time, batch = call.attr("time_axis"), call.attr("batch_axis")
    steps = torch.arange(x.shape[time], device=x.device).unsqueeze(1)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    shape = [1] * x.dim()
    shape[time], shape[batch] = x.shape[time], x.shape[batch]
    places = places if time < batch else places.T
    return torch.take_along_dim(x, places.reshape(shape), time)
