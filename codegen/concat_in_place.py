"""Concat in place: its inputs are written into its result, so that nothing is left to copy.

Where all dims before the axis are 1, each input of a ``Concat`` is a contiguous part of the result:
of ``float32[1,16,8,8]`` and ``float32[1,32,8,8]`` joined along axis 1, the first is bytes 0 to 4095
and the second bytes 4096 to 12287. The kernels that compute the inputs write them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..contract import ALIGNMENT
from ..ir.graph import Graph, Node, Value
from ..ir.storage import storage_bytes
from ..ir.types import TensorType

Place = tuple[Value, int]
"""Memory inside of another value: that value, and a byte offset in it."""


@dataclass
class InPlace:
    """The places of values that lie in others, and the ``Concat`` nodes that need no kernel."""

    places: dict[Value, Place] = field(default_factory=dict)
    nodes: set[Node] = field(default_factory=set)


def place_in_concats(
    graph: Graph,
    order: Sequence[Node],
    root: Callable[[Value], Value],
    planned: Callable[[Value], bool],
    space: Callable[[Node], str],
) -> InPlace:
    """Finds places for the inputs of as many ``Concat`` nodes as possible.

    ``order`` is topological; ``root`` tells whose memory a value shares, ``planned`` whether a
    value of static size may lie anywhere in an arena, and ``space`` the memory space of a node's
    results. Nodes are visited last to first, since a later, larger result may hold the inputs of an
    earlier one side by side. That is so in a dense block: ``c1 = [a, b]``, ``c2 = [a, b, c]`` puts
    ``a`` and ``b`` into ``c2``, and ``c1`` is then its first part.
    """
    in_place = InPlace()
    for node in reversed(order):
        if node.key == "Concat" and planned(node.out()) and _is_contiguous(node):
            parts = [root(v) for v in graph.inputs_of(node) if v is not None]
            here = space(node)
            fit = all(planned(v) and space(v.node) == here for v in parts)
            if fit and _place(in_place, node.out(), parts):
                in_place.nodes.add(node)
    return in_place


def _is_contiguous(node: Node) -> bool:
    """Is each input a contiguous range of the result?"""
    shape = node.out().tensor_type.static_shape
    axis = node.attrs["axis"]
    assert isinstance(axis, int)
    return all(d == 1 for d in shape[: axis % len(shape)])


def _place(in_place: InPlace, whole: Value, parts: list[Value]) -> bool:
    """Let ``parts`` lie in ``whole`` one after the other; False where they cannot.

    Either none of them has a place yet, or all lie side by side in a larger value already, and then
    ``whole`` becomes that part of it. Kernels need their tensors at aligned offsets.
    """
    offsets = [0]
    for v in parts:
        offsets.append(offsets[-1] + value_bytes(v.tensor_type))
    if len(set(parts)) < len(parts) or any(at % ALIGNMENT for at in offsets[:-1]):
        return False
    places = in_place.places
    found = [places.get(v) for v in parts]
    if not any(found):
        home, base = places.get(whole, (whole, 0))
        places.update((v, (home, base + at)) for v, at in zip(parts, offsets, strict=False))
        return True
    if found[0] is None or whole in places:
        return False
    home, base = found[0]
    if found != [(home, base + at) for at in offsets[:-1]]:
        return False
    places[whole] = (home, base)
    return True


def value_bytes(t: TensorType) -> int:
    """Bytes in memory of a tensor of static size."""
    total = storage_bytes(t.dtype.name)
    for d in t.static_shape:
        total *= d
    return total
