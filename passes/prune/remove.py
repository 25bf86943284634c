"""Removal of channels: smaller constants, and sizes that count what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ...ir.dims import Dim
from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Node, Value
from ...ir.registry import attribute
from ...ir.shapes import normalize_axes, normalize_axis
from ..base import PassContext
from .channels import Channels

Dropped: TypeAlias = "Mapping[str, Mapping[int, tuple[int, ...]]]"
"""The positions that each value's axes lose, by the value's name."""


def dropped_positions(channels: Channels, dropped: np.ndarray) -> Dropped:
    """What each result and input loses if channels (bool for each) are dropped."""
    kept = _Kept(channels, dropped)
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for (node, index, axis), item in channels.coupling.places():
        mask = kept.mask(item)
        if index >= 0 and mask is not None:
            gone = tuple(np.flatnonzero(~mask).tolist())
            found.setdefault(node.outputs[index].name, {})[axis] = gone
    return found


def remove(
    graph: Graph, channels: Channels, dropped: np.ndarray, context: PassContext, rule: str
) -> int:
    """Drop channels (bool for each, all of them free) from the graph that they were found in.

    Returns the number of nodes that changed. Types are inferred again. Raises :class:`GraphError`
    if an axis would have no position left, or if a size is not what it should be then, which would
    be a wrong axis map.
    """
    kept = _Kept(channels, dropped)
    if not kept.masks:
        return 0
    wanted = {v: kept.shape(v) for node in channels.coupling.factors for v in node.values}
    editor, count = context.editor(graph), 0
    for node in channels.coupling.factors:
        editor.begin(rule, node)
        count += _shrink(editor, node, kept)
    editor.remove_unused()
    editor.finish()
    context.refresh(graph)
    for value, shape in wanted.items():
        if value.node in graph and value.shape != shape:
            raise GraphError(
                f"{value.name!r} is {value.type} without its channels, not {list(shape)}",
                at=value.node,
            )
    return count


class _Kept:
    """What is left of each item. Raises :class:`GraphError` where nothing is."""

    def __init__(self, channels: Channels, dropped: np.ndarray) -> None:
        self.coupling = channels.coupling
        self.masks: dict[int, np.ndarray] = {}
        """Which positions of an item stay, for those that lose some."""
        self.constants: dict[tuple[Value, tuple[tuple[int, bytes], ...]], Value] = {}
        """What became of constants, by what they lost along which axes."""
        lost = dropped[channels.label]
        for item in np.unique(channels.items[lost]).tolist():
            base = channels.base[item]
            mask = ~lost[base : base + self.coupling.size(item)]
            if not mask.any():
                raise GraphError("an axis would lose all of its channels")
            self.masks[item] = mask

    def mask(self, item: int | None) -> np.ndarray | None:
        return None if item is None else self.masks.get(self.coupling.find(item))

    def of(self, value: Value, axis: int) -> np.ndarray | None:
        """Which positions of an axis of a result stay; None if all do."""
        return self.mask(self.coupling.axis(value, axis))

    def operand(self, node: Node, i: int, axis: int) -> np.ndarray | None:
        """Which positions of an axis of an operand stay; None if all do."""
        return self.mask(self.coupling.operand(node, i, axis))

    def touches(self, node: Node) -> bool:
        """Does the first operand or a result of a node lose positions, read or not?"""
        x = self.coupling.graph.input(node, 0)
        inside = x is not None and any(
            self.operand(node, 0, a) is not None for a in range(x.rank)
        )  # fmt: skip
        return inside or any(self.of(v, a) is not None for v in node.values for a in range(v.rank))

    def dim(self, value: Value, axis: int) -> Dim:
        """The size of an axis afterwards."""
        mask = self.of(value, axis)
        return value.shape[axis] if mask is None else int(mask.sum())

    def shape(self, value: Value) -> tuple[Dim, ...]:
        """The shape of a result afterwards."""
        return tuple(self.dim(value, a) for a in range(value.rank))


def _shrink(editor: Editor, node: Node, kept: _Kept) -> bool:
    """Shrink the constants and the sizes of one node; False if it has none to shrink."""
    changed = _shrink_constants(editor, node, kept)
    items = kept.coupling.factors[node]
    for name, factors in kept.coupling.maps[node].counts:
        if any(kept.mask(items[f]) is not None for f in factors):
            sizes = [_left(kept, items[f]) for f in factors]
            node.attrs[name] = prod(sizes)
            changed = True
    resize = _SIZES.get(node.key)
    if resize is not None and kept.touches(node):
        resize(editor, node, kept)
        changed = True
    return changed


def _left(kept: _Kept, item: int | None) -> int:
    if item is None:
        return 1
    mask = kept.mask(item)
    return kept.coupling.size(item) if mask is None else int(mask.sum())


def _shrink_constants(editor: Editor, node: Node, kept: _Kept) -> bool:
    operands: dict[int, list[tuple[int, np.ndarray]]] = {}
    for operand, axis, item in kept.coupling.constants.get(node, ()):
        mask = kept.mask(item)
        if mask is not None:
            operands.setdefault(operand, []).append((axis, mask))
    for operand, axes in operands.items():
        value = editor.graph.input(node, operand)
        array = None if value is None else value.constant
        assert value is not None and array is not None
        # What several nodes share stays shared where all of them lose the same.
        key = value, tuple((axis, mask.tobytes()) for axis, mask in axes)
        if key not in kept.constants:
            for axis, mask in axes:
                array = np.compress(mask, array, axis)
            kept.constants[key] = editor.constant(np.ascontiguousarray(array), value.name)
        editor.set_input(node, operand, kept.constants[key])
    return bool(operands)


# ---- sizes ---------------------------------------------------------------------------------------


def _shape(_editor: Editor, node: Node, kept: _Kept) -> None:
    node.attrs["shape"] = kept.shape(node.out())


def _slice(editor: Editor, node: Node, kept: _Kept) -> None:
    starts = node.attrs["starts"]
    assert isinstance(starts, tuple)
    masks = [kept.operand(node, 0, a) for a in range(len(starts))]
    node.attrs["starts"] = tuple(
        start if mask is None else int(mask[:start].sum())
        for start, mask in zip(starts, masks, strict=True)
    )
    _shape(editor, node, kept)


def _split(editor: Editor, node: Node, kept: _Kept) -> None:
    axis = normalize_axis(attribute(node, "axis"), node.out().rank)
    sizes = [kept.dim(v, axis) for v in node.values]
    node.attrs.pop("num_outputs", None)
    editor.set_input(node, 1, editor.constant(np.array(sizes, np.int64)))


def _pad(editor: Editor, node: Node, kept: _Kept) -> None:
    x, pads = editor.graph.input(node, 0), editor.graph.input(node, 1)
    assert x is not None and pads is not None and pads.constant is not None
    amounts, axes = pads.constant.copy(), _listed(editor.graph, node, 3, x.rank)
    for k, a in enumerate(axes):
        size, end = x.shape[a], node.out().shape[a]
        have, want = kept.operand(node, 0, a), kept.of(node.out(), a)
        if have is None and want is None or not isinstance(size, int) or not isinstance(end, int):
            continue
        have = np.ones(size, bool) if have is None else have
        want = np.ones(end, bool) if want is None else want
        before, after = int(amounts[k]), int(amounts[k + len(axes)])
        amounts[k] = _first(want, before) - _first(have, -before)
        amounts[k + len(axes)] = _first(want[::-1], after) - _first(have[::-1], -after)
    editor.set_input(node, 1, editor.constant(amounts))


def _first(kept: np.ndarray, count: int) -> int:
    """How many of the first ``count`` positions are kept; 0 if that is below 0."""
    return int(kept[: max(count, 0)].sum())


def _listed(graph: Graph, node: Node, index: int, rank: int) -> Sequence[int]:
    """The axes that an operand lists; all where it is not given."""
    given = graph.input(node, index)
    listed = None if given is None else given.constant
    return range(rank) if listed is None else normalize_axes(listed.tolist(), rank)


def _resize(editor: Editor, node: Node, kept: _Kept) -> None:
    sizes = editor.graph.input(node, 3)
    if sizes is None or sizes.constant is None:
        return
    given = attribute(node, "axes")
    rank = node.out().rank
    axes = range(rank) if given is None else normalize_axes(given, rank)
    dims = [kept.dim(node.out(), a) for a in axes]
    editor.set_input(node, 3, editor.constant(np.array(dims, sizes.constant.dtype)))


def _projections(_editor: Editor, node: Node, kept: _Kept) -> None:
    """The widths of queries, keys and values are those of all heads together."""
    sizes: Any = node.attrs.get("qkv_hidden_sizes")
    if sizes:
        ((_, (heads,)),) = kept.coupling.maps[node].counts
        item = kept.coupling.factors[node][heads]
        before = 1 if item is None else kept.coupling.size(item)
        node.attrs["qkv_hidden_sizes"] = tuple(s // before * _left(kept, item) for s in sizes)


_SIZES: Mapping[str, Callable[[Editor, Node, _Kept], None]] = {
    "kiln.Reshape": _shape, "kiln.Expand": _shape, "kiln.Slice": _slice, "Split": _split,
    "Pad": _pad, "Resize": _resize, "com.microsoft.Attention": _projections,
}  # fmt: skip
"""How ops with sizes in attributes or constants get others; :attr:`.AxisMap.counts` has more."""


__all__ = ["Dropped", "dropped_positions", "remove"]
