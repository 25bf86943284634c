"""``graphkiln.prune`` and ``graphkiln prune``: from a file to a smaller one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator
from support.prune_zoo import C3
from support.pruning import Net

import graphkiln
from graphkiln.cli import group
from graphkiln.driver import OptionError
from graphkiln.frontend.export import to_onnx

NET = Net(
    f"""%c = Conv(%x, %w1, %b1) {C3}
    %r = Relu(%c)
    %d = Conv(%r, %w2) {C3}
    %s = Add(%r, %d)
    %p = GlobalAveragePool(%s)
    %f = Flatten(%p)
    %h = Gemm(%f, %w3)
    %q = Relu(%h)
    %y = Gemm(%q, %w4)
    %y""",
    {"w1": (32, 3, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "w3": (32, 40), "w4": (40, 5)},
    {"c": 32, "h": 40},
    x="%x: float32[1,3,8,8]",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prune") / "net.onnx"
    to_onnx(NET.graph(), path)
    return path


def dropped(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {row["group"]: row["dropped"] for row in rows if not row["reason"]}


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    return [{"x": random.standard_normal((1, 3, 8, 8), np.float32)} for _ in range(count)]


def test_the_result_runs_in_both_forms(model: Path) -> None:
    found = graphkiln.prune(model, ratio=0.25, multiple=8)
    assert dropped(found.groups) == {"c": 8, "h": 8}
    assert found.after.weights < 0.65 * found.before.weights
    assert found.after.operations < 0.65 * found.before.operations
    (sample,) = samples(1)
    with found.session() as session:
        ours = session.run(None, sample)
    theirs = ReferenceEvaluator(found.to_onnx()).run(None, sample)
    np.testing.assert_allclose(ours[0], theirs[0], 1e-4, 1e-5)


def test_operations_within_a_goal(model: Path) -> None:
    found = graphkiln.prune(model, target_flops=0.5, multiple=1)
    share = found.after.operations / found.before.operations
    assert 0.4 < share <= 0.5
    with pytest.raises(OptionError, match="of the operations are left whatever is pruned"):
        graphkiln.prune(model, target_flops=0.5, layers={"*": 0.0})


def test_accuracy_within_a_goal(model: Path) -> None:
    def close(results: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
        return float(len(results) == 1)

    best = graphkiln.prune(model, samples(), max_drop=0.5, metric=close)
    assert best.ratio > 0.9 and best.score == best.original_score == 1
    found = graphkiln.prune(model, samples(), max_drop=0.01)
    assert found.score is not None and found.score > 0.98 and found.ratio < 0.9


def test_weights_make_up_for_what_goes(model: Path) -> None:
    """Agreement with the original on samples that were not seen."""
    original = ReferenceEvaluator(onnx.load(model))

    def error(pruned: graphkiln.Pruned) -> float:
        theirs = ReferenceEvaluator(pruned.to_onnx())
        pairs = ((theirs.run(None, s)[0], original.run(None, s)[0]) for s in samples(8)[4:])
        return sum(float(np.square(a - b).sum()) for a, b in pairs)

    plain = graphkiln.prune(model, ratio=0.25)
    better = graphkiln.prune(model, samples(4), ratio=0.25, reconstruct=True)
    assert better.after == plain.after and error(better) < error(plain)


def test_nothing_is_dropped_where_nothing_may_be_lost(model: Path) -> None:
    found = graphkiln.prune(model, ratio=0.0)
    assert found.after == found.before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": 1.0}, "ratio is 0 or more, and less than 1, not 1.0"),
        ({"ratio": 0.5, "target_flops": 0.5}, "give one of ratio and target_flops, not both"),
        ({"criterion": "activation"}, "needs samples: give data"),
        ({"data": "x.npz"}, "uses no samples: leave the data out"),
        ({"metric": len}, "a metric needs max_drop"),
    ],
)
def test_options_that_make_no_sense(model: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        graphkiln.prune(model, **options)


def test_the_command(model: Path, tmp_path: Path) -> None:
    data, small, report = tmp_path / "d.npz", tmp_path / "small.onnx", tmp_path / "r.json"
    np.savez(data, x=np.concatenate([s["x"] for s in samples()]))
    done = CliRunner().invoke(
        group,
        ["prune", str(model), "-o", str(small), "--criterion", "activation", "--data", str(data),
         "--layer", "h=0", "--ratio", "0.5", "--report", str(report)],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "it is a result of the model" in done.output and "operations" in done.output
    told = json.loads(report.read_text("utf-8"))
    assert dropped(told["groups"]) == {"c": 16, "h": 0}
    onnx.checker.check_model(onnx.load(small), full_check=True)
    wrong = CliRunner().invoke(group, ["prune", str(model), "--layer", "h"])
    assert wrong.exit_code == 2 and "is not PATTERN=RATIO" in wrong.output
