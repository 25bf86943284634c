"""What packed layouts mean: channels in blocks, and from where each lane comes.

Convolutions are functions of which nothing is known but that the packed one gives the same elements
in blocks; how far their sums differ is another claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import z3

from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.ops.blocked import picked_channels
from graphkiln.ir.registry import attribute

from .smt_index import Index

if TYPE_CHECKING:
    from .smt import Meaning

Term = Any


def _channel(m: Meaning, value: Value, at: Sequence[Index]) -> Term:
    """The channel of a lane of ``[N, Cb, *S, block]``."""
    return m.sizes.value(at[1]) * int(value.shape[-1]) + m.sizes.value(at[-1])


def _lane(m: Meaning, graph: Graph, x: Value, channel: Term, at: Sequence[Index]) -> Term:
    """The element of blocked ``x`` in ``channel``; ``at`` starts with the row, then has ``S``."""
    block = int(x.shape[-1])
    place = Index.of(channel / block, x.shape[1]), Index.of(channel % block, block)
    return m.element(graph, x, [at[0], place[0], *at[1:], place[1]])


def _pack(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    (x,) = graph.required_inputs(value.node)
    channel = _channel(m, value, at)
    inside = m.element(graph, x, [at[0], Index.of(channel, x.shape[1]), *at[2:-1]])
    padding = m.function("zero", 0, m.sort(value))()
    return z3.If(channel < m.sizes.term(x.shape[1]), inside, padding)


def _unpack(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    (x,) = graph.required_inputs(value.node)
    return _lane(m, graph, x, m.sizes.value(at[1]), [at[0], *at[2:]])


def _select(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    channel, sources = _channel(m, value, at), graph.required_inputs(value.node)
    result = m.function("zero", 0, m.sort(value))()
    for k, (source, picked) in enumerate(picked_channels(attribute(value.node, "runs"))):
        lane = _lane(m, graph, sources[source], z3.IntVal(picked), [at[0], *at[2:-1]])
        result = z3.If(channel == k, lane, result)
    return result


def _conv(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    return _product(m, value, [m.sizes.value(i) for i in at])


def _conv_blocked(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    rest = [m.sizes.value(i) for i in at[2:-1]]
    return _product(m, value, [m.sizes.value(at[0]), _channel(m, value, at), *rest])


def _product(m: Meaning, value: Value, terms: list[Term]) -> Term:
    """Convolutions keep the first part of their name, up to a dot or an underscore."""
    name = value.name.replace(".", "_").split("_")[0]
    return m.function(("convolution", name), len(terms), m.sort(value))(*terms)


BLOCKS = {
    "kiln.PackChannels": _pack, "kiln.UnpackChannels": _unpack, "kiln.SelectChannels": _select,
    "Conv": _conv, "kiln.ConvBlocked": _conv_blocked,
}  # fmt: skip
