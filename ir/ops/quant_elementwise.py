"""Type inference of com.microsoft's element-wise ops on quantized tensors."""

from __future__ import annotations

from ..axes.movement import quantized_concat
from ..axes.reduce import softmax
from ..dims import Dim
from ..registry import InferContext, op
from ..shapes import normalize_axis
from ..traits import Trait
from ..types import Type
from . import quant_evaluate as evaluate
from .quant_conditions import require_single

_MS = "com.microsoft"


_ELEMENTWISE = (Trait.ELEMENTWISE, Trait.FINITE, Trait.ONE_BYTE_TYPE)


@op(
    "QLinearAdd",
    domain=_MS,
    arity=(7, 8),
    traits=_ELEMENTWISE,
    zero_points={2: 0, 5: 3},
    result_zero_point=7,
    evaluate=evaluate.qlinear_add,
)
@op("QLinearMul", domain=_MS, arity=(7, 8), traits=_ELEMENTWISE, zero_points={2: 0, 5: 3},
    result_zero_point=7, evaluate=evaluate.qlinear_mul)  # fmt: skip
def infer_qlinear_binary(c: InferContext) -> list[Type]:
    a, b = c.tensor(0), c.tensor(3)
    require_single(c, 1, 2, 4, 5, 6, 7)
    return [a.with_shape(c.broadcast_known(a.shape, b.shape))]


@op(
    "QLinearSigmoid",
    domain=_MS,
    arity=(4, 5),
    traits=_ELEMENTWISE,
    zero_points={2: 0},
    result_zero_point=4,
    evaluate=evaluate.qlinear_sigmoid,
)
@op(
    "QLinearLeakyRelu",
    domain=_MS,
    arity=(4, 5),
    traits=_ELEMENTWISE,
    zero_points={2: 0},
    result_zero_point=4,
    evaluate=evaluate.qlinear_leaky_relu,
    defaults={"alpha": 0.01},
)
def infer_qlinear_unary(c: InferContext) -> list[Type]:
    require_single(c, 1, 2, 3, 4)
    return [c.tensor(0)]


@op(
    "QLinearSoftmax",
    domain=_MS,
    arity=(5, 5),
    traits=(Trait.ONE_BYTE_TYPE,),
    zero_points={2: 0},
    result_zero_point=4,
    evaluate=evaluate.qlinear_softmax,
    defaults={"axis": -1, "opset": 13},
    axes=softmax,
)
def infer_qlinear_softmax(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    require_single(c, 1, 2, 3, 4)
    normalize_axis(c.attr("axis"), x.rank)
    return [x]


@op(
    "QLinearConcat",
    domain=_MS,
    arity=(5, 2**31),
    evaluate=evaluate.qlinear_concat,
    axes=quantized_concat,
)
def infer_qlinear_concat(c: InferContext) -> list[Type]:
    parts = [c.tensor(i) for i in range(2, len(c.inputs), 3)]
    axis = normalize_axis(c.attr("axis"), parts[0].rank)
    dims: list[Dim] = list(parts[0].dims)
    for part in parts[1:]:
        if part.rank != len(dims):
            raise c.error(f"{parts[0]} and {part} have different ranks")
        for i, d in enumerate(part.dims):
            if i == axis:
                dims[i] = dims[i] + d
            else:
                c.require_equal(dims[i], d, "inputs that differ along its axis only")
    return [parts[0].with_shape(tuple(dims))]
