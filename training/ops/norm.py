"""Softmax and the normalisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...errors import OperandError
from ...ir.onnx_types import element_type
from ..emit import Call, Tensor, emits
from ..tensors import torch_dtype


@emits("Softmax")
def softmax(call: Call) -> Tensor:
    return torch.softmax(call[0], call.attr("axis"))


@emits("LogSoftmax")
def log_softmax(call: Call) -> Tensor:
    return torch.log_softmax(call[0], call.attr("axis"))


@emits("Hardmax")
def hardmax(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis")
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


@emits("BatchNormalization", weights=(1, 2))
def batch_norm(call: Call) -> Tensor:
    """``scale * (x - mean) / sqrt(var + epsilon) + bias`` of given statistics, which stay.

    Only the inference form runs: it trains as an affine transform.
    """
    if call.attr("training_mode"):
        raise OperandError("batch normalization runs in its inference form only (training_mode 0)")
    x, scale, bias, mean, var = (call[i] for i in range(5))
    shape = [1, -1, *[1] * (x.dim() - 2)] if x.dim() > 1 else [-1]
    factor = scale * torch.rsqrt(var + call.attr("epsilon"))
    shift = bias - mean * factor
    return x * factor.reshape(shape) + shift.reshape(shape)


@emits("LayerNormalization", weights=(1, 2))
def layer_norm(call: Call) -> Tensor | list[Tensor]:
    x, bias = call[0], call.get(2)
    work = x.to(_stash(call, x))
    axes = tuple(range(call.attr("axis") % x.dim(), x.dim()))
    mean = work.mean(axes, keepdim=True)
    centred = work - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + call.attr("epsilon"))
    out = (centred * inverse).to(x.dtype) * call[1]
    out = out if bias is None else out + bias
    return [out, mean, inverse] if len(call.node.outputs) > 1 else out


@emits("RMSNormalization", weights=(1,))
def rms_norm(call: Call) -> Tensor:
    x = call[0]
    work = x.to(_stash(call, x))
    axes = tuple(range(call.attr("axis") % x.dim(), x.dim()))
    inverse = torch.rsqrt((work * work).mean(axes, keepdim=True) + call.attr("epsilon"))
    return (work * inverse).to(x.dtype) * call[1]


def _stash(call: Call, x: Tensor) -> torch.dtype:
    """The type to compute in: that of ``stash_type``, unless the input's is wider."""
    return torch.promote_types(torch_dtype(element_type(call.attr("stash_type"))), x.dtype)


@emits("InstanceNormalization", weights=(1, 2))
def instance_norm(call: Call) -> Tensor:
    x = call[0]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    normal = _standardized(x, tuple(range(2, x.dim())), call.attr("epsilon"))
    return normal * call[1].reshape(shape) + call[2].reshape(shape)


@emits("GroupNormalization", weights=(1, 2))
def group_norm(call: Call) -> Tensor:
    x = call[0]
    return F.group_norm(x, call.attr("num_groups"), call[1], call[2], call.attr("epsilon"))


def _standardized(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)


@emits("MeanVarianceNormalization")
def mean_variance_norm(call: Call) -> Tensor:
    x, axes = call[0], tuple(call.attr("axes"))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (torch.sqrt((centred * centred).mean(axes, keepdim=True)) + 1e-9)


@emits("LpNormalization")
def lp_norm(call: Call) -> Tensor:
    """``x`` by its norm along ``axis``, 0 where the norm is 0."""
    x, axis = call[0], call.attr("axis")
    norm = torch.linalg.vector_norm(x, call.attr("p"), axis, keepdim=True)
    return torch.where(norm == 0, 0.0, x / torch.where(norm == 0, 1.0, norm))


@emits("LRN")
def local_response(call: Call) -> Tensor:
    """``x / (bias + alpha / size * s) ** beta``, ``s`` the sum of squares of nearby channels."""
    x, size = call[0], call.attr("size")
    before = (size - 1) // 2
    squares = F.pad((x * x).movedim(1, -1), (before, size - 1 - before))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    scale = call.attr("bias") + call.attr("alpha") / size * total
    return x / scale ** call.attr("beta")
