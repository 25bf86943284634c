"""Where the scales of quantisers go that integer ops do not take.

    Conv(DQ(x, s), DQ(w, t)) = Conv(DQ(x, 1), DQ(w, s*t))     depthwise, s by channel
    Q(y, s) = Q(y / s, 1)                                     s by channel
    DQ(x, s) = DQ(x, 1) * s                                   s by channel
    (c*a + b) / s = c*(a/s) + b/s                             c the sums of an integer op
    Q(c*a + b, s) = Q(c*(a/s) + b/s, 1)

NNCF quantises by channel what depthwise convolutions read, and keeps biases as floats. All zero
points of such a tensor have to be the same number.
"""

from __future__ import annotations

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Node, Value
from ..ir.registry import attribute
from ..ir.shapes import normalize_axis
from ..ir.types import BYTES
from .claims import STEP, Family, exact, rounds
from .pattern import Const, Match, Op, Rule, Var
from .precision import narrowed
from .queries import scale_and_zero, splat

_F32 = np.float32


def _array(value: Value) -> np.ndarray:
    """The numbers of a constant."""
    assert value.constant is not None
    return value.constant


def _is_by_channel(m: Match, node: Node) -> str | None:
    """An objection unless a QuantizeLinear or DequantizeLinear of ``x`` has bytes, constant float32
    scales along an axis, and one zero point.
    """
    scale, zero = scale_and_zero(m.graph, node)
    x, out = m["x"], node.out()
    data, floats = (x, out) if node.op == "DequantizeLinear" else (out, x)
    if data.dtype not in BYTES or attribute(node, "block_size"):
        return "it is not about bytes with scales along an axis"
    if scale.constant is None or scale.constant.size == 1:
        return "it has no constant scales by channel"
    if {scale.dtype, floats.dtype} != {"float32"} or attribute(node, "precision"):
        return "it is not computed in float32"
    if zero is not None and splat(zero) is None:
        return "its zero points differ"
    return None


def _one_scale(m: Match, r: Editor, node: Node, data: Value) -> Value:
    """The QuantizeLinear or DequantizeLinear with scale 1, of ``data``."""
    _, zero = scale_and_zero(m.graph, node)
    given = [data, r.constant(np.ones((), _F32))]
    if zero is not None:
        given.append(r.constant(_array(zero).flat[0]))
    return r.node(node.op, given, dict(node.attrs)).out()


def _along(m: Match, node: Node) -> np.ndarray:
    """The scales of a node, of a shape that broadcasts to its result."""
    scale, rank = _array(scale_and_zero(m.graph, node)[0]), node.out().rank
    axis = normalize_axis(int(attribute(node, "axis")), rank)
    return scale.reshape(*scale.shape, *(1,) * (rank - 1 - axis))


# ---- depthwise convolutions ----------------------------------------------------------------------


def _depthwise(m: Match) -> str | None:
    conv, dq, w = m.root, m.node("dq"), m.node("w")
    weight, (scale, zero) = m["weight"], scale_and_zero(m.graph, w)
    if normalize_axis(int(attribute(dq, "axis")), m["x"].rank) != 1:
        return "it is quantised along another axis than that of channels"
    if attribute(conv, "group") != m["x"].shape[1]:
        return "it is no depthwise convolution"
    if weight.constant is None or scale.constant is None or scale.dtype != "float32":
        return "its weights or their float32 scales are not constant"
    if zero is not None and zero.constant is None:
        return "the zero points of its weights are not constant"
    if attribute(w, "block_size"):
        return "its weights are quantised in blocks"
    if scale.constant.size > 1 and normalize_axis(int(attribute(w, "axis")), weight.rank) != 0:
        return "its weights are not quantised by filter"
    objection = _is_by_channel(m, dq)
    if objection is None and _filter_scales(m) is None:
        return "the scales leave float32"
    return objection


def _filter_scales(m: Match) -> np.ndarray | None:
    """The product of both scales for each filter; None where one does not fit float32."""
    data, weights = (_array(scale_and_zero(m.graph, m.node(name))[0]) for name in ("dq", "w"))
    by_filter = np.repeat(data, int(m["weight"].shape[0]) // data.size)
    return narrowed(by_filter.astype(np.float64) * weights.ravel(), weights.dtype)


def _to_weights(m: Match, r: Editor) -> Value:
    dq, w = m.node("dq"), m.node("w")
    scales, (_, zero) = _filter_scales(m), scale_and_zero(m.graph, w)
    assert scales is not None
    given = [m["weight"], r.constant(scales)]
    if zero is not None:
        given.append(r.constant(np.broadcast_to(_array(zero).ravel(), scales.shape).copy()))
    weights = r.node("DequantizeLinear", given, {**w.attrs, "axis": 0}).out()
    inputs = [_one_scale(m, r, dq, m["x"]), weights, *m.graph.inputs_of(m.root)[2:]]
    return r.node("Conv", inputs, dict(m.root.attrs)).out()


# ---- elsewhere -----------------------------------------------------------------------------------


def _divided(m: Match, r: Editor) -> Value:
    return _one_scale(m, r, m.root, r.op("Div", m["x"], r.constant(_along(m, m.root))))


def _multiplied(m: Match, r: Editor) -> Value:
    return r.op("Mul", _one_scale(m, r, m.root, m["x"]), r.constant(_along(m, m.root)))


def _computed(m: Match) -> str | None:
    return "they are weights" if m["x"].constant is not None else _is_by_channel(m, m.root)


# ---- scales of sums ------------------------------------------------------------------------------


def _scaled_sums(m: Match, r: Editor, scale: np.ndarray) -> Value:
    """``c*(a/s) + b/s``."""
    quotients = _quotients(m, scale)
    assert quotients is not None
    factor, *addend = map(r.constant, quotients)
    total = r.op("Mul", m.node("c").out(), factor)
    return r.op("Add", total, *addend) if addend else total


def _divisible(m: Match, scale: np.ndarray) -> str | None:
    """An objection where a quotient of constants overflows, or loses digits."""
    if scale.dtype != _F32 or m["a"].dtype != "float32":
        return "it is not computed in float32"
    return "the quotients leave float32" if _quotients(m, scale) is None else None


def _quotients(m: Match, scale: np.ndarray) -> list[np.ndarray] | None:
    """``a/s``, and ``b/s`` if there is an addend; None where one does not fit float32."""
    constants = [_array(v) for v in (m["a"], m.get("b")) if v is not None]
    with np.errstate(all="ignore"):
        wide = [c.astype(np.float64) / scale for c in constants]
    found = [q for w in wide if (q := narrowed(w, scale.dtype)) is not None]
    return found if len(found) == len(wide) else None


def _quotient(m: Match) -> str | None:
    if m.root.out().type != m.node("c").out().type:
        return "the scale broadcasts the sums"
    return _divisible(m, _array(m["s"]))


def _quantized_sums(m: Match) -> str | None:
    scale, zero = scale_and_zero(m.graph, m.root)
    array = scale.constant
    if array is None or array.size != 1 or m.root.out().dtype not in BYTES:
        return "it is not quantised to bytes with one constant scale"
    if attribute(m.root, "precision") or zero is not None and splat(zero) is None:
        return "it is not computed in float32, or its zero point is not constant"
    return "its scale is 1" if array.reshape(()) == 1 else _divisible(m, array.reshape(()))


def _by_quotient(m: Match, r: Editor) -> Value:
    return _scaled_sums(m, r, _array(m["s"]))


def _quantize_scaled(m: Match, r: Editor) -> Value:
    scale = _array(scale_and_zero(m.graph, m.root)[0]).reshape(())
    return _one_scale(m, r, m.root, _scaled_sums(m, r, scale))


_SUMS = Op("Cast", Op("ConvInteger|MatMulInteger", rest=True, shared=True), name="c", shared=True)
_SCALED = Op("Mul", _SUMS, Const("a"))
_SCALED_FORMS = (Op("Add", _SCALED, Const("b")), _SCALED)

_EXACTLY = "quotients by every scale are too hard for the solver"

DEPTHWISE_RULES = (
    Rule(
        "depthwise-scales",
        Op("Conv", Op("DequantizeLinear", Var("x"), name="dq", rest=True, shared=True),
           Op("DequantizeLinear", Var("weight"), name="w", rest=True, shared=True), rest=True),
        _to_weights, _depthwise,
        claim=rounds("Conv(DQ(x, s), DQ(w, t)) = Conv(DQ(x, 1), DQ(w, s t)), depthwise",
                     "(n + 4) u of the sum of the n products' magnitudes"),
    ),
)  # fmt: skip

RULES = (
    Rule("quantize-channels", Op("QuantizeLinear", Var("x"), rest=True), _divided, _computed,
         claim=exact("Q(y, s) = Q(y / s, 1), s by channel", _EXACTLY, Family.ELEMENTWISE)),
    Rule("dequantize-channels", Op("DequantizeLinear", Var("x"), rest=True), _multiplied, _computed,
         claim=exact("DQ(x, s) = DQ(x, 1) s, s by channel", _EXACTLY, Family.ELEMENTWISE)),
    *(Rule("divided-sums", Op("Div", form, Const("s")), _by_quotient, _quotient,
           claim=rounds("(c a + b) / s = c (a / s) + b / s", "4 u of |c a / s| + |b / s|"))
      for form in _SCALED_FORMS),
    *(Rule("quantized-sums", Op("QuantizeLinear", form, rest=True), _quantize_scaled,
           _quantized_sums,
           claim=rounds("Q(c a + b, s) = Q(c (a / s) + b / s, 1)", STEP))
      for form in _SCALED_FORMS),
)  # fmt: skip
