"""Classical models written back as ONNX: what onnx.reference and onnxruntime make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.ml_models import Array, examples, ml_model, random_trees, same, session
from onnx.reference import ReferenceEvaluator

from graphkiln.frontend import load_model
from graphkiln.frontend.export import to_onnx
from graphkiln.ir.interpreter import evaluate


def check(op: str, x: Array, attrs: dict[str, Any], outputs: int = 1,
          runtime: bool = True) -> Sequence[str]:  # fmt: skip
    """Import, export, compare; returns the ops of the exported model."""
    graph = load_model(ml_model(op, [x], attrs, outputs)).graph
    want = evaluate(graph, {"x0": x})
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    same(want, ReferenceEvaluator(model).run(None, {"x0": x}))
    if runtime:
        for imported in model.opset_import:  # what the installed runtime may not know yet
            imported.version = min(imported.version, 21)
        model.ir_version = 10
        same(want, session(model).run(None, {"x0": x}))
    same(evaluate(load_model(model).graph, {"x0": x}), want)
    return [n.op_type for n in model.graph.node]


@pytest.mark.parametrize("aggregate", ["SUM", "MIN"])
@pytest.mark.parametrize(("targets", "votes"), [(1, 1), (3, 3), (3, 2), (5, 1)])
@pytest.mark.parametrize("depth", [0, 3])
def test_trees(aggregate: str, targets: int, votes: int, depth: int) -> None:
    attrs = random_trees(7, 9, depth, 4, ids=range(targets), votes=votes)
    attrs |= {"n_targets": targets, "aggregate_function": aggregate}
    ops = check("TreeEnsembleRegressor", examples(15, 4), attrs)
    assert ops.count("TreeEnsemble") == 1


@pytest.mark.parametrize("kind", ["int64s", "floats"])
def test_lookup(kind: str) -> None:
    values = [1, 2, 3] if kind == "int64s" else [0.5, 1.5, 2.5]
    attrs = {"keys_int64s": [4, 2, 9], f"values_{kind}": values}
    assert check("LabelEncoder", np.array([[2, 9], [7, 4]]), attrs) == ["LabelEncoder"]


@pytest.mark.parametrize("classes", [2, 4])
def test_coupled_probabilities(classes: int) -> None:
    rng = np.random.default_rng(classes)
    pairs = classes * (classes - 1) // 2

    def floats(count: int) -> list[float]:
        return [float(v) for v in rng.standard_normal(count).astype(np.float32)]

    attrs = {
        "kernel_type": "RBF", "kernel_params": [0.3, 0.0, 0.0], "vectors_per_class": [2] * classes,
        "support_vectors": floats(classes * 6), "coefficients": floats((classes - 1) * 2 * classes),
        "rho": floats(pairs), "prob_a": floats(pairs), "prob_b": floats(pairs),
        "classlabels_ints": list(range(classes)),
    }  # fmt: skip
    x = rng.standard_normal((20, 3)).astype(np.float32)
    assert "Loop" in check("SVMClassifier", x, attrs, 2)
