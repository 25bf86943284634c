"""Ops that other ops replace at import, without a function body in onnx's schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..ir.graph import Value
from ..ir.onnx_types import element_code
from .attention import group_query_attention
from .block_quantized import gather_block_quantized
from .boxes import non_max_suppression
from .emit import Emit
from .errors import ImportFault
from .gradient import gradient
from .ml import RULES
from .node import OnnxNode
from .ranks import RANK_RULES
from .scope import Slot
from .training import adagrad, adam, momentum

Expand = Callable[[OnnxNode, Emit], "Sequence[Slot] | None"]


def _affine_grid(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``grid[n, ..., y, x, :] = theta[n] @ (x, y, ..., 1)`` with coordinates in -1 to 1.

    ``theta`` is [N, s, s+1] for s = 2 or 3 spatial axes, the result [N, (D,) H, W, s]. The body
    in onnx's schema has values whose rank is only known at run time.
    """
    theta, size = node.required(0), node.required(1)
    dims = emit.dims(theta)
    spatial = dims[1] if len(dims) == 3 else 0
    if spatial not in (2, 3) or dims[2] != spatial + 1:
        raise ImportFault(f"theta must be [N, 2, 3] or [N, 3, 4], not {theta.type}")
    aligned = bool(node.attrs.get("align_corners", 0))
    total = _column(theta, spatial, spatial, emit)
    for i in range(spatial):
        axis = spatial - 1 - i
        places = [a for a in range(spatial + 1) if a != axis]
        line = _coordinates(emit("Gather", size, emit.scalar(2 + axis, size)), theta, aligned, emit)
        line = emit("Unsqueeze", line, emit.ints(places))
        total = emit("Add", total, emit("Mul", _column(theta, i, spatial, emit), line))
    return [total]


def _column(theta: Value, index: int, spatial: int, emit: Emit) -> Value:
    """``theta[:, :, index]`` as [N, 1, ..., 1, s]."""
    column = emit("Gather", theta, emit.ints([index]), axis=2)
    flat = emit("Squeeze", column, emit.ints([2]))
    return emit("Unsqueeze", flat, emit.ints(range(1, 1 + spatial)))


def _coordinates(count: Value, like: Value, aligned: bool, emit: Emit) -> Value:
    """Coordinates of ``count`` samples: the ends are at -1 and 1, or half a step inside."""
    zero, one, two = (emit.scalar(n, count) for n in (0, 1, 2))
    to = element_code(like.dtype)
    steps = emit("Range", zero, count, one)
    if aligned:
        number, parts = emit("Mul", steps, two), emit("Max", emit("Sub", count, one), one)
    else:
        number, parts = emit("Add", emit("Mul", steps, two), one), count
    ratio = emit("Div", emit("Cast", number, to=to), emit("Cast", parts, to=to))
    return emit("Sub", ratio, emit.scalar(1, like))


EXPANSIONS: Mapping[str, Expand] = {
    "AffineGrid": _affine_grid,
    "NonMaxSuppression": non_max_suppression,
    "com.microsoft.GatherBlockQuantized": gather_block_quantized,
    "com.microsoft.GroupQueryAttention": group_query_attention,
    "ai.onnx.preview.training.Adagrad": adagrad,
    "ai.onnx.preview.training.Adam": adam,
    "ai.onnx.preview.training.Gradient": gradient,
    "ai.onnx.preview.training.Momentum": momentum,
    **RANK_RULES,
    **RULES,
}
"""The expansion of each op, by key: gives the values of a node's outputs, or None to keep it."""
