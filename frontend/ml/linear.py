"""LinearRegressor and LinearClassifier: a matrix product, a transform, the best class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.graph import Value
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from .common import (
    best,
    class_labels,
    examples,
    numbers,
    opposite_first,
    pick_labels,
)
from .scores import transformed


def linear_regressor(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``x @ coefficients.T + intercepts``, transformed; the coefficients are [targets, F]."""
    targets = node.attrs.get("targets", 1)
    assert isinstance(targets, int)
    return [transformed(node, _scores(node, examples(node, emit), targets, emit), emit)]


def linear_classifier(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """The label of the highest score, and all scores, transformed.

    The scores of two classes with one row of coefficients are ``[-s, s]``, as onnx.reference has
    it.
    """
    labels = class_labels(node, "classlabels_ints")
    rows = len(node.attrs.get("intercepts") or labels)  # type: ignore[arg-type]
    if rows != len(labels) and (rows, len(labels)) != (1, 2):
        raise ImportFault(f"has {rows} intercepts for {len(labels)} classes")
    scores = _scores(node, examples(node, emit), rows, emit)
    if rows == 1:
        scores = opposite_first(scores, emit)
    which = pick_labels(labels, best(scores, emit), emit)
    return [which, transformed(node, scores, emit)]


def _scores(node: OnnxNode, x: Value, rows: int, emit: Emit) -> Value:
    """``x @ coefficients.T + intercepts``, [N, rows]."""
    weights, bias = numbers(node, "coefficients", x), numbers(node, "intercepts", x)
    if weights is None or rows < 1 or weights.size % rows:
        size = 0 if weights is None else weights.size
        raise ImportFault(f"{size} coefficients do not make {rows} rows")
    if bias is not None and bias.size != rows:
        raise ImportFault(f"has {bias.size} intercepts for {rows} targets")
    w = emit.constant(np.ascontiguousarray(weights.reshape(rows, -1).T), "coefficients")
    if bias is None:
        return emit("MatMul", x, w)
    return emit("Gemm", x, w, emit.constant(bias, "intercepts"))
