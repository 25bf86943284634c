"""Layer normalisation over the last axes.

    d = x - mean(x);  y = d / sqrt(mean(d^2) + epsilon) * scale + bias

Source: Ba, Kiros and Hinton, "Layer Normalization"; ONNX LayerNormalization (opset 17). The core
is recognised first, with a scale of ones; then a scale and a bias that follow it move in.
"""

from __future__ import annotations

import numpy as np

from ...ir.axes.query import reduced_axes
from ...ir.dims import is_static
from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.types import to_numpy_dtype
from ..claims import NORM, Claim, rounds
from ..pattern import Const, Either, Match, Op, Pattern, Rule, Var
from ..queries import splat
from .common import trailing

_X = Var("x")
_KEPT = {"keepdims": 1}
_D = Op("Sub", _X, Op("ReduceMean", _X, rest=True, attrs=_KEPT, name="mean"))
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def inverse_root(numerator: Pattern, variance: Pattern) -> Either:
    """``numerator / sqrt(variance + epsilon)`` in its usual spellings."""
    shifted = Op("Add", variance, Const("epsilon", scalar=True))
    root = Op("Sqrt", shifted)
    one = Const(value=1.0)
    inverses = (
        Op("Reciprocal", root),
        Op("Div", one, root),
        Op("Pow", shifted, Const(value=-0.5)),
    )
    return Either(Op("Div", numerator, root), *(Op("Mul", numerator, i) for i in inverses))


def _variance(square: Op) -> Op:
    return Op("ReduceMean", square, rest=True, attrs=_KEPT, name="variance")


_SQUARES = (Op("Mul", _D, _D), Op("Pow", _D, Const(value=2.0)))


def first_axis(m: Match, *nodes: str) -> int | None:
    """The first normalised axis, where the reductions agree and are over the last axes."""
    axes = {reduced_axes(m.graph, m.node(n)) for n in nodes}
    return trailing(next(iter(axes)), m["x"].rank) if len(axes) == 1 else None


def _normalises(m: Match) -> str | None:
    axis = first_axis(m, "mean", "variance")
    if axis is None:
        return "the means are not over the same last axes"
    return needs_static(m["x"], axis)


def needs_static(x: Value, axis: int) -> str | None:
    """An objection if the sizes from ``axis`` on, which a scale would have, are not known."""
    if x.dtype not in _FLOATS or not all(is_static(d) for d in x.shape[axis:]):
        return "the normalised axes are not static"
    return None


def ones(r: Editor, x: Value, axis: int) -> Value:
    return r.constant(np.ones(x.shape[axis:], to_numpy_dtype(x.dtype)))


def _core(m: Match, r: Editor) -> Value:
    axis = first_axis(m, "mean", "variance")
    epsilon = splat(m["epsilon"])
    assert axis is not None and epsilon is not None
    scale = ones(r, m["x"], axis)
    return r.op("LayerNormalization", m["x"], scale, axis=axis, epsilon=float(epsilon))


# ---- scale and bias ------------------------------------------------------------------------------


def parameter(m: Match, r: Editor, c: Value) -> Value:
    """Constant ``c`` in the shape of the norm's scale."""
    array, scale = c.constant, m["scale"]
    assert array is not None
    return r.constant(np.ascontiguousarray(np.broadcast_to(array, _full(c, scale)))
                      .reshape(scale.tensor_type.static_shape), c.name)  # fmt: skip


def _full(c: Value, scale: Value) -> tuple[int, ...]:
    extra = max(0, c.rank - scale.rank)
    return (1,) * extra + scale.tensor_type.static_shape


def fits(m: Match) -> str | None:
    """An objection if ``c`` is no parameter of the normalised axes."""
    if m.root.out().type != m.node("norm").out().type:
        return "the constant broadcasts the result"
    if not m["scale"].tensor_type.is_static:
        return "the scale's shape is not static"
    c, full = m["c"].tensor_type.static_shape, _full(m["c"], m["scale"])
    padded = (1,) * (len(full) - len(c)) + c
    if any(d not in (1, n) for d, n in zip(padded, full, strict=True)):
        return "the constant varies along other axes"
    return None


def unit_scale(m: Match) -> str | None:
    return fits(m) if splat(m["scale"]) == 1 else "it has a scale already"


def scaled(m: Match, r: Editor) -> Value:
    norm = m.node("norm")
    return r.node(norm.op, [m["x"], parameter(m, r, m["c"])], dict(norm.attrs)).out()


def _biased(m: Match, r: Editor) -> Value:
    norm = m.node("norm")
    inputs = [m["x"], m["scale"], parameter(m, r, m["c"])]
    return r.node(norm.op, inputs, dict(norm.attrs)).out()


_NORM = Op("LayerNormalization", _X, Const("scale"), name="norm")


def core_rules(name: str, numerator: Pattern, variances: tuple[Op, ...], replace: object,
               when: object, claim: Claim) -> list[Rule]:  # fmt: skip
    """One rule for each spelling of ``numerator / sqrt(variance + epsilon)``."""
    rules = []
    for variance in variances:
        for tree in inverse_root(numerator, variance).choices:
            assert isinstance(tree, Op)
            rules.append(Rule(name, tree, replace, when, claim=claim))  # type: ignore[arg-type]
    return rules


RULES = (
    *core_rules(
        "layer-norm",
        _D,
        tuple(_variance(s) for s in _SQUARES),
        _core,
        _normalises,
        rounds("(x - mean x) / sqrt(var x + e) = layernorm(x)", NORM),
    ),
    Rule(
        "layer-norm-scale",
        Op("Mul", _NORM, Const("c")),
        scaled,
        unit_scale,
        claim=rounds("layernorm(x) * c = layernorm(x, c)", NORM),
    ),
    Rule(
        "layer-norm-bias",
        Op("Add", _NORM, Const("c")),
        _biased,
        fits,
        claim=rounds("layernorm(x, s) + c = layernorm(x, s, c)", NORM),
    ),
)
