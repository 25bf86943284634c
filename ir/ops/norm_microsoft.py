"""Type inference and reference evaluation of com.microsoft's fused layer normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..axes.reduce import embed_layer_norm, layer_norm, skip_layer_norm
from ..dims import Dim
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..shapes import normalize_axis
from ..traits import Trait
from ..types import Shape, Type, tensor

DOMAIN = "com.microsoft"


def _standardized(x: np.ndarray, epsilon: float, centred: bool) -> tuple[np.ndarray, ...]:
    """``x`` normalized over its last axis (to mean 0 if centred); the mean; the inverse root."""
    mean = x.mean(axis=-1, keepdims=True) if centred else np.zeros_like(x[..., :1])
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
    return (x - mean) * inverse, mean, inverse


def _wide(x: np.ndarray | None) -> np.ndarray | float:
    return 0.0 if x is None else x.astype(np.float64)


# ---- RMS normalization before ai.onnx had it -----------------------------------------------------


def _evaluate_simplified(node: Node, inputs: list[Any]) -> list[Any]:
    x, scale = inputs
    axis = attribute(node, "axis") % x.ndim
    rows = x.astype(np.float64).reshape(*x.shape[:axis], -1)
    y, _, inverse = _standardized(rows, attribute(node, "epsilon"), centred=False)
    shape = (*x.shape[:axis], *(1,) * (x.ndim - axis))
    return [
        (y.reshape(x.shape) * scale.astype(np.float64)).astype(scale.dtype),
        inverse.reshape(shape).astype(np.float32),
    ]


def _infer_simplified(ctx: InferContext) -> list[Type]:
    x, scale = ctx.tensor(0), ctx.tensor(1)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    ctx.broadcast_to(scale.dims, x.dims, "a scale")
    statistics = tensor("float32", *x.dims[:axis], *([1] * (x.rank - axis)))
    return [x.with_dtype(scale.dtype), statistics]


for _domain in ("", DOMAIN):
    op(
        "SimplifiedLayerNormalization",
        domain=_domain,
        evaluate=_evaluate_simplified,
        traits=(Trait.REDUCTION,),
        arity=(2, 2),
        defaults={"axis": -1, "epsilon": 1e-5, "stash_type": 1},
        doc="X / sqrt(mean(X * X) + epsilon) * scale over the axes from `axis` on.",
        homogeneous=((1,),),
        axes=layer_norm,
    )(_infer_simplified)


# ---- with a residual sum in front ----------------------------------------------------------------


def _evaluate_skip(node: Node, inputs: list[Any]) -> list[Any]:
    centred = node.op == "SkipLayerNormalization"
    x, skip, gamma, *rest = [*inputs, None, None]
    beta, bias = rest[:2] if centred else (None, rest[0])
    total = _wide(x) + _wide(skip) + _wide(bias)
    assert isinstance(total, np.ndarray)
    y, mean, inverse = _standardized(total, attribute(node, "epsilon"), centred)
    return [
        (y * _wide(gamma) + _wide(beta)).astype(x.dtype),
        mean.astype(np.float32),
        inverse.astype(np.float32),
        total.astype(x.dtype),
    ]


@op(
    "SkipLayerNormalization", domain=DOMAIN, traits=(Trait.REDUCTION,), arity=(3, 5),
    defaults={"epsilon": 1e-12}, evaluate=_evaluate_skip,
    doc="Layer normalization of input + skip + bias over the last axis (inputs: input, skip, "
    "gamma, beta, bias); outputs: the result, mean, inverse deviation, the sum.",
    homogeneous=((2, 3),), axes=skip_layer_norm,
)  # fmt: skip
@op(
    "SkipSimplifiedLayerNormalization", domain=DOMAIN, traits=(Trait.REDUCTION,), arity=(3, 4),
    defaults={"epsilon": 1e-12}, evaluate=_evaluate_skip,
    doc="RMS normalization of input + skip + bias over the last axis (inputs: input, skip, "
    "gamma, bias); outputs: the result, mean (unused), inverse root, the sum.",
    homogeneous=((2,),), axes=skip_layer_norm,
)  # fmt: skip
def _infer_skip(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    ctx.broadcast_to(ctx.tensor(1).dims, x.dims, "a residual")
    for i in range(2, len(ctx.inputs)):
        if ctx.has(i):
            # This includes a single number, as kernels read a number for each element of the row.
            why = "a number of gamma, beta and bias for each place of the last axis"
            ctx.require_same_shape(ctx.tensor(i).dims, x.dims[-1:], why)
    statistics = tensor("float32", *x.dims[:-1], 1)
    return [x, statistics, statistics, x]


# ---- embeddings ----------------------------------------------------------------------------------


def _evaluate_embed(node: Node, inputs: list[Any]) -> list[Any]:
    padded = [*inputs, None, None]
    ids, segments, words, positions, segment_rows, gamma, beta, mask, where = padded[:9]
    if where is None:
        where = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    total = _wide(words[ids]) + _wide(positions[where])
    if segments is not None and segment_rows is not None:
        total = total + _wide(segment_rows[segments])
    assert isinstance(total, np.ndarray)
    y = _standardized(total, attribute(node, "epsilon"), centred=True)[0]
    count = np.zeros(ids.shape[0]) if mask is None else (mask != 0).sum(axis=1)
    result = (y * _wide(gamma) + _wide(beta)).astype(words.dtype)
    return [result, count.astype(np.int32), total.astype(words.dtype)]


@op(
    "EmbedLayerNormalization", domain=DOMAIN, traits=(Trait.REDUCTION,), arity=(7, 9),
    defaults={"epsilon": 1e-12, "mask_index_type": 0}, evaluate=_evaluate_embed,
    doc="Layer normalization of the sum of word, position and segment embeddings. Inputs: ids, "
    "segment ids, the three tables, gamma, beta, mask, position ids; outputs: the result, the "
    "number of unmasked words of each row, the sum.",
    axes=embed_layer_norm,
)  # fmt: skip
def _infer_embed(ctx: InferContext) -> list[Type]:
    ids, words = ctx.tensor(0), ctx.tensor(2)
    if ids.rank != 2 or words.rank != 2:
        raise ctx.error(f"takes ids [batch, length] and tables [rows, width], not {ids}, {words}")
    _check_embed(ctx, ids.dims, words.dims[1])
    result = words.with_shape((*ids.dims, words.dims[1]))
    return [result, tensor("int32", ids.dims[0]), result]


def _check_embed(ctx: InferContext, ids: Shape, width: Dim) -> None:
    """Record that the tables have equal widths and a row for every id."""
    for i, why in ((1, "segment ids"), (7, "a mask"), (8, "position ids")):
        if ctx.has(i):
            ctx.require_same_shape(ctx.tensor(i).dims, ids, f"{why} for each word")
    for i in (5, 6):
        ctx.require_same_shape(ctx.tensor(i).dims, (width,), "gamma and beta for each column")
    for table, rows in ((2, 0), (3, 8), (4, 1)):
        if not ctx.has(table):
            continue
        count, columns = _table(ctx, table)
        ctx.require_equal(columns, width, "tables of one width")
        if ctx.has(rows):
            ctx.require_values(rows, 0, count - 1, "ids of rows that the table has")
        elif table == _POSITIONS:
            ctx.require_at_most(ids[1], count, "no more words than positions")


_POSITIONS = 3


def _table(ctx: InferContext, i: int) -> Shape:
    t = ctx.tensor(i)
    if t.rank != 2:
        raise ctx.error(f"takes tables [rows, width], not {t}")
    return t.dims
