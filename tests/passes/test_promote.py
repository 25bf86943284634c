"""Narrow floats between storage are computed in float32."""

from __future__ import annotations

import numpy as np
from support.graph_text import constant_lines, graph_of
from support.pass_checks import Golden, run
from support.toy_layouts import cpu_context, toy_context

from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.text import print_graph
from graphkiln.passes.base import PassContext

X = np.linspace(-3, 3, 24, dtype=np.float16).reshape(1, 2, 3, 4)
TEXT = """graph main(%x: float16[1,2,3,4]) -> (y, n) {
LINES
return %y, %n
}"""
LINES = """%c = Conv(%x, %w, %b)
%r = Relu(%c)
%p = MaxPool(%r) {kernel_shape=[2,2]}
%n = NonZero(%r)
%y = Softmax(%p)"""


def _text() -> tuple[str, dict[str, np.ndarray]]:
    weights = {
        "w": (np.arange(4).reshape(2, 2, 1, 1) / 8).astype(np.float16),
        "b": np.array([0.5, -0.25], np.float16),
    }
    lines, by_hash = constant_lines(weights)
    return TEXT.replace("LINES", f"{lines}\n{LINES}"), by_hash


def test_golden(golden: Golden) -> None:
    graph = graph_of(*_text())
    expected = evaluate(graph, {"x": X})
    assert run(graph, "promote,dce", toy_context()).records[0].changes
    golden("promote", print_graph(graph))
    actual = evaluate(graph, {"x": X})
    np.testing.assert_allclose(actual[0], expected[0], rtol=2e-3)
    np.testing.assert_array_equal(actual[1], expected[1])


def test_nothing_where_the_target_does_not_say_so() -> None:
    text, by_hash = _text()
    assert not run(graph_of(text, by_hash), "promote", PassContext()).records[0].changes


def test_large_weights_stay_narrow() -> None:
    weights = np.linspace(-1, 1, 160 * 160).reshape(160, 160).astype(np.float16)
    lines, by_hash = constant_lines({"w": weights})
    text = f"graph main(%x: float16[2,160]) -> (y) {{\n{lines}\n%y = MatMul(%x, %w)\nreturn %y\n}}"
    graph = graph_of(text, by_hash)
    x = np.linspace(-1, 1, 320).reshape(2, 160).astype(np.float16)
    run(graph, "promote,layout,dce", cpu_context("x86-64-v3"))
    kept = [n.attrs["value"] for n in graph.nx if n.op == "Constant"]
    assert [a.dtype for a in kept] == [np.float16]
    actual, exact = evaluate(graph, {"x": x})[0], x.astype(np.float64) @ weights.astype(np.float64)
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, exact, rtol=1e-3, atol=1e-3)


def test_rows_of_a_table_are_not_widened_before_they_are_read() -> None:
    """Picking rounds nothing; what computes with the rows is promoted."""
    lines, by_hash = constant_lines({"w": np.linspace(-1, 1, 24).reshape(6, 4).astype(np.float16)})
    text = f"graph main(%i: int64[3]) -> (y) {{\n{lines}\n%x = Gather(%w, %i)\n%y = Exp(%x)\n"
    graph = graph_of(text + "return %y\n}", by_hash)
    feeds = {"i": np.array([0, -1, 3])}
    (expected,) = evaluate(graph, feeds)
    run(graph, "promote,dce", toy_context())
    assert [n.op for n in graph.topological() if n.key not in ("Input", "Constant")][:2] == [
        "Gather", "Cast",
    ]  # fmt: skip
    (found,) = evaluate(graph, feeds)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected)
