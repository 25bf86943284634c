"""Classical models (ai.onnx.ml), expanded at import.

Their attributes hold weights, labels and trees as lists; here they become constants that ordinary
ops and a few of the dialect read. Where onnx.reference and onnxruntime disagree, each rule says
which it follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...ir.graph import Value
from ..emit import Emit
from ..node import OnnxNode
from .encoders import category_mapper, label_encoder, one_hot_encoder
from .features import binarizer, feature_vectorizer, imputer, normalizer, scaler
from .linear import linear_classifier, linear_regressor
from .maps import no_maps, zip_map
from .svm import svm_classifier, svm_regressor
from .trees import tree_classifier, tree_ensemble, tree_regressor

RULES: Mapping[str, Callable[[OnnxNode, Emit], Sequence[Value] | None]] = {
    "ai.onnx.ml.Binarizer": binarizer,
    "ai.onnx.ml.CastMap": no_maps,
    "ai.onnx.ml.CategoryMapper": category_mapper,
    "ai.onnx.ml.DictVectorizer": no_maps,
    "ai.onnx.ml.FeatureVectorizer": feature_vectorizer,
    "ai.onnx.ml.Imputer": imputer,
    "ai.onnx.ml.LabelEncoder": label_encoder,
    "ai.onnx.ml.LinearClassifier": linear_classifier,
    "ai.onnx.ml.LinearRegressor": linear_regressor,
    "ai.onnx.ml.Normalizer": normalizer,
    "ai.onnx.ml.OneHotEncoder": one_hot_encoder,
    "ai.onnx.ml.SVMClassifier": svm_classifier,
    "ai.onnx.ml.SVMRegressor": svm_regressor,
    "ai.onnx.ml.Scaler": scaler,
    "ai.onnx.ml.TreeEnsemble": tree_ensemble,
    "ai.onnx.ml.TreeEnsembleClassifier": tree_classifier,
    "ai.onnx.ml.TreeEnsembleRegressor": tree_regressor,
    "ai.onnx.ml.ZipMap": zip_map,
}
"""The expansion of each op, by key: gives the values of a node's outputs, or None to keep it."""
