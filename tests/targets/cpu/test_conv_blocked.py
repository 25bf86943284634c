"""``kiln.ConvBlocked`` on this machine's CPUs: any window, grouping, type and epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    agrees(data.draw(specs(kind, features_of(cpu).lanes, ranks=ranks)), cpu)


VOLUME = (3,)


DOTS = ("", "x86-64-v2", "x86-64-v3", "x86-64-v4")


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=8)
@given(data=st.data())
def test_floats(cpu: str, data: st.DataObject) -> None:
    drawn(data, FLOAT, cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=4)
@given(data=st.data())
def test_floats_by_weights_stored_in_bytes(cpu: str, data: st.DataObject) -> None:
    drawn(data, STORED, cpu)


@pytest.mark.parametrize("cpu", cpus(*DOTS))
@settings(max_examples=6)
@given(data=st.data())
def test_bytes(cpu: str, data: st.DataObject) -> None:
    drawn(data, BYTES, cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("kind", [FLOAT, STORED, BYTES])
@settings(max_examples=5)
@given(data=st.data())
def test_volumes(kind: str, cpu: str, data: st.DataObject) -> None:
    drawn(data, kind, cpu, VOLUME)


def square(kind: str, channels: int, filters: int, size: int, window: int, **more: Any) -> Spec:
    """A convolution of a square image by a square window, border and all."""
    given = {
        "group": 1, "image": (size, size), "kernel": (window, window), "strides": (1, 1),
        "dilations": (1, 1), "pads": ((window // 2, window // 2),) * 2, **more,
    }  # fmt: skip
    return Spec(kind, channels=channels, filters=filters, **given)


def volume(kind: str, channels: int, filters: int, *image: int, **more: Any) -> Spec:
    """A convolution of a volume by a window of three along each long dim, border and all."""
    kernel = more.pop("kernel", tuple(3 if extent > 1 else 1 for extent in image))
    given = {
        "group": 1, "kernel": kernel, "strides": (1, 1, 1), "dilations": (1, 1, 1),
        "pads": tuple((k // 2, k // 2) for k in kernel), **more,
    }  # fmt: skip
    return Spec(kind, channels=channels, filters=filters, image=image, **given)


CASES = {
    "small windows": square(FLOAT, 32, 32, 17, 3, vectors=2, epilogue="residual"),
    "small windows of bytes": square(STORED, 35, 20, 13, 3, batch=2, epilogue="channels"),
    "small windows, open": square(FLOAT, 32, 32, 19, 3, vectors=2, batch=2, open_dims="NHW"),
    "tiny and open": square(FLOAT, 32, 20, 3, 3, open_dims="HW", epilogue="relu"),
    "uneven borders": square(FLOAT, 32, 32, 12, 3, pads=((0, 2), (1, 0)), epilogue="both"),
    "whole rows in a tile": square(
        FLOAT, 40, 36, 7, 3, vectors=2, batch=2, strides=(2, 2), epilogue="both"
    ),
    "whole rows of groups": square(FLOAT, 32, 32, 5, 3, group=2, pads=((1, 1), (0, 0))),
    "whole rows of bytes": square(BYTES, 20, 36, 6, 3, vectors=2, epilogue="requantize"),
    "pointwise": square(FLOAT, 35, 40, 5, 1, vectors=2, epilogue="channels"),
    "pointwise, open": square(FLOAT, 16, 32, 5, 1, open_dims="NHW", epilogue="residual"),
    "pointwise bytes": square(BYTES, 35, 40, 5, 1, vectors=2, epilogue="requantize channels"),
    "one column": square(
        FLOAT, 20, 20, 9, 3, image=(23, 1), kernel=(3, 1), pads=((1, 1), (0, 0)), strides=(2, 1)
    ),
    "one open column": square(
        FLOAT, 20, 20, 9, 3, image=(23, 1), kernel=(3, 1), pads=((1, 1), (0, 0)), open_dims="NHW"
    ),
    "first layer": square(FLOAT, 3, 33, 19, 7, strides=(2, 2), vectors=2, epilogue="relu"),
    "first layer of bytes": square(BYTES, 3, 33, 19, 7, strides=(2, 2), epilogue="requantize"),
    "only borders": square(FLOAT, 4, 8, 1, 4, pads=((3, 3), (3, 3))),
}


CASES |= {
    "volume by whole rows": volume(FLOAT, 32, 40, 4, 6, 5, vectors=2, epilogue="residual"),
    "volume by parts of rows": volume(
        FLOAT, 20, 20, 3, 4, 37, batch=2, strides=(2, 1, 1), epilogue="both"
    ),
    "small volume": volume(FLOAT, 32, 32, 3, 4, 4, epilogue="channels"),
    "open volume": volume(FLOAT, 16, 33, 4, 5, 21, batch=2, open_dims="NHW", epilogue="residual"),
    "volume of groups": volume(FLOAT, 32, 32, 3, 4, 5, group=2, dilations=(2, 1, 1)),
    "volume of bytes": volume(BYTES, 20, 36, 3, 5, 6, vectors=2, epilogue="requantize channels"),
    "first layer of a volume": volume(
        FLOAT, 3, 33, 5, 14, 15, kernel=(3, 7, 7), strides=(1, 2, 2), epilogue="relu"
    ),
    "pointwise volume": volume(
        FLOAT, 35, 40, 3, 4, 5, kernel=(1, 1, 1), vectors=2, epilogue="residual"
    ),
    "pointwise open volume": volume(
        FLOAT, 16, 20, 3, 4, 5, kernel=(1, 1, 1), open_dims="NHW", epilogue="relu"
    ),
    "volume of one row of planes": volume(FLOAT, 20, 20, 23, 1, 1, strides=(2, 1, 1)),
    "volume of columns": volume(FLOAT, 20, 20, 5, 9, 1, epilogue="residual"),
    "volume of rows": volume(FLOAT, 20, 20, 5, 1, 9, strides=(1, 1, 2), epilogue="residual"),
    "volume of one plane": volume(FLOAT, 20, 20, 1, 5, 9, epilogue="residual"),
}


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_shapes_that_have_code_of_their_own(case: Spec, cpu: str) -> None:
    agrees(case, cpu)


@pytest.mark.parametrize("cpu", cpus(*DOTS))
@pytest.mark.parametrize("weight", [-128, 127])
def test_sums_of_extreme_bytes_are_exact(cpu: str, weight: int) -> None:
    kernel = kernel_of(square(BYTES, 16, 16, 4, 3, bias=False, weight=weight), cpu)
    kernel.feeds[0][:] = 255
    (total,) = run(kernel, cpu)
    assert total[0, 0, 1, 1, 0] == 9 * 16 * 255 * weight


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*DOTS))
@pytest.mark.parametrize("kind", [FLOAT, STORED])
@settings(max_examples=60)
@given(data=st.data())
def test_many_floats(kind: str, cpu: str, data: st.DataObject) -> None:
    drawn(data, kind, cpu)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*DOTS))
@pytest.mark.parametrize("kind", [FLOAT, STORED, BYTES])
@settings(max_examples=60)
@given(data=st.data())
def test_many_volumes(kind: str, cpu: str, data: st.DataObject) -> None:
    drawn(data, kind, cpu, VOLUME)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*DOTS))
@settings(max_examples=60)
@given(data=st.data())
def test_many_bytes(cpu: str, data: st.DataObject) -> None:
    drawn(data, BYTES, cpu)
