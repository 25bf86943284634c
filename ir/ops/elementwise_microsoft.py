"""Element-wise ops of the domain com.microsoft, as onnxruntime defines them."""

from __future__ import annotations

from ..axes.pointwise import halves
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Type
from . import elementwise_microsoft_evaluate as evaluate
from .elementwise import ELEMENTWISE, floating

DOMAIN = "com.microsoft"


@op(
    "Gelu", domain=DOMAIN, traits=ELEMENTWISE, arity=(1, 1), evaluate=evaluate.gelu,
    doc="x * normal_cdf(x)",
)  # fmt: skip
def _gelu(ctx: InferContext) -> list[Type]:
    return [floating(ctx)]


@op(
    "QuickGelu", domain=DOMAIN, traits=ELEMENTWISE, arity=(1, 1), defaults={"alpha": 1.702},
    evaluate=evaluate.quick_gelu, doc="x * sigmoid(alpha * x)",
)  # fmt: skip
def _quick_gelu(ctx: InferContext) -> list[Type]:
    return [floating(ctx)]


@op(
    "FastGelu", domain=DOMAIN, traits=(*ELEMENTWISE, Trait.FIXED_RANKS), arity=(1, 2),
    evaluate=evaluate.fast_gelu,
    doc="The tanh form of gelu of x + bias; the bias is optional and lies along the last axis.",
)  # fmt: skip
def _fast_gelu(ctx: InferContext) -> list[Type]:
    return _with_bias(ctx)


@op(
    "BiasGelu", domain=DOMAIN, traits=(*ELEMENTWISE, Trait.FIXED_RANKS), arity=(2, 2),
    evaluate=evaluate.gelu,
    doc="Gelu of A + B, where B lies along the last axis.",
)  # fmt: skip
def _bias_gelu(ctx: InferContext) -> list[Type]:
    return _with_bias(ctx)


def _with_bias(ctx: InferContext) -> list[Type]:
    x = floating(ctx)
    if ctx.has(1):
        bias = ctx.tensor(1)
        if bias.dtype != x.dtype:
            raise ctx.error(f"the input holds {x.dtype}, the bias {bias.dtype}")
        if x.shape is not None and bias.shape is not None:
            if bias.rank != 1 or x.rank == 0:
                raise ctx.error(f"the bias must have one axis, not {bias}, and {x} a last one")
            ctx.require_equal(bias.dims[0], x.dims[-1], "a bias for each place of the last axis")
    return [x]


@op(
    "BiasAdd", domain=DOMAIN, traits=(*ELEMENTWISE, Trait.FIXED_RANKS), arity=(3, 3),
    evaluate=evaluate.bias_add,
    doc="X + bias + skip, where the bias lies along the last axis.",
)  # fmt: skip
def _bias_add(ctx: InferContext) -> list[Type]:
    (x,) = _with_bias(ctx)
    floating(ctx, 2)
    shapes = ctx.tensor(0).shape, ctx.tensor(2).shape
    if shapes[0] is not None and shapes[1] is not None:
        ctx.require_same_shape(shapes[1], shapes[0], "a skip of the input's shape")
    return [x]


@op(
    "BiasSplitGelu", domain=DOMAIN, arity=(2, 2),
    evaluate=evaluate.bias_split_gelu,
    doc="With Y = X + bias cut in two along the last axis: left * gelu(right).",
    axes=halves,
)  # fmt: skip
def _bias_split_gelu(ctx: InferContext) -> list[Type]:
    _with_bias(ctx)
    x = floating(ctx)
    last = x.dims[-1]
    if last % 2 == 1:
        raise ctx.error(f"the last dim {last} must be even")
    return [x.with_shape((*x.dims[:-1], last // 2))]
