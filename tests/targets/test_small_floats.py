"""Codecs of narrow floats against ml_dtypes: every code, and floats around every boundary."""

import numpy as np
import pytest
import tvm_ffi
from targets.oputil import build

from graphkiln.ir.types import to_numpy_dtype
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.numeric import storage_dtype
from graphkiln.targets.tir.small_floats import SMALL_FLOATS, encode_e8m0

NARROW = [*SMALL_FLOATS, "float8e8m0", "bfloat16", "float16"]


def convert(x, source, target):
    """``x`` (stored bits of ``source``) through a compiled loop that stores ``target``."""
    b = Builder(CpuLoops(1))
    src = b.argument("x", x.shape, source)
    out = b.argument("y", x.shape, target)
    with b.loop(x.size) as i:
        out.store((i,), src[i])
    y = np.zeros(x.shape, storage_dtype(target))
    build(b.finish("convert"))["convert"](tvm_ffi.from_dlpack(x), tvm_ffi.from_dlpack(y))
    return y


def all_values(name):
    """Every value of a type as float32, sorted, without NaN."""
    kind = to_numpy_dtype(name)
    bits = 16 if name == "bfloat16" or name == "float16" else 8
    codes = np.arange(2 ** (4 if name == "float4e2m1" else bits), dtype=f"uint{bits}")
    with np.errstate(invalid="ignore"):
        values = codes.view(kind).astype(np.float32)
    return np.unique(values[np.isfinite(values)])


def probes(name):
    """Floats where rounding can go wrong: values, midpoints, and both neighbours of each."""
    values = all_values(name)
    values = values[:: max(1, len(values) // 4096)]
    middle = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)
    with np.errstate(over="ignore"):
        points = np.concatenate([values, middle, values[[0, -1]] * 1.25, values[[0, -1]] * 4])
    around = [points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)]
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38]
    random = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    return np.concatenate([*around, np.array(special, np.float32), random]).astype(np.float32)


@pytest.mark.parametrize("name", NARROW)
def test_every_code_decodes(name):
    kind = to_numpy_dtype(name)
    bits = kind.itemsize * 8
    codes = np.arange(16 if name == "float4e2m1" else 2**bits, dtype=f"uint{bits}")
    got = convert(codes.view(storage_dtype(name)), name, "float32")
    want = codes.view(kind).astype(np.float32)
    np.testing.assert_array_equal(got, want)
    finite = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(want[finite]))


@pytest.mark.parametrize("name", NARROW)
def test_encoding_rounds_as_ml_dtypes(name):
    x = probes(name)
    kind = to_numpy_dtype(name)
    with np.errstate(over="ignore", invalid="ignore"):
        want = x.astype(kind)
    if name == "float8e8m0":  # ml_dtypes and the format differ for numbers below the range
        keep = ~((x > 0) & (x < 2.0**-126))
        x, want = x[keep], want[keep]
    got = convert(x, "float32", name).view(kind)
    raw = f"u{kind.itemsize}"
    is_nan = np.isnan(want.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), is_nan)
    np.testing.assert_array_equal(got.view(raw)[~is_nan], want.view(raw)[~is_nan])


@pytest.mark.parametrize("name", SMALL_FLOATS)
def test_largest_value(name):
    assert SMALL_FLOATS[name].max == all_values(name).max()


def test_storing_a_decoded_code_gives_it_back():
    for name in ("float8e5m2", "float8e4m3fn", "float4e2m1", "float8e8m0"):
        codes = np.arange(16 if name == "float4e2m1" else 256, dtype=np.uint8)
        got = convert(codes, name, name)
        same = ~np.isnan(codes.view(to_numpy_dtype(name)).astype(np.float32))
        np.testing.assert_array_equal(got[same], codes[same])


def e8m0(x, mode, saturate):
    b = Builder(CpuLoops(1))
    src = b.argument("x", x.shape, "float32")
    out = b.argument("y", x.shape, "uint8")
    with b.loop(x.size) as i:
        out.store_raw((i,), encode_e8m0(b.let(src[i]), mode, saturate))
    y = np.zeros(x.shape, np.uint8)
    build(b.finish("e8m0"))["e8m0"](tvm_ffi.from_dlpack(x), tvm_ffi.from_dlpack(y))
    return y


@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("mode", ["nearest", "up", "down"])
def test_e8m0_modes_are_onnxs_on_normal_numbers(mode, saturate):
    import onnx

    exponents = np.random.default_rng(0).uniform(-125, 126, 5000)
    x = np.concatenate(
        [2.0**exponents, 2.0 ** np.arange(-126, 127), 1.5 * 2.0 ** np.arange(-126, 126)]
    )
    x = x.astype(np.float32)
    want = onnx.numpy_helper.to_float8e8m0(x, saturate, mode).view(np.uint8)
    np.testing.assert_array_equal(e8m0(x, mode, saturate), want)


def test_e8m0_ends_of_the_range():
    x = np.array([0.0, -0.0, 2.0**-127, 2.0**-130, 3e38, np.inf, np.nan, -1.0], np.float32)
    assert e8m0(x, "up", True).tolist() == [0, 0, 0, 0, 254, 254, 255, 255]
    assert e8m0(x, "nearest", False).tolist() == [255, 255, 0, 255, 255, 255, 255, 255]
    assert e8m0(x, "down", False).tolist() == [255, 255, 0, 255, 254, 255, 255, 255]


def test_unknown_rounding_mode():
    with pytest.raises(ValueError, match="rounding mode"):
        encode_e8m0(None, "sideways")
