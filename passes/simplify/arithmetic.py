"""Arithmetic with neutral constants, and constants that combine without rounding.

x*1 = x    x/1 = x    x+0 = x    x-0 = x    x^1 = x    x^2 = x*x    x^0.5 = sqrt(x)
max(x, -inf) = x    min(x, inf) = x
-(-x) = x    not(not x) = x    f(f(x)) = f(x)    f idempotent

Integers wrap around, so their constants always combine: (x*a)*b = x*(a*b), (x+a)+b = x+(a+b).
Floats round after each step, and a later Floor or comparison shows it; so only powers of two move:

x/a = x*(1/a)          a a power of two: both are one rounding of the same number
(x*a)*b = x*(a*b)      a a power of two of at least 1, b of magnitude 1 or more: x*a is exact
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.registry import attribute, has_trait
from ...ir.traits import Trait
from ..claims import Family, exact, proved, rounds
from ..float_signs import is_sum, never_negative_zero, not_negative, zeros_look_alike
from ..pattern import Const, Match, Op, Rule, Var
from ..precision import FLOATS, least_normal
from .movement import same_type


def _x(m: Match, _: Editor) -> Value:
    return m["x"]


def _operand(m: Match, name: str) -> np.ndarray:
    array = m[name].constant
    assert array is not None
    return array


# ---- zeros ---------------------------------------------------------------------------------------


def _is_zero(m: Match) -> str | None:
    return same_type(m) or (None if not np.any(_operand(m, "c")) else "it is not zero")


def _adds_nothing(m: Match) -> str | None:
    """An objection where adding or subtracting this zero would turn -0 into +0."""
    if not m.root.out().tensor_type.dtype.is_float:
        return _is_zero(m)
    neutral = m.root.op == "Add"
    if np.all(np.signbit(_operand(m, "c").astype(np.float64)) == neutral):
        return _is_zero(m)
    if never_negative_zero(m.graph, m["x"]) or zeros_look_alike(m.graph, m.root.out()):
        return _is_zero(m)
    return "-0 + 0 is +0"


def _adds_to_sum(m: Match) -> str | None:
    return _is_zero(m) if is_sum(m.graph, m["x"]) else "its zeros have signs"


# ---- combining constants -------------------------------------------------------------------------


def _combinable(m: Match) -> str | None:
    t = m.root.out().tensor_type.dtype
    a, b = _operand(m, "a"), _operand(m, "b")
    if np.broadcast_shapes(a.shape, b.shape) not in (a.shape, b.shape):
        return "the combined constant would be larger than either"
    if t.is_integer:
        return None
    if t.name not in FLOATS or m.root.op == "Add":
        return "each step rounds"
    return _scales_exactly(a, b)


def _scales_exactly(a: np.ndarray, b: np.ndarray) -> str | None:
    """An objection where ``(x*a)*b`` may round otherwise than ``x*(a*b)``."""
    with np.errstate(all="ignore"):
        both = a * b
    if not all(np.isfinite(v.astype(np.float64)).all() for v in (a, b, both)):
        return "the combined constant is not finite"
    grows = all(np.all(np.abs(v) >= 1) for v in (a, b))
    return None if grows and np.all(_is_power(a)) else "the first product rounds or may underflow"


def _is_power(array: np.ndarray) -> np.ndarray:
    """Which elements are powers of two, or their negatives."""
    mantissa: np.ndarray = np.abs(np.frexp(array.astype(np.float64))[0]) == 0.5
    return mantissa


def _combined(m: Match, r: Editor) -> Value:
    a, b = _operand(m, "a"), _operand(m, "b")
    with np.errstate(over="ignore"):
        both = np.multiply(a, b) if m.root.op == "Mul" else np.add(a, b)
    return r.op(m.root.op, m["x"], r.constant(np.asarray(both, a.dtype)))


def _invertible(m: Match) -> str | None:
    c = _operand(m, "c")
    if m.root.out().dtype not in FLOATS:
        return "integers are divided"
    if m.root.out().type != m["x"].type and c.size != 1:
        return "the divisor has the larger shape"
    if not np.all(_is_power(c)):
        return "the divisor is no power of two, so that its inverse rounds"
    with np.errstate(all="ignore"):
        inverse = np.abs((1 / c).astype(c.dtype))
    normal = (inverse >= least_normal(c.dtype)) & np.isfinite(inverse.astype(np.float64))
    return None if np.all(normal) else "1/divisor is not a normal number"


def _by_inverse(m: Match, r: Editor) -> Value:
    c = _operand(m, "c")
    return r.op("Mul", m["x"], r.constant((1 / c).astype(c.dtype)))


# ---- powers --------------------------------------------------------------------------------------


def _squares(m: Match) -> str | None:
    kinds = {v.tensor_type.dtype.is_float for v in m.graph.required_inputs(m.root)}
    return same_type(m) or (None if len(kinds) == 1 else "an integer becomes a float in between")


def _rootable(m: Match) -> str | None:
    if m.root.out().dtype not in ("float32", "float64"):
        return "not float32 or float64"
    if not not_negative(m.graph, m["x"]):
        return "roots of -0 and of minus infinity are not powers"
    return same_type(m)


# ---- twice ---------------------------------------------------------------------------------------


def _twice(m: Match) -> str | None:
    inner, outer = m["y"].node, m.root
    if inner.key != outer.key:
        return "its input is another op"
    names = inner.attrs.keys() | outer.attrs.keys()
    same = all(np.array_equal(attribute(inner, k), attribute(outer, k)) for k in names)
    return None if same else "its input has other attributes"


def _once(m: Match, _r: Editor) -> Value | None:
    y = m["y"]
    return m.graph.input(y.node, 0) if has_trait(m.root, Trait.INVOLUTION) else y


_ONE = Const(value=1.0)

RULES = (
    Rule("mul-one", Op("Mul", Var("x"), _ONE), _x, same_type, claim=proved("x * 1 = x")),
    Rule("div-one", Op("Div", Var("x"), _ONE), _x, same_type, claim=proved("x / 1 = x")),
    Rule(
        "add-zero",
        Op("Add", Var("x"), Const("c")),
        _x,
        _adds_nothing,
        claim=proved("x + 0 = x, where x is never -0, or the zero is, or no use tells"),
    ),
    Rule(
        "sub-zero",
        Op("Sub", Var("x"), Const("c")),
        _x,
        _adds_nothing,
        claim=proved("x - 0 = x, where x is never -0, or the zero is +0, or no use tells"),
    ),
    Rule(
        "sum-zero",
        Op("Add|Sub", Var("x"), Const("c")),
        _x,
        _adds_to_sum,
        claim=rounds(
            "x + 0 = x, x a sum of products",
            "0 ulp; a zero may have the other sign",
            Family.ELEMENTWISE,
        ),
    ),
    Rule(
        "pow-one",
        Op("Pow", Var("x"), _ONE),
        _x,
        same_type,
        claim=exact("x ^ 1 = x", "solvers know no powers of floats", Family.ELEMENTWISE),
    ),
    Rule(
        "max-lowest",
        Op("Max", Var("x"), Const(value=-np.inf)),
        _x,
        same_type,
        claim=proved("max(x, -inf) = x"),
    ),
    Rule(
        "min-highest",
        Op("Min", Var("x"), Const(value=np.inf)),
        _x,
        same_type,
        claim=proved("min(x, inf) = x"),
    ),
    Rule(
        "pow-two",
        Op("Pow", Var("x"), Const(value=2.0)),
        lambda m, r: r.op("Mul", m["x"], m["x"]),
        _squares,
        claim=rounds(
            "x ^ 2 = x * x", "1 ulp: the product is the rounded power", Family.ELEMENTWISE
        ),
    ),
    Rule(
        "pow-half",
        Op("Pow", Var("x"), Const(value=0.5)),
        lambda m, r: r.op("Sqrt", m["x"]),
        _rootable,
        claim=rounds(
            "x ^ 0.5 = sqrt x, x not negative",
            "1 ulp: the root is the rounded power",
            Family.ELEMENTWISE,
        ),
    ),
    Rule(
        "mul-mul",
        Op("Mul", Op("Mul", Var("x"), Const("a")), Const("b")),
        _combined,
        _combinable,
        claim=proved("(x * a) * b = x * (a * b), integers, or a = 2^k >= 1 and |b| >= 1"),
    ),
    Rule(
        "add-add",
        Op("Add", Op("Add", Var("x"), Const("a")), Const("b")),
        _combined,
        _combinable,
        claim=proved("(x + a) + b = x + (a + b), integers"),
    ),
    Rule(
        "div-constant",
        Op("Div", Var("x"), Const("c")),
        _by_inverse,
        _invertible,
        claim=proved("x / c = x * (1 / c), c a power of two"),
    ),
    Rule(
        "twice",
        Op((Trait.INVOLUTION, Trait.IDEMPOTENT), Var("y")),
        _once,
        _twice,
        claim=proved("f(f(x)) = x or f(x): -(-x), not not x, floor floor x"),
    ),
    Rule(
        "one-operand",
        Op("Min|Max|Sum|Mean", Var("x")),
        _x,
        same_type,
        claim=proved("max(x) = x, and min, sum, mean of one"),
    ),
)
