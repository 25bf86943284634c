"""``kiln.MatMulPacked`` on this machine's CPUs: any shape, type and epilogue."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conv_kernels import BYTES, FLOAT, STORED
from support.cpu_kernels import cpus, run
from support.product_kernels import Packed, packed_kernel, packed_products

DOTS = ("", "x86-64-v2", "x86-64-v3", "x86-64-v4")


def agrees(spec: Packed, cpu: str) -> None:
    kernel = packed_kernel(spec, cpu)
    kernel.check(run(kernel, cpu))


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=7)
@given(data=st.data())
def test_floats(cpu: str, data: st.DataObject) -> None:
    agrees(data.draw(packed_products(FLOAT)), cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=4)
@given(data=st.data())
def test_floats_by_weights_stored_in_bytes(cpu: str, data: st.DataObject) -> None:
    agrees(data.draw(packed_products(STORED)), cpu)


@pytest.mark.parametrize("cpu", cpus(*DOTS))
@settings(max_examples=6)
@given(data=st.data())
def test_bytes(cpu: str, data: st.DataObject) -> None:
    agrees(data.draw(packed_products(BYTES)), cpu)


CASES = {
    "vector": Packed(FLOAT, (), None, 37, 50, 2),
    "one row": Packed(FLOAT, (1,), 1, 64, 64, 4, epilogue="relu"),
    "one row of bytes": Packed(BYTES, (1,), 1, 37, 33, 2, epilogue="requantize channels"),
    "many rows": Packed(FLOAT, (), 700, 33, 20, epilogue="residual"),
    "many rows of bytes": Packed(BYTES, (2,), 301, 33, 20, epilogue="scaled"),
    "many open rows": Packed(STORED, (3, 50), 7, 30, 70, 2, epilogue="both", open_dims=True),
    "one column": Packed(FLOAT, (), 9, 100, 1, bias=False),
    "one product": Packed(BYTES, (), 1, 1, 1),
    "no open rows": Packed(FLOAT, (), 0, 5, 20, open_dims=True),
    "no rows": Packed(FLOAT, (), 0, 5, 20),
}


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_shapes_that_have_code_of_their_own(case: Packed, cpu: str) -> None:
    agrees(case, cpu)


@pytest.mark.parametrize("cpu", cpus(*DOTS))
@pytest.mark.parametrize("weight", [-128, 127])
def test_sums_of_extreme_bytes_are_exact(cpu: str, weight: int) -> None:
    kernel = packed_kernel(Packed(BYTES, (), 5, 512, 16, bias=False, weight=weight), cpu)
    kernel.feeds[0][:] = 255
    (total,) = run(kernel, cpu)
    assert (total == 512 * 255 * weight).all()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*DOTS))
@pytest.mark.parametrize("kind", [FLOAT, STORED])
@settings(max_examples=80)
@given(data=st.data())
def test_many_floats(kind: str, cpu: str, data: st.DataObject) -> None:
    agrees(data.draw(packed_products(kind)), cpu)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*DOTS))
@settings(max_examples=80)
@given(data=st.data())
def test_many_bytes(cpu: str, data: st.DataObject) -> None:
    agrees(data.draw(packed_products(BYTES)), cpu)
