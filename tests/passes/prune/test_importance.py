"""Criteria against closed forms, and what is selected by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prune_zoo import C1, C3, ZOO
from support.pruning import Net, array

from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext
from graphkiln.passes.manager import PassManager
from graphkiln.passes.pipeline import parse_pipeline
from graphkiln.passes.prune import CRITERIA, Amounts, Channels, Prune, select
from graphkiln.passes.prune.components import connected
from graphkiln.passes.prune.select import kept_width

W1, W2 = array(8, 3, 3, 3, seed=0), array(5, 8, 3, 3, seed=1)
CHAIN = Net(
    f"""%c = Conv(%x, %w1) {C3}
    %r = Relu(%c)
    %y = Conv(%r, %w2) {C3}
    %y""",
    {},
    {"c": 8},
    arrays={"w1": W1, "w2": W2},
)


def scores(net: Net, criterion: str, context: PassContext | None = None) -> np.ndarray:
    """Those of the channels of the first group, in the order of their positions."""
    graph = net.graph()
    context = context or PassContext()
    context.refresh(graph)
    channels = Channels(graph)
    (group,) = (g for g in channels.groups if g.reason is None)
    return CRITERIA[criterion](channels, context)[group.channels]


def test_magnitudes_are_those_of_makers_and_readers() -> None:
    made, read = np.abs(W1).sum((1, 2, 3)), np.abs(W2).sum((0, 2, 3))
    np.testing.assert_allclose(scores(CHAIN, "l1"), made + read, 1e-5)
    made, read = np.square(W1).sum((1, 2, 3)), np.square(W2).sum((0, 2, 3))
    np.testing.assert_allclose(scores(CHAIN, "l2"), np.sqrt(made + read), 1e-5)


def test_the_median_is_near_all_filters() -> None:
    rows = W1.reshape(8, -1).astype(np.float64)
    wanted = [sum(np.linalg.norm(a - b) for b in rows) for a in rows]
    np.testing.assert_allclose(scores(CHAIN, "median"), wanted, 1e-5)


def test_scales_of_batch_norm() -> None:
    net = ZOO["batch norm"]
    scale = array(8, seed=list(net.shapes).index("scale"))
    np.testing.assert_allclose(scores(net, "batch-norm"), np.abs(scale), 1e-6)
    assert np.isnan(scores(CHAIN, "batch-norm")).all()


def test_activations_where_they_are_read() -> None:
    graph = CHAIN.graph()
    samples = [{"x": array(2, 3, 6, 6, seed=n)} for n in range(3)]
    (relu,) = (n for n in graph.nodes if n.op == "Relu")
    graph.set_outputs([relu.out()])
    seen = [evaluate(graph, s)[0] for s in samples]
    wanted = np.sqrt(sum(np.square(r).sum((0, 2, 3)) for r in seen))
    found = scores(CHAIN, "activation", PassContext(data=samples))
    np.testing.assert_allclose(found, wanted, 1e-4)


def test_random_numbers_are_the_same_each_time() -> None:
    first, second = (scores(CHAIN, "random") for _ in range(2))
    assert (first == second).all() and len(set(first)) == 8


# ---- selection -----------------------------------------------------------------------------------


def pruned(net: Net, **options: object) -> tuple[dict[str, int], PassContext]:
    """The number of dropped channels by group."""
    graph = net.graph()
    context = PassContext()
    context.refresh(graph)
    Prune(**options).run(graph, context)  # type: ignore[arg-type]
    rows = context.tables["groups"]
    return {row["group"]: row["dropped"] for row in rows if not row["reason"]}, context


def test_the_least_go() -> None:
    graph = CHAIN.graph()
    channels = Channels(graph)
    (group,) = (g for g in channels.groups if g.reason is None)
    given = np.full(channels.count, np.inf)
    given[group.channels] = [3, 1, 4, 1.5, 9, 2, 6, 5]
    dropped = select(channels, given, Amounts(0.4))
    assert dropped[group.channels].tolist() == [False, True, False, True, False, True, False, False]
    given[group.channels[1]] = np.nan
    assert not select(channels, given, Amounts(0.9))[group.channels[1]]


def test_layers_have_ratios_of_their_own() -> None:
    net = ZOO["a residual"]
    assert pruned(net, ratio=0.5, multiple=1)[0] == {"c": 4, "d": 3}
    assert pruned(net, ratio=0.5, layers=("d=0",), multiple=1)[0] == {"c": 4, "d": 0}
    assert pruned(net, ratio=0.0, layers=("Conv=0.25",), multiple=1)[0] == {"c": 2, "d": 2}


def test_overall_ratios_take_from_where_least_is_lost() -> None:
    small = array(6, 8, 3, 3, seed=1)
    small[:4] *= 1e-3
    shapes = {"w1": (8, 3, 3, 3), "w3": (8, 6, 3, 3), "w4": (2, 8, 1, 1)}
    net = Net(ZOO["a residual"].lines, shapes, {}, arrays={"w2": small})
    found, _ = pruned(net, ratio=0.3, overall=True, multiple=1)
    assert sum(found.values()) == 4 and found["d"] >= 2


@given(st.integers(1, 500), st.floats(0, 0.99), st.sampled_from([1, 8, 16]))
def test_widths(size: int, ratio: float, multiple: int) -> None:
    kept = kept_width(size, ratio, multiple)
    assert 1 <= kept <= size
    if size >= 4 * multiple and kept < size:
        assert kept % multiple == 0
    assert abs(kept - size * (1 - ratio)) <= max(size / 4, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_components(edges: list[tuple[int, int]]) -> None:
    import networkx as nx

    graph: nx.Graph[int] = nx.Graph(edges)
    graph.add_nodes_from(range(31))
    pairs = [(np.array([a]), np.array([b])) for a, b in edges]
    label = connected(31, pairs)
    wanted = sorted(sorted(c) for c in nx.connected_components(graph))
    assert [np.flatnonzero(label == i).tolist() for i in range(label.max() + 1)] == wanted


# ---- the pass ------------------------------------------------------------------------------------


def test_the_text_of_the_pass() -> None:
    (step,) = parse_pipeline("prune{ratio=0.5,layers=/head/*=0.1+Conv=0,multiple=4}")
    assert step == Prune(0.5, layers=("/head/*=0.1", "Conv=0"), multiple=4)


def test_reasons_are_told() -> None:
    net = ZOO["a layer norm"]
    _, context = pruned(net)
    reasons = {row["group"]: row["reason"] for row in context.tables["groups"]}
    assert reasons["h"] == "LayerNormalization (node 'n') normalizes over it"
    assert reasons["y"] == "it is a result of the model"


def test_what_bodies_read_stays() -> None:
    net = Net(
        f"""%c = Conv(%x, %w1) {C1}
        %y = If(%flag, %c) {{then_branch=graph then(%a: float32[2,8,6,6]) -> (o) {{
        %o = Relu(%a)
        return %o
        }}, else_branch=graph other(%b: float32[2,8,6,6]) -> (o) {{
        %o = Neg(%b)
        return %o
        }}}}
        %z = Conv(%y, %w2) {C1}
        %z""",
        {"w1": (8, 3, 1, 1), "w2": (8, 8, 1, 1)},
        {},
        x="%x: float32[2,3,6,6], %flag: bool[]",
    )
    _, context = pruned(net)
    reasons = {row["reason"] for row in context.tables["groups"] if row["group"] == "c"}
    assert "the bodies of If (node 'y') read it" in reasons


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ratio=1", "ratio is 0 or more, and less than 1, not 1"),
        ("criterion=best", "criterion is one of l1, l2, median"),
        ("multiple=0", "multiple is 1 or more, not 0"),
        ("layers=Conv", "'Conv' is not PATTERN=RATIO"),
    ],
)
def test_options_that_make_no_sense(options: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        PassManager(parse_pipeline(f"prune{{{options}}}")).run(CHAIN.graph())
