"""What ops that move elements mean: from where each element of a result comes.

Each function here gives element ``at`` of the first result of a node as a term over the elements of
its inputs. Open dims are z3 integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import z3

from graphkiln.ir.dims import Dim
from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.ops.shape import fill_value
from graphkiln.ir.registry import attribute
from graphkiln.ir.slices import FAR

from . import smt_scalars
from .smt_index import Index

if TYPE_CHECKING:
    from .smt import Meaning

Term = Any
Shape = Sequence[Dim]


def broadcast(m: Meaning, at: Sequence[Index], wide: Shape, shape: Shape) -> list[Index]:
    """The index in a tensor of ``shape`` that is broadcast to ``at`` in one of shape ``wide``.

    An open dim that is broadcast to another may be 1, or it equals the other.
    """
    zero, skipped = z3.IntVal(0), len(at) - len(shape)
    own = []
    for i, to, d in zip(at[skipped:], wide[skipped:], shape, strict=True):
        if d == 1:
            own.append(Index.of(zero, 1))
        elif d == to:
            own.append(i)
        else:
            own.append(Index.of(z3.If(m.sizes.term(d) == 1, zero, m.sizes.value(i)), d))
    return own


def _source(graph: Graph, value: Value) -> Value:
    return graph.required_inputs(value.node)[0]


def _reshape(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x = _source(graph, value)
    return m.element(graph, x, m.sizes.view(at, value.shape, x.shape))


def _transpose(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x = _source(graph, value)
    perm = attribute(value.node, "perm") or tuple(reversed(range(x.rank)))
    own: list[Any] = [None] * x.rank
    for to, source in enumerate(perm):
        own[source % x.rank] = at[to]
    return m.element(graph, x, own)


def _slice(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x = _source(graph, value)
    own = []
    starts, steps = value.node.attrs["starts"], value.node.attrs["steps"]
    for i, start, step, dim, kept in zip(at, starts, steps, x.shape, value.shape, strict=True):
        if start == 0 and step == 1 and kept == dim:
            own.append(i)
        else:
            place = m.sizes.term(start) + m.sizes.term(step) * m.sizes.value(i)
            own.append(Index.of(place, dim))
    return m.element(graph, x, own)


def _expand(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x = _source(graph, value)
    return m.element(graph, x, broadcast(m, at, value.shape, x.shape))


def _concat(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    axis = int(attribute(value.node, "axis"))
    place = m.sizes.value(at[axis])
    parts = graph.required_inputs(value.node)
    choices, start = [], z3.IntVal(0)
    for part in parts:
        own = [*at]
        own[axis] = Index.of(place - start, part.shape[axis])
        start = start + m.sizes.term(part.shape[axis])
        choices.append((place < start, m.element(graph, part, own)))
    result = choices[-1][1]
    for here, element in reversed(choices[:-1]):
        result = z3.If(here, element, result)
    return result


def _split(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x, axis = _source(graph, value), int(attribute(value.node, "axis"))
    before = value.node.values[: value.index]
    start = sum((m.sizes.term(v.shape[axis]) for v in before), z3.IntVal(0))
    own = [*at]
    own[axis] = Index.of(m.sizes.value(at[axis]) + start, x.shape[axis])
    return m.element(graph, x, own)


def _gather(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x, indices = graph.required_inputs(value.node)
    axis = int(attribute(value.node, "axis")) % x.rank
    table, size = indices.constant, m.sizes.term(x.shape[axis])
    assert table is not None
    around = at[axis : axis + indices.rank]
    places = list(np.ndindex(table.shape))
    chosen: Any = None
    for place in reversed(places):
        number = int(table[place])
        term = z3.IntVal(number) if number >= 0 else size + number
        here = [m.sizes.value(i) == p for i, p in zip(around, place, strict=True)]
        chosen = term if chosen is None else z3.If(z3.And(here), term, chosen)
    own = [*at[:axis], Index.of(chosen, x.shape[axis]), *at[axis + indices.rank :]]
    return m.element(graph, x, own)


def _pad(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x, pads = graph.required_inputs(value.node)[:2]
    assert pads.constant is not None
    assert attribute(value.node, "mode") == "constant"
    begins = [int(p) for p in pads.constant[: x.rank]]
    places = [m.sizes.value(i) - b for i, b in zip(at, begins, strict=True)]
    dims = [m.sizes.term(d) for d in x.shape]
    inside = [z3.And(p >= 0, p < d) for p, d in zip(places, dims, strict=True)]
    own = [Index.of(p, d) for p, d in zip(places, x.shape, strict=True)]
    filled = m.function("padding", 0, m.sort(x))()
    return z3.If(z3.And(inside), m.element(graph, x, own), filled)


def _tile(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    x = _source(graph, value)
    own = []
    for i, dim in zip(at, x.shape, strict=True):
        turn, place, size = m.sizes.fresh("t"), m.sizes.fresh("p"), m.sizes.term(dim)
        whole = z3.And(m.sizes.value(i) == turn * size + place, 0 <= place, place < size, turn >= 0)
        m.sizes.facts.append(z3.Implies(z3.And(m.sizes.value(i) >= 0, size > 0), whole))
        own.append(Index.of(place, dim))
    return m.element(graph, x, own)


def _reduce(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    """The reduction of one element is that element; any other is a function of where it is."""
    x = _source(graph, value)
    given = graph.inputs_of(value.node)[1:]
    axes = [a % x.rank for a in given[0].constant] if given and given[0] else [*range(x.rank)]
    kept: dict[int, Index] = {}
    left = iter(at)
    for axis in range(x.rank):
        if axis in axes:
            kept[axis] = Index.of(z3.IntVal(0), 1)
            if attribute(value.node, "keepdims"):
                next(left)
        else:
            kept[axis] = next(left)
    if all(x.shape[a] == 1 for a in axes):
        return m.element(graph, x, [kept[a] for a in range(x.rank)])
    assert x in graph.inputs
    terms = [m.sizes.value(kept[a]) for a in range(x.rank) if a not in axes]
    op = value.node.op if m.moving else value.node.op.replace("Mean", "Sum")
    key = (op, x.name, tuple(sorted(axes)))
    total = m.function(key, len(terms), m.sort(value))(*terms)
    if value.node.op != "ReduceMean" or m.moving:
        return total
    t, number = x.tensor_type.dtype, 1
    for a in axes:
        number *= int(x.shape[a])
    return smt_scalars.MEANINGS["Div"](t, total, smt_scalars.literal(number, t))


# ---- ops of ONNX, before shapes are known --------------------------------------------------------


def _onnx_slice(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    """ONNX's Slice with constant bounds: ends count from the end where negative, and are clamped.

    The size that inference gave the result is proved on the way.
    """
    x, *given = graph.inputs_of(value.node)
    assert x is not None
    numbers = [None if v is None else [int(n) for n in v.constant] for v in given]  # type: ignore[union-attr]
    starts, ends = numbers[:2]
    axes, steps = ([*numbers[2:], None, None])[:2]
    assert starts is not None and ends is not None
    own = list(at)
    for k, axis in enumerate(range(len(starts)) if axes is None else axes):
        axis, step = axis % x.rank, 1 if steps is None else steps[k]
        size = m.sizes.term(x.shape[axis])
        low, high = (0, size) if step > 0 else (-1, size - 1)
        start = z3.If(size == 0, z3.IntVal(low), _clamped(starts[k], size, 0, high))
        end = _clamped(ends[k], size, low, high)
        room = (end - start) if step > 0 else (start - end)
        count = z3.If(room > 0, (room + abs(step) - 1) / abs(step), 0)
        m.goals.append(m.sizes.term(value.shape[axis]) == count)
        own[axis] = Index.of(start + step * m.sizes.value(at[axis]), x.shape[axis])
    return m.element(graph, x, own)


def _clamped(number: int, size: Term, low: Term, high: Term) -> Term:
    """A bound on an axis; those that exporters write for its ends are beyond any axis."""
    if abs(number) >= FAR:
        return z3.IntVal(low) if number < 0 else z3.IntVal(0) + high
    place = z3.IntVal(number) if number >= 0 else size + number
    return z3.If(place < low, low, z3.If(place > high, high, place))


def _filled(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    return m.literal(np.asarray(fill_value(attribute(value.node, "value"))), value)


def _somewhere(m: Meaning, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
    """A movement of which only this is known: op, attributes, sizes and parameters settle it."""
    x, *rest = graph.inputs_of(value.node)
    assert x is not None
    names = tuple(None if v is None else v.name for v in rest)
    key = (value.node.key, repr(sorted(value.node.attrs.items())), x.shape, value.shape, names)
    terms = [m.sizes.value(i) for i in at]
    own = [m.function((key, axis), len(at), z3.IntSort())(*terms) for axis in range(x.rank)]
    return m.element(graph, x, [Index.of(i, d) for i, d in zip(own, x.shape, strict=True)])


MOVES = {
    "kiln.Reshape": _reshape, "kiln.Slice": _slice, "kiln.Expand": _expand,
    "Transpose": _transpose, "Concat": _concat, "Split": _split, "Gather": _gather, "Pad": _pad,
    "Tile": _tile, "Dropout": _reshape, "CastLike": _reshape,
    "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape, "Unsqueeze": _reshape,
    "Expand": _expand, "Slice": _onnx_slice, "ConstantOfShape": _filled,
    "DepthToSpace": _somewhere, "SpaceToDepth": _somewhere, "Resize": _somewhere,
    **{f"Reduce{r}": _reduce for r in ("Max", "Min", "Prod", "Sum", "Mean", "L1", "L2")},
}  # fmt: skip
