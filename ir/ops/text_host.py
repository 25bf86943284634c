"""Type inference of ops that run as host functions: strings, and sizes that data decides."""

from __future__ import annotations

from ..dims import Dim
from ..registry import InferContext, op
from ..types import TensorType, Type, dtype, tensor


@op("StringConcat", traits=("host",))
def _concat(ctx: InferContext) -> list[Type]:
    a, b = ctx.tensor(0), ctx.tensor(1)
    return [a.with_shape(ctx.broadcast(a.dims, b.dims))]


@op("StringNormalizer", traits=("host",))
def _normalizer(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    words = ctx.attr("stopwords")
    if not words:
        return [x]
    return [x.with_shape((*x.dims[:-1], ctx.fresh_dim()))]


@op("StringSplit", traits=("host",))
def _split(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    parts = x.with_shape((*x.dims, ctx.fresh_dim()))
    return [parts, TensorType(dtype("int64"), x.dims)]


@op("RegexFullMatch", traits=("host",))
def _match(ctx: InferContext) -> list[Type]:
    return [ctx.tensor(0).with_dtype("bool")]


@op("TfIdfVectorizer", traits=("host",))
def _tfidf(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    size = max((int(i) for i in ctx.attr("ngram_indexes") or ()), default=-1) + 1
    return [tensor("float32", *x.dims[:-1], size)]


@op("NonMaxSuppression", traits=("host",))
def _suppression(ctx: InferContext) -> list[Type]:
    boxes, scores = ctx.tensor(0), ctx.tensor(1)
    if boxes.rank != 3 or scores.rank != 3:
        raise ctx.error("takes boxes [batch, boxes, 4] and scores [batch, classes, boxes]")
    ctx.require_equal(boxes.dims[2], 4, "four numbers a box")
    ctx.require_equal(boxes.dims[0], scores.dims[0], "boxes and scores of one batch")
    ctx.require_equal(boxes.dims[1], scores.dims[2], "a score for each box")
    count: Dim = ctx.fresh_dim()
    return [tensor("int64", count, 3)]
