"""Concatenations, slices and shuffles of channels.

Where they do not fall on whole blocks, each becomes a ``kiln.SelectChannels``, which picks every
channel of its result from some input. A chain of them is one selection: channel 5 of a slice of a
concatenation is looked up in the concatenation's own inputs. ShuffleNet's split, shuffle and concat
become one kernel in this way.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import Node, Value
from ...ir.ops.blocked import channel_runs
from ...ir.registry import attribute
from .planner import Planner, whole

Picks = list[tuple[Value, int]]
"""For each channel of a result, the blocked value that it comes from and its number there."""

_MOST_INPUTS = 16


def concat(p: Planner, node: Node) -> None:
    """``Concat`` of channels: one of blocks if all inputs are whole blocks, else a selection."""
    values = p.graph.required_inputs(node)
    first = values[0]
    if first.rank < 3 or int(attribute(node, "axis")) % first.rank != 1:
        return
    if not all(v in p.blocked and isinstance(v.shape[1], int) for v in values):
        return
    plain = not any(p.blocked[v] in p.picks for v in values)
    if plain and all(whole(v.shape[1], p.block) for v in values):
        inputs = [p.blocked[v] for v in values]
        p.convert(node, p.add("Concat", inputs, {"axis": 1}, domain="", like=node), "concats")
        return
    picks = [pick for v in values for pick in _channels(p, v, range(int(v.shape[1])))]
    _select(p, node, picks)


def slice_(p: Planner, node: Node) -> None:
    """``kiln.Slice`` of channels (a selection), or of spatial dims (a slice of blocks)."""
    x = p.graph.input(node, 0)
    if x is None or x not in p.blocked or not isinstance(x.shape[1], int):
        return
    starts, steps, shape = (_sizes(node, k) for k in ("starts", "steps", "shape"))
    rest = [i for i in range(x.rank) if i != 1]
    if all((starts[i], steps[i], shape[i]) == (0, 1, x.shape[i]) for i in rest):
        first, step, count = starts[1], steps[1], shape[1]
        if all(isinstance(v, int) for v in (first, step, count)) and int(step) > 0:
            _select(p, node, _channels(p, x, range(first, first + step * count, step)))
        return
    if (starts[1], steps[1], shape[1]) == (0, 1, x.shape[1]):
        source = p.blocked[x]
        attrs = {
            "starts": (*starts, 0), "steps": (*steps, 1),
            "shape": (shape[0], source.shape[1], *shape[2:], p.block),
        }  # fmt: skip
        p.convert(node, p.add("Slice", [source], attrs, like=node), "slices")


def shuffle(p: Planner, node: Node) -> bool:
    """A channel shuffle: ``[g, C/g]`` transposed by Reshape, Transpose and Reshape.

    Returns whether ``node`` is the last of these three, and was replaced by a selection.
    """
    swap = p.graph.input(node, 0)
    if swap is None or swap.node.key != "Transpose":
        return False
    split = p.graph.input(swap.node, 0)
    if split is None or split.node.key != "kiln.Reshape":
        return False
    x = p.graph.input(split.node, 0)
    if x is None or x not in p.blocked or x.shape != node.out().shape:
        return False
    order = (0, 2, 1, *range(3, split.rank))
    if tuple(attribute(swap.node, "perm") or ()) != order:
        return False
    groups, inner = split.shape[1:3]
    if (split.shape[0], *split.shape[3:]) != (x.shape[0], *x.shape[2:]):
        return False
    if not isinstance(groups, int) or not isinstance(inner, int):
        return False
    order_of = [g * inner + i for i in range(inner) for g in range(groups)]
    _select(p, node, _channels(p, x, order_of))
    return True


def _sizes(node: Node, name: str) -> tuple[int, ...]:
    value = node.attrs[name]
    assert isinstance(value, tuple)
    return value


def _channels(p: Planner, value: Value, channels: Sequence[int]) -> Picks:
    """Where channels of a value come from: its blocked form, or what that was selected from."""
    source = p.blocked[value]
    earlier = p.picks.get(source)
    return [(source, c) if earlier is None else earlier[c] for c in channels]


def _select(p: Planner, node: Node, picks: Picks) -> None:
    """Replace ``node`` by a ``kiln.SelectChannels``, unless it would read too many values."""
    sources = list(dict.fromkeys(v for v, _ in picks))
    if len(sources) > _MOST_INPUTS or not picks:
        return
    numbers = {v: i for i, v in enumerate(sources)}
    runs = channel_runs([(numbers[v], c) for v, c in picks])
    result = p.add("SelectChannels", sources, {"block": p.block, "runs": runs}, like=node)
    p.picks[result] = picks
    p.convert(node, result, "selections")
