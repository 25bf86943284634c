"""The pass that prunes: channels are found, scored, selected and removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, GraphError
from ..base import Pass, PassContext, PassResult, register_pass
from ..claims import lossy
from .channels import Channels, Group
from .importance import CRITERIA, ON_SAMPLES
from .reconstruct import reconstruct
from .remove import remove
from .select import Amounts, select

_LEAST_BLOCK = 8
"""Widths are multiples of this where the target has no blocks of its own."""


@register_pass
@dataclass(frozen=True)
class Prune(Pass):
    """Removes the least important channels of the outermost graph.

    ``ratio`` is the share of the channels of each axis, or with ``overall`` of all together;
    ``layers`` are patterns of the nodes that make channels, with ratios of their own
    (``/head/*=0.1``). ``criterion`` is one of :data:`.importance.CRITERIA`. Wide axes stay
    multiples of ``multiple``, by default the channels that the target's kernels take at a time.
    With ``reconstruct``, what reads the channels makes up for them on samples. A row of the table
    ``groups`` tells of each group of channels how many were dropped, or why none may be.

    What it needs of the graph: sizes in ops of the dialect, which the pass ``shapes`` makes.
    """

    name = "prune"
    claims = {
        "pruned": lossy(
            "sum_i W_i x_i = sum_{i kept} W_i x_i", "the products of the channels that are dropped"
        ),
        "reconstructed": lossy(
            "sum_{i kept} W_i x_i = sum_{i kept} W'_i x_i", "less than without it on the samples"
        ),
    }
    ratio: float = 0.3
    overall: bool = False
    layers: tuple[str, ...] = ()
    criterion: str = "l2"
    multiple: int | None = None
    reconstruct: bool = False

    @property
    def uses_samples(self) -> bool:
        return self.reconstruct or self.criterion in ON_SAMPLES

    def run(self, graph: Graph, context: PassContext) -> PassResult:
        return PassResult.of(self.apply(graph, context))

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        amounts = self._amounts(context)
        channels = Channels(graph)
        scores = CRITERIA[self.criterion](channels, context)
        dropped = select(channels, scores, amounts)
        tell(channels, dropped, context)
        count = reconstruct(channels, dropped, context) if self.reconstruct else 0
        pruned = remove(graph, channels, dropped, context, "pruned")
        return {"pruned": pruned, "reconstructed": count}

    def _amounts(self, context: PassContext) -> Amounts:
        """Raises :class:`.GraphError` for options that make no sense."""
        if not 0 <= self.ratio < 1:
            raise GraphError(f"ratio is 0 or more, and less than 1, not {self.ratio}")
        if self.criterion not in CRITERIA:
            known = ", ".join(CRITERIA)
            raise GraphError(f"criterion is one of {known}, not {self.criterion!r}")
        if self.multiple is not None and self.multiple < 1:
            raise GraphError(f"multiple is 1 or more, not {self.multiple}")
        layouts = context.hardware.layouts
        block = _LEAST_BLOCK if layouts is None else layouts.block
        layers = tuple(layer_ratio(text) for text in self.layers)
        return Amounts(self.ratio, self.overall, layers, self.multiple or block)


def layer_ratio(text: str) -> tuple[str, float]:
    """A pattern of nodes and its ratio, of ``PATTERN=RATIO``; raises :class:`.GraphError`."""
    pattern, _, number = text.rpartition("=")
    try:
        ratio = float(number)
    except ValueError:
        ratio = -1.0
    if not pattern or not 0 <= ratio < 1:
        raise GraphError(f"{text!r} is not PATTERN=RATIO, with a ratio from 0 to less than 1")
    return pattern, ratio


def tell(channels: Channels, dropped: np.ndarray, context: PassContext) -> None:
    """Add the rows of the table ``groups``."""
    for group in channels.groups:
        context.tell(
            "groups", group=group.name, op=_op(group), channels=_count(channels, group),
            dropped=int(dropped[group.channels].sum()), reason=group.reason or "",
        )  # fmt: skip


def _op(group: Group) -> str:
    nodes = [p.node for p in group.parameters if p.makes] or [p.node for p in group.parameters]
    return nodes[0].key


def _count(channels: Channels, group: Group) -> int:
    """The number of channels, or of positions of an axis that stays as a whole."""
    return len(group.channels) or channels.coupling.size(group.parameters[0].item)


__all__ = ["Prune", "layer_ratio", "tell"]
