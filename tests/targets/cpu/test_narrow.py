"""Registers of 32-bit numbers that become bytes together."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi
from support.cpu_kernels import cpus
from tvm import IRModule, tirx

from graphkiln.codegen.build import build_module
from graphkiln.targets import parse_target
from graphkiln.targets.cpu.features import features_of, named_cpus
from graphkiln.targets.cpu.narrow import byte_packer
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.extents import index

RNG = np.random.default_rng(0)
PACKING = ("x86-64-v3", "x86-64-v4")


def test_registers_of_avx_are_packed() -> None:
    packing = {name for name in named_cpus() if byte_packer(features_of(name)) is not None}
    x86 = {name for name in named_cpus() if features_of(name).arch == "x86_64"}
    assert packing == x86 - {"x86-64-v2"}


def packed(cpu: str, given: np.ndarray, dtype: str, zero: int | None = None) -> np.ndarray:
    """The bytes of runs of vectors: rounded where there is a zero point, else low bytes."""
    packer = byte_packer(features_of(cpu))
    assert packer is not None
    runs, count, lanes = given.shape
    b = Builder(CpuLoops(1))
    x = b.argument("x", given.shape, str(given.dtype))
    y = b.argument("y", given.shape, dtype)
    ramp = tirx.Ramp(index(0), index(1), lanes)
    with b.loop(runs) as run:
        vectors = [x.load_raw([run, index(i), ramp]) for i in range(count)]
        if zero is None:
            found = packer.low_bytes(vectors)
        else:
            found = packer.rounded(vectors, tirx.const(zero, "int32"), dtype)
        y.store_run((run, index(0), index(0)), found)
    target = parse_target(f"cpu:{cpu}").tvm_target()
    module = build_module(IRModule({"pack": b.finish("pack")}), target)
    result = np.zeros(given.shape, dtype)
    module["pack"](tvm_ffi.from_dlpack(given), tvm_ffi.from_dlpack(result))
    return result


@pytest.mark.parametrize("cpu", cpus(*PACKING))
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_packed_bytes_are_the_low_ones_in_their_order(cpu: str, count: int) -> None:
    edges = [0, 1, 127, 128, 255, 256, -1, -128, 65535, -65536, 2**31 - 1, -(2**31)]
    shape = (4, count, features_of(cpu).lanes)
    given = RNG.choice([*edges, *range(-300, 600)], shape).astype(np.int32)
    np.testing.assert_array_equal(packed(cpu, given, "uint8"), given.astype(np.uint8))


@pytest.mark.parametrize("cpu", cpus(*PACKING))
@pytest.mark.parametrize(
    ("count", "dtype", "zero"),
    [
        (1, "uint8", 0), (2, "uint8", 131), (3, "int8", 0), (4, "int8", -128), (4, "uint8", 255),
        (4, "int8", 127), (4, "uint8", 0),
    ],
)  # fmt: skip
def test_floats_are_rounded_and_saturate(cpu: str, count: int, dtype: str, zero: int) -> None:
    halves = np.arange(-300, 300) + 0.5
    edges = np.array([0.0, 32767.4, 32768.6, -32768.5, 2.0**31, -(2.0**31), 1e20, -1e20])
    edges = np.concatenate([halves, halves / 3, edges, [np.inf, -np.inf]])
    shape = (-1, count, features_of(cpu).lanes)
    given = np.resize(edges, 2048 * count).reshape(shape).astype(np.float32)
    info = np.iinfo(dtype)
    wanted = np.clip(np.rint(given) + zero, info.min, info.max).astype(dtype)
    np.testing.assert_array_equal(packed(cpu, given, dtype, zero), wanted)


@pytest.mark.parametrize("cpu", cpus(*PACKING))
def test_nan_becomes_the_least(cpu: str) -> None:
    given = np.full((1, 4, features_of(cpu).lanes), np.nan, np.float32)
    assert np.all(packed(cpu, given, "uint8", 5) == 0)
    assert np.all(packed(cpu, given, "int8", 5) == -128)
