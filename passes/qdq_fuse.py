"""Integer arithmetic in place of the dequantise-compute-quantise form that models are stored in.

    Q(Conv(DQ(x), DQ(w), DQ(b)), sy, zy)  =  QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)
    Q(MatMul(DQ(a), DQ(b)), sy, zy)       =  QLinearMatMul(a, sa, za, b, sb, zb, sy, zy)
    Q(Gemm(DQ(a), DQ(b), DQ(c)), sy, zy)  =  QGemm(a, sa, za, b, sb, zb, c, sy, zy)
    Q(Add(DQ(a), DQ(b)), sy, zy)          =  QLinearAdd(a, sa, za, b, sb, zb, sy, zy)
    Conv(DQ(x), DQ(w), b)                 =  Cast(ConvInteger(x, w, zx, zw)) * (sx * sw) + b
    MatMul(DQ(a), DQ(b))                 =  Cast(MatMulInteger(a, b, za, zb)) * (sa * sb)

Q is QuantizeLinear, DQ is DequantizeLinear; :mod:`.quantizer_scales` has rules for scales by
channel and for those of sums. The last two rules are for results that no Q follows directly;
bounds such as Relu are after Q, where ``simplify`` moved them. The sums are exact integers, so a
result may differ by one step from that of floats. Targets without dot products of bytes are faster
with floats, so for them the pass does nothing unless ``always`` is set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Value
from ..ir.registry import attribute, spec
from ..ir.types import BYTES
from .base import Pass, PassContext, register_pass
from .claims import STEP, SUMS, Family, rounds
from .pattern import Const, Match, Op, Pattern, Rule, Var, rewrite
from .precision import FLOATS, ULPS, is_number
from .qdq_match import (
    channels_objection,
    is_normal,
    one_zero_point,
    product_scale,
    quantized,
    scale_of,
)
from .qdq_words import WORD_RULES, word_rules
from .quantizer_scales import DEPTHWISE_RULES
from .quantizer_scales import RULES as SCALE_RULES
from .queries import splat

# ---- conditions ----------------------------------------------------------------------------------


def _common(m: Match, key: str) -> str | None:
    if spec(key) is None:
        return f"{key} is not known"
    q = quantized(m, "q")
    if attribute(q.node, "block_size"):
        return "it is quantised in blocks"
    if not q.per_tensor:
        return "activations have several scales"
    if q.node.out().dtype not in BYTES:
        return "only 8-bit tensors are handled"
    return _operands_objection(m) or _extreme(m)


def _extreme(m: Match) -> str | None:
    """An objection if known scales overflow or underflow float32 when they are combined."""
    product, step = product_scale(m), scale_of(quantized(m, "q"))
    known = [] if product is None else [product, product if step is None else product / step]
    return None if all(map(is_normal, known)) else "the scales leave float32"


def _operands_objection(m: Match) -> str | None:
    x = quantized(m, "x")
    if any(attribute(m.node(name), "block_size") for name in ("x", "w")):
        return "it is quantised in blocks"
    if not x.per_tensor:
        return "activations have several scales"
    return None if x.data.dtype in BYTES else "only 8-bit tensors are handled"


def _bias_objection(m: Match) -> str | None:
    if "bias" in m.values:
        return _rounded_bias(m)[1]
    if "b" not in m.nodes:
        return None
    bias, product = quantized(m, "b"), product_scale(m)
    own = scale_of(bias)
    if product is None or own is None or bias.data.dtype != "int32":
        return "the bias is not int32 with a known scale"
    if bias.zero is not None and splat(bias.zero) != 0:
        return "the bias has a zero point"
    return _same_scale(own.reshape(-1), product, bias.scale.dtype)


def _same_scale(own: np.ndarray, product: np.ndarray, kind: str) -> str | None:
    """An objection if the bias has another scale than the rounded product of scales."""
    if own.size not in (1, product.size):
        return "the bias has other channels than the product"
    pairs = zip(np.broadcast_to(own, product.shape), product, strict=True)
    if all(is_number(float(a), float(b), kind) for a, b in pairs):
        return None
    return "the bias has another scale than the product"


def _conv(m: Match) -> str | None:
    return _common(m, "QLinearConv") or channels_objection(m) or _bias_objection(m)


def _matmul(m: Match) -> str | None:
    if quantized(m, "w").data.constant is None:
        # Integer dot products take weights that are packed ahead.
        return "its second operand is computed in the run"
    return _common(m, "QLinearMatMul") or channels_objection(m)


def _gemm(m: Match) -> str | None:
    node = m.node("linear")
    if attribute(node, "beta") != 1.0 or not attribute(node, "alpha"):
        return "beta is not 1, or alpha 0"
    return _common(m, "com.microsoft.QGemm") or channels_objection(m) or _bias_objection(m)


def _open(m: Match) -> str | None:
    """An objection to integer sums that are scaled in float afterwards (the last two rules)."""
    x, w = quantized(m, "x"), quantized(m, "w")
    objection = _operands_objection(m) or channels_objection(m)
    if objection is not None:
        return objection
    product = product_scale(m)
    if product is None or x.scale.dtype != "float32" or w.scale.dtype != "float32":
        return "the scales are not known"
    if not is_normal(product):
        return "the scales leave float32"
    if w.data.constant is None:
        return "the weights are not known"
    return None


def _add(m: Match) -> str | None:
    w = quantized(m, "w")
    if not w.per_tensor or w.data.dtype not in BYTES:
        return "operands are not 8-bit with one scale"
    return _common(m, "com.microsoft.QLinearAdd")


# ---- replacements --------------------------------------------------------------------------------


def _operands(m: Match, r: Editor) -> tuple[list[Value | None], list[Value | None]]:
    """Data, scale and zero point of both operands; scale and zero point of the result."""
    inputs: list[Value | None] = []
    for name in ("x", "w"):
        q = quantized(m, name)
        inputs += [q.data, q.scale, q.zero_point(r, q.data)]
    q = quantized(m, "q")
    return inputs, [q.scale, q.zero_point(r, q.node.out())]


def _rounded_bias(m: Match) -> tuple[np.ndarray, str | None]:
    """A float bias in steps of the product's scale; an objection if it is no multiple of that."""
    bias, scale = m["bias"].constant, product_scale(m)
    nothing = np.zeros(0, np.int32)
    if bias is None or scale is None or bias.ndim != 1:
        return nothing, "the scales are not known"
    steps = bias.astype(np.float64) / scale
    rounded = np.round(steps)
    if np.any(np.abs(rounded) > np.iinfo(np.int32).max):
        return nothing, "the bias is too large"
    last = ULPS * 2.0 ** (1 - FLOATS[m["bias"].dtype][0])
    if np.any(np.abs(steps - rounded) > last * np.abs(rounded)):
        return nothing, "the bias does not fall on steps of the product's scale"
    return rounded.astype(np.int32), None


def _bias(m: Match, r: Editor) -> Value | None:
    if "bias" in m.values:
        return r.constant(_rounded_bias(m)[0], m["bias"].name)
    return quantized(m, "b").data if "b" in m.nodes else None


def _to_conv(m: Match, r: Editor) -> Value:
    inputs, result = _operands(m, r)
    bias = _bias(m, r)
    given = [*inputs, *result, *([] if bias is None else [bias])]
    return r.node("QLinearConv", given, dict(m.node("linear").attrs)).out()


def _to_matmul(m: Match, r: Editor) -> Value:
    inputs, result = _operands(m, r)
    return r.node("QLinearMatMul", [*inputs, *result]).out()


def _to_gemm(m: Match, r: Editor) -> Value:
    inputs, result = _operands(m, r)
    kept = ("alpha", "transA", "transB")
    attrs = {k: v for k, v in m.node("linear").attrs.items() if k in kept}
    given = [*inputs, _bias(m, r), *result]
    return r.node("QGemm", given, attrs, domain="com.microsoft").out()


def _to_add(m: Match, r: Editor) -> Value:
    inputs, result = _operands(m, r)
    return r.node("QLinearAdd", [*inputs, *result], domain="com.microsoft").out()


def _to_open(m: Match, r: Editor) -> Value:
    """An integer sum, cast to float, times the product of scales, plus the bias."""
    node, x, w = m.node("linear"), quantized(m, "x"), quantized(m, "w")
    zeros = [x.zero_point(r, x.data), one_zero_point(w, r)]
    attrs = dict(node.attrs) if node.key == "Conv" else {}
    total = r.node(f"{node.op}Integer", [x.data, w.data, *zeros], attrs).out()
    factor = np.asarray(product_scale(m), np.float32)
    channels = (1,) * (node.out().rank - 2) if node.key == "Conv" else ()
    factor = factor.reshape(()) if factor.size == 1 else factor.reshape(-1, *channels)
    result = r.op("Mul", r.op("Cast", total, to=1), r.constant(factor))
    if "bias" not in m.values:
        return result
    bias = m["bias"].constant
    assert bias is not None
    return r.op("Add", result, r.constant(bias.reshape(-1, *channels)))


def _dq(name: str) -> Op:
    return Op("DequantizeLinear", Var(f"{name}_data"), name=name, rest=True, shared=True)


def _linear(op: str, *operands: Pattern) -> Op:
    return Op(op, *operands, name="linear")


_X, _W, _B = _dq("x"), _dq("w"), _dq("b")

_CONV = rounds("Q(Conv(DQ(x), DQ(w), DQ(b))) = QLinearConv(x, w, b)", STEP)
_MATMUL = rounds("Q(MatMul(DQ(a), DQ(b))) = QLinearMatMul(a, b)", STEP)
_GEMM = rounds("Q(Gemm(DQ(a), DQ(b), DQ(c))) = QGemm(a, b, c)", STEP)
_ADD = rounds("Q(DQ(a) + DQ(b)) = QLinearAdd(a, b)", STEP, Family.ELEMENTWISE)

RULES = tuple(
    Rule(name, Op("QuantizeLinear", inner, name="q", rest=True), build, when, claim=claim)
    for name, inner, build, when, claim in (
        ("qlinear-conv", _linear("Conv", _X, _W, _B), _to_conv, _conv, _CONV),
        ("qlinear-conv", _linear("Conv", _X, _W, Const("bias")), _to_conv, _conv, _CONV),
        ("qlinear-conv", _linear("Conv", _X, _W), _to_conv, _conv, _CONV),
        ("qlinear-matmul", _linear("MatMul", _X, _W), _to_matmul, _matmul, _MATMUL),
        ("qgemm", _linear("Gemm", _X, _W, _B), _to_gemm, _gemm, _GEMM),
        ("qgemm", _linear("Gemm", _X, _W, Const("bias")), _to_gemm, _gemm, _GEMM),
        ("qgemm", _linear("Gemm", _X, _W), _to_gemm, _gemm, _GEMM),
        ("qlinear-add", _linear("Add", _X, _W), _to_add, _add, _ADD),
    )
)

_OPEN_CONV = rounds("Conv(DQ(x), DQ(w)) = Cast(ConvInteger(x, w)) * (sx * sw)", SUMS)
_OPEN_MATMUL = rounds("MatMul(DQ(a), DQ(b)) = Cast(MatMulInteger(a, b)) * (sa * sb)", SUMS)

OPEN_RULES = tuple(
    Rule(name, inner, _to_open, _open, claim=claim)
    for name, inner, claim in (
        ("conv-integer", _linear("Conv", _X, _W, Const("bias")), _OPEN_CONV),
        ("conv-integer", _linear("Conv", _X, _W), _OPEN_CONV),
        ("matmul-integer", _linear("MatMul", _X, _W), _OPEN_MATMUL),
    )
)


@register_pass
@dataclass(frozen=True)
class QdqFuse(Pass):
    """Computes operations between DequantizeLinear and QuantizeLinear in integers.

    ``always``: also for targets without dot products of bytes.
    """

    always: bool = False

    name = "qdq_fuse"
    rules = (*DEPTHWISE_RULES, *RULES, *OPEN_RULES, *WORD_RULES, *SCALE_RULES)

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.hardware.layouts
        has_dots = layouts is not None and layouts.dot_depth > 1
        if not self.always and not has_dots:
            return {}
        words = word_rules(context.hardware) if has_dots else ()
        counts: Counter[str] = Counter()
        for rules in (DEPTHWISE_RULES, RULES, OPEN_RULES, words, SCALE_RULES):
            counts.update(rewrite(graph, rules, context))
        return counts
