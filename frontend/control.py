"""If, Loop and Scan: bodies become closed graphs; outer values that they use become inputs.

If(cond, *captured)                          then_branch, else_branch: (*captured)
Loop(M?, cond?, *carried, *captured)         body: (i, cond, *carried, *captured)
                                                   -> (cond, *carried, *scanned)
Scan(*carried, *scanned, *captured)          body: (*carried, *slices, *captured)
                                                   -> (*carried, *slices)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..errors import node_text
from ..ir.dims import Dim
from ..ir.graph import Graph, Value
from ..ir.types import OptionalType, SequenceType, TensorType, Type, tensor, unify_sequences
from .assumptions import Question, condition_of, disagree, equality
from .branch_guard import Guard
from .context import ImportContext
from .emit import Emit
from .errors import ImportFault, shorten, text
from .node import OnnxNode
from .order import free_names
from .schema import LATEST
from .scope import BROKEN, Body, Builder, Scope, Slot

CONTROL_OPS = ("If", "Loop", "Scan")

SCALARS = {"If": 1, "Loop": 2}
"""The number of first inputs that are a count or a condition, of one element."""


def scalar_inputs(graph: onnx.GraphProto) -> set[str]:
    """The names of the counts and conditions of control flow, in a graph or its bodies."""
    found: set[str] = set()
    for node in graph.node:
        found.update(node.input[: SCALARS.get(node.op_type, 0)])
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                found |= scalar_inputs(body)
    return found


class _Unfinished(Exception):
    """A body could not be imported; its blockers are recorded."""


@dataclass
class _Site:
    """A control flow node that is being added, and whether one of its bodies failed."""

    importer: ImportContext
    node: OnnxNode
    scope: Scope
    failed: bool = False

    def builder(self, part: str) -> Builder:
        """A builder for a body of this node."""
        name = self.importer.graph_name(f"{self.node.name}_{part}")
        return Builder(Graph(name), self.scope.builder)


def place_control(importer: ImportContext, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
    """Add an If, Loop or Scan of the newest opset, with its bodies closed."""
    try:
        return _PLACERS[node.op](_Site(importer, node, scope))
    except _Unfinished:
        return [BROKEN] * len(node.outputs)


# ---- If ----------------------------------------------------------------------------------------


def _place_if(at: _Site) -> Sequence[Slot]:
    cond, builder, wanted = at.node.required(0), at.scope.builder, len(at.node.outputs)
    branches = [_body(at.node, "then_branch"), _body(at.node, "else_branch")]
    for branch in branches:
        if len(branch.proto.output) != wanted or branch.proto.input:
            raise ImportFault(f"each branch must have no inputs and {wanted} outputs")
    decided = builder.known.get(cond)
    if decided is not None and decided.size == 1 and decided.dtype != object:
        return _inline(at, branches[0 if decided.reshape(-1)[0] else 1])
    assumptions, question = at.importer.assumptions, condition_of(builder, cond)
    answer = None if assumptions is None else assumptions.find(question.key)
    if answer is None:
        results = _place_both(at, cond, branches, wanted)
        made = results[0].node if results and isinstance(results[0], Value) else None
        if made is None or not disagree(made):
            return results
        if assumptions is None:
            at.importer.undecided = True
            return results
        builder.graph.remove(made)
        answer = assumptions.make(question.key, question.usual)
    return _place_chosen(at, cond, branches, question, answer)


def _place_both(at: _Site, cond: Value, branches: Sequence[Body], wanted: int) -> Sequence[Slot]:
    then, other = at.builder("then"), at.builder("else")
    _fill(at, branches[0], then, [])
    for value in then.captured:
        other.fetch(value)
    _fill(at, branches[1], other, [])
    for value in other.captured:
        then.fetch(value)
    attrs = {"then_branch": then.graph, "else_branch": other.graph}
    return _add(at, [cond, *other.captured], attrs, wanted)


def _place_chosen(
    at: _Site, cond: Value, branches: Sequence[Body], question: Question, answer: bool
) -> Sequence[Slot]:
    """The branch that an assumed answer selects, behind a guard."""
    importer, assumptions, builder = at.importer, at.importer.assumptions, at.scope.builder
    assert assumptions is not None
    taken = answer != question.negated
    branch, title = branches[0 if taken else 1], at.scope.prefix + at.node.name
    origin = node_text(title, "If")
    message = shorten(f"{origin}: the model was compiled for {question.assumption(answer)}")
    guard = Guard(Emit(importer, at.scope, title), cond, taken, message)
    inner = _inner_scope(at, branch, builder)
    for name in sorted(free_names(branch.proto)):
        inner.values[name] = guard(inner.lookup(name))
    results = _inline(at, branch, inner)
    if not guard.used:
        results = [guard(slot) for slot in results]
    assumptions.note(question.key, builder, results)
    if builder.parent is None:
        name = "then_branch" if taken else "else_branch"
        importer.needs.conditions += equality(
            question, answer, origin, name, builder.origins
        )  # fmt: skip
    return results


def _inline(at: _Site, branch: Body, inner: Scope | None = None) -> Sequence[Slot]:
    """The branch that a condition known at import selects; the other is not imported."""
    inner = inner or _inner_scope(at, branch, at.scope.builder)
    inner.prefix = at.scope.prefix
    inner.renames = {
        text(own.name): at.scope.title(outer)
        for own, outer in zip(branch.proto.output, at.node.outputs, strict=True) if outer
    }  # fmt: skip
    at.importer.load_initializers(branch.proto, inner)
    at.importer.run_nodes(branch.proto.node, inner)
    return [inner.lookup(text(o.name)) for o in branch.proto.output]


# ---- Loop and Scan -----------------------------------------------------------------------------


def _place_loop(at: _Site) -> Sequence[Slot]:
    node, body = at.node, _body(at.node, "body")
    carried = [node.required(i) for i in range(2, len(node.inputs))]
    count, results = len(carried), len(body.proto.output) - 1
    if len(body.proto.input) != count + 2 or results < count:
        raise ImportFault(
            f"carries {count} values; its body has {len(body.proto.input)} inputs and "
            f"{results + 1} outputs"
        )
    heads: list[Type] = [tensor("int64"), tensor("bool")]
    closed = _settle(at, body, heads, carried, [])
    inputs = [node.input(0), node.input(1), *carried, *closed.captured]
    return _add(at, inputs, {"body": closed.graph, "num_carried": count}, results)


def _place_scan(at: _Site) -> Sequence[Slot]:
    node, body = at.node, _body(at.node, "body")
    values = [node.required(i) for i in range(len(node.inputs))]
    scanned = node.attrs["num_scan_inputs"]
    assert isinstance(scanned, int)
    count, results = len(values) - scanned, len(body.proto.output)
    if scanned < 1 or not 0 <= count <= results or len(body.proto.input) != len(values):
        raise ImportFault(
            f"has {len(values)} inputs, {scanned} of them scanned; its body has "
            f"{len(body.proto.input)} inputs and {results} outputs"
        )
    axes = _axes(_flags(node, "scan_input_axes", scanned), [v.type for v in values[count:]])
    slices = [_slice(v.type, axis) for v, axis in zip(values[count:], axes, strict=True)]
    closed = _settle(at, body, [], values[:count], slices)
    stacked = [_stack(v.type) for v in closed.graph.outputs[count:]]
    attrs = {
        "body": closed.graph, "num_carried": count, "num_scan_inputs": scanned,
        "scan_input_axes": axes,
        "scan_input_directions": _flags(node, "scan_input_directions", scanned),
        "scan_output_axes": _axes(_flags(node, "scan_output_axes", results - count), stacked),
        "scan_output_directions": _flags(node, "scan_output_directions", results - count),
    }  # fmt: skip
    return _add(at, [*values, *closed.captured], attrs, results)


def place_batched_scan(importer: ImportContext, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
    """Scan of opset 8, where every input has a batch axis 0: a Scan over the batch of Scans."""
    if node.input(0) is not None:
        raise ImportFault("Scan of opset 8 with sequence_lens is not supported")
    at = _Site(importer, node, scope)
    values = [node.required(i) for i in range(1, len(node.inputs))]
    _axes((0,) * len(values), [v.type for v in values])
    batch = at.builder("batch")
    samples: list[Value | None] = [
        batch.graph.add_input(v.name, _slice(v.type, 0)) for v in values
    ]  # fmt: skip
    attrs = {k: v for k, v in node.attrs.items() if k != "directions"}
    attrs["scan_input_directions"] = _flags(node, "directions", node.attrs["num_scan_inputs"])
    scan = OnnxNode("Scan", "", LATEST[""], node.name, samples, list(node.outputs), attrs)
    inner = Scope(
        batch, scope.opsets, parent=scope, bindings=scope.bindings, calls=scope.calls,
        origins=scope.origins,
    )  # fmt: skip
    results = place_control(importer, scan, inner)
    if not all(isinstance(v, Value) for v in results):
        return results
    batch.graph.set_outputs([v for v in results if isinstance(v, Value)])
    outer: dict[str, Any] = {
        "body": batch.graph, "num_carried": 0, "num_scan_inputs": len(values),
        "scan_input_axes": (0,) * len(values), "scan_input_directions": (0,) * len(values),
        "scan_output_axes": (0,) * len(results), "scan_output_directions": (0,) * len(results),
    }  # fmt: skip
    return _add(at, [*values, *batch.captured], outer, len(results))


def _settle(
    at: _Site, body: Body, heads: Sequence[Type], values: Sequence[Value], tails: Sequence[Type]
) -> Builder:
    """Import a body with types of its carried values that hold in every iteration.

    The types of the first iteration are tried first. Dims that differ after an iteration become
    symbols, and the body is imported again. ``heads`` and ``tails`` are the types of the inputs
    before and after the carried ones; a body with heads returns its condition first.
    """
    carried = [v.type for v in values]
    free: set[Dim] = set()
    builder = at.builder("body")
    while True:
        _fill(at, body, builder, [*heads, *carried, *tails])
        if at.failed:
            raise _Unfinished
        first = 1 if heads else 0
        after = [v.type for v in builder.graph.outputs[first : first + len(carried)]]
        hints = [f"{builder.graph.name}_{v.name}" for v in values]
        wider = [_widen(at, a, b, h, free) for a, b, h in zip(carried, after, hints, strict=True)]
        if wider == carried:
            return builder
        carried = wider
        builder = Builder(Graph(builder.graph.name), builder.parent)


def _widen(at: _Site, a: Type, b: Type, hint: str, free: set[Dim]) -> Type:
    """The most specific type of values of both types; ``free`` are the symbols of widened dims."""
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        try:
            return unify_sequences(a, b, lambda x, y: _widen(at, x, y, hint, free))
        except ValueError:
            raise ImportFault(f"a carried value is {a} before and {b} after an iteration") from None
    if isinstance(a, OptionalType):
        elem = b.elem if isinstance(b, OptionalType) else b
        return OptionalType(_widen_element(at, a.elem, elem, hint, free))
    if not (isinstance(a, TensorType) and isinstance(b, TensorType)) or a.dtype != b.dtype:
        raise ImportFault(f"a carried value is {a} before and {b} after an iteration")
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return a.with_shape(None)
    dims: list[Dim] = []
    for i, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)):
        if x != y and x not in free:
            x = at.importer.symbols.fresh(f"{hint}_d{i}")
            free.add(x)
        dims.append(x)
    return a.with_shape(tuple(dims))


def _widen_element(at: _Site, a: Type, b: Type, hint: str, free: set[Dim]) -> Type:
    """As :func:`_widen`, but an element of unknown shape stands for a sequence without elements."""
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype == b.dtype:
        if a.shape is None or b.shape is None:
            return a if b.shape is None else b
    return _widen(at, a, b, hint, free)


# ---- Shared ------------------------------------------------------------------------------------


def _fill(at: _Site, body: Body, builder: Builder, types: Sequence[Type]) -> None:
    """Import a body, with inputs of the given types, into ``builder``."""
    before = len(at.importer.blockers)
    inner = _inner_scope(at, body, builder)
    for info, t in zip(body.proto.input, types, strict=True):
        inner.define(info.name, builder.graph.add_input(text(info.name), t))
    at.importer.load_initializers(body.proto, inner)
    at.importer.run_nodes(body.proto.node, inner)
    slots = [inner.lookup(text(o.name)) for o in body.proto.output]
    found = [v for v in slots if isinstance(v, Value)]
    at.failed |= len(found) < len(slots) or len(at.importer.blockers) > before
    if not at.failed:
        builder.graph.set_outputs(found, [o.name for o in body.proto.output])


def _inner_scope(at: _Site, body: Body, builder: Builder) -> Scope:
    outer = body.scope
    return Scope(
        builder, outer.opsets, parent=outer, bindings=outer.bindings, calls=at.scope.calls,
        origins=outer.origins,
    )  # fmt: skip


def _add(
    at: _Site, inputs: Sequence[Value | None], attrs: dict[str, Any], results: int
) -> Sequence[Slot]:
    """Add the node, with a name for each of its ``results``, also for omitted ones."""
    if at.failed:
        raise _Unfinished
    wanted = len(at.node.outputs)
    if wanted > results:
        raise ImportFault(f"has {wanted} outputs, its body gives {results}")
    names = [*at.node.outputs, *[""] * (results - wanted)]
    made = OnnxNode(
        at.node.op, "", LATEST[""], at.node.name, list(inputs), names, attrs
    )  # fmt: skip
    return at.importer.add(made, at.scope)[:wanted]


def _body(node: OnnxNode, name: str) -> Body:
    body = node.attrs.get(name)
    if not isinstance(body, Body):
        raise ImportFault(f"attribute {name!r} must be a graph")
    return body


def _flags(node: OnnxNode, name: str, count: Any) -> tuple[int, ...]:
    value = node.attrs.get(name) or (0,) * count
    if not isinstance(value, tuple) or len(value) != count:
        raise ImportFault(f"attribute {name!r} needs {count} entries")
    return value


def _axes(axes: Sequence[int], types: Sequence[Type]) -> tuple[int, ...]:
    """Axes of tensors counted from the front."""
    out = []
    for axis, t in zip(axes, types, strict=True):
        if not isinstance(t, TensorType) or t.shape is None:
            raise ImportFault(f"cannot scan a value of type {t}; its rank must be known")
        if not -len(t.shape) <= axis < len(t.shape):
            raise ImportFault(f"scan axis {axis} is out of range for {t}")
        out.append(axis % len(t.shape))
    return tuple(out)


def _slice(t: Type, axis: int) -> Type:
    assert isinstance(t, TensorType) and t.shape is not None
    return t.with_shape(t.shape[:axis] + t.shape[axis + 1 :])


def _stack(t: Type) -> Type:
    """The type of a scan output before its length is known; only its rank counts."""
    known = isinstance(t, TensorType) and t.shape is not None
    return t.with_shape((*t.shape, 1)) if known else t  # type: ignore[misc, union-attr]


_PLACERS: dict[str, Callable[[_Site], Sequence[Slot]]] = {
    "If": _place_if, "Loop": _place_loop, "Scan": _place_scan,
}  # fmt: skip
