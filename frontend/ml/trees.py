"""TreeEnsemble, TreeEnsembleRegressor and TreeEnsembleClassifier.

All become ``kiln.TreeEnsemble``, then base values, an average, a transform, a label.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import Value
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from .common import (
    best,
    check_columns,
    class_labels,
    convert,
    examples,
    numbers,
    one_of,
    opposite_first,
    pick_labels,
    text,
)
from .forest import Forest, tables
from .forest_attributes import read_listed, read_split
from .scores import apply, transformed

_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def tree_ensemble(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """Opset 5's op: inner nodes and leaves are listed separately; results have the input's type."""
    x = examples(node, emit)
    scores = _scores(
        x, read_split(node, x), _targets(node), _choice(node, "aggregate_function", _AGGREGATES, 1),
        emit,
    )  # fmt: skip
    result = apply(_choice(node, "post_transform", _TRANSFORMS, 0), scores, emit)
    return [convert(result, node.required(0).dtype, emit)]


def tree_regressor(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """The aggregated values of the leaves, with base values added, transformed.

    Base values are added to targets without a leaf, too, as in onnx.reference.
    """
    x = examples(node, emit)
    aggregate = one_of("aggregate_function", text(node, "aggregate_function", "SUM"), _AGGREGATES)
    targets = _targets(node)
    scores = _scores(x, read_listed(node, x, "target"), targets, aggregate, emit)
    return [transformed(node, _based(node, scores, targets, emit), emit)]


def tree_classifier(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """The label of the highest score, and all scores, transformed.

    Where the leaves of two classes hold one score ``s``, for class 0, it is that of the second
    class. As in onnxruntime the first class then has ``1 - s`` where no weight is negative, else
    ``-s``; before LOGISTIC and the softmaxes it has ``-s``, as in onnx.reference.
    """
    x, labels = examples(node, emit), class_labels(node, "classlabels_int64s")
    forest = read_listed(node, x, "class")
    binary = len(labels) == 2 and not forest.votes.target.any()
    targets = 1 if binary else len(labels)
    scores = _based(node, _scores(x, forest, targets, "SUM", emit), targets, emit)
    if binary:
        post = text(node, "post_transform", "NONE")
        share = post == "PROBIT" or (post == "NONE" and not (forest.votes.weight < 0).any())
        rest = emit("Sub", emit.scalar(1, scores), scores) if share else None
        scores = (
            opposite_first(scores, emit) if rest is None else emit("Concat", rest, scores, axis=1)
        )
    return [pick_labels(labels, best(scores, emit), emit), transformed(node, scores, emit)]


def _scores(x: Value, forest: Forest, targets: int, aggregate: str, emit: Emit) -> Value:
    """The aggregated values of the leaves that each example reaches: [N, targets]."""
    kind = "sum" if aggregate == "AVERAGE" else aggregate.lower()
    made = tables(forest, targets, kind)
    if forest.features.size:
        check_columns(x, int(forest.features.max()) + 1, "its trees compare", emit)
    inputs = [None if a is None else emit.constant(a, name) for name, a in vars(made).items()]
    while inputs[-1] is None:
        inputs.pop()
    total = emit("kiln.TreeEnsemble", x, *inputs, targets=targets, aggregate=kind)
    if aggregate == "AVERAGE":
        return emit("Div", total, emit.scalar(len(forest.roots), total))
    return total


def _based(node: OnnxNode, scores: Value, targets: int, emit: Emit) -> Value:
    """The scores with the base values added; for a single score, the first base value."""
    base = numbers(node, "base_values", scores)
    if base is None:
        return scores
    if targets == 1:
        base = base[:1]
    if base.size not in (1, targets):
        raise ImportFault(f"has {base.size} base values for {targets} targets")
    return emit("Add", scores, emit.constant(base, "base_values"))


def _targets(node: OnnxNode) -> int:
    count = node.attrs.get("n_targets")
    if not isinstance(count, int) or count < 1:
        raise ImportFault(f"has {count} targets")
    return count


def _choice(node: OnnxNode, name: str, choices: Sequence[str], default: int) -> str:
    number = node.attrs.get(name, default)
    if not isinstance(number, int) or not 0 <= number < len(choices):
        raise ImportFault(f"{name} {number} is not one of 0 to {len(choices) - 1}")
    return choices[number]
