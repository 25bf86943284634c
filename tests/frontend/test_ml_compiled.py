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
from graphkiln.frontend import load_model
from graphkiln.frontend.export import to_onnx

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


# ---- lists of maps -------------------------------------------------------------------------------

NAMES, NUMBERS = {"classlabels_strings": ["x", "y", "z"]}, {"classlabels_int64s": [7, -1, 3]}


def scored(*extra: onnx.NodeProto, outputs: tuple[str, ...], rank: int = 2) -> onnx.ModelProto:
    """A softmax and lists of maps of it."""
    nodes = [node("Softmax", "x", "p", axis=-1), *extra]
    proto = model(nodes, [value("x", ("N", 3)[2 - rank :])], ["p"], ai_onnx_ml=3)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return proto


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("rank", [1, 2])
def test_lists_of_maps(native: bool, rank: int) -> None:
    zipped = [ml("ZipMap", "p", "by_name", **NAMES), ml("ZipMap", "p", "by_number", **NUMBERS)]
    if not native:
        zipped.append(node("NonZero", "x", "where"))
    proto = scored(*zipped, outputs=("by_name", "by_number"), rank=rank)
    if not native:
        proto.graph.output.append(onnx.ValueInfoProto(name="where"))
    types = ["tensor(float)", "seq(map(string,tensor(float)))", "seq(map(int64,tensor(float)))"]
    mine = graphkiln.compile(proto, jobs=1).session()
    assert [(o.type, o.shape) for o in mine.get_outputs()][:3] == [
        (types[0], ["N", 3][2 - rank :]), (types[1], []), (types[2], [])
    ]  # fmt: skip
    again = onnx.load_from_string(to_onnx(load_model(proto).graph).SerializeToString())
    judge = session(again)
    for rows in (4, 1, 0)[: 3 if rank == 2 else 1]:
        x = np.random.default_rng(rows).standard_normal((rows, 3)[2 - rank :]).astype(np.float32)
        probabilities, names, numbers, *_ = mine.run(None, {"x": x})
        matrix = probabilities.reshape(-1, 3).tolist()
        assert names == [dict(zip("xyz", row, strict=True)) for row in matrix]
        assert numbers == [dict(zip((7, -1, 3), row, strict=True)) for row in matrix]
        assert mine.run(["by_number", "by_name"], {"x": x}) == [numbers, names]
        theirs = judge.run(["by_name", "by_number"], {"x": x})
        for ours, expected in zip((names, numbers), theirs, strict=True):
            assert [row.keys() for row in ours] == [row.keys() for row in expected]
            for row, other in zip(ours, expected, strict=True):
                assert row == pytest.approx(other, rel=1e-5, abs=1e-6)


def test_of_equal_keys_the_first_counts() -> None:
    zipped = ml("ZipMap", "p", "m", classlabels_strings=["a", "b", "a"])
    mine = graphkiln.compile(scored(zipped, outputs=("m",)), jobs=1).session()
    probabilities, maps = mine.run(None, {"x": np.array([[1, 2, 3]], np.float32)})
    assert maps == [{"a": probabilities[0, 0].item(), "b": probabilities[0, 1].item()}]


def test_a_width_that_does_not_fit_the_keys() -> None:
    proto = model([ml("ZipMap", "x", "m", **NAMES)], [value("x", ("N", "C"))], [], ai_onnx_ml=3)
    proto.graph.output.append(onnx.ValueInfoProto(name="m"))
    mine = graphkiln.compile(proto, jobs=1).session()
    assert len(mine.run(None, {"x": np.ones((2, 3), np.float32)})[0]) == 2
    with pytest.raises(graphkiln.InputError, match="4 in dimension 1"):
        mine.run(None, {"x": np.ones((2, 4), np.float32)})


def test_maps_that_are_no_outputs() -> None:
    zipped = ml("ZipMap", "p", "m", **NAMES)
    error = refusal(scored(zipped, node("Neg", "m", "n"), outputs=("n",)))
    assert error.node.startswith(zipped.name) and "list of maps" in error.reason
    inside = onnx.helper.make_graph([zipped], "b", [], [onnx.ValueInfoProto(name="m")])
    choice = node("If", "c", "y", then_branch=inside, else_branch=inside)
    proto = scored(choice, outputs=("y",))
    proto.graph.input.append(value("c", (), onnx.TensorProto.BOOL))
    error = refusal(proto)
    assert error.node.startswith(zipped.name) and "list of maps" in error.reason
