"""Elementwise ops, Resize and Reshape on blocks: they work on any layout that operands share."""

from __future__ import annotations

from ...ir.elementwise import is_elementwise
from ...ir.graph import Node, Value
from ...ir.ops.vision import resize_axes
from ...ir.packing import pack_channels
from ...ir.registry import attribute, has_trait
from ...ir.traits import Trait
from .channels import shuffle
from .planner import Planner, whole


def resize(p: Planner, node: Node) -> None:
    """``Resize`` of spatial dims by constant scales or to constant sizes."""
    x, roi, scales, sizes = [*p.graph.inputs_of(node), None, None, None][:4]
    if x is None or x not in p.blocked or x.shape[:2] != node.out().shape[:2] or roi is not None:
        return
    if attribute(node, "keep_aspect_ratio_policy") != "stretch":
        return
    given = [v for v in (scales, sizes) if v is not None and v.shape != (0,)]
    if len(given) != 1 or given[0].constant is None:
        return
    axes = resize_axes(node, x.rank)
    spatial = [i for i, a in enumerate(axes) if a >= 2]
    if not spatial:
        return
    key = (given[0], "spatial", *spatial)
    kept = p.constant(key, given[0].constant[spatial], given[0].name)
    inputs = [p.blocked[x], None, *((kept,) if given[0] is scales else (None, kept))]
    attrs = {**node.attrs, "axes": tuple(axes[i] for i in spatial)}
    p.convert(node, p.add("Resize", inputs, attrs, domain="", like=node), "resizes")


def reshape(p: Planner, node: Node) -> None:
    """A flattening that leaves memory as it is, or the last node of a channel shuffle."""
    x = p.graph.required_inputs(node)[0]
    if shuffle(p, node):
        return
    if x in p.blocked and p.is_flat(x):
        shape = node.attrs["shape"]
        result = p.add("Reshape", [p.blocked[x]], {"shape": shape}, like=node)
        p.replace(node, result, "reshapes")


def symmetric(p: Planner, node: Node) -> None:
    """An op to which the order of elements is nothing, on blocks without padding."""
    x = p.graph.required_inputs(node)[0]
    if x in p.blocked and whole(x.shape[1], p.block):
        p.editor.set_input(node, 0, p.blocked[x])
        p.counts["observers"] += 1


def elementwise(p: Planner, node: Node) -> None:
    """An elementwise op of which some operand with all of the result's channels is blocked already.

    Its other dims may broadcast: those of blocks do so as well.
    """
    values = p.graph.inputs_of(node)
    out = node.out()
    full = [v for v in values if v is not None and v in p.blocked and _has_channels_of(v, out)]
    if len(node.outputs) != 1 or out.rank < 3 or not full:
        return
    if not whole(out.shape[1], p.block) and not has_trait(node, Trait.FINITE):
        return  # the padding of the last block must stay finite
    inputs = [None if v is None else operand(p, v, out) for v in values]
    if any(v is not None and i is None for v, i in zip(values, inputs, strict=True)):
        return
    result = p.add(node.op, inputs, node.attrs, domain=node.domain, like=node)
    p.convert(node, result, "elementwise")


def _has_channels_of(value: Value, out: Value) -> bool:
    return value.rank == out.rank and value.shape[1] == out.shape[1]


def operand(p: Planner, value: Value, out: Value) -> Value | None:
    """``value`` as an operand of a blocked op with result ``out``; None where that does not work.

    Blocked values of all channels are taken as they are and scalars as scalars, constants with one
    element for each channel are packed, and other values of the result's rank get a
    ``kiln.PackChannels``.
    """
    if value in p.blocked:
        return p.blocked[value] if _has_channels_of(value, out) else None
    if value.tensor_type.numel == 1:
        if value.rank == 0:
            return value
        if value.constant is not None:
            return p.constant((value, "scalar"), value.constant.reshape(()), value.name)
        return p.add("Reshape", [value], {"shape": ()})
    shape = (1,) * (out.rank - value.rank) + tuple(value.shape)
    if shape[1] != out.shape[1]:
        return None
    if value.constant is not None:
        array = value.constant.reshape(shape)
        packed = pack_channels(array, p.block)
        return p.constant((value, "channels", out.rank), packed, f"{value.name}_packed")
    if value.rank != out.rank:
        return None
    return _dequantized(p, value) or p.as_blocked(value)


def _dequantized(p: Planner, value: Value) -> Value | None:
    """The blocked form of a DequantizeLinear whose bytes are blocked already: they are dequantised
    again. Packing its floats would move four times as much.
    """
    node = value.node
    given = p.graph.inputs_of(node)
    data = given[0] if node.key == "DequantizeLinear" else None
    if data is None or data not in p.blocked or not is_elementwise(node, given):
        return None
    inputs = [None if v is None else operand(p, v, value) for v in given]
    p.blocked[value] = p.add(node.op, inputs, node.attrs, like=node, domain="")
    return p.blocked[value]
