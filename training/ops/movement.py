"""Ops that move elements: views, slices, joins, borders."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import OperandError
from ...ir.ops.shape import reshape_shape
from ...ir.slices import python_slice
from ..emit import Call, Tensor, emits
from .products import borders

# ---- views ---------------------------------------------------------------------------------------


@emits("Reshape")
def reshape(call: Call) -> Tensor:
    target = call.ints(1) or []
    shape = reshape_shape(tuple(call[0].shape), target, bool(call.attr("allowzero")))
    return call[0].reshape([int(d) for d in shape])


@emits("kiln.Reshape")
def reshape_known(call: Call) -> Tensor:
    return call[0].reshape(tuple(call.attr("shape")))


@emits("Flatten")
def flatten(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis")
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


@emits("Squeeze")
def squeeze(call: Call) -> Tensor:
    axes = call.ints(1)
    return call[0].squeeze() if axes is None else call[0].squeeze(tuple(axes))


@emits("Unsqueeze")
def unsqueeze(call: Call) -> Tensor:
    x, axes = call[0], call.ints(1) or []
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@emits("Transpose")
def transpose(call: Call) -> Tensor:
    x = call[0]
    return x.permute(tuple(call.attr("perm") or reversed(range(x.dim()))))


@emits("Expand")
def expand(call: Call) -> Tensor:
    return call[0].expand(np.broadcast_shapes(tuple(call[0].shape), tuple(call.ints(1) or ())))


@emits("kiln.Expand")
def expand_known(call: Call) -> Tensor:
    return call[0].expand(tuple(call.attr("shape")))


@emits("Tile")
def tile(call: Call) -> Tensor:
    return call[0].repeat(call.ints(1) or [])


# ---- parts and joins -----------------------------------------------------------------------------


@emits("Concat")
def concat(call: Call) -> Tensor:
    return torch.cat(call.present, call.attr("axis"))


@emits("Split")
def split(call: Call) -> list[Tensor]:
    x, axis, sizes = call[0], call.attr("axis"), call.ints(1)
    if sizes is None:
        count = call.attr("num_outputs") or len(call.node.outputs)
        step = -(-x.shape[axis] // count)
        sizes = [min(step, x.shape[axis] - i * step) for i in range(count)]
    return list(torch.split(x, sizes, axis))


@emits("Slice")
def slice_(call: Call) -> Tensor:
    x, starts, ends = call[0], call.ints(1) or [], call.ints(2) or []
    axes, steps = call.ints(3), call.ints(4)
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        part = python_slice(start, end, step, x.shape[axis])
        x = _sliced(x, axis, range(x.shape[axis])[part])
    return x


@emits("kiln.Slice")
def slice_known(call: Call) -> Tensor:
    x = call[0]
    parts = zip(call.attr("starts"), call.attr("steps"), call.attr("shape"), strict=True)
    for axis, (start, step, count) in enumerate(parts):
        x = _sliced(x, axis, range(start, start + step * count, step))
    return x


def _sliced(x: Tensor, axis: int, places: range) -> Tensor:
    if places == range(x.shape[axis]):
        return x
    if places.step == 1:
        return x.narrow(axis, places.start, len(places)) if places else x.narrow(axis, 0, 0)
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))


@emits("Trilu")
def trilu(call: Call) -> Tensor:
    k = 0 if call.get(1) is None else int(call[1])
    return (torch.triu if call.attr("upper") else torch.tril)(call[0], k)


@emits("DepthToSpace")
def depth_to_space(call: Call) -> Tensor:
    x, block = call[0], call.attr("blocksize")
    n, c, h, w = x.shape
    if call.attr("mode") == "CRD":
        return F.pixel_shuffle(x, block)
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


@emits("SpaceToDepth")
def space_to_depth(call: Call) -> Tensor:
    x, block = call[0], call.attr("blocksize")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block)
    first = (1, 3, 5, 2, 4) if call.attr("mode") == "CRD" else (3, 5, 1, 2, 4)
    parts = parts.permute(0, *first)
    return parts.reshape(n, c * block**2, h // block, w // block)


# ---- borders -------------------------------------------------------------------------------------


@emits("Pad")
def pad(call: Call) -> Tensor:
    """Pad-25 in all its modes; negative pads cut off first."""
    x, pads, axes = call[0], call.ints(1) or [], call.ints(3)
    axes = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes]
    before, after = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    mode = call.attr("mode")
    if mode == "constant":
        filler = call.get(2)
        number = 0 if filler is None else filler.item()
        return F.pad(x, borders(before, after), value=number)
    for axis in range(x.dim()):
        x = _bordered(x, axis, before[axis], after[axis], mode)
    return x


def _bordered(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    if not before and not after:
        return x
    cut = np.arange(x.shape[axis])[max(0, -before) : x.shape[axis] - max(0, -after)]
    if mode not in ("reflect", "edge", "wrap"):
        raise OperandError(f"pads of mode {mode!r} do not run in PyTorch")
    widths = (max(0, before), max(0, after))
    places = np.pad(cut, widths, mode=mode)  # type: ignore[call-overload]
    return x.index_select(axis, torch.from_numpy(places).to(x.device))
