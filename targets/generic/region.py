"""Lowers a region (a small closed graph) to one TensorIR function by the generic schedule.

Ops that are lowered to expressions are computed in the loops of their readers. Ops with loops of
their own run one after the other. The parameters of the function are the region's inputs, its
outputs, and then the symbols of its shapes, in the order of :func:`region_symbols`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from ...ir.dims import Dim, free_symbols
from ...ir.elementwise import is_elementwise
from ...ir.graph import Graph, Node, Value
from ...ir.hardware import GenericHardware, Hardware
from ...ir.registry import attribute, has_trait
from ...ir.traits import Trait
from ...ir.types import BYTES, TensorType, Type, type_symbols
from ..tir.builder import BufferTensor, Builder, LoopStrategy, TensorExpr
from ..tir.byte_tables import LookUp
from ..tir.extents import as_int, index
from ..tir.numeric import cast, compute_dtype, dtype_of
from ..tir.rounded import Rounded
from .choice import SPREAD, choose_template, movement_before
from .registry import (
    LowerContext,
    LoweringError,
    Run,
    Template,
    TemplateContext,
    lowering_of,
    sizes_of,
)


def region_symbols(graph: Graph) -> list[str]:
    """The symbols of all types in the region and of its dim attributes, in a stable order."""
    seen: dict[str, None] = {}
    for node in graph.topological_all():
        for out in node.outputs:
            if out.type is not None:
                seen.update(dict.fromkeys(sorted(type_symbols(out.type))))
        for attr in node.attrs.values():
            for item in attr if isinstance(attr, tuple) else (attr,):
                if not isinstance(item, int | float | str | np.ndarray | Graph | None):
                    seen.update(dict.fromkeys(sorted(free_symbols(item))))
    return list(seen)


def lower_region(
    graph: Graph, name: str, loops: LoopStrategy, templates: Mapping[str, Template] | None = None,
    hardware: Hardware | None = None,
) -> tirx.PrimFunc:  # fmt: skip
    """The function of a region, called ``name``.

    ``templates`` are a target's own kernels, by op key. If a template can compute the region (see
    :mod:`.choice`), it does, with the other ops as its prologue and epilogue. Raises
    :class:`LoweringError`, which names the node, for an op without a lowering.
    """
    b = Builder(loops)
    for s in region_symbols(graph):
        b.symbol(s)
    values: dict[Value, TensorExpr] = {}
    for i, v in enumerate(graph.inputs):
        given = b.argument(f"in{i}", _shape(b, v.tensor_type), v.dtype)
        values[v] = b.ahead(given) if v.tensor_type.numel == 1 else given
    outputs = [
        b.argument(f"out{i}", _shape(b, v.tensor_type), v.dtype)
        for i, v in enumerate(graph.outputs)
    ]
    destinations: dict[Value, BufferTensor] = {}
    for v, out in zip(graph.outputs, outputs, strict=True):
        destinations.setdefault(v, out)
    anchor = choose_template(graph, templates or {}, hardware or GenericHardware()).anchor
    results = list(zip(graph.outputs, outputs, strict=True))
    if anchor is not None and templates is not None and templates[anchor.key].stores:
        _lower_nodes(graph, b, values, {}, skip=anchor)
        context = _context(graph, anchor, b, values, destinations)
        templates[anchor.key].emit(TemplateContext(**vars(context)))
        return b.finish(name)
    if anchor is not None and templates is not None:
        sink = _Sink(anchor, b, results, values, graph)
        values[anchor.out()] = sink.placeholder
        _lower_nodes(graph, b, values, {}, skip=anchor)
        context = _context(graph, anchor, b, values, {})
        templates[anchor.key].emit(
            TemplateContext(**vars(context), sink=sink.store, sink_run=sink.store_run)
        )
        return b.finish(name)
    _lower_nodes(graph, b, values, destinations)
    looks_up = any(has_trait(n, Trait.TABULAR) for n in graph.nodes)
    _store_outputs(b, [(values[v], o) for v, o in results], looks_up)
    return b.finish(name)


def _movement_to(graph: Graph, anchor: Node, node: Node) -> Node | None:
    """The movement op that the anchor's result has gone through on the way to ``node``'s result."""
    moves = node is not anchor and not is_elementwise(node, graph.inputs_of(node))
    return node if moves else movement_before(graph, anchor, node)


class _Sink:
    """Takes a template's results, element by element; computes the epilogue and stores it."""

    def __init__(
        self, anchor: Node, b: Builder, results: list[tuple[Value, BufferTensor]],
        values: dict[Value, TensorExpr], graph: Graph,
    ) -> None:  # fmt: skip
        self.b = b
        self.results = results
        self.moves = {v: _movement_to(graph, anchor, v.node) for v, _ in results}
        self.values = values
        self.current: Any = None
        self.dtype = anchor.out().dtype
        self.placeholder = TensorExpr(
            self.dtype, _shape(b, anchor.out().tensor_type), lambda _at: self.current
        )

    def store(self, at: tuple[Any, ...], value: Any) -> None:
        """Store all outputs that are computed from the anchor's element ``value`` at ``at``."""
        self.current = self.b.let(cast(value, compute_dtype(self.dtype)))
        for v, out in self.results:
            place = _moved(self.moves[v], at)
            out.store(place, self.values[v][place])

    def store_run(self, run: Run) -> None:
        """:meth:`store` for all elements of a run; results of bytes are narrowed together."""
        b, count = self.b, len(run.places) * run.lanes
        wide = {
            v: b.local((count,), self._before_rounding(v), "wide")
            for v, out in self.results if out.dtype in BYTES and self.moves[v] is None
        }  # fmt: skip
        for i, (*lead, first) in enumerate(run.places):
            with b.lanes(run.lanes) as lane:
                place = (*lead, first + lane)
                self.current = b.let(cast(run.value(i, lane), compute_dtype(self.dtype)))
                for v, out in self.results:
                    moved = _moved(self.moves[v], place)
                    element = self._wide_element(v, moved) if v in wide else None
                    if element is not None:
                        wide[v].store((i * run.lanes + lane,), element)
                    else:
                        wide.pop(v, None)  # so for all vectors, as their expressions are alike
                        out.store(moved, self.values[v][moved])
        for v, out in self.results:
            if v in wide:
                self._store_packed(v, out, wide[v], run)

    def _before_table(self, v: Value) -> TensorExpr:
        """What a result is looked up by, or the result itself."""
        found = self.values[v]
        return found.x if isinstance(found, LookUp) and found.x is not None else found

    def _before_rounding(self, v: Value) -> str:
        """The type of the wide elements that a result of bytes is made of."""
        return "float32" if isinstance(self._before_table(v), Rounded) else "int32"

    def _wide_element(self, v: Value, at: tuple[Any, ...]) -> Any:
        """What the byte of a result at ``at``, or its place in a table, is rounded or cut from;
        None where it is computed in another way.
        """
        found = self._before_table(v)
        if isinstance(found, Rounded):
            return found.steps(at)
        element = found[at]
        return element.value if _is_narrowed(element) else None

    def _store_packed(self, v: Value, out: BufferTensor, wide: BufferTensor, run: Run) -> None:
        """Store the low bytes of a run's results, or what they look up."""
        count, lanes, found = len(run.places), run.lanes, self.values[v]
        ramps = [tirx.Ramp(index(i * lanes), index(1), lanes) for i in range(count)]
        vectors = [self.b.let(wide.load_raw([ramp])) for ramp in ramps]
        before = self._before_table(v)
        if isinstance(before, Rounded):
            packed = self.b.let(run.pack.rounded(vectors, before.zero(), before.dtype))
        else:
            packed = self.b.let(run.pack.low_bytes(vectors))
        if isinstance(found, LookUp):
            packed = found.at_bytes(tirx.reinterpret(f"uint8x{count * lanes}", packed))
        out.store_run(run.places[0], tirx.reinterpret(f"{out.dtype}x{count * lanes}", packed))


def _is_narrowed(element: Any) -> bool:
    """Is an element the low bits of an int32?"""
    return isinstance(element, tirx.Cast) and dtype_of(element.value) == "int32"


def _moved(node: Node | None, at: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index that a movement moves the anchor's element at ``at`` to."""
    if node is None:
        return at
    if node.key == SPREAD:
        kh, kw = attribute(node, "window")
        n, block, h, w, lane = at
        blocks = node.out().shape[1]
        window, kept = tirx.floordiv(block, index(blocks)), tirx.floormod(block, index(blocks))
        down, along = tirx.floordiv(window, index(kw)), tirx.floormod(window, index(kw))
        return n, kept, h * kh + down, w * kw + along, lane
    perm = attribute(node, "perm") or range(len(at))[::-1]
    return tuple(at[axis] for axis in perm)


def _lower_nodes(
    graph: Graph, b: Builder, values: dict[Value, TensorExpr],
    destinations: dict[Value, BufferTensor], skip: Node | None = None,
) -> None:  # fmt: skip
    for node in graph.topological_all():
        if node.key == "Constant":
            values[node.out()] = constant_expr(b, node.attrs["value"])  # type: ignore[arg-type]
        elif node.key not in ("Input", "Output") and node is not skip:
            _lower_node(graph, node, b, values, destinations)


def lower_sizes(graph: Graph, name: str, loops: LoopStrategy) -> tirx.PrimFunc:
    """The function that computes the data-dependent sizes of a one-node region, such as NonZero's.

    Its parameters are the region's inputs, an int64 tensor for the sizes, and then the symbols of
    the inputs.
    """
    (node,) = graph.nodes
    rule = sizes_of(node.key)
    if rule is None:
        raise LoweringError("its output size cannot be compiled", at=node)
    b = Builder(loops)
    for s in input_symbols(graph):
        b.symbol(s)
    values: dict[Value, TensorExpr] = {}
    for i, v in enumerate(graph.inputs):
        values[v] = b.argument(f"in{i}", _shape(b, v.tensor_type), v.dtype)
    for n in graph.nx:
        if n.key == "Constant":
            values[n.out()] = constant_expr(b, n.attrs["value"])
    fresh = fresh_symbols(node_types(node), [v.type for v in graph.inputs])
    out = b.argument("sizes", (len(fresh),), "int64")

    def compute(_at: tuple[Any, ...]) -> None:
        found = rule(_context(graph, node, b, values, {}))
        if len(found) != len(fresh):
            raise LoweringError(f"{len(found)} sizes for the dims {fresh}", at=node)
        for i, size in enumerate(found):
            out.store((index(i),), cast(size, "int64"))

    b.nest((), compute)
    return b.finish(name)


def node_types(node: Node) -> list[Type | None]:
    """The types of a node's outputs."""
    return [o.type for o in node.outputs]


def input_symbols(graph: Graph) -> list[str]:
    """The symbols of the region's input types, in a stable order."""
    seen: dict[str, None] = {}
    for v in graph.inputs:
        seen.update(dict.fromkeys(sorted(type_symbols(v.type))))
    return list(seen)


def fresh_symbols(outputs: Sequence[Type | None], inputs: Sequence[Type | None]) -> list[str]:
    """The symbols that an op's results introduce, in order of appearance.

    This is the order of the sizes that a ``@sizes`` rule returns.
    """
    known: set[str] = set()
    for t in inputs:
        known |= type_symbols(t) if t is not None else frozenset()
    seen: dict[str, None] = {}
    for t in outputs:
        for d in t.shape or () if isinstance(t, TensorType) else ():
            seen.update(dict.fromkeys(s for s in sorted(free_symbols(d)) if s not in known))
    return list(seen)


def _shape(b: Builder, t: TensorType) -> tuple[object, ...]:
    return tuple(b.dim(d) for d in t.dims)


def _context(
    graph: Graph,
    node: Node,
    b: Builder,
    values: dict[Value, TensorExpr],
    destinations: dict[Value, BufferTensor],
) -> LowerContext:
    """The lowering context of ``node``."""
    inputs = graph.inputs_of(node)

    def known(i: int) -> np.ndarray | None:
        v = inputs[i]
        return None if v is None else v.constant

    return LowerContext(
        graph,
        node,
        b,
        [None if v is None else values[v] for v in inputs],
        [v.tensor_type for v in node.values],
        [None if v is None else v.tensor_type for v in inputs],
        known,
        [destinations.get(v) for v in node.values],
    )


def _lower_node(
    graph: Graph,
    node: Node,
    b: Builder,
    values: dict[Value, TensorExpr],
    destinations: dict[Value, BufferTensor],
) -> None:
    """Lower ``node`` by its op's rule; its results are added to ``values``."""
    rule = lowering_of(node.key)
    if rule is None:
        raise LoweringError("no lowering for this op", at=node)
    result = rule(_context(graph, node, b, values, destinations))
    results: Sequence[TensorExpr | None] = (
        [result] if isinstance(result, TensorExpr) else list(result)
    )
    for v, r in zip(node.values, results, strict=False):
        if r is not None:
            shared = len(graph.uses(v)) > 1 and r.cost > 0
            values[v] = b.shared(r) if shared else r


def _store_outputs(
    b: Builder, pairs: list[tuple[TensorExpr, BufferTensor]], looks_up: bool
) -> None:
    """Store the outputs that are still expressions; those of the same shape share a loop nest.

    Rows of a region that ``looks_up`` bytes are cut into vectors here: LLVM makes a gather of each
    look-up in a loop that it vectorises.
    """
    groups: dict[str, list[tuple[TensorExpr, BufferTensor]]] = {}
    for value, out in pairs:
        if value is not out:
            groups.setdefault(str(out.shape), []).append((value, out))
    for group in groups.values():
        cost = sum(1 + v.cost for v, _ in group)
        *outer, last = group[0][1].shape or (1,)
        if b.loops.fills_vectors(last) and outer:
            b.nest(outer, partial(_store_lanes, group, b, last), cost * int(last), True)
        elif looks_up and _has_vectors(b, last):
            width = b.loops.vector_bytes
            chunks = tirx.floordiv(index(last) + (width - 1), index(width))
            shape = (*outer, as_int(chunks) or chunks)
            b.nest(shape, partial(_store_vectors, group, b, last), cost * width, True)
        else:
            b.nest(group[0][1].shape, partial(_store_all, group), cost)


def _store_lanes(
    group: list[tuple[TensorExpr, BufferTensor]], b: Builder, extent: Any, at: tuple[Any, ...]
) -> None:
    """Store a short row in vectors. LLVM by itself would unroll it before it vectorises."""
    with b.lanes(extent) as lane:
        _store_all(group, (*at, lane))


def _has_vectors(b: Builder, extent: Any) -> bool:
    """Are rows of ``extent`` bytes at least a vector long, or may they be?"""
    known = as_int(extent)
    return b.loops.vector_bytes > 1 and (known is None or known >= b.loops.vector_bytes)


def _store_vectors(
    group: list[tuple[TensorExpr, BufferTensor]], b: Builder, extent: Any, at: tuple[Any, ...]
) -> None:
    """Store a vector of a row, or the elements behind its last vector."""
    *outer, number = at
    width, known = b.loops.vector_bytes, as_int(extent)
    start = b.let(number * width, "start")
    whole = known is not None and known % width == 0
    with b.when(None if whole else start + width <= index(extent)), b.lanes(width) as lane:
        _store_all(group, (*outer, start + lane))
    if not whole:
        with b.otherwise(), b.loop(index(extent) - start) as i:
            _store_all(group, (*outer, start + i))


def _store_all(group: list[tuple[TensorExpr, BufferTensor]], at: tuple[Any, ...]) -> None:
    for value, out in group:
        out.store(at, value[at])


def constant_expr(b: Builder, array: np.ndarray) -> TensorExpr:
    """A small constant as an expression: a literal, or a chain of selects on the flat index."""
    from ...ir.types import array_type
    from .constants import literal, table

    t = array_type(array)
    if array.size == 1:
        value = literal(array.reshape(-1)[0], t.dtype.name)
        return TensorExpr(t.dtype.name, tuple(array.shape), lambda _at: value)
    return table(b, array, t.dtype.name)


__all__ = [
    "Dim", "constant_expr", "fresh_symbols", "input_symbols", "lower_region",
    "lower_sizes", "region_symbols",
]  # fmt: skip
