"""Integer division by tensors against Python's integers: exact for all numbers, and in vectors."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import build, one_node, run_graph

from graphkiln.targets.generic.region import lower_region
from graphkiln.targets.tir.cpu_loops import CpuLoops

TYPES = ("int64", "int32", "uint32", "int16", "uint8")
MODES = [("Div", {}), ("Mod", {"fmod": 1}), ("Mod", {"fmod": 0})]


def near_multiples(dtype: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Dividends at, just below and just above multiples of divisors of all lengths."""
    random = np.random.default_rng(count)
    limits = np.iinfo(dtype)
    bits = random.integers(0, limits.bits + 1, (2, count))
    raw = random.integers(0, 2**63, (2, count)).astype(object) % 2 ** bits.astype(object)
    signs = random.choice([-1, 1] if limits.min else [1], (2, count))
    b, q = (np.array(r, object) * s for r, s in zip(raw, signs, strict=True))
    a = q * b + random.integers(-1, 2, count)
    # Products beyond the type are cut, which makes dividends of all lengths.
    return tuple((v % 2**limits.bits).astype(f"u{limits.bits // 8}").view(dtype) for v in (a, b))


def wanted(op: str, attrs: dict[str, int], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By NumPy, whose quotients are floored; 0 for a divisor of 0."""
    with np.errstate(divide="ignore", over="ignore"):
        if op == "Mod":
            return np.fmod(a, b) if attrs["fmod"] else np.mod(a, b)
        exact = (a - np.fmod(a, b)) // b
        if a.dtype.kind == "i":  # NumPy's quotient of the smallest number and -1 may be any
            exact = np.where(b == -1, 0 - a, exact)
        return np.where(b == 0, 0, exact)


@pytest.mark.parametrize("op, attrs", MODES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_near_multiples(op, attrs, dtype, vector_bytes):
    """Vectors of two doubles are too short for the way of the wider ones."""
    a, b = near_multiples(dtype, 20_011)
    got = run_graph(one_node(op, [a, b], attrs), [a, b], CpuLoops(2, vector_bytes))[0]
    np.testing.assert_array_equal(got, wanted(op, attrs, a, b).astype(dtype))


@pytest.mark.parametrize("op, attrs", MODES)
@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("divisor", [0, 1, -1, 3, -7, 2**31 - 1, -(2**31)])
def test_one_divisor_of_all(op, attrs, dtype, divisor):
    a, _ = near_multiples(dtype, 1_003)
    b = np.array([divisor], dtype)
    (got,) = run_graph(one_node(op, [a, b], attrs), [a, b])
    np.testing.assert_array_equal(got, wanted(op, attrs, a, b).astype(dtype))


def test_random_numbers(compiled_division):
    @settings(max_examples=200)
    @given(st.lists(st.tuples(INTEGERS, INTEGERS), min_size=64, max_size=64))
    def check(pairs):
        a, b = np.array(pairs, np.int64).T.copy()
        np.testing.assert_array_equal(compiled_division(a, b), wanted("Div", {}, a, b))

    check()


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**20), 2**20)


@pytest.fixture(scope="module")
def compiled_division():
    """Quotients of 64 pairs of int64."""
    zeros = np.zeros(64, np.int64)
    function = lower_region(one_node("Div", [zeros, zeros]), "divide", CpuLoops(1))
    module = build(function)

    def divide(a, b):
        out = np.zeros(64, np.int64)
        module["divide"](*map(tvm_ffi.from_dlpack, (a, b, out)))
        return out

    return divide


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_llvm_divides_in_vectors(dtype):
    x = np.zeros(4096, dtype)
    function = lower_region(one_node("Div", [x, x]), "divide", CpuLoops(1, 32))
    text = build(function).inspect_source("ll")
    assert "fdiv <" in text
    assert "sdiv <" not in text
