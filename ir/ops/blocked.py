"""Dialect ops over blocked layouts (see :mod:`..packing`); the layout pass creates them.

Their types describe the memory, so a blocked image has rank 5. Channels past the logical number, in
the last block, have values that must not be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..axes.blocked import blocked_convolution, blocked_depthwise
from ..axes.movement import (
    blocked_channels,
    depth_to_space_blocked,
    plain_channels,
    select_channels,
)
from ..axes.product import packed_product
from ..axes.window import blocked_pool
from ..choices import DIRECT
from ..dims import ceil_div
from ..graph import Node, Output
from ..interpreter import run_node
from ..packing import (
    pack_channels,
    unpack_channels,
    unpack_conv_weight,
    unpack_depthwise_weight,
    unpack_matmul_weight,
)
from ..registry import InferContext, attribute, op
from ..split_weights import SplitWeights, join_pairs
from ..traits import Trait
from ..types import DType, TensorType, Type, dtype
from ..windows import Window, conv_window, pool_window, window_output
from . import flops

DOMAIN = "kiln"
_HEAVY = (Trait.ANCHOR, Trait.CONTRACTION)


def blocked_layout(rank: int, block: int) -> str:
    """The layout tag of a blocked tensor with ``rank`` spatial dims."""
    return f"NC{'DHW'[3 - rank :] if rank <= 3 else rank}{block}c"


def _run_plain(op_name: str, attrs: dict[str, Any], inputs: list[Any]) -> np.ndarray:
    """Evaluate a standard op through the interpreter."""
    node = Node(op_name, "", op_name.lower(), attrs, [Output("y", None)], 0)
    result = run_node(node, inputs)[0]
    assert isinstance(result, np.ndarray)
    return result


def _plain_window(node: Node) -> dict[str, Any]:
    names = ("kernel_shape", "strides", "pads", "dilations", "ceil_mode", "count_include_pad")
    return {k: node.attrs[k] for k in names if k in node.attrs}


# ---- layout transforms ---------------------------------------------------------------------------


def _evaluate_pack(node: Node, inputs: list[Any]) -> list[Any]:
    return [pack_channels(inputs[0], int(node.attrs["block"]))]  # type: ignore[arg-type]


@op(
    "PackChannels", domain=DOMAIN, arity=(1, 1), evaluate=_evaluate_pack, traits=(Trait.INJECTIVE,),
    doc="[N, C, *S] to [N, ceil(C/block), *S, block]; channels past C are zero.",
    axes=blocked_channels,
)  # fmt: skip
def _infer_pack(ctx: InferContext) -> list[Type]:
    x, block = ctx.tensor(0), ctx.attr("block")
    n, c, *spatial = x.dims
    shape = (n, ceil_div(c, block), *spatial, block)
    return [TensorType(x.dtype, shape, blocked_layout(len(spatial), block))]


def _evaluate_unpack(node: Node, inputs: list[Any]) -> list[Any]:
    return [unpack_channels(inputs[0], int(node.attrs["channels"]))]  # type: ignore[arg-type]


@op(
    "UnpackChannels", domain=DOMAIN, arity=(1, 1), evaluate=_evaluate_unpack,
    traits=(Trait.INJECTIVE, Trait.MOVEMENT), doc="[N, Cb, *S, block] to [N, channels, *S].",
    axes=plain_channels,
)  # fmt: skip
def _infer_unpack(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    n, _, *spatial, _ = x.dims
    return [TensorType(x.dtype, (n, ctx.attr("channels"), *spatial))]


def picked_channels(runs: Sequence[int]) -> list[tuple[int, int]]:
    """The (input, channel) behind each channel of a ``kiln.SelectChannels``."""
    out = []
    for i in range(0, len(runs), 4):
        source, first, step, count = runs[i : i + 4]
        out += [(source, first + step * j) for j in range(count)]
    return out


def channel_runs(picks: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The attribute ``runs`` for picked channels."""
    out: list[list[int]] = []
    for source, channel in picks:
        last = out[-1] if out else None
        if last is not None and last[0] == source:
            step = channel - (last[1] + last[2] * (last[3] - 1))
            if last[3] == 1 and step > 0:
                last[2] = step
            if step == last[2]:
                last[3] += 1
                continue
        out.append([source, channel, 1, 1])
    return tuple(v for run in out for v in run)


def _evaluate_select(node: Node, inputs: list[Any]) -> list[Any]:
    block = int(node.attrs["block"])  # type: ignore[arg-type]
    plain = [unpack_channels(x, x.shape[1] * block) for x in inputs]
    picks = picked_channels(node.attrs["runs"])  # type: ignore[arg-type]
    return [pack_channels(np.stack([plain[i][:, c] for i, c in picks], axis=1), block)]


@op(
    "SelectChannels", domain=DOMAIN, arity=(1, 2**31), evaluate=_evaluate_select,
    doc="Channels of blocked inputs [N, Cb, *S, block] in another order: concatenation, slices and "
    "shuffles. Attribute runs: (input, first channel, step, count) of each run of channels.",
    axes=select_channels,
)  # fmt: skip
def _infer_select(ctx: InferContext) -> list[Type]:
    x, block = ctx.tensor(0), ctx.attr("block")
    picks = picked_channels(ctx.attr("runs"))
    return [x.with_shape((x.dims[0], ceil_div(len(picks), block), *x.dims[2:]))]


def _evaluate_depth_to_space(node: Node, inputs: list[Any]) -> list[Any]:
    (x,) = inputs
    kh, kw = (int(k) for k in attribute(node, "window"))
    n, blocks, height, width, block = x.shape
    parts = x.reshape(n, kh, kw, blocks // (kh * kw), height, width, block)
    moved = parts.transpose(0, 3, 4, 1, 5, 2, 6)
    return [moved.reshape(n, blocks // (kh * kw), height * kh, width * kw, block)]


@op(
    "DepthToSpaceBlocked", domain=DOMAIN, arity=(1, 1), evaluate=_evaluate_depth_to_space,
    traits=(Trait.INJECTIVE, Trait.MOVEMENT),
    doc="[N, kh*kw*Cb, H, W, block] to [N, Cb, H*kh, W*kw, block]: every window holds what was one "
    "position. Attribute window: (kh, kw).",
    axes=depth_to_space_blocked,
)  # fmt: skip
def _infer_depth_to_space(ctx: InferContext) -> list[Type]:
    x, (kh, kw) = ctx.tensor(0), ctx.attr("window")
    n, blocks, height, width, block = x.dims
    if not isinstance(blocks, int) or blocks % (kh * kw):
        raise ctx.error(f"{blocks} blocks are not whole windows of {kh}x{kw}")
    return [x.with_shape((n, blocks // (kh * kw), height * kh, width * kw, block))]


# ---- convolution ---------------------------------------------------------------------------------


def blocked_conv_window(node: Node, x: TensorType, w: TensorType) -> Window:
    """The window of a ``kiln.ConvBlocked`` or ``kiln.DepthwiseBlocked`` node."""
    kernel = w.dims[1:-1] if node.op == "DepthwiseBlocked" else w.dims[3:-2]
    if int(attribute(node, "depth")) > 1:  # the last dim of packed weights counts steps
        kernel = tuple(attribute(node, "kernel_shape"))
    return conv_window(node, x.dims[2:-1], kernel)


def _evaluate_conv(node: Node, inputs: list[Any]) -> list[Any]:
    x, w, *rest = inputs
    channels, out = int(attribute(node, "in_channels")), int(attribute(node, "out_channels"))
    split, border = ([], rest[1:]) if node.op == "DepthwiseBlocked" else (rest[1:4], rest[4:])
    weight, group = plain_conv_weight(node, joined_weights(w, split, tiles=2))
    attrs, image = _plain_window(node), x_plain(x, channels)
    exact = image.dtype.kind != "f"
    if exact:  # sums of 8-bit products are exact in float64
        image, weight = _padded(image, attrs, int(border[0]) if border else 0), _wide(weight)
    bias = [_wide_if(exact, b.reshape(-1)[:out]) for b in rest[:1] if b is not None]
    given = [image, weight, *bias]
    y = _run_plain("Conv", {**attrs, "group": group}, given)
    return [pack_channels(y.astype(np.int32) if exact else y, int(attribute(node, "block")))]


def joined_weights(w: np.ndarray, split: Sequence[np.ndarray | None], tiles: int) -> np.ndarray:
    """Packed weights, with the residual, its steps and its starts where steps are listed.

    The first ``tiles`` dims of the weights count tiles.
    """
    residual, steps, starts = [*split, None, None, None][:3]
    if residual is None:
        return w
    assert steps is not None and starts is not None
    return join_pairs(SplitWeights(w, residual, steps, starts), tiles)


def plain_conv_weight(node: Node, w: np.ndarray) -> tuple[np.ndarray, int]:
    """The weights of a blocked convolution as ``Conv`` takes them, and its groups."""
    channels, depth = int(attribute(node, "in_channels")), int(attribute(node, "depth"))
    if node.op == "DepthwiseBlocked":
        width = attribute(node, "kernel_shape")[-1] if depth > 1 else None
        return unpack_depthwise_weight(w, channels, depth, width), channels
    group, out = int(attribute(node, "group") or 1), int(attribute(node, "out_channels"))
    return unpack_conv_weight(w, out, channels // group, depth), group


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


def _wide_if(condition: bool, x: np.ndarray) -> np.ndarray:
    return _wide(x) if condition else x


def _padded(x: np.ndarray, attrs: dict[str, Any], value: int) -> np.ndarray:
    """``x`` in float64 with a border of ``value``; removes the pads from ``attrs``."""
    pads = tuple(attrs.pop("pads", ())) or (0,) * (2 * (x.ndim - 2))
    half = len(pads) // 2
    widths = [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)]
    return np.pad(_wide(x), widths, constant_values=value)


def x_plain(x: np.ndarray, channels: int) -> np.ndarray:
    """The logical channels of a blocked tensor, channels first."""
    return unpack_channels(x, channels)


@op(
    "ConvBlocked", domain=DOMAIN, arity=(2, 7), evaluate=_evaluate_conv,
    traits=(*_HEAVY, Trait.PARAMETRIC), flops=flops.blocked_convolution,
    defaults={"group": 1, "depth": 1, "algorithm": DIRECT},
    doc="Conv on [N, Cb, *S, c] with weights packed as [g, Mt, Cb/g, *K, c, t] and an optional "
    "bias [Mb, 1, .., block]; the result is [N, Mb, *S', block]. Attributes: Conv's, and "
    "in_channels, out_channels, block. 8-bit integers sum up in int32: their weights are packed by "
    "depth. Three more inputs list steps of the weights (see ir/split_weights.py): the residual, "
    "its steps and its starts. They are added to the weights, which have no columns where all "
    "steps are listed. A fourth is the element in the border (without it: 0). The "
    "attribute algorithm (direct, winograd_4x4, "
    "winograd_2x2) is how the target's kernel computes.",
    axes=blocked_convolution,
)  # fmt: skip
@op(
    "DepthwiseBlocked", domain=DOMAIN, arity=(2, 4), evaluate=_evaluate_conv,
    traits=(*_HEAVY, Trait.PARAMETRIC), flops=flops.blocked_depthwise, defaults={"depth": 1},
    doc="Depthwise Conv on [N, Cb, *S, c] with weights packed as [Cb, *K, c], an optional bias "
    "[Cb, 1, .., c] and, of 8-bit integers as in kiln.ConvBlocked, the element in the border.",
    axes=blocked_depthwise,
)  # fmt: skip
def _infer_conv(ctx: InferContext) -> list[Type]:
    x, w = ctx.tensor(0), ctx.tensor(1)
    block = ctx.attr("block")
    spatial = window_output(blocked_conv_window(ctx.node, x, w), x.dims[2:-1])
    blocks = ceil_div(ctx.attr("out_channels"), block)
    shape = (x.dims[0], blocks, *spatial, block)
    return [TensorType(sum_type(x), shape, blocked_layout(len(spatial), block))]


def sum_type(x: TensorType) -> DType:
    """The element type of products of ``x`` with weights, summed: int32 for integers."""
    return dtype("int32") if x.dtype.is_integer else x.dtype


# ---- pooling -------------------------------------------------------------------------------------


def _evaluate_pool(node: Node, inputs: list[Any]) -> list[Any]:
    (x,) = inputs
    channels = x.shape[1] * x.shape[-1]
    kind = {"max": "MaxPool", "average": "AveragePool"}[str(node.attrs["mode"])]
    y = _run_plain(kind, _plain_window(node), [unpack_channels(x, channels)])
    return [pack_channels(y, x.shape[-1])]


@op(
    "PoolBlocked", domain=DOMAIN, arity=(1, 1), evaluate=_evaluate_pool, traits=(Trait.REDUCTION,),
    flops=flops.pool, defaults={"ceil_mode": 0, "count_include_pad": 0},
    doc="MaxPool or AveragePool (attribute mode: max, average) on [N, Cb, *S, c].",
    axes=blocked_pool,
)  # fmt: skip
def _infer_pool(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    window = pool_window(ctx.node, x.dims[2:-1])
    spatial = window_output(window, x.dims[2:-1], bool(ctx.attr("ceil_mode")))
    return [x.with_shape((*x.dims[:2], *spatial, x.dims[-1]))]


# ---- matmul --------------------------------------------------------------------------------------


def _evaluate_matmul(node: Node, inputs: list[Any]) -> list[Any]:
    x, w, *rest = inputs
    n, w = int(attribute(node, "columns")), joined_weights(w, rest[1:], tiles=1)
    weight = unpack_matmul_weight(w, n, x.shape[-1], int(attribute(node, "depth")))
    kind = np.int32 if x.dtype.kind != "f" else x.dtype
    y = x.astype(kind) @ weight.astype(kind)
    return [y + rest[0] if rest and rest[0] is not None else y]


@op(
    "MatMulPacked", domain=DOMAIN, arity=(2, 6), evaluate=_evaluate_matmul, traits=_HEAVY,
    flops=flops.matmul, defaults={"depth": 1},
    doc="[.., K] times weights packed as [Nt, K, t], plus an optional bias [N]; the result is "
    "[.., columns]. 8-bit integers sum up in int32, their weights are packed by depth; 8-bit "
    "weights of a float product are converted. Steps of the weights may be listed as those of "
    "kiln.ConvBlocked.",
    axes=packed_product,
)  # fmt: skip
def _infer_matmul(ctx: InferContext) -> list[Type]:
    x, w = ctx.tensor(0), ctx.tensor(1)
    if x.rank < 1 or ceil_div(x.dims[-1], ctx.attr("depth")) != w.dims[1]:
        raise ctx.error(f"{x} does not fit weights {w}")
    return [TensorType(sum_type(x), (*x.dims[:-1], ctx.attr("columns")))]


# ---- quantization --------------------------------------------------------------------------------


def _evaluate_requantize(node: Node, inputs: list[Any]) -> list[Any]:
    total, scale, zero = inputs
    limits = np.iinfo(zero.dtype)
    steps = np.rint(total.astype(np.float32) * scale) + zero.astype(np.float32)
    return [np.clip(steps, limits.min, limits.max).astype(zero.dtype)]


@op(
    "Requantize", domain=DOMAIN, arity=(3, 3), evaluate=_evaluate_requantize,
    traits=(Trait.ELEMENTWISE, Trait.FINITE, Trait.PARAMETRIC), result_zero_point=2,
    doc="saturate(round(x * scale) + zero) of int32 x in float32, halves to even, as 8-bit "
    "integers of the type of zero; scale and zero broadcast.",
)  # fmt: skip
def _infer_requantize(ctx: InferContext) -> list[Type]:
    x, zero = ctx.tensor(0), ctx.tensor(2)
    return [TensorType(zero.dtype, x.dims, x.layout)]
