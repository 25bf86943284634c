"""Merges dims of element-wise regions, so that there are few loops and long ones.

``[1,64,56,56] + [64,1,1]`` computes the same as ``[64,3136] + [64,1]``, and a region in which all
shapes are equal is one loop. Buffers are row-major, so the kernel of the merged region takes the
same memory as its arguments.
"""

from __future__ import annotations

from functools import reduce
from operator import mul

from ...ir.dims import Dim
from ...ir.elementwise import is_elementwise, is_table
from ...ir.graph import Graph, Node, Value
from ...ir.registry import spec_of
from ...ir.shapes import broadcast
from ...ir.types import Shape, TensorType, type_symbols


def is_elementwise_region(graph: Graph) -> bool:
    """Is every op of the graph element-wise, on tensors of known rank, whatever the axes?"""
    nodes = graph.nodes
    return bool(nodes) and all(_is_free_of_axes(graph, n) for n in nodes) and _plain(graph)


def _is_free_of_axes(graph: Graph, node: Node) -> bool:
    """Element-wise, and no attribute of the node names an axis that matters."""
    if not is_elementwise(node, graph.inputs_of(node)):
        return False
    named = spec_of(node).attributes or frozenset(node.attrs)
    parameters = [v for v in graph.inputs_of(node)[1:] if v is not None]
    return "axis" not in named or all(v.tensor_type.numel == 1 for v in parameters)


def _values(graph: Graph) -> list[Value]:
    """All values but tables, which keep their shapes."""
    return [v for n in graph.nx for v in n.values if not _is_table(graph, v)]


def _is_table(graph: Graph, value: Value) -> bool:
    uses = graph.uses(value)
    return bool(uses) and all(is_table(node, i) for node, i in uses)


def _plain(graph: Graph) -> bool:
    types = [v.node.outputs[v.index].type for n in graph.nx for v in n.values]
    return all(isinstance(t, TensorType) and t.shape is not None and not t.layout for t in types)


def coalesce(graph: Graph) -> Graph:
    """A copy of an element-wise region with as few dims as its broadcasting allows.

    Neighbouring dims are merged if every value either has both or is broadcast along both. Other
    regions, and those with nothing to merge, are returned unchanged. The symbols and their order
    stay the same.
    """
    if not is_elementwise_region(graph):
        return graph
    values = _values(graph)
    rank = max(v.rank for v in values)
    shapes = [_padded(v.shape, rank) for v in values]
    full = _full_shape(shapes)
    groups = None if full is None else _groups(shapes, full)
    if groups is None or len(groups) == rank:
        return graph
    merged = graph.copy()
    for v in _values(merged):
        _reshape(v, _merge(_padded(v.shape, rank), groups))
    kept = all(
        type_symbols(old.type) == type_symbols(new.type)
        for old, new in zip(values, _values(merged), strict=True)
    )
    return merged if kept else graph


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _full_shape(shapes: list[Shape]) -> Shape | None:
    """The shape that all shapes broadcast to; None where the region has no such shape."""
    try:
        return broadcast(shapes)
    except ValueError:
        return None


def _groups(shapes: list[Shape], full: Shape) -> list[list[int]]:
    """The groups of axes that become one each, in order, without axes of extent 1 everywhere."""
    groups: list[list[int]] = []
    last: list[bool | None] = []
    for axis, extent in enumerate(full):
        if extent == 1:
            continue
        # For each shape: it has the axis (True), is broadcast along it (False), or either (None).
        kinds = [None if s[axis] not in (1, extent) else s[axis] == extent for s in shapes]
        if groups and None not in kinds and kinds == last:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        last = kinds
    return groups


def _merge(shape: Shape, groups: list[list[int]]) -> Shape:
    """The shape with a dim for each group, without leading ones."""
    dims: list[Dim] = [reduce(mul, (shape[a] for a in group)) for group in groups]
    while dims and dims[0] == 1:
        dims.pop(0)
    return tuple(dims)


def _reshape(value: Value, shape: Shape) -> None:
    merged = value.tensor_type.with_shape(shape)
    value.node.outputs[value.index].type = merged
    array = value.constant
    if array is not None:
        value.node.attrs["value"] = array.reshape(merged.static_shape)
