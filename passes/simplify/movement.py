"""Views, slices, expansions, concatenations and paddings that do nothing or can be merged.

Reshape(Reshape(x, a), b) = Reshape(x, b)      Reshape(x, its shape) = x
Slice(Slice(x, s, d), t, e) = Slice(x, s + t*d, d*e)
Expand(Expand(x, a), b) = Expand(x, b)         f(Expand(x), y) = f(x, y)    f broadcasting
Concat(x) = x    Split(x, 1 part) = x    Pad(x, 0) = x
Gather(x, i) = Reshape(Slice(x, i))             i constant, counting up or down evenly
"""

from __future__ import annotations

import numpy as np

from ...ir.dims import Dim
from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.shapes import broadcast
from ...ir.traits import Trait
from ...ir.types import TensorType
from ..claims import moved
from ..pattern import Const, Match, Op, Rule, Var
from ..queries import input_symbols, symbols_bound


def _x(m: Match, _: Editor) -> Value:
    return m["x"]


def same_type(m: Match) -> str | None:
    """An objection where the root's result and ``x`` differ in type."""
    a, b = m.root.out().type, m["x"].type
    return None if a == b else f"{a} is not {b}"


def _bound(m: Match) -> str | None:
    shape = m.root.attrs["shape"]
    assert isinstance(shape, tuple)
    if symbols_bound(shape, input_symbols(m.graph), [m["x"]]):
        return None
    return "the shape depends on a size that is not known in time"


def _same_op(m: Match, r: Editor) -> Value:
    return r.node(m.root.op, [m["x"]], dict(m.root.attrs), domain=m.root.domain).out()


def _view_of_ones(m: Match, r: Editor) -> Value | None:
    """An Expand or Slice or Transpose that only adds or drops dims of 1 is a view."""
    return r.op("kiln.Reshape", m["x"], shape=m.root.out().shape)


def _only_adds_ones(m: Match) -> str | None:
    x, out = m["x"].shape, m.root.out().shape
    added = len(out) - len(x)
    if added > 0 and all(d == 1 for d in out[:added]) and out[added:] == x:
        return None
    return "it repeats elements"


def _merged_slice(m: Match, r: Editor) -> Value:
    inner, outer = m.node("inner").attrs, m.root.attrs
    starts, steps = [], []
    for s, d, t, e in zip(
        inner["starts"], inner["steps"], outer["starts"], outer["steps"], strict=True  # type: ignore[arg-type]
    ):  # fmt: skip
        starts.append(s + t * d)
        steps.append(d * e)
    attrs = {"starts": tuple(starts), "steps": tuple(steps), "shape": outer["shape"]}
    return r.op("kiln.Slice", m["x"], **attrs)


# ---- ops that broadcast by themselves ------------------------------------------------------------


def _without_expands(m: Match, r: Editor) -> Value | None:
    """``f(Expand(x), y)`` where ``y`` alone gives the result its shape."""
    inputs = m.graph.inputs_of(m.root)
    if any(v is None for v in inputs):
        return None
    out = m.root.out().tensor_type
    kept: list[Value] = [v for v in inputs if v is not None]
    changed = False
    for i, v in enumerate(kept):
        if v.node.key != "kiln.Expand":
            continue
        source = m.graph.input(v.node, 0)
        tried = [*kept[:i], source, *kept[i + 1 :]]
        if source is not None and _shape_of(tried) == out.shape:  # type: ignore[arg-type]
            kept[i], changed = source, True
    if not changed:
        return None
    return r.node(m.root.op, kept, dict(m.root.attrs), domain=m.root.domain).out()


def _shape_of(values: list[Value]) -> tuple[object, ...] | None:
    types = [v.type for v in values]
    shapes = [t.shape for t in types if isinstance(t, TensorType) and t.shape is not None]
    try:
        return broadcast(shapes) if len(shapes) == len(values) else None
    except ValueError:
        return None


def _has_expand(m: Match) -> str | None:
    if any(v is not None and v.node.key == "kiln.Expand" for v in m.graph.inputs_of(m.root)):
        return None
    return "no input is an Expand"


# ---- gather --------------------------------------------------------------------------------------


def _even_indices(m: Match) -> tuple[Dim, int] | None:
    """First index and step of constant indices; None where they are not evenly spaced."""
    array = m["i"].constant
    assert array is not None
    flat = array.reshape(-1).astype(np.int64)
    if flat.size == 0 or np.any(flat < 0) != np.all(flat < 0):
        return None
    steps = np.unique(np.diff(flat))
    if steps.size > 1 or steps.size and steps[0] == 0:
        return None
    size, first = m["x"].shape[_gather_axis(m)], int(flat[0])
    start = first if first >= 0 else size + first
    return start, int(steps[0]) if steps.size else 1


def _gather_axis(m: Match) -> int:
    return int(m.attr("gather", "axis")) % m["x"].rank


def _evenly(m: Match) -> str | None:
    if _even_indices(m) is None:
        return "its indices are not evenly spaced"
    shape = m.root.out().shape
    bound = symbols_bound(shape, input_symbols(m.graph), [m["x"]])
    return None if bound else "the shape depends on a size that is not known in time"


def _as_slice(m: Match, r: Editor) -> Value:
    found, x, axis = _even_indices(m), m["x"], _gather_axis(m)
    assert found is not None and m["i"].constant is not None
    starts: list[Dim] = [0] * x.rank
    steps, shape = [1] * x.rank, list(x.shape)
    starts[axis], steps[axis] = found
    shape[axis] = m["i"].constant.size
    attrs = {"starts": tuple(starts), "steps": tuple(steps), "shape": tuple(shape)}
    return r.op("kiln.Reshape", r.op("kiln.Slice", x, **attrs), shape=m.root.out().shape)


# ---- concat, pad ---------------------------------------------------------------------------------


def _without_empty(m: Match, r: Editor) -> Value | None:
    inputs = m.graph.required_inputs(m.root)
    axis = m.root.attrs["axis"]
    kept = [v for v in inputs if v.shape[axis] != 0]  # type: ignore[index]
    if len(kept) == len(inputs) or not kept:
        return None
    return r.node("Concat", kept, dict(m.root.attrs)).out() if len(kept) > 1 else kept[0]


def _no_padding(m: Match) -> str | None:
    pads = m.graph.input(m.root, 1)
    array = None if pads is None else pads.constant
    return None if array is not None and not array.any() else "it pads"


RULES = (
    Rule(
        "reshape-same",
        Op("kiln.Reshape", Var("x")),
        _x,
        same_type,
        claim=moved("reshape(x) = x, to the shape of x"),
    ),
    Rule(
        "reshape-reshape",
        Op("kiln.Reshape", Op("kiln.Reshape", Var("x"), shared=True)),
        _same_op,
        _bound,
        claim=moved("reshape(reshape(x, a), b) = reshape(x, b)"),
    ),
    Rule(
        "slice-all",
        Op("kiln.Slice", Var("x")),
        _x,
        lambda m: _whole(m) or same_type(m),
        claim=moved("slice(x) = x, all of it"),
    ),
    Rule(
        "slice-slice",
        Op("kiln.Slice", Op("kiln.Slice", Var("x"), name="inner", shared=True)),
        _merged_slice,
        _bound,
        claim=moved("slice(slice(x, s, d), t, e) = slice(x, s + t*d, d*e)"),
    ),
    Rule(
        "expand-same",
        Op("kiln.Expand", Var("x")),
        _x,
        same_type,
        claim=moved("expand(x) = x, to the shape of x"),
    ),
    Rule(
        "expand-view",
        Op("kiln.Expand", Var("x")),
        _view_of_ones,
        _only_adds_ones,
        claim=moved("expand(x) = reshape(x), adding dims of 1"),
    ),
    Rule(
        "expand-expand",
        Op("kiln.Expand", Op("kiln.Expand", Var("x"), shared=True)),
        _same_op,
        _bound,
        claim=moved("expand(expand(x, a), b) = expand(x, b)"),
    ),
    Rule(
        "broadcast-expand",
        Op((Trait.BROADCASTS,), rest=True),
        _without_expands,
        _has_expand,
        claim=moved("f(expand(x), y) = f(x, y), f broadcasts"),
    ),
    Rule(
        "gather",
        Op("Gather", Var("x"), Const("i"), name="gather"),
        _as_slice,
        _evenly,
        claim=moved("gather(x, i) = reshape(slice(x)), i evenly spaced"),
    ),
    Rule("concat-one", Op("Concat", Var("x")), _x, claim=moved("concat(x) = x")),
    Rule(
        "concat-empty",
        Op("Concat", Var("x"), rest=True),
        _without_empty,
        claim=moved("concat(x, empty) = concat(x)"),
    ),
    Rule(
        "split-one",
        Op("Split", Var("x"), rest=True),
        _x,
        lambda m: "several parts" if len(m.root.outputs) > 1 else same_type(m),
        claim=moved("split(x) = x, one part"),
    ),
    Rule(
        "pad-none",
        Op("Pad", Var("x"), rest=True),
        _x,
        lambda m: _no_padding(m) or same_type(m),
        claim=moved("pad(x, 0) = x"),
    ),
    Rule(
        "tile-once", Op("Tile", Var("x"), rest=True), _x, same_type, claim=moved("tile(x, 1) = x")
    ),
)


def _whole(m: Match) -> str | None:
    starts, steps = m.root.attrs["starts"], m.root.attrs["steps"]
    assert isinstance(starts, tuple) and isinstance(steps, tuple)
    plain = all(s == 0 for s in starts) and all(d == 1 for d in steps)
    return None if plain else "it moves elements"
