"""QDQ models in integers: at most one quantisation step away from the floating-point form."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import random_feeds, run

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

CONSTANTS = """
%sx = constant float32[] 0.05
%zx = constant uint8[] 128
%sw = constant float32[] 0.02
%sc = constant float32[2] [0.02, 0.04]
%sy = constant float32[] 0.5
%zy = constant uint8[] 100
%zero = constant uint8[] 0
%sb = constant float32[] 0.001
%sbc = constant float32[2] [0.001, 0.002]
%w = constant int8[2,2,1,1] [10, -20, 30, 40]
%g = constant int8[3,2] [10, -20, 30, 40, -50, 60]
%b = constant int32[2] [1000, -500]
%high = constant float32[] 200.0
%low = constant float32[] 0.0
%bias = constant float32[2] [0.5, 0.25]
%xf = DequantizeLinear(%x, %sx, %zx)
"""


def _graph(lines: str, shape: str) -> Graph:
    return graph_of(f"graph main(%x: uint8[{shape}]) -> (y) {{{CONSTANTS}{lines}\nreturn %y\n}}")


def _fused(lines: str, shape: str) -> list[str]:
    graph = _graph(lines, shape)
    rng = np.random.default_rng(5)
    dims = [int(d) for d in graph.inputs[0].shape]  # type: ignore[arg-type]
    feeds = {"x": rng.integers(0, 256, dims).astype(np.uint8)}
    expected = evaluate(graph, feeds)[0]
    run(graph, "qdq_fuse{always=true},dce")
    actual = evaluate(graph, feeds)[0]
    assert actual.dtype == expected.dtype
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1
    assert len(np.unique(expected)) > 2
    return [n.op for n in graph.topological()]


WEIGHTS = "%wf = DequantizeLinear(%w, %sw)\n"
CHANNELS = "%wf = DequantizeLinear(%w, %sc) {axis=0}\n"
QUANTIZE = "%y = QuantizeLinear(%f, %sy, %zy)"


@pytest.mark.parametrize(
    ("weights", "bias"),
    [
        (WEIGHTS, ""),
        (WEIGHTS, "%bf = DequantizeLinear(%b, %sb)\n"),
        (CHANNELS, "%bf = DequantizeLinear(%b, %sbc) {axis=0}\n"),
        (WEIGHTS, "%bf = Identity(%bias)\n"),
    ],
)
def test_convolutions(weights: str, bias: str) -> None:
    third = ", %bf" if bias else ""
    if "Identity" in bias:
        bias, third = "", ", %bias"
    lines = f"{weights}{bias}%f = Conv(%xf, %wf{third})\n{QUANTIZE}"
    assert _fused(lines, "1,2,3,3") == ["QLinearConv"]


def test_products() -> None:
    lines = f"%wf = DequantizeLinear(%g, %sw)\n%f = MatMul(%xf, %wf)\n{QUANTIZE}"
    assert _fused(lines, "4,3") == ["QLinearMatMul"]


def test_activations_that_quantisation_implies() -> None:
    cut = "%c = Clip(%r, %low, %high)\n%y = QuantizeLinear(%c, %sy, %zero)"
    lines = f"{WEIGHTS}%r = Conv(%xf, %wf)\n{cut}"
    assert _fused(lines, "1,2,3,3") == ["QLinearConv"]
    cut = "%c = Relu(%r)\n%y = QuantizeLinear(%c, %sy, %zero)"
    assert _fused(f"{WEIGHTS}%r = Conv(%xf, %wf)\n{cut}", "1,2,3,3") == ["QLinearConv"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (f"{WEIGHTS}%r = Conv(%xf, %wf)\n%f = Relu(%r)\n{QUANTIZE}", "cuts off more"),
        (
            f"{WEIGHTS}%bf = DequantizeLinear(%b, %sw)\n%f = Conv(%xf, %wf, %bf)\n{QUANTIZE}",
            "the bias has another scale",
        ),
        (
            "%wf = DequantizeLinear(%w, %sc) {axis=1}\n%f = Conv(%xf, %wf)\n" + QUANTIZE,
            "not quantised by output channel",
        ),
    ],
)
def test_what_stays(lines: str, reason: str) -> None:
    graph = _graph(lines, "1,2,3,3")
    reasons: list[str] = []
    context = PassContext(explain=lambda _r, _n, why: reasons.append(why))
    run(graph, "qdq_fuse{always=true}", context)
    assert "QuantizeLinear" in {n.op for n in graph.nodes}
    assert any(reason in r for r in reasons), reasons


def test_it_only_runs_when_asked() -> None:
    graph = _graph(f"{WEIGHTS}%f = Conv(%xf, %wf)\n{QUANTIZE}", "1,2,3,3")
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    from graphkiln.passes.manager import PassManager
    from graphkiln.passes.pipeline import default_pipeline

    PassManager(default_pipeline()).run(graph)
    assert np.array_equal(evaluate(graph, feeds)[0], expected[0])
