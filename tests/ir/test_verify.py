"""The verifier: sound graphs pass, and each way to break one is found and named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.cost import growth

from graphkiln.ir.dims import parse_dim, sym
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.registry import InferContext, OpSpec, register
from graphkiln.ir.type_match import same_type
from graphkiln.ir.types import SequenceType, TensorType, dtype, tensor
from graphkiln.ir.verify import VerifyError, verify


def _same_as_first(ctx: InferContext) -> list[TensorType]:
    return [ctx.tensor(0)] * len(ctx.node.outputs)


def _counted(ctx: InferContext) -> list[TensorType]:
    return [tensor("int64", ctx.fresh_dim())]


for _spec in (
    OpSpec("Pair", "test", _same_as_first, min_inputs=2, max_inputs=3, max_outputs=2,
           attributes=frozenset({"k"})),
    OpSpec("Count", "test", _counted, min_inputs=1, max_inputs=1, max_outputs=1),
    OpSpec("Hold", "test", _same_as_first, traits=frozenset({"control_flow"})),
):  # fmt: skip
    register(_spec, override=True)

_TEXT = """graph main(%x: float32[N,4]) -> (a, c) {
    %w = constant float32[4] [1.0, 2.0, 3.0, 4.0]
    %a, %b = test.Pair(%x, %w) {k=1} : float32[N,4], float32[N,4]
    %c = test.Count(%b) : int64[M]
    %h = test.Hold(%a) {body=graph inner(%p: float32[N,4]) -> (q) {
        %q = test.Pair(%p, %p) : float32[N,4]
        return %q
    }} : float32[N,4]
    return %h, %c
}"""


def _nodes(graph: Graph) -> dict[str, Node]:
    return {n.name: n for n in graph.nx}


def test_a_sound_graph_passes() -> None:
    graph = parse_graph(_TEXT)
    verify(graph)
    verify(graph.copy())
    verify(graph, types=False)


def _duplicate_name(g: Graph) -> None:
    _nodes(g)["c"].outputs[0].name = "a"


def _stolen_name(g: Graph) -> None:
    _nodes(g)["c"].outputs[0].name = "fresh"


def _missing_input(g: Graph) -> None:
    g.set_input(_nodes(g)["a"], 1, None)


def _too_many_inputs(g: Graph) -> None:
    g.set_input(_nodes(g)["a"], 3, g.inputs[0])


def _two_producers(g: Graph) -> None:
    g.nx.add_edge(_nodes(g)["w"], _nodes(g)["c"], key=0, output=0)


def _no_such_output(g: Graph) -> None:
    g.nx.add_edge(_nodes(g)["a"], _nodes(g)["a"], key=2, output=5)


def _cycle(g: Graph) -> None:
    g.set_input(_nodes(g)["a"], 1, _nodes(g)["h"].out())


def _unknown_op(g: Graph) -> None:
    _nodes(g)["a"].op = "Pear"


def _unknown_attribute(g: Graph) -> None:
    _nodes(g)["a"].attrs["kk"] = 1


def _odd_attribute(g: Graph) -> None:
    _nodes(g)["a"].attrs["k"] = {1: 2}  # type: ignore[assignment]


def _foreign_node(g: Graph) -> None:
    g.nx.add_edge("not a node", _nodes(g)["a"], key=2, output=0)  # type: ignore[arg-type]


def _dropped_input(g: Graph) -> None:
    g._inputs.clear()


def _empty_constant(g: Graph) -> None:
    _nodes(g)["w"].attrs.clear()


def _constant_with_input(g: Graph) -> None:
    g.set_input(_nodes(g)["w"], 0, g.inputs[0])


def _three_results(g: Graph) -> None:
    g.add_node("Count", [g.inputs[0]], domain="test", outputs=2)


def _same_output_names(g: Graph) -> None:
    g.sink.attrs["names"] = ("y", "y")


def _too_few_output_names(g: Graph) -> None:
    g.sink.attrs["names"] = ("y",)


def _gap_in_outputs(g: Graph) -> None:
    g.set_input(g.sink, 0, None)


def _no_type(g: Graph) -> None:
    _nodes(g)["c"].outputs[0].type = None


def _wrong_dtype(g: Graph) -> None:
    _nodes(g)["a"].outputs[1].type = tensor("int32", sym("N"), 4)


def _wrong_dim(g: Graph) -> None:
    _nodes(g)["a"].outputs[0].type = tensor("float32", 2 * sym("N"), 4)


def _constant_type(g: Graph) -> None:
    _nodes(g)["w"].outputs[0].type = tensor("float32", 5)


def _body_arity(g: Graph) -> None:
    body = _nodes(g)["h"].attrs["body"]
    assert isinstance(body, Graph)
    body.add_input("more", tensor("float32", 1))


def _body_input_type(g: Graph) -> None:
    body = _nodes(g)["h"].attrs["body"]
    assert isinstance(body, Graph)
    for node in body.nx:
        for out in node.outputs:
            out.type = tensor("float32", sym("N"), 5)


def _broken_body(g: Graph) -> None:
    body = _nodes(g)["h"].attrs["body"]
    assert isinstance(body, Graph)
    body.set_input(_nodes(body)["q"], 1, None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_duplicate_name, "node 'c' (test.Count): the name 'a' is empty or stands for two values"),
        (_stolen_name, "node 'c' (test.Count): the name 'fresh' was not given out by the graph"),
        (_missing_input, "node 'a' (test.Pair): input 1 is required"),
        (_too_many_inputs, "node 'a' (test.Pair): takes at most 3 inputs, has 4"),
        (_two_producers, "node 'c' (test.Count): input 0 has two producers"),
        (_no_such_output, "node 'a' (test.Pair): input 2 is output 5 of <test.Pair 'a'>"),
        (_cycle, "the graph has a cycle through a, "),
        (_unknown_op, "node 'a' (test.Pear): the op is not known"),
        (_unknown_attribute, "node 'a' (test.Pair): has no attribute 'kk'"),
        (_odd_attribute, "node 'a' (test.Pair): attribute 'k' holds a dict"),
        (_foreign_node, "'not a node' is not a node"),
        (_dropped_input, "the declared inputs are not the Input nodes"),
        (_empty_constant, "node 'w' (Constant): a constant holds one array"),
        (_constant_with_input, "node 'w' (Constant): takes no inputs"),
        (_three_results, "has 2 outputs, its op 1 to 1"),
        (_same_output_names, "two outputs have one name"),
        (_too_few_output_names, "2 outputs, 1 output names"),
        (_gap_in_outputs, "1 outputs, 2 output names"),
        (_no_type, "node 'c' (test.Count): value 'c' has no type"),
        (_wrong_dtype, "value 'b' is int32[N,4], inference says float32[N,4]"),
        (_wrong_dim, "value 'a' is float32[2*N,4], inference says float32[N,4]"),
        (_constant_type, "value 'w' is float32[5], inference says float32[4]"),
        (_body_arity, "node 'h' (test.Hold): body takes 2 inputs and gives 1 outputs, where 1 and"),
        (_body_input_type, "body's input 'p' is float32[N,5], gets float32[N,4]"),
        (_broken_body, "graph 'inner': node 'q' (test.Pair): input 1 is required"),
    ],
)
def test_damage_is_found_and_named(damage: Callable[[Graph], None], message: str) -> None:
    graph = parse_graph(_TEXT)
    damage(graph)
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    assert message in str(caught.value)
    assert str(caught.value).startswith("graph '")


def test_verifying_changes_nothing() -> None:
    from graphkiln.ir.compare import structurally_equal

    graph = parse_graph(_TEXT)
    verify(graph)
    assert structurally_equal(graph, parse_graph(_TEXT)) is None


@pytest.mark.parametrize(
    ("stated", "inferred", "same"),
    [
        ("N", "N", True),
        ("N", "3", True),
        ("3", "4", False),
        ("N", "M", True),
        ("2*N", "N", False),
        ("N+1", "N", False),
        ("2*(N//2)", "N", True),
        ("u4_0", "7", True),
        ("N", "body_u4_1+2", True),
    ],
)
def test_dims_that_may_be_the_same(stated: str, inferred: str, same: bool) -> None:
    a, b = (tensor("float32", parse_dim(d)) for d in (stated, inferred))
    assert same_type(a, b) is same
    assert same_type(SequenceType(b), SequenceType(a)) is same


def test_types_that_know_less_are_the_same() -> None:
    known = TensorType(dtype("int8"), (1, 2), "NCHW16c")
    assert same_type(known, TensorType(dtype("int8"), None))
    assert same_type(tensor("int8", 1, 2), known)
    assert not same_type(known, TensorType(dtype("int8"), (1, 2), "NHWC"))
    assert not same_type(known, tensor("int8", 1))
    assert not same_type(known, SequenceType(known))


def _chain(length: int) -> Graph:
    graph = Graph()
    value = graph.add_input("x", tensor("float32", sym("N"), 4))
    for _ in range(length):
        node = graph.add_node("Pair", [value, value], domain="test", types=[value.type])
        value = node.out()
    graph.set_outputs([value])
    return graph


def test_cost_grows_linearly() -> None:
    def make(length: int) -> Callable[[], object]:
        graph = _chain(length)
        return lambda: verify(graph)

    assert growth(make) < 8  # 16 where quadratic


def test_numpy_scalars_are_attributes() -> None:
    graph = parse_graph(_TEXT)
    _nodes(graph)["a"].attrs["k"] = np.int64(3)  # type: ignore[assignment]
    verify(graph)
