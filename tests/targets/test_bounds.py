"""Kernels compiled with bounds checks: what steps out of a buffer is an error, nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import tirx

from graphkiln.codegen.build import build_module
from graphkiln.targets import TargetError, parse_target
from graphkiln.targets.tir.builder import BufferTensor, Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.extents import index

Body = Callable[[Builder, BufferTensor, BufferTensor], None]


def run(body: Body, fill: float = 1.0) -> np.ndarray:
    """What a kernel of x and y, eight floats each, makes of y; the memory around y stays as it is.

    ``body`` emits its code. Raises what a check raises.
    """
    b = Builder(CpuLoops(2))
    x, y = b.argument("x", (8,), "float32"), b.argument("y", (8,), "float32")
    body(b, x, y)
    function = b.finish("kernel")
    module = tvm.IRModule({"kernel": function})
    kernel = build_module(module, parse_target("cpu").tvm_target(), check_bounds=True)["kernel"]
    memory = np.zeros(64, np.float32)
    try:
        kernel(
            tvm_ffi.from_dlpack(np.full(8, fill, np.float32)), tvm_ffi.from_dlpack(memory[24:32])
        )
    finally:
        assert not memory[:24].any() and not memory[32:].any()
    return memory[24:32]


def ramp(first: int) -> tirx.Ramp:
    return tirx.Ramp(index(first), index(1), 8)


def read_one_more(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(9) as i:
        y.store((tirx.min(i, index(7)),), x[i])


def read_one_before(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(8) as i:
        y.store((i,), x[i - 1])


def write_one_more(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(9) as i:
        y.store((i,), x[0])


def write_in_a_task(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(9, "parallel") as i:
        y.store((i,), x[0])


def read_a_vector(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    y.store_raw([ramp(0)], x.load_raw([ramp(1)]))


def write_a_vector(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    y.store_raw([ramp(1)], x.load_raw([ramp(0)]))


def read_lanes(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.lanes(8) as lane:
        y.store((lane,), x[lane * 2])


def read_by_a_value(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    """Each lane of a vector has an index of its own."""
    with b.lanes(8) as lane:
        y.store((lane,), x[tirx.Cast("int64", x[lane]) * (lane + 1)])


def read_on_both_sides(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    """Both operands of ``and`` are evaluated."""
    with b.loop(9) as i:
        with b.when(tirx.And(i < 8, x[i] > 0)):
            y.store((i,), x[i])


def read_by_a_condition(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    """The condition of a loop moves on in the loop."""
    n = b.scalar("int64", 0)
    with b.while_(x[n.get()] > 0):
        n.set(n.get() + 1)


def read_a_view(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    """A view that claims more than there is."""
    y.store((index(0),), b.view(x, (3, 3))[2, 2])


def write_workspace(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    b.workspace((8,), "float32").store((index(8),), x[0])


@pytest.mark.parametrize(
    "body, told",
    [
        (read_one_more, "reads outside of its buffer 'x'"),
        (read_one_before, "reads outside of its buffer 'x'"),
        (write_one_more, "writes outside of its buffer 'y'"),
        (write_in_a_task, "writes outside of its buffer 'y'"),
        (read_a_vector, "reads outside of its buffer 'x'"),
        (write_a_vector, "writes outside of its buffer 'y'"),
        (read_lanes, "reads outside of its buffer 'x'"),
        (read_by_a_value, "reads outside of its buffer 'x'"),
        (read_on_both_sides, "reads outside of its buffer 'x'"),
        (read_by_a_condition, "reads outside of its buffer 'x'"),
        (read_a_view, "reads outside of its buffer 'x'"),
        (write_workspace, "writes outside of its buffer 'tmp1'"),
    ],
)
def test_out_of_bounds(body: Body, told: str) -> None:
    with pytest.raises(IndexError, match=f"kernel 'kernel' {told}"):
        run(body)


def copy(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(8) as i:
        y.store((i,), x[i])


def shift_behind_a_condition(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(8) as i:
        y.store((i,), tirx.if_then_else(i < 7, x[i + 1], tirx.const(1.0, "float32")))


def shift_behind_a_branch(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.loop(8) as i:
        with b.when(i < 7):
            y.store((i,), x[i + 1])
        with b.otherwise():
            y.store((i,), x[i])


def copy_vectors(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    y.store_raw([ramp(0)], x.load_raw([ramp(0)]))


def gather_lanes(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    with b.lanes(8) as lane:
        y.store((lane,), x[tirx.Cast("int64", x[lane]) * lane])


def copy_in_tasks(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    held = b.workspace((8,), "float32")
    with b.loop(8, "parallel") as i:
        held.store((i,), x[i])
        y.store((i,), held[i])


def count(b: Builder, x: BufferTensor, y: BufferTensor) -> None:
    n = b.scalar("int64", 0)
    with b.while_(tirx.if_then_else(n.get() < 8, x[n.get()] > 0, tirx.const(False, "bool"))):
        y.store((n.get(),), x[n.get()])
        n.set(n.get() + 1)


@pytest.mark.parametrize(
    "body",
    [copy, shift_behind_a_condition, shift_behind_a_branch, copy_vectors, gather_lanes,
     copy_in_tasks, count],
)  # fmt: skip
def test_within_bounds(body: Body) -> None:
    assert (run(body) == 1).all()


def test_names() -> None:
    plain = parse_target("cpu:x86-64-v3")
    for options in ("check=bounds", "check=bounds,memory=apart"):
        text = f"cpu:x86-64-v3,cores=3,{options}"
        target = parse_target(text)
        assert target.spec == text and parse_target(target.spec) == target
        assert target.layouts.cpu == plain.layouts.cpu
    assert parse_target("cpu,check=bounds") == parse_target("cpu:,check=bounds")


@pytest.mark.parametrize(
    "text",
    ["cpu:,check", "cpu:,check=all", "cpu:,fast=1", "cpu:,check=bounds,check=bounds",
     "cpu:,cores=0", "cpu:,cores=many", "cpu:,cores=1025", "cpu:,cores=-1", "cpu:,cores=²"],
)  # fmt: skip
def test_unknown_options(text: str) -> None:
    with pytest.raises(TargetError, match="target option"):
        parse_target(text)
