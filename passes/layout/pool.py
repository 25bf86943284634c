"""Pools on blocked layouts."""

from __future__ import annotations

import numpy as np

from ...ir.axes.query import reduced_axes
from ...ir.dims import is_static
from ...ir.graph import Attr, Node, Value
from ...ir.registry import attribute
from ...ir.windows import pool_window
from .planner import Planner, whole


def pool(p: Planner, node: Node) -> None:
    """``MaxPool`` and ``AveragePool`` of a blocked value, with static padding."""
    x = p.graph.input(node, 0)
    unused = all(not p.graph.uses(v) for v in node.values[1:])
    if x is None or x not in p.blocked or not unused:
        return
    window = pool_window(node, x.shape[2:])
    if not all(is_static(d) for d in (*window.begin, *window.end)):
        return
    attrs: dict[str, Attr] = {
        "mode": "max" if node.op == "MaxPool" else "average",
        "kernel_shape": window.kernel, "strides": window.strides,
        "dilations": window.dilations, "pads": (*window.begin, *window.end),
        "ceil_mode": int(attribute(node, "ceil_mode") or 0),
        "count_include_pad": int(attribute(node, "count_include_pad") or 0),
    }  # fmt: skip
    result = p.add("PoolBlocked", [p.blocked[x]], attrs, like=node)
    p.convert(node, result, "pools")


def global_pool(p: Planner, node: Node) -> None:
    """``GlobalAveragePool`` and ``GlobalMaxPool`` of a blocked value: reduce all spatial dims."""
    x = p.graph.input(node, 0)
    if x is not None and x in p.blocked:
        op = "ReduceMean" if node.op == "GlobalAveragePool" else "ReduceMax"
        p.convert(node, reduce_spatial(p, op, x, node), "pools")


def reduce(p: Planner, node: Node) -> None:
    """A reduction of a blocked value to one number: blocks without padding serve as they are."""
    x = p.graph.input(node, 0)
    if x is None or x not in p.blocked or not whole(x.shape[1], p.block):
        return
    if node.out().rank or reduced_axes(p.graph, node) != tuple(range(x.rank)):
        return
    axes = p.constant(("axes", x.rank, "all"), np.arange(x.rank + 1), "axes")
    found = p.add(node.op, [p.blocked[x], axes], {"keepdims": 0}, domain="", like=node)
    p.replace(node, found, "pools")


def reduce_mean(p: Planner, node: Node) -> None:
    """``ReduceMean`` of a blocked value over all spatial dims, or all dims."""
    x = p.graph.input(node, 0)
    if x is None or x not in p.blocked:
        return
    if reduced_axes(p.graph, node) != tuple(range(2, x.rank)):
        reduce(p, node)
        return
    result = reduce_spatial(p, "ReduceMean", x, node)
    if attribute(node, "keepdims"):
        p.convert(node, result, "pools")
    elif whole(x.shape[1], p.block):
        flat = p.add("Reshape", [result], {"shape": x.shape[:2]}, like=node)
        p.replace(node, flat, "pools")
    else:
        channels = {"channels": x.shape[1]}
        plain = p.add("UnpackChannels", [result], channels)
        flat = p.add("Reshape", [plain], {"shape": x.shape[:2]}, like=node)
        p.replace(node, flat, "pools")


def reduce_spatial(p: Planner, op: str, x: Value, like: Node) -> Value:
    """The blocked form of ``x``, ``[N, C/b, *S, b]``, reduced to ``[N, C/b, 1.., b]`` by ``op``."""
    axes = np.arange(2, x.rank, dtype=np.int64)
    inputs = [p.blocked[x], p.constant(("axes", x.rank), axes, "axes")]
    return p.add(op, inputs, {"keepdims": 1}, domain="", like=like)
