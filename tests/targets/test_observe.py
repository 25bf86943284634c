"""What compiled code sees of a tensor is what NumPy does: counts of magnitudes, and extremes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from oputil import one_node, run_op
from support.cpu_kernels import cpus

from graphkiln.driver import Compilation, CompileOptions, Source, silent
from graphkiln.ir.magnitudes import BINS, HALF, bins_of, centres, edges
from graphkiln.runtime import Session

Array = np.ndarray


@given(arrays.arrays(np.float32, st.integers(0, 200), elements=st.floats(width=32)))
def test_bins_hold_what_their_edges_say(x: Array) -> None:
    found, lower = bins_of(x), edges()
    assert found.shape == x.shape
    magnitude = np.abs(x.astype(np.float64))
    side = np.where(np.signbit(x), HALF, 0)
    within = found - side
    assert np.all((within >= 0) & (within < HALF))
    finite = np.isfinite(x)
    assert np.all(lower[within[finite]] <= magnitude[finite])
    assert np.all(magnitude[finite] < lower[within[finite] + 1])
    assert np.all(within[~finite] == HALF - 1)


def test_bins_are_narrow() -> None:
    """Between the ends they differ from their centre by less than one part in 128."""
    lower, middle = edges()[1:-2], centres()[1:-1]
    assert np.all(np.abs(middle / lower - 1) <= 1 / 128)


SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1.1754942e-38, 2.0**-24, -(2.0**-24), 2.0**24,
     np.nextafter(np.float32(2.0**-24), np.float32(0)), 3.4e38, -3.4e38],
    np.float32,
)  # fmt: skip
NAN = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5, 11), (3, 0, 2), (4097,)])
@pytest.mark.parametrize("symbolic", [False, "distinct"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_any_shape(shape: tuple[int, ...], symbolic: bool | str, dtype: str) -> None:
    compare(np.random.default_rng(3).standard_normal(shape).astype(dtype), symbolic)


def compare(x: Array, symbolic: bool | str = False) -> None:
    for counted in (True, False):
        given = [x, np.array(counted)]
        found = run_op("Observe", given, None, "kiln", num_outputs=3, symbolic=symbolic)
        check(x, counted, found)


def check(x: Array, counted: bool, found: list[Array]) -> None:
    counts, low, high = found
    assert counts.dtype == np.int32 and low.dtype == high.dtype == x.dtype
    places = bins_of(x.astype(np.float32)).reshape(-1) if counted else []
    np.testing.assert_array_equal(counts, np.bincount(places, minlength=BINS))
    assert low.shape == high.shape == ()
    np.testing.assert_equal(low, np.min(x, initial=np.inf))
    np.testing.assert_equal(high, np.max(x, initial=-np.inf))


@cache
def compiled(cpu: str) -> Session:
    """An observer of any number of elements, for a CPU."""
    graph = one_node("Observe", [np.zeros(2, np.float32), np.array(True)], None, "kiln", 3, True)
    compilation = Compilation(CompileOptions(target=f"cpu:{cpu}" if cpu else "cpu"), silent)
    return compilation.run_graph(graph, Source("observer", "", ())).session()


CPUS = cpus("", "x86-64-v3")


def agrees(x: Array, cpu: str) -> None:
    for counted in (True, False):
        check(x, counted, compiled(cpu).run(None, {"x0": x, "x1": np.array(counted)}))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("size", [13, 64, 1000, 1024, 1025, 8191, 70_000, 8 * 65_536 + 3])
def test_special_numbers_at_any_place(size: int, cpu: str) -> None:
    """In vectors, behind the last one, and at the ends of the parts of several tasks."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal(size).astype(np.float32)
    x[rng.random(size) < 0.5] = 0
    agrees(x, cpu)
    x[rng.integers(0, size, 200)] = rng.choice(SPECIAL, 200)
    agrees(x, cpu)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("nan", NAN)
@pytest.mark.parametrize("size", [1, 100, 3000])
def test_nan_is_least_and_greatest_and_counted_with_its_sign(
    size: int, nan: np.float32, cpu: str
) -> None:
    x = np.full(size, 5, np.float32)
    for place in {0, size // 2, size - 1}:
        x[place] = nan
        agrees(x, cpu)
        x[place] = 5


@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=20)
@given(x=arrays.arrays(np.float32, st.integers(0, 300), elements=st.floats(width=32)))
def test_any_floats(x: Array, cpu: str) -> None:
    agrees(x, cpu)


@pytest.mark.parametrize("size", [100, 3 * 65_536 + 5])
def test_a_known_number_of_elements(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    x[size // 3] = -7
    compare(x)
    x[-1] = np.nan
    compare(x)
