"""Ensembles of decision trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frontend.build import refusal
from frontend.ml_models import (
    Array,
    examples,
    ml_model,
    ours,
    random_trees,
    reference,
    runtime,
    same,
)
from onnx import numpy_helper

F = 4
REGRESSOR, CLASSIFIER = "TreeEnsembleRegressor", "TreeEnsembleClassifier"
MODES = ["LEQ", "LT", "GTE", "GT", "EQ"]


def tensor(values: Any, dtype: str = "float32") -> Any:
    return numpy_helper.from_array(np.array(values, dtype))


# ---- regressors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*MODES, "NEQ"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_comparisons(mode: str, dtype: str) -> None:
    attrs = random_trees(3, 6, 3, F, modes=[mode]) | {"n_targets": 1}
    want = reference(REGRESSOR, [examples(20, F, dtype)], attrs)
    (got,) = ours(REGRESSOR, [examples(20, F, dtype)], attrs)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want[0], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tracks", [False, True])
def test_mixed_comparisons(dtype: str, tracks: bool) -> None:
    attrs = random_trees(5, 6, 4, F, modes=MODES) | {"n_targets": 1}
    if not tracks:
        del attrs["nodes_missing_value_tracks_true"]
    x = examples(20, F, dtype)
    same(ours(REGRESSOR, [x], attrs), runtime(REGRESSOR, [x], attrs))


def test_numbers_at_the_edge() -> None:
    """Neighbours of the threshold, infinities and both zeros."""
    one = np.float32(1)
    line = [-np.inf, -1, -0.0, 0.0, np.nextafter(one, -one), 1, np.nextafter(one, 2 * one), np.inf]
    x = np.array(line, np.float32)[:, None]
    for mode in (*MODES, "NEQ"):
        for threshold in (1.0, 0.0, float("-inf"), float("inf")):
            attrs = _stump(f"BRANCH_{mode}", threshold)
            same(ours(REGRESSOR, [x], attrs), reference(REGRESSOR, [x], attrs))


def _stump(mode: str, threshold: float) -> dict[str, Any]:
    return {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
        "nodes_values": [threshold, 0.0, 0.0], "nodes_modes": [mode, "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "nodes_missing_value_tracks_true": [0, 0, 0], "target_treeids": [0, 0],
        "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }  # fmt: skip


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize(("targets", "votes"), [(1, 1), (3, 3), (3, 2)])
def test_aggregates(aggregate: str, targets: int, votes: int) -> None:
    attrs = random_trees(7, 9, 3, F, ids=range(targets), votes=votes)
    attrs |= {"n_targets": targets, "aggregate_function": aggregate}
    x = examples(15, F)
    same(ours(REGRESSOR, [x], attrs), runtime(REGRESSOR, [x], attrs))
    attrs["base_values"] = [0.5, 0.25, -0.5][:targets]
    if aggregate in ("SUM", "AVERAGE") or votes == targets:
        same(ours(REGRESSOR, [x], attrs), reference(REGRESSOR, [x], attrs))


def test_few_votes_for_many_targets() -> None:
    attrs = random_trees(7, 5, 3, F, ids=range(9)) | {"n_targets": 9}
    x = examples(15, F)
    same(ours(REGRESSOR, [x], attrs), runtime(REGRESSOR, [x], attrs))


@pytest.mark.parametrize("post", ["LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_transforms(post: str) -> None:
    attrs = random_trees(7, 5, 3, F, ids=range(3), votes=2) | {"n_targets": 3}
    attrs["post_transform"] = post
    x = examples(15, F)
    same(ours(REGRESSOR, [x], attrs), runtime(REGRESSOR, [x], attrs))


def test_doubles_in_tensors() -> None:
    attrs = random_trees(2, 5, 3, F)
    want = runtime(REGRESSOR, [examples(9, F, "float64")], attrs | {"n_targets": 1})
    for name in ("nodes_values", "target_weights"):
        attrs[f"{name}_as_tensor"] = tensor(attrs.pop(name), "float64")
    attrs |= {"n_targets": 1, "base_values_as_tensor": tensor([0.0], "float64")}
    same(ours(REGRESSOR, [examples(9, F, "float64")], attrs), want)


def test_whole_numbers_and_single_rows() -> None:
    attrs = random_trees(2, 5, 3, F) | {"n_targets": 1}
    x = examples(9, F, "int64")
    want = runtime(REGRESSOR, [x.astype(np.float32)], attrs)
    same(ours(REGRESSOR, [x], attrs), want)
    same(ours(REGRESSOR, [x[4].astype(np.float32)], attrs), [want[0][4:5]])


def test_trees_of_one_leaf() -> None:
    attrs = random_trees(2, 3, 0, F) | {"n_targets": 1}
    x = examples(5, F)
    (got,) = ours(REGRESSOR, [x], attrs)
    np.testing.assert_allclose(got, np.full((5, 1), sum(attrs["target_weights"])), rtol=1e-6)


# ---- classifiers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("votes", [1, 3])
@pytest.mark.parametrize("base", [False, True])
def test_three_classes(post: str, votes: int, base: bool) -> None:
    attrs = random_trees(4, 9, 3, F, prefix="class", ids=range(3), votes=votes)
    attrs |= {"classlabels_int64s": [7, 3, 5], "post_transform": post}
    if base:
        attrs["base_values"] = [0.25, 0.5, -0.25]
    x = examples(15, F)
    same(ours(CLASSIFIER, [x], attrs, 2), reference(CLASSIFIER, [x], attrs, 2))
    if votes == 3:
        same(ours(CLASSIFIER, [x], attrs, 2), runtime(CLASSIFIER, [x], attrs, 2))


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("post", ["NONE", "LOGISTIC"])
def test_two_classes_with_one_score(positive: bool, post: str) -> None:
    attrs = random_trees(4, 9, 3, F, prefix="class", positive=positive)
    attrs |= {"classlabels_strings": ["no", "yes"], "post_transform": post}
    x = examples(15, F)
    same(ours(CLASSIFIER, [x], attrs, 2), runtime(CLASSIFIER, [x], attrs, 2))
    attrs["base_values"] = [-1.25]
    same(ours(CLASSIFIER, [x], attrs, 2)[1:], runtime(CLASSIFIER, [x], attrs, 2)[1:])


def test_two_classes_with_a_score_each() -> None:
    attrs = random_trees(4, 9, 3, F, prefix="class", ids=range(2), votes=2)
    attrs["classlabels_int64s"] = [7, 3]
    x = examples(15, F)
    same(ours(CLASSIFIER, [x], attrs, 2), reference(CLASSIFIER, [x], attrs, 2))


# ---- opset 5 -------------------------------------------------------------------------------------


def forest(dtype: str = "float32") -> dict[str, Any]:
    """Two trees, with a test for a set and a tree that is one leaf."""
    return {
        "n_targets": 2, "tree_roots": [0, 3], "nodes_featureids": [0, 1, 2, 0],
        "nodes_modes": tensor([0, 6, 6, 3], "uint8"), "leaf_targetids": [0, 1, 0, 1, 1],
        "nodes_splits": tensor([1.5, 0, 0, 0.5], dtype),
        "nodes_truenodeids": [1, 0, 1, 3], "nodes_trueleafs": [0, 1, 1, 1],
        "nodes_falsenodeids": [2, 2, 4, 3], "nodes_falseleafs": [0, 1, 1, 1],
        "leaf_weights": tensor([1.25, -2, 3, 10, 20], dtype),
        "membership_values": tensor([-1.0, 3.5, 1.0, 2.0, np.nan, -4.0, np.nan], dtype),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_tree_ensemble(dtype: str) -> None:
    x = np.array([[a, b, c] for a in (1.5, 2, np.nan) for b in (-1, 0, 1, 2, 3, 3.5, np.nan)
                  for c in (-4, 2)], dtype)  # fmt: skip
    attrs = forest(dtype)
    same(ours("TreeEnsemble", [x], attrs, version=5), reference("TreeEnsemble", [x], attrs, 1, 5))
    attrs["nodes_missing_value_tracks_true"] = [1, 1, 0, 0]
    same(ours("TreeEnsemble", [x], attrs, version=5), reference("TreeEnsemble", [x], attrs, 1, 5))


def test_choices_by_number() -> None:
    attrs = forest() | {"aggregate_function": 0, "post_transform": 2}
    x = np.array([[1, 1, 1], [2, 2, -4]], np.float32)
    (got,) = ours("TreeEnsemble", [x], attrs, version=5)
    (total,) = reference("TreeEnsemble", [x], forest(), 1, 5)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-total / 2)), rtol=1e-5)


# ---- what is refused -----------------------------------------------------------------------------


def changed(**more: Any) -> dict[str, Any]:
    found = _stump("BRANCH_LEQ", 0.0) | more
    return {k: v for k, v in found.items() if v is not None}


X = np.zeros((2, 1), np.float32)


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        (changed(nodes_modes=["BRANCH_LEQ", "LEAF"]), "2 nodes_modes for 3 nodes"),
        (changed(nodes_modes=["LEQ", "LEAF", "LEAF"]), "nodes_modes holds 'LEQ'"),
        (changed(nodes_values=[1.0]), "1 nodes_values"),
        (changed(nodes_truenodeids=[9, 0, 0]), "not there"),
        (changed(nodes_truenodeids=[0, 0, 0]), "circle"),
        (changed(nodes_nodeids=[0, 1, 1]), "there twice"),
        (changed(nodes_nodeids=[0, 2**62, 2]), "absurd"),
        (changed(nodes_featureids=[5, 0, 0]), "compare 6 features"),
        (changed(nodes_featureids=[-1, 0, 0]), "negative feature"),
        (changed(target_ids=[0, 4]), "target 4 of 1"),
        (changed(target_ids=[0, -1]), "negative target"),
        (changed(target_nodeids=[1, 7]), "not there"),
        (changed(n_targets=None), "targets"),
        (changed(aggregate_function="MEAN"), "'MEAN' is not one of"),
        (changed(base_values=[1.0, 2.0], n_targets=3), "2 base values for 3"),
    ],
)
def test_refused_regressors(attrs: dict[str, Any], reason: str) -> None:
    assert reason in refusal(ml_model(REGRESSOR, [X], attrs)).reason


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({"tree_roots": [7]}, "not there"),
        ({"tree_roots": [-1]}, "tree_roots"),
        ({"nodes_truenodeids": [0, 0, 1, 3]}, "circle"),
        ({"nodes_truenodeids": [-1, 0, 1, 3]}, "negative"),
        ({"nodes_falsenodeids": [2, 9, 4, 3]}, "not there"),
        ({"nodes_modes": tensor([0, 6, 7, 3], "uint8")}, "nodes_modes"),
        ({"leaf_weights": tensor([1.0])}, "1 leaf_weights"),
        ({"membership_values": tensor([np.nan])}, "1 sets for 2"),
        ({"aggregate_function": 4}, "aggregate_function 4"),
    ],
)
def test_refused_ensembles(attrs: dict[str, Any], reason: str) -> None:
    x: Array = np.zeros((2, 3), np.float32)
    error = refusal(ml_model("TreeEnsemble", [x], forest() | attrs, version=5))
    assert reason in error.reason


def test_one_label_is_no_choice() -> None:
    attrs = random_trees(4, 2, 2, 1, prefix="class") | {"classlabels_int64s": [1]}
    assert "1 class labels" in refusal(ml_model(CLASSIFIER, [X], attrs, 2)).reason
