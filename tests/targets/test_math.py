"""Scalar mathematics against float64, in units in the last place, and that LLVM vectorises it."""

import re

import numpy as np
import pytest
import tvm
import tvm_ffi
from targets.oputil import build, native_target
from tvm import tirx

from graphkiln.targets.tir import math
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops

TINY = 1.17549435e-38


def function(f, n, arity=1, dtype="float32"):
    b = Builder(CpuLoops(1))
    xs = [b.argument(f"x{i}", (n,), dtype) for i in range(arity)]
    y = b.argument("y", (n,), dtype)
    with b.loop(n) as i:
        y.store((i,), f(b, *(x[i] for x in xs)))
    return b.finish("f")


def target(cpu):
    return tvm.target.Target({"kind": "llvm", "mcpu": cpu}) if cpu else native_target()


def apply(f, *xs, cpu=None):
    y = np.zeros_like(xs[0])
    module = build(function(f, y.size, len(xs), str(y.dtype)), target(cpu))
    module["f"](*(tvm_ffi.from_dlpack(x) for x in xs), tvm_ffi.from_dlpack(y))
    return y


def ulps(got, want):
    """Distance in units in the last place of the rounded float32 result."""
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
        scale = np.nan_to_num(np.abs(rounded), nan=1, posinf=3e38).clip(TINY)
        error = np.abs(got.astype(np.float64) - want) / np.spacing(scale.astype(np.float32))
    error[np.isnan(want) & np.isnan(got)] = 0
    error[np.isinf(rounded) & (got == rounded)] = 0
    return np.where(np.isnan(want) != np.isnan(got), np.inf, error)


def samples(*dense):
    """Floats of every exponent, special values, and the intervals ``dense`` evenly filled."""
    bits = np.arange(0, 2**32, 8191, dtype=np.uint64).astype(np.uint32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, TINY, 3.4028235e38, 1.0, -1.0]
    filled = [np.linspace(low, high, 100_000) for low, high in dense]
    rest = np.concatenate([special, *filled]).astype(np.float32)
    return np.concatenate([bits.view(np.float32), rest])


def reference(name):
    from math import erf

    exact = {
        "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh,
        "atan": np.arctan, "atanh": np.arctanh, "erf": np.vectorize(erf), "exp_flush": np.exp,
        "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)), "softplus": lambda x: np.logaddexp(0, x),
    }  # fmt: skip
    return exact.get(name) or getattr(np, name)


# The bounds that the docstrings promise.
BOUNDS = {
    "exp": 1.1, "exp_flush": 1.1, "expm1": 1.9, "log": 1.0, "sigmoid": 2.6, "softplus": 2.5,
    "tanh": 6.0, "erf": 6.0, "sinh": 2.2, "cosh": 1.7, "asinh": 0.6, "acosh": 0.6, "atanh": 0.6,
    "sin": 1.7, "cos": 1.7, "tan": 3.3, "asin": 2.5, "acos": 1.6, "atan": 1.7,
}  # fmt: skip


@pytest.mark.parametrize("cpu", [None, "x86-64-v2"])  # v2 has no fused multiply-add
@pytest.mark.parametrize("name", BOUNDS)
def test_error_bounds(name, cpu):
    x = samples((-104, 90), (-11, 11), (-1.5, 1.5))
    if name in ("sin", "cos", "tan"):
        x = x[(np.abs(x) < 2**20) | ~np.isfinite(x)]
    with np.errstate(all="ignore"):
        want = reference(name)(x.astype(np.float64))
    if name in ("exp_flush", "sigmoid", "softplus"):  # which flush what is below or above this
        keep = ~(np.abs(want) < 1.5e-38) & ~((np.abs(want) > 2.3e38) & (x < np.inf))
        x, want = x[keep | (x == -np.inf)], want[keep | (x == -np.inf)]
    error = ulps(apply(getattr(math, name), x, cpu=cpu), want)
    worst = int(error.argmax())
    assert error[worst] <= BOUNDS[name], (x[worst], want[worst], error[worst])


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid", "sin", "cos"])
def test_results_stay_in_range(name):
    x = samples((-11, 11))
    got = apply(getattr(math, name), x)
    assert np.nanmax(np.abs(got)) <= 1


@pytest.mark.parametrize("cpu,bound", [(None, 5), ("x86-64-v2", 70)])
def test_exponentials_of_differences(cpu, bound):
    y = np.linspace(-50, 50, 100_003, dtype=np.float32)
    x = y - np.linspace(0, 87, y.size, dtype=np.float32)[::-1]
    want = np.exp((x - y).clip(-87).astype(np.float64))
    assert ulps(apply(math.exp_difference, x, y, cpu=cpu), want).max() <= bound
    low = np.array([-np.inf, -3.4e38, -1000], np.float32)
    got = apply(math.exp_difference, low, np.zeros(3, np.float32), cpu=cpu)
    assert np.all((got > 0) & (got < 2e-38))
    assert np.isnan(apply(math.exp_difference, np.array([np.nan], np.float32), low[1:2], cpu=cpu))


def test_flushing():
    x = np.array([-88, -100, -np.inf, 88.5, 100, np.inf], np.float32)
    assert apply(math.exp_flush, x).tolist() == [0.0] * 3 + [np.inf] * 3


def power_operands():
    special = [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2, -2, 0.5, -0.5, 3, -3, 1e-45, -1e-45,
               3.4e38, -3.4e38, 0.99999994, 1.0000001, 16777216, -16777215, 2.5, -2.5]  # fmt: skip
    a, b = np.meshgrid(special, special)
    rng = np.random.default_rng(1)
    n = 100_000
    x = [a.ravel(), np.exp(rng.uniform(-87, 88, n)), rng.uniform(-4, 4, n)]
    y = [b.ravel(), rng.uniform(-1.2, 1.2, n), np.round(rng.uniform(-60, 60, n))]
    x.append(1 + rng.normal(size=n) / 1e3)
    y.append(rng.uniform(-1e5, 1e5, n))
    return np.concatenate(x).astype(np.float32), np.concatenate(y).astype(np.float32)


@pytest.mark.parametrize("cpu", [None, "x86-64-v2"])
def test_power(cpu):
    x, y = power_operands()
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
    got = apply(math.pow, x, y, cpu=cpu)
    assert ulps(got, want).max() <= 0.51
    signed = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


@pytest.mark.parametrize("name", [*BOUNDS])
def test_float64_calls_the_c_library(name):
    x = np.linspace(-3, 3, 1001)
    with np.errstate(all="ignore"):
        want = reference(name)(x)
    np.testing.assert_allclose(apply(getattr(math, name), x), want, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("cpu, register", [("znver4", "zmm"), ("x86-64-v3", "ymm")])
@pytest.mark.parametrize("name", [*BOUNDS, "pow"])
def test_loops_become_vector_code(name, cpu, register):
    if name == "pow":
        f = function(lambda b, x: math.pow(b, x, tirx.const(2.3, "float32")), 65536)
    else:
        f = function(getattr(math, name), 65536)
    code = build(f, target(cpu)).inspect_source("asm")
    assert len(re.findall(f"%{register}", code)) > 40
    assert {c for c in re.findall(r"call\S*\s+(\S+)", code)} <= {"f_compute_"}


def test_rounding_becomes_vector_code():
    b = Builder(CpuLoops(1))
    x, y = (b.argument(name, (16,), "float32") for name in ("x", "y"))
    with b.lanes(16) as i:
        y.store((i,), tirx.nearbyint(x[(i,)]))
    f = b.finish("f")
    assert "T.vectorized" in str(f)
    given = np.linspace(-4, 3.5, 16, dtype=np.float32)
    got = np.zeros_like(given)
    build(f, native_target())["f"](tvm_ffi.from_dlpack(given), tvm_ffi.from_dlpack(got))
    np.testing.assert_array_equal(got, np.rint(given))
