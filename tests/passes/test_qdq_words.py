"""Products of 16-bit activations: two exact products of bytes, joined and rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graph_text import graph_of
from support.pass_checks import run
from support.toy_layouts import cpu_context

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.machine import cpu_features
from graphkiln.passes.base import PassContext
from graphkiln.targets.cpu.hardware import CpuHardware

F32 = np.float32
TARGETS = ["cpu", "cpu:x86-64-v3"] if "avx2" in cpu_features() else ["cpu"]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where floats would take less time, as they do for layers as small as these."""
    monkeypatch.setattr(CpuHardware, "layer_seconds", lambda *_: None)


def model(op: str, x: list[int], arrays: dict[str, Any], attrs: str = "") -> onnx.ModelProto:
    """``op`` of dequantized ``x``, weights and perhaps a bias, as other tools write it."""
    axis = {"Conv": 0, "Gemm": 0}.get(op, 1)
    bias = "b = DequantizeLinear<axis = 0>(bq, sb)" if "bq" in arrays else ""
    kind = arrays["zx"].dtype
    found = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]> g ({kind}{x} q) => (float y) {{
            x = DequantizeLinear(q, sx, zx)
            w = DequantizeLinear<axis = {axis}>(wq, sw)
            {bias}
            y = {op}{attrs}(x, w{", b" if bias else ""})
        }}""")
    found.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in arrays.items():
        found.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return found


def operands(kind: str, weights: tuple[int, ...], channels: int, axis: int) -> dict[str, Any]:
    """Weights with a scale for each channel, and the scale and zero point of ``kind``."""
    rng = np.random.default_rng(3)
    zero = {"uint16": 40_001, "int16": -301}[kind]
    sw = rng.uniform(0.001, 0.01, channels).astype(F32)
    w = rng.integers(-127, 128, weights).astype(np.int8)
    return {"sx": F32(3e-4), "zx": np.array(zero, kind), "wq": w, "sw": sw}


def words(kind: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.random.default_rng(4).integers(limits.min, limits.max + 1, shape).astype(kind)


def expected(q: np.ndarray, arrays: dict[str, Any], w: np.ndarray) -> np.ndarray:
    """The formula of docs/rounding.md for ``[M, K]`` by ``[K, N]``."""
    total = (q.astype(np.int64) - int(arrays["zx"])) @ w.astype(np.int64)
    return total.astype(F32) * (np.float64(arrays["sx"]) * arrays["sw"]).astype(F32)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_products_have_the_bits_of_the_formula(kind: str, target: str) -> None:
    """The sums are far beyond int32, and beyond what float32 holds."""
    arrays = operands(kind, (600, 70), 70, 1)
    q = words(kind, 9, 600)
    made = model("MatMul", [9, 600], arrays)
    (actual,) = graphkiln.compile(made, target, jobs=1).session().run(None, {"q": q})
    assert np.array_equal(actual, expected(q, arrays, arrays["wq"]))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_a_gemm_with_a_bias(kind: str) -> None:
    arrays = operands(kind, (20, 48), 20, 0)
    arrays |= {"bq": np.arange(-10, 10, dtype=np.int32) * 9999, "sb": arrays["sx"] * arrays["sw"]}
    q = words(kind, 5, 48)
    made = model("Gemm", [5, 48], arrays, "<transB = 1>")
    (actual,) = graphkiln.compile(made, jobs=1).session().run(None, {"q": q})
    bias, products = arrays["bq"].astype(F32) * arrays["sb"], expected(q, arrays, arrays["wq"].T)
    # The kernel may multiply and add in one step, which rounds once.
    off = np.abs(actual - (products.astype(np.float64) + bias))
    assert np.all(off <= 2.0**-23 * (np.abs(products) + np.abs(bias)))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["uint16", "int16"])
def test_convolutions_are_padded_with_their_zero_points(kind: str, target: str) -> None:
    arrays = operands(kind, (24, 8, 3, 3), 24, 0)
    q = words(kind, 1, 8, 9, 7)
    made = model("Conv", [1, 8, 9, 7], arrays, "<pads = [1, 1, 1, 1]>")
    (actual,) = graphkiln.compile(made, target, jobs=1).session().run(None, {"q": q})
    padded = np.pad(q, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=arrays["zx"])
    windows = np.lib.stride_tricks.sliding_window_view(padded[0], (3, 3), axis=(1, 2))
    columns = windows.transpose(1, 2, 0, 3, 4).reshape(63, 72)
    wanted = expected(columns, arrays, arrays["wq"].reshape(24, 72).T)
    assert np.array_equal(actual[0].reshape(24, 63).T, wanted)


@pytest.mark.usefixtures("always")
@given(st.data())
def test_the_interpreter_has_the_bits_of_the_formula(data: st.DataObject) -> None:
    """For both signs of words, and of the bytes that targets take."""
    kind = data.draw(st.sampled_from(["uint16", "int16"]))
    cpu = data.draw(st.sampled_from(["cascadelake", "x86-64-v3", "aarch64-dotprod"]))
    rows, inner, columns = (data.draw(st.integers(1, n)) for n in (4, 40, 5))
    arrays = operands(kind, (inner, columns), columns, 1)
    limits = np.iinfo(kind)
    arrays["zx"] = np.array(data.draw(st.integers(limits.min, limits.max)), kind)
    graph = load_model(model("MatMul", [rows, inner], arrays)).graph
    run(graph, "qdq_fuse,dce", cpu_context(cpu))
    q = words(kind, rows, inner)
    q.flat[0] = data.draw(st.sampled_from([limits.min, limits.max]))
    assert np.array_equal(evaluate(graph, {"q": q})[0], expected(q, arrays, arrays["wq"]))
    assert "MatMulInteger" in {n.op for n in graph.nodes}


# ---- where floats stay ---------------------------------------------------------------------------

LINES = """graph main(%q: uint16[4,{inner}]) -> (y) {{
%sx = constant float32[] 0.05
%zx = constant uint16[] 7
%sw = constant float32[] 0.02
%x = DequantizeLinear(%q, %sx, %zx)
{weights}
%y = {product}
return %y
}}"""
WEIGHTS = "%w = constant int8[3,2] [10, -20, 30, 40, -50, 60]\n%wf = DequantizeLinear(%w, %sw)"


def left(weights: str = WEIGHTS, product: str = "MatMul(%x, %wf)", inner: int = 3) -> list[str]:
    """The reasons not to take integers."""
    graph: Graph = graph_of(LINES.format(inner=inner, weights=weights, product=product))
    context, reasons = cpu_context("cascadelake"), []
    context = PassContext(
        context.hardware, explain=lambda rule, _, why: reasons.append(why) if "words" in rule else 0
    )
    run(graph, "qdq_fuse", context)
    assert "JoinSums" not in {n.op for n in graph.nodes}
    return reasons


def test_floats_stay_where_they_take_less_time() -> None:
    assert left() == ["floats take less time"]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": WEIGHTS.replace("%sw)", "%sw, %z)\n%z = constant int8[] 3")}, "symmetric"),
        ({"weights": WEIGHTS.replace("%sw)", "%sc) {axis=0}\n%sc = constant float32[3] [1, 2, 3]")},
         "not quantised by output channel"),
        ({"product": "Gemm(%x, %wf) {beta=0.5}"}, "beta is not 1"),
    ],
)  # fmt: skip
def test_floats_stay_where_integers_do_not_fit(changes: dict[str, str], reason: str) -> None:
    weights = changes.get("weights", WEIGHTS)
    if "\n%" in weights.split("DequantizeLinear")[-1]:  # constants come first
        *lines, constant = weights.split("\n")
        changes = {"weights": "\n".join([constant, *lines])}
    assert any(reason in why for why in left(**changes))


@pytest.mark.usefixtures("always")
def test_sums_of_bytes_stay_in_int32() -> None:
    """int32 is sure to hold 66,311 products of a byte by a weight."""
    for inner, fits in ((66_311, True), (66_312, False)):
        arrays = operands("uint16", (inner, 1), 1, 1)
        arrays["wq"][:] = 127
        graph = load_model(model("MatMul", [1, inner], arrays)).graph
        run(graph, "qdq_fuse", cpu_context("cascadelake"))
        assert ("JoinSums" in {n.op for n in graph.nodes}) == fits
