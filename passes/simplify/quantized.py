"""Quantised tensors that are dequantised and quantised again.

Q(DQ(x)) = x    with the same parameters
Q(f(DQ(x))) = f(Q(DQ(x)))                     f moves elements, or is a MaxPool
Q(resize(x)) = resize(Q(x))                   resize repeats elements

All are exact. With a significand of p bits the two roundings of (x - z) * s / s are off by less
than a half where |x - z| is below 2^(p - 2), so that x - z comes out again; the product must not
overflow. A maximum stays the maximum where the scale that quantises it is positive.
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Node, Value
from ...ir.ops.vision import resize_picks
from ...ir.registry import attribute
from ...ir.types import BYTES
from ..claims import Family, exact, moved
from ..pattern import Match, Op, Rule, Var
from ..precision import FLOATS, largest_number
from ..queries import splat

MOVES = "kiln.Reshape|kiln.Slice|Transpose|DepthToSpace|SpaceToDepth|Resize"


def same_array(a: Value | None, b: Value | None) -> bool:
    if a is None or b is None:
        given = a or b
        zero = None if given is None else given.constant
        return given is None or zero is not None and not zero.any()
    if a == b:
        return True
    if a.constant is None or b.constant is None or a.type != b.type:
        return False
    return np.array_equal(a.constant, b.constant)


def is_positive(scale: Value | None) -> bool:
    """Is it known to be so?"""
    number = splat(scale)
    return number is not None and number > 0


def _per_tensor(m: Match, node: Node) -> bool:
    scale = m.graph.input(node, 1)
    return scale is not None and scale.tensor_type.numel == 1


def _same_parameters(m: Match) -> str | None:
    x, dq = m["x"], m.node("dq")
    if m.root.out().dtype != x.dtype:
        return "it changes the element type"
    pairs = [(m.graph.input(dq, i), m.graph.input(m.root, i)) for i in (1, 2)]
    if not all(same_array(a, b) for a, b in pairs):
        return "scale or zero point differ"
    if not _per_tensor(m, dq) and attribute(dq, "axis") != attribute(m.root, "axis"):
        return "they are quantised along different axes"
    if attribute(dq, "block_size") or attribute(m.root, "block_size"):
        return "it is quantised in blocks"
    return _rounds(m)


def _rounds(m: Match) -> str | None:
    """An objection where an integer may not come out of its own product with the scale."""
    x, dq, scale = m["x"], m.node("dq"), m.graph.input(m.node("dq"), 1)
    array = None if scale is None else scale.constant
    if scale is None or array is None:
        return "the scale is not known"
    kind = scale.dtype
    if not x.tensor_type.dtype.is_integer or {kind, dq.out().dtype} - FLOATS.keys():
        return "it is not quantised to integers"
    if dq.out().dtype != kind or attribute(m.root, "precision"):
        return "it is not computed in the type of its scale"
    largest = 2**x.tensor_type.dtype.bits - 1
    if largest >= 2 ** (FLOATS[kind][0] - 2):
        return f"{kind} rounds {x.dtype}"
    steps = np.abs(array.astype(np.float64))
    fits = (steps > 0) & (steps * largest <= largest_number(array.dtype))
    return None if fits.all() else "a scale is zero, or overflows"


def _movable(m: Match) -> str | None:
    if not _per_tensor(m, m.node("dq")) or not _per_tensor(m, m.root):
        return "it has several scales"
    if {m["x"].dtype, m.root.out().dtype} - set(BYTES) or len(m.node("move").outputs) > 1:
        return "only 8-bit tensors are moved"
    if m.node("move").op == "Resize" and not resize_picks(m.node("move")):
        return "its elements are new ones"
    return None


def _keeps_order(m: Match) -> str | None:
    if not is_positive(m.graph.input(m.root, 1)):
        return "a scale that is not positive turns the order around"
    return _movable(m)


def _repeats(m: Match) -> str | None:
    """An objection unless a Resize has more elements than what it takes them from."""
    move = m.node("move")
    if not _per_tensor(m, m.root) or m.root.out().dtype not in BYTES:
        return "it is not quantised to bytes with one scale"
    if not resize_picks(move):
        return "its elements are new ones"
    before, after = m["x"].tensor_type.numel, move.out().tensor_type.numel
    if not isinstance(before, int) or not isinstance(after, int) or after <= before:
        return "its result is not known to have more elements"
    return "it is constant" if m["x"].is_constant else None


def _moved(m: Match, r: Editor) -> Value:
    move, (source, *rest) = m.node("move"), m.graph.inputs_of(m.node("move"))
    inputs = [source, *m.graph.inputs_of(m.root)[1:]]
    q = r.node("QuantizeLinear", inputs, dict(m.root.attrs)).out()
    return r.node(move.op, [q, *rest], dict(move.attrs), domain=move.domain).out()


_DQ = Op("DequantizeLinear", Var("x"), name="dq", rest=True, shared=True)

RULES = (
    Rule("quantize-again", Op("QuantizeLinear", _DQ, rest=True), lambda m, _: m["x"],
         _same_parameters,
         claim=exact("Q(DQ(x)) = x, the same scale and zero point",
                     "quotients of products by every scale are too hard for the solver",
                     Family.ELEMENTWISE)),
    Rule("move-quantized", Op("QuantizeLinear", Op(MOVES, _DQ, name="move", rest=True), rest=True),
         _moved, _movable, claim=moved("Q(f(DQ(x))) = f(Q(DQ(x))), f moves elements")),
    Rule("resize-quantized",
         Op("QuantizeLinear", Op("Resize", Var("x"), name="move", rest=True), rest=True),
         _moved, _repeats,
         claim=exact("Q(resize(x)) = resize(Q(x)), resize repeats elements",
                     "which elements it repeats depends on sizes and modes", Family.MOVEMENT)),
    Rule("pool-quantized", Op("QuantizeLinear", Op("MaxPool", _DQ, name="move"), rest=True),
         _moved, _keeps_order,
         claim=exact("Q(maxpool(DQ(x))) = maxpool(Q(DQ(x))), the scale positive",
                     "that quantisation keeps the order for every scale is too hard for the solver",
                     Family.OTHER)),
)  # fmt: skip
