"""The ways to compute a kernel: all give the same numbers, and what is remembered must be one."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import Kernel, run

from graphkiln.ir.choices import DIRECT, Choice, KernelShape, ProductShape
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.windows import ConvShape
from graphkiln.targets.cpu.candidates import best_choices, kernel_graph, possible_choices
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.layouts import ChoiceError, CpuLayouts


def conv(
    channels: int, filters: int, image: int | None, kernel: int = 3, stride: int = 1,
    group: int = 1, integer: bool = False,
) -> ConvShape:  # fmt: skip
    two = (stride, stride), (1, 1), (image, image)
    return ConvShape(channels, filters, group, (kernel, kernel), *two, integer)


SHAPES: dict[str, KernelShape] = {
    "3x3": conv(32, 48, 14),
    "few channels": conv(3, 48, 9, kernel=5, stride=2),
    "groups": conv(32, 32, 7, group=2),
    "row": ConvShape(20, 32, 1, (4,), (1,), (2,), (23,), False),
    "bytes": conv(32, 48, 9, integer=True),
    "volume": ConvShape(20, 32, 1, (3, 3, 1), (1, 2, 1), (1, 1, 1), (4, 5, 9), False),
    "product": ProductShape(13, 100, 40),
    "bytes by bytes": ProductShape(13, 100, 44, "uint8", "int8"),
    "stored bytes": ProductShape(5, 64, 40, "float32", "int8"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_candidates_compute_the_same(name: str) -> None:
    cpu, shape = features_of(""), SHAPES[name]
    choices = best_choices(cpu, shape, 2)
    assert len(choices) > 1
    rng = np.random.default_rng(1)
    for choice in choices:
        graph = kernel_graph(cpu, shape, choice)
        feeds = [_random(rng, str(v.dtype), v.shape) for v in graph.inputs]
        want = evaluate(graph, dict(zip((v.name for v in graph.inputs), feeds, strict=True)))
        kernel = Kernel(graph, feeds, want=[np.asarray(w) for w in want], rtol=1e-3, atol=1e-2)
        kernel.check(run(kernel, ""))


def _random(rng: np.random.Generator, kind: str, shape: tuple[object, ...]) -> np.ndarray:
    dims = [int(str(d)) for d in shape]
    if kind == "float32":
        return rng.normal(size=dims).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min >> 1, limits.max >> 1, dims).astype(kind)


@pytest.mark.parametrize("cpu", ["znver4", "x86-64-v3", "aarch64"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_models_own_choice_comes_first(name: str, cpu: str) -> None:
    layouts, shape = CpuLayouts(features_of(cpu)), SHAPES[name]
    first = best_choices(layouts.cpu, shape, 3)[0]
    if name != "groups":  # a group's tiles are whole
        assert first.columns == layouts.choose(shape).columns
    assert all(c.columns % layouts.block == 0 for c in best_choices(layouts.cpu, shape, 3))


@pytest.mark.parametrize(
    ("size", "first"), [(3, "direct"), (7, "winograd_2x2"), (56, "winograd_4x4")]
)
def test_all_algorithms_where_they_are(size: int, first: str) -> None:
    found = [c[0].algorithm for c in possible_choices(features_of("znver4"), conv(512, 512, size))]
    assert found[0] == first
    assert sorted(found) == ["direct", "winograd_2x2", "winograd_4x4"]


def test_one_algorithm_where_there_are_no_others() -> None:
    five = conv(64, 64, 56, kernel=5)
    assert {c.algorithm for c in best_choices(features_of("znver4"), five, 9)} == {DIRECT}


@pytest.mark.parametrize("shape", [conv(32, 32, None), ProductShape(None, 64, 64)])
def test_open_extents_have_none(shape: KernelShape) -> None:
    assert best_choices(features_of("znver4"), shape, 3) == []


@pytest.mark.parametrize(
    "choice", [Choice(7), Choice(1024), Choice(32, "fft"), Choice(32, "winograd_4x4")]
)
def test_what_is_remembered_must_be_possible(choice: Choice) -> None:
    layouts = CpuLayouts(features_of("znver4"), lambda _shape: choice)
    with pytest.raises(ChoiceError, match="conv 32x48"):
        layouts.choose(conv(32, 48, 9, kernel=5))
