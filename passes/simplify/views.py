"""Views move out from between operations that could be fused.

f(Reshape(a), b) = Reshape(f(a, b'))         f elementwise, a the result most worth fusing
                                             with; b' is b seen in the shape of a
Reshape(Slice(x)) = Slice(Reshape(x))        the view splits the sliced axis into whole blocks
Slice(Transpose(x)) = Transpose(Slice(x))    every use of the transpose is a slice
Slice(Reshape(Transpose(x))) = Reshape(Slice(Transpose(x)))
                                             the view only adds or drops dims of 1
"""

from __future__ import annotations

from math import prod

from ...ir.axes.query import broadcasts
from ...ir.dims import Dim, known_equal
from ...ir.edit import Editor
from ...ir.graph import Node, Value
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ..anchors import is_anchor
from ..claims import moved
from ..pattern import Match, Op, Rule, Var
from ..queries import input_symbols, single_use, symbols_bound
from .transposes import perm_of

# ---- below elementwise ops -----------------------------------------------------------------------


def _viewed(m: Match) -> Value | None:
    """The input of ``root`` that is a view of a result ``root`` could be fused with.

    That result must be the one that is most worth fusing with; otherwise two views would move each
    other away endlessly.
    """
    inputs = [v for v in m.graph.inputs_of(m.root) if v is not None]
    ranked = sorted(inputs, key=lambda v: -_worth(m, v))
    best = ranked[0] if ranked else None
    if best is None or best.node.key != "kiln.Reshape" or best.shape != m.root.out().shape:
        return None
    second = _worth(m, ranked[1]) if len(ranked) > 1 else 0
    return best if _worth(m, best) > second else None


def _worth(m: Match, v: Value) -> int:
    """How much fusion with a producer gains: 2 for a heavy op, 1 for an elementwise one, else 0."""
    source: Value | None = v
    while source is not None and source.node.key == "kiln.Reshape":
        if not single_use(m.graph, source):
            return 0
        source = m.graph.input(source.node, 0)
    if source is None or not single_use(m.graph, source):
        return 0
    return 2 if is_anchor(source.node) else int(has_trait(source.node, Trait.ELEMENTWISE))


def _other(m: Match, r: Editor | None, v: Value, view: Value, a: Value) -> Value | None:
    """Operand ``v`` in the shape of ``a``; without an editor, ``v`` itself if that can be made."""
    if v == view:
        return a
    if v.rank == 0 or v.rank == 1 and (v.shape[0] == 1 or _same_last(v, view, a)):
        return v
    if v.shape != view.shape or not symbols_bound(a.shape, input_symbols(m.graph), [v]):
        return None
    return v if r is None else r.op("kiln.Reshape", v, shape=a.shape)


def _same_last(v: Value, view: Value, a: Value) -> bool:
    return bool(a.rank) and v.shape[0] == view.shape[-1] == a.shape[-1]


def _can_sink(m: Match) -> str | None:
    """An objection to moving the view of an operand behind the elementwise root."""
    if has_trait(m.root, Trait.STOCHASTIC) or len(m.root.outputs) != 1:
        return "its results go by their places"
    view = _viewed(m)
    if view is None:
        return "no input is a view of something computed"
    if not broadcasts(m.graph, m.root):
        return "not elementwise"
    if m.root.out().tensor_type.dtype.kind == "b":
        return "what reads truth values is seldom elementwise"
    a = m.graph.input(view.node, 0)
    assert a is not None
    others = [v for v in m.graph.inputs_of(m.root) if v is not None]
    if any(_other(m, None, v, view, a) is None for v in others):
        return "an operand is not of the viewed shape"
    out = m.root.out()
    return None if symbols_bound(out.shape, input_symbols(m.graph), [a]) else "its sizes come late"


def _sink(m: Match, r: Editor) -> Value:
    view = _viewed(m)
    a = None if view is None else m.graph.input(view.node, 0)
    assert view is not None and a is not None
    inputs = [None if v is None else _other(m, r, v, view, a) for v in m.graph.inputs_of(m.root)]
    inner = r.node(m.root.op, inputs, dict(m.root.attrs), domain=m.root.domain).out()
    return r.op("kiln.Reshape", inner, shape=m.root.out().shape)


# ---- slices --------------------------------------------------------------------------------------


def _dims(node: Node, key: str) -> tuple[Dim, ...]:
    value = node.attrs[key]
    assert isinstance(value, tuple)
    return value


def _sliced_axis(node: Node, x: Value) -> int | None:
    """The one axis along which a ``kiln.Slice`` takes a contiguous part; None for other slices."""
    starts, steps, shape = (_dims(node, k) for k in ("starts", "steps", "shape"))
    axes = [i for i, d in enumerate(shape) if starts[i] != 0 or d != x.shape[i]]
    return axes[0] if len(axes) == 1 and all(s == 1 for s in steps) else None


def _blocks(m: Match) -> tuple[int, Dim, tuple[Dim, ...]] | None:
    """The sliced axis of the result, the first block, and the shape that ``x`` is viewed in.

    Up to some axis, the view's axes are those before the sliced one, perhaps merged or split. What
    follows is a number of blocks, each with the view's remaining axes.
    """
    x, cut, out = m["x"], m.node("slice"), m.root.out().shape
    axis = _sliced_axis(cut, x)
    if axis is None:
        return None
    lead, row = _product(x.shape[:axis]), _product(x.shape[axis:])
    place = next((i for i in range(len(out)) if known_equal(_product(out[:i]), lead)), None)
    if place is None or place == len(out) - 1:
        return None
    block = _product(out[place + 1 :])
    first = _dims(cut, "starts")[axis] * _product(x.shape[axis + 1 :])
    if not all(isinstance(d, int) for d in (block, row, first)) or block in (0, 1):
        return None
    if first % block or row % block:
        return None
    return place, first // block, (*out[:place], row // block, *out[place + 1 :])


def _product(dims: tuple[Dim, ...]) -> Dim:
    return prod(dims, start=1)


def _view_first(m: Match, r: Editor) -> Value | None:
    found = _blocks(m)
    assert found is not None
    axis, first, shape = found
    if not symbols_bound(shape, input_symbols(m.graph), [m["x"]]):
        return None
    out = m.root.out().shape
    starts: list[Dim] = [0] * len(out)
    starts[axis] = first
    seen = r.op("kiln.Reshape", m["x"], shape=shape)
    return r.op("kiln.Slice", seen, starts=tuple(starts), steps=(1,) * len(out), shape=out)


def _only_sliced(m: Match) -> str | None:
    users = m.graph.consumers(m.node("transpose"))
    return None if all(n.key == "kiln.Slice" for n in users) else "it is used as a whole"


def _slice_first(m: Match, r: Editor) -> Value:
    x = m["x"]
    perm = perm_of(m.node("transpose"), x.rank)
    attrs = {}
    for key in ("starts", "steps", "shape"):
        old = _dims(m.root, key)
        new: list[Dim] = [0] * x.rank
        for to, source in enumerate(perm):
            new[source] = old[to]
        attrs[key] = tuple(new)
    return r.op("Transpose", r.op("kiln.Slice", x, **attrs), perm=perm)


def _same_extent(m: Match) -> str | None:
    """An objection if the slice and the view differ in their number of elements, which they should
    not.
    """
    same = known_equal(m.root.out().tensor_type.numel, m.node("slice").out().tensor_type.numel)
    if not same:
        return "its extent is not known to be whole blocks"
    return None if _blocks(m) is not None else "the view does not split the sliced axis in blocks"


def _ones_between(m: Match) -> str | None:
    """An objection to slicing in front of the view."""
    view = m.node("view")
    if m["x"].node.key != "Transpose":
        return "it is no view of a transpose"
    if any(n.key != "kiln.Slice" for n in m.graph.consumers(view)):
        return "it is used as a whole"
    x, out = m["x"].shape, view.out().shape
    if [d for d in x if d != 1] != [d for d in out if d != 1]:
        return "the view changes more than dims of 1"
    cut = _dims(m.root, "shape")
    return None if all(c == 1 for c, d in zip(cut, out, strict=True) if d == 1) else "it is empty"


def _slice_before_ones(m: Match, r: Editor) -> Value:
    x, out = m["x"], m.node("view").out().shape
    kept = [i for i, d in enumerate(out) if d != 1]
    attrs = {}
    for key, usual in (("starts", 0), ("steps", 1), ("shape", 1)):
        given = iter([_dims(m.root, key)[i] for i in kept])
        attrs[key] = tuple(usual if d == 1 else next(given) for d in x.shape)
    return r.op("kiln.Reshape", r.op("kiln.Slice", x, **attrs), shape=m.root.out().shape)


RULES = (
    Rule(
        "view-below",
        Op((Trait.ELEMENTWISE,), rest=True),
        _sink,
        _can_sink,
        claim=moved("f(reshape(a), b) = reshape(f(a, reshape(b))), f elementwise"),
    ),
    Rule(
        "view-slice",
        Op("kiln.Reshape", Op("kiln.Slice", Var("x"), name="slice")),
        _view_first,
        _same_extent,
        claim=moved("reshape(slice(x)) = slice(reshape(x)), whole blocks"),
    ),
    Rule(
        "slice-transpose",
        Op("kiln.Slice", Op("Transpose", Var("x"), name="transpose", shared=True)),
        _slice_first,
        _only_sliced,
        claim=moved("slice(transpose(x)) = transpose(slice(x))"),
    ),
    Rule(
        "slice-ones",
        Op("kiln.Slice", Op("kiln.Reshape", Var("x"), name="view", shared=True)),
        _slice_before_ones,
        _ones_between,
        claim=moved("slice(reshape(x)) = reshape(slice(x)), adding or dropping dims of 1"),
    ),
)
