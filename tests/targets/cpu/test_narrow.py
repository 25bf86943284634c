"""Registers of int32 that become bytes together."""

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

LANES = 8


def test_only_registers_of_eight_are_packed_on_x86() -> None:
    packing = {name for name in named_cpus() if byte_packer(features_of(name)) is not None}
    assert packing == {"x86-64-v3", "haswell"}


@pytest.mark.parametrize("cpu", cpus("x86-64-v3"))
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_packed_bytes_are_the_low_ones_in_their_order(cpu: str, count: int) -> None:
    pack = byte_packer(features_of(cpu))
    assert pack is not None
    b = Builder(CpuLoops(1))
    x = b.argument("x", (count, LANES), "int32")
    y = b.argument("y", (count, LANES), "uint8")
    ramp = tirx.Ramp(tirx.IntImm("int64", 0), tirx.IntImm("int64", 1), LANES)
    zero = tirx.IntImm("int64", 0)
    y.store_run((zero, zero), pack([x.load_raw([i, ramp]) for i in range(count)]))
    target = parse_target(f"cpu:{cpu}").tvm_target()
    module = build_module(IRModule({"pack": b.finish("pack")}), target)
    edges = [0, 1, 127, 128, 255, 256, -1, -128, 65535, -65536, 2**31 - 1, -(2**31)]
    rng = np.random.default_rng(count)
    given = rng.choice([*edges, *range(-300, 600)], (count, LANES)).astype(np.int32)
    found = np.zeros((count, LANES), np.uint8)
    module["pack"](tvm_ffi.from_dlpack(given), tvm_ffi.from_dlpack(found))
    np.testing.assert_array_equal(found, given.astype(np.uint8))
