"""Products and convolutions by block-sparse weights, all of whose steps are in a list."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conv_kernels import BYTES, FLOAT, STORED, Spec, kernel_of, specs
from support.cpu_kernels import cpus, run
from support.product_kernels import Packed, packed_kernel, packed_products

from graphkiln.targets.cpu.features import features_of

KINDS = (FLOAT, STORED, BYTES)
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])


def agrees(spec: Packed | Spec, cpu: str) -> None:
    kernel = (packed_kernel if isinstance(spec, Packed) else kernel_of)(spec, cpu)  # type: ignore
    kernel.check(run(kernel, cpu))


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v2", "x86-64-v3"))
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4)
@given(data=st.data())
def test_products(kind: str, cpu: str, data: st.DataObject) -> None:
    spec = data.draw(packed_products(kind))
    agrees(replace(spec, vectors=1, listed=data.draw(SHARES)), cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v2", "x86-64-v3"))
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4)
@given(data=st.data())
def test_convolutions(kind: str, cpu: str, data: st.DataObject) -> None:
    spec = data.draw(specs(kind, features_of(cpu).lanes, ranks=(2, 2, 1, 3)))
    agrees(replace(spec, vectors=1, listed=data.draw(SHARES)), cpu)


CASES = {
    "one row": Packed(FLOAT, (1,), 1, 300, 70, listed=0.3),
    "three rows of bytes": Packed(BYTES, (), 3, 301, 70, listed=0.3, epilogue="requantize"),
    "many rows": Packed(FLOAT, (2,), 75, 130, 33, listed=0.25, epilogue="residual"),
    "open rows": Packed(FLOAT, (), 45, 64, 40, listed=0.25, open_dims=True),
    "few open rows": Packed(BYTES, (), 2, 64, 40, listed=0.25, open_dims=True),
    "no rows": Packed(FLOAT, (), 0, 5, 20, listed=0.5),
    "nothing": Packed(FLOAT, (), 9, 64, 40, listed=0.0),
}


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_shapes_that_have_code_of_their_own(case: Packed, cpu: str) -> None:
    agrees(case, cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v2", "x86-64-v3"))
@pytest.mark.parametrize("weight", [-128, 127])
def test_sums_of_extreme_bytes_are_exact(cpu: str, weight: int) -> None:
    kernel = packed_kernel(
        Packed(BYTES, (), 5, 512, 16, bias=False, weight=weight, listed=1.0), cpu
    )
    kernel.feeds[0][:] = 255
    (total,) = run(kernel, cpu)
    assert (total == 512 * 255 * weight).all()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus("", "x86-64-v2", "x86-64-v3", "x86-64-v4"))
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_many(kind: str, cpu: str, data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        spec: Packed | Spec = data.draw(packed_products(kind))
    else:
        spec = data.draw(specs(kind, features_of(cpu).lanes, ranks=(2, 2, 1, 3)))
    agrees(replace(spec, vectors=1, listed=data.draw(SHARES)), cpu)
