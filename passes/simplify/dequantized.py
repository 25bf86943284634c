"""Movements of dequantised tensors, which move the bytes instead.

f(DQ(x)) = DQ(f(x))                            f moves elements, or is a MaxPool
concat(DQ(x), DQ(y)) = DQ(concat(x, y))        the same scale and zero point
gather(DQ(x, s, z), i) = (gather(x, i) - gather(z, i)) * gather(s, i)      s, z along the axis

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
from ..pattern import Match, Op, Rule, Var
from ..queries import splat
from .quantized import MOVES, same_array


def _parameters(m: Match, node: Node) -> list[Value | None]:
    """Scale and zero point of a DequantizeLinear."""
    return [*m.graph.inputs_of(node), None][1:3]


def _per_tensor_bytes(m: Match, node: Node) -> bool:
    """Does ``node`` dequantise bytes that are computed in the run, with one scale?"""
    if node.key != "DequantizeLinear":
        return False
    data, scale = m.graph.required_inputs(node)[:2]
    return data.constant is None and data.dtype in BYTES and scale.tensor_type.numel == 1


# ---- one operand ---------------------------------------------------------------------------------


def _movable(m: Match) -> str | None:
    if not _per_tensor_bytes(m, m.node("dq")):
        return "it does not dequantise bytes of a run with one scale"
    if len(m.root.outputs) > 1 or (m.root.op == "Resize" and not resize_picks(m.root)):
        return "its elements are new ones"
    if any(n.key == "QuantizeLinear" for n, _ in m.graph.uses(m.root.out())):
        return "it is quantised next, which can be done in front of it"
    return None


def _keeps_order(m: Match) -> str | None:
    if not (splat(m.graph.input(m.node("dq"), 1)) or 0) > 0:
        return "a scale that is not positive turns the order around"
    return _movable(m)


def _dequantize_after(m: Match, r: Editor) -> Value:
    move, dq = m.root, m.node("dq")
    rest = m.graph.inputs_of(move)[1:]
    bytes_ = r.node(move.op, [m["x"], *rest], dict(move.attrs), domain=move.domain).out()
    return r.node("DequantizeLinear", [bytes_, *_parameters(m, dq)], dict(dq.attrs)).out()


# ---- concatenation -------------------------------------------------------------------------------


def _parts(m: Match) -> list[Node]:
    return [v.node for v in m.graph.required_inputs(m.root)]


def _same_parameters(m: Match) -> str | None:
    first, *rest = _parts(m)
    if not all(_per_tensor_bytes(m, dq) for dq in (first, *rest)):
        return "its parts are not dequantised bytes with one scale"
    kind = m["x"].dtype
    for dq in rest:
        pairs = zip(_parameters(m, first), _parameters(m, dq), strict=True)
        same = m.graph.required_inputs(dq)[0].dtype == kind and dq.out().dtype == first.out().dtype
        if not same or not all(same_array(a, b) for a, b in pairs):
            return "scales or zero points differ"
    return None


def _concat_of_bytes(m: Match, r: Editor) -> Value:
    first, parts = m.node("dq"), _parts(m)
    data = [m.graph.input(dq, 0) for dq in parts]
    joined = r.node("Concat", data, dict(m.root.attrs)).out()
    return r.node("DequantizeLinear", [joined, *_parameters(m, first)], dict(first.attrs)).out()


# ---- gather --------------------------------------------------------------------------------------


def _gathered_scales(m: Match) -> str | None:
    dq, x = m.node("dq"), m["x"]
    scale = m.graph.input(dq, 1)
    if scale is None or scale.rank != 1 or scale.tensor_type.numel == 1:
        return _gathers_bytes(m)
    if x.dtype not in BYTES or {scale.dtype, dq.out().dtype} != {"float32"}:
        return "it is not dequantised from bytes to float32"
    axes = [normalize_axis(int(attribute(n, "axis")), x.rank) for n in (m.root, dq)]
    return None if axes[0] == axes[1] else "it is quantised along another axis"


def _gathers_bytes(m: Match) -> str | None:
    scale = m.graph.input(m.node("dq"), 1)
    if scale is None or scale.tensor_type.numel != 1 or m["x"].dtype not in BYTES:
        return "it is not dequantised from bytes with one scale"
    return None


def _gather_bytes(m: Match, r: Editor) -> Value:
    dq, x, i = m.node("dq"), m["x"], m["i"]
    scale, zero = _parameters(m, dq)
    assert scale is not None
    attrs = dict(m.root.attrs)
    picked = r.node("Gather", [x, i], attrs).out()
    if scale.tensor_type.numel == 1:
        return r.node("DequantizeLinear", [picked, scale, zero], dict(dq.attrs)).out()
    axis = normalize_axis(int(attribute(m.root, "axis")), x.rank)
    shape = (*i.shape, *(1,) * (x.rank - 1 - axis))

    def along(parameter: Value) -> Value:
        found = r.node("Gather", [parameter, i], {"axis": 0}).out()
        return r.node("Reshape", [found], {"shape": shape}, domain="kiln").out()

    value = r.op("Cast", picked, to=1)
    if zero is not None and (zero.constant is None or zero.constant.any()):
        value = r.op("Sub", value, r.op("Cast", along(zero), to=1))
    return r.op("Mul", value, along(scale))


_DQ = Op("DequantizeLinear", Var("x"), name="dq", rest=True, shared=True)

RULES = (
    Rule("move-dequantized", Op(MOVES, _DQ, rest=True), _dequantize_after, _movable,
         claim=moved("f(DQ(x)) = DQ(f(x)), f moves elements")),
    Rule("pool-dequantized", Op("MaxPool", _DQ, rest=True), _dequantize_after, _keeps_order,
         claim=exact("maxpool(DQ(x)) = DQ(maxpool(x)), the scale positive",
                     "that quantisation keeps the order for every scale is too hard for the solver",
                     Family.OTHER)),
    Rule("concat-dequantized", Op("Concat", _DQ, rest=True), _concat_of_bytes, _same_parameters,
         claim=moved("concat(DQ(x), DQ(y)) = DQ(concat(x, y)), the same scale and zero point")),
    Rule("gather-dequantized", Op("Gather", _DQ, Var("i")), _gather_bytes, _gathered_scales,
         claim=exact("gather(DQ(x, s, z), i) = (gather(x, i) - gather(z, i)) gather(s, i)",
                     "its indices may be given at run time", Family.MOVEMENT)),
)  # fmt: skip
