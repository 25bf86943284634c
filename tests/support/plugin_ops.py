"""Ops as a user's own module registers them, one or more for each trait and field of an op."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tvm import tirx

from graphkiln.ir import registry
from graphkiln.ir.graph import Node
from graphkiln.ir.registry import InferContext, op
from graphkiln.ir.traits import Trait
from graphkiln.ir.types import Type, tensor
from graphkiln.targets.generic import registry as lowerings
from graphkiln.targets.generic.registry import LowerContext, lowering
from graphkiln.targets.tir.builder import BufferTensor, TensorExpr
from graphkiln.targets.tir.extents import index, product
from graphkiln.targets.tir.numeric import cast

DOMAIN = "plugin.ops"
STRUCTURAL = ("Input", "Constant", "Output")
"""Names that the graph's own nodes bear: in another domain they mean nothing."""


@contextmanager
def registered() -> Iterator[None]:
    """The ops of this file, beside the built-in ones."""
    list(registry.specs()), lowerings.lowered_keys()  # what is built in comes first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
        patch.setattr(registry, "_WITH_TRAIT", {})
        patch.setattr(lowerings, "_LOWERINGS", dict(lowerings._LOWERINGS))
        for part in (_elementwise, _quantized, _movement, _heavy, _others):
            part()
        yield


def _own(name: str) -> str:
    return f"{DOMAIN}.{name}"


def _same(ctx: InferContext) -> list[Type]:
    return [ctx.tensor(0)]


def _each(name: str, function: Any) -> None:
    """Lower an op of one input element by element; ``function`` takes the element."""

    @lowering(_own(name))
    def _lower(ctx: LowerContext) -> TensorExpr:
        x = ctx.input(0)
        return ctx.lazy(lambda at: function(x[at]), cost=1 + x.cost)


# ---- elementwise ---------------------------------------------------------------------------------

_SAFE = (Trait.ELEMENTWISE, Trait.FLOAT_POLYMORPHIC, Trait.FINITE)


def _elementwise() -> None:
    op("Squash", domain=DOMAIN, arity=(1, 1),
       doc="The input, held between -1 and 1. Rounds nothing.",
       traits=(*_SAFE, Trait.CHEAP, Trait.IDEMPOTENT, Trait.ROUNDS_ONCE),
       evaluate=lambda _node, inputs: [np.clip(inputs[0], -1, 1)])(_same)  # fmt: skip
    _each("Squash", lambda x: tirx.max(tirx.min(x, _like(1, x)), _like(-1, x)))

    op("Opposite", domain=DOMAIN, arity=(1, 1), traits=(*_SAFE, Trait.INVOLUTION),
       evaluate=lambda _node, inputs: [-inputs[0]])(_same)  # fmt: skip
    _each("Opposite", lambda x: -x)

    for name in STRUCTURAL:
        op(name, domain=DOMAIN, arity=(1, 1), traits=_SAFE,
           evaluate=lambda _node, inputs: [2 * inputs[0]])(_same)  # fmt: skip
        _each(name, lambda x: x + x)

    op("Square", domain=DOMAIN, arity=(1, 1),
       traits=(*_SAFE, Trait.NONNEGATIVE, Trait.IGNORES_ZERO_SIGN),
       evaluate=lambda _node, inputs: [inputs[0] * inputs[0]])(_same)  # fmt: skip
    _each("Square", lambda x: x * x)

    op("Hinge", domain=DOMAIN, arity=(1, 1), traits=(*_SAFE, Trait.NOT_BELOW_ZERO),
       evaluate=lambda _node, inputs: [np.maximum(inputs[0], 0)])(_same)  # fmt: skip
    _each("Hinge", lambda x: tirx.max(x, _like(0, x)))

    op("Inverse", domain=DOMAIN, arity=(1, 1), traits=(Trait.ELEMENTWISE, Trait.FLOAT_POLYMORPHIC),
       evaluate=lambda _node, inputs: [1 / inputs[0]])(_same)  # fmt: skip
    _each("Inverse", lambda x: _like(1, x) / x)

    op("Plus", domain=DOMAIN, arity=(2, 2), evaluate=lambda _node, inputs: [inputs[0] + inputs[1]],
       traits=(*_SAFE, Trait.BROADCASTS, Trait.COMMUTATIVE, Trait.ASSOCIATIVE, Trait.ADDITIVE,
               Trait.KEEPS_NONNEGATIVE))(_broadcast)  # fmt: skip
    lowering(_own("Plus"))(lowerings.lowering_of("Add"))  # type: ignore[arg-type]

    op("AddRow", domain=DOMAIN, arity=(2, 2), traits=(*_SAFE, Trait.FIXED_RANKS),
       evaluate=lambda _node, inputs: [inputs[0] + inputs[1]],
       doc="The input and a row [C] along its last axis.")(_with_row)  # fmt: skip
    lowering(_own("AddRow"))(lowerings.lowering_of("Add"))  # type: ignore[arg-type]

    op("Whole", domain=DOMAIN, arity=(1, 1),
       traits=(Trait.ELEMENTWISE, Trait.CONVERTS, Trait.ROUNDS_ONCE),
       evaluate=lambda _node, inputs: [inputs[0].astype(np.int32)])(
           lambda ctx: [ctx.tensor(0).with_dtype("int32")])  # fmt: skip
    _each("Whole", lambda x: cast(x, "int32"))


def _with_row(ctx: InferContext) -> list[Type]:
    if ctx.tensor(1).rank != 1:
        raise ctx.error("the row has one axis")
    ctx.require_equal(ctx.tensor(1).dims[0], ctx.tensor(0).dims[-1], "a row as long as the axis")
    return [ctx.tensor(0)]


def _like(number: float, x: Any) -> Any:
    return tirx.const(number, x.ty.dtype)


def _broadcast(ctx: InferContext) -> list[Type]:
    a, b = ctx.tensor(0), ctx.tensor(1)
    return [a.with_shape(ctx.broadcast(a.dims, b.dims))]


# ---- quantized -----------------------------------------------------------------------------------


def _quantized() -> None:
    op("Rescale", domain=DOMAIN, arity=(2, 2),
       traits=(Trait.GRANULAR, Trait.FINITE, Trait.PARAMETRIC),
       evaluate=lambda _node, inputs: [inputs[0] * inputs[1]])(_same)  # fmt: skip
    lowering(_own("Rescale"))(lowerings.lowering_of("Mul"))  # type: ignore[arg-type]

    # Inputs: x, its zero point, the zero point of the result.
    op("Recentre", domain=DOMAIN, arity=(3, 3), zero_points={1: 0}, result_zero_point=2,
       traits=(Trait.ELEMENTWISE, Trait.FINITE, Trait.ONE_BYTE_TYPE),
       evaluate=_recentre)(_same)  # fmt: skip

    # Inputs: x, and a table of a result for each byte.
    op("Translate", domain=DOMAIN, arity=(2, 2), traits=(Trait.TABULAR, Trait.FINITE),
       evaluate=lambda _node, inputs: [inputs[1][inputs[0]]])(
           lambda ctx: [ctx.tensor(0).with_dtype(ctx.tensor(1).dtype)])  # fmt: skip
    lowering(_own("Translate"))(lowerings.lowering_of("kiln.MapBytes"))  # type: ignore[arg-type]


def _recentre(_node: Node, inputs: list[Any]) -> list[Any]:
    x, before, after = (a.astype(np.int32) for a in inputs)
    limits = np.iinfo(inputs[0].dtype)
    return [np.clip(x - before + after, limits.min, limits.max).astype(inputs[0].dtype)]


# ---- movement ------------------------------------------------------------------------------------


def _movement() -> None:
    moved = (Trait.INJECTIVE, Trait.PICKS)
    op("Mirror", domain=DOMAIN, arity=(1, 1), traits=(*moved, Trait.MOVEMENT),
       evaluate=lambda _node, inputs: [inputs[0][..., ::-1].copy()])(_same)  # fmt: skip

    @lowering(_own("Mirror"))
    def _mirror(ctx: LowerContext) -> TensorExpr:
        x = ctx.input(0)
        last = index(x.shape[-1]) - 1
        return ctx.lazy(lambda at: x[(*at[:-1], last - at[-1])], cost=x.cost)

    op("Neighbours", domain=DOMAIN, arity=(1, 1), traits=(Trait.SOURCE,),
       evaluate=lambda _node, inputs: [inputs[0] + np.roll(inputs[0], -1, -1)])(_same)  # fmt: skip

    @lowering(_own("Neighbours"))
    def _neighbours(ctx: LowerContext) -> TensorExpr:
        x = ctx.input(0)
        size = index(x.shape[-1])
        return ctx.lazy(lambda at: x[at] + x[(*at[:-1], tirx.floormod(at[-1] + 1, size))], cost=3)

    op("Beside", domain=DOMAIN, arity=(2, 2), traits=(Trait.INJECTIVE, Trait.SELECTS, Trait.JOIN),
       evaluate=lambda _node, inputs: [np.concatenate(inputs, -1)])(_beside)  # fmt: skip

    @lowering(_own("Beside"))
    def _lower_beside(ctx: LowerContext) -> TensorExpr:
        out = ctx.result()
        _store(ctx, out, ctx.input(0), index(0))
        _store(ctx, out, ctx.input(1), index(ctx.input(0).shape[-1]))
        return out

    op("Rows", domain=DOMAIN, arity=(1, 1), traits=(*moved, Trait.VIEW),
       evaluate=lambda _node, inputs: [inputs[0].reshape(-1, inputs[0].shape[-1])])(
           _rows)  # fmt: skip
    op("Same", domain=DOMAIN, arity=(1, 1), traits=(Trait.ALIAS,),
       evaluate=lambda _node, inputs: [inputs[0]])(_same)  # fmt: skip


def _store(ctx: LowerContext, out: BufferTensor, x: TensorExpr, start: Any) -> None:
    ctx.b.nest(x.shape, lambda at: out.store((*at[:-1], at[-1] + start), x[at]), 1 + x.cost)


def _beside(ctx: InferContext) -> list[Type]:
    a, b = ctx.tensor(0), ctx.tensor(1)
    return [a.with_shape((*a.dims[:-1], a.dims[-1] + b.dims[-1]))]


def _rows(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    rows = x.with_shape(x.dims[:-1]).numel
    return [x.with_shape((rows, x.dims[-1]))]


# ---- heavy ---------------------------------------------------------------------------------------


def _heavy() -> None:
    op("Total", domain=DOMAIN, arity=(1, 1),
       traits=(Trait.REDUCTION, Trait.SINGLE_PASS, Trait.UNORDERED_SUM, Trait.KEEPS_NONNEGATIVE),
       evaluate=lambda _node, inputs: [inputs[0].sum(-1)])(
           lambda ctx: [ctx.tensor(0).with_shape(ctx.tensor(0).dims[:-1])])  # fmt: skip

    @lowering(_own("Total"))
    def _total(ctx: LowerContext) -> TensorExpr:
        x, out = ctx.input(0), ctx.result()
        _sum(ctx, out, x.shape[-1], lambda at, k: x[(*at, k)])
        return out

    op("Everything", domain=DOMAIN, arity=(1, 1),
       traits=(Trait.REDUCTION, Trait.SINGLE_PASS, Trait.UNORDERED_SUM, Trait.SYMMETRIC),
       evaluate=lambda _node, inputs: [inputs[0].sum(keepdims=False)])(
           lambda ctx: [ctx.tensor(0).with_shape(())])  # fmt: skip

    @lowering(_own("Everything"))
    def _everything(ctx: LowerContext) -> TensorExpr:
        x, out = ctx.buffered(0), ctx.result()
        flat = ctx.b.view(x, (product(x.shape),))
        _sum(ctx, out, flat.shape[0], lambda _at, k: flat[(k,)])
        return out

    op("Mix", domain=DOMAIN, arity=(2, 2),
       traits=(Trait.ANCHOR, Trait.CONTRACTION, Trait.UNORDERED_SUM, Trait.FLOAT_POLYMORPHIC),
       flops=lambda node, inputs: 2 * node.out().tensor_type.numel * inputs[0].shape[-1],  # type: ignore[union-attr]
       summed_axes=lambda _node, i: (1,) if i < 2 else (), homogeneous=((1,),),
       evaluate=lambda _node, inputs: [inputs[0] @ inputs[1].T])(_mixed)  # fmt: skip

    @lowering(_own("Mix"))
    def _mix(ctx: LowerContext) -> TensorExpr:
        x, w, out = ctx.buffered(0), ctx.buffered(1), ctx.result()
        _sum(ctx, out, x.shape[-1], lambda at, k: x[at[0], k] * w[at[1], k])
        return out


def _sum(ctx: LowerContext, out: BufferTensor, count: Any, term: Any) -> None:
    def body(at: tuple[Any, ...]) -> None:
        total = ctx.b.scalar(out.compute_dtype, 0)
        with ctx.b.loop(count) as k:
            total.set(total.get() + term(at, k))
        out.store(at, total.get())

    ctx.b.nest(out.shape, body, 64, sequential_last=True)


def _mixed(ctx: InferContext) -> list[Type]:
    x, w = ctx.tensor(0), ctx.tensor(1)
    ctx.require_equal(x.dims[1], w.dims[1], "rows of one length")
    return [x.with_shape((x.dims[0], w.dims[0]))]


# ---- what is special about running ---------------------------------------------------------------


def _others() -> None:
    op("Shape", domain=DOMAIN, arity=(1, 1), traits=(Trait.SHAPE_ONLY,),
       evaluate=lambda _node, inputs: [np.float32(inputs[0].size)])(
           lambda _ctx: [tensor("float32")])  # fmt: skip

    @lowering(_own("Shape"))
    def _shape(ctx: LowerContext) -> TensorExpr:
        size = index(1)
        for extent in ctx.input(0).shape:
            size = size * index(extent)
        return ctx.lazy(lambda _at: cast(size, "float32"))

    op("Draw", domain=DOMAIN, arity=(1, 1), traits=(Trait.STOCHASTIC,),
       evaluate=lambda _node, inputs: [inputs[0]])(_same)  # fmt: skip
    op("Elsewhere", domain=DOMAIN, arity=(1, 1), traits=(Trait.HOST,),
       evaluate=lambda _node, inputs: [inputs[0]])(_same)  # fmt: skip
    op("Notice", domain=DOMAIN, arity=(1, 1), results=(0, 0), traits=(Trait.EFFECT,))(
        lambda _ctx: [])  # fmt: skip
    op("Repeat", domain=DOMAIN, arity=(1, 1), traits=(Trait.CONTROL_FLOW,))(_same)
