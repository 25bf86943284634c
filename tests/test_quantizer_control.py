"""Accuracy control: budgets are met with as few layers in floats as it takes, or refused."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.breaking_model import accuracy, model, samples, schemes

import graphkiln
from graphkiln.driver import OptionError
from graphkiln.passes.quantize import worst_first
from graphkiln.quantizer.control import BudgetError, Candidate, Clock, within_budget
from graphkiln.quantizer.scores import ScoreError, agreement

# ---- the search ----------------------------------------------------------------------------------


@given(
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=40), least=st.floats(0, 1),
    data=st.data(),
)  # fmt: skip
def test_the_fewest_layers_are_left(scores: list[float], least: float, data: Any) -> None:
    """Where more layers in floats are never worse."""
    scores = sorted(scores)
    order = [f"layer{i}" for i in range(len(scores))]
    tried: list[int] = []

    def attempt(left: Collection[str]) -> Candidate[int]:
        assert list(left) == order[: len(left)]
        tried.append(len(left))
        return Candidate(len(left), tuple(left), scores[len(left)])

    first = Candidate(0, (), scores[0])
    wanted = next((n for n, score in enumerate(scores) if score >= least), None)
    if wanted is None:
        with pytest.raises(BudgetError, match=f"score of {least:.6g}"):
            within_budget(attempt, first, order, least)
    else:
        assert within_budget(attempt, first, order, least).model == wanted
    assert len(tried) <= np.ceil(np.log2(len(order)))


class Time:
    """A clock whose time passes by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "tried"),
    [(100, [8, 4, 2, 1]), (37, [8, 4]), (47, [8, 4, 2]), (29.9, [8]), (30, [8, 4]), (19, [])],
)
def test_no_attempt_begins_that_would_end_late(seconds: float, tried: list[int]) -> None:
    """Each attempt takes 10 seconds, also the first one, before the search."""
    time = Time()
    clock = Clock(seconds, time)
    found: list[int] = []

    def attempt(left: Collection[str]) -> Candidate[int]:
        def work() -> Candidate[int]:
            time.now += 10
            found.append(len(left))
            return Candidate(len(left), tuple(left), 0.9)

        return clock.timed(work)

    attempt(())
    found.clear()
    first = Candidate(0, (), 0.5)
    order = [f"layer{i}" for i in range(16)]
    if tried:
        assert within_budget(attempt, first, order, 0.8, clock).model == tried[-1]
    else:
        told = (
            "no model with a score of 0.8 or more was found in 19 s: the best found is 0.5, with 0"
        )
        with pytest.raises(BudgetError, match=told):
            within_budget(attempt, first, order, 0.8, clock)
    assert found == tried and time.now <= seconds
    assert clock.stopped == (tried != [8, 4, 2, 1])


def test_a_search_that_ran_out_of_time_goes_on(tmp_path: Path) -> None:
    runs: list[int] = []

    def counted(results: Any, sample: Any) -> float:
        runs.append(1)
        return accuracy(results, sample)

    data, journal = samples(), tmp_path / "j.json"
    told = "was found in 0 s: the best found is .*, with 0 of 3 layers left"
    options: dict[str, Any] = {"metric": counted, "max_drop": 0.05, "journal": journal, "jobs": 1}
    with pytest.raises(BudgetError, match=told):
        graphkiln.quantize(model(), data, time_budget=0, **options)
    assert len(runs) == 2 * len(data)  # the float model, and that with all layers
    found = graphkiln.quantize(model(), data, time_budget=1e6, **options)
    assert len(runs) == 3 * len(data) and found.warnings == []
    assert schemes(found) == {"node0": "float", "node2": "static int8", "node4": "static int8"}


def test_layers_that_lose_nothing_are_not_left() -> None:
    assert worst_first({"a": 30.0, "b": None, "c": 10.0}) == ["c", "a"]


# ---- scores --------------------------------------------------------------------------------------


def test_agreement() -> None:
    x = np.array([1.0, 2.0, -3.0], np.float32)
    assert agreement([x], [x]) == pytest.approx(1)
    assert agreement([-x], [x]) == pytest.approx(-1)
    assert agreement([x, np.array([1, 2])], [x, np.array([1, 3])]) == pytest.approx(0.75)
    assert agreement([x[:2]], [x]) == 0
    assert agreement([0 * x], [0 * x]) == 1 and agreement([0 * x], [x]) == 0
    assert agreement([["a"]], [["b"]]) == 1


# ---- a model built to break ----------------------------------------------------------------------


def test_the_guilty_layer_is_left() -> None:
    data = samples()
    all_of_it = graphkiln.quantize(model(), data, jobs=1)
    assert set(schemes(all_of_it).values()) == {"static int8"}
    found = graphkiln.quantize(model(), data, metric=accuracy, max_drop=0.05, jobs=1)
    assert schemes(found) == {"node0": "float", "node2": "static int8", "node4": "static int8"}
    (row,) = (r for r in found.layers if r["scheme"] == "float")
    assert row["reason"] == "left for accuracy"
    assert found.float_score == 1.0 and found.score is not None and found.score >= 0.95
    assert found.report["score"] == found.score
    assert {row["by"] for row in found.tensors} == {"sample data"}
    assert set(found.ranges) == {row["tensor"] for row in found.tensors}
    with found.session(threads=1) as session:
        scores = [accuracy({"y": session.run(None, {"x": s["x"]})[0]}, s) for s in data]
    assert np.mean(scores) == pytest.approx(found.score)


def test_a_wide_budget_quantizes_everything() -> None:
    found = graphkiln.quantize(model(), samples(), metric=accuracy, max_drop=1.0, jobs=1)
    assert set(schemes(found).values()) == {"static int8"}
    assert found.score is not None and found.score < 0.5


def test_agreement_is_the_metric_where_there_is_none() -> None:
    found = graphkiln.quantize(model(), samples(), max_drop=0.01, jobs=1)
    assert schemes(found)["node0"] == "float" and found.score is not None
    assert found.score >= 0.99


def test_a_budget_that_cannot_be_met_is_told() -> None:
    with pytest.raises(BudgetError, match="the best found is .*, with 2 of 3 layers left"):
        graphkiln.quantize(model(), samples(), max_drop=1e-12, jobs=1)


def test_layers_that_are_left_anyway_stay_left_within_a_budget() -> None:
    """The second worst must go as well, and the worst must not come back."""
    found = graphkiln.quantize(
        model(), samples(), exclude_worst=2, metric=accuracy, max_drop=0.05, jobs=1
    )
    left = [name for name, scheme in schemes(found).items() if scheme == "float"]
    assert len(left) == 2 and "node0" in left


def test_a_metric_that_fails_is_told() -> None:
    with pytest.raises(ScoreError, match="the metric fails for sample 0: KeyError: 'z'"):
        graphkiln.quantize(
            model(), samples(2), metric=lambda results, _: results["z"], max_drop=0.1, jobs=1
        )


def test_the_worst_layers_are_left() -> None:
    found = graphkiln.quantize(model(), samples(), exclude_worst=1, jobs=1)
    assert [name for name, scheme in schemes(found).items() if scheme == "float"] == ["node0"]


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"max_drop": -0.1}, OptionError, "max_drop is 0 or more"),
        ({"max_drop": float("nan")}, OptionError, "max_drop is 0 or more"),
        ({"time_budget": 3.0}, OptionError, "a time budget needs max_drop"),
        ({"max_drop": 0.1, "time_budget": -1.0}, OptionError, "time_budget is 0 or more"),
        ({"metric": accuracy}, OptionError, "a metric needs max_drop"),
        ({"exclude_worst": -1}, OptionError, "exclude_worst is 0 or more"),
        ({"max_drop": 0.1, "metric": lambda *_: "good"}, ScoreError, "gives 'good' for sample 0"),
        ({"max_drop": 0.1, "metric": lambda *_: np.nan}, ScoreError, "gives nan for sample 0"),
    ],
)
def test_what_makes_no_sense_is_told(
    options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        graphkiln.quantize(model(), samples(2), jobs=1, **options)


# ---- another scheme for layers that are left -----------------------------------------------------


def sizes(count: int = 12) -> list[dict[str, np.ndarray]]:
    """Samples of very different sizes, which one range for all does not fit."""
    rng = np.random.default_rng(1)
    scales = np.geomspace(1e-3, 1e3, count)
    return [{"x": (rng.standard_normal((1, 16)) * s).astype(np.float32)} for s in scales]


def scale_free() -> onnx.ModelProto:
    """Two layers without biases: results scale with the input."""
    rng = np.random.default_rng(0)
    found = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N, 16] x) => (float[N, 8] y)'
        " { a = MatMul(x, v) b = Relu(a) y = MatMul(b, w) }"
    )
    for name, shape in {"v": (16, 32), "w": (32, 8)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        found.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return found


def test_steps_are_computed_in_the_run_where_fixed_ones_fail() -> None:
    """Within the budget, and no layer has to be a float for it."""
    options: dict[str, Any] = {"max_drop": 0.01, "jobs": 1}
    with pytest.raises(BudgetError):
        graphkiln.quantize(scale_free(), sizes(), **options)
    found = graphkiln.quantize(scale_free(), sizes(), fallback="int8-dynamic", **options)
    told = {row["scheme"]: row["reason"] for row in found.layers}
    assert told == {"dynamic int8": "left for accuracy"} and len(found.layers) == 2
    assert found.score is not None and found.score >= 0.99


def test_floats_are_taken_where_the_other_scheme_does_not_do() -> None:
    found = graphkiln.quantize(
        model(), samples(), metric=accuracy, max_drop=0.05, jobs=1, fallback="int4-weights"
    )
    assert schemes(found)["node0"] in ("float", "int4 weights")
    assert found.score is not None and found.score >= 0.95


def test_the_worst_layers_get_the_other_scheme() -> None:
    found = graphkiln.quantize(model(), samples(), exclude_worst=1, fallback="int8-dynamic", jobs=1)
    assert sorted(schemes(found).values()) == ["dynamic int8", "static int8", "static int8"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fallback": "int3", "max_drop": 0.1}, "fallback is one of float, int8, .*, not 'int3'"),
        ({"fallback": "int8-dynamic"}, "fallback needs max_drop or exclude_worst"),
        ({"fallback": "int8", "max_drop": 0.1}, "fallback does nothing: it is the scheme int8"),
    ],
)
def test_fallbacks_that_make_no_sense_are_told(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        graphkiln.quantize(scale_free(), sizes(), jobs=1, **options)


def test_the_worst_layers_get_activations_of_16_bits() -> None:
    """Steps of 8 bits lose all that counts, those of 16 bits are about as large as that."""
    floats, errors = graphkiln.compile(model(), jobs=1).session(), []
    for options in ({}, {"exclude_worst": 1, "fallback": "int16"}):
        found = graphkiln.quantize(model(), samples(), jobs=1, target="cpu:aarch64", **options)
        is_mixed = bool(options)
        assert {row["bits"] for row in found.tensors} == ({8, 16} if is_mixed else {8})
        assert ("static int16" in schemes(found).values()) == is_mixed
        run = graphkiln.compile(found.to_onnx(), jobs=1).session().run
        inputs = [{"x": sample["x"]} for sample in samples()]
        off = [run(None, feeds)[0] - floats.run(None, feeds)[0] for feeds in inputs]
        errors.append(float(np.sqrt(np.mean(np.square(off)))))
    assert errors[1] < errors[0] / 5
