"""The search for the constants that give the channels of a tensor.

It goes backwards over ops that scale with their input, to one that scales with constants
(:func:`~graphkiln.ir.registry.homogeneous_inputs`). The axis maps of the ops tell which indices of
each constant belong to a channel of the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ...ir.axes.map import Axis, AxisMap, Kind
from ...ir.axes.query import axes_of, factors_of
from ...ir.graph import Graph, Node, Value
from ...ir.registry import has_trait, homogeneous_inputs
from ...ir.traits import Trait
from ..queries import single_use
from .places import Use
from .scaling import Constant, Source

_INDEPENDENT = (Kind.MAPPED, Kind.NORMALIZED)


@dataclass(frozen=True)
class _Step:
    """A node on the way, with constants whose channels are not known yet.

    ``below`` is its computed operand, with the ``axis`` that has the channels, None at the end.
    ``indices`` are those of that axis for each index of the result's. ``above`` is the step before.
    """

    node: Node
    constants: tuple[Constant, ...]
    indices: np.ndarray
    below: Value | None = None
    axis: int = 0
    above: _Step | None = None


def source_of(graph: Graph, value: Value, axis: int) -> Source | str:
    """The constants that multiply ``value`` along ``axis``, or why there are none.

    Tensors on the way have no other readers. Where there are several ways, the first that ends is
    taken.
    """
    reason = ""
    waiting: list[tuple[Value, int, _Step | None]] = [(value, axis, None)]
    while waiting:
        value, axis, above = waiting.pop()
        if above is not None and not single_use(graph, value):
            reason = reason or f"{value.name!r} has other readers"
            continue
        steps = _steps(graph, value, axis)
        if isinstance(steps, str):
            reason = reason or steps
            continue
        for step in reversed(steps):
            step = replace(step, above=above)
            if step.below is None:
                return _source(step)
            waiting.append((step.below, step.axis, step))
    return reason


def _steps(graph: Graph, value: Value, axis: int) -> list[_Step] | str:
    """The ways over the node that gives ``value``, those that end first; or why there are none."""
    node = value.node
    if value.index or any(graph.uses(other) for other in node.values if other != value):
        return f"{node.name!r} has several results"
    if node.key == "Input":
        return f"{value.name!r} is an input of the model"
    axes = axes_of(graph, node)
    result = None if axes is None else axes.results[0]
    factors = None if axes is None or result is None else _plain(axes, result[axis])
    if axes is None or factors is None:
        return f"nothing is known of the channels of {value.name!r}"
    found: list[_Step] = []
    for group in homogeneous_inputs(node):
        found += _over(graph, node, axes, factors, axis, group)
    ends = [step for step in found if step.below is None]
    return ends or found or f"{node.name!r} ({node.key}) does not scale with what it reads"


def _plain(axes: AxisMap, axis: Axis) -> tuple[int, ...] | None:
    """The factors of an axis that is a product of independent ones of known sizes, else None."""
    if len(axis) != 1 or not axis[0].is_plain or not axis[0].factors:
        return None
    found = [axes.factors[f] for f in axis[0].factors]
    fits = all(f.kind in _INDEPENDENT and isinstance(f.size, int) for f in found)
    return axis[0].factors if fits else None


def _sizes(axes: AxisMap, factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(axes.factors[f].size) for f in factors)


def _over(
    graph: Graph, node: Node, axes: AxisMap, factors: tuple[int, ...], axis: int,
    group: tuple[int, ...],
) -> list[_Step]:  # fmt: skip
    """The ways over a node that multiply its inputs ``group``; none if they lack the factors."""
    constants: list[Constant] = []
    computed: list[tuple[int, Value]] = []
    for i in group:
        value = graph.input(node, i)
        array = None if value is None else value.constant
        if value is not None and array is None:
            computed.append((i, value))
        elif array is not None:
            found = _constant(node, i, array, axes, factors, axis)
            if found is None:
                return []
            constants.append(found)
    if not computed:
        indices = np.arange(prod(_sizes(axes, factors)))
        return [_Step(node, tuple(constants), indices)] if constants else []
    if len(computed) > 1:
        return []
    ((i, below),) = computed
    ways = _axes_below(axes, i, factors)
    return [_Step(node, tuple(constants), indices, below, at) for at, indices in ways]


def _axes_below(
    axes: AxisMap, i: int, factors: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray]]:
    """The axes of operand ``i`` that are made of some of the ``factors``, each with the index there
    for each index of their product. They are several in front of a view that merges axes.
    """
    for a, axis in enumerate(axes.operands[i] or ()):
        inner = _plain(axes, axis)
        if inner is not None and set(inner) <= set(factors):
            grid = np.indices(_sizes(axes, factors)).reshape(len(factors), -1)
            mine = tuple(grid[factors.index(f)] for f in inner)
            yield a, np.ravel_multi_index(mine, _sizes(axes, inner))


def _constant(
    node: Node, i: int, array: np.ndarray, axes: AxisMap, factors: tuple[int, ...], axis: int
) -> Constant | None:
    """Constant input ``i`` along the factors of axis ``axis`` of the result, None if it has not
    all.

    What broadcasts along that axis gets it: a number becomes one for each channel.
    """
    if array.dtype.kind != "f":
        return None
    split: list[int] = []
    at: dict[int, int] = {}
    for size, described in zip(array.shape, axes.operands[i] or (), strict=True):
        if not set(factors).intersection(factors_of(described)):
            split.append(size)
            continue
        inner = _plain(axes, described)
        if inner is None:
            return None
        at |= {f: len(split) + k for k, f in enumerate(inner)}
        split += _sizes(axes, inner)
    sizes = _sizes(axes, factors)
    every = np.arange(prod(sizes))
    if at:
        places = tuple(at.get(f, -1) for f in factors)
        return None if -1 in places else Constant(Use(node, i), tuple(split), places, sizes, every)
    if not has_trait(node, Trait.BROADCASTS) and i not in axes.addends:
        return None
    shape = (1,) * (node.out().rank - array.ndim) + array.shape
    return Constant(Use(node, i), shape, (axis,), (every.size,), every)


def _source(last: _Step) -> Source:
    """The channels of each step's result in terms of those of the last."""
    channels = np.arange(last.indices.size)
    constants = list(last.constants)
    step = last.above
    while step is not None:
        channels = channels[step.indices]
        constants += [replace(c, channels=channels) for c in step.constants]
        step = step.above
    return Source(last.node, last.indices.size, channels, tuple(constants))


__all__ = ["source_of"]
