"""Matrix products, Einsum and determinants against NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, one_node, run_case, run_op, sampled_cases
from reference import runtime

from graphkiln.ir.interpreter import run_node

OPS = ("MatMul", "Gemm", "Einsum", "Det")


def normal(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype("float64")


@pytest.mark.parametrize("case", sampled_cases(*OPS))
def test_onnx_case(case):
    run_case(case)


@pytest.mark.parametrize("a, b", [
    ((5,), (5,)), ((5,), (5, 3)), ((4, 5), (5,)), ((2, 4, 5), (5,)), ((5,), (2, 5, 3)),
    ((3, 1, 7, 20), (2, 20, 40)), ((2, 3, 9, 20), (20, 70)), ((1, 33), (33, 200)),
    ((13, 64), (64, 100)), ((0, 4), (4, 3)), ((3, 0), (0, 2)),
])  # fmt: skip
@pytest.mark.parametrize("symbolic", [False, "distinct"])
def test_matmul(a, b, symbolic):
    x, y = normal(*a), normal(*b)
    got = run_op("MatMul", [x, y], symbolic=symbolic)[0]
    assert_close(got, np.matmul(wide(x), wide(y)).astype("float32"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64", "int32", "uint64"])
def test_matmul_of_other_types(dtype):
    x, y = (np.random.default_rng(3).integers(0, 9, s).astype(dtype) for s in ((7, 20), (20, 33)))
    assert_close(run_op("MatMul", [x, y])[0], (wide(x) @ wide(y)).astype(dtype), rtol=1e-2)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("m, k, n", [(7, 33, 40), (1, 100, 10), (20, 8, 1), (6, 1, 5), (64, 64, 3)])
def test_gemm(trans_a, trans_b, m, k, n):
    a, b, c = normal(m, k), normal(k, n), normal(n)
    inputs = [a.T.copy() if trans_a else a, b.T.copy() if trans_b else b, c]
    attrs = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    want = (0.5 * wide(a) @ wide(b) + 2 * c).astype("float32")
    for symbolic in (False, True) if m == 7 else (False,):
        got = run_op("Gemm", inputs, attrs, symbolic=symbolic)[0]
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("c", [(), (1,), (5, 1), (1, 6), (5, 6)])
def test_gemm_broadcasts_its_addend(c):
    a, b, addend = normal(5, 4), normal(4, 6), normal(*c)
    want = (wide(a) @ wide(b) + addend).astype("float32")
    assert_close(run_op("Gemm", [a, b, addend])[0], want, rtol=1e-5, atol=1e-6)


def test_gemm_of_integers_scales():
    a, b = np.array([[3, 5]], np.int32), np.array([[2], [1]], np.int32)
    assert_close(run_op("Gemm", [a, b], {"alpha": 2.0})[0], np.array([[22]], np.int32))


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70), st.integers(1, 3))
def test_any_matmul(m, k, n, batch):
    x, y = normal(batch, m, k), normal(k, n)
    got = run_op("MatMul", [x, y])[0]
    assert_close(got, np.matmul(wide(x), wide(y)).astype("float32"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_fused_matmul(trans_a, trans_b):
    a = normal(2, 3, 20, 9) if trans_a else normal(2, 3, 9, 20)
    b = normal(3, 33, 20) if trans_b else normal(3, 20, 33)
    attrs = {"alpha": 0.25, "transA": trans_a, "transB": trans_b}
    want = runtime("FusedMatMul", [a, b], attrs, "com.microsoft")
    got = run_op("FusedMatMul", [a, b], attrs, "com.microsoft")
    assert_close(got[0], want[0], rtol=1e-4, atol=1e-5)
    node = one_node("FusedMatMul", [a, b], attrs, "com.microsoft").nodes[0]
    assert_close(run_node(node, [a, b])[0], want[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation, shapes", [
    ("ij,jk->ik", [(5, 6), (6, 7)]),
    ("bhwc,hkc->bhwk", [(2, 3, 4, 16), (3, 5, 16)]),
    ("bhwc,wkc->bhwk", [(2, 3, 4, 16), (4, 5, 16)]),
    ("nkctv,kvw->nctw", [(2, 3, 4, 5, 6), (3, 6, 7)]),
    ("i,j->ij", [(3,), (4,)]),
    ("ii->i", [(4, 4)]),
    ("ii", [(4, 4)]),
    ("ij,ij->", [(4, 5), (4, 5)]),
    ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 6)]),
    ("...,...->...", [(3, 4), (4,)]),
    ("ba,bc,cd->ad", [(3, 4), (3, 5), (5, 6)]),
    ("iij,jk->ik", [(3, 3, 4), (4, 5)]),
    ("bij,bj->b", [(2, 3, 4), (2, 4)]),
    ("ji,kj->ik", [(6, 5), (7, 6)]),
    ("Ab, bA", [(3, 4), (4, 3)]),
    ("abc->cab", [(2, 3, 4)]),
    ("bqhd,bkhd->bhqk", [(2, 5, 3, 8), (2, 6, 3, 8)]),
    ("bhqk,bkhd->bqhd", [(2, 3, 5, 6), (2, 6, 3, 8)]),
])  # fmt: skip
def test_einsum(equation, shapes):
    inputs = [normal(*s) for s in shapes]
    want = np.einsum(equation, *map(wide, inputs)).astype("float32")
    for symbolic in (False, True):
        got = run_op("Einsum", inputs, {"equation": equation}, symbolic=symbolic)[0]
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation, shapes, message", [
    ("ij,jk", [(2, 3)], "2 terms for 1 inputs"),
    ("ijk->i", [(2, 3)], "does not fit an input of rank 2"),
    ("ij->k", [(2, 3)], "repeats an index or invents one"),
    ("ij,jk->ik", [(2, 3), (4, 5)], "do not broadcast"),
])  # fmt: skip
def test_einsum_rejects(equation, shapes, message):
    with pytest.raises(Exception, match=message):
        run_op("Einsum", [normal(*s) for s in shapes], {"equation": equation})


def test_determinants():
    x = normal(3, 2, 5, 5)
    x[0, 0, 1] = x[0, 0, 0]  # singular
    x[1, 1, 0, 0] = 0.0  # needs a row exchange
    want = np.linalg.det(wide(x)).astype("float32")
    assert_close(run_op("Det", [x], symbolic=True)[0], want, rtol=1e-4, atol=1e-5)
