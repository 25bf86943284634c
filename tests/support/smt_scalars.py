"""What elementwise ops mean in z3's theories: bit-vectors for integers, IEEE floats for floats.

``==`` of z3 terms of float sorts is equality of all bits, with one NaN, as "exact" means it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import z3

from graphkiln.ir.graph import Node
from graphkiln.ir.onnx_types import element_type
from graphkiln.ir.registry import attribute
from graphkiln.ir.types import DType

Term = Any

RNE = z3.RNE()

FORMATS = {"float16": (5, 11), "bfloat16": (8, 8), "float32": (8, 24), "float64": (11, 53)}


def sort_of(t: DType) -> z3.SortRef:
    """The z3 sort of an element type."""
    if t.kind == "b":
        return z3.BoolSort()
    return z3.FPSort(*FORMATS[t.name]) if t.is_float else z3.BitVecSort(t.bits)


def literal(number: Any, t: DType) -> Term:
    """A constant of an element type."""
    if t.kind == "b":
        return z3.BoolVal(bool(number))
    return z3.FPVal(float(number), sort_of(t)) if t.is_float else z3.BitVecVal(int(number), t.bits)


def cast(x: Term, source: DType, target: DType) -> Term:
    """Cast, where the result is defined."""
    if source == target:
        return x
    if source.kind == "b":
        return z3.If(x, literal(1, target), literal(0, target))
    if target.kind == "b":
        return x != literal(0, source) if source.is_integer else z3.Not(z3.fpIsZero(x))
    if source.is_integer and target.is_integer:
        more = target.bits - source.bits
        if more <= 0:
            return z3.Extract(target.bits - 1, 0, x)
        return (z3.SignExt if source.kind == "i" else z3.ZeroExt)(more, x)
    if source.is_integer:
        convert = z3.fpSignedToFP if source.kind == "i" else z3.fpUnsignedToFP
        return convert(RNE, x, sort_of(target))
    if target.is_integer:
        convert = z3.fpToSBV if target.kind == "i" else z3.fpToUBV
        return convert(z3.RTZ(), x, sort_of(target))
    return z3.fpFPToFP(RNE, x, sort_of(target))


def less(a: Term, b: Term, t: DType) -> Term:
    if t.is_float:
        return z3.fpLT(a, b)
    return a < b if t.kind == "i" else z3.ULT(a, b)


def _both(of_floats: Callable[..., Term], of_integers: Callable[..., Term]) -> Any:
    def meaning(t: DType, *operands: Term) -> Term:
        result = operands[0]
        for other in operands[1:]:
            result = of_floats(result, other) if t.is_float else of_integers(result, other)
        return result

    return meaning


def _maximum(t: DType, *operands: Term) -> Term:
    """NaN where an operand is; either zero may win."""
    result = operands[0]
    for other in operands[1:]:
        larger = z3.If(less(result, other, t), other, result)
        result = z3.If(z3.fpIsNaN(other), other, larger) if t.is_float else larger
    return result


def _minimum(t: DType, *operands: Term) -> Term:
    result = operands[0]
    for other in operands[1:]:
        smaller = z3.If(less(other, result, t), other, result)
        result = z3.If(z3.fpIsNaN(other), other, smaller) if t.is_float else smaller
    return result


def _divide(t: DType, a: Term, b: Term) -> Term:
    if t.is_float:
        return z3.fpDiv(RNE, a, b)
    return a / b if t.kind == "i" else z3.UDiv(a, b)


def _sign(t: DType, x: Term) -> Term:
    zero = literal(0, t)
    one = z3.If(less(zero, x, t), literal(1, t), x)
    return z3.If(less(x, zero, t), literal(-1, t), one) if t.kind != "u" else one


def _rounded(mode: Any) -> Callable[..., Term]:
    return lambda t, x: z3.fpRoundToIntegral(mode, x)


def _mean(t: DType, *operands: Term) -> Term:
    return _divide(t, _ADD(t, *operands), literal(len(operands), t))


def _relu(t: DType, x: Term) -> Term:
    return z3.If(less(x, literal(0, t), t), literal(0, t), x)


def _clip(t: DType, x: Term, low: Term | None = None, high: Term | None = None) -> Term:
    if low is not None:
        x = z3.If(less(x, low, t), low, x)
    return x if high is None else z3.If(less(high, x, t), high, x)


_ADD = _both(lambda a, b: z3.fpAdd(RNE, a, b), lambda a, b: a + b)

MEANINGS: dict[str, Callable[..., Term]] = {
    "Add": _ADD,
    "Sub": _both(lambda a, b: z3.fpSub(RNE, a, b), lambda a, b: a - b),
    "Mul": _both(lambda a, b: z3.fpMul(RNE, a, b), lambda a, b: a * b),
    "Div": _divide,
    "Sum": _ADD,
    "Mean": _mean,
    "Max": _maximum,
    "Min": _minimum,
    "Neg": lambda t, x: z3.fpNeg(x) if t.is_float else -x,
    "Abs": lambda t, x: z3.fpAbs(x) if t.is_float else z3.If(x < 0, -x, x),
    "Sqrt": lambda t, x: z3.fpSqrt(RNE, x),
    "Relu": _relu,
    "Clip": _clip,
    "Ceil": _rounded(z3.RTP()),
    "Floor": _rounded(z3.RTN()),
    "Round": _rounded(RNE),
    "Sign": _sign,
    "Identity": lambda t, x: x,
    "Not": lambda t, x: z3.Not(x),
    "BitwiseNot": lambda t, x: ~x,
    "Greater": lambda t, a, b: less(b, a, t),
    "Less": lambda t, a, b: less(a, b, t),
    "Equal": lambda t, a, b: z3.fpEQ(a, b) if t.is_float else a == b,
}
"""By op: the meaning of one element, given the element type of the operands and the operands."""


def apply(node: Node, types: Sequence[DType], operands: Sequence[Term | None]) -> Term | None:
    """One element of the first result of ``node``; None for ops that have no meaning here."""
    given = [o for o in operands if o is not None]
    if node.key == "Cast":
        target = element_type(int(attribute(node, "to")))
        return cast(given[0], types[0], target)
    if node.key == "Where":
        return z3.If(*given)
    meaning = MEANINGS.get(node.key)
    if meaning is None:
        return None
    return meaning(types[0], *(operands if node.key == "Clip" else given))
