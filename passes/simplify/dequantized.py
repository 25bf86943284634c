"""Movements of dequantised tensors, which move the bytes instead.

f(DQ(x)) = DQ(f(x))                            f moves elements, or is a MaxPool
concat(DQ(x), DQ(y)) = DQ(concat(x, y))        the same scale and zero point
gather(DQ(x, s, z), i) = (gather(x, i) - gather(z, i)) * gather(s, i)      s, z along the axis
gather(cast(x), i) = cast(gather(x, i))        x constant, in fewer bits

All are exact. Fewer bytes are moved, a table of embeddings is dequantised where it is read only,
and ops that come next find the DequantizeLinear in front of them, as integer ops do.
"""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Node, Value
from ...ir.ops.vision import resize_picks
from ...ir.registry import attribute
from ...ir.shapes import normalize_axis
from ...ir.types import BYTES
from ..claims import Family, exact, moved
from ..pattern import Const, Match, Op, Rule, Var
from ..queries import scale_and_zero
from .quantized import MOVES, is_positive, same_array

_QUANTIZED_NEXT = "it is quantised next, which can be done in front of it"


def _per_tensor_bytes(m: Match, node: Node) -> bool:
    """Does ``node`` dequantise bytes that are computed in the run, with one scale?"""
    if node.key != "DequantizeLinear":
        return False
    data, (scale, _) = _data(m, node), scale_and_zero(m.graph, node)
    return data.constant is None and data.dtype in BYTES and scale.tensor_type.numel == 1


def _data(m: Match, node: Node) -> Value:
    data = m.graph.input(node, 0)
    assert data is not None
    return data


# ---- one operand ---------------------------------------------------------------------------------


def _movable(m: Match) -> str | None:
    if not _per_tensor_bytes(m, m.node("dq")):
        return "it does not dequantise bytes of a run with one scale"
    if len(m.root.outputs) > 1 or (m.root.op == "Resize" and not resize_picks(m.root)):
        return "its elements are new ones"
    return _QUANTIZED_NEXT if any(_quantizers(m)) else None


def _keeps_order(m: Match) -> str | None:
    """A pool reads each element several times, so that bytes pay where only some of its readers
    quantise them.
    """
    if not _per_tensor_bytes(m, m.node("dq")):
        return "it does not dequantise bytes of a run with one scale"
    if len(m.root.outputs) > 1:
        return "its elements are new ones"
    if not is_positive(m.graph.input(m.node("dq"), 1)):
        return "a scale that is not positive turns the order around"
    return _QUANTIZED_NEXT if all(_quantizers(m)) else None


def _quantizers(m: Match) -> list[bool]:
    """Which readers of the result quantise it."""
    return [n.key == "QuantizeLinear" for n, _ in m.graph.uses(m.root.out())]


def _dequantize_after(m: Match, r: Editor) -> Value:
    move, dq = m.root, m.node("dq")
    rest = m.graph.inputs_of(move)[1:]
    bytes_ = r.node(move.op, [m["x"], *rest], dict(move.attrs), domain=move.domain).out()
    return r.node("DequantizeLinear", [bytes_, *scale_and_zero(m.graph, dq)], dict(dq.attrs)).out()


# ---- concatenation -------------------------------------------------------------------------------


def _parts(m: Match) -> list[Node]:
    return [v.node for v in m.graph.required_inputs(m.root)]


def _same_parameters(m: Match) -> str | None:
    parts = _parts(m)
    if not all(_per_tensor_bytes(m, dq) for dq in parts):
        return "its parts are not dequantised bytes with one scale"
    scale, zero = scale_and_zero(m.graph, m.node("dq"))
    for dq in parts:
        own, start = scale_and_zero(m.graph, dq)
        if _data(m, dq).dtype != m["x"].dtype:
            return "its parts have different types"
        if not same_array(scale, own) or not same_array(zero, start):
            return "scales or zero points differ"
    return None


def _concat_of_bytes(m: Match, r: Editor) -> Value:
    dq, data = m.node("dq"), [_data(m, part) for part in _parts(m)]
    joined = r.node("Concat", data, dict(m.root.attrs)).out()
    inputs = [joined, *scale_and_zero(m.graph, dq)]
    return r.node("DequantizeLinear", inputs, dict(dq.attrs)).out()


# ---- gather --------------------------------------------------------------------------------------


def _axis(m: Match, node: Node) -> int:
    """The axis that a Gather or DequantizeLinear has along ``x``."""
    return normalize_axis(int(attribute(node, "axis")), m["x"].rank)


def _gathered_scales(m: Match) -> str | None:
    dq = m.node("dq")
    scale, _ = scale_and_zero(m.graph, dq)
    if scale.rank != 1 or scale.tensor_type.numel == 1:
        return _gathers_bytes(m)
    if m["x"].dtype not in BYTES or {scale.dtype, dq.out().dtype} != {"float32"}:
        return "it is not dequantised from bytes to float32"
    return None if _axis(m, dq) == _axis(m, m.root) else "it is quantised along another axis"


def _gathers_bytes(m: Match) -> str | None:
    scale, _ = scale_and_zero(m.graph, m.node("dq"))
    if scale.tensor_type.numel != 1 or m["x"].dtype not in BYTES:
        return "it is not dequantised from bytes with one scale"
    return None


def _gather_bytes(m: Match, r: Editor) -> Value:
    dq, x, i = m.node("dq"), m["x"], m["i"]
    scale, zero = scale_and_zero(m.graph, dq)
    attrs = dict(m.root.attrs)
    picked = r.node("Gather", [x, i], attrs).out()
    if scale.tensor_type.numel == 1:
        return r.node("DequantizeLinear", [picked, scale, zero], dict(dq.attrs)).out()
    shape = (*i.shape, *(1,) * (x.rank - 1 - _axis(m, m.root)))

    def along(parameter: Value) -> Value:
        return r.op("kiln.Reshape", r.op("Gather", parameter, i), shape=shape)

    value = r.op("Cast", picked, to=1)
    if zero is not None and (zero.constant is None or zero.constant.any()):
        value = r.op("Sub", value, r.op("Cast", along(zero), to=1))
    return r.op("Mul", value, along(scale))


def _is_wider(m: Match) -> str | None:
    narrow, wide = m["x"].tensor_type.dtype, m.node("cast").out().tensor_type.dtype
    return None if narrow.bits < wide.bits else "the table does not get larger"


def _cast_rows(m: Match, r: Editor) -> Value:
    rows = r.node("Gather", [m["x"], m["i"]], dict(m.root.attrs)).out()
    return r.node("Cast", [rows], dict(m.node("cast").attrs)).out()


_CAST = Op("Cast", Const("x"), name="cast", shared=True)
_DQ = Op("DequantizeLinear", Var("x"), name="dq", rest=True, shared=True)

RULES = (
    Rule("move-dequantized", Op(MOVES, _DQ, rest=True), _dequantize_after, _movable,
         claim=moved("f(DQ(x)) = DQ(f(x)), f moves elements")),
    Rule("pool-dequantized", Op("MaxPool", _DQ), _dequantize_after, _keeps_order,
         claim=exact("maxpool(DQ(x)) = DQ(maxpool(x)), the scale positive",
                     "that quantisation keeps the order for every scale is too hard for the solver",
                     Family.OTHER)),
    Rule("concat-dequantized", Op("Concat", _DQ, rest=True), _concat_of_bytes, _same_parameters,
         claim=moved("concat(DQ(x), DQ(y)) = DQ(concat(x, y)), the same scale and zero point")),
    Rule("gather-dequantized", Op("Gather", _DQ, Var("i")), _gather_bytes, _gathered_scales,
         claim=exact("gather(DQ(x, s, z), i) = (gather(x, i) - gather(z, i)) gather(s, i)",
                     "its indices may be given at run time", Family.MOVEMENT)),
    Rule("gather-narrow", Op("Gather", _CAST, Var("i")), _cast_rows, _is_wider,
         claim=exact("gather(cast(x), i) = cast(gather(x, i))",
                     "its indices may be given at run time", Family.MOVEMENT)),
)  # fmt: skip
