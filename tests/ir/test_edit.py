"""The editor: types, names and origins of what it adds, and what its listener hears."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from graphkiln.ir.edit import Editor
from graphkiln.ir.graph import Graph, GraphError, Node, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.origins import Origins
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.text import print_graph
from graphkiln.ir.verify import verify


@dataclass
class Recorder:
    """A listener that writes down what it hears."""

    heard: list[tuple[str, ...]] = field(default_factory=list)

    def inserted(self, node: Node, rule: str) -> None:
        self.heard.append(("inserted", node.key, rule))

    def removed(self, node: Node, rule: str) -> None:
        self.heard.append(("removed", node.key, rule))

    def replaced(self, old: Value, new: Value, rule: str) -> None:
        self.heard.append(("replaced", old.name, rule))


def editor(text: str, listener: Recorder | None = None) -> Editor:
    graph = parse_graph(text)
    return Editor(graph, infer_types(graph), listener)


def named(graph: Graph, name: str) -> Node:
    return next(n for n in graph.nx if n.outputs and n.outputs[0].name == name)


CHAIN = """
graph main(%x: float32[2,3]) -> (y) {
  %a = Neg(%x) @[neg]
  %b = Abs(%a) @[abs]
  %y = Exp(%b) @[exp]
  return %y
}
"""


def test_what_is_added_is_typed_and_stands_for_the_sources() -> None:
    e = editor(CHAIN)
    a, b = named(e.graph, "a"), named(e.graph, "b")
    e.begin("rule", a, b, hint="h")
    added = e.op("Sqrt", a.out())
    assert added.name == "h" and str(added.type) == "float32[2,3]"
    assert added.node.origins.names == ("neg", "abs")


def test_a_fused_node_stands_for_all_that_it_replaces() -> None:
    e = editor(CHAIN)
    x, y = e.graph.inputs[0], named(e.graph, "y")
    e.begin("fuse", y)
    e.replace(y.out(), e.op("Sqrt", x))
    (node,) = e.graph.nodes
    assert node.origins.names == ("neg", "abs", "exp")
    assert node.name == "exp" and node.outputs[0].name == "y"
    verify(e.graph)


def test_nodes_that_swap_keep_their_own_origins() -> None:
    """Transpose(x) + b = Transpose(x + Transpose(b)): neither stands for the other's ONNX node."""
    e = editor("""
        graph main(%x: float32[2,3], %b: float32[3,2]) -> (y) {
          %t = Transpose(%x) {perm=[1, 0]} @[turn]
          %y = Add(%t, %b) @[sum]
          return %y
        }
    """)
    (x, b), y = e.graph.inputs, named(e.graph, "y")
    e.begin("swap", y, named(e.graph, "t"))
    back = e.op("Transpose", b, perm=(1, 0))
    e.replace(y.out(), e.op("Transpose", e.op("Add", x, back), perm=(1, 0)))
    found = sorted((n.op, *n.origins) for n in e.graph.nodes)
    assert found == [("Add", "sum"), ("Transpose", "turn"), ("Transpose", "turn")]


def test_what_has_no_node_of_its_op_goes_to_the_result() -> None:
    """Mul(Conv(x, w), s) = Conv(x, w s): the convolution stands for the product too."""
    e = editor("""
        graph main(%x: float32[1,1,4], %w: float32[1,1,1], %v: float32[1,1,1]) -> (y) {
          %c = Conv(%x, %w) @[conv]
          %s = constant float32[] 2.0
          %y = Mul(%c, %s) @[scale]
          return %y
        }
    """)
    (x, _, v), y = e.graph.inputs, named(e.graph, "y")
    e.begin("fold-scale", y)
    e.replace(y.out(), e.op("Conv", x, v))
    (node,) = e.graph.nodes
    assert node.origins.names == ("conv", "scale")


def test_what_passes_its_input_on_becomes_an_origin_of_what_computes_it() -> None:
    e = editor("""
        graph main(%x: float32[2]) -> (z) {
          %y = Neg(%x) @[neg]
          %z = Identity(%y) @[same]
          return %z
        }
    """)
    e.begin("identity", named(e.graph, "z"))
    e.replace(named(e.graph, "z").out(), named(e.graph, "y").out())
    (node,) = e.graph.nodes
    assert node.origins.names == ("neg", "same")


def test_a_branch_that_is_not_taken_leaves_no_origins() -> None:
    e = editor("""
        graph main(%x: float32[2], %v: float32[2]) -> (y) {
          %yes = constant bool[] true
          %a = Neg(%x) @[taken]
          %b = Exp(%v) @[other]
          %y = Where(%yes, %a, %b) @[where]
          return %y
        }
    """)
    e.begin("where", named(e.graph, "y"))
    e.replace(named(e.graph, "y").out(), named(e.graph, "a").out())
    (node,) = e.graph.nodes
    assert node.origins.names == ("taken", "where")


def test_copies_of_a_body_keep_the_origins_of_its_nodes() -> None:
    body = parse_graph(
        "graph b(%p: float32[n]) -> (q) { %q = Neg(%p) : float32[n] @[inner] return %q }"
    )
    e = editor("graph main(%x: float32[7]) -> (x) { return %x }")
    e.begin("inline")
    (value,) = e.inline(body, e.graph.inputs)
    assert str(value.type) == "float32[7]" and value.node.origins.names == ("inner",)


def test_an_omitted_input_is_no_result() -> None:
    body = parse_graph("graph b(%p: float32[2]) -> (p) { return %p }")
    e = editor("graph main(%x: float32[2]) -> (x) { return %x }")
    with pytest.raises(GraphError, match="omitted"):
        e.inline(body, [None])


def test_deferred_removal_credits_the_heir_with_what_dies() -> None:
    """The conversion of a weight and a heir that was not needed end in the heir that lives."""
    e = editor("""
        graph main(%x: float32[2,2]) -> (y) {
          %w = constant int8[2,2] [1, 2, 3, 4]
          %f = Cast(%w) {to=1} @[cast]
          %a = Neg(%x) @[neg]
          %y = MatMul(%a, %f) @[product]
          return %y
        }
    """)
    x, a, y = e.graph.inputs[0], named(e.graph, "a"), named(e.graph, "y")
    e.begin("first", a)
    spare = e.op("Abs", x)
    e.begin("second", y)
    result = e.op("Gemm", x, e.constant(np.ones((2, 2), np.float32)))
    e.replace_uses(y.out(), result)
    e.remove_replaced({a: spare.node, y: result.node})
    (node,) = e.graph.nodes
    assert node is result.node and sorted(node.origins) == ["cast", "neg", "product"]


def test_the_listener_hears_every_edit_with_its_rule() -> None:
    recorder = Recorder()
    e = editor(CHAIN, recorder)
    y = named(e.graph, "y")
    e.begin("fuse", y)
    e.replace(y.out(), e.op("Sqrt", e.graph.inputs[0]))
    assert recorder.heard == [
        ("inserted", "Sqrt", "fuse"),
        ("replaced", "y", "fuse"),
        ("removed", "Exp", "fuse"),
        ("removed", "Abs", "fuse"),
        ("removed", "Neg", "fuse"),
    ]
    e.begin("sign")
    sqrt = e.graph.nodes[0]
    e.set_input(sqrt, 0, e.constant(np.zeros((2, 3), np.float32), "zero"))
    assert recorder.heard[5:] == [("inserted", "Constant", "sign"), ("replaced", "x", "sign")]


def test_what_does_not_apply_leaves_nothing_behind() -> None:
    e = editor(CHAIN)
    before = print_graph(e.graph)
    e.begin("rule", named(e.graph, "y"))
    e.op("Add", e.graph.inputs[0], e.scalar(1, e.graph.inputs[0]))
    e.discard()
    assert print_graph(e.graph) == before


def test_other_types_cannot_stand_for_a_value() -> None:
    e = editor(CHAIN)
    y = named(e.graph, "y")
    e.begin("rule", y)
    with pytest.raises(GraphError, match="cannot stand for 'y'"):
        e.replace(y.out(), e.op("Cast", e.graph.inputs[0], to=7))


def test_constants_have_origins_too() -> None:
    e = editor(CHAIN)
    e.begin("rule", named(e.graph, "y"))
    assert e.constant(np.zeros(1, np.float32)).node.origins == Origins(["exp"])
