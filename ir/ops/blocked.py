"""Dialect ops over blocked layouts (see :mod:`..packing`); the layout pass creates them.

Their types state the memory as it is: a tensor in ``NC2{16c}`` has rank 5 for images. Channels
past the logical count, in the last block, hold values that nobody may use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dims import ceil_div
from ..graph import Node, Output
from ..packing import (
    pack_channels,
    unpack_channels,
    unpack_conv_weight,
    unpack_depthwise_weight,
    unpack_matmul_weight,
)
from ..registry import InferContext, attribute, op
from ..types import TensorType, Type
from ..windows import Window, conv_window, pool_window, window_output

DOMAIN = "kiln"


def blocked_layout(rank: int, block: int) -> str:
    """The layout tag of a blocked tensor with ``rank`` spatial dims."""
    return f"NC{'DHW'[3 - rank :] if rank <= 3 else rank}{block}c"


def _run_plain(op_name: str, attrs: dict[str, Any], inputs: list[Any]) -> np.ndarray:
    """Evaluate a standard op through the interpreter."""
    from ..interpreter import run_node

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
    "PackChannels", domain=DOMAIN, arity=(1, 1), evaluate=_evaluate_pack, traits=("injective",),
    doc="[N, C, *S] to [N, ceil(C/block), *S, block]; channels past C are zero.",
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
    traits=("injective",), doc="[N, Cb, *S, block] to [N, channels, *S].",
)  # fmt: skip
def _infer_unpack(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    n, _, *spatial, _ = x.dims
    return [TensorType(x.dtype, (n, ctx.attr("channels"), *spatial))]


# ---- convolution ---------------------------------------------------------------------------------


def blocked_conv_window(node: Node, x: TensorType, w: TensorType) -> Window:
    """The window of a ``kiln.ConvBlocked`` or ``kiln.DepthwiseBlocked`` node."""
    first = 1 if node.op == "DepthwiseBlocked" else 3
    last = -1 if node.op == "DepthwiseBlocked" else -2
    return conv_window(node, x.dims[2:-1], w.dims[first:last])


def _evaluate_conv(node: Node, inputs: list[Any]) -> list[Any]:
    x, w, *rest = inputs
    channels, group = int(attribute(node, "in_channels")), int(attribute(node, "group") or 1)
    out = int(attribute(node, "out_channels"))
    if node.op == "DepthwiseBlocked":
        weight, group = unpack_depthwise_weight(w, channels), channels
    else:
        weight = unpack_conv_weight(w, out, channels // group)
    given = [x_plain(x, channels), weight, *(r.reshape(-1)[:out] for r in rest if r is not None)]
    y = _run_plain("Conv", {**_plain_window(node), "group": group}, given)
    return [pack_channels(y, int(attribute(node, "block")))]


def x_plain(x: np.ndarray, channels: int) -> np.ndarray:
    """The logical channels of a blocked tensor, channels first."""
    return unpack_channels(x, channels)


@op(
    "ConvBlocked", domain=DOMAIN, arity=(2, 3), evaluate=_evaluate_conv, traits=("anchor",),
    defaults={"group": 1},
    doc="Conv on [N, Cb, *S, c] with weights packed as [g, Mt, Cb/g, *K, c, t] and an optional "
    "bias [Mb, 1, .., block]; the result is [N, Mb, *S', block]. Attributes: Conv's, and "
    "in_channels, out_channels, block.",
)  # fmt: skip
@op(
    "DepthwiseBlocked", domain=DOMAIN, arity=(2, 3), evaluate=_evaluate_conv, traits=("anchor",),
    doc="Depthwise Conv on [N, Cb, *S, c] with weights packed as [Cb, *K, c] and an optional bias "
    "[Cb, 1, .., c].",
)  # fmt: skip
def _infer_conv(ctx: InferContext) -> list[Type]:
    x, w = ctx.tensor(0), ctx.tensor(1)
    block = ctx.attr("block")
    spatial = window_output(blocked_conv_window(ctx.node, x, w), x.dims[2:-1])
    blocks = ceil_div(ctx.attr("out_channels"), block)
    shape = (x.dims[0], blocks, *spatial, block)
    return [TensorType(x.dtype, shape, blocked_layout(len(spatial), block))]


# ---- pooling -------------------------------------------------------------------------------------


def _evaluate_pool(node: Node, inputs: list[Any]) -> list[Any]:
    (x,) = inputs
    channels = x.shape[1] * x.shape[-1]
    kind = {"max": "MaxPool", "average": "AveragePool"}[str(node.attrs["mode"])]
    y = _run_plain(kind, _plain_window(node), [unpack_channels(x, channels)])
    return [pack_channels(y, x.shape[-1])]


@op(
    "PoolBlocked", domain=DOMAIN, arity=(1, 1), evaluate=_evaluate_pool, traits=("reduction",),
    defaults={"ceil_mode": 0, "count_include_pad": 0},
    doc="MaxPool or AveragePool (attribute mode: max, average) on [N, Cb, *S, c].",
)  # fmt: skip
def _infer_pool(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    window = pool_window(ctx.node, x.dims[2:-1])
    spatial = window_output(window, x.dims[2:-1], bool(ctx.attr("ceil_mode")))
    return [x.with_shape((*x.dims[:2], *spatial, x.dims[-1]))]


# ---- matmul --------------------------------------------------------------------------------------


def _evaluate_matmul(node: Node, inputs: list[Any]) -> list[Any]:
    x, w, *rest = inputs
    n = int(attribute(node, "columns"))
    y = x @ unpack_matmul_weight(w, n)
    return [y + rest[0] if rest and rest[0] is not None else y]


@op(
    "MatMulPacked", domain=DOMAIN, arity=(2, 3), evaluate=_evaluate_matmul, traits=("anchor",),
    doc="[.., K] times weights packed as [Nt, K, t], plus an optional bias [N]; the result is "
    "[.., columns].",
)  # fmt: skip
def _infer_matmul(ctx: InferContext) -> list[Type]:
    x, w = ctx.tensor(0), ctx.tensor(1)
    if x.rank < 1 or x.dims[-1] != w.dims[1]:
        raise ctx.error(f"{x} does not fit weights {w}")
    return [x.with_shape((*x.dims[:-1], ctx.attr("columns")))]
