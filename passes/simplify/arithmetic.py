"""Arithmetic with neutral and combinable constants.

x*1 = x    x/1 = x    x+0 = x    x-0 = x    x^1 = x    x^2 = x*x    x^0.5 = sqrt(x)
(x*a)*b = x*(a*b)    (x+a)+b = x+(a+b)    x/a = x*(1/a)    a, b constants
max(x, -inf) = x    min(x, inf) = x
-(-x) = x    not(not x) = x    f(f(x)) = f(x)    f idempotent
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Value
from ...ir.registry import has_trait
from ..pattern import Const, Match, Op, Rule, Var
from ..rewriter import Rewriter, splat
from .movement import same_type


def _x(m: Match, _: Rewriter) -> Value:
    return m["x"]


def _operand(m: Match, name: str) -> np.ndarray:
    array = m[name].constant
    assert array is not None
    return array



def _float(m: Match) -> bool:
    return m.root.out().dtype in ("float32", "float64")


# ---- combining constants -------------------------------------------------------------------------


def _combinable(m: Match) -> str | None:
    if not _float(m):
        return "only float32 and float64 are combined"
    a, b = _operand(m, "a"), _operand(m, "b")
    if np.broadcast_shapes(a.shape, b.shape) not in (a.shape, b.shape):
        return "the combined constant would be larger than either"
    return None


def _combined(m: Match, r: Rewriter) -> Value:
    a, b = _operand(m, "a"), _operand(m, "b")
    both = a * b if m.root.op == "Mul" else a + b
    return r.op(m.root.op, m["x"], r.constant(both.astype(a.dtype)))


def _invertible(m: Match) -> str | None:
    if not _float(m):
        return "only float32 and float64 are inverted"
    if m.root.out().type != m["x"].type and splat(m["c"]) is None:
        return "the divisor has the larger shape"
    with np.errstate(all="ignore"):
        inverse = 1 / _operand(m, "c")
    info = np.finfo(inverse.dtype)
    small = np.abs(inverse) < info.tiny
    return "1/divisor is not a normal number" if np.any(~np.isfinite(inverse) | small) else None


def _by_inverse(m: Match, r: Rewriter) -> Value:
    c = _operand(m, "c")
    return r.op("Mul", m["x"], r.constant((1 / c).astype(c.dtype)))


# ---- twice ---------------------------------------------------------------------------------------

_UNARY = "Neg|Not|BitwiseNot|Abs|Relu|Ceil|Floor|Round|Sign|Identity"


def _twice(m: Match) -> str | None:
    x = m.graph.input(m.root, 0)
    if x is None or x.node.key != m.root.key:
        return "its input is another op"
    if has_trait(m.root, "involution") or has_trait(m.root, "idempotent"):
        return None
    return "not an involution, not idempotent"


def _once(m: Match, r: Rewriter) -> Value | None:
    inner = m.graph.input(m.root, 0)
    assert inner is not None
    return m.graph.input(inner.node, 0) if has_trait(m.root, "involution") else inner


def _one_input(m: Match) -> str | None:
    return same_type(m)


RULES = (
    Rule("mul-one", Op("Mul", Var("x"), Const(value=1.0)), _x, same_type),
    Rule("div-one", Op("Div", Var("x"), Const(value=1.0)), _x, same_type),
    Rule("add-zero", Op("Add", Var("x"), Const(value=0.0)), _x, same_type),
    Rule("sub-zero", Op("Sub", Var("x"), Const(value=0.0)), _x, same_type),
    Rule("pow-one", Op("Pow", Var("x"), Const(value=1.0)), _x, same_type),
    Rule("max-lowest", Op("Max", Var("x"), Const(value=-np.inf)), _x, same_type),
    Rule("min-highest", Op("Min", Var("x"), Const(value=np.inf)), _x, same_type),
    Rule(
        "pow-two",
        Op("Pow", Var("x"), Const(value=2.0)),
        lambda m, r: r.op("Mul", m["x"], m["x"]),
        same_type,
    ),
    Rule(
        "pow-half",
        Op("Pow", Var("x"), Const(value=0.5)),
        lambda m, r: r.op("Sqrt", m["x"]),
        lambda m: same_type(m) or (None if _float(m) else "not float32 or float64"),
    ),
    Rule(
        "mul-mul",
        Op("Mul", Op("Mul", Var("x"), Const("a")), Const("b")),
        _combined,
        _combinable,
    ),
    Rule(
        "add-add",
        Op("Add", Op("Add", Var("x"), Const("a")), Const("b")),
        _combined,
        _combinable,
    ),
    Rule("div-constant", Op("Div", Var("x"), Const("c")), _by_inverse, _invertible),
    Rule("twice", Op(_UNARY, Var("y")), _once, _twice),
    Rule("one-operand", Op("Min|Max|Sum|Mean", Var("x")), _x, _one_input),
)
