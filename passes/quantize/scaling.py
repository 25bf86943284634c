"""Factors of channels move out of a tensor into the constants that give it.

    x = f(c),  f(c / s) = f(c) / s        so x / s is had by dividing c

``c`` are the constants in front of the tensor, which :mod:`.sources` finds: filters and biases of a
product, scale and bias of a normalization, what is added or multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node
from ..fold_affine.linear import Channels
from ..precision import least_normal, narrowed
from .places import Use

Changes: TypeAlias = "dict[Use, np.ndarray]"
"""Arrays that take the place of constant inputs."""


@dataclass(frozen=True)
class Constant:
    """A constant input that multiplies a result along some axis.

    ``split`` is its shape with the axes cut into factors, ``places`` where the factors of the
    result's axis stand in that, and ``sizes`` their sizes in the result's order. ``channels`` is
    the channel of each index of the result's axis.
    """

    use: Use
    split: tuple[int, ...]
    places: tuple[int, ...]
    sizes: tuple[int, ...]
    channels: np.ndarray

    def divided(self, array: np.ndarray, s: np.ndarray) -> np.ndarray:
        """``array`` (float64) with the parts of channel ``i`` divided by ``s[i]``."""
        by = s[self.channels].reshape(self.sizes)
        order = np.argsort(self.places)
        shape = [1] * len(self.split)
        for place, size in zip(self.places, self.sizes, strict=True):
            shape[place] = size
        parts: np.ndarray = array.reshape(self.split) / by.transpose(order).reshape(shape)
        return parts.reshape(array.shape) if parts.size == array.size else parts

    def peaks(self, array: np.ndarray) -> np.ndarray:
        """The largest magnitude at each index of the result's axis."""
        others = tuple(a for a in range(len(self.split)) if a not in self.places)
        found = np.abs(array).reshape(self.split).max(axis=others)
        ordered = found.transpose(np.argsort(np.argsort(self.places)))
        return np.broadcast_to(ordered, self.sizes).reshape(-1)


@dataclass(frozen=True)
class Source:
    """What gives the channels of an axis of a tensor.

    ``channels`` is the channel of each index of the axis, of which there are ``count``: several
    indices have one where a view has merged axes. ``constants`` are those of ``node`` and of the
    ops between it and the tensor.
    """

    node: Node
    count: int
    channels: np.ndarray
    constants: tuple[Constant, ...]

    def peaks(self, graph: Graph, constants: Iterable[Constant]) -> np.ndarray:
        """The largest magnitude of some of its constants for each channel, float64 ``[count]``."""
        found = np.zeros(self.count)
        for c in constants:
            np.maximum.at(found, c.channels, c.peaks(constant_at(graph, c.use)))
        return found

    def divided(self, graph: Graph, s: np.ndarray) -> Changes | None:
        """The constants for the tensor divided by ``s`` ``[count]``; None where a number of them
        would overflow or vanish.
        """
        changes: Changes = {}
        for constant in self.constants:
            array = constant_at(graph, constant.use)
            new = kept(constant.divided(array.astype(np.float64), s), array)
            if new is None:
                return None
            changes[constant.use] = new
        return changes


def kept(new: np.ndarray, old: np.ndarray) -> np.ndarray | None:
    """``new`` (float64) in the type of ``old``; None where it overflows, or a number that was
    normal is no longer.
    """
    tiny = np.abs(old) < least_normal(old.dtype)
    return narrowed(new, old.dtype, tiny if tiny.shape == new.shape else False)


def constant_at(graph: Graph, use: Use) -> np.ndarray:
    """The array of a constant input."""
    value = graph.input(use.node, use.index)
    assert value is not None and value.constant is not None
    return value.constant


def put(editor: Editor, rule: str, changes: Changes) -> None:
    """Give constant inputs other arrays; what else reads the old ones still does."""
    for use, array in changes.items():
        old = editor.graph.input(use.node, use.index)
        assert old is not None
        editor.begin(rule, use.node, hint=old.name)
        editor.set_input(use.node, use.index, editor.constant(array, old.name))


def multiplied_inputs(graph: Graph, reader: Channels, s: np.ndarray) -> Changes | None:
    """The weights of a product whose input channels are multiplied by ``s``; None where a number
    would overflow or vanish.
    """
    use = Use(reader.node, 1)
    old = constant_at(graph, use)
    new = kept(multiplied(reader, old, s), old)
    return None if new is None else {use: new}


def multiplied(reader: Channels, weights: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The weights of a product with those of input channel ``i`` times ``s[i]``, float64."""
    wide = reader.unpacked(weights.astype(np.float64)) * s.reshape(reader.groups, -1, 1, 1)
    return np.ascontiguousarray(reader.packed(wide, weights.shape))


__all__ = [
    "Changes", "Constant", "Source", "constant_at", "multiplied", "multiplied_inputs", "put",
]  # fmt: skip
