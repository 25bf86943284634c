"""Inputs of Concat are computed in place where they are whole ranges of its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

import graphkiln
from graphkiln.codegen.classify import is_view, used_values
from graphkiln.codegen.concat_in_place import value_bytes
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


def in_place(live: Liveness) -> list[Node]:
    return [node for node in live.order if live.is_in_place(node)]


def relative(live: Liveness, whole: Value, *parts: Value) -> list[int]:
    base = live.offset(whole)
    assert base is not None
    return [at - base for v in parts if (at := live.offset(v)) is not None]


def test_parts_lie_side_by_side() -> None:
    net = Net(1, 16)
    a, b = net.relu(net.x), net.relu(net.x)
    both = net.concat(a, b)
    live = net.plan(both)
    assert in_place(live) == [both.node]
    assert relative(live, both, a, b) == [0, 64]


def test_a_larger_result_takes_in_the_smaller_ones() -> None:
    net = Net(1, 32)
    a, b, c = (net.relu(net.x) for _ in range(3))
    two, three = net.concat(a, b), net.concat(a, b, c)
    inner = net.concat(three, net.relu(two))
    live = net.plan(two, three, inner)
    assert in_place(live) == [two.node, three.node, inner.node]
    assert relative(live, inner, a, b, c, two, three) == [0, 128, 256, 0, 0]


def test_parts_are_alive_as_long_as_the_result() -> None:
    net = Net(1, 16)
    a = net.relu(net.x)
    between = net.relu(net.relu(a))
    both = net.concat(a, net.relu(between))
    late = net.relu(net.relu(both))
    live = net.plan(both, late)
    home = live.offset(both)
    assert in_place(live) == [both.node] and home is not None
    for other in (between, late):
        at = live.offset(other)
        assert at is not None and not home - 64 < at < home + 128


def test_what_has_no_place_of_its_own_is_copied() -> None:
    def copied(*shape: int, axis: int = 1, parts: Any) -> bool:
        net = Net(*shape)
        return not in_place(net.plan(net.concat(*parts(net), axis=axis)))

    assert copied(1, 16, parts=lambda n: [n.x, n.relu(n.x)])
    assert copied(1, 16, parts=lambda n: [n.relu(n.x)] * 2)
    assert copied(1, 15, parts=lambda n: [n.relu(n.x), n.relu(n.x)])
    assert copied(2, 16, parts=lambda n: [n.relu(n.x), n.relu(n.x)])
    assert not copied(2, 16, axis=0, parts=lambda n: [n.relu(n.x), n.relu(n.x)])


def test_a_graph_result_is_copied() -> None:
    net = Net(1, 16)
    both = net.concat(net.relu(net.x), net.relu(net.x))
    net.graph.set_outputs([both])
    assert not in_place(Liveness(net.graph))


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
def plans(draw: st.DrawFn) -> Liveness:
    """Relu, Concat, Split and Reshape in any order, some results among the graph's."""
    net = Net(1, 16)
    values = [net.x]
    for _ in range(draw(st.integers(3, 20))):
        v = draw(st.sampled_from(values[-6:]))
        rows, columns = v.tensor_type.static_shape
        op = draw(st.sampled_from(["Relu", "Concat", "Concat", "Concat", "Split", "Reshape"]))
        if op == "Relu":
            values.append(net.relu(v))
        elif op == "Concat":
            axis = draw(st.integers(0, 1))
            like = [u for u in values if u.shape[1 - axis] == v.shape[1 - axis]]
            parts = draw(st.lists(st.sampled_from(like), min_size=1, max_size=4))
            values.append(net.concat(*parts, axis=axis))
        elif op == "Split" and columns >= 32:
            types = [tensor(rows, 16), tensor(rows, columns - 16)]
            node = net.graph.add_node("Split", [v], {"axis": 1}, outputs=2, types=types)
            values += node.values
        elif op == "Reshape":
            other = tensor(1, rows * columns)
            values.append(net.graph.add_node("kiln.Reshape", [v], types=[other]).out())
    results = draw(st.lists(st.sampled_from(values[1:]), max_size=2)) if values[1:] else []
    loose = [v for v in values[1:] if not net.graph.uses(v) and v not in results]
    net.graph.set_outputs(list(dict.fromkeys([*results, *(net.relu(v) for v in loose)])))
    return Liveness(net.graph)


class Arena:
    """Which value's bytes are where, as kernels run one after another."""

    def __init__(self, live: Liveness) -> None:
        self.live = live
        self.bytes = np.full(live.arena_bytes, -1)
        self.content: dict[Value, Any] = {}
        self.fresh = 0

    def run(self, graph: Graph) -> None:
        for node in self.live.order:
            inputs = [v for v in graph.inputs_of(node) if v is not None]
            for v in inputs:
                self.check(v)
            if self.live.is_in_place(node):
                parts = [self.content[self.live.root(v)] for v in inputs]
                self.content[node.out()] = np.concatenate(parts)
                self.check(node.out())
            elif node.op != "Input" and not is_view(graph, node):
                self.write(used_values(graph, node))
                for v in inputs:
                    self.check(v)

    def write(self, values: list[Value]) -> None:
        for v in values:
            size = value_bytes(v.tensor_type)
            self.content[v] = np.arange(self.fresh, self.fresh + size)
            self.fresh += size
            at = self.live.offset(v)
            if at is not None:
                self.bytes[at : at + size] = self.content[v]
        for v in values:
            self.check(v)

    def check(self, v: Value) -> None:
        """Nothing was written over the value."""
        home = self.live.root(v)
        at = self.live.offset(home)
        if at is not None:
            held = self.bytes[at : at + value_bytes(home.tensor_type)]
            np.testing.assert_array_equal(held, self.content[home])


@settings(max_examples=300, deadline=None)
@given(plans())
def test_nothing_is_overwritten_while_it_is_needed(live: Liveness) -> None:
    Arena(live).run(live.graph)


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """MaxPool and Concat, which do not become one kernel, in any order over [1, 16 n, 4, 3]."""
    nodes: list[onnx.NodeProto] = []
    channels = {"x": 16}

    def add(op: str, parts: list[str], **attrs: Any) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(op, parts, [name], **attrs))
        channels[name] = sum(channels[p] for p in parts)
        return name

    def pool(v: str) -> str:
        size = len(nodes) % 3 + 1  # so that no two nodes compute the same
        return add("MaxPool", [v], kernel_shape=[size, 3], pads=[size // 2, 1, (size - 1) // 2, 1])

    for _ in range(draw(st.integers(1, 4))):
        names = draw(st.lists(st.sampled_from(sorted(channels)), min_size=1, max_size=3))
        parts = [pool(v) if draw(st.booleans()) else v for v in names]
        add("Concat", parts, axis=1)
    wanted = draw(st.sets(st.sampled_from(sorted(set(channels) - {"x"})), min_size=1, max_size=3))
    results = [pool(v) for v in sorted(wanted)]
    shape = [(v, [1, channels[v], 4, 3]) for v in ("x", *results)]
    infos = [helper.make_tensor_value_info(v, TensorProto.FLOAT, s) for v, s in shape]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def compare(model: onnx.ModelProto) -> int:
    """Compare with onnxruntime; returns how many Concat nodes took no kernel."""
    x = np.random.default_rng(0).standard_normal((1, 16, 4, 3)).astype(np.float32)
    peer = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = peer.run(None, {"x": x})
    compiled = graphkiln.compile(model, jobs=1)
    session = compiled.session()
    for _ in range(2):
        for got, want in zip(session.run(None, {"x": x}), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    return len(in_place(Liveness(compiled.graph)))


@settings(max_examples=25, deadline=None)
@given(networks())
def test_results_stay_the_same(model: onnx.ModelProto) -> None:
    compare(model)


def test_a_dense_block_copies_nothing() -> None:
    nodes, parts = [], []
    for n in range(1, 4):
        source = "x" if n == 1 else f"c{n - 1}"
        attrs: dict[str, Any] = {"kernel_shape": [n, 3], "pads": [n // 2, 1, (n - 1) // 2, 1]}
        nodes.append(helper.make_node("MaxPool", [source], [f"p{n}"], **attrs))
        parts.append(f"p{n}")
        nodes.append(helper.make_node("Concat", list(parts), [f"c{n}"], axis=1))
    nodes.append(helper.make_node("MaxPool", ["c3"], ["y"], kernel_shape=[1, 1], strides=[2, 1]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 112, 2, 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert compare(model) >= 2


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
