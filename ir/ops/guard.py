"""What a run checks: ``kiln.Assert`` of sizes, ``kiln.Require`` and ``kiln.Within`` of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import OperandError
from ..axes.pointwise import first_elementwise
from ..conditions import Relation
from ..dims import Dim
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..traits import Trait
from ..types import TensorType, Type, tensor

# ---- sizes ---------------------------------------------------------------------------------------


def _evaluate_assert(node: Node, _inputs: list[Any]) -> list[Any]:
    a, b = node.attrs["a"], node.attrs["b"]
    assert isinstance(a, int) and isinstance(b, int), "the interpreter binds symbols"
    if not Relation(node.attrs["relation"]).holds(a, b):
        raise OperandError(f"{node.attrs['message']}: {a} and {b}")
    return []


@op(
    "Assert", domain="kiln", arity=(0, 0), results=(0, 0), evaluate=_evaluate_assert,
    defaults={"hint": ""}, traits=(Trait.EFFECT,),
    doc="No result: running fails unless ``a`` stands in ``relation`` to ``b`` (dims; relations "
    "are ``==``, ``<=``, ``multiple of``, ``broadcasts with``, ``broadcasts to``). It is checked "
    "as soon as the sizes are known, before anything that depends on them. The error starts with "
    "``message`` and ends with ``hint``.",
)  # fmt: skip
def _infer_assert(ctx: InferContext) -> list[Type]:
    if not all(isinstance(ctx.attr(name), Dim) for name in ("a", "b")):
        raise ctx.error("a and b must be dims")
    if not isinstance(ctx.attr("message"), str):
        raise ctx.error("needs a message")
    Relation(ctx.attr("relation"))
    return []


# ---- values --------------------------------------------------------------------------------------


def _evaluate_require(node: Node, inputs: list[Any]) -> list[Any]:
    if not bool(np.asarray(inputs[1]).reshape(())):
        raise OperandError(f"{node.attrs['message']}, which does not hold for these inputs")
    return [inputs[0]]


@op(
    "Require", domain="kiln", arity=(2, 2), evaluate=_evaluate_require,
    propagate=lambda _ctx, arrays: [arrays[0]], traits=(Trait.ALIAS,),
    doc="The first input as it is, where the second (a bool scalar) is true; elsewhere running "
    "fails, and the error starts with ``message``.",
    axes=first_elementwise,
)  # fmt: skip
def _infer_require(ctx: InferContext) -> list[Type]:
    value, condition = ctx.inputs
    if value is None or not isinstance(ctx.attr("message"), str):
        raise ctx.error("needs a value and a message")
    if not isinstance(condition, TensorType) or condition.dtype.name != "bool":
        raise ctx.error(f"the condition must be a bool scalar, not {condition}")
    if condition.rank != 0:
        raise ctx.error(f"the condition must be a bool scalar, not {condition}")
    return [value]


def _evaluate_within(node: Node, inputs: list[Any]) -> list[Any]:
    x = inputs[0].reshape(-1)[attribute(node, "offset") :: attribute(node, "stride")]
    low, high = attribute(node, "low"), attribute(node, "high")
    fits = np.ones(x.shape, bool)
    if low is not None:
        fits &= x >= low
    if high is not None:
        fits &= x <= high
    if attribute(node, "below") is not None:
        fits &= x < attribute(node, "below")
    if attribute(node, "nonzero"):
        fits &= x != 0
    if attribute(node, "or_one"):
        fits |= x == 1
    modulus = attribute(node, "apart")
    if modulus is not None and np.unique(x % modulus).size < x.size:
        return [np.asarray(False)]
    return [np.asarray(fits.all())]


@op(
    "Within", domain="kiln", arity=(1, 1), evaluate=_evaluate_within, traits=(Trait.REDUCTION,),
    defaults={
        "low": None, "high": None, "below": None, "nonzero": False, "or_one": False, "apart": None,
        "stride": 1, "offset": 0,
    },
    doc="Do all elements of a tensor of integers or floats lie between ``low`` and ``high`` (dims; "
    "both count, none is no bound), are they less than ``below``, and other than 0 where "
    "``nonzero``? With ``or_one``, 1 is right as well. Are no two equal modulo ``apart``? A bool "
    "scalar; NaN lies in no bounds. Only each ``stride``-th of the elements in order counts, from "
    "element ``offset`` on.",
)  # fmt: skip
def _infer_within(ctx: InferContext) -> list[Type]:
    if not (ctx.tensor(0).dtype.is_integer or ctx.tensor(0).dtype.is_float):
        raise ctx.error(f"the input must hold numbers, not {ctx.tensor(0).dtype}")
    return [tensor("bool")]
