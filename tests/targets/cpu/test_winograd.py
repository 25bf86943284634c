"""Convolutions in Winograd's forms: every form, and every order of their loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.conv_kernels import (
    BYTE_EPILOGUES,
    BYTES,
    EPILOGUES,
    FLOAT,
    STORED,
    Spec,
    kernel_of,
)
from support.cpu_kernels import cpus, lowered, run

import graphkiln
from graphkiln.ir.windows import ConvShape
from graphkiln.targets import parse_target
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.winograd import Winograd
from graphkiln.targets.cpu.winograd_choice import winograd_form, winograd_forms
from graphkiln.targets.cpu.winograd_forms import (
    F2,
    F4,
    FORMS,
    WHOLE_F2,
    WHOLE_F4,
    WHOLE_FORMS,
    Form,
)
from graphkiln.targets.generic.registry import LoweringError
from graphkiln.targets.tir.extents import as_int


def in_every_form(test: Any) -> Any:
    """Run a test of (form, cpu) in every form on the CPUs that this machine stands in for."""
    for name, values in (("cpu", cpus("", "x86-64-v3")), ("form", FORMS)):
        test = pytest.mark.parametrize(name, values)(test)
    return test


def agrees(spec: Spec, cpu: str) -> None:
    kernel = kernel_of(spec, cpu)
    kernel.check(run(kernel, cpu))


def windows(channels: int, filters: int, *image: int) -> Spec:
    """Dense 3x3 windows on an image with a border."""
    return Spec(
        FLOAT, 1, channels, filters, image, (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), vectors=2
    )


@st.composite
def specs(draw: st.DrawFn, lanes: int) -> Spec:
    pad = st.integers(0, 2)
    pads = ((draw(pad), draw(pad)), (draw(pad), draw(pad)))
    image = tuple(draw(st.integers(3, 20)) for _ in range(2))
    spec = windows(draw(st.integers(lanes, 6 * lanes + 3)), draw(st.integers(1, 70)), *image)
    return replace(
        spec, pads=pads, kind=draw(st.sampled_from([FLOAT, FLOAT, STORED])),
        batch=draw(st.integers(1, 2)), vectors=draw(st.integers(1, 4)), bias=draw(st.booleans()),
        epilogue=draw(st.sampled_from(EPILOGUES)), seed=draw(st.integers(0, 99)),
        open_dims=draw(st.sampled_from(["", "", "N", "HW", "NHW"])),
    )  # fmt: skip


@in_every_form
@settings(max_examples=8)
@given(data=st.data())
def test_any_image(form: str, cpu: str, data: st.DataObject) -> None:
    spec = data.draw(specs(features_of(cpu).lanes))
    agrees(replace(spec, algorithm=form), cpu)


BYTE_CPUS = cpus("x86-64-v2", "x86-64-v3", "x86-64-v4")


@pytest.mark.parametrize("cpu", BYTE_CPUS)
@settings(max_examples=12)
@given(data=st.data())
def test_any_image_of_bytes(cpu: str, data: st.DataObject) -> None:
    spec = data.draw(specs(features_of(cpu).lanes))
    epilogue = data.draw(st.sampled_from(BYTE_EPILOGUES))
    form = data.draw(st.sampled_from(list(WHOLE_FORMS)))
    agrees(replace(spec, kind=BYTES, algorithm=form, epilogue=epilogue), cpu)


MOST = {"winograd_2x2": 1827, "winograd_4x4": 114}
"""Channels of any bytes whose sums the accumulators hold, 4 and 64 times as large."""


@pytest.mark.parametrize("cpu", BYTE_CPUS)
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("form", MOST)
def test_sums_of_extreme_bytes_are_exact(cpu: str, weight: int, form: str) -> None:
    lanes = features_of(cpu).lanes
    channels = MOST[form] // lanes * lanes
    spec = replace(windows(channels, 8, 4, 4), kind=BYTES, weight=weight, algorithm=form)
    kernel = kernel_of(replace(spec, bias=False), cpu)
    kernel.feeds[0][:] = 255
    (total,) = run(kernel, cpu)
    assert (total[0, :, 1:3, 1:3].reshape(-1)[0] == 9 * channels * 255 * weight).all()


@pytest.mark.parametrize(("weight", "form"), [(127, "winograd_2x2"), (100, "winograd_4x4")])
def test_the_weights_decide(weight: int, form: str) -> None:
    """Sums of 9 * 128 * 255 * 127 would not be short."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (uint8[1,128,18,18] x) => (int32[1,16,16,16] y)'
        " { y = ConvInteger(x, w) }"
    )
    w = np.full((16, 128, 3, 3), weight, np.int8)
    w[1::2] *= np.random.default_rng(0).choice(np.array([-1, 1], np.int8), w[1::2].shape)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    session = graphkiln.compile(model, "cpu:x86-64-v3", jobs=1).session()
    assert f'algorithm="{form}"' in session.ir_text
    (total,) = session.run(None, {"x": np.full((1, 128, 18, 18), 255, np.uint8)})
    wanted = 255 * w.reshape(16, -1).sum(axis=1, dtype=np.int64)
    np.testing.assert_array_equal(total, np.broadcast_to(wanted[:, None, None], (1, 16, 16, 16)))


@pytest.mark.parametrize("form", MOST)
def test_sums_that_could_be_too_long_take_other_forms(form: str) -> None:
    cpu, shape = features_of("x86-64-v3"), integer_shape(MOST[form], 8)
    longer = replace(shape, channels=MOST[form] + 1)
    assert form in winograd_forms(cpu, shape) and form not in winograd_forms(cpu, longer)
    assert "winograd_4x4" in winograd_forms(cpu, replace(longer, short_sums=True))


def test_points_at_their_extremes_fit_sixteen_bits() -> None:
    """By the sums of magnitudes in the rows of the transforms, over both dims."""
    unit = np.eye(6)[:, None]
    rows = [sum(np.abs(v)) for v in np.array(numbers(WHOLE_F4.input, list(unit))).reshape(6, 6)]
    assert 255 * max(rows) ** 2 < 2**15
    rows = [
        sum(np.abs(v))
        for v in np.array(numbers(WHOLE_F4.weight, list(np.eye(3)[:, None]))).reshape(6, 3)
    ]
    assert 128 * max(rows) ** 2 < 2**15


class _Numbers:
    """Arithmetic of NumPy arrays in the place of vectors."""

    def let(self, value: Any) -> Any:
        return value

    def all(self, *values: Any) -> list[Any]:
        return list(values)

    def number(self, value: float) -> float:
        return value


def numbers(transform: Any, values: list[Any]) -> list[Any]:
    return transform(_Numbers(), values)


def test_whole_transforms_multiply_a_convolution_by_their_scale() -> None:
    rng = np.random.default_rng(0)
    for form in WHOLE_FORMS.values():
        x, w = rng.integers(0, 256, form.inputs), rng.integers(-128, 128, 3)
        products = [a * b for a, b in zip(numbers(form.input, list(x)),
                                          numbers(form.weight, list(w)), strict=True)]  # fmt: skip
        found = numbers(form.output, products)
        assert form.scale == round(form.scale**0.5) ** 2
        wanted = round(form.scale**0.5) * np.correlate(x, w)
        np.testing.assert_array_equal(found, wanted)
        assert form.scale // form.growth * form.inverse % 2**32 == 1


def integer_shape(channels: int, filters: int) -> ConvShape:
    return ConvShape(channels, filters, 1, (3, 3), (1, 1), (1, 1), (14, 14), True)


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_bytes_take_fewer_products_where_dot_products_are_of_pairs(channels: int) -> None:
    """Sums of few channels are short, and those of more may be known to be; else smaller tiles."""
    cpu, shape = features_of("x86-64-v3"), integer_shape(channels, channels)
    assert winograd_form(cpu, replace(shape, short_sums=True)) is WHOLE_F4
    assert winograd_form(cpu, shape) is (WHOLE_F4 if channels <= MOST["winograd_4x4"] else WHOLE_F2)


def test_bytes_take_all_products_where_the_cpu_sums_four() -> None:
    assert winograd_form(features_of("znver4"), integer_shape(256, 256)) is None


CASES = {
    "one chunk of channels": windows(16, 33, 11, 9),
    "chunks of unlike sizes": windows(144, 20, 7, 7),
    "many weights": windows(200, 200, 9, 10),
    "many tiles and weights": windows(144, 300, 36, 50),
    "many tiles and few weights": windows(16, 16, 49, 50),
    "open, many weights": replace(windows(144, 300, 5, 30), open_dims="NHW"),
    "open, many tiles and weights": replace(windows(144, 300, 21, 40), open_dims="HW"),
    "open, few weights": replace(windows(20, 20, 9, 70), open_dims="HW", batch=2),
    "smaller than a tile": windows(32, 32, 1, 1),
}


@in_every_form
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
def test_every_order_of_loops(spec: Spec, form: str, cpu: str) -> None:
    agrees(replace(spec, algorithm=form, epilogue="residual"), cpu)


def test_the_cases_reach_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = set()

    def watch(name: str) -> None:
        emit = getattr(Winograd, name)

        def watched(self: Winograd) -> None:
            number = as_int(self.across if name == "_by_rows" else self.tiles)
            groups = "open" if number is None else "several" if number > 112 else "one"
            reached.add((name, groups))
            emit(self)

        monkeypatch.setattr(Winograd, name, watched)

    watch("_by_rows")
    watch("_by_filters")
    for spec in CASES.values():
        for form in FORMS:
            kernel = kernel_of(replace(spec, algorithm=form), "x86-64-v3")
            lowered(kernel, parse_target("cpu:x86-64-v3"), "kernel")
    filters = {("_by_filters", groups) for groups in ("open", "several", "one")}
    assert reached == filters | {("_by_rows", groups) for groups in ("open", "one")}


@in_every_form
def test_an_image_without_rows_is_all_border(form: str, cpu: str) -> None:
    wide = replace(windows(32, 32, 0, 5), pads=((2, 2), (2, 2)), algorithm=form, open_dims="HW")
    kernel = kernel_of(wide, cpu)
    n, blocks, _, width, block = kernel.feeds[0].shape
    kernel.feeds[0] = np.full((n, blocks, 1, width, block), np.nan, np.float32)[:, :, :0]
    kernel.check(run(kernel, cpu))


def test_algorithms_that_there_are_not_are_refused() -> None:
    kernel = kernel_of(replace(windows(32, 32, 9, 9), algorithm="fft"), "")
    with pytest.raises(LoweringError, match="no algorithm 'fft'"):
        run(kernel, "")


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus("", "x86-64-v2", "x86-64-v3"))
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60)
@given(data=st.data())
def test_many_images(form: str, cpu: str, data: st.DataObject) -> None:
    spec = data.draw(specs(features_of(cpu).lanes))
    agrees(replace(spec, algorithm=form), cpu)


@pytest.mark.parametrize(
    ("channels", "size", "form"),
    [(512, 4, None), (512, 7, F2), (512, 10, F2), (128, 28, F4), (64, None, F4), (8, 28, None)],
)
def test_the_form_that_pays(channels: int, size: int | None, form: Form | None) -> None:
    image = (size, size)
    shape = ConvShape(channels, channels, 1, (3, 3), (1, 1), (1, 1), image, False)
    assert winograd_form(features_of("znver4"), shape) is form
