"""The two ops that NonMaxSuppression is imported as: the boxes that are kept, and their rows."""

from __future__ import annotations

from typing import Any

from ..dims import dim_min
from ..evaluators.boxes import box_rows, kept_boxes
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..types import Type, tensor


def _centered(node: Node) -> bool:
    return bool(attribute(node, "center_point_box"))


_PARTS = 3
"""Batch, class and box, in a row of NonMaxSuppression's result."""


def _evaluate_kept(node: Node, inputs: list[Any]) -> list[Any]:
    return [kept_boxes(inputs, _centered(node), int(attribute(node, "most")))]


@op(
    "KeptBoxes", domain="kiln", arity=(2, 5), evaluate=_evaluate_kept,
    defaults={"center_point_box": 0},
    doc="The boxes that NonMaxSuppression selects, [batch, classes, room] int64: for each class by "
    "falling score, then -1. Takes its inputs, and the attribute most, which is at least as large "
    "as the limit on boxes of a class; there is room for so many, but for no more than there are.",
)  # fmt: skip
def _infer_kept(ctx: InferContext) -> list[Type]:
    boxes, scores = ctx.tensor(0), ctx.tensor(1)
    if boxes.rank != 3 or scores.rank != 3:
        raise ctx.error("takes boxes [batch, boxes, 4] and scores [batch, classes, boxes]")
    ctx.require_equal(boxes.dims[2], 4, "four numbers a box")
    ctx.require_equal(boxes.dims[0], scores.dims[0], "boxes and scores of one batch")
    ctx.require_equal(boxes.dims[1], scores.dims[2], "a score for each box")
    ctx.require_numbers(3, "an iou_threshold between 0 and 1", low=0, high=1)
    batch, classes, count = scores.dims
    return [tensor("int64", batch, classes, dim_min(count, ctx.attr("most")))]


def _evaluate_rows(_node: Node, inputs: list[Any]) -> list[Any]:
    return [box_rows(inputs[0])]


@op(
    "BoxRows", domain="kiln", arity=(1, 1), evaluate=_evaluate_rows,
    doc="The rows (batch, class, box) of kiln.KeptBoxes' result [batch, classes, room], in this "
    "order: [selected, 3] int64.",
)  # fmt: skip
def _infer_rows(ctx: InferContext) -> list[Type]:
    ctx.tensor(0)
    return [tensor("int64", ctx.fresh_dim(), _PARTS)]
