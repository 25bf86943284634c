"""Fusion: which operations share a region, what stays outside, and that no cycle is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, random_feeds, run, same
from support.toy_layouts import toy_context

from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.hardware import GenericHardware
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.types import tensor
from graphkiln.passes.base import PassContext

RESIDUAL = """
graph main(%x: float32[1,2,4,4]) -> (y) {
  %w = constant float32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  %a = Conv(%x, %w)
  %r = Relu(%a)
  %b = Conv(%r, %w)
  %s = Add(%b, %r)
  %y = Relu(%s)
  return %y
}
"""

GATED = """
graph main(%x: float32[1,2,4,4]) -> (y) {
  %w = constant float32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  %a = Conv(%x, %w)
  %g = Sigmoid(%a)
  %y = Mul(%a, %g)
  return %y
}
"""

SQUEEZE = """
graph main(%x: float32[1,2,4,4]) -> (y) {
  %w = constant float32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  %a = Conv(%x, %w)
  %p = GlobalAveragePool(%a)
  %g = Sigmoid(%p)
  %y = Mul(%a, %g)
  return %y
}
"""

ELEMENTWISE = """
graph main(%x: float32[N,3,4], %b: float32[4]) -> (y) {
  %t = Transpose(%x) {perm=[0, 2, 1]}
  %v = kiln.Reshape(%b) {shape=[4, 1]}
  %s = Add(%t, %v)
  %e = Exp(%s)
  %u = kiln.Reshape(%e) {shape=[<N>, 4, 3, 1]}
  %n = Neg(%u)
  %y = kiln.Reshape(%n) {shape=[<N>, 12]}
  return %y
}
"""

BROADCAST = """
graph main(%x: float32[N,1], %z: float32[N,8]) -> (y) {
  %e = Exp(%x)
  %n = Neg(%e)
  %y = Mul(%n, %z)
  return %y
}
"""

REDUCED = """
graph main(%x: float32[N,8]) -> (y) {
  %axis = constant int64[1] [1]
  %s = Mul(%x, %x)
  %m = ReduceMean(%s, %axis)
  %y = Sqrt(%m)
  return %y
}
"""

CYCLE = """
graph main(%x: float32[4,4]) -> (y) {
  %a = Relu(%x)
  %m = MatMul(%a, %a)
  %b = Neg(%a)
  %c = Add(%b, %m)
  %y = Exp(%c)
  return %y
}
"""

JOINED = """
graph main(%x: float32[N,4], %t: float32[9,2], %i: int64[N]) -> (y, z) {
  %a = kiln.Slice(%x) {starts=[0, 0], steps=[1, 1], shape=[<N>, 2]}
  %e = Exp(%a)
  %g = Gather(%t, %i)
  %c = Concat(%e, %g) {axis=1}
  %y = Relu(%c)
  %n = Neg(%x)
  %z = Tanh(%n)
  return %y, %z
}
"""

COPIED = """
graph main(%x: float32[N,4], %t: float32[9,2], %u: float32[9,3]) -> (y, z) {
  %a = kiln.Slice(%x) {starts=[0, 1], steps=[1, 1], shape=[<N>, 1]}
  %i = Cast(%a) {to=7}
  %g = Gather(%t, %i)
  %y = Neg(%g)
  %h = Gather(%u, %i)
  %z = Abs(%h)
  return %y, %z
}
"""

NARROWED = """
graph main(%x: float32[64], %k: float32[4,64], %l: float32[5,64]) -> (y, z) {
  %b = Cast(%x) {to=TYPE}
  %c = Cast(%b) {to=1}
  %m = Add(%c, %k)
  %y = Exp(%m)
  %f = Cast(%b) {to=1}
  %n = Add(%f, %l)
  %z = Exp(%n)
  return %y, %z
}
"""

SOURCES = """
graph main(%x: float32[1,2,3,3], %k: float32[6,6]) -> (y) {
  %s = constant float32[4] [1.0, 1.0, 2.0, 2.0]
  %e = Exp(%x)
  %r = Resize(%e, _, %s) {mode="linear"}
  %y = Add(%r, %k)
  return %y
}
"""

BODIES = """
graph main(%go: bool[], %x: float32[3]) -> (y) {
  %y = If(%go, %x) {
    else_branch = graph no(%x: float32[3]) -> (o) {
      %o = Neg(%x)
      return %o
    },
    then_branch = graph yes(%x: float32[3]) -> (o) {
      %m = Mul(%x, %x)
      %o = Exp(%m)
      return %o
    }
  }
  return %y
}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fuse_residual", RESIDUAL),
        ("fuse_gated", GATED),
        ("fuse_squeeze", SQUEEZE),
        ("fuse_elementwise", ELEMENTWISE),
        ("fuse_broadcast", BROADCAST),
        ("fuse_reduced", REDUCED),
        ("fuse_cycle", CYCLE),
        ("fuse_bodies", BODIES),
        ("fuse_joined", JOINED),
        ("fuse_copied", COPIED),
        ("fuse_sources", SOURCES),
    ],
)
def test_golden(golden: Golden, name: str, text: str) -> None:
    check(golden, name, text, "fuse")


def _regions(graph: Graph) -> list[list[str]]:
    bodies = [n.attrs["body"] for n in graph.topological() if n.op == "Region"]
    return [[n.op for n in b.topological()] for b in bodies if isinstance(b, Graph)]


def test_a_region_has_one_anchor() -> None:
    graph = graph_of(RESIDUAL)
    run(graph, "fuse")
    assert _regions(graph) == [["Conv", "Relu"], ["Conv", "Add", "Relu"]]


@pytest.mark.parametrize(("to", "copied"), [("11", True), ("1", True), ("2", False)])
def test_copies_move_fewer_bytes_than_a_result_that_is_stored(to: str, copied: bool) -> None:
    """Two copies read 8 bytes an element; a uint8 is stored and read twice in 4 + 1 + 2."""
    graph = graph_of(NARROWED.replace("TYPE", to))
    run(graph, "fuse")
    assert any(n.op == "Cast" for n in graph.nodes) is not copied


@pytest.mark.parametrize(("readers", "copied"), [(4, True), (5, False)])
def test_a_few_regions_get_copies_of_what_they_read(readers: int, copied: bool) -> None:
    lines = [f"%s{i} = Add(%n, %k{i})\n%y{i} = Exp(%s{i})\n" for i in range(readers)]
    params, names = (
        ", ".join(form.format(i) for i in range(readers)) for form in ("%k{}: float32[9]", "y{}")
    )
    results = ", ".join(f"%y{i}" for i in range(readers))
    graph = graph_of(f"graph main(%x: float32[9], {params}) -> ({names}) {{\n%n = Neg(%x)\n"
                     f"{''.join(lines)}return {results}\n}}")  # fmt: skip
    run(graph, "fuse")
    assert _regions(graph) == [["Neg", "Add", "Exp"] if copied else ["Add", "Exp"]] * readers


@pytest.mark.parametrize(
    ("shape", "joins"), [("2, 3, 1", True), ("1, 2, 3", True), ("3, 2", False)]
)
def test_views_join_that_only_move_dims_of_1(shape: str, joins: bool) -> None:
    graph = graph_of(f"""
    graph main(%x: float32[2,1,3]) -> (y) {{
      %e = Exp(%x)
      %v = kiln.Reshape(%e) {{shape=[{shape}]}}
      %y = Neg(%v)
      return %y
    }}
    """)
    run(graph, "fuse")
    assert _regions(graph) == ([["Exp", "Reshape", "Neg"]] if joins else [])


def test_strings_stay_outside() -> None:
    graph = graph_of("""
    graph main(%x: float32[4]) -> (y) {
      %n = Neg(%x)
      %y = Cast(%n) {to=8}
      return %y
    }
    """)
    run(graph, "fuse")
    assert _regions(graph) == []


def test_an_anchor_whose_result_is_stored_has_no_epilogue() -> None:
    """With a part of what reads it, two values would leave the region."""
    graph = graph_of("""
    graph main(%x: float32[4,4]) -> (m, y) {
      %m = MatMul(%x, %x)
      %y = Relu(%m)
      return %m, %y
    }
    """)
    run(graph, "fuse")
    assert [n.op for n in graph.topological()] == ["MatMul", "Relu"]


def test_an_anchor_of_many_consumers_has_no_epilogue() -> None:
    ops = ("Relu", "Exp", "Abs", "Neg", "Tanh", "Sqrt")
    uses = "\n".join(f"%y{i} = {op}(%m)" for i, op in enumerate(ops))
    results = [f"y{i}" for i in range(len(ops))]
    graph = graph_of(
        f"graph main(%x: float32[4,4]) -> ({', '.join(results)}) {{\n%m = MatMul(%x, %x)\n{uses}\n"
        f"return {', '.join(f'%{r}' for r in results)}\n}}"
    )
    run(graph, "fuse")
    assert _regions(graph) == []
    assert sorted(n.op for n in graph.nodes) == sorted(["MatMul", *ops])


class _NoEpilogue(GenericHardware):
    def fusible_epilogue(
        self, graph: Graph, anchor: Node, moved: Node | None, node: Node
    ) -> str | None:
        return "not here"

    def fusible_prologue(self, graph: Graph, anchor: Node, node: Node) -> str | None:
        return "nor here"


def test_the_target_decides_what_joins_an_anchor() -> None:
    graph = graph_of(REDUCED)
    reasons: list[str] = []
    context = PassContext(_NoEpilogue(), explain=lambda _r, _n, why: reasons.append(why))
    run(graph, "fuse", context)
    assert _regions(graph) == []
    assert {"not here", "nor here"} <= set(reasons)


HEADS = """
graph main(%x: float32[2,5,9,8], %b: float32[8]) -> (y) {
  %xb = Add(%x, %b)
  %qs = kiln.Slice(%xb) {starts=[0, 0, 0, 0], shape=[2, 5, 3, 8], steps=[1, 1, 1, 1]}
  %ks = kiln.Slice(%xb) {starts=[0, 0, 3, 0], shape=[2, 5, 3, 8], steps=[1, 1, 1, 1]}
  %vs = kiln.Slice(%xb) {starts=[0, 0, 6, 0], shape=[2, 5, 3, 8], steps=[1, 1, 1, 1]}
  %q = Transpose(%qs) {perm=[0, 2, 1, 3]}
  %k = Transpose(%ks) {perm=[0, 2, 1, 3]}
  %v = Transpose(%vs) {perm=[0, 2, 1, 3]}
  %a = kiln.Attention(%q, %k, %v) {scale=0.5}
  %t = Transpose(%a) {perm=[0, 2, 1, 3]}
  %y = Relu(%t)
  return %y
}
"""


def test_attention_takes_the_views_around_it_where_the_target_does() -> None:
    graph = graph_of(HEADS)
    run(graph, "fuse")
    assert not any("Attention" in ops for ops in _regions(graph))
    graph = graph_of(HEADS)
    run(graph, "fuse", toy_context())
    (found,) = [ops for ops in _regions(graph) if "Attention" in ops]
    # What is computed stays outside in front, and nothing follows the transpose.
    assert sorted(found) == ["Attention", *["Slice"] * 3, *["Transpose"] * 4]


QUANTIZED = """
graph main(%x: uint8[1,2,4,4], %z: uint8[1,2,4,4]) -> (y, t) {{
  %s = constant float32[{size}] {values}
  %w = constant float32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  %d = DequantizeLinear(%x, %s) {{axis=1}}
  %e = DequantizeLinear(%z, %s) {{axis=1}}
  %a = Conv(%d, %w)
  %b = Add(%a, %e)
  %y = QuantizeLinear(%b, %s) {{axis=1}}
  %n = Neg(%e)
  %t = Exp(%n)
  return %y, %t
}}
"""


def test_quantisation_by_one_scale_is_elementwise() -> None:
    """It ends the anchor's kernel, and what is dequantised is so where it is read."""
    graph = graph_of(QUANTIZED.format(size="", values="0.5"))
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "fuse")
    convolution = ["Add", "Conv", "DequantizeLinear", "QuantizeLinear"]
    assert sorted(map(sorted, _regions(graph))) == [convolution, ["DequantizeLinear", "Exp", "Neg"]]
    same(evaluate(graph, feeds), expected)


READ_AGAIN = """
graph main(%x: uint8[1,2,4,4]) -> (y, t) {{
  %s = constant float32[] 0.5
  %z = constant uint8[] 100
  %axes = constant int64[2] [2, 3]
  %d = DequantizeLinear(%x, %s)
  %w = constant float32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  %a = Conv(%d, %w)
  %q = QuantizeLinear(%a, %s, %z)
  %e = DequantizeLinear(%q, %s, %z)
  %g = ReduceMean(%e, %axes)
  %y = Mul(%e, %g)
  %t = {last}
  return %y, %t
}}
"""


@pytest.mark.parametrize(
    ("last", "stored"),
    [("Neg(%e)", "QuantizeLinear"), ("MaxPool(%e) {kernel_shape=[2,2]}", "DequantizeLinear"),
     ("Concat(%e, %e) {axis=1}", "DequantizeLinear")],
)  # fmt: skip
def test_bytes_are_stored_where_readers_may_dequantise(last: str, stored: str) -> None:
    graph = graph_of(READ_AGAIN.format(last=last))
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "fuse")
    (convolution,) = [ops for ops in _regions(graph) if "Conv" in ops]
    assert convolution[-1] == stored
    same(evaluate(graph, feeds), expected)


def test_quantisation_by_several_scales_stands_alone() -> None:
    graph = graph_of(QUANTIZED.format(size="2", values="[0.5, 0.25]"))
    run(graph, "fuse")
    assert sorted(map(sorted, _regions(graph))) == [["Add", "Conv"], ["Exp", "Neg"]]


def test_vectors_are_inputs_and_scalars_are_code() -> None:
    graph = graph_of("""
    graph main(%x: float32[9]) -> (y) {
      %v = constant float32[9] [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
      %c = constant float32[] 2.0
      %s = Add(%x, %v)
      %y = Mul(%s, %c)
      return %y
    }
    """)
    run(graph, "fuse")
    body = graph.nodes[0].attrs["body"]
    assert isinstance(body, Graph)
    assert [v.name for v in body.inputs] == ["x", "v"]


def _chain(length: int, inputs: int, anchored: bool = False) -> Graph:
    """Additions of one input after the other, of the square of the first with ``anchored``."""
    graph = Graph()
    values = [graph.add_input(f"x{i}", tensor("float32", 4, 4)) for i in range(inputs)]
    value = values[0]
    if anchored:
        value = graph.add_node("MatMul", [value, value]).out()
    for i in range(length):
        value = graph.add_node("Add", [value, values[i % inputs]]).out()
    graph.set_outputs([value])
    infer_types(graph)
    return graph


@pytest.mark.parametrize(
    ("graph", "options", "sizes"),
    [
        (_chain(20, 2), "max-nodes=8", [4, 8, 8]),
        (_chain(12, 12), "max-inputs=4", [3, 3, 3, 3]),
        (_chain(10, 2, anchored=True), "max-nodes=3", [2, 3, 3, 3]),
        (_chain(11, 12, anchored=True), "max-inputs=4", [3, 3, 5]),
    ],
)
def test_limits(graph: Graph, options: str, sizes: list[int]) -> None:
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, f"fuse{{{options}}}")
    assert sorted(len(r) for r in _regions(graph)) == sorted(sizes)
    same(evaluate(graph, feeds), expected)


def test_data_dependent_sizes_and_strings_stay_outside() -> None:
    graph = graph_of("""
    graph main(%x: float32[4]) -> (y) {
      %a = Relu(%x)
      %i = NonZero(%a)
      %f = Cast(%i) {to=1}
      %y = Neg(%f)
      return %y
    }
    """)
    run(graph, "fuse")
    assert _regions(graph) == [["Cast", "Neg"]]


def test_a_result_in_the_middle_ends_a_region() -> None:
    graph = graph_of("""
    graph main(%x: float32[4]) -> (a, y) {
      %a = Relu(%x)
      %b = Exp(%a)
      %y = Neg(%b)
      return %a, %y
    }
    """)
    run(graph, "fuse")
    assert _regions(graph) == [["Exp", "Neg"]]


def _random_dag(seed: int) -> tuple[Graph, dict[str, Any]]:
    """Elementwise ops, reductions and products over each other's results."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    values = [graph.add_input(f"x{i}", tensor("float32", 4, 4)) for i in range(2)]
    axis = graph.add_constant(np.array([1], np.int64))
    for _ in range(30):
        a, b = (values[rng.integers(max(0, len(values) - 6), len(values))] for _ in range(2))
        kind = rng.integers(0, 8)
        if kind < 4:
            node = graph.add_node(["Add", "Mul", "Max", "Sub"][kind], [a, b])
        elif kind < 6:
            node = graph.add_node(["Sigmoid", "Tanh"][kind - 4], [a])
        elif kind == 6:
            mean = graph.add_node("ReduceMean", [a, axis]).out()
            node = graph.add_node("Sub", [a, mean])
        else:
            node = graph.add_node("Transpose", [a], {"perm": (1, 0)})
        values.append(node.out())
    graph.set_outputs([values[-1], values[-4]])
    infer_types(graph)
    return graph, random_feeds(graph)


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_stay_acyclic_and_equal(seed: int) -> None:
    graph, feeds = _random_dag(seed)
    expected = evaluate(graph, feeds)
    run(graph, "dce,fuse{max-nodes=6}")
    same(evaluate(graph, feeds), expected)
