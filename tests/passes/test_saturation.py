"""Bounds and concatenations move behind quantisation, to the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.graph_text import constant_lines, graph_of
from support.pass_checks import Golden, check, run

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

Array = np.ndarray
ZEROS = [("uint8", 0), ("uint8", 100), ("uint8", 255), ("int8", -128), ("int8", 0), ("int8", 127)]
SCALES = [0.1, 0.5, 3e-5, 7.25, 1e-6]
CUTS = {
    "relu": ("Relu", ()),
    "six": ("Clip", (0.0, 6.0)),
    "above": ("Clip", (-0.75, None)),
    "below": ("Clip", (None, 0.3)),
    "crossed": ("Clip", (2.0, -1.0)),
    "infinite": ("Clip", (-np.inf, np.inf)),
    "huge": ("Clip", (-3e38, 3e38)),
}


def edges(scale: float, zero: int) -> Array:
    """Numbers at and beside every boundary between two bytes, far outside, and around zero."""
    steps = np.arange(-zero - 140, 400 - zero, dtype=np.float32)
    exact = np.concatenate([steps * np.float32(scale), (steps + 0.5) * np.float32(scale)])
    around = [exact, np.nextafter(exact, -np.inf), np.nextafter(exact, np.inf)]
    bounds = [0.0, -0.0, 6.0, -0.75, 0.3, 2.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf]
    return np.concatenate([*around, np.array(bounds)]).astype(np.float32)


def cut(
    op: str, bounds: tuple[float | None, ...], x: Array, scale: float, zero: Array | None
) -> Graph:  # fmt: skip
    """``Q(op(x))``."""
    given = {n: np.float32(b) for n, b in zip("ab", bounds, strict=False) if b is not None}
    if zero is not None:
        given["z"] = zero
    lines, arrays = constant_lines({**given, "s": np.float32(scale)})
    names = "".join(f", %{n}" if n in given else ", _" for n in "ab"[: len(bounds)])
    start = "" if zero is None else ", %z"
    body = f"%c = {op}(%x{names})\n%y = QuantizeLinear(%c, %s{start})"
    return graph_of(f"graph main(%x: float32[{x.size}]) -> (y) {{\n{lines}\n{body}\nreturn %y\n}}",
                    arrays)  # fmt: skip


def moved(graph: Graph, x: Array) -> list[str]:
    """The ops after the pass; the bytes must stay."""
    with np.errstate(all="ignore"):
        expected = evaluate(graph, {"x": x})
        run(graph, "simplify,dce")
        actual = evaluate(graph, {"x": x})
    assert actual[0].dtype == expected[0].dtype
    np.testing.assert_array_equal(actual[0], expected[0])
    return [n.op for n in graph.topological()]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind, zero", ZEROS)
@pytest.mark.parametrize("name", CUTS)
def test_bounds_at_every_boundary(name: str, kind: str, zero: int, scale: float) -> None:
    op, bounds = CUTS[name]
    x = edges(scale, zero)
    # Only what the reference turns into int32 without overflow.
    x = x[np.abs(x) < np.float32(scale) * 2**30]
    graph = cut(op, bounds, x, scale, np.array(zero, kind))
    ops = moved(graph, x)
    assert ops in (["QuantizeLinear"], ["QuantizeLinear", "Clip"])
    assert not needless_bounds(graph)
    if name == "relu":
        assert len(ops) == 1 + (zero > np.iinfo(kind).min)
    if name in ("infinite", "huge"):
        assert len(ops) == 1


def needless_bounds(graph: Graph) -> list[int]:
    """The bounds of Clip that all bytes keep to."""
    limits = np.iinfo(graph.outputs[0].dtype)
    ends = {1: limits.min, 2: limits.max}
    return [
        end
        for node in graph.nodes if node.op == "Clip"
        for i, end in ends.items()
        if (v := graph.input(node, i)) is not None and v.constant == end
    ]  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_bounds_without_a_zero_point(name: str) -> None:
    op, bounds = CUTS[name]
    x = edges(0.1, 0)
    x = x[np.abs(x) < 1e6]
    ops = moved(cut(op, bounds, x, 0.1, None), x)
    assert ops[0] == "QuantizeLinear"


@given(
    zero=st.integers(0, 255), signed=st.booleans(), scale=st.floats(2**-10, 1024, width=32),
    bounds=st.tuples(*[st.none() | st.floats(-1024, 1024, width=32)] * 2),
    x=st.lists(st.floats(-1024, 1024, width=32), min_size=1, max_size=20),
)  # fmt: skip
def test_any_bounds(
    zero: int, signed: bool, scale: float, bounds: tuple[float | None, ...], x: list[float]
) -> None:  # fmt: skip
    point = np.array(zero, np.uint8).view(np.int8 if signed else np.uint8)
    given = np.array([*x, *(b for b in bounds if b is not None)], np.float32)
    moved(cut("Clip", bounds, given, scale, point), given)


@pytest.mark.parametrize("kind, zero", ZEROS)
def test_onnxruntime_agrees(kind: str, zero: int) -> None:
    """Its QuantizeLinear of its Relu against what the pass makes of both."""
    x = edges(0.1, zero)
    x = x[np.abs(x) < 1e6]
    constants = [numpy_helper.from_array(np.float32(0.1), "s"),
                 numpy_helper.from_array(np.array(zero, kind), "z")]  # fmt: skip
    nodes = [helper.make_node("Relu", ["x"], ["c"]),
             helper.make_node("QuantizeLinear", ["c", "s", "z"], ["y"])]  # fmt: skip
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        nodes, "cut", ends, [helper.make_tensor_value_info("y", code, x.shape)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    theirs = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    mine = cut("Relu", (), x, 0.1, np.array(zero, kind))
    run(mine, "simplify,dce")
    np.testing.assert_array_equal(evaluate(mine, {"x": x})[0], theirs.run(None, {"x": x})[0])


CHAIN = """
graph main(%x: uint8[1,2,4], %f: float32[1,2,4], %i: float32[1,2,4]) -> (a, b, c, d) {
  %s = constant float32[] 0.1
  %t = constant float32[] 0.3
  %z = constant uint8[] 100
  %top = constant float32[] 6.0
  %g = DequantizeLinear(%x, %s, %z)
  %r = Relu(%g)
  %a = QuantizeLinear(%r, %s, %z)
  %low = constant float32[] -10.0
  %k = Clip(%f, %low, %top)
  %b = QuantizeLinear(%k, %s, %z)
  %j = Concat(%g, %f) {axis=1}
  %c = QuantizeLinear(%j, %s, %z)
  %h = Concat(%g, %i) {axis=-1}
  %m = Relu(%h)
  %d = QuantizeLinear(%m, %t, %z)
  return %a, %b, %c, %d
}
"""


def test_golden(golden: Golden) -> None:
    feeds = {"x": np.arange(96, 104, dtype=np.uint8).reshape(1, 2, 4)}
    check(golden, "simplify_saturation", CHAIN, "simplify,dce", feeds=feeds, rtol=0)


X = "%x: float32[2,4]"
KEPT = {
    "several scales": (
        X, {"s": np.ones(4, np.float32), "z": np.ones(4, np.uint8)}, "Relu(%x)", "{axis=1}",
        "several scales",
    ),
    "blocks": (
        X, {"s": np.ones((2, 1), np.float32), "z": np.zeros((2, 1), np.uint8)}, "Relu(%x)",
        "{axis=1, block_size=4}", "several scales",
    ),
    "wide integers": (
        X, {"s": np.float32(1), "z": np.int16(5)}, "Relu(%x)", "", "only 8-bit",
    ),
    "float16": (
        "%x: float16[2,4]", {"s": np.float16(1), "z": np.uint8(5)}, "Relu(%x)", "",
        "only float32",
    ),
    "float16 scale": (
        X, {"s": np.float16(1), "z": np.uint8(5)}, "Relu(%x)", "", "only float32",
    ),
    "divided in float16": (
        X, {"s": np.float32(1), "z": np.uint8(5)}, "Relu(%x)", "{precision=10}", "only float32",
    ),
    "run-time zero point": (
        X + ", %z: uint8[]", {"s": np.float32(1)}, "Relu(%x)", "", "not constant",
    ),
    "run-time scale": (
        X + ", %s: float32[]", {"z": np.uint8(5)}, "Relu(%x)", "", "not constant",
    ),
    "run-time bound": (
        X + ", %b: float32[]", {"s": np.float32(1), "z": np.uint8(5)}, "Clip(%x, %b)", "",
        "not constant",
    ),
    "negative scale": (
        X, {"s": np.float32(-0.5), "z": np.uint8(5)}, "Relu(%x)", "", "not numbers",
    ),
    "zero scale": (
        X, {"s": np.float32(0), "z": np.uint8(5)}, "Relu(%x)", "", "not numbers",
    ),
    "infinite scale": (
        X, {"s": np.float32(np.inf), "z": np.uint8(5)}, "Relu(%x)", "", "not numbers",
    ),
    "no bound": (
        X, {"s": np.float32(1), "z": np.uint8(5), "b": np.float32(np.nan)}, "Clip(%x, %b)", "",
        "not numbers",
    ),
    "concatenation by several scales": (
        X, {"s": np.ones(8, np.float32), "z": np.zeros(8, np.uint8)}, "Concat(%x, %x) {axis=1}",
        "{axis=1}", "several scales",
    ),
}  # fmt: skip


@pytest.mark.parametrize("params, constants, inner, attrs, reason", KEPT.values(), ids=KEPT)
def test_what_stays(
    params: str, constants: dict[str, Any], inner: str, attrs: str, reason: str
) -> None:
    lines, arrays = constant_lines({k: np.asarray(v) for k, v in constants.items()})
    body = f"%c = {inner}\n%y = QuantizeLinear(%c, %s, %z) {attrs}"
    graph = graph_of(f"graph main({params}) -> (y) {{\n{lines}\n{body}\nreturn %y\n}}", arrays)
    reasons: list[str] = []
    run(graph, "simplify", PassContext(explain=lambda _r, _n, why: reasons.append(why)))
    assert [n.op for n in graph.topological()] == [inner.split("(")[0], "QuantizeLinear"]
    assert any(reason in r for r in reasons), reasons


def test_parts_are_quantised_to_the_type_of_the_whole() -> None:
    graph = graph_of("""
    graph main(%x: float32[2,4], %z: float32[2,3]) -> (y) {
      %s = constant float32[] 0.1
      %c = Concat(%x, %z) {axis=1}
      %y = QuantizeLinear(%c, %s) {output_dtype=3}
      return %y
    }
    """)
    run(graph, "simplify")
    assert graph.outputs[0].node.op == "Concat" and graph.outputs[0].dtype == "int8"


def test_bounds_that_others_read_stay() -> None:
    graph = graph_of("""
    graph main(%x: float32[4]) -> (y, r) {
      %s = constant float32[] 0.1
      %z = constant uint8[] 9
      %r = Relu(%x)
      %y = QuantizeLinear(%r, %s, %z)
      return %y, %r
    }
    """)
    assert not run(graph, "simplify").records[0].changes


# ---- scales by channel, kept ---------------------------------------------------------------------

KEPT_BY_CHANNEL: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "negative": (X, {"s": np.float32([1, -1]), "z": np.uint8([0, 0])}, "", "not a positive"),
    "zero": (X, {"s": np.float32([1, 0]), "z": np.uint8([0, 0])}, "", "not a positive"),
    "infinite": (X, {"s": np.float32([1, np.inf]), "z": np.uint8([0, 0])}, "", "not a positive"),
    "wide": (X, {"s": np.float32([1, 1]), "z": np.uint16([0, 0])}, "", "only 8-bit"),
    "precise": (
        X,
        {"s": np.float32([1, 1]), "z": np.uint8([0, 0])},
        ", precision=10",
        "only 8-bit",
    ),
    "float16": (
        "%x: float16[2,4]",
        {"s": np.float16([1, 1]), "z": np.uint8([0, 0])},
        "",
        "float32",
    ),
    "run-time scale": (X + ", %s: float32[2]", {"z": np.uint8([0, 0])}, "", "constant"),
    "run-time zero": (X + ", %z: uint8[2]", {"s": np.float32([1, 1])}, "", "not constant"),
}


@pytest.mark.parametrize("name", KEPT_BY_CHANNEL)
def test_what_stays_by_channel(name: str) -> None:
    params, constants, attrs, reason = KEPT_BY_CHANNEL[name]
    test_what_stays(params, constants, "Relu(%x)", f"{{axis=0{attrs}}}", reason)


# ---- scales by channel ---------------------------------------------------------------------------

CHANNELS = np.array([6 / 255, 3 / 255, 0.001], np.float32)


@pytest.mark.parametrize("op, bounds", [("Relu", ()), ("Clip", (0.0, 6.0)), ("Clip", (-1.0, None))])
@pytest.mark.parametrize("zeros", [None, [0, 0, 0], [0, 3, 0]])
def test_bounds_that_saturation_implies_for_each_channel(
    op: str, bounds: tuple[float | None, ...], zeros: list[int] | None
) -> None:
    """Those of Relu and ReLU6 are implied where zero is the least byte, -1 always is here."""
    x = np.stack([edges(float(s), 0) for s in CHANNELS])
    given = {n: np.float32(b) for n, b in zip("ab", bounds, strict=False) if b is not None}
    constants: dict[str, Array] = {**given, "s": CHANNELS}
    if zeros is not None:
        constants["z"] = np.array(zeros, np.uint8)
    lines, arrays = constant_lines(constants)
    names = "".join(f", %{n}" if n in given else ", _" for n in "ab"[: len(bounds)])
    zero = "" if zeros is None else ", %z"
    body = f"%c = {op}(%x{names})\n%y = QuantizeLinear(%c, %s{zero}) {{axis=0}}"
    shape = ",".join(map(str, x.shape))
    graph = graph_of(f"graph main(%x: float32[{shape}]) -> (y) {{\n{lines}\n{body}\nreturn %y\n}}",
                     arrays)  # fmt: skip
    ops = [o for o in moved(graph, x) if o != "Constant"]
    least = bounds[:1] == (-1.0,) or zeros is None or not any(zeros)
    assert ops == (["QuantizeLinear"] if least else [op, "QuantizeLinear"])
