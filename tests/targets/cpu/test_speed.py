"""How long kernels take, about: what passes, warnings and tuning compare."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.toy_layouts import cpu_context

from graphkiln.ir.choices import KernelShape, ProductShape
from graphkiln.ir.costs import USUAL
from graphkiln.ir.graph import Graph
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.text import print_graph
from graphkiln.ir.windows import ConvShape
from graphkiln.targets import parse_target
from graphkiln.targets.cpu.candidates import kernel_graph
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.layouts import CpuLayouts
from graphkiln.targets.cpu.speed import BANDWIDTH, template_seconds

WINDOW = ConvShape(64, 64, 1, (3, 3), (1, 1), (1, 1), (56, 56), False)
SHAPES: dict[str, KernelShape] = {
    "product": ProductShape(128, 768, 768),
    "bytes": ProductShape(128, 768, 768, "uint8", "int8"),
    "window": WINDOW,
    "strided": replace(WINDOW, strides=(2, 2), image=(28, 28)),
    "pointwise": replace(WINDOW, kernel=(1, 1)),
    "groups": replace(WINDOW, group=4, channels=32, filters=32),
    "volume": ConvShape(32, 32, 1, (3,) * 3, (1,) * 3, (1,) * 3, (8, 20, 20), False),
    "bytes window": replace(WINDOW, integer=True),
}
TARGETS = ("x86-64-v3", "cascadelake", "aarch64-dotprod")


def region(cpu: str, shape: KernelShape) -> Graph:
    """The kernel's region, as the layout pass makes it."""
    layouts = CpuLayouts(features_of(cpu))
    return kernel_graph(layouts.cpu, shape, layouts.choose(shape))


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_region_takes_what_its_shape_takes(shape: KernelShape, cpu: str) -> None:
    hardware = parse_target(f"cpu:{cpu}").hardware
    assert hardware.seconds(region(cpu, shape)) == pytest.approx(
        template_seconds(features_of(cpu), shape), rel=1e-9
    )


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_kernel_beats_the_peak(shape: KernelShape, cpu: str) -> None:
    features = features_of(cpu)
    if isinstance(shape, ProductShape):
        macs, integer = (shape.rows or 1) * shape.columns * shape.inner, shape.operand == "uint8"
    else:
        macs, integer = shape.channels * shape.filters * shape.group, shape.integer
        for extent in (*shape.kernel, *shape.image):
            macs *= extent or 1
    # Winograd does a quarter of the products; those of bytes have 16 bits, half as many at a time.
    winograd = 1.0 if isinstance(shape, ProductShape) else 2.0 if integer else 4.0
    peak = 2 * features.lanes * 2.5e9 * (4 if integer else 1) * winograd
    most = 16 if integer and winograd > 1 else 8
    assert macs / peak <= template_seconds(features, shape) <= most * macs / peak


def test_more_work_takes_longer() -> None:
    cpu = features_of("x86-64-v3")
    for shape in SHAPES.values():
        if isinstance(shape, ProductShape):
            larger: KernelShape = replace(shape, rows=2 * (shape.rows or 1))
        else:
            larger = replace(shape, image=(2 * (shape.image[0] or 1), *shape.image[1:]))
        ratio = template_seconds(cpu, larger) / template_seconds(cpu, shape)
        assert 1.7 < ratio < 2.3, shape


def test_winograd_and_bytes_are_worth_their_while() -> None:
    cpu = features_of("cascadelake")
    five = replace(WINDOW, kernel=(5, 5))
    of_a_tap = template_seconds(cpu, five) / 25
    assert template_seconds(cpu, WINDOW) < 0.6 * 9 * of_a_tap
    assert template_seconds(cpu, SHAPES["bytes"]) < template_seconds(cpu, SHAPES["product"]) / 3


def test_open_sizes_count_as_usual_ones() -> None:
    cpu = features_of("x86-64-v3")
    rows = ProductShape(USUAL, 64, 64)
    assert template_seconds(cpu, replace(rows, rows=None)) == template_seconds(cpu, rows)
    known, image = (replace(WINDOW, image=(height, 7)) for height in (USUAL, None))
    assert template_seconds(cpu, image) == template_seconds(cpu, known)


@pytest.mark.parametrize(
    ("op", "numel", "dtype", "size"),
    [("Relu", 1 << 20, "float32", 4), ("Neg", 1 << 20, "float64", 8)],
)
def test_what_only_moves_takes_as_long_as_its_bytes(
    op: str, numel: int, dtype: str, size: int
) -> None:
    text = f"graph k(%x: {dtype}[{numel}]) -> (y) {{\n%y = {op}(%x)\nreturn %y\n}}"
    graph = parse_graph(text.replace("(%x)\n", f"(%x) : {dtype}[{numel}]\n"))
    for hardware in (cpu_context("x86-64-v3").hardware, parse_target("cpu").hardware):
        assert hardware.seconds(graph) == pytest.approx(2 * numel * size / BANDWIDTH)


def test_products_without_a_template_take_several_times_as_long() -> None:
    text = """graph k(%a: float32[128,768], %b: float32[768,768]) -> (y) {
      %y = MatMul(%a, %b) : float32[128,768]
      return %y
    }"""
    plain = parse_target("cpu:x86-64-v3").hardware.seconds(parse_graph(text))
    packed = template_seconds(features_of("x86-64-v3"), SHAPES["product"])
    wide = parse_graph(text.replace("float32", "float64"))
    assert 3 * packed < plain < parse_target("cpu:x86-64-v3").hardware.seconds(wide)


def test_images_of_a_batch_count_each() -> None:
    one = region("x86-64-v3", WINDOW)
    two = parse_graph(print_graph(one).replace("float32[1,", "float32[2,"))
    seconds = parse_target("cpu:x86-64-v3").hardware.seconds
    assert seconds(two) == pytest.approx(2 * seconds(one))
