"""Matrix products, einsum, convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...errors import OperandError
from ...ir.evaluators.windows import conv_frame
from ...ir.registry import attribute
from ...ir.windows import transpose_window
from ..emit import Call, Tensor, emits

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d,
}  # fmt: skip


@emits("MatMul", weights=(0, 1))
def matmul(call: Call) -> Tensor:
    return torch.matmul(call[0], call[1])


@emits("Gemm", weights=(0, 1, 2))
def gemm(call: Call) -> Tensor:
    """``alpha * A' * B' + beta * C``, where A' and B' may be transposed."""
    a = call[0].T if call.attr("transA") else call[0]
    b = call[1].T if call.attr("transB") else call[1]
    alpha, beta, c = call.attr("alpha"), call.attr("beta"), call.get(2)
    product = torch.matmul(a, b)
    product = product if alpha == 1 else alpha * product
    if c is None:
        return product
    return product + (c if beta == 1 else beta * c)


@emits("Einsum", weights=(0, 1))
def einsum(call: Call) -> Tensor:
    return torch.einsum(call.attr("equation").replace(" ", ""), *call.present)


@emits("Conv", weights=(1, 2))
def conv(call: Call) -> Tensor:
    """Conv-22 over x [N, C, *spatial] by w [M, C/group, *kernel], of one to three spatial dims."""
    x, w = call[0], call[1]
    frame = conv_frame(call.node, x.shape[2:], w.shape[2:])
    pads: tuple[int, ...] = frame.before
    if frame.before != frame.after:
        x = F.pad(x, borders(frame.before, frame.after))
        pads = (0,) * len(frame.before)
    convolve = _by_rank(_CONV, x.dim() - 2)
    return convolve(
        x, w, call.get(2), frame.strides, pads, frame.dilations, attribute(call.node, "group")
    )


@emits("ConvTranspose", weights=(1, 2))
def conv_transpose(call: Call) -> Tensor:
    """ConvTranspose-22: the whole result without a bias, cut to what the padding leaves."""
    x, w, bias = call[0], call[1], call.get(2)
    rank = x.dim() - 2
    window, spatial = transpose_window(call.node, tuple(x.shape[2:]), tuple(w.shape[2:]))
    convolve = _by_rank(_TRANSPOSED, rank)
    full = convolve(
        x, w, None, window.strides, 0, 0, attribute(call.node, "group"), window.dilations
    )
    begin, extents = [_int(b) for b in window.begin], [_int(n) for n in spatial]
    after = [b + n - have for b, n, have in zip(begin, extents, full.shape[2:], strict=True)]
    out = F.pad(full, borders([-b for b in begin], after))
    return out if bias is None else out + bias.reshape(-1, *[1] * rank)


def borders(before: list[int] | tuple[int, ...], after: list[int] | tuple[int, ...]) -> list[int]:
    """Padding of the last axes as ``F.pad`` takes it: last axis first, pairs of before and after.

    Negative numbers cut off.
    """
    pairs = zip(reversed(list(before)), reversed(list(after)), strict=True)
    return [n for pair in pairs for n in pair]


def _int(d: object) -> int:
    if not isinstance(d, int):
        raise OperandError(f"a size of {d} has no value")
    return d


def _by_rank(table: dict[int, Callable[..., Tensor]], rank: int) -> Callable[..., Tensor]:
    found = table.get(rank)
    if found is None:
        raise OperandError(f"convolutions over {rank} spatial dims do not run in PyTorch")
    return found
