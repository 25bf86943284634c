"""Inputs of Concat are computed in place where they are whole ranges of its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import graphkiln
from graphkiln.codegen.liveness import Liveness
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.types import DTYPES, TensorType


def tensor(*shape: Any, dtype: str = "float32") -> TensorType:
    return TensorType(DTYPES[dtype], shape)


class Net:
    """A graph of Relu and Concat nodes over one input."""

    def __init__(self, *shape: Any) -> None:
        self.graph = Graph("net")
        self.x = self.graph.add_input("x", tensor(*shape))

    def relu(self, v: Value) -> Value:
        return self.graph.add_node("Relu", [v], types=[v.tensor_type]).out()

    def concat(self, *parts: Value, axis: int = 1) -> Value:
        shape = list(parts[0].tensor_type.static_shape)
        shape[axis] = sum(v.tensor_type.static_shape[axis] for v in parts)
        return self.graph.add_node(
            "Concat", list(parts), {"axis": axis}, types=[tensor(*shape)]
        ).out()

    def plan(self, *outputs: Value) -> Liveness:
        self.graph.set_outputs([self.relu(v) for v in outputs])
        return Liveness(self.graph)


def joined(live: Liveness) -> list[Node]:
    return [node for node in live.order if live.is_joined(node)]


def relative(live: Liveness, whole: Value, *parts: Value) -> list[int]:
    base = live.offset(whole)
    assert base is not None
    return [at - base for v in parts if (at := live.offset(v)) is not None]


def test_parts_lie_side_by_side() -> None:
    net = Net(1, 16)
    a, b = net.relu(net.x), net.relu(net.x)
    both = net.concat(a, b)
    live = net.plan(both)
    assert joined(live) == [both.node]
    assert relative(live, both, a, b) == [0, 64]


def test_a_larger_result_takes_in_the_smaller_ones() -> None:
    net = Net(1, 32)
    a, b, c = (net.relu(net.x) for _ in range(3))
    two, three = net.concat(a, b), net.concat(a, b, c)
    inner = net.concat(three, net.relu(two))
    live = net.plan(two, three, inner)
    assert joined(live) == [two.node, three.node, inner.node]
    assert relative(live, inner, a, b, c, two, three) == [0, 128, 256, 0, 0]


def test_parts_are_alive_as_long_as_the_result() -> None:
    net = Net(1, 16)
    a = net.relu(net.x)
    between = net.relu(net.relu(a))
    both = net.concat(a, net.relu(between))
    late = net.relu(net.relu(both))
    live = net.plan(both, late)
    home = live.offset(both)
    assert joined(live) == [both.node] and home is not None
    for other in (between, late):
        at = live.offset(other)
        assert at is not None and not home - 64 < at < home + 128


def test_what_has_no_place_of_its_own_is_copied() -> None:
    def copied(*shape: int, axis: int = 1, parts: Any) -> bool:
        net = Net(*shape)
        return not joined(net.plan(net.concat(*parts(net), axis=axis)))

    assert copied(1, 16, parts=lambda n: [n.x, n.relu(n.x)])
    assert copied(1, 16, parts=lambda n: [n.relu(n.x)] * 2)
    assert copied(1, 15, parts=lambda n: [n.relu(n.x), n.relu(n.x)])
    assert copied(2, 16, parts=lambda n: [n.relu(n.x), n.relu(n.x)])
    assert not copied(2, 16, axis=0, parts=lambda n: [n.relu(n.x), n.relu(n.x)])


def test_a_graph_result_is_copied() -> None:
    net = Net(1, 16)
    both = net.concat(net.relu(net.x), net.relu(net.x))
    net.graph.set_outputs([both])
    assert not joined(Liveness(net.graph))


def test_copies_are_made_where_places_would_take_more_memory() -> None:
    """An early small part would hold room for a large late one all along."""
    net = Net(1, 16)
    early = net.relu(net.x)
    wide = net.relu(net.concat(*(net.relu(net.x) for _ in range(64))))
    narrow = net.graph.add_node("ReduceMax", [wide], {"keepdims": 1}, types=[tensor(1, 1)]).out()
    grown = net.graph.add_node("Add", [net.x, narrow], types=[tensor(1, 16)]).out()
    large = net.concat(*(net.relu(grown) for _ in range(63)))
    both = net.concat(early, net.relu(large))
    live = net.plan(both)
    plain = 64 * 64
    assert live.arena_bytes <= 2 * plain + 128


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Relu, Neg and Concat in any order over [1, 16 n, 2, 3]."""
    nodes: list[onnx.NodeProto] = []
    channels = {"x": 16}
    for n in range(draw(st.integers(2, 10))):
        names = sorted(channels)
        op = draw(st.sampled_from(["Relu", "Neg", "Concat", "Concat"]))
        count = draw(st.integers(1, 3)) if op == "Concat" else 1
        parts = [draw(st.sampled_from(names)) for _ in range(count)]
        extra = {"axis": 1} if op == "Concat" else {}
        nodes.append(helper.make_node(op, parts, [f"v{n}"], **extra))
        channels[f"v{n}"] = sum(channels[p] for p in parts)
    wanted = draw(st.sets(st.sampled_from(sorted(channels)[:-1]), min_size=1, max_size=3))
    results = []
    for v in sorted(wanted):
        nodes.append(helper.make_node("Sigmoid", [v], [f"{v}_out"]))
        results.append((f"{v}_out", channels[v]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 2, 3])],
        [helper.make_tensor_value_info(v, TensorProto.FLOAT, [1, c, 2, 3]) for v, c in results],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@settings(max_examples=30, deadline=None)
@given(networks())
def test_results_stay_the_same(model: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((1, 16, 2, 3)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    session = graphkiln.compile(model, jobs=1).session()
    for _ in range(2):
        for got, want in zip(session.run(None, {"x": x}), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
