"""The pass that gives products weights of few bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import QuantizeDynamic, QuantizeWeights, Rounding
from graphkiln.passes.services import reference_runner

RNG = np.random.default_rng(7)
A = RNG.standard_normal((64, 48)).astype(np.float32)
B = RNG.standard_normal((32, 48)).astype(np.float32)
C = RNG.standard_normal(32).astype(np.float32)
LINES, ARRAYS = constant_lines({"a": A, "b": B, "c": C, "small": A[:8, :8].copy()})
NET = f"""graph main(%x: float32[N,64]) -> (o, r) {{
{LINES}
%p = MatMul(%x, %a)
%r = Relu(%p)
%y = Gemm(%r, %b, %c) {{transB=1}}
%t = Transpose(%y) {{perm=[1, 0]}}
%z = MatMul(%t, %y)
return %y, %z
}}"""


def net() -> Graph:
    return graph_of(NET, ARRAYS)


def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((8, 64))
    return [{"x": (rng.standard_normal((n, 8)) @ mix).astype(np.float32)} for n in (9, 30, 20)]


def quantized(step: QuantizeWeights, data: Any = ()) -> tuple[Graph, PassContext]:
    graph, context = net(), PassContext(data=data)
    step.run(graph, context)
    context.refresh(graph)
    verify(graph)
    return graph, context


def error(graph: Graph) -> float:
    total = 0.0
    for feeds in samples():
        found, wanted = evaluate(graph.copy(), feeds)[0], evaluate(net(), feeds)[0]
        total += np.mean((found - wanted) ** 2) / np.mean(wanted**2)
    return total / 3


def test_products_by_constants_have_few_bits() -> None:
    graph, context = quantized(QuantizeWeights())
    keys = [n.key for n in graph.topological() if n.key not in ("Input", "Constant", "Output")]
    assert keys.count("com.microsoft.MatMulNBits") == 2 and "Gemm" not in keys
    assert keys.count("MatMul") == 1
    rows = {row["op"]: row for row in context.tables["layers"][:2]}
    assert {row["scheme"] for row in rows.values()} == {"int4 weights"}
    assert context.tables["layers"][2]["reason"] == "its weights are computed in the run"
    assert 1e-4 < error(graph) < 0.03


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_more_bits_are_closer(bits: int, symmetric: bool) -> None:
    graph, _ = quantized(QuantizeWeights(bits=bits, symmetric=symmetric))
    assert error(graph) < {4: 0.03, 8: 1e-4}[bits]


def test_reconstruction_is_closer_than_rounding() -> None:
    errors = {
        rounding: error(quantized(QuantizeWeights(rounding=rounding), samples())[0])
        for rounding in Rounding
    }
    assert errors[Rounding.MSE] < errors[Rounding.NEAREST]
    assert errors[Rounding.GPTQ] < errors[Rounding.MSE] / 10**0.2


def test_ratios_are_those_of_results() -> None:
    _, context = quantized(QuantizeWeights(rounding=Rounding.GPTQ), samples())
    graph, _ = quantized(QuantizeWeights(rounding=Rounding.GPTQ, only=("MatMul",)), samples())
    power = noise = 0.0
    for g in (graph, plain := net()):
        (product,) = (n for n in g.nodes if n.out().name.startswith("r"))
        g.set_outputs([g.required_inputs(product)[0]], ["o"])
    for feeds in samples():
        (found,), (wanted,) = evaluate(graph.copy(), feeds), evaluate(plain.copy(), feeds)
        power, noise = power + np.sum(wanted**2), noise + np.sum((found - wanted) ** 2)
    assert context.tables["layers"][0]["decibels"] == pytest.approx(
        10 * np.log10(power / noise), abs=0.1
    )


@pytest.mark.parametrize(("most", "rounds"), [(2 * 64**2, 1), (2 * 64**2 - 1, 2), (1, 2)])
def test_layers_that_read_one_tensor_share_its_matrix(
    most: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphkiln.passes.quantize.gram._MOST_NUMBERS", most)
    lines, arrays = constant_lines({"a": A, "b": A + 1, "c": A - 1})
    text = f"""graph main(%x: float32[N,64]) -> (p, q, o) {{
{lines}
%p = MatMul(%x, %a)
%q = MatMul(%x, %b)
%r = Relu(%x)
%o = MatMul(%r, %c)
return %p, %q, %o
}}"""
    graphs: list[Graph] = []

    def runner(graph: Graph) -> Any:
        graphs.append(graph)
        return reference_runner(graph)

    context = PassContext(data=samples(), runner=runner)
    QuantizeWeights(rounding=Rounding.GPTQ).run(graph_of(text, arrays), context)
    assert len(graphs) == rounds
    assert sum(len(g.outputs) for g in graphs) == 2


def test_data_are_asked_for_only_where_they_are_needed() -> None:
    with pytest.raises(GraphError, match="gptq rounds by what layers read: give sample data"):
        quantized(QuantizeWeights(rounding=Rounding.GPTQ))


@pytest.mark.parametrize(
    ("step", "op", "reason"),
    [
        (QuantizeWeights(block=64), "Gemm", "its sums of 48 products are shorter than a block"),
        (QuantizeWeights(exclude=("Gemm",)), "Gemm", "excluded by 'Gemm'"),
    ],
)
def test_what_stays(step: QuantizeWeights, op: str, reason: str) -> None:
    graph, context = quantized(step)
    assert any(n.key == op for n in graph.nodes)
    assert [row["reason"] for row in context.tables["layers"] if row["op"] == op] == [reason]


@pytest.mark.parametrize("step", [QuantizeWeights(), QuantizeDynamic()])
def test_a_layer_may_read_another_ones_result(step: QuantizeWeights | QuantizeDynamic) -> None:
    lines, arrays = constant_lines({"a": A, "d": RNG.standard_normal((48, 8)).astype(np.float32)})
    text = f"""graph main(%x: float32[N,64]) -> (o) {{
{lines}
%p = MatMul(%x, %a)
%y = MatMul(%p, %d)
return %y
}}"""
    graph, context = graph_of(text, arrays), PassContext()
    assert step.run(graph, context).changes == 2
    verify(graph)
    feeds = {"x": RNG.standard_normal((3, 64)).astype(np.float32)}
    (found,), (wanted,) = evaluate(graph, feeds), evaluate(graph_of(text, arrays), feeds)
    assert np.mean((found - wanted) ** 2) < 0.05 * np.mean(wanted**2)


def test_checks_of_the_run_may_stand_beside_layers() -> None:
    """They have no result, by which layers are found again."""
    lines, arrays = constant_lines({"a": A})
    text = f"""graph main(%x: float32[N,64]) -> (o) {{
{lines}
kiln.Assert() {{a=<N>, b=50, message="too long", relation="<="}} @fits
%y = MatMul(%x, %a)
return %y
}}"""
    context = PassContext(data=samples())
    assert QuantizeWeights(rounding=Rounding.GPTQ).run(graph_of(text, arrays), context).changes == 1
