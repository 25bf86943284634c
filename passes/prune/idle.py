"""Idle channels: those without which the model computes the same.

    sum_i W_i x_i = sum_{i: W_i x_i is not 0} W_i x_i
    b + sum_i W_i x_i = (b + W_j c) + sum_{i != j} W_i x_i        where x_j is always c

A channel is idle if all that sums over it has weights of 0 for it, or it is 0 itself, or a constant
that can become part of a bias: filters of zeros, as pruning by masks and training with strong decay
leave them, units whose batch normalization has a scale of 0, heads whose results nobody reads, and
channels in parts of an axis that no slice takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...ir.axes.map import AxisMap, Kind
from ...ir.axes.query import factors_of
from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute, has_trait
from ...ir.traits import Trait
from ..base import Pass, PassContext, PassResult, register_pass
from ..claims import SUMS, rounds
from .channels import Channels
from .constant_channels import Numbers, constant_channels, weights_of, zero_positions
from .remove import remove
from .select import to_multiples

_ROUNDS = 8
"""Most rounds: what read only idle channels may be idle without them."""


@register_pass
@dataclass(frozen=True)
class Idle(Pass):
    """Removes idle channels of the outermost graph wherever they are coupled.

    So many of them stay as make widths a multiple of the channels that the target's kernels take at
    a time.
    """

    name = "idle"
    claims = {
        "idle": rounds(
            "sum_i W_i x_i = sum_{i: W_i x_i is not 0} W_i x_i",
            f"{SUMS}, where all x_i are finite",
        ),
        "moved": rounds("b + W_j c = b', where x_j is always c", f"{SUMS}"),
    }

    def run(self, graph: Graph, context: PassContext) -> PassResult:
        return PassResult.of(self.apply(graph, context))

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.hardware.layouts
        block = 1 if layouts is None else layouts.block
        removed = moved = 0
        for _ in range(_ROUNDS):
            if not _has_zeros(graph):
                break
            known = constant_channels(graph)
            channels = Channels(graph)
            dropped = _idle(channels, known, block)
            changed = _move_constants(channels, known, dropped, context)
            if changed:
                context.refresh(graph)
                channels = Channels(graph)
                dropped = _idle(channels, known, block)
            if not dropped.any():
                break
            removed += int(dropped.sum())
            moved += changed
            remove(graph, channels, dropped, context, "idle")
        return {"idle": removed, "moved": moved}


def _has_zeros(graph: Graph) -> bool:
    """Has any weight a position of zeros along an axis?"""
    for node in graph.nodes:
        for value in graph.inputs_of(node) if has_trait(node, Trait.CONTRACTION) else ():
            array = None if value is None else value.constant
            if array is not None and array.ndim > 1 and array.size:
                if any(zero_positions(array, a).any() for a in range(array.ndim)):
                    return True
    return False


def _idle(channels: Channels, known: Mapping[Value, Numbers], block: int) -> np.ndarray:
    """The channels to drop, bool for each."""
    needed = ~channels.free
    for reading in _readings(channels, known):
        label = channels.of(reading.item)
        if label is not None:
            needed[label[~reading.silent]] = True
    candidates = np.zeros(channels.count, bool)
    for group in channels.groups:
        candidates[group.channels] = True
    return to_multiples(channels, np.where(candidates & ~needed, 0.0, np.nan), block)


@dataclass(frozen=True)
class _Reading:
    """A factor that a node sums over: its item, and the indices that do not count: their weights
    or elements are 0, or constants that can be ``moved`` into the bias.
    """

    node: Node
    item: int
    silent: np.ndarray
    moved: np.ndarray
    numbers: np.ndarray


def _readings(channels: Channels, known: Mapping[Value, Numbers]) -> Iterator[_Reading]:
    coupling = channels.coupling
    for node, axes in coupling.maps.items():
        for f, factor in enumerate(axes.factors):
            item = coupling.factors[node][f]
            if item is None or not factor.adds or channels.of(item) is None:
                continue
            size = coupling.size(item)
            silent, moved = np.zeros(size, bool), np.zeros(size, bool)
            numbers = np.zeros(size)
            # What a recurrent layer remembers is read by more than its weights.
            for i, a in _axes_of(axes, f) if factor.kind is Kind.REDUCED else ():
                value = coupling.graph.input(node, i)
                if value is None:
                    continue
                if value.constant is not None and value.constant.ndim > 1:
                    silent |= zero_positions(value.constant, a)
                elif value in known and known[value].axis == a:
                    held = known[value]
                    silent |= held.known & (held.numbers == 0)
                    if i == 0 and _takes_constants(coupling.graph, node):
                        moved |= held.known
                        numbers = np.where(held.known, held.numbers, 0)
            moved &= ~silent
            yield _Reading(node, item, silent | moved, moved, numbers)


def _axes_of(axes: AxisMap, f: int) -> Iterator[tuple[int, int]]:
    """The axes of operands that are factor ``f`` and nothing else, as (operand, axis)."""
    for i, tensor in enumerate(axes.operands):
        for a, axis in enumerate(tensor or ()):
            alive = [g for g in factors_of(axis) if axes.factors[g].size != 1]
            if len(axis) == 1 and axis[0].is_plain and alive == [f]:
                yield i, a


def _takes_constants(graph: Graph, node: Node) -> bool:
    """Can a constant channel become part of the node's bias?

    At the border of an image, windows read zeros in its place.
    """
    if weights_of(graph, node) is None or node.key == "MatMul":
        return False
    bias = graph.input(node, 2)
    if bias is not None and (bias.constant is None or bias.constant.ndim != 1):
        return False
    if node.key == "Gemm":
        return not attribute(node, "transA") and attribute(node, "beta") == 1
    padded = any(attribute(node, "pads") or ()) or attribute(node, "auto_pad").startswith("SAME")
    return int(attribute(node, "group") or 1) == 1 and not padded


def _move_constants(
    channels: Channels, known: Mapping[Value, Numbers], dropped: np.ndarray, context: PassContext
) -> int:
    """Make the constants of channels that are dropped part of biases, with weights of 0 then."""
    graph, count = channels.coupling.graph, 0
    editor = context.editor(graph)
    for reading in list(_readings(channels, known)):
        label = channels.of(reading.item)
        assert label is not None
        gone = np.flatnonzero(reading.moved & dropped[label])
        weights = weights_of(graph, reading.node)
        if not len(gone) or weights is None:
            continue
        array, filters = weights
        by_filter = np.moveaxis(array, filters, 0)
        taken = by_filter[:, gone].reshape(len(by_filter), len(gone), -1).sum(2, dtype=np.float64)
        scale = attribute(reading.node, "alpha") if reading.node.key == "Gemm" else 1
        bias = graph.input(reading.node, 2)
        old = 0 if bias is None or bias.constant is None else bias.constant
        zeroed = array.copy()
        np.moveaxis(zeroed, filters, 0)[:, gone] = 0
        editor.begin("moved", reading.node)
        total = (old + scale * (taken @ reading.numbers[gone])).astype(array.dtype)
        editor.set_input(reading.node, 1, editor.constant(zeroed, "weights"))
        editor.set_input(reading.node, 2, editor.constant(total, "bias"))
        count += 1
    editor.remove_unused()
    editor.finish()
    return count


__all__ = ["Idle"]
