"""Type inference of sequences and optionals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..dims import Dim, is_static
from ..graph import Graph, Node, Value
from ..registry import InferContext, op
from ..shapes import normalize_axis
from ..types import OptionalType, SequenceType, TensorType, Type, dtype, tensor
from .control import unify

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16",
}  # fmt: skip


def _sequence(ctx: InferContext, index: int) -> SequenceType:
    t = ctx.inputs[index] if index < len(ctx.inputs) else None
    if isinstance(t, OptionalType):
        t = t.elem
    if not isinstance(t, SequenceType):
        raise ctx.error(f"input {index} must be a sequence, not {t}")
    return t


def _anonymous(t: Type, ctx: InferContext) -> Type:
    """The type of an element as a value: dims that differ between elements are fresh symbols."""
    if not isinstance(t, TensorType) or t.shape is None:
        return t
    return t.with_shape(tuple(d if is_static(d) else ctx.fresh_dim() for d in t.shape))


def _varying(ctx: InferContext) -> Dim:
    return ctx.fresh_dim("varying")


@op("SequenceConstruct")
def _construct(ctx: InferContext) -> list[Type]:
    elem: Type = ctx.tensor(0)
    for i in range(1, len(ctx.inputs)):
        elem = unify(elem, ctx.tensor(i), lambda: _varying(ctx))
    return [SequenceType(elem)]


@op("SequenceEmpty")
def _empty(ctx: InferContext) -> list[Type]:
    code = ctx.attr("dtype")
    name = code if isinstance(code, str) else _DTYPES.get(1 if code is None else int(code))
    if name is None:
        raise ctx.error(f"element type {code} is not known")
    return [SequenceType(TensorType(dtype(name), None), empty=True)]


@op("SequenceInsert")
def _insert(ctx: InferContext) -> list[Type]:
    sequence, item = _sequence(ctx, 0), ctx.tensor(1)
    elem = sequence.elem
    if not isinstance(elem, TensorType) or elem.dtype != item.dtype:
        raise ctx.error(f"{item} cannot be put into {sequence}")
    if sequence.empty:
        return [SequenceType(item)]
    return [SequenceType(unify(elem, item, lambda: _varying(ctx)))]


@op("SequenceErase")
def _erase(ctx: InferContext) -> list[Type]:
    return [_sequence(ctx, 0)]


@op("SequenceAt")
def _at(ctx: InferContext) -> list[Type]:
    elem = _sequence(ctx, 0).elem
    if isinstance(elem, TensorType) and elem.shape is None:
        source, at = ctx.graph.inputs_of(ctx.node)
        elem = _found(ctx.graph, source, at) or elem
    return [_anonymous(elem, ctx)]


def _found(graph: Graph, sequence: Value | None, at: Value | None) -> Type | None:
    """The type of the element at a position, if the model says which tensor is there."""
    items = _items(graph, sequence)
    place = _place(at, items or [], 0)
    return None if not items or place is None or place >= len(items) else items[place].type


def _items(graph: Graph, sequence: Value | None) -> list[Value] | None:
    """The elements of a sequence, if all positions are constants; None if they are not known."""
    changes: list[Node] = []
    while sequence is not None and sequence.node.key in _CHANGES:
        changes.append(sequence.node)
        sequence = graph.input(sequence.node, 0)
    if sequence is None or sequence.node.key not in ("SequenceConstruct", "SequenceEmpty"):
        return None
    items = list(graph.required_inputs(sequence.node))
    for node in reversed(changes):
        change = _CHANGES[node.key]
        if not change(items, [*graph.inputs_of(node)[1:], None]):
            return None
    return items


def _inserted(items: list[Value], inputs: Sequence[Value | None]) -> bool:
    item, at = inputs[:2]
    place = _place(at, items, len(items))
    if item is None or place is None or place > len(items):
        return False
    items.insert(place, item)
    return True


def _erased(items: list[Value], inputs: Sequence[Value | None]) -> bool:
    place = _place(inputs[0], items, len(items) - 1)
    if place is None or not 0 <= place < len(items):
        return False
    del items[place]
    return True


_CHANGES: dict[str, Callable[[list[Value], Sequence[Value | None]], bool]] = {
    "Identity": lambda items, inputs: True,
    "SequenceInsert": _inserted,
    "SequenceErase": _erased,
}


def _place(at: Value | None, items: Sequence[Value], default: int) -> int | None:
    """A constant position, counted from the front; None if it is not known or below 0."""
    if at is None:
        return default
    if at.constant is None:
        return None
    place = int(at.constant.reshape(-1)[0])
    place += len(items) if place < 0 else 0
    return place if place >= 0 else None


@op("SequenceLength")
def _length(ctx: InferContext) -> list[Type]:
    _sequence(ctx, 0)
    return [tensor("int64")]


@op("ConcatFromSequence")
def _concat(ctx: InferContext) -> list[Type]:
    elem = _sequence(ctx, 0).elem
    if not isinstance(elem, TensorType) or elem.shape is None:
        raise ctx.undetermined("the rank of the sequence's elements is not known")
    stack = bool(ctx.attr("new_axis"))
    rank = elem.rank + stack
    axis = normalize_axis(ctx.attr("axis"), rank)
    dims = [d if is_static(d) else ctx.fresh_dim() for d in elem.shape]
    if stack:
        dims.insert(axis, ctx.fresh_dim())
    else:
        dims[axis] = ctx.fresh_dim()
    return [elem.with_shape(tuple(dims))]


@op("SplitToSequence")
def _split(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    dims = list(x.dims)
    parts = ctx.known(1)
    if parts is not None and parts.ndim == 1:
        ctx.require_equal(sum(parts.tolist()), x.dims[axis], f"parts that add up to axis {axis}")
    if not ctx.has(1):
        dims[axis] = 1
        if not ctx.attr("keepdims"):
            del dims[axis]
    elif parts is not None and parts.ndim == 1 and len({str(p) for p in parts}) == 1:
        dims[axis] = parts[0] if not isinstance(parts[0], int) else int(parts[0])
    else:
        dims[axis] = _varying(ctx)
    return [SequenceType(x.with_shape(tuple(int(d) if is_static(d) else d for d in dims)))]


@op("Optional", traits=("host",))
def _optional(ctx: InferContext) -> list[Type]:
    if ctx.has(0):
        t = ctx.inputs[0]
        assert t is not None
        return [OptionalType(t)]
    given = ctx.attr("type")
    if not isinstance(given, TensorType | SequenceType | OptionalType):
        raise ctx.error("an empty optional needs its type")
    return [given if isinstance(given, OptionalType) else OptionalType(given)]


@op("OptionalHasElement", traits=("host",))
def _has_element(_ctx: InferContext) -> list[Type]:
    return [tensor("bool")]


@op("OptionalGetElement", traits=("host",))
def _get_element(ctx: InferContext) -> list[Type]:
    t = ctx.inputs[0] if ctx.inputs else None
    if isinstance(t, OptionalType):
        return [_anonymous(t.elem, ctx)]
    if t is None:
        raise ctx.error("its input is missing")
    return [t]
