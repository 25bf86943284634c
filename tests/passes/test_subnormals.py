"""Subnormal factors become zero; other constants stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of
from support.pass_checks import run

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate

TINY = np.finfo(np.float32).tiny
FACTORS = np.array([2.0, TINY, TINY / 2, -TINY / 4, 0.0, -3.0], np.float32)
FLUSHED = np.array([2.0, TINY, 0.0, 0.0, 0.0, -3.0], np.float32)


def graph(line: str, constants: dict[str, np.ndarray], shape: str = "2,6") -> Graph:
    lines, by_hash = constant_lines(constants)
    text = f"graph main(%x: float32[{shape}]) -> (y) {{\n{lines}\n{line}\nreturn %y\n}}"
    return graph_of(text, by_hash)


def constants_of(g: Graph) -> list[np.ndarray]:
    return [v.constant for n in g.topological() for v in g.inputs_of(n) if v and v.is_constant]


@pytest.mark.parametrize(
    "line",
    ["%y = Mul(%x, %c)", "%y = Mul(%c, %x)", "%y = LayerNormalization(%x, %c) {axis=-1}"],
)
def test_factors_are_flushed(line: str) -> None:
    g = graph(line, {"c": FACTORS})
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    (before,) = evaluate(g, {"x": x})
    assert run(g, "subnormals,dce").records[0].details == {"flushed": 1}
    np.testing.assert_array_equal(constants_of(g), [FLUSHED])
    (after,) = evaluate(g, {"x": x})
    np.testing.assert_allclose(after, before, rtol=0, atol=12 * TINY)


def test_weights_are_flushed_wherever_they_are() -> None:
    weights = np.ones((300, 300, 1, 1), np.float32)
    weights[299, 298] = TINY / 8
    g = graph("%y = Conv(%x, %w)", {"w": weights}, "1,300,2,2")
    assert run(g, "subnormals,dce").records[0].changes == 1
    (flushed,) = constants_of(g)
    assert flushed[299, 298] == 0
    assert np.count_nonzero(flushed) == weights.size - 1


@pytest.mark.parametrize(
    "line", ["%y = Add(%x, %c)", "%y = Div(%x, %c)", "%y = Max(%x, %c)", "%y = Mul(%x, %n)"]
)
def test_other_constants_stay(line: str) -> None:
    normal = np.array([1.0, TINY, 0.0, -0.0, np.inf, np.nan], np.float32)
    g = graph(line, {"c": FACTORS, "n": normal})
    (before,) = constants_of(g)
    assert run(g, "subnormals").records[0].changes == 0
    assert constants_of(g)[0] is before


def test_a_constant_that_others_read_too_stays_there() -> None:
    lines, by_hash = constant_lines({"c": FACTORS})
    text = f"""graph main(%x: float32[6]) -> (y, z) {{
{lines}
%y = Mul(%x, %c)
%z = Add(%x, %c)
return %y, %z
}}"""
    g = graph_of(text, by_hash)
    x = np.zeros(6, np.float32)
    run(g, "subnormals,dce")
    np.testing.assert_array_equal(evaluate(g, {"x": x})[1], FACTORS)


def test_double_precision_has_its_own_limit() -> None:
    factors = np.array([1e-310, 1e-300], np.float64)
    lines, by_hash = constant_lines({"c": factors})
    g = graph_of(
        f"graph main(%x: float64[2]) -> (y) {{\n{lines}\n%y = Mul(%x, %c)\nreturn %y\n}}", by_hash
    )
    run(g, "subnormals,dce")
    np.testing.assert_array_equal(constants_of(g)[0], [0, 1e-300])
