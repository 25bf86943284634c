"""Scaled dot-product attention.

    softmax(scale * q k^T + mask) v  =  kiln.Attention(q, k, v, mask){scale}

``scale`` may be a factor of the product, of q, of k, or its root one of both. A guard against rows
in which everything is masked, ``where(isnan(p), 0, p)``, becomes ``guarded=1``; without one such a
row is NaN, as its softmax is. The shapes are q [B,H,S,D], k [B,H,T,D] and v [B,H,T,E]; operands of
rank 3 get one head.

Source: Vaswani et al., "Attention Is All You Need".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute
from ..claims import ATTENTION, rounds
from ..pattern import Match, Op, Rule, Var
from ..queries import single_use, sole_consumer, splat
from ..simplify.transposes import compose, perm_of

# Without bfloat16, where the rounding between steps changes results the most.
_FLOATS = ("float16", "float32", "float64")

_SCALE = Op("Mul|Div", Var("x"), Var("factor"))


@dataclass
class _Parts:
    """The parts of an attention; ``keys`` is k transposed, [B,H,D,T]."""

    q: Value
    keys: Value
    v: Value
    mask: Value | None
    scale: float
    guarded: bool


def _parts(graph: Graph, root: Node) -> _Parts | str:
    """The parts of an attention whose last product is ``root``, or why it is none."""
    p, v = graph.required_inputs(root)
    softmax = _unguarded(graph, p)
    if softmax is None or softmax.node.key != "Softmax" or v.dtype not in _FLOATS:
        return "its left side is no softmax"
    if int(attribute(softmax.node, "axis")) % softmax.rank != softmax.rank - 1:
        return "the softmax is not over the last axis"
    found = _scores(graph, softmax.node)
    if isinstance(found, str):
        return found
    product, mask, scale = found
    q, keys = graph.required_inputs(product)
    q, by_q = _unscaled(graph, q)
    keys, by_k = _unscaled(graph, keys)
    guarded = p.node.key == "Where"
    factor = scale * by_q * by_k
    if factor == 0 or not math.isfinite(factor):
        return f"the scores are scaled by {factor}"
    parts = _Parts(q, keys, v, mask, factor, guarded)
    return _shape_objection(parts) or parts


def _unguarded(graph: Graph, p: Value) -> Value | None:
    """The softmax p in ``where(isnan(p), 0, p)``; None if something else uses it."""
    if p.node.key != "Where":
        return p if single_use(graph, p) else None
    condition, zero, inner = graph.required_inputs(p.node)
    if condition.node.key != "IsNaN" or splat(zero) != 0 or not single_use(graph, p):
        return None
    users = {consumer for consumer, _ in graph.uses(inner)}
    same = graph.input(condition.node, 0) == inner
    return inner if same and users == {condition.node, p.node} else None


def _scores(graph: Graph, softmax: Node) -> tuple[Node, Value | None, float] | str:
    """The product q k^T, the mask that is added to it, and its factor."""
    value = graph.input(softmax, 0)
    mask: Value | None = None
    scale = 1.0
    while value is not None and value.node.key != "MatMul":
        if sole_consumer(graph, value) is None:
            return "the scores are used elsewhere"
        inputs = graph.inputs_of(value.node)
        if value.node.key == "Add" and mask is None and scale == 1.0:
            chosen = _score_side(graph, inputs)
            if chosen is None:
                return "neither operand of the addition is a product"
            if chosen[0].type != value.type:
                return "the mask broadcasts the scores"
            value, mask = chosen
        elif _may_scale(value.node) and splat(_constant_side(inputs)) is not None:
            value, factor = _factor(value.node, inputs)
            scale *= factor
        else:
            return f"the scores come from {value.node.key}"
    if value is None or sole_consumer(graph, value) is None:
        return "there is no product of its own"
    return value.node, mask, scale


def _score_side(graph: Graph, inputs: list[Value | None]) -> tuple[Value, Value] | None:
    """The two operands of the sum of scores and mask, in this order."""
    a, b = inputs
    if a is None or b is None:
        return None
    for score, mask in ((a, b), (b, a)):
        below = score
        while _may_scale(below.node):
            first = _other_side(graph.inputs_of(below.node))
            if first is None:
                break
            below = first
        if below.node.key == "MatMul":
            return score, mask
    return None


def _constant_side(inputs: list[Value | None]) -> Value | None:
    return next((v for v in reversed(inputs) if v is not None and v.is_constant), None)


def _other_side(inputs: list[Value | None]) -> Value | None:
    constant = _constant_side(inputs)
    if constant is None:
        return None
    return next((v for v in inputs if v is not None and v != constant), None)


def _may_scale(node: Node) -> bool:
    """Is this a multiplication or a division by a factor?"""
    return node.key in _SCALE.keys


def _factor(node: Node, inputs: list[Value | None]) -> tuple[Value | None, float]:
    """The scaled operand of a Mul or Div by a constant scalar, and the factor."""
    number = splat(_constant_side(inputs))
    assert number is not None
    if node.key == "Div":
        divides = inputs[1] is not None and inputs[1].is_constant and number != 0
        return (inputs[0], 1.0 / float(number)) if divides else (None, 1.0)
    return _other_side(inputs), float(number)


def _unscaled(graph: Graph, value: Value) -> tuple[Value, float]:
    """``value`` without constant factors, and their product."""
    scale = 1.0
    while _may_scale(value.node):
        inputs = graph.inputs_of(value.node)
        if splat(_constant_side(inputs)) is None:
            break
        inner, factor = _factor(value.node, inputs)
        if inner is None or inner.type != value.type:
            break
        value, scale = inner, scale * factor
    return value, scale


def _shape_objection(p: _Parts) -> str | None:
    rank = p.q.rank
    if rank not in (3, 4) or p.keys.rank != rank or p.v.rank != rank:
        return "its operands are not of rank 3 or 4"
    if len({v.shape[:-2] for v in (p.q, p.keys, p.v)}) != 1:
        return "its operands are broadcast"
    if not p.q.dtype == p.keys.dtype == p.v.dtype or p.mask and p.mask.dtype != p.q.dtype:
        return "its operands differ in element type"
    return None


def _recognised(m: Match) -> str | None:
    found = _parts(m.graph, m.root)
    return found if isinstance(found, str) else None


def _build(m: Match, r: Editor) -> Value:
    parts = _parts(m.graph, m.root)
    assert isinstance(parts, _Parts)
    k = _transposed(m.graph, r, parts.keys)
    operands: list[Value] = [parts.q, k, parts.v]
    if parts.mask is not None:
        operands.append(parts.mask)
    flat = parts.q.rank == 3
    if flat:
        operands = [_with_head(r, v, i == 3) for i, v in enumerate(operands)]
    attrs = {"scale": parts.scale} | ({"guarded": 1} if parts.guarded else {})
    result = r.node("Attention", operands, attrs, domain="kiln").out()
    return r.op("kiln.Reshape", result, shape=m.root.out().shape) if flat else result


def _transposed(graph: Graph, r: Editor, keys: Value) -> Value:
    """k, from its transpose."""
    rank = keys.rank
    swap = (*range(rank - 2), rank - 1, rank - 2)
    if keys.node.key != "Transpose":
        return r.op("Transpose", keys, perm=swap)
    source = graph.input(keys.node, 0)
    assert source is not None
    perm = compose(perm_of(keys.node, rank), swap)
    return source if perm == tuple(range(rank)) else r.op("Transpose", source, perm=perm)


def _with_head(r: Editor, v: Value, is_mask: bool) -> Value:
    if is_mask and v.rank < 3:
        return v
    return r.op("kiln.Reshape", v, shape=(v.shape[0], 1, *v.shape[1:]))


RULES = (
    Rule(
        "attention",
        Op("MatMul", Var("p"), Var("v")),
        _build,
        _recognised,
        claim=rounds("softmax(scale * q k^T + mask) v = attention(q, k, v, mask)", ATTENTION),
    ),
)
