"""Linear models and support vector machines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frontend.build import refusal
from frontend.ml_models import ml_model, ours, reference, runtime, same

POSTS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]
X = np.array([[0.1, -0.3, 0.4], [-0.4, 0.2, 0.2], [0, 0, 0], [0.03, 0.02, 0.7]], np.float32)


def coefficients(*shape: int, seed: int = 0) -> list[float]:
    found = np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)
    return [float(v) for v in found.reshape(-1)]


@pytest.mark.parametrize("post", POSTS)
def test_linear_regressor(post: str) -> None:
    attrs = {"coefficients": coefficients(2, 3), "intercepts": [0.5, 0.4], "targets": 2}
    attrs["post_transform"] = post
    for x in (X, X[0]):
        want = runtime("LinearRegressor", [x], attrs, version=1)
        same(ours("LinearRegressor", [x], attrs, version=1), want)


def test_linear_regressor_of_other_types() -> None:
    attrs = {"coefficients": coefficients(1, 3), "intercepts": [0.5]}
    want = runtime("LinearRegressor", [X], attrs, version=1)
    same(ours("LinearRegressor", [X.astype(np.float64)], attrs, version=1), want)
    whole = np.array([[1, 2, 3]])
    want = runtime("LinearRegressor", [whole.astype(np.float32)], attrs, version=1)
    same(ours("LinearRegressor", [whole], attrs, version=1), want)
    attrs["post_transform"] = "LOGISTIC"
    (logits,), (got,) = (want, ours("LinearRegressor", [whole], attrs, version=1))
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logits)), rtol=1e-5)


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strings", [False, True])
def test_linear_classifier(post: str, classes: int, strings: bool) -> None:
    attrs: dict[str, Any] = {"coefficients": coefficients(classes, 3, seed=4)}
    attrs["intercepts"] = [0.5, 0.4, 0.45][:classes]
    attrs["post_transform"] = post
    if strings:
        attrs["classlabels_strings"] = ["a", "b", "c"][:classes]
    else:
        attrs["classlabels_ints"] = [7, 3, 5][:classes]
    want = runtime("LinearClassifier", [X], attrs, 2, version=1)
    same(ours("LinearClassifier", [X], attrs, 2, version=1), want)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_two_classes_with_one_row(post: str) -> None:
    attrs = {
        "coefficients": coefficients(1, 3), "intercepts": [0.02], "classlabels_ints": [0, 1],
        "post_transform": post,
    }  # fmt: skip
    want = reference("LinearClassifier", [X], attrs, 2, version=1)
    same(ours("LinearClassifier", [X], attrs, 2, version=1), want)


# ---- support vectors -----------------------------------------------------------------------------


def regressor(kernel: str, **more: Any) -> dict[str, Any]:
    return {
        "kernel_type": kernel, "kernel_params": [0.5, 0.3, 3.0], "n_supports": 5, "rho": [0.25],
        "support_vectors": coefficients(5, 3, seed=1), "coefficients": coefficients(5), **more,
    }  # fmt: skip


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_svm_regressor(kernel: str) -> None:
    for attrs in (regressor(kernel), regressor(kernel, one_class=1, rho=[-0.1])):
        want = runtime("SVMRegressor", [X], attrs, version=1)
        same(ours("SVMRegressor", [X], attrs, version=1), want)


def test_svm_regressor_without_vectors() -> None:
    attrs = {"coefficients": coefficients(3), "rho": [0.5], "kernel_type": "LINEAR"}
    want = reference("SVMRegressor", [X], {**attrs, "n_supports": 0}, version=1)
    same(ours("SVMRegressor", [X], attrs, version=1), want)


def classifier(classes: int, probabilities: bool, post: str, seed: int = 0) -> dict[str, Any]:
    """Scores are large, so that none is near a tie."""
    rng = np.random.default_rng(seed)
    sizes = [3, 2, 4, 1][:classes]
    count, pairs = sum(sizes), classes * (classes - 1) // 2

    def floats(n: int) -> list[float]:
        return [float(v) for v in rng.standard_normal(n).astype(np.float32)]

    attrs = {
        "kernel_type": "RBF", "kernel_params": [0.5, 0.0, 0.0], "vectors_per_class": sizes,
        "support_vectors": floats(count * 3), "coefficients": floats((classes - 1) * count),
        "rho": floats(pairs), "post_transform": post,
    }  # fmt: skip
    if probabilities:
        attrs |= {"prob_a": [-abs(v) for v in floats(pairs)], "prob_b": floats(pairs)}
    return attrs


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("probabilities", [False, True])
def test_svm_classifier(classes: int, probabilities: bool, post: str) -> None:
    attrs = classifier(classes, probabilities, post)
    attrs["classlabels_ints"] = [5, 3, 7, 8][:classes]
    want = runtime("SVMClassifier", [X], attrs, 2, version=1)
    same(ours("SVMClassifier", [X], attrs, 2, version=1), want)


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_svm_classifier_of_two(probabilities: bool, post: str) -> None:
    attrs = classifier(2, probabilities, post, seed=3)
    attrs["classlabels_strings"] = ["no", "yes"]
    want = runtime("SVMClassifier", [X], attrs, 2, version=1)
    same(ours("SVMClassifier", [X], attrs, 2, version=1), want)


def test_linear_svm_classifier() -> None:
    attrs = {"coefficients": coefficients(3, 3), "rho": [0.1], "classlabels_ints": [4, 5, 6]}
    want = reference("SVMClassifier", [X], {**attrs, "rho": [0.1] * 3}, 2, version=1)
    same(ours("SVMClassifier", [X], attrs, 2, version=1), want)


# ---- what is refused -----------------------------------------------------------------------------

LABELS = {"classlabels_ints": [1, 2, 3]}


@pytest.mark.parametrize(
    ("op", "attrs", "reason"),
    [
        ("LinearRegressor", {"coefficients": [1.0] * 5, "targets": 2}, "5 coefficients"),
        ("LinearClassifier", {"coefficients": [1.0], "classlabels_ints": [1]}, "1 class labels"),
        ("LinearClassifier", {"coefficients": [1.0] * 6, "intercepts": [1.0] * 2, **LABELS},
         "2 intercepts for 3"),
        ("LinearRegressor", {"coefficients": [1.0] * 3, "post_transform": "SOFTMIN"}, "SOFTMIN"),
        ("SVMRegressor", {"coefficients": [1.0] * 3}, "no rho"),
        ("SVMRegressor", {**regressor("RBF"), "n_supports": 4}, "support vectors"),
        ("SVMRegressor", regressor("RBF", n_supports=-1), "-1 support vectors"),
        ("SVMRegressor", regressor("RBF", kernel_params=[1.0]), "1 kernel_params"),
        ("SVMRegressor", regressor("COSINE"), "'COSINE' is not one of"),
        ("SVMClassifier", {**classifier(3, False, "NONE"), **LABELS, "rho": [1.0]}, "do not fit"),
        ("SVMClassifier", {**classifier(2, False, "NONE"), **LABELS}, "2 classes for 3 labels"),
    ],
)  # fmt: skip
def test_refusals(op: str, attrs: dict[str, Any], reason: str) -> None:
    outputs = 2 if "Classifier" in op else 1
    error = refusal(ml_model(op, [X], attrs, outputs, version=1))
    assert reason in error.reason
