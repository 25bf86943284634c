"""Sizes as tensors of integers, tensors made of sizes, and the checks of a run."""

from __future__ import annotations

from typing import Any

import torch

from ...errors import OperandError
from ...ir.interpreter import run_node
from ...ir.onnx_types import element_type
from ...ir.ops.shape import shape_window
from ..emit import Call, Tensor, emits
from ..tensors import to_array, to_tensor, torch_dtype


@emits("Shape")
def shape(call: Call) -> Tensor:
    dims = list(call[0].shape)
    return torch.tensor(dims[shape_window(call.attr("start") or 0, call.attr("end"), len(dims))])


@emits("Size")
def size(call: Call) -> Tensor:
    return torch.tensor(call[0].numel())


@emits("kiln.ShapeValue")
def shape_value(call: Call) -> Tensor:
    element = torch_dtype(element_type(call.attr("dtype")))
    return torch.tensor(call.attr("dims"), dtype=element).reshape(tuple(call.attr("shape")))


@emits("ConstantOfShape")
def constant_of_shape(call: Call) -> Tensor:
    value = call.attr("value")
    filler = torch.zeros(1) if value is None else to_tensor(value)
    return filler.reshape(()).expand(call.ints(0) or [])


@emits("Range")
def range_(call: Call) -> Tensor:
    start, limit, delta = (call[i].item() for i in range(3))
    return torch.arange(start, limit, delta, dtype=call.dtype, device=call[0].device)


@emits("EyeLike")
def eye_like(call: Call) -> Tensor:
    rows, columns = call[0].shape
    out = torch.zeros(rows, columns, dtype=call.dtype, device=call[0].device)
    out.diagonal(call.attr("k")).fill_(1)
    return out


# ---- checks --------------------------------------------------------------------------------------


@emits("kiln.Require")
def require(call: Call) -> Tensor:
    if not bool(call[1]):
        raise OperandError(f"{call.attr('message')}, which does not hold for these inputs")
    return call[0]


@emits("kiln.Assert", "kiln.Within")
def checked(call: Call) -> Any:
    """Checks have no gradient: the reference evaluates them."""
    results = run_node(call.node, [None if t is None else to_array(t) for t in call.inputs])
    return [to_tensor(r) for r in results]
