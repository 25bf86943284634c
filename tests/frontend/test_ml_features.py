"""Scalers, normalizers, imputers and encoders of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frontend.build import refusal
from frontend.ml_models import ml_model, ours, reference, runtime, same
from onnx import numpy_helper

X = np.array([[1, -3, 2], [-4, -2, -1], [0, 0, 0]], np.float32)
GAPS = np.array([[1, np.nan, 2], [np.nan, 0, 3]], np.float32)
NAN = float("nan")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32"])
@pytest.mark.parametrize("size", [1, 3])
def test_scaler(size: int, dtype: str) -> None:
    attrs = {"offset": [1.5, 2.0, 3.0][:size], "scale": [2.0, 3.0, 4.0][:size]}
    for x in (X.astype(dtype), X[0].astype(dtype)):
        same(ours("Scaler", [x], attrs, version=1), runtime("Scaler", [x], attrs, version=1))


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm: str) -> None:
    for x in (X, X[0], X.astype(np.int64)):
        want = runtime("Normalizer", [x], {"norm": norm}, version=1)
        same(ours("Normalizer", [x], {"norm": norm}, version=1), want)


def test_binarizer() -> None:
    for threshold in (0.0, 1.0):
        attrs = {"threshold": threshold}
        same(ours("Binarizer", [X], attrs), runtime("Binarizer", [X], attrs))
        whole = X.astype(np.int64)
        same(ours("Binarizer", [whole], attrs), reference("Binarizer", [whole], attrs))


@pytest.mark.parametrize(
    ("x", "attrs"),
    [
        (GAPS, {"imputed_value_floats": [7.0, 8.0, 9.0], "replaced_value_float": NAN}),
        (GAPS, {"imputed_value_floats": [7.0], "replaced_value_float": 2.0}),
        (GAPS, {"imputed_value_floats": [7.0]}),
        (GAPS[0], {"imputed_value_floats": [7.0, 8.0, 9.0], "replaced_value_float": NAN}),
        (np.array([[1, 2, 3]]), {"imputed_value_int64s": [7, 8, 9], "replaced_value_int64": 2}),
    ],
)
def test_imputer(x: np.ndarray, attrs: dict[str, Any]) -> None:
    same(ours("Imputer", [x], attrs, version=1), runtime("Imputer", [x], attrs, version=1))


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [(((2, 2), (2, 1)), [2, 1]), (((2, 2), (2, 1)), [1, 3]), (((2,), (3,)), [2, 3]),
     (((2, 3, 2),), [6])],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_feature_vectorizer(shapes: Any, sizes: list[int], dtype: str) -> None:
    inputs = [np.arange(np.prod(s)).reshape(s).astype(dtype) + 5 for s in shapes]
    attrs = {"inputdimensions": sizes}
    want = runtime("FeatureVectorizer", inputs, attrs, version=1)
    same(ours("FeatureVectorizer", inputs, attrs, version=1), want)


# ---- encoders ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "attrs"),
    [
        (np.array([[1, 2], [5, 3]]), {"cats_int64s": [1, 2, 3]}),
        (np.array([[1, 2], [2, 3]]), {"cats_int64s": [1, 2, 2, 3], "zeros": 0}),
        (np.array([1, 2, 0]), {"cats_int64s": [0, 1, 1]}),
        (np.array([1.7, 2.0, -1.2], np.float32), {"cats_int64s": [1, 2, -1]}),
        (np.array(2), {"cats_int64s": [1, 2]}),
        (np.array([["a"], ["zz"]], object), {"cats_strings": ["a", "b", "a"]}),
    ],
)
def test_one_hot_encoder(x: np.ndarray, attrs: dict[str, Any]) -> None:
    want = runtime("OneHotEncoder", [x], attrs, version=1)
    same(ours("OneHotEncoder", [x], attrs, version=1), want)


@pytest.mark.parametrize("x", [np.array([4]), np.array(["c"], object)])
def test_strict_one_hot_encoder(x: np.ndarray) -> None:
    attrs = {"cats_int64s": [1, 2]} if x.dtype != object else {"cats_strings": ["a"]}
    with pytest.raises(Exception, match="in no category"):
        ours("OneHotEncoder", [x], {**attrs, "zeros": 0}, version=1)


def test_category_mapper() -> None:
    attrs = {"cats_strings": ["a", "b"], "cats_int64s": [4, 5]}
    for x in (np.array([["a"], ["zz"]], object), np.array([5, 9])):
        want = runtime("CategoryMapper", [x], attrs, version=1)
        same(ours("CategoryMapper", [x], attrs, version=1), want)


_KEYS = {
    "int64s": (np.array([[4, 9], [5, -2]]), [4, 5, -2]),
    "floats": (np.array([1.5, -0.0, NAN, 3], np.float32), [1.5, 0.0, NAN]),
}


@pytest.mark.parametrize("keys", ["int64s", "floats"])
@pytest.mark.parametrize(
    ("values", "entries", "default"),
    [("int64s", [3, 4, 5], {"default_int64": 7}), ("floats", [0.5, 2.5, -1.0], {}),
     ("strings", ["x", "y", "z"], {"default_string": "none"})],
)  # fmt: skip
def test_label_encoder(keys: str, values: str, entries: list[Any], default: dict[str, Any]) -> None:
    x, known = _KEYS[keys]
    attrs = {f"keys_{keys}": known, f"values_{values}": entries, **default}
    if (keys, values) != ("floats", "strings"):
        want = runtime("LabelEncoder", [x], attrs, version=4)
        same(ours("LabelEncoder", [x], attrs, version=4), want)


@pytest.mark.parametrize("kind", ["int64", "int32", "int16", "float64"])
def test_label_encoder_of_tensors(kind: str) -> None:
    table = np.array([3, 5, 7, 5], kind)
    attrs = {
        "keys_tensor": numpy_helper.from_array(table),
        "values_tensor": numpy_helper.from_array(np.array([1, 2, 3, 4], "int16")),
        "default_tensor": numpy_helper.from_array(np.array([-8], "int16")),
    }
    (got,) = ours("LabelEncoder", [np.array([5, 3, 4, 7], kind)], attrs, version=4)
    # The last of equal keys counts.
    assert got.tolist() == [4, 1, -8, 3] and got.dtype == np.int16


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "x", "attrs", "reason"),
    [
        ("Scaler", X, {"offset": [1.0, 2.0]}, "2 entries for 3 features"),
        ("Scaler", X[None], {"scale": [1.0, 2.0, 3.0]}, "no matrix"),
        ("Normalizer", X[None], {}, "not float32"),
        ("Normalizer", X, {"norm": "L3"}, "'L3' is not one of"),
        ("Imputer", X, {}, "no imputed values"),
        ("FeatureVectorizer", X, {}, "input dimensions"),
        ("OneHotEncoder", X, {}, "no categories"),
        ("LabelEncoder", X, {"keys_floats": [1.0], "values_floats": [1.0, 2.0]}, "1 keys and 2"),
        ("LabelEncoder", X, {"keys_int64s": [1], "values_floats": [1.0]}, "its keys are int64"),
        ("LabelEncoder", X, {"keys_int64s": [1]}, "has no values"),
        ("ZipMap", X, {"classlabels_int64s": [1, 2]}, "a number for each of its 2 keys"),
        ("ZipMap", X, {}, "needs either classlabels_int64s or classlabels_strings"),
        ("CastMap", X, {}, "takes maps, which are not supported"),
    ],
)
def test_refusals(op: str, x: np.ndarray, attrs: dict[str, Any], reason: str) -> None:
    version = 2 if op == "LabelEncoder" else 1
    error = refusal(ml_model(op, [x], attrs, version=version))
    assert reason in error.reason and error.node
