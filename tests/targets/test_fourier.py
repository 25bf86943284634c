"""Compiled ``DFT`` and ``STFT`` against NumPy's transforms in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, build, run_case, run_op, sampled_cases

from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.fourier_chirp import convolution_length
from graphkiln.targets.tir.fourier_stages import Stockham, radices
from graphkiln.targets.tir.fourier_tables import chirp, roots

MODES = [(0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 0, 2), (1, 1, 2)]
"""inverse, onesided, and how many numbers an element has."""

ACCURACY = {"float32": 4e-7, "float64": 1.2e-15}
"""The root mean square error allowed, relative to that of the result."""


def normal(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def transform(x: np.ndarray, n: int, inverse: int, onesided: int) -> np.ndarray:
    """The transform over axis 1 of [batch, length, 1 or 2] in float64."""
    z = x[..., 0].astype("float64") + (1j * x[..., 1] if x.shape[-1] == 2 else 0)
    if inverse and onesided:
        return np.fft.irfft(z, n, axis=1)[..., None]
    if inverse:
        result = np.fft.ifft(z, n, axis=1)
    else:
        result = np.fft.rfft(z.real, n, axis=1) if onesided else np.fft.fft(z, n, axis=1)
    return np.stack([result.real, result.imag], axis=-1)


def check(x: np.ndarray, n: int, inverse: int, onesided: int) -> None:
    """Compare the shape, the type and the root mean square of the error."""
    want = transform(x, n, inverse, onesided)
    attrs = {"inverse": inverse, "onesided": onesided}
    got = run_op("DFT", [x, np.array(n), np.array(1)], attrs, const_inputs={1, 2})[0]
    assert got.shape == want.shape
    assert got.dtype == x.dtype
    error = np.sqrt(np.mean((got - want) ** 2))
    assert error <= ACCURACY[x.dtype.name] * np.sqrt(np.mean(want**2))


@pytest.mark.parametrize("case", sampled_cases("DFT", "STFT"))
def test_onnx_case(case):
    if "opset19" in case.name:
        pytest.skip("an old form, which import upgrades")
    run_case(case)


@pytest.mark.parametrize("inverse, onesided, parts", MODES)
@pytest.mark.parametrize("n, length, dtype", [
    (2, 2, "float32"), (13, 9, "float64"), (16, 16, "float32"), (60, 64, "float64"),
    (17, 17, "float64"), (34, 40, "float32"), (211, 100, "float32"),
])  # fmt: skip
def test_dft(inverse, onesided, parts, n, length, dtype):
    check(normal(2, length, parts, dtype=dtype), n, inverse, onesided)


@pytest.mark.parametrize("n", [1001, 1009, 2018, 4093, 10007])
def test_errors_hardly_grow_with_the_length(n):
    """Angles stay exact: float64 keeps its accuracy for squares far beyond one turn."""
    for inverse, onesided, parts in ((0, 0, 1), (1, 0, 2)):
        check(normal(1, n, parts, dtype="float64"), n, inverse, onesided)


@settings(max_examples=25)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(MODES), st.sampled_from(
    ["float32", "float64"]))  # fmt: skip
def test_any_length(n, length, mode, dtype):
    inverse, onesided, parts = mode
    if inverse and onesided:
        length = n // 2 + 1
    check(normal(1, length, parts, dtype=dtype), n, inverse, onesided)


@pytest.mark.parametrize("inverse, onesided, parts", MODES)
@pytest.mark.parametrize("known", [{2}, set()])
def test_dft_of_a_length_told_at_run_time(inverse, onesided, parts, known):
    x = normal(2, 9, parts)
    attrs = {"inverse": inverse, "onesided": onesided}
    want = transform(x, 10, inverse, onesided).astype("float32")
    got = run_op("DFT", [x, np.array(10), np.array(-2)], attrs, const_inputs=known)[0]
    assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [9, 46])
def test_dft_of_open_rows(n):
    """A constant length where the signal's is told at run time, shorter or longer."""
    x = normal(3, 23, 1)
    want = transform(x, n, 0, 0).astype("float32")
    got = run_op("DFT", [x, np.array(n), np.array(1)], symbolic=True, const_inputs={1, 2})[0]
    assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_axis_told_at_run_time():
    x = normal(17, 19, 2)[None]
    attrs = {"inverse": 0, "onesided": 0}
    for axis in (1, 2):
        z = np.fft.fft(x[..., 0] + 1j * x[..., 1], axis=axis)
        want = np.stack([z.real, z.imag], axis=-1).astype("float32")
        got = run_op("DFT", [x, None, np.array(axis)], attrs)[0]
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("known", [{1, 3}, {3}, set()])
@pytest.mark.parametrize("window", [True, False])
@pytest.mark.parametrize("n", [24, 23, 38])
def test_stft(known, window, n):
    x = normal(2, 200, 1)
    weights = np.hanning(n).astype("float32")
    frames = np.stack([x[:, i : i + n, 0] for i in range(0, 201 - n, 10)], axis=1)
    spectrum = np.fft.rfft(frames.astype("float64") * (weights if window else 1.0), axis=-1)
    want = np.stack([spectrum.real, spectrum.imag], axis=-1).astype("float32")
    inputs = [x, np.array(10), weights if window else None, np.array(n)]
    assert_close(run_op("STFT", inputs, const_inputs=known)[0], want, rtol=1e-4, atol=1e-5)


# ---- plans and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(1, 200), 4096, 6006])
def test_radices_multiply_to_the_length(n):
    found = radices(n)
    primes = [p for p in range(2, n + 1) if n % p == 0 and all(p % d for d in range(2, p))]
    assert (found is None) == any(p > 13 for p in primes)
    assert found is None or np.prod(found, dtype=int) == n


def test_radices_put_a_two_early():
    assert radices(2048) == [4, 2, 4, 4, 4, 4]
    assert radices(96) == [4, 2, 4, 3]
    assert radices(10) == [2, 5]


def test_stages_refuse_large_primes():
    with pytest.raises(ValueError, match="34 has a prime factor above 13"):
        Stockham(Builder(CpuLoops(1)), 34, False, "float32")


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_convolution_length(count, bins):
    m, least = convolution_length(count, bins), count + bins - 1
    assert least <= m < max(1.34 * least, least + 1)
    assert radices(m) is not None


def filled(make: Any, columns: int) -> np.ndarray:
    """What a table holds that ``make(builder)`` computes, as complex numbers."""
    b = Builder(CpuLoops(1))
    out = b.argument("out", (2, columns), "float64")
    b.fill(out, make(b))
    got = np.zeros((2, columns))
    build(b.finish("table"))["table"](tvm_ffi.from_dlpack(got))
    return got[0] + 1j * got[1]


def turns(numerators: np.ndarray, n: int) -> np.ndarray:
    """exp(-2 pi i k / n), in extended precision."""
    angle = numerators.astype(np.longdouble) * (2 * np.longdouble(np.pi)) / n
    # pi is two float64 numbers in extended precision.
    angle += numerators.astype(np.longdouble) * np.longdouble(2.4492935982947064e-16) / n
    return np.cos(angle) - 1j * np.sin(angle)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 2047, 20480])
def test_roots_are_good_to_a_few_units_in_the_last_place(n):
    error = abs(filled(lambda b: roots(b, n, False, "float64"), n) - turns(np.arange(n), n))
    assert error.max() < 6e-16


@pytest.mark.parametrize("n", [5, 509, 10007])
def test_chirps_are_good_to_a_few_units_in_the_last_place(n):
    squares = np.arange(n) ** 2 % (2 * n)
    error = abs(filled(lambda b: chirp(b, n, n, True, "float64"), n) - turns(squares, 2 * n).conj())
    assert error.max() < 6e-16
