"""Devices chosen before passes run: what replaces nodes keeps them, and nothing mixes them."""

from __future__ import annotations

import numpy as np

from graphkiln.driver import CompileOptions, optimize_graph
from graphkiln.ir.edit import Editor
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.parser import parse_graph

TEXT = """
graph g(%x: float32[8,16]) -> (a, b, c) {
  %w = constant float32[16,8] [PLACE]
  %m = MatMul(%x, %w) : float32[8,8] on mirror
  %r = Relu(%m) : float32[8,8] on mirror
  %s = Sigmoid(%r) : float32[8,8] on cpu
  %t = Tanh(%s) : float32[8,8] on cpu
  %e = Exp(%t) : float32[8,8] on mirror
  %f = Exp(%t) : float32[8,8] on cpu
  %a = Sub(%e, %s) : float32[8,8] on mirror
  %b = Neg(%f) : float32[8,8] on cpu
  %one = constant float32[] 1.0
  %i = Mul(%r, %one) : float32[8,8] on mirror
  %c = Gelu(%i) : float32[8,8] on mirror
  return %a, %b, %c
}
"""


def graph() -> Graph:
    numbers = ", ".join(f"{(i % 7 - 3) / 8}" for i in range(128))
    return parse_graph(TEXT.replace("PLACE", numbers))


def inner(node: Node) -> list[str]:
    body = node.attrs.get("body")
    return [n.op for n in body.nodes] if isinstance(body, Graph) else [node.op]


def test_regions_hold_nodes_of_one_device() -> None:
    x = np.random.default_rng(3).standard_normal((8, 16)).astype("f")
    want = evaluate(graph(), {"x": x})
    found = optimize_graph(graph(), CompileOptions("cuda:sm_90"))
    places: dict[str, list[str]] = {}
    for node in found.nodes:
        places.setdefault(node.device, []).extend(inner(node))
    assert places.keys() == {"cpu", "mirror"}
    assert {"MatMul", "Relu", "Exp", "Sub"} <= set(places["mirror"])
    assert {"Sigmoid", "Tanh", "Exp", "Neg"} <= set(places["cpu"])
    assert not {"Sigmoid", "Tanh", "Neg"} & set(places["mirror"])
    assert any(node.key == "kiln.Region" for node in found.nodes)
    for a, b in zip(evaluate(found, {"x": x}), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_an_edit_adds_runs_where_its_sources_do() -> None:
    g = graph()
    nodes = {n.outputs[0].name: n for n in g.nodes}
    editor = Editor(g, infer_types(g))
    for names, device in ((("m", "r"), "mirror"), (("s", "r"), ""), (("t",), "cpu"), ((), "")):
        editor.begin("test", *(nodes[n] for n in names))
        added = editor.op("Abs", nodes["m"].out()).node
        assert added.device == device
        assert editor.clone(nodes["s"], [nodes["m"].out()]).device == "cpu"
        editor.discard()
