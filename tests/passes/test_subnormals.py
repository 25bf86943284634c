"""Subnormal factors become zero where sums drown their products, and nowhere else."""

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
ONES = np.ones(6, np.float32)


def graph(body: str, constants: dict[str, np.ndarray], shape: str, kind: str = "float32") -> Graph:
    lines, by_hash = constant_lines(constants)
    text = f"graph main(%x: {kind}[{shape}]) -> (y) {{\n{lines}\n{body}\nreturn %y\n}}"
    return graph_of(text, by_hash)


def scaled(factors: np.ndarray, addend: np.ndarray, body: str = "%y = Add(%m, %d)") -> Graph:
    shape = ",".join(map(str, np.broadcast_shapes((2, 6), factors.shape)))
    return graph(f"%m = Mul(%x, %c)\n{body}", {"c": factors, "d": addend}, shape)


def flushed(g: Graph) -> np.ndarray | None:
    """What became of the constant ``c``; None where it stayed."""
    if not run(g, "subnormals,dce").records[0].changes:
        return None
    found = [v for n in g.topological() for v in g.inputs_of(n) if v and v.name.startswith("c")]
    return found[0].constant


@pytest.mark.parametrize("body", ["%y = Add(%m, %d)", "%y = Add(%d, %m)"])
def test_factors_beside_a_large_addend(body: str) -> None:
    g = scaled(FACTORS, ONES, body)
    x = np.array([[1e9, -1e9] * 3, [0, 5] * 3], np.float32)
    (before,) = evaluate(g, {"x": x})
    np.testing.assert_array_equal(flushed(g), FLUSHED)
    np.testing.assert_array_equal(evaluate(g, {"x": x})[0], before)


def test_each_channel_has_its_own_addend() -> None:
    addend = np.array([1, 1, 1, 2.0**-61, 1, 1], np.float32)
    want = np.where(np.arange(6) == 3, FACTORS, FLUSHED)
    np.testing.assert_array_equal(flushed(scaled(FACTORS, addend)), want)


def test_an_addend_of_more_dims_must_be_large_everywhere() -> None:
    addend = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(flushed(scaled(FACTORS, addend)), FLUSHED)
    addend[1, 1] = 0
    assert flushed(scaled(FACTORS, addend)) is None


@pytest.mark.parametrize("last, gone", [(1.0, True), (0.0, False)])
def test_one_factor_of_many_sums_must_drown_in_all(last: float, gone: bool) -> None:
    addend = np.array([1, 1, 1, 1, 1, last], np.float32)
    found = flushed(scaled(np.array([TINY / 2], np.float32), addend))
    assert (found is not None) is gone


@pytest.mark.parametrize("kind, small", [("int32", 0), ("float16", 6e-8)])
def test_other_types_stay(kind: str, small: float) -> None:
    constants = {"c": np.array([1, small], kind), "d": np.ones(2, kind)}
    assert flushed(graph("%m = Mul(%x, %c)\n%y = Add(%m, %d)", constants, "2", kind)) is None


def test_a_factor_of_one_dim_stays() -> None:
    """A vector is one operand of a product of matrices, without axes of its own to look along."""
    factors = np.array([1, TINY / 2, 0], np.float32)
    assert flushed(graph("%y = MatMul(%x, %c)", {"c": factors}, "2,3")) is None


@pytest.mark.parametrize(
    "body", ["%y = Sub(%m, %d)", "%y = Mul(%m, %d)", "%y = Add(%m, %x)", "%y = Add(%m, %m)"]
)
def test_products_that_nothing_large_is_added_to_stay(body: str) -> None:
    assert flushed(scaled(FACTORS, ONES, body)) is None


def test_products_that_are_results_stay() -> None:
    assert flushed(graph("%y = Mul(%x, %c)", {"c": FACTORS}, "2,6")) is None


ROWS = np.array([[1, TINY / 2], [TINY / 8, TINY / 4], [TINY / 2, 3]], np.float32)


@pytest.mark.parametrize(
    ("body", "shape", "want"),
    [
        ("%y = MatMul(%x, %c)", "4,3", [[1, 0], [0, 0], [0, 3]]),
        ("%y = MatMul(%c, %x)", "2,4", [[1, 0], ROWS[1], [0, 3]]),
        ("%y = Gemm(%x, %c)", "4,3", [[1, 0], [0, 0], [0, 3]]),
        ("%y = Gemm(%x, %c) {transB=1}", "4,2", [[1, 0], ROWS[1], [0, 3]]),
        ("%y = Gemm(%c, %x)", "2,4", [[1, 0], ROWS[1], [0, 3]]),
        ("%y = Gemm(%c, %x) {transA=1}", "3,4", [[1, 0], [0, 0], [0, 3]]),
    ],
)
def test_factors_beside_large_ones_of_the_same_sum(body: str, shape: str, want: object) -> None:
    g = graph(body, {"c": ROWS}, shape)
    np.testing.assert_array_equal(flushed(g), np.array(want, np.float32))


def test_a_filter_of_nothing_else_stays() -> None:
    weights = np.ones((300, 300, 1, 1), np.float32)
    weights[299, 298] = weights[7] = TINY / 8
    want = weights.copy()
    want[299, 298] = 0
    g = graph("%y = Conv(%x, %c)", {"c": weights}, "1,300,2,2")
    np.testing.assert_array_equal(flushed(g), want)


def test_large_data_keeps_its_products() -> None:
    g = graph("%y = Mul(%x, %c)", {"c": np.float32(1e-40).reshape(1)}, "3")
    x = np.array([1e38, 3e38, -np.inf], np.float32)
    run(g, "subnormals,dce")
    np.testing.assert_allclose(evaluate(g, {"x": x})[0], [1e-2, 3e-2, -np.inf], rtol=1e-4)


@pytest.mark.parametrize("op", ["Div(%x, %c)", "Add(%x, %c)", "Max(%x, %c)", "Pow(%x, %c)"])
def test_only_factors_are_flushed(op: str) -> None:
    """A quotient by a subnormal number is large."""
    assert flushed(graph(f"%m = {op}\n%y = Add(%m, %d)", {"c": FACTORS, "d": ONES}, "2,6")) is None


def test_few_among_many_are_found() -> None:
    factors = np.ones(200_000, np.float32)
    factors[150_000] = TINY / 2
    found = flushed(graph("%m = Mul(%x, %c)\n%y = Add(%m, %d)",
                          {"c": factors, "d": np.ones_like(factors)}, "200000"))  # fmt: skip
    assert found is not None and found[150_000] == 0 and found.sum() == 199_999


def test_normal_numbers_stay() -> None:
    normal = np.array([1.0, TINY, 0.0, -0.0, np.inf, np.nan], np.float32)
    assert flushed(scaled(normal, ONES)) is None


def test_a_constant_that_others_read_too_stays_there() -> None:
    lines, by_hash = constant_lines({"c": FACTORS, "d": ONES})
    text = f"""graph main(%x: float32[6]) -> (y, z) {{
{lines}
%m = Mul(%x, %c)
%y = Add(%m, %d)
%z = Max(%x, %c)
return %y, %z
}}"""
    g = graph_of(text, by_hash)
    assert run(g, "subnormals,dce").records[0].changes == 1
    np.testing.assert_array_equal(evaluate(g, {"x": np.full(6, -9, np.float32)})[1], FACTORS)


def test_double_precision_has_its_own_limit() -> None:
    constants = {"c": np.array([1e-310, 1e-300]), "d": np.ones(2)}
    g = graph("%m = Mul(%x, %c)\n%y = Add(%m, %d)", constants, "2", "float64")
    np.testing.assert_array_equal(flushed(g), [0, 1e-300])
