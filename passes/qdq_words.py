"""Products of 16-bit activations by 8-bit weights, as two products of bytes.

    x = 256 h(x) + l(x)
    Conv(DQ(x), DQ(w)) = (256 sum (h(x) - h(zx)) w + sum (l(x) - l(zx)) w) * (sx * sw)

``h`` and ``l`` are the high and the low byte, of the data as of the zero point, with the sign that
the target's dot products take. Both sums are exact in int32, as is what they stand for together in
float64, which is rounded to float32 once. Where floats are estimated to take less time, they stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Value
from ..ir.hardware import GenericHardware, Hardware
from ..ir.layer_work import layer_work
from ..ir.onnx_types import element_code
from ..ir.ops.word_sums import BYTE
from ..ir.registry import attribute
from .claims import SUMS, rounds
from .pattern import Match, Op, Rule, Var
from .qdq_match import (
    channels_objection,
    is_normal,
    one_zero_point,
    product_scale,
    quantized,
)
from .queries import splat
from .word_speed import word_gain

WORDS = ("uint16", "int16")
_SIGN = 1 << 15
_LARGEST_SUM = 2**31 - 1


# ---- conditions ----------------------------------------------------------------------------------


def _objection(m: Match, hardware: Hardware) -> str | None:
    return _operand_objection(m) or _weights_objection(m) or _slower(m, hardware)


def _operand_objection(m: Match) -> str | None:
    x, w = quantized(m, "x"), quantized(m, "w")
    if x.data.dtype not in WORDS:
        return "only 16-bit activations are handled"
    if any(attribute(q.node, "block_size") for q in (x, w)):
        return "it is quantised in blocks"
    if not x.per_tensor:
        return "activations have several scales"
    if x.zero is not None and x.zero.constant is None:
        return "the zero point of its data is not constant"
    product = product_scale(m)
    if product is None or x.scale.dtype != "float32" or w.scale.dtype != "float32":
        return "the scales are not known"
    return None if is_normal(product) else "the scales leave float32"


def _weights_objection(m: Match) -> str | None:
    w, node = quantized(m, "w"), m.node("linear")
    if w.data.constant is None:
        return "the weights are not known"
    objection = channels_objection(m)
    if objection is not None:
        return objection
    middle = 128 if w.data.dtype == "uint8" else 0
    if (0 if w.zero is None else splat(w.zero)) != middle:
        return "its weights are not symmetric: their zero point is not the middle"
    if node.key != "Conv" and (w.data.rank != 2 or node.out().rank < 2):
        return "its weights are no matrix, or it has no rows"
    if node.key == "Gemm" and (attribute(node, "transA") or attribute(node, "beta") != 1):
        return "its first operand is transposed, or beta is not 1"
    # Every element of any channel is counted, which is more than a sum has.
    size = np.abs(w.data.constant.astype(np.int64) - middle)
    terms = size.reshape(len(size), -1)
    most = max(terms.sum(axis=1).max(initial=0), terms.sum(axis=0).max(initial=0))
    return None if most * (BYTE - 1) <= _LARGEST_SUM else "its sums may leave int32"


def _slower(m: Match, hardware: Hardware) -> str | None:
    work = layer_work(m.graph, m.node("linear"))
    readers = len(list(m.graph.uses(m.node("x").out())))
    gain = None if work is None else word_gain(work, hardware, readers)
    return None if gain is None or gain >= 1 else "floats take less time"


# ---- replacements --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """16-bit ``data`` and its ``zero`` point, which is added up in two bytes of type ``kind``."""

    data: Value
    zero: int
    kind: str

    def unsigned(self, r: Editor) -> Value:
        """The data as uint16, to which int16 is shifted."""
        if self.data.dtype == "uint16":
            return self.data
        wide = r.op("Cast", self.data, to=element_code("int32"))
        shifted = r.op("Add", wide, r.constant(np.asarray(_SIGN, np.int32)))
        return r.op("Cast", shifted, to=element_code("uint16"))

    def high(self, r: Editor, words: Value) -> tuple[Value, Value]:
        """The high bytes of uint16 ``words``, and that of the zero point."""
        high = r.op("BitShift", words, r.constant(np.asarray(8, np.uint16)), direction="RIGHT")
        return self._bytes(r, high), self._byte(r, self._zero() >> 8)

    def low(self, r: Editor, words: Value) -> tuple[Value, Value]:
        """The low bytes of uint16 ``words``, and that of the zero point."""
        low = r.op("BitwiseAnd", words, r.constant(np.asarray(BYTE - 1, np.uint16)))
        return self._bytes(r, low), self._byte(r, self._zero() % BYTE)

    def _zero(self) -> int:
        return self.zero + (0 if self.data.dtype == "uint16" else _SIGN)

    def _bytes(self, r: Editor, words: Value) -> Value:
        """Words below 256 as bytes: int8 ones stand for numbers that are 128 less."""
        found = r.op("Cast", words, to=element_code("uint8"))
        if self.kind == "uint8":
            return found
        flipped = r.op("BitwiseXor", found, r.constant(np.asarray(128, np.uint8)))
        return r.op("BitCast", flipped, to=element_code("int8"))

    def _byte(self, r: Editor, number: int) -> Value:
        return r.constant(np.asarray(number - (128 if self.kind == "int8" else 0), self.kind))


def _build(m: Match, r: Editor, kind: str) -> Value:
    """Both integer sums, what they stand for together, times the scales, plus the bias."""
    node, x = m.node("linear"), quantized(m, "x")
    zero = 0 if x.zero is None or x.zero.constant is None else int(x.zero.constant.reshape(()))
    words = _Words(x.data, zero, kind)
    unsigned = words.unsigned(r)
    high, low = (_sums(m, r, *part(r, unsigned)) for part in (words.high, words.low))
    total = r.node("JoinSums", [high, low], domain="kiln").out()
    channels = (1,) * (node.out().rank - 2) if node.key == "Conv" else ()
    factor = np.asarray(product_scale(m), np.float32)
    factor = factor.reshape(()) if factor.size == 1 else factor.reshape(-1, *channels)
    result = r.op("Mul", total, r.constant(factor))
    bias = m.get("bias")
    if bias is None:
        return result
    if channels:
        bias = r.op("Reshape", bias, r.constant(np.array([-1, *channels])))
    return r.op("Add", result, bias)


def _sums(m: Match, r: Editor, data: Value, zero: Value) -> Value:
    """``sum (data - zero) w`` as int32."""
    node, w = m.node("linear"), quantized(m, "w")
    weights, attrs = w.data, dict(node.attrs) if node.key == "Conv" else {}
    if node.key == "Gemm" and attribute(node, "transB"):
        assert weights.constant is not None
        weights = r.constant(np.ascontiguousarray(weights.constant.T), weights.name)
    op = "ConvInteger" if node.key == "Conv" else "MatMulInteger"
    return r.node(op, [data, weights, zero, one_zero_point(w, r)], attrs).out()


# ---- rules ---------------------------------------------------------------------------------------


def _dq(name: str) -> Op:
    return Op("DequantizeLinear", Var(f"{name}_data"), name=name, rest=True, shared=True)


_CONV = rounds("Conv(DQ(x), DQ(w)) = (256 ConvInteger(h(x), w) + ConvInteger(l(x), w)) * s", SUMS)
_MATMUL = rounds(
    "MatMul(DQ(a), DQ(b)) = (256 MatMulInteger(h(a), b) + MatMulInteger(l(a), b)) * s", SUMS
)
_PATTERNS = (
    ("conv-words", "Conv", _CONV),
    ("matmul-words", "MatMul", _MATMUL),
    ("gemm-words", "Gemm", _MATMUL),
)


def word_rules(hardware: Hardware) -> tuple[Rule, ...]:
    """The rules for a target with dot products of bytes."""
    layouts = hardware.layouts
    kind = (None if layouts is None else layouts.activation) or "uint8"
    when: Callable[[Match], str | None] = partial(_objection, hardware=hardware)
    build = partial(_build, kind=kind)
    return tuple(
        Rule(name, Op(op, _dq("x"), _dq("w"), *bias, name="linear"), build, when, claim=claim)
        for name, op, claim in _PATTERNS
        for bias in ((), (Var("bias"),))
        if not bias or op != "MatMul"
    )


WORD_RULES = word_rules(GenericHardware())

__all__ = ["WORDS", "WORD_RULES", "word_rules"]
