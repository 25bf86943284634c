"""Axis maps of recurrent layers: steps are ordered, sequences and hidden elements are not."""

from __future__ import annotations

from collections.abc import Mapping

from ..dims import Dim
from .build import Builder, Rule, rule
from .map import Axis, AxisMap, Kind, whole


def _layer(
    b: Builder, hidden: Axis, directions: Dim, first_state: int, inner: Axis, batch_kind: Kind
) -> tuple[Axis, Axis]:
    """X, lengths, initial states and results; returns the axes of directions and of the batch."""
    steps, batch = b.shape()[:2]
    if b.attr("layout"):
        steps, batch = batch, steps
    s, n = b.opaque(steps), whole(b.factor(batch, batch_kind))
    # Directions differ: one of them goes backwards.
    d = whole(b.factor(directions, Kind.OPAQUE))
    first = bool(b.attr("layout"))
    b.take(0, [n, s, inner] if first else [s, n, inner])
    b.take(first_state - 1, [n])
    state = [n, d, hidden] if first else [d, n, hidden]
    for i in (first_state, first_state + 1):
        b.take(i, state)
    b.give([n, s, d, hidden] if first else [s, d, n, hidden])
    for k in range(1, len(b.node.outputs)):
        b.give(state, k)
    return d, n


def recurrent(gates: int, states: int) -> Rule:
    """The rule of ``RNN``, ``GRU`` and ``LSTM``.

    W ``[directions, (gate, h), inputs]``, R ``[directions, (gate, h), h]``, B ``[directions,
    (2 gates, h)]``, peepholes ``[directions, (3, h)]``.
    """

    @rule
    def describe(b: Builder) -> AxisMap | None:
        directions, _, hidden = b.shape(2)
        h = b.factor(hidden, Kind.NORMALIZED, summed=True)
        inner = whole(b.reduced(b.shape()[2], summed=True))
        d, _ = _layer(b, whole(h), directions, 5, inner, Kind.MAPPED)
        b.take(1, [d, _gated(b, gates, h), inner])
        b.take(2, [d, _gated(b, gates, h), whole(h)])
        b.take(3, [d, _gated(b, 2 * gates, h)])
        if states == 2:
            b.take(7, [d, _gated(b, 3, h)])
        return b.build(counts=_hidden_size(b, h))

    return describe


def _gated(b: Builder, gates: int, h: int) -> Axis:
    return whole(b.factor(gates, Kind.OPAQUE), h)


def _hidden_size(b: Builder, h: int) -> Mapping[str, tuple[int, ...]]:
    return {"hidden_size": (h,)} if b.attr("hidden_size") else {}


@rule
def quantized_lstm(b: Builder) -> AxisMap | None:
    """``DynamicQuantizeLSTM``: W ``[directions, inputs, (gate, h)]``, R ``[directions, h, (gate,
    h)]``; X and h are quantized over all of the batch, their scales by gate or for all."""
    if len(b.shape(1)) != 3:
        return None
    directions, hidden, _ = b.shape(2)
    h, inner = b.factor(hidden, Kind.NORMALIZED), whole(b.reduced(b.shape()[2]))
    d, _ = _layer(b, whole(h), directions, 5, inner, Kind.NORMALIZED)
    b.take(1, [d, inner, _gated(b, 4, h)])
    b.take(2, [d, whole(h), _gated(b, 4, h)])
    b.take(3, [d, _gated(b, 8, h)])
    b.take(7, [d, _gated(b, 3, h)])
    for i in range(8, 12):
        b.take(i, [d, _gated(b, 4, h)][: len(b.shape(i))])
    return b.build(counts=_hidden_size(b, h))


@rule
def packed_recurrent(b: Builder) -> AxisMap | None:
    """Layers with packed gates: the batch is mapped; gates and hidden elements are in blocks."""
    directions = b.shape(1)[0]
    columns, hidden = b.opaque(b.shape()[2]), b.opaque(b.out()[-1])
    d, _ = _layer(b, hidden, directions, 4, columns, Kind.MAPPED)
    b.take(1, [d, *(b.opaque(size) for size in b.shape(1)[1:])])
    return b.build()


__all__ = ["packed_recurrent", "quantized_lstm", "recurrent"]
