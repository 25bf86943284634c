"""Rewrites over hard values: what claims to be exact changes no bit, and folding stays finite."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.graph_text import graph_of
from support.hard_values import hard_values, same_bits
from support.pass_checks import run

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate

FLOATS = ("float16", "float32", "float64")


def _graph(kind: str, lines: str, shape: str = "N") -> Graph:
    return graph_of(f"graph main(%x: {kind}[{shape}]) -> (y) {{\n{lines}\nreturn %y\n}}")


def _unchanged(graph: Graph, x: np.ndarray, pipeline: str = "simplify,dce") -> list[str]:
    """The ops that are left; every bit of the result must be as before."""
    with np.errstate(all="ignore"):
        expected = evaluate(graph, {"x": x})[0]
        run(graph, pipeline)
        same_bits(evaluate(graph, {"x": x})[0], expected)
    return [n.op for n in graph.topological()]


# ---- divisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 41, 47, 64, 255, 1000, 0.5, 0.1, -4, -0.75])
def test_divisions_of_multiples(kind: str, divisor: float) -> None:
    """Multiples of the divisor are where a rounded inverse shows."""
    with np.errstate(over="ignore"):
        x = (np.arange(-300, 300) * divisor).astype(kind)
    x = np.concatenate([x, hard_values(kind)])
    lines = f"%c = constant {kind}[] {float(np.dtype(kind).type(divisor))!r}\n%q = Div(%x, %c)\n"
    ops = _unchanged(_graph(kind, f"{lines}%y = Floor(%q)"), x)
    power = abs(float(np.frexp(divisor)[0])) == 0.5
    assert ("Div" not in ops) == power


@pytest.mark.parametrize("kind", FLOATS)
def test_divisions_by_powers_of_two(kind: str) -> None:
    """Also where the quotient is not a normal number, or the inverse is none."""
    limits = np.finfo(kind)
    x = hard_values(kind)
    for power in range(limits.minexp - limits.nmant, limits.maxexp, 3):
        divisor = float(np.ldexp(np.dtype(kind).type(1), power))
        lines = f"%c = constant {kind}[] {divisor!r}\n%y = Div(%x, %c)"
        ops = _unchanged(_graph(kind, lines), x)
        assert ("Div" in ops) == (not limits.minexp <= -power < limits.maxexp)


# ---- constants that meet -------------------------------------------------------------------------

FACTORS = (1.0, -1.0, 2.0, -4.0, 0.5, 3.0, 0.1, 1e-30, 1e30, 2.0**100, 2.0**-100, 0.0, -0.0,
           float("inf"), float("nan"), 1.0009, 1e-45)  # fmt: skip


@pytest.mark.parametrize("op", ["Add", "Mul"])
@pytest.mark.parametrize("a, b", [*product(FACTORS, repeat=2)])
def test_constants_of_floats(op: str, a: float, b: float) -> None:
    constants = f"%a = constant float32[] {a!r}\n%b = constant float32[] {b!r}\n"
    lines = f"{constants}%m = {op}(%x, %a)\n%y = {op}(%m, %b)"
    _unchanged(_graph("float32", lines), hard_values("float32"))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div"])
def test_constants_of_integers_wrap_around(kind: str, op: str) -> None:
    limits = np.iinfo(kind)
    numbers = sorted({limits.min, limits.max, 0, 1, 2, limits.max // 3, max(limits.min, -1)})
    for a, b in product([n for n in numbers if n or op != "Div"], repeat=2):
        constants = f"%a = constant {kind}[] {a}\n%b = constant {kind}[] {b}\n"
        lines = f"{constants}%m = {op}(%x, %a)\n%y = {op}(%m, %b)"
        ops = _unchanged(_graph(kind, lines), hard_values(kind))
        assert len([o for o in ops if o == op]) <= (1 if op in ("Add", "Mul") else 2)


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("first", ["%z = Identity(%x)", "%z = Abs(%x)", "%z = Neg(%x)"])
@pytest.mark.parametrize("last", ["%y = Reciprocal(%s)", "%y = Exp(%s)", "%y = Sign(%s)"])
def test_zeros_keep_their_signs(op: str, zero: float, first: str, last: str) -> None:
    lines = f"%c = constant float32[] {zero!r}\n{first}\n%s = {op}(%z, %c)\n{last}"
    ops = _unchanged(_graph("float32", lines), hard_values("float32"))
    neutral = np.signbit(zero) == (op == "Add")
    assert (op not in ops) == (neutral or "Abs" in first or "Exp" in last)


# ---- folding into weights ------------------------------------------------------------------------

LINEAR = {
    "matmul": "%l = MatMul(%x, %w)",
    "gemm": "%l = Gemm(%x, %w)",
    "gemm by alpha": "%l = Gemm(%x, %w) {{alpha={s}}}",
    "conv": "%k = constant float32[2,2,1,1] [{a}, {b}, {b}, {a}]\n%l = Conv(%x, %k)",
}
AROUND = ("%y = Mul(%l, %s)", "%t = Add(%l, %one)\n%y = Mul(%t, %s)")


@pytest.mark.parametrize("rest", AROUND)
@pytest.mark.parametrize("linear", LINEAR.values(), ids=LINEAR)
@pytest.mark.parametrize(
    ("weight", "scale", "x"),
    [
        (1e30, 1e30, 1e-30),
        (1e-30, 1e-20, 1e25),
        (2e-38, 0.1, 1e30),
        (1.0, float("inf"), 1.0),
        (1.0, float("nan"), 1.0),
        (1e38, 1e-45, 1e-10),
    ],
)
def test_factors_that_leave_the_type_stay_apart(
    weight: float, scale: float, x: float, linear: str, rest: str
) -> None:
    """No folded weight overflows, vanishes or loses digits."""
    numbers = {"a": repr(weight), "b": repr(weight / 2), "s": repr(scale)}
    lines = f"""
    %w = constant float32[2,2] [{weight!r}, {weight / 2!r}, {weight / 2!r}, {weight!r}]
    %s = constant float32[] {scale!r}
    %one = constant float32[] 1.0
    {linear.format(**numbers)}
    {rest}"""
    shape = "1,2,2,1" if "Conv" in linear else "2,2"
    graph = _graph("float32", lines, shape)
    feeds = {"x": np.full([int(d) for d in shape.split(",")], x, np.float32)}
    with np.errstate(all="ignore"):
        expected = evaluate(graph, feeds)[0]
        run(graph, "fold_affine,simplify,dce")
        np.testing.assert_allclose(evaluate(graph, feeds)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("variance, scale", [(0.0, 1.0), (-1.0, 1.0), (3.0, 1e-40), (1e-38, 3e38)])
def test_batch_norms_whose_factor_is_no_number_stay(variance: float, scale: float) -> None:
    lines = f"""
    %s = constant float32[2] [{scale!r}, {scale!r}]
    %z = constant float32[2] [0.0, 0.0]
    %v = constant float32[2] [{variance!r}, {variance!r}]
    %y = BatchNormalization(%x, %s, %z, %z, %v) {{epsilon=0.0}}"""
    graph = _graph("float32", lines, "1,2,3")
    run(graph, "fold_affine,dce")
    assert [n.op for n in graph.topological()] == ["BatchNormalization"]


@pytest.mark.parametrize("fill", [-np.inf, -3.4028234663852886e38, 0.0])
def test_the_border_of_a_maximum_is_below_everything(fill: float) -> None:
    lines = f"""
    %pads = constant int64[6] [0, 0, 1, 0, 0, 1]
    %f = constant float32[] {fill!r}
    %p = Pad(%x, %pads, %f)
    %y = MaxPool(%p) {{kernel_shape=[2]}}"""
    x = np.array([[[-np.inf, -np.inf, -5, -np.inf]]], np.float32)
    ops = _unchanged(_graph("float32", lines, "1,1,4"), x, "fold_affine,dce")
    assert ("Pad" not in ops) == (fill == -np.inf)
