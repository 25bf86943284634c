"""Chains between 8-bit tensors become tables with the interpreter's own results, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import run

from graphkiln.ir import registry
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.origins import Origins

CONSTANTS = """
%s = constant float32[] 0.05
%t = constant float32[] 0.013
%z = constant uint8[] 100
%n = constant int8[] -3
%sc = constant float32[2] [0.02, 0.04]
%low = constant uint8[] 10
%w = constant float32[2,2,1,1] [1.0, 2.0, -1.0, 0.5]
"""
SWISH = """
%f = DequantizeLinear(%x, %s, %z)
%h = HardSigmoid(%f)
%hq = QuantizeLinear(%h, %t, %z)
%hd = DequantizeLinear(%hq, %t, %z)
%m = Mul(%f, %hd)
%y = QuantizeLinear(%m, %s, {zero})
"""


def graph(lines: str, kind: str = "uint8", shape: str = "1,2,8,16", results: str = "y") -> Graph:
    shown = ", ".join(f"%{r}" for r in results.split(", "))
    head = f"graph main(%x: {kind}[{shape}]) -> ({results})"
    return graph_of(f"{head} {{{CONSTANTS}{lines}\nreturn {shown}\n}}")


def every_byte(kind: str) -> dict[str, np.ndarray]:
    return {"x": np.arange(256, dtype=np.uint8).view(kind).reshape(1, 2, 8, 16)}


def tabulated(g: Graph, feeds: dict[str, np.ndarray]) -> list[str]:
    """The ops that remain; results are the same for every byte."""
    expected = evaluate(g, feeds)
    done = run(g, "tabulate,dce").records[0]
    for actual, wanted in zip(evaluate(g, feeds), expected, strict=True):
        assert actual.dtype == wanted.dtype
        np.testing.assert_array_equal(actual, wanted)
    ops = [n.op for n in g.topological() if n.key != "Constant"]
    assert done.details.get("tables", 0) == ops.count("MapBytes")
    return ops


@pytest.mark.parametrize("zero", ["%z", "%n"])
def test_a_chain_that_branches_is_one_table(zero: str) -> None:
    assert tabulated(graph(SWISH.format(zero=zero)), every_byte("uint8")) == ["MapBytes"]


def test_signed_bytes_index_by_their_bits() -> None:
    lines = SWISH.replace("%x, %s, %z", "%x, %s, %n").format(zero="%z")
    assert tabulated(graph(lines, "int8"), every_byte("int8")) == ["MapBytes"]


def test_a_tensor_of_open_sizes() -> None:
    g = graph(SWISH.format(zero="%z"), shape="N,2,H,16")
    assert tabulated(g, every_byte("uint8")) == ["MapBytes"]


def test_a_chain_begins_anew_where_a_byte_is_read_by_others() -> None:
    lines = (
        SWISH.format(zero="%z")
        + """
    %c = Transpose(%y) {perm=[0, 1, 3, 2]}
    %d = DequantizeLinear(%y, %s, %z)
    %e = Exp(%d)
    %q = QuantizeLinear(%e, %t, %n)"""
    )
    g = graph(lines, results="c, q")
    assert sorted(tabulated(g, every_byte("uint8"))) == ["MapBytes", "MapBytes", "Transpose"]
    second = [n for n in g.topological() if n.op == "MapBytes"][1]
    assert g.required_inputs(second)[0].node.op == "MapBytes"


TWO_CHAINS = (
    SWISH.format(zero="%z")
    + """
    %d = DequantizeLinear(%y, %s, %z)
    %a = Add(%d, %t)
    %q = QuantizeLinear(%a, %t, %n)"""
)


def test_what_is_between_two_tables_is_not_kept() -> None:
    assert tabulated(graph(TWO_CHAINS, results="q"), every_byte("uint8")) == ["MapBytes"]


def test_what_floats_need_stays() -> None:
    lines = (
        SWISH.format(zero="%z")
        + """
    %d = DequantizeLinear(%y, %s, %z)
    %o = Add(%d, %m)"""
    )
    left = tabulated(graph(lines, results="y, o"), every_byte("uint8"))
    left = tabulated(graph(lines, results="y, o"), every_byte("uint8"))
    assert left.count("MapBytes") == 2 and left.count("Mul") == 1 and left.count("Add") == 1


@pytest.mark.parametrize(
    "lines",
    [
        "%y = Max(%x, %low)",  # cheaper than a table
        "%f = DequantizeLinear(%x, %sc, _) {axis=1}\n%y = QuantizeLinear(%f, %s, %z)",
        "%f = DequantizeLinear(%x, %s, %z)\n%r = Conv(%f, %w)\n%y = QuantizeLinear(%r, %s, %z)",
        "%f = DequantizeLinear(%x, %s, %z)\n%y = Exp(%f)",
        "%f = DequantizeLinear(%x, %s, %z)\n%r = Softmax(%f)\n%y = QuantizeLinear(%r, %s, %z)",
        "%f = DequantizeLinear(%x, %s)\n%c = Clip(%f, _, %s)\n%y = Transpose(%c)",
    ],
)
def test_what_is_no_function_of_a_byte_stays(lines: str) -> None:
    assert "MapBytes" not in tabulated(graph(lines), every_byte("uint8"))


def test_two_tensors_are_no_chain() -> None:
    lines = """
    %f = DequantizeLinear(%x, %s, %z)
    %g = DequantizeLinear(%v, %s, %z)
    %a = Add(%f, %g)
    %y = QuantizeLinear(%a, %t, %z)"""
    text = f"graph main(%x: uint8[2,4], %v: uint8[2,4]) -> (y) {{{CONSTANTS}{lines}\nreturn %y\n}}"
    g = graph_of(text)
    run(g, "tabulate,dce")
    assert [n.op for n in g.topological() if n.op == "MapBytes"] == []


@pytest.mark.parametrize("wider", ["%e = kiln.Expand(%f) {shape=[3, 4]}", "%e = Add(%f, %one)"])
def test_a_chain_that_broadcasts_its_start_is_left(wider: str) -> None:
    lines = f"""
    %one = constant float32[1,1,1] [1.0]
    %f = DequantizeLinear(%x, %s, %z)
    {wider}
    %y = QuantizeLinear(%e, %t, %z)"""
    g = graph(lines, shape="1,4")
    run(g, "tabulate,dce")
    assert "MapBytes" not in [n.op for n in g.topological()]


def test_a_chain_ends_in_front_of_constants_of_several_numbers() -> None:
    lines = (
        SWISH.format(zero="%z")
        + """
    %row = constant float32[2,1,1] [1.0, 2.0]
    %d = DequantizeLinear(%y, %s, %z)
    %a = Add(%d, %row)
    %q = QuantizeLinear(%a, %t, %n)"""
    )
    ops = tabulated(graph(lines, results="q"), every_byte("uint8"))
    assert ops == ["MapBytes", "DequantizeLinear", "Add", "QuantizeLinear"]


def test_ops_on_quantised_tensors_are_links() -> None:
    lines = "%y = com.microsoft.QLinearSigmoid(%x, %s, %z, %t, %z)"
    assert tabulated(graph(lines), every_byte("uint8")) == ["MapBytes"]


def test_ops_with_inputs_left_out_are_links() -> None:
    lines = """
    %f = DequantizeLinear(%x, %s)
    %c = Clip(%f, _, %s)
    %y = QuantizeLinear(%c, %t)"""
    assert tabulated(graph(lines), every_byte("uint8")) == ["MapBytes"]


def test_a_result_in_the_middle_of_a_chain_is_a_start() -> None:
    g = graph(TWO_CHAINS, results="y, q")
    assert tabulated(g, every_byte("uint8")) == ["MapBytes", "MapBytes"]
    second = [n for n in g.topological() if n.op == "MapBytes"][1]
    assert g.required_inputs(second)[0].node.op == "MapBytes"


def test_floats_that_others_read_are_no_start() -> None:
    lines = SWISH.format(zero="%z") + "%c = Transpose(%f)"
    ops = tabulated(graph(lines, results="y, c"), every_byte("uint8"))
    assert sorted(ops) == ["DequantizeLinear", "MapBytes", "Transpose"]


def test_others_may_leave_inputs_out() -> None:
    lines = SWISH.format(zero="%z") + "%up = constant float32[4] [1.0, 1.0, 2.0, 1.0]\n"
    ops = tabulated(graph(lines + "%r = Resize(%y, _, %up)", results="r"), every_byte("uint8"))
    assert ops == ["MapBytes", "Resize"]


def test_a_second_result_of_the_graph_is_read() -> None:
    lines = SWISH.format(zero="%z") + "%a, %b = Split(%y) {axis=3, num_outputs=2}"
    ops = tabulated(graph(lines, results="b"), every_byte("uint8"))
    assert ops == ["MapBytes", "Split"]


def test_a_table_stands_for_the_ops_of_its_chain() -> None:
    """It also runs where they do, if some of them tell."""
    lines = SWISH.format(zero="%z") + "%d = DequantizeLinear(%y, %s, %z)\n%a = Add(%d, %t)\n"
    g = graph(lines + "%q = QuantizeLinear(%a, %t, %n)", results="y, q")
    for node in g.nodes:
        node.origins = Origins([node.name])
        node.device = {"f": "gpu", "a": "cpu"}.get(node.name, "")
    run(g, "tabulate")
    found = [n for n in g.topological() if n.op == "MapBytes"]
    chains = [["f", "h", "hd", "hq", "m", "y"], ["a", "d", "q"]]
    assert [sorted(n.origins) for n in found] == chains
    assert [sorted(g.required_inputs(n)[1].node.origins) for n in found] == chains
    assert [n.device for n in found] == ["gpu", "cpu"]


def test_sequences_and_tensors_of_unknown_rank_are_no_links() -> None:
    g = graph("""
    %at = constant int64[] 0
    %none = SequenceEmpty() {dtype=2}
    %e = Identity(%none)
    %b = SequenceAt(%e, %at)
    %y = Cast(%b) {to=1}""")
    assert not run(g, "tabulate").records[0].changes


def test_ops_of_several_results_are_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    both = registry.OpSpec(
        "Both", "test", lambda ctx: [ctx.tensor(0)] * 2, traits=frozenset({"elementwise"}),
        evaluate=lambda _node, inputs: [inputs[0], -inputs[0]],
    )  # fmt: skip
    registry.specs()
    monkeypatch.setitem(registry._REGISTRY, both.key, both)
    g = graph("%f = DequantizeLinear(%x, %s)\n%a, %b = test.Both(%f)\n%y = QuantizeLinear(%a, %t)")
    assert "MapBytes" not in tabulated(g, every_byte("uint8"))


def test_integers_of_other_sizes_start_no_chain() -> None:
    lines = """
    %w16 = Cast(%x) {to=5}
    %r = Transpose(%w16) {perm=[0, 1, 3, 2]}
    %f = DequantizeLinear(%r, %s)
    %y = QuantizeLinear(%f, %t)"""
    assert "MapBytes" not in tabulated(graph(lines), every_byte("uint8"))


def test_what_draws_random_numbers_is_no_link() -> None:
    lines = """
    %p = constant float32[] 0.5
    %on = constant bool[] true
    %f = DequantizeLinear(%x, %s, %z)
    %d = Dropout(%f, %p, %on) {seed=1}
    %y = QuantizeLinear(%d, %t)"""
    g = graph(lines)
    run(g, "tabulate,dce")
    assert "MapBytes" not in [n.op for n in g.topological()]
