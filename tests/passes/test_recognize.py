"""Recognition: the spellings that exporters use, and look-alikes that must stay."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import check, random_feeds, run, same

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

CONSTANTS = f"""
  %half = constant float32[] 0.5
  %one = constant float32[] 1.0
  %two = constant float32[] 2.0
  %three = constant float32[] 3.0
  %six = constant float32[] 6.0
  %zero = constant float32[] 0.0
  %minus_half = constant float32[] -0.5
  %sixth = constant float32[] {np.float32(1 / 6)}
  %root = constant float32[] {np.float32(math.sqrt(2))}
  %inverse_root = constant float32[] {np.float32(math.sqrt(0.5))}
  %c = constant float32[] 0.044715
  %slope = constant float32[] {np.float32(math.sqrt(2 / math.pi))}
  %alpha = constant float32[] 1.702
  %eps = constant float32[] 1e-05
  %axis = constant int64[1] [-1]
  %scale = constant float32[6] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
  %wide = constant float32[1,1,6] [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
"""


def _graph(lines: str, shape: str = "2,3,6") -> Graph:
    return graph_of(f"graph main(%x: float32[{shape}]) -> (y) {{{CONSTANTS}{lines}\nreturn %y\n}}")


def _ops(lines: str, shape: str = "2,3,6", pipeline: str = "recognize,dce") -> list[str]:
    """The ops after recognition, which must leave the numbers alone."""
    graph = _graph(lines, shape)
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, pipeline)
    same(evaluate(graph, feeds), expected)
    return [n.key for n in graph.topological()]


ERF = "%d = Div(%x, %root)\n%e = Erf(%d)\n%g = Add(%e, %one)\n"
ERF_MUL = "%d = Mul(%x, %inverse_root)\n%e = Erf(%d)\n%g = Add(%one, %e)\n"
CUBE_POW = "%cube = Pow(%x, %three)\n%t1 = Mul(%cube, %c)\n"
CUBE_MUL = "%square = Mul(%x, %x)\n%cube = Mul(%x, %square)\n%t1 = Mul(%cube, %c)\n"
NESTED = """%n1 = Mul(%c, %x)
%n2 = Mul(%x, %n1)
%t1 = Mul(%x, %n2)
"""
TANH = """%t2 = Add(%x, %t1)
%t3 = Mul(%t2, %slope)
%t4 = Tanh(%t3)
%g = Add(%t4, %one)
"""


@pytest.mark.parametrize("gate", [ERF, ERF_MUL, CUBE_POW + TANH, CUBE_MUL + TANH, NESTED + TANH])
@pytest.mark.parametrize(
    "product",
    [
        "%m = Mul(%x, %g)\n%y = Mul(%m, %half)",
        "%m = Mul(%half, %x)\n%y = Mul(%m, %g)",
        "%m = Mul(%g, %half)\n%y = Mul(%m, %x)",
    ],
)
def test_gelu(gate: str, product: str) -> None:
    assert _ops(gate + product) == ["Gelu"]


@pytest.mark.parametrize(("ones", "shape"), [("1,1,1", "2,3,6"), ("1,1", "N,3,6")])
def test_constants_that_enlarge_the_result_are_no_activation(ones: str, shape: str) -> None:
    """An open size may be 1, which the constant makes 2."""
    lines = f"%wide_half = constant float32[2,{ones}] [0.5, 0.5]\n"
    ops = _ops(lines + ERF + "%m = Mul(%x, %g)\n%y = Mul(%m, %wide_half)", shape)
    assert "Gelu" not in ops


def test_gelu_after_simplification() -> None:
    lines = ERF + "%m = Mul(%x, %g)\n%y = Mul(%m, %half)"
    assert _ops(lines, pipeline="simplify,recognize,dce") == ["Gelu"]


@pytest.mark.parametrize(
    ("lines", "op"),
    [
        ("%s = Sigmoid(%x)\n%y = Mul(%s, %x)", "Swish"),
        ("%a = Mul(%x, %alpha)\n%s = Sigmoid(%a)\n%y = Mul(%x, %s)", "Swish"),
        ("%s = Softplus(%x)\n%t = Tanh(%s)\n%y = Mul(%x, %t)", "Mish"),
        ("%a = Add(%x, %three)\n%k = Clip(%a, %zero, %six)\n%y = Div(%k, %six)", "HardSigmoid"),
        ("%a = Add(%three, %x)\n%k = Clip(%a, %zero, %six)\n%y = Mul(%k, %sixth)", "HardSigmoid"),
        (
            "%a = Add(%x, %three)\n%k = Clip(%a, %zero, %six)\n%m = Mul(%x, %k)\n"
            "%y = Div(%m, %six)",
            "HardSwish",
        ),
        (
            "%a = Add(%x, %three)\n%k = Clip(%a, %zero, %six)\n%m = Mul(%k, %sixth)\n"
            "%y = Mul(%x, %m)",
            "HardSwish",
        ),
        ("%h = HardSigmoid(%x) {alpha=0.16666667, beta=0.5}\n%y = Mul(%h, %x)", "HardSwish"),
    ],
)
def test_gated_activations(lines: str, op: str) -> None:
    assert _ops(lines) == [op]


MEAN = "%mean = ReduceMean(%x, %axis)\n%d = Sub(%x, %mean)\n"


@pytest.mark.parametrize("square", ["%s = Mul(%d, %d)\n", "%s = Pow(%d, %two)\n"])
@pytest.mark.parametrize(
    "division",
    [
        "%r = Sqrt(%ve)\n%n = Div(%d, %r)\n",
        "%r = Sqrt(%ve)\n%i = Reciprocal(%r)\n%n = Mul(%d, %i)\n",
        "%r = Sqrt(%ve)\n%i = Div(%one, %r)\n%n = Mul(%i, %d)\n",
        "%i = Pow(%ve, %minus_half)\n%n = Mul(%d, %i)\n",
    ],
)
@pytest.mark.parametrize(
    "affine", ["%y = Identity(%n)", "%t = Mul(%n, %scale)\n%y = Add(%wide, %t)"]
)
def test_layer_norm(square: str, division: str, affine: str) -> None:
    core = "%v = ReduceMean(%s, %axis)\n%ve = Add(%v, %eps)\n"
    ops = _ops(MEAN + square + core + division + affine, pipeline="simplify,recognize,dce")
    assert ops == ["LayerNormalization"]


@pytest.mark.parametrize("square", ["%s = Mul(%x, %x)\n", "%s = Pow(%x, %two)\n"])
@pytest.mark.parametrize(
    "division", ["%n = Div(%x, %r)\n", "%i = Reciprocal(%r)\n%n = Mul(%x, %i)\n"]
)
def test_rms_norm(square: str, division: str) -> None:
    core = "%v = ReduceMean(%s, %axis)\n%ve = Add(%v, %eps)\n%r = Sqrt(%ve)\n"
    assert _ops(square + core + division + "%y = Mul(%n, %wide)") == ["RMSNormalization"]


@pytest.mark.parametrize(
    ("lines", "ops"),
    [
        (
            "%m = ReduceMax(%x, %axis)\n%s = Sub(%x, %m)\n%e = Exp(%s)\n"
            "%t = ReduceSum(%e, %axis)\n%y = Div(%e, %t)",
            ["Softmax"],
        ),
        ("%e = Exp(%x)\n%t = ReduceSum(%e, %axis)\n%y = Div(%e, %t)", ["Softmax"]),
        ("%s = Softmax(%x) {axis=1}\n%y = Log(%s)", ["LogSoftmax"]),
        (
            "%m = ReduceMax(%x, %axis)\n%s = Sub(%x, %m)\n%e = Exp(%s)\n"
            "%t = ReduceSum(%e, %axis)\n%l = Log(%t)\n%y = Sub(%s, %l)",
            ["LogSoftmax"],
        ),
        ("%l = ReduceLogSumExp(%x, %axis)\n%y = Sub(%x, %l)", ["LogSoftmax"]),
        ("%s = Mul(%x, %x)\n%t = ReduceSum(%s, %axis)\n%y = Sqrt(%t)", ["ReduceL2"]),
    ],
)
def test_softmax_and_sums(lines: str, ops: list[str]) -> None:
    assert _ops(lines) == ops


@pytest.mark.parametrize("affine", ["", "scale", "both"])
def test_group_norm(affine: str) -> None:
    lines = """
    %ones = constant float32[2] [1.0, 1.0]
    %zeros = constant float32[2] [0.0, 0.0]
    %gamma = constant float32[4,1,1] [1.0, 2.0, 3.0, 4.0]
    %beta = constant float32[4,1,1] [1.0, 2.0, 3.0, 4.0]
    %a = kiln.Reshape(%x) {shape=[2, 2, 18]}
    %b = InstanceNormalization(%a, %ones, %zeros)
    %n = kiln.Reshape(%b) {shape=[2, 4, 3, 3]}
    """
    lines += {
        "": "%y = Identity(%n)",
        "scale": "%y = Mul(%n, %gamma)",
        "both": "%s = Mul(%n, %gamma)\n%y = Add(%s, %beta)",
    }[affine]
    ops = _ops(lines, "2,4,3,3", pipeline="simplify,recognize,dce")
    assert ops == ["GroupNormalization"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("%e = Exp(%x)\n%t = ReduceSum(%e, %axis)\n%z = Div(%e, %t)\n%y = Add(%z, %e)",
         "is used elsewhere"),
        ("%both = constant int64[2] [0, 1]\n%e = Exp(%x)\n%t = ReduceSum(%e, %both)\n"
         "%y = Div(%e, %t)", "not over one common axis"),
        ("%first = constant int64[1] [0]\n%mean = ReduceMean(%x, %first)\n%d = Sub(%x, %mean)\n"
         "%s = Mul(%d, %d)\n%v = ReduceMean(%s, %first)\n%ve = Add(%v, %eps)\n%r = Sqrt(%ve)\n"
         "%y = Div(%d, %r)", "not over the same last axes"),
        ("%d = Div(%x, %two)\n%e = Erf(%d)\n%g = Add(%e, %one)\n%m = Mul(%x, %g)\n"
         "%y = Mul(%m, %half)", "is 2.0, not 1.41"),
    ],
)  # fmt: skip
def test_look_alikes_stay_and_say_why(lines: str, reason: str) -> None:
    graph = _graph(lines)
    reasons: list[str] = []
    context = PassContext(explain=lambda _r, _n, why: reasons.append(why))
    assert run(graph, "recognize", context).records[0].changes == 0
    assert any(reason in r for r in reasons), reasons


def test_golden(golden: object) -> None:
    text = f"""
    graph main(%x: float32[N,3,6]) -> (y) {{{CONSTANTS}{MEAN}
      %s = Mul(%d, %d)
      %v = ReduceMean(%s, %axis)
      %ve = Add(%v, %eps)
      %r = Sqrt(%ve)
      %n = Div(%d, %r)
      %t = Mul(%n, %scale)
      %b = Add(%wide, %t)
      %q = Mul(%b, %alpha)
      %g = Sigmoid(%q)
      %y = Mul(%b, %g)
      return %y
    }}
    """
    check(golden, "recognize", text, "recognize,dce")  # type: ignore[arg-type]


# ---- constants are what they should be to the last bits of their type ----------------------------

SPELLED = {
    "gelu": f"{ERF}%m = Mul(%x, %g)\n%y = Mul(%m, %half)",
    "gelu by product": f"{ERF_MUL}%m = Mul(%x, %g)\n%y = Mul(%m, %half)",
    "gelu of tanh": f"{CUBE_POW}{TANH}%m = Mul(%x, %g)\n%y = Mul(%m, %half)",
    "hard-swish": "%a = Add(%x, %three)\n%b = Clip(%a, %zero, %six)\n%m = Mul(%x, %b)\n"
    "%y = Mul(%m, %sixth)",
    "hard-sigmoid": "%a = Mul(%x, %sixth)\n%b = Add(%a, %half)\n%y = Clip(%b, %zero, %one)",
    "layer-norm": "%m = ReduceMean(%x, %axis)\n%d = Sub(%x, %m)\n%q = Pow(%d, %two)\n"
    "%v = ReduceMean(%q, %axis)\n%e = Add(%v, %eps)\n%r = Pow(%e, %minus_half)\n%y = Mul(%d, %r)",
    "rms-norm": "%q = Mul(%x, %x)\n%v = ReduceMean(%q, %axis)\n%e = Add(%v, %eps)\n"
    "%r = Sqrt(%e)\n%i = Div(%one, %r)\n%y = Mul(%x, %i)",
}
NAMES = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "minus_half": -0.5,
    "sixth": 1 / 6, "root": math.sqrt(2), "inverse_root": math.sqrt(0.5), "c": 0.044715,
    "slope": math.sqrt(2 / math.pi),
}  # fmt: skip


def _constants(kind: str, changed: Mapping[str, float]) -> str:
    """The constants by name in another type, some of them replaced."""
    told = [
        f"%{name} = constant {kind}[] {_held(changed.get(name, number), kind)!r}"
        for name, number in {**NAMES, "zero": 0.0, "eps": 1e-5}.items()
    ]
    return "\n".join([*told, "%axis = constant int64[1] [-1]"])


def _held(number: float, kind: str) -> float:
    return float(np.dtype(kind).type(number))


def _recognised(lines: str, kind: str, changed: Mapping[str, float]) -> bool:
    text = f"graph main(%x: {kind}[2,3,6]) -> (y) {{\n{_constants(kind, changed)}\n{lines}\n"
    graph = graph_of(f"{text}return %y\n}}")
    run(graph, "recognize,dce")
    return len([n for n in graph.nodes if n.op != "Constant"]) == 1


KINDS = ("float16", "float32", "float64")
NEVER = ("hard-swish", "float64")
"""The slope of HardSwish is a float32, whatever it is applied to."""


@pytest.mark.parametrize(("name", "kind"), list(product(SPELLED, KINDS)))
def test_constants_are_rounded_to_their_type(name: str, kind: str) -> None:
    assert _recognised(SPELLED[name], kind, {}) != ((name, kind) == NEVER)


@pytest.mark.parametrize(("name", "kind"), sorted({*product(SPELLED, KINDS)} - {NEVER}))
def test_constants_that_are_off_are_not_what_they_resemble(name: str, kind: str) -> None:
    """Numbers that the type holds may not be off at all, others by two units."""
    lines = SPELLED[name]
    used = [name for name in NAMES if f"%{name}" in re.split(r"[\s(),]+", lines)]
    assert used
    for name in used:
        exact = _held(NAMES[name], "float16") == NAMES[name]
        for steps in (1, -1) if exact else (3, -3):
            wrong = _steps_away(NAMES[name], kind, steps)
            assert not _recognised(lines, kind, {name: wrong}), name
        if not exact:
            assert _recognised(lines, kind, {name: _steps_away(NAMES[name], kind, 1)}), name


def _steps_away(number: float, kind: str, steps: int) -> float:
    held = np.dtype(kind).type(number)
    for _ in range(abs(steps)):
        held = np.nextafter(held, held.dtype.type(math.copysign(math.inf, steps)))
    return float(held)


def test_a_group_norm_keeps_a_scale_close_to_one() -> None:
    """Instance norms by 1.0009 are not taken for those by 1."""
    text = """
    graph main(%x: float32[2,6,4]) -> (y) {
      %s = constant float32[3] [1.0009, 1.0009, 1.0009]
      %b = constant float32[3] [0.0, 0.0, 0.0]
      %v = kiln.Reshape(%x) {shape=[2, 3, 8]}
      %n = InstanceNormalization(%v, %s, %b)
      %y = kiln.Reshape(%n) {shape=[2, 6, 4]}
      return %y
    }"""
    graph = graph_of(text)
    run(graph, "recognize,dce")
    assert "GroupNormalization" not in {n.op for n in graph.nodes}
