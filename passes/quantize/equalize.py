"""Cross-layer equalization: channels between two products get ranges that are alike.

    W2 f(W1 x + b1) = (W2 S) f((W1 x + b1) / S)        f(x / s) = f(x) / s for s > 0
    s_i = sqrt(r1_i / r2_i)

with the largest magnitudes ``r1_i`` of the weights and biases that give channel ``i``, and ``r2_i``
of the weights that read it: afterwards both are ``sqrt(r1_i r2_i)``. A channel that is much larger
than others takes the range of its tensor, and leaves them few steps. As a product stands in two
pairs, all pairs are gone through until nothing changes. M. Nagel, M. van Baalen, T. Blankevoort and
M. Welling, *Data-Free Quantization Through Weight Equalization and Bias Correction*, 2019.

There, only weights count. Biases count here, too: a channel of next to no weights is its bias, and
would become the largest of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Graph, Node
from ..base import Pass, PassContext, register_pass
from ..claims import AFFINE, rounds
from ..fold_affine.linear import Channels
from ..queries import single_use
from .operands import linear_channels
from .places import Use
from .scaling import Changes, Source, constant_at, multiplied_inputs, put
from .sources import source_of

_SETTLED = 1e-3
"""Factors that differ from 1 by less than this change nothing more."""
_ROUNDS = 50
"""Most rounds: long chains settle slowly, and what is left then is little."""


@register_pass
@dataclass(frozen=True)
class Equalize(Pass):
    """Scales the weights of neighbouring products against each other.

    Between them stand ops that scale with their input (``homogeneous`` in the registry), and nobody
    else reads what is between. The float function stays the same up to rounding. A row of the table
    ``equalized`` tells of each pair by which factors its channels were divided.
    """

    name = "equalize"
    claims = {"channel-ranges": rounds("W2 f(W1 x + b1) = (W2 S) f((W1 x + b1) / S)", AFFINE)}

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        pairs = _pairs(graph)
        _settle(pairs)
        editor, count = context.editor(graph), 0
        for pair in pairs:
            changes = pair.changes(graph)
            if changes is not None:
                put(editor, "channel-ranges", changes)
                count += 1
                context.tell(
                    "equalized", first=pair.source.node.name, second=pair.reader.node.name,
                    least=float(pair.s.min()), greatest=float(pair.s.max()),
                )  # fmt: skip
        editor.remove_unused()
        editor.finish()
        return {"channel-ranges": count}


class _Magnitudes:
    """The magnitudes of a product's weights ``[groups, inputs, outputs]``, the largest over all
    positions of a window.
    """

    def __init__(self, graph: Graph, channels: Channels) -> None:
        weights = constant_at(graph, Use(channels.node, 1))
        self.sizes = np.abs(channels.unpacked(weights)).max(axis=3)

    def inputs(self) -> np.ndarray:
        """The largest for each input channel."""
        return self.sizes.max(axis=2).reshape(-1)

    def outputs(self) -> np.ndarray:
        """The largest for each output channel."""
        return self.sizes.max(axis=1).reshape(-1)

    def multiply_inputs(self, s: np.ndarray) -> None:
        self.sizes *= s.astype(np.float32).reshape(len(self.sizes), -1, 1)

    def divide_outputs(self, s: np.ndarray) -> None:
        self.sizes /= s.astype(np.float32).reshape(len(self.sizes), 1, -1)


@dataclass
class _Pair:
    """Two products with what is between them, and the factors ``s`` of its channels found so far.

    ``added`` is the largest magnitude of what is added to each channel.
    """

    source: Source
    reader: Channels
    first: _Magnitudes
    second: _Magnitudes
    added: np.ndarray
    s: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.s = np.ones(self.source.count)

    def step(self) -> float:
        """Equalize the magnitudes as they are; returns the largest change, a logarithm."""
        r1, r2 = np.maximum(self.first.outputs(), self.added / self.s), np.zeros(self.source.count)
        np.maximum.at(r2, self.source.channels, self.second.inputs())
        used = (r1 > 0) & (r2 > 0)
        s = np.sqrt(np.where(used, r1, 1) / np.where(used, r2, 1))
        self.first.divide_outputs(s)
        self.second.multiply_inputs(s[self.source.channels])
        self.s *= s
        return float(np.max(np.abs(np.log(s)), initial=0.0))

    def changes(self, graph: Graph) -> Changes | None:
        """The new constants of both; None where nothing changes, or numbers overflow or vanish."""
        if np.all(np.abs(np.log(self.s)) < _SETTLED):
            return None
        changes = self.source.divided(graph, self.s)
        weights = multiplied_inputs(graph, self.reader, self.s[self.source.channels])
        return None if changes is None or weights is None else changes | weights


def _pairs(graph: Graph) -> list[_Pair]:
    """All pairs, in topological order of the second product."""
    found: list[_Pair] = []
    magnitudes: dict[Node, _Magnitudes] = {}

    def of(channels: Channels) -> _Magnitudes:
        if channels.node not in magnitudes:
            magnitudes[channels.node] = _Magnitudes(graph, channels)
        return magnitudes[channels.node]

    for node in graph.topological():
        x, reader = graph.input(node, 0), linear_channels(graph, node)
        if x is None or reader is None or not single_use(graph, x):
            continue
        source = source_of(graph, x, reader.input_axis)
        first = None if isinstance(source, str) else linear_channels(graph, source.node)
        if isinstance(source, Source) and first is not None:
            weights = Use(source.node, 1)
            added = source.peaks(graph, [c for c in source.constants if c.use != weights])
            found.append(_Pair(source, reader, of(first), of(reader), added))
    return found


def _settle(pairs: list[_Pair]) -> None:
    for _ in range(_ROUNDS):
        if max((pair.step() for pair in pairs), default=0.0) < _SETTLED:
            return


__all__ = ["Equalize"]
