"""A pipeline of classical models with strings at both ends, compiled, against onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import model, node, refusal, value
from frontend.ml_models import DOMAIN, random_trees, same, session

import graphkiln

WIDTH = 5
"""Three numbers and two categories."""


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def ml(op: str, inputs: str, outputs: str, **attrs: Any) -> onnx.NodeProto:
    return node(op, inputs, outputs, domain=DOMAIN, **attrs)


def floats(seed: int, *shape: int) -> list[float]:
    found = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return [float(v) for v in found.reshape(-1)]


def pipeline(zeros: int = 1) -> onnx.ModelProto:
    """Numbers and cities are prepared once; four models judge them."""
    vectors = {
        "kernel_type": "RBF", "kernel_params": [0.2, 0.0, 0.0], "rho": [0.3, -0.2, 0.1],
        "support_vectors": floats(1, 6, WIDTH), "coefficients": floats(2, 2, 6),
        "vectors_per_class": [2, 3, 1], "prob_a": [-1.0, -0.5, -2.0], "prob_b": [0.1, 0.2, 0.3],
        "classlabels_ints": [10, 20, 30], "post_transform": "NONE",
    }  # fmt: skip
    linear = {
        "coefficients": floats(3, 3, WIDTH), "intercepts": [0.1, 0.2, 0.3],
        "classlabels_strings": ["a", "b", "c"], "post_transform": "SOFTMAX",
    }  # fmt: skip
    trees = random_trees(3, 20, 4, WIDTH, prefix="class", ids=range(3), votes=3)
    trees |= {"classlabels_strings": ["x", "y", "z"]}
    score = random_trees(4, 9, 3, WIDTH) | {"n_targets": 1, "aggregate_function": "AVERAGE"}
    nan = float("nan")
    nodes = [
        ml("Imputer", "numbers", "filled", imputed_value_floats=[0.5], replaced_value_float=nan),
        ml("Scaler", "filled", "scaled", offset=[0.5, 0.0, -1.0], scale=[2.0, 1.0, 0.5]),
        ml("OneHotEncoder", "city", "hot", cats_strings=["Rome", "Oslo"], zeros=zeros),
        node("Flatten", "hot", "flat", axis=1),
        ml("FeatureVectorizer", "scaled flat", "x", inputdimensions=[3, 2]),
        ml("SVMClassifier", "x", "svm p", **vectors),
        ml("LinearClassifier", "x", "letter q", **linear),
        ml("TreeEnsembleClassifier", "x", "tree r", **trees),
        ml("TreeEnsembleRegressor", "x", "score", **score),
        ml("LabelEncoder", "letter", "rank", keys_strings=["a", "b", "c"], values_int64s=[3, 1, 2]),
        ml("LabelEncoder", "rank", "price", keys_int64s=[1, 2], values_floats=[9.5, 1.5],
           default_float=-1.0),
    ]  # fmt: skip
    inputs = [value("numbers", ("N", 3)), value("city", ("N", 1), onnx.TensorProto.STRING)]
    outputs = ["svm", "p", "letter", "q", "tree", "r", "score", "rank", "price"]
    return model(nodes, inputs, outputs, ai_onnx_ml=3)


def feeds(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    numbers = rng.standard_normal((rows, 3)).astype(np.float32)
    numbers[::4, 0] = np.nan
    cities = rng.choice(np.array(["Rome", "Oslo", "Bonn"], object), (rows, 1))
    return {"numbers": numbers, "city": cities}


def test_pipeline() -> None:
    proto = pipeline()
    artifact = graphkiln.compile(proto, jobs=1)
    hosts = ["Constant", "Gather", "LabelEncoder", "OneHotEncoder", "Refuse"]
    assert artifact.report["host_functions"] == hosts
    mine, theirs = artifact.session(threads=2), session(proto)
    for rows in (1, 7, 40):
        same(mine.run(None, feeds(rows)), theirs.run(None, feeds(rows)), rtol=1e-3, atol=1e-4)


def test_unknown_categories_may_be_errors() -> None:
    compiled = graphkiln.compile(pipeline(zeros=0), jobs=1).session()
    given = feeds(3)
    given["city"][:] = "Oslo"
    compiled.run(None, given)
    given["city"][1] = "Bonn"
    with pytest.raises(Exception, match="'Bonn' is in no category"):
        compiled.run(None, given)


def test_maps_are_named() -> None:
    proto = pipeline()
    zipped = ml("ZipMap", "r", "map", classlabels_strings=["x", "y", "z"])
    proto.graph.node.append(zipped)
    proto.graph.output.append(onnx.ValueInfoProto(name="map"))
    error = refusal(proto)
    assert "zipmap" in error.reason and error.node == zipped.name
