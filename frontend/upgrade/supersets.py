"""Schema changes that need no rule: the newer op has the same meaning for every older node.

Each line names ops and, for each opset that changed them, the reason. A test compares the table and
the rules with all of onnx's schemas, and fails for a change that is in neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto


class Reason(Flag):
    """Why the newer version of an op accepts nodes of the older one."""

    TYPES = auto()
    """More element types are accepted."""
    WORDING = auto()
    """The documentation was clarified, or what was an error got a meaning (negative axes)."""
    FLOATS = auto()
    """Floats were errors; integers have the meaning that they had."""
    ATTRIBUTE = auto()
    """A new attribute; its default is the old behaviour."""
    INPUT = auto()
    """A new optional input, or one that became optional; omitting it is the old behaviour."""
    OUTPUT = auto()
    """A new optional output, or one that became optional."""
    HINT = auto()
    """``consumed_inputs`` was removed; nothing ever read it, and import drops it."""
    DEFAULT = auto()
    """A default changed or was removed; import sets the old one explicitly."""
    OPTIONAL = auto()
    """An attribute is no longer required."""
    BACK = auto()
    """An input was removed and came back later; import keeps it in between."""
    KEPT = auto()
    """The op is deprecated, and no single op replaces it: the IR keeps the last version."""


TYPES, WORDING, ATTRIBUTE = Reason.TYPES, Reason.WORDING, Reason.ATTRIBUTE
INPUT, OUTPUT, HINT = Reason.INPUT, Reason.OUTPUT, Reason.HINT
DEFAULT, OPTIONAL, KEPT = Reason.DEFAULT, Reason.OPTIONAL, Reason.KEPT
BACK = Reason.BACK

_TABLE: tuple[tuple[str, Mapping[int, Reason]], ...] = (
    ("Abs Neg", {6: HINT | TYPES, 13: TYPES}),
    (
        "Acos Acosh Asin Asinh Atan Atanh Bernoulli Cos Cosh DeformConv Det EyeLike "
        "GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSwish LpNormalization "
        "MaxRoiPool Mish Multinomial RandomNormal RandomNormalLike RandomUniform "
        "RandomUniformLike RoiAlign Round Sin Sinh Softplus Softsign Tan ThresholdedRelu",
        {22: TYPES},
    ),
    ("Add Div Mul Sub", {6: HINT | TYPES, 13: TYPES, 14: TYPES}),
    ("ArgMax ArgMin", {11: WORDING, 12: ATTRIBUTE, 13: TYPES}),
    ("Attention", {24: INPUT, 25: ATTRIBUTE}),
    ("AveragePool", {7: ATTRIBUTE, 10: ATTRIBUTE, 11: WORDING, 19: ATTRIBUTE, 22: TYPES}),
    ("BatchNormalization", {6: HINT, 15: WORDING}),
    ("BitShift Celu Einsum OneHot Optional ReverseSequence Unique", {28: TYPES}),
    (
        "Cast",
        {9: TYPES, 13: TYPES, 19: ATTRIBUTE | TYPES, 21: TYPES, 23: TYPES,
        24: ATTRIBUTE | TYPES, 25: TYPES, 28: TYPES},
    ),
    ("CastLike", {19: ATTRIBUTE | TYPES, 21: TYPES, 23: TYPES, 24: ATTRIBUTE | TYPES, 25: TYPES}),
    ("Ceil Exp Floor Log Reciprocal Sigmoid Sqrt Tanh", {6: HINT, 13: TYPES}),
    ("Clip", {6: HINT | DEFAULT, 12: TYPES, 13: TYPES}),
    ("Compress", {11: WORDING, 28: TYPES}),
    ("Concat", {11: WORDING, 13: TYPES}),
    (
        "Constant",
        {9: TYPES, 11: ATTRIBUTE | OPTIONAL, 12: ATTRIBUTE, 13: TYPES, 19: TYPES, 21: TYPES,
        23: TYPES, 24: TYPES, 25: TYPES},
    ),
    ("ConstantOfShape", {20: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("Conv ConvTranspose MaxUnpool", {11: WORDING, 22: TYPES}),
    ("CumSum", {14: TYPES}),
    ("DepthToSpace", {11: ATTRIBUTE, 13: TYPES, 28: WORDING}),
    (
        "DequantizeLinear",
        {13: ATTRIBUTE, 19: TYPES, 21: ATTRIBUTE | TYPES, 23: ATTRIBUTE | TYPES, 24: TYPES,
        25: TYPES, 28: TYPES},
    ),
    ("Dropout", {6: HINT, 13: TYPES, 22: TYPES}),
    ("Elu HardSigmoid InstanceNormalization", {6: HINT, 22: TYPES}),
    ("Equal", {11: TYPES, 13: TYPES, 19: TYPES}),
    (
        "Expand GatherElements LRN MeanVarianceNormalization NonZero Sign "
        "SoftmaxCrossEntropyLoss Tile",
        {13: TYPES},
    ),
    ("Flatten", {9: TYPES, 11: WORDING, 13: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("GRU LSTM RNN", {14: ATTRIBUTE, 22: TYPES}),
    (
        "Gather ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd "
        "ReduceSumSquare Slice",
        {11: WORDING, 13: TYPES},
    ),
    ("GatherND", {12: ATTRIBUTE, 13: TYPES}),
    ("Gemm", {6: WORDING, 9: TYPES, 11: INPUT, 13: TYPES}),
    ("Greater Less MatMul", {9: TYPES, 13: TYPES}),
    ("GreaterOrEqual LessOrEqual Where", {16: TYPES}),
    ("Hardmax LogSoftmax NonMaxSuppression ReduceSum Softmax", {11: WORDING}),
    (
        "Identity",
        {13: TYPES, 14: TYPES, 16: TYPES, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES},
    ),
    (
        "If",
        {11: WORDING, 13: TYPES, 16: TYPES, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES,
         25: TYPES},
    ),
    (
        "Loop",
        {11: WORDING | INPUT, 13: TYPES, 16: TYPES, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES,
         25: TYPES},
    ),
    ("IsInf", {20: TYPES}),
    ("IsNaN", {13: TYPES, 20: TYPES}),
    ("LeakyRelu", {6: HINT, 16: TYPES}),
    ("LpPool", {11: WORDING, 18: ATTRIBUTE, 22: TYPES}),
    ("Max Min", {6: HINT, 12: TYPES, 13: TYPES}),
    ("MaxPool", {8: ATTRIBUTE | OUTPUT, 10: ATTRIBUTE, 11: WORDING, 12: TYPES, 22: TYPES}),
    ("Mean Sum", {6: HINT, 13: TYPES}),
    ("Mod", {13: TYPES, 28: Reason.FLOATS}),
    ("NegativeLogLikelihoodLoss", {13: WORDING, 22: TYPES}),
    ("OptionalGetElement", {18: TYPES, 28: TYPES}),
    ("OptionalHasElement", {18: INPUT | TYPES, 28: TYPES}),
    ("PRelu", {6: HINT, 9: TYPES, 16: TYPES}),
    ("Pad", {13: TYPES, 18: INPUT, 19: WORDING, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("Pow", {12: TYPES, 13: TYPES, 15: TYPES}),
    ("QLinearMatMul", {21: TYPES}),
    (
        "QuantizeLinear",
        {13: ATTRIBUTE, 19: ATTRIBUTE | TYPES, 21: ATTRIBUTE | TYPES, 23: ATTRIBUTE | TYPES,
        24: TYPES, 25: TYPES, 28: TYPES},
    ),
    ("Range", {27: ATTRIBUTE | TYPES}),
    ("ReduceMax ReduceMin", {11: WORDING, 12: TYPES, 13: TYPES, 20: TYPES}),
    ("Relu", {6: HINT, 13: TYPES, 14: TYPES}),
    (
        "Reshape",
        {13: TYPES, 14: ATTRIBUTE, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES},
    ),
    ("Resize", {18: ATTRIBUTE, 19: WORDING}),
    ("Scan", {11: WORDING, 16: TYPES, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("ScatterElements ScatterND", {13: TYPES, 16: ATTRIBUTE, 18: WORDING}),
    ("Selu", {6: HINT | DEFAULT, 22: TYPES}),
    ("Shape", {13: TYPES, 15: ATTRIBUTE, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("Size", {13: TYPES, 19: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("SpaceToDepth", {13: TYPES, 28: ATTRIBUTE}),
    ("Split", {2: BACK | DEFAULT, 11: WORDING, 18: ATTRIBUTE}),
    ("SplitToSequence", {24: TYPES}),
    ("Squeeze Unsqueeze", {11: WORDING, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("TopK", {11: ATTRIBUTE | TYPES, 24: TYPES}),
    ("Transpose", {13: TYPES, 21: TYPES, 23: TYPES, 24: TYPES, 25: TYPES}),
    ("ai.onnx.ml.LabelEncoder", {4: ATTRIBUTE | TYPES}),
    (
        "ai.onnx.ml.TreeEnsembleClassifier ai.onnx.ml.TreeEnsembleRegressor",
        {3: ATTRIBUTE, 5: KEPT},
    ),
)  # fmt: skip

SUPERSETS: Mapping[str, Mapping[int, Reason]] = {
    key: changes for keys, changes in _TABLE for key in keys.split()
}
"""By op key and the opset that changed it, why older nodes need no rule."""
