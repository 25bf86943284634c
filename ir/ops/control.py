"""Type inference of If, Loop and Scan (their closed bodies: see :mod:`..control`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import OperandError, node_text
from ..conditions import Condition, Relation
from ..dims import Dim, sym
from ..graph import Graph, Value
from ..infer import infer_types
from ..registry import InferContext, op
from ..symbols import Renames, collect_arguments, rename_symbols
from ..traits import Trait
from ..types import (
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    type_symbols,
    unify_sequences,
)  # fmt: skip

Fresh = Callable[[], Dim]

MANY = 2**31  # captured values are inputs beyond those of the schema

_ROUNDS = 4
"""Most inferences of a loop's body until the types of carried values no longer change."""


def _body(ctx: InferContext, name: str) -> Graph:
    body = ctx.attr(name)
    if not isinstance(body, Graph):
        raise ctx.error(f"attribute {name} must be a graph")
    return body


def _infer_body(
    ctx: InferContext, body: Graph, types: Sequence[Type | None], first: int = 0
) -> list[Type]:
    """The types of a body's results; inputs from ``first`` on have the node's known values."""
    if len(body.inputs) != len(types):
        raise ctx.error(f"{body.name} takes {len(body.inputs)} values, not {len(types)}")
    for value, t in zip(body.inputs, types, strict=True):
        if t is None:
            raise ctx.error(f"a value for {value.name!r} of {body.name} is missing")
        value.set_type(t)
    offset = len(ctx.inputs) - len(types)
    known: dict[Value, np.ndarray] = {}
    for i, value in enumerate(body.inputs):
        array = ctx.known(i + offset) if i >= first else None
        if array is not None:
            known[value] = array
    infer_types(body, known, ctx.collect)
    return [v.type for v in body.outputs]


def unify(a: Type, b: Type, fresh: Fresh) -> Type:
    """The most specific type that covers both; dims that differ become fresh symbols.

    Raises ``ValueError`` where element types or kinds differ.
    """
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return unify_sequences(a, b, lambda x, y: unify(x, y, fresh))
    if isinstance(a, OptionalType) or isinstance(b, OptionalType):
        left = a.elem if isinstance(a, OptionalType) else a
        right = b.elem if isinstance(b, OptionalType) else b
        return OptionalType(_unify_elements(left, right, fresh))
    if not isinstance(a, TensorType) or not isinstance(b, TensorType) or a.dtype != b.dtype:
        raise OperandError(f"{a} and {b} do not agree")
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return a.with_shape(None)
    dims = [x if x == y else fresh() for x, y in zip(a.shape, b.shape, strict=True)]
    return a.with_shape(tuple(dims))


def _unify_elements(a: Type, b: Type, fresh: Fresh) -> Type:
    """As :func:`unify`, but an element of unknown shape stands for a sequence without elements."""
    if isinstance(a, TensorType) and a.shape is None:
        return b
    if isinstance(b, TensorType) and b.shape is None:
        return a
    return unify(a, b, fresh)


@op("If", traits=(Trait.CONTROL_FLOW,), arity=(1, MANY))
def _infer_if(ctx: InferContext) -> list[Type]:
    _require_one_element(ctx, 0, "a condition of one element")
    captured = ctx.inputs[1:]
    then = _infer_body(ctx, _body(ctx, "then_branch"), captured)
    other = _infer_body(ctx, _body(ctx, "else_branch"), captured)
    if len(then) != len(other):
        raise ctx.error(f"the branches give {len(then)} and {len(other)} values")
    outer = _symbols(ctx.inputs)
    return [
        _outside(unify(a, b, ctx.fresh_dim), outer, ctx) for a, b in zip(then, other, strict=True)
    ]


def _require_one_element(ctx: InferContext, index: int, why: str) -> None:
    """Record that a count or condition is a single one, of whatever rank."""
    t = ctx.inputs[index] if ctx.has(index) else None
    if isinstance(t, TensorType) and t.shape is not None:
        ctx.require_equal(t.numel, 1, why)


def _symbols(types: Sequence[Type | None]) -> frozenset[str]:
    return frozenset().union(*(type_symbols(t) for t in types if t is not None))


def _outside(t: Type, outer: frozenset[str], ctx: InferContext) -> Type:
    """A body's result type outside of it: dims that only the body knows become fresh symbols."""
    own = f"u{ctx.node.serial}_"
    if isinstance(t, SequenceType):
        return t.with_elem(_outside(t.elem, outer, ctx))
    if isinstance(t, OptionalType):
        return OptionalType(_outside(t.elem, outer, ctx))
    if t.shape is None:
        return t

    def settle(d: Dim) -> Dim:
        foreign = {s for s in type_symbols(TensorType(t.dtype, (d,))) if s not in outer}
        if not foreign or all(own in s for s in foreign):
            return d
        return ctx.fresh_dim()

    return t.with_shape(tuple(settle(d) for d in t.shape))


def _settle_carried(
    ctx: InferContext, body: Graph, before: list[Type | None], initial: Sequence[Type | None],
    after: Sequence[Type | None], first_output: int,
) -> tuple[list[Type], list[Type]]:  # fmt: skip
    """Body input types that hold in every iteration, and the body's result types under them."""
    first = len(before)
    earlier = [v.type for v in body.inputs[first : first + len(initial)]]
    carried: list[Type] = []
    for t in initial:
        if t is None:
            raise ctx.error("a carried value has no initial value")
        carried.append(t)

    def infer() -> list[Type]:
        return _infer_body(ctx, body, [*before, *carried, *after], first + len(carried))

    for _ in range(_ROUNDS):
        results = infer()
        turned = results[first_output : first_output + len(carried)]
        settled = [
            _generalise(body, i, a, b) for i, (a, b) in enumerate(zip(carried, turned, strict=True))
        ]
        if settled == carried:
            sizes = _settled_sizes(body, earlier, carried)
            if sizes:
                rename_symbols(body, sizes)
                results = infer()
            return carried, results
        carried = settled
    raise ctx.error("the shapes of what it carries do not settle")


def _settled_sizes(body: Graph, earlier: Sequence[Type | None], carried: Sequence[Type]) -> Renames:
    """What the body's own symbols are that its inputs had ``earlier`` and have no more.

    Attributes in the body may mention them. They stand for sizes that seemed to change with the
    iterations; now that all types agree on others, each iteration has those.
    """
    found: Renames = {}
    for index, (old, new) in enumerate(zip(earlier, carried, strict=True)):
        sizes: Renames = {}
        collect_arguments(old, new, sizes)
        own = _own_name(body, "carried", index)
        found |= {s: d for s, d in sizes.items() if s.startswith(own)}
    return found


def _own_name(body: Graph, kind: str, index: int) -> str:
    """How the names of a body's own symbols begin, for what it carries at ``index``."""
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in body.name)
    return f"{name}_{kind}{index}_"


def _generalise(body: Graph, index: int, a: Type, b: Type) -> Type:
    """The carried type after an iteration: a dim that changes becomes a symbol of the body."""
    counter = iter(range(1_000))
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.shape and b.shape:
        if len(a.shape) == len(b.shape):
            dims = [
                x if x == y else sym(f"{_own_name(body, 'carried', index)}{axis}")
                for axis, (x, y) in enumerate(zip(a.shape, b.shape, strict=True))
            ]
            return a.with_shape(tuple(dims))
    return unify(a, b, lambda: sym(f"{_own_name(body, 'element', index)}{next(counter)}"))


# M and cond count as required, though either may be omitted.
@op("Loop", traits=(Trait.CONTROL_FLOW,), arity=(2, MANY), omitted=(0, 1))
def _infer_loop(ctx: InferContext) -> list[Type]:
    _require_one_element(ctx, 0, "a trip count of one element")
    _require_one_element(ctx, 1, "a condition of one element")
    body = _body(ctx, "body")
    count = int(ctx.attr("num_carried") or 0)
    initial = ctx.inputs[2 : 2 + count]
    captured = ctx.inputs[2 + count :]
    scalars: list[Type | None] = [_scalar("int64"), _scalar("bool")]
    carried, results = _settle_carried(ctx, body, scalars, initial, captured, 1)
    going = results[0]
    if isinstance(going, TensorType) and going.shape is not None:
        why = "a condition of one element after each iteration"
        _require_in_turn(ctx, body, going.numel, 1, why)
    outer = _symbols(ctx.inputs)
    iterations = _trip_count(ctx, body)
    stacked = []
    for t in results[1 + count :]:
        if not isinstance(t, TensorType) or t.shape is None:
            raise ctx.error(f"a scan output of type {t} cannot be stacked")
        length = ctx.fresh_dim() if iterations is None else iterations
        stacked.append(t.with_shape((length, *t.shape)))
    return [_outside(t, outer, ctx) for t in [*carried, *stacked]]


def _scalar(name: str) -> TensorType:
    from ..types import dtype

    return TensorType(dtype(name), ())


def _trip_count(ctx: InferContext, body: Graph) -> Dim | None:
    """The number of iterations, if the limit is known and nothing can end the loop early."""
    limit = ctx.known(0)
    start = ctx.known(1) if ctx.has(1) else np.array(True)
    going = body.outputs[0]
    constant = going.constant is not None and bool(going.constant.reshape(-1)[0])
    endless = constant or going == body.inputs[1]
    if limit is None or limit.size != 1 or start is None or not endless:
        return None
    if not bool(np.asarray(start).reshape(-1)[0]):
        return 0
    iterations = limit.reshape(-1)[0]
    if isinstance(iterations, int | np.integer):
        return max(0, int(iterations))
    return iterations


@op("Scan", traits=(Trait.CONTROL_FLOW,), arity=(1, MANY))
def _infer_scan(ctx: InferContext) -> list[Type]:
    body = _body(ctx, "body")
    count = int(ctx.attr("num_carried") or 0)
    scans = int(ctx.attr("num_scan_inputs") or 0)
    initial = ctx.inputs[:count]
    slices: list[Type | None] = []
    length: Dim | None = None
    axes = ctx.attr("scan_input_axes") or (0,) * scans
    for i in range(scans):
        t = ctx.tensor(count + i)
        axis = int(axes[i]) % t.rank
        ctx.require_equal(t.dims[axis] if length is None else length, t.dims[axis],
                          "as many slices of each input")  # fmt: skip
        length = t.dims[axis] if length is None or not isinstance(length, int) else length
        slices.append(t.with_shape((*t.dims[:axis], *t.dims[axis + 1 :])))
    if length is None:
        raise ctx.error("it scans nothing")
    captured = [*slices, *ctx.inputs[count + scans :]]
    carried, results = _settle_scan(ctx, body, initial, captured)
    _require_one_shape(ctx, body, count)
    outer = _symbols(ctx.inputs)
    out_axes = ctx.attr("scan_output_axes") or (0,) * (len(results) - count)
    stacked = []
    for result, axis in zip(results[count:], out_axes, strict=True):
        if not isinstance(result, TensorType) or result.shape is None:
            raise ctx.error(f"a scan output of type {result} cannot be stacked")
        at = int(axis) % (len(result.shape) + 1)
        stacked.append(result.with_shape((*result.shape[:at], length, *result.shape[at:])))
    return [_outside(t, outer, ctx) for t in [*carried, *stacked]]


def _require_one_shape(ctx: InferContext, body: Graph, count: int) -> None:
    """Record that each iteration of a Scan keeps the shapes of its states."""
    why = "states that keep their shape in every iteration"
    for before, after in zip(body.inputs[:count], body.outputs[:count], strict=True):
        shapes = [v.type.shape for v in (after, before) if isinstance(v.type, TensorType)]
        if None in shapes or len(shapes) < 2:
            continue
        if before.rank != after.rank:
            raise ctx.error(f"needs {why}, not {before.type} and {after.type}")
        for a, b in zip(after.shape, before.shape, strict=True):
            _require_in_turn(ctx, body, a, b, why)


def _require_in_turn(ctx: InferContext, body: Graph, a: Dim, b: Dim, why: str) -> None:
    """Record that a node needs ``a == b`` in each iteration of its body."""
    name = node_text(ctx.node.name, ctx.node.key)
    condition = Condition(Relation.EQUAL, a, b, name, why, ctx.node.origins)
    if condition.refuted():
        raise ctx.error(f"needs {why}, not {a} and {b}")
    if ctx.collect is not None and not condition.proved():
        ctx.collect[body].conditions.append(condition)


def _settle_scan(
    ctx: InferContext, body: Graph, initial: Sequence[Type | None], after: Sequence[Type | None]
) -> tuple[list[Type], list[Type]]:
    return _settle_carried(ctx, body, [], initial, after, 0)


__all__ = ["unify"]
