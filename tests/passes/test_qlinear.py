"""Ops of com.microsoft on 8-bit tensors: within a step of floats between quantizers."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from support.graph_text import graph_of
from support.pass_checks import run

from graphkiln.frontend.export import to_onnx
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

SHAPE = (2, 4, 6, 6)
NET = """graph main(%x: uint8[2,4,6,6], %other: {other}[2,4,6,6]) -> (y) {{
%sx = constant float32[] 0.05
%zx = constant uint8[] 131
%so = constant float32[] 0.02
%zo = constant {other}[] 17
%sy = constant float32[] {step}
%zy = constant uint8[] 90
%a = DequantizeLinear(%x, %sx, %zx)
%b = DequantizeLinear(%other, %so, %zo)
%f = {op}
%y = QuantizeLinear(%f, %sy, %zy)
return %y
}}"""


def net(op: str, step: float = 0.05, other: str = "uint8") -> Graph:
    return graph_of(NET.format(op=op, step=step, other=other))


def feeds(other: str = "uint8") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    kinds = {"x": "uint8", "other": other}
    return {n: rng.integers(0, 127, SHAPE).astype(kind) for n, kind in kinds.items()}


def off(found: np.ndarray, wanted: np.ndarray) -> int:
    assert found.dtype == wanted.dtype and len(np.unique(wanted)) > 2
    return int(np.abs(found.astype(int) - wanted.astype(int)).max())


FORMS = {
    "QLinearSigmoid": ("Sigmoid(%a)", 0.004),
    "QLinearLeakyRelu": ("LeakyRelu(%a) {alpha=0.2}", 0.05),
    "QLinearSoftmax": ("Softmax(%a) {axis=1}", 0.004),
    "QLinearAveragePool": ("AveragePool(%a) {kernel_shape=[2,3], pads=[1,1,0,1]}", 0.05),
    "QLinearGlobalAveragePool": ("GlobalAveragePool(%a)", 0.05),
    "QLinearMul": ("Mul(%a, %b)", 0.1),
    "QLinearAdd": ("Add(%a, %b)", 0.06),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_op_has_its_form(name: str) -> None:
    op, step = FORMS[name]
    graph = net(op, step)
    (expected,) = evaluate(graph, feeds())
    run(graph, "qlinear,dce")
    assert [n.op for n in graph.nodes] == [name]
    assert off(evaluate(graph, feeds())[0], expected) <= 1
    model = to_onnx(graph).SerializeToString()
    (theirs,) = onnxruntime.InferenceSession(model).run(None, feeds())
    assert off(theirs, expected) <= 1


@pytest.mark.parametrize(
    ("op", "other", "reason"),
    [
        ("AveragePool(%a) {kernel_shape=[2,2], dilations=[2,2]}", "uint8", "has no dilations"),
        ("Mul(%a, %b)", "int8", "not of one 8-bit type"),
        ("Tanh(%a)", "uint8", "comes from Tanh"),
    ],
)
def test_what_stays(op: str, other: str, reason: str) -> None:
    graph = net(op, other=other)
    reasons: list[str] = []
    run(graph, "qlinear", PassContext(explain=lambda _r, _n, why: reasons.append(why)))
    assert "QuantizeLinear" in {n.op for n in graph.nodes}
    assert any(reason in r for r in reasons), reasons


def test_a_tensor_with_several_scales_stays() -> None:
    text = NET.format(op="Sigmoid(%a)", step=0.004, other="uint8")
    text = text.replace("float32[] 0.05", "float32[4] [0.1, 0.2, 0.3, 0.4]")
    text = text.replace("uint8[] 131", "uint8[4] [1, 2, 3, 4]").replace("%zx)", "%zx) {axis=1}")
    graph = graph_of(text)
    run(graph, "qlinear")
    assert "QLinearSigmoid" not in {n.op for n in graph.nodes}
