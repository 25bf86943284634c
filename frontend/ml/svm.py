"""SVMRegressor and SVMClassifier: kernels of the examples and the support vectors, combined.

LINEAR  x.v                    POLY     (gamma x.v + coef0) ** degree
RBF     exp(-gamma |x - v|^2)  SIGMOID  tanh(gamma x.v + coef0)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.graph import Value
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from .common import (
    best,
    check_columns,
    class_labels,
    examples,
    integers,
    numbers,
    one_of,
    opposite_first,
    pick_labels,
    text,
)
from .scores import transformed

_CERTAIN = 1e-7


def svm_regressor(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``kernels @ coefficients + rho`` as [N, 1]; its sign for a one-class machine."""
    x = examples(node, emit)
    count = node.attrs.get("n_supports", 0)
    if not isinstance(count, int) or count < 0:
        raise ImportFault(f"has {count} support vectors")
    weights = _required(node, "coefficients", x)
    features = _kernels(node, x, count, emit) if count else x
    if count and weights.size != count:
        raise ImportFault(f"has {weights.size} coefficients for {count} support vectors")
    score = _combined(features, weights[:, None], _required(node, "rho", x)[:1], emit)
    if node.attrs.get("one_class"):
        inside = emit("Greater", score, emit.scalar(0, score))
        score = emit("Where", inside, emit.scalar(1, score), emit.scalar(-1, score))
    return [transformed(node, score, emit)]


def svm_classifier(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """Votes between each two classes; without support vectors, a linear score for each class."""
    labels = class_labels(node, "classlabels_ints")
    sizes = integers(node, "vectors_per_class")
    if not sizes.sum():
        return _linear(node, labels, emit)
    if sizes.size != labels.size or (sizes < 0).any():
        raise ImportFault(f"has support vectors of {sizes.size} classes for {labels.size} labels")
    x = examples(node, emit)
    kernels = _kernels(node, x, int(sizes.sum()), emit)
    scores = _duels(node, x, kernels, sizes, emit)
    which = best(_votes(scores, len(sizes), emit), emit)
    if node.attrs.get("prob_a"):
        result = _probabilities(node, scores, len(sizes), emit)
    else:
        result = opposite_first(scores, emit) if labels.size == 2 else scores
    return [pick_labels(labels, which, emit), transformed(node, result, emit)]


def _linear(node: OnnxNode, labels: np.ndarray, emit: Emit) -> Sequence[Value]:
    x = examples(node, emit)
    weights, rho = _required(node, "coefficients", x), _required(node, "rho", x)
    if weights.size % labels.size:
        raise ImportFault(f"{weights.size} coefficients do not make {labels.size} rows")
    table = weights.reshape(labels.size, -1).T
    scores = _combined(x, table, np.repeat(rho[:1], labels.size), emit)
    return [pick_labels(labels, best(scores, emit), emit), transformed(node, scores, emit)]


def _required(node: OnnxNode, name: str, like: Value) -> np.ndarray:
    found = numbers(node, name, like)
    if found is None:
        raise ImportFault(f"has no {name}")
    return found


def _combined(features: Value, weights: np.ndarray, bias: np.ndarray, emit: Emit) -> Value:
    w = emit.constant(np.ascontiguousarray(weights), "coefficients")
    return emit("Gemm", features, w, emit.constant(np.ascontiguousarray(bias), "rho"))


# ---- kernels -------------------------------------------------------------------------------------


def _kernels(node: OnnxNode, x: Value, count: int, emit: Emit) -> Value:
    """The kernel of each example with each of ``count`` support vectors, [N, count]."""
    kind = one_of("kernel_type", text(node, "kernel_type", "LINEAR"), tuple(_KERNELS))
    vectors = _required(node, "support_vectors", x)
    if vectors.size % count:
        raise ImportFault(f"{vectors.size} numbers do not make {count} support vectors")
    table = vectors.reshape(count, -1)
    check_columns(x, table.shape[1], "its support vectors have", emit)
    given = numbers(node, "kernel_params", x)
    if given is not None and given.size < 3:
        raise ImportFault(f"has {given.size} kernel_params, not 3")
    gamma, shift, degree = np.zeros(3) if given is None else given[:3]
    if kind == "RBF":
        return _rbf(x, table, float(gamma), emit)
    products = emit("MatMul", x, emit.constant(np.ascontiguousarray(table.T), "vectors"))
    if kind == "LINEAR":
        return products
    scaled = emit("Mul", products, emit.scalar(float(gamma), x))
    inner = emit("Add", scaled, emit.scalar(float(shift), x))
    if kind == "SIGMOID":
        return emit("Tanh", inner)
    return emit("Pow", inner, emit.scalar(float(degree), x))


_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def _rbf(x: Value, table: np.ndarray, gamma: float, emit: Emit) -> Value:
    # Differences are computed first, since the expanded square cancels for close vectors.
    apart = emit("Sub", emit("Unsqueeze", x, emit.ints([1])), emit.constant(table, "vectors"))
    distance = emit("ReduceSumSquare", apart, emit.ints([2]), keepdims=0)
    return emit("Exp", emit("Mul", distance, emit.scalar(-gamma, x)))


# ---- classes against each other ------------------------------------------------------------------


def _pairs(classes: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(classes) for j in range(i + 1, classes)]


def _duels(node: OnnxNode, x: Value, kernels: Value, sizes: np.ndarray, emit: Emit) -> Value:
    """The score of class i against j, for all pairs i < j; above 0 if i wins: [N, pairs]."""
    classes, count = len(sizes), int(sizes.sum())
    rho, coefficients = _required(node, "rho", x), _required(node, "coefficients", x)
    pairs = _pairs(classes)
    if coefficients.size != (classes - 1) * count or rho.size != len(pairs):
        raise ImportFault(
            f"{coefficients.size} coefficients and {rho.size} rho do not fit {count} support "
            f"vectors of {classes} classes"
        )
    rows = coefficients.reshape(classes - 1, count)
    of_class = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
    table = np.zeros((count, len(pairs)), rows.dtype)
    for column, (i, j) in enumerate(pairs):
        table[of_class[i], column] = rows[j - 1, of_class[i]]
        table[of_class[j], column] = rows[i, of_class[j]]
    return _combined(kernels, table, rho, emit)


def _votes(scores: Value, classes: int, emit: Emit) -> Value:
    """The number of pairs that each class wins, [N, classes]."""
    table = np.zeros((classes * (classes - 1) // 2, classes), scores.dtype)
    for row, (i, j) in enumerate(_pairs(classes)):
        table[row, i], table[row, j] = 1, -1
    lost = np.minimum(table, 0).sum(0)
    won = emit("Where", emit("Greater", scores, emit.scalar(0, scores)),
               emit.scalar(1, scores), emit.scalar(0, scores))  # fmt: skip
    return _combined(won, table, -lost, emit)


def _probabilities(node: OnnxNode, scores: Value, classes: int, emit: Emit) -> Value:
    a, b = _required(node, "prob_a", scores), _required(node, "prob_b", scores)
    pairs = classes * (classes - 1) // 2
    if a.size != pairs or b.size != pairs:
        raise ImportFault(f"prob_a and prob_b need an entry for each of {pairs} pairs of classes")
    line = emit("Add", emit("Mul", scores, emit.constant(a, "prob_a")), emit.constant(b, "prob_b"))
    win = emit("Sigmoid", emit("Neg", line))
    low, high = emit.scalar(_CERTAIN, scores), emit.scalar(1 - _CERTAIN, scores)
    return emit("kiln.CoupledProbabilities", emit("Clip", win, low, high), classes=classes)
