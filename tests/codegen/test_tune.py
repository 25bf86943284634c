"""Tuning: what is timed, in which order, and what becomes of candidates that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkiln
from graphkiln.codegen import tune as module
from graphkiln.codegen.timing import Arguments, Bench, time_kernels
from graphkiln.codegen.tune import Timing, Tuner, TuningError, TuningReport, by_share, fastest
from graphkiln.driver import OptionError
from graphkiln.ir.choices import DIRECT, Choice, KernelShape, ProductShape
from graphkiln.ir.graph import Graph
from graphkiln.ir.registry import attribute
from graphkiln.ir.text import print_graph
from graphkiln.ir.windows import ConvShape
from graphkiln.targets import parse_target
from graphkiln.targets.cpu.candidates import best_choices, kernel_graph, possible_choices
from graphkiln.targets.cpu.database import Database, Entry
from graphkiln.targets.cpu.features import host_features
from graphkiln.targets.cpu.winograd_forms import FORMS

MODELS = Path(__file__).parent.parent / "models"
PRODUCT = ProductShape(9, 192, 64)
OTHER = ProductShape(9, 192, 32)
CONV = ConvShape(32, 32, 1, (3, 3), (1, 1), (1, 1), (20, 20), False)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


Plan = Callable[..., None]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Let kernels take given times, by parts of their texts."""

    def use(*outcomes: tuple[str, float | str]) -> None:
        monkeypatch.setattr(module, "_MODULE", "fake_timer")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
        monkeypatch.setenv("TIMER_PLAN", json.dumps(outcomes))

    return use


def tiles(shape: KernelShape) -> list[int]:
    return [c.columns for c in best_choices(host_features(), shape, 3)]


def weights(shape: ProductShape, tile: int) -> str:
    """What tells a candidate's text from others."""
    return f"float32[{-(-shape.columns // tile)},{shape.inner},{tile}]"


def tuned(shapes: dict[KernelShape, int], seconds: float = 30) -> TuningReport:
    with Tuner(parse_target("cpu"), create=True) as tuner:
        return tuner.tune(shapes, seconds, lambda _done, _total: None)


def remembered(shape: KernelShape) -> Choice | None:
    with Tuner(parse_target("cpu"), create=False) as tuner:
        return tuner.find(shape)


@pytest.mark.parametrize("outcome", ["abort", "error", "hang"])
def test_a_candidate_that_fails_is_left_out(
    plan: Plan, outcome: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(module, "_CANDIDATE_SECONDS", 2)
    first, second, third = tiles(PRODUCT)
    plan((weights(PRODUCT, first), 3e-6), (weights(PRODUCT, second), outcome), ("", 1e-6))
    assert tuned({PRODUCT: 1}) == TuningReport(timed=1, changed=1, failed=1)
    assert remembered(PRODUCT) == Choice(third)
    with Database(cache / "tuned.sqlite") as database:
        (entry,) = database.entries(host_features().target).values()
    assert [t.seconds for t in entry.timings] == [3e-6, None, 1e-6]
    assert entry.tvm


def test_nothing_is_remembered_where_all_fail(plan: Plan) -> None:
    plan(("", "abort"))
    assert tuned({PRODUCT: 1}) == TuningReport(timed=1, failed=3)
    assert remembered(PRODUCT) is None


def test_the_models_choice_stays_unless_another_is_clearly_faster(plan: Plan) -> None:
    first, second, third = (Choice(t) for t in tiles(PRODUCT))
    assert fastest([Timing(first, 1.01), Timing(second, 1.0)]) == first
    assert fastest([Timing(first, 1.1), Timing(second, 1.0), Timing(third, 1.05)]) == second
    assert fastest([Timing(first, None), Timing(second, 1.0)]) == second
    assert fastest([Timing(first, None)]) is None


def test_what_is_known_is_not_timed_again(plan: Plan) -> None:
    plan(("", 1e-6))
    open_rows = ProductShape(None, 192, 64)
    first = {PRODUCT: 1, open_rows: 2}
    assert tuned(first) == TuningReport(timed=1, open=1)
    plan(("", "abort"))
    assert tuned(first) == TuningReport(known=1, open=1)


def test_the_largest_share_comes_first_and_what_is_left_is_told(plan: Plan) -> None:
    shapes: dict[KernelShape, int] = {OTHER: 1, PRODUCT: 1, CONV: 1}
    assert by_share(host_features(), shapes) == [CONV, PRODUCT, OTHER]
    assert by_share(host_features(), {**shapes, OTHER: 99})[0] == OTHER
    plan(("ConvBlocked", 1e-6), (f",{PRODUCT.inner},", "hang"), ("", 1e-6))
    # Long enough for a busy machine to start a process in.
    assert tuned(shapes, seconds=6) == TuningReport(timed=1, late=2)
    assert remembered(CONV) is not None
    assert remembered(PRODUCT) is None


def test_real_kernels_are_timed() -> None:
    report = tuned({CONV: 1, PRODUCT: 1})
    assert (report.timed, report.failed, report.late) == (2, 0, 0)
    found = remembered(CONV)
    assert found is not None and found.algorithm in (DIRECT, *FORMS)


def test_a_bench_tells_what_does_not_build() -> None:
    bench = Bench()
    text = print_graph(kernel_graph(host_features(), PRODUCT, Choice(tiles(PRODUCT)[0])))
    assert bench.answer({"text": text, "target": "cpu"}) == {}
    assert "error" in bench.answer({"text": "graph", "target": "cpu"})
    (seconds,) = bench.answer({"seconds": 0.01})["seconds"]
    assert 0 < seconds < 1
    assert bench.answer({"seconds": 0.01}) == {"seconds": []}


def test_the_least_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the kernel moves."""
    now, calls = 0.0, 0

    def noisy() -> None:
        nonlocal now, calls
        now += 5e-4 if 60 <= calls % 100 else 2e-3
        calls += 1

    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(time, clock, lambda: now)
    (seconds,) = time_kernels([noisy], 1)
    assert seconds == pytest.approx(5e-4)


def test_arguments_are_aligned_and_weights_take_turns() -> None:
    arguments = Arguments()
    cpu = host_features()
    for tile in tiles(PRODUCT):
        region = kernel_graph(cpu, PRODUCT, Choice(tile))
        runs = arguments.of(region)
        for arrays in runs:
            assert [a.shape for a in arrays] == [tuple(v.shape) for v in (
                *region.inputs, *region.outputs)]  # fmt: skip
            assert all(a.ctypes.data % 64 == 0 for a in arrays)
        x, weights, *_ = zip(*runs, strict=True)
        assert len({a.ctypes.data for a in x}) == 1
        places = sorted(a.ctypes.data for a in weights)
        gaps = [b - a for a, b in zip(places, places[1:], strict=False)]
        assert len(runs) > 1 and min(gaps) >= weights[0].nbytes


# ---- compilations ----------------------------------------------------------------------------


def conv_model() -> onnx.ModelProto:
    """One convolution, of the shape :data:`CONV`."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(32, 32, 3, 3)).astype(np.float32), "w")
    image = [1, 32, 20, 20]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, image)], [weight],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def algorithm(graph: Graph) -> object:
    """The algorithm that the one blocked convolution names."""
    regions = [body for node in graph.nodes for _, body in graph.bodies(node)]
    (conv,) = (n for g in (graph, *regions) for n in g.nodes if n.op == "ConvBlocked")
    return attribute(conv, "algorithm")


def test_the_choice_is_in_the_ir_and_is_what_runs() -> None:
    model, x = conv_model(), np.random.default_rng(1).normal(size=(1, 32, 20, 20))
    results = []
    for choices in possible_choices(host_features(), CONV):
        with Tuner(parse_target("cpu"), create=True) as tuner:
            tuner.database.store(CONV, tuner.cpu.target, Entry(choices[0]))
        artifact = graphkiln.compile(model, tuned=True)
        assert algorithm(artifact.graph) == choices[0].algorithm
        again = graphkiln.compile(model, tuned=True).contents
        assert artifact.contents.library == again.library
        assert artifact.contents.ir_text == again.ir_text
        results.append(artifact.session().run(None, {"x": x.astype(np.float32)})[0])
    assert len(results) == 3
    for first, second in combinations(results, 2):
        assert not np.array_equal(first, second)
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


def test_the_users_database_counts_only_when_asked(cache: Path) -> None:
    plain = algorithm(graphkiln.optimize(conv_model()))
    choices = {c[0].algorithm: c[0] for c in possible_choices(host_features(), CONV)}
    other = next(choice for name, choice in choices.items() if name != plain)
    with Tuner(parse_target("cpu"), create=True) as tuner:
        tuner.database.store(CONV, tuner.cpu.target, Entry(other))
    assert algorithm(graphkiln.optimize(conv_model())) == plain
    assert algorithm(graphkiln.optimize(conv_model(), tuned=True)) == other.algorithm


def test_options_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    model = MODELS / "mnist_cntk.onnx"
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="seconds"):
            graphkiln.optimize(model, tune=seconds)
    with pytest.raises(TuningError, match="no database"):
        graphkiln.optimize(model, tuned=True)
    with pytest.raises(TuningError, match="no kernels to tune"):
        graphkiln.optimize(model, target="cuda:sm_90", tune=1)
    with pytest.raises(TuningError, match="cannot be timed"):
        graphkiln.optimize(model, target="cpu:aarch64", tune=1)
    monkeypatch.setenv("GRAPHKILN_CACHE", "")
    with pytest.raises(TuningError, match="GRAPHKILN_CACHE"):
        graphkiln.optimize(model, tune=1)
