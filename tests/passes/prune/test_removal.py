"""Pruned nets compute what nets do whose channels are masked, for every way to couple axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.prune_zoo import ZOO
from support.pruning import Net, assert_exact, free_groups, prune_exactly

from graphkiln.passes.base import PassContext
from graphkiln.passes.prune import Amounts, Channels


@pytest.mark.parametrize("name", ZOO)
def test_groups(name: str) -> None:
    graph = ZOO[name].graph()
    assert free_groups(Channels(graph)) == ZOO[name].groups


@pytest.mark.parametrize("name", [n for n, net in ZOO.items() if net.groups])
def test_pruned_nets_are_masked_nets(name: str) -> None:
    graph = ZOO[name].graph()
    pruned = prune_exactly(graph, Amounts(0.4))
    before, after = (sum(_sizes(g)) for g in (graph, pruned))
    assert after < before


@pytest.mark.parametrize("name", [n for n, net in ZOO.items() if net.groups])
@settings(max_examples=4)
@given(data=st.data())
def test_any_channels_may_go(name: str, data: st.DataObject) -> None:
    """Whatever channels go, as long as every axis keeps one."""
    graph = ZOO[name].graph()
    context, pruned = PassContext(), graph.copy()
    context.refresh(pruned)
    channels = Channels(pruned)
    dropped = np.zeros(channels.count, bool)
    for group in channels.groups:
        if group.reason is None:
            numbers = group.channels.tolist()
            kept = data.draw(st.sets(st.sampled_from(numbers), min_size=1))
            dropped[list(set(numbers) - kept)] = True
    assert_exact(graph, pruned, channels, dropped, context)


def _sizes(graph: object) -> list[int]:
    arrays = [n.out().constant for n in graph.nx if n.key == "Constant"]  # type: ignore[attr-defined]
    return [a.size for a in arrays if a is not None]


def test_unread_channels_alone_may_go() -> None:
    """What is in front of a slice moves it, although its result stays as it is."""
    graph = ZOO["channels that nobody reads"].graph()
    context, pruned = PassContext(), graph.copy()
    context.refresh(pruned)
    channels = Channels(pruned)
    (group,) = {len(g.channels): g for g in channels.groups if len(g.channels) == 5}.values()
    dropped = np.zeros(channels.count, bool)
    dropped[group.channels[:3]] = True
    assert_exact(graph, pruned, channels, dropped, context)
    (sliced,) = (n for n in pruned.nodes if n.key == "kiln.Slice")
    assert sliced.attrs["starts"] == (0, 2, 0, 0)


def test_shared_constants_stay_shared_where_all_lose_the_same() -> None:
    lines = """%c = MatMul(%x, %w1)
        %a = Add(%c, %b)
        %d = Mul(%a, %b)
        %y = MatMul(%d, %w2)
        %y"""
    net = Net(lines, {"w1": (6, 8), "b": (8,), "w2": (8, 3)}, {}, "%x: float32[2,6]")
    pruned = prune_exactly(net.graph(), Amounts(0.5))
    assert sorted(_sizes(pruned)) == [4, 12, 24]
