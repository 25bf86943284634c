"""``kiln.DepthwiseBlocked`` on this machine's CPUs: floats, and bytes with and without dots."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conv_kernels import BYTES, FLOAT, STORED, Spec, kernel_of, specs
from support.cpu_kernels import cpus, run

from graphkiln.targets.cpu.features import features_of


def agrees(spec: Spec, cpu: str) -> None:
    kernel = kernel_of(spec, cpu)
    kernel.check(run(kernel, cpu))


def drawn(data: st.DataObject, kind: str, cpu: str, ranks: Sequence[int] = (2, 2, 1)) -> None:
    agrees(data.draw(specs(kind, features_of(cpu).lanes, depthwise=True, ranks=ranks)), cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=8)
@given(data=st.data())
def test_floats(cpu: str, data: st.DataObject) -> None:
    drawn(data, FLOAT, cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=3)
@given(data=st.data())
def test_floats_by_weights_stored_in_bytes(cpu: str, data: st.DataObject) -> None:
    drawn(data, STORED, cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3", "x86-64-v4"))
@settings(max_examples=6)
@given(data=st.data())
def test_bytes(cpu: str, data: st.DataObject) -> None:
    drawn(data, BYTES, cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("kind", [FLOAT, BYTES])
@settings(max_examples=5)
@given(data=st.data())
def test_volumes(kind: str, cpu: str, data: st.DataObject) -> None:
    drawn(data, kind, cpu, (3,))


def bytes_spec(kernel: int, stride: int, dilation: int) -> Spec:
    """A row of 20 channels of bytes."""
    return Spec(
        BYTES, 20, 20, 20, (9, 21), (3, kernel), (1, stride), (1, dilation),
        ((1, 1), (kernel // 2, kernel // 2)), epilogue="requantize channels",
    )  # fmt: skip


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (5, 2, 1), (4, 1, 1), (3, 1, 2)])
def test_steps_of_four_and_of_one(cpu: str, kernel: int, stride: int, dilation: int) -> None:
    agrees(bytes_spec(kernel, stride, dilation), cpu)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3", "x86-64-v4", "x86-64-v2"))
@pytest.mark.parametrize("kind", [FLOAT, STORED, BYTES])
@settings(max_examples=60)
@given(data=st.data())
def test_many(kind: str, cpu: str, data: st.DataObject) -> None:
    drawn(data, kind, cpu, (3, 2, 2, 1))
