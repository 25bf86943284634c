"""The importer: from a ModelProto to a typed graph, node by node in topological order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx

from ..errors import GraphkilnError, UndeterminedError
from ..ir.dims import Dim
from ..ir.graph import Graph, Value
from ..ir.infer import infer_node
from ..ir.origins import Origins
from ..ir.registry import Needs, spec
from ..ir.types import TensorType, Type, array_type, type_symbols
from .assumptions import Assumptions
from .body_conditions import CONDITIONS
from .constants import constant_array
from .control import CONTROL_OPS, place_control, scalar_inputs
from .defaults import Defaults, inputs_with_defaults
from .emit import Emit
from .errors import Blocker, FrontendError, ImportFault, shorten, text
from .expansions import EXPANSIONS
from .growth import require_modest
from .keys import (
    FunctionKey,
    call_key,
    domain_of,
    function_key,
    functions_by_key,
    op_key,
    opset_versions,
)
from .library import default_attributes, function_body, has_body
from .node import OnnxNode, attribute_value, attributes
from .order import sorted_nodes, used_names
from .schema import LATEST, VARIADIC, check, check_registered, signature
from .scope import BROKEN, Body, Broken, Builder, Scope, Slot
from .source import Source
from .tensors import to_array, to_dense
from .upgrade import bring_up, rules
from .valuetypes import (
    Pins,
    Symbols,
    check_size,
    pin_types,
    settle_expressions,
    substitute_type,
    value_type,
)
from .zero_points import fill_zero_points

MAX_NODES = 1_000_000
"""The most nodes of a model with its functions expanded, which can grow without bounds."""

MAX_CALLS = 64

RANKS = range(1, 7)
"""The ranks that are tried for an input without a shape in the file."""


def reads(key: str) -> bool:
    """Can nodes of this op be imported, as they are or expanded?"""
    domain, _, op = key.rpartition(".")
    if key in CONTROL_OPS or key == "Constant" or key in EXPANSIONS:
        return True
    return bool(spec(key) or rules(key) or has_body(op, domain))


class Fatal(GraphkilnError):
    """Nothing more of the model can be imported."""


class _Enough(Fatal):
    """An import with assumptions failed, and its blocker is recorded: it need not go on."""


class Importer:
    """The state of one import: symbols, functions, blockers and remarks.

    ``bindings`` replace symbols of the inputs, and ``assumptions`` answer conditions that decide
    ranks; an import with assumptions ends at its first blocker. Afterwards ``needs`` are the
    conditions on symbols of the inputs, ``inputs_of`` the first input that has each symbol, and
    ``undecided`` whether a rank was not decided.
    """

    def __init__(
        self,
        source: Source,
        bindings: Mapping[str, Dim],
        assumptions: Assumptions | None = None,
        defaults: Defaults = "auto",
    ) -> None:
        self.source = source
        self.defaults = defaults
        self.bindings = bindings
        self.assumptions = assumptions
        self.undecided = False
        self.needs = Needs()
        self.inputs_of: dict[str, str] = {}
        self.symbols = Symbols()
        self.blockers: list[Blocker] = []
        self.warnings: list[str] = []
        self._functions: dict[FunctionKey, onnx.FunctionProto] = {}
        self._graph_names = {"main"}
        self._count = 0
        self._open = ""

    def run(self, shapes: Pins) -> Graph:
        """The model's graph; raises :class:`FrontendError` with every blocker found."""
        try:
            graph = self._run(shapes)
        except _Enough:
            pass
        except (Fatal, ImportFault) as e:
            self.block(str(e))
        if self.blockers:
            raise FrontendError(self.source.name, self.blockers)
        return graph

    def _run(self, shapes: Pins) -> Graph:
        proto = self.source.proto
        if not proto.HasField("graph"):
            raise Fatal("has no graph")
        self._functions = functions_by_key(proto.functions)
        require_modest(proto, self._functions, MAX_CALLS)
        scope = Scope(Builder(Graph("main")), opset_versions(proto.opset_import))
        if "" not in scope.opsets and proto.ir_version < 3:
            scope.opsets = {**scope.opsets, "": 1}
        if scope.opsets.get("", 7) < 7:
            self.warn(f"opset {scope.opsets['']} is older than 7; the model is read leniently")
        self.load_initializers(proto.graph, scope)
        self._declare_inputs(proto.graph, scope, shapes)
        self.run_nodes(proto.graph.node, scope)
        self._declare_outputs(proto.graph, scope)
        return scope.builder.graph

    @cached_property
    def used_names(self) -> set[str]:
        """All names that nodes, bodies and functions of the model use."""
        found = used_names(self.source.proto.graph)
        for function in self.source.proto.functions:
            found.update(function.output)
            found.update(name for node in function.node for name in node.input)
        return found

    def block(self, reason: str, node: str = "", op: str = "") -> None:
        self.blockers.append(Blocker(reason, node, op))

    def warn(self, remark: str) -> None:
        line = shorten(remark)
        if line not in self.warnings:
            self.warnings.append(line)

    # ---- the edges of a graph ----------------------------------------------------------------

    def load_initializers(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Give the scope the arrays of a graph's initializers."""
        for tensor in graph.initializer:
            self._initializer(text(tensor.name), tensor, scope)
        for sparse in graph.sparse_initializer:
            self._initializer(text(sparse.values.name), sparse, scope)

    def _initializer(
        self, name: str, proto: onnx.TensorProto | onnx.SparseTensorProto, scope: Scope
    ) -> None:
        try:
            if not name:
                raise ImportFault("has no name")
            if scope.holds(name):
                raise ImportFault("is there twice")
            read = to_array if isinstance(proto, onnx.TensorProto) else to_dense
            scope.arrays[name] = read(self.source, proto)
        except ImportFault as e:
            self.block(f"initializer '{shorten(name, 120)}': {e}")
            scope.values.setdefault(name, BROKEN)

    def _declare_inputs(self, graph: onnx.GraphProto, scope: Scope, shapes: Pins) -> None:
        types = {}
        given, remark = inputs_with_defaults(self.source.proto, self.defaults)
        if remark:
            self.warn(remark)
        given &= scope.arrays.keys()
        for info in graph.input:
            if scope.holds(text(info.name)) and info.name not in given:
                continue
            try:
                if not info.name or info.name in types:
                    raise ImportFault("is there twice" if info.name else "has no name")
                types[info.name] = value_type(info.type, info.name, self.symbols)
                if info.name in given:
                    types[info.name] = _fitted(types[info.name], scope.arrays[info.name])
            except ImportFault as e:
                self.block(f"input '{shorten(info.name, 120)}': {e}")
                scope.values.setdefault(info.name, BROKEN)
        pinned = pin_types(types, shapes, self.symbols)
        asked: dict[str, list[str]] = {}
        scalars = scalar_inputs(graph)
        for name, t in pinned.items():
            if isinstance(t, TensorType) and t.shape is None:
                pinned[name], asked[name] = self._ranked(name, t, name in scalars)
        pinned = settle_expressions(pinned, self.symbols)
        pinned = {name: substitute_type(t, self.bindings) for name, t in pinned.items()}
        for name, t in pinned.items():
            for symbol in sorted(type_symbols(t)):
                self.inputs_of.setdefault(symbol, name)
        still_open = [f"{n}: {t}" for n, t in pinned.items() if not _is_static(t)]
        self._open = shorten(", ".join(still_open), 200)
        for name, t in pinned.items():
            made = scope.builder.graph.add_input(name, t, default=scope.arrays.pop(name, None))
            scope.values.setdefault(name, made)
            for key in asked.get(name, ()):
                assert self.assumptions is not None
                self.assumptions.note(key, scope.builder, [made])

    def _ranked(self, name: str, t: TensorType, scalar: bool) -> tuple[TensorType, list[str]]:
        """The type of an input without a shape, of the first rank that may fit, with a remark."""
        if self.assumptions is None:
            self.undecided = True
            return t, []
        asked = []
        for rank in (0, *RANKS) if scalar else (*RANKS, 0):
            asked.append(f"the rank of {name} is {rank}")
            answer = self.assumptions.find(asked[-1])
            if self.assumptions.make(asked[-1], True) if answer is None else answer:
                break
        else:
            raise Fatal(f"input '{shorten(name, 120)}' has no shape: give it one")
        self.warn(
            f"input {shorten(name, 120)!r} has no shape: it is taken to have {rank} dimensions; "
            "give it a shape if it has others"
        )
        return t.with_shape(tuple(self.symbols.fresh(f"{name}_d{i}") for i in range(rank))), asked

    def _declare_outputs(self, graph: onnx.GraphProto, scope: Scope) -> None:
        if not graph.output:
            raise Fatal("the graph has no outputs")
        values, names = [], []
        for info in graph.output:
            try:
                slot = scope.lookup(text(info.name))
            except ImportFault as e:
                self.block(f"output '{shorten(str(info.name), 120)}': {e}")
                continue
            if isinstance(slot, Value):
                values.append(slot)
                names.append(info.name)
                if self.assumptions is not None:
                    self.assumptions.compare(scope.builder, slot, info.type)
        scope.builder.graph.set_outputs(values, names)

    # ---- nodes -------------------------------------------------------------------------------

    def run_nodes(self, nodes: Sequence[onnx.NodeProto], scope: Scope) -> None:
        """Import nodes into the scope; failures become blockers, and their results are broken."""
        for proto in sorted_nodes(nodes, scope.holds):
            self._node(proto, scope)

    def _node(self, proto: onnx.NodeProto, scope: Scope) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise Fatal(f"has more than {MAX_NODES} nodes with its functions expanded")
        name = proto.name or next((o for o in proto.output if o), proto.op_type)
        try:
            with _standing_for(name, scope):
                slots = self._import(proto, scope, name)
            for output, slot in zip(proto.output, slots, strict=False):
                if output:
                    scope.define(output, slot)
            return
        except Fatal:
            raise
        except Exception as e:  # in a damaged model any rule may fail in any way
            title = scope.prefix + name
            self.block(self._reason(e, title, op_key(proto)), title, op_key(proto))
        if self.assumptions is not None:
            self.assumptions.accuse(scope, proto)
            raise _Enough
        for output in proto.output:
            scope.values.setdefault(output, BROKEN)

    def _import(self, proto: onnx.NodeProto, scope: Scope, name: str) -> Sequence[Slot]:
        inputs = [scope.lookup(i) if i else None for i in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        if any(isinstance(i, Broken) for i in inputs):
            self._look_over(proto, scope)
            return [BROKEN] * len(proto.output)
        node = OnnxNode(
            proto.op_type, domain_of(proto.domain), 0, name,
            [i for i in inputs if not isinstance(i, Broken)],
            list(proto.output), attributes(proto, scope, self.source, self.symbols),
        )  # fmt: skip
        function = self._functions.get(call_key(proto))
        if function is not None:
            opsets = opset_versions(function.opset_import)
            inner = Scope(scope.builder, opsets, origins=scope.origins)
            return self.call(function, node, inner, scope)
        node.version = _version(node, scope)
        self._match_schema(node)
        if node.key == "Constant":
            title = scope.title(node.outputs[0])
            value = scope.builder.constant(constant_array(node), title)
            value.node.origins = scope.builder.origins
            return [value]
        if rules(node.key):
            done = bring_up(node, Emit(self, scope, scope.prefix + name))
            if done is not None:
                return self._named(done, node, scope)
        return self.place(node, scope)

    def _match_schema(self, node: OnnxNode) -> None:
        """Check a node of a standard domain, and set attributes to defaults that changed later."""
        known = signature(node.op, node.domain, node.version)
        if known is None or known.max_outputs < VARIADIC:
            while node.outputs and not node.outputs[-1]:
                node.outputs.pop()
        if known is None:
            if signature(node.op, node.domain, LATEST.get(node.domain, 1)) is not None:
                raise ImportFault(f"op {node.op} is not in opset {node.version}")
            return
        check(node, known)
        node.version = min(node.version, known.last)
        node.attrs.pop("consumed_inputs", None)
        for key, value in known.old_defaults.items():
            node.attrs.setdefault(key, value)

    def _named(self, slots: Sequence[Slot], node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Give the results of a rule the names of the file."""
        graph, mark = scope.builder.graph, f"{scope.prefix}{node.name}/"
        for slot, output in zip(slots, node.outputs, strict=False):
            if output and isinstance(slot, Value) and slot.name.startswith(mark):
                graph.rename(slot, scope.title(output))
        return slots

    def place(self, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Add a node of the newest opset, or its expansion; returns its results."""
        if node.key in CONTROL_OPS:
            return place_control(self, node, scope)
        bodies = [a for a in node.attrs.values() if isinstance(a, Body)]
        if spec(node.key) is not None and node.key not in EXPANSIONS and not bodies:
            return self.add(node, scope)
        return self._expand(node, scope, bodies)

    def _expand(self, node: OnnxNode, scope: Scope, bodies: Sequence[Body]) -> Sequence[Slot]:
        """Replace a node by other operations; raises :class:`ImportFault` if there are none."""
        rule = EXPANSIONS.get(node.key)
        function = function_body(node) if rule is None else None
        given = node.attrs
        node.attrs = {**default_attributes(node.op, node.domain), **given}
        if rule is not None:
            made = rule(node, Emit(self, scope, scope.prefix + node.name))
            if made is not None:
                return self._named(made, node, scope)
            node.attrs = given
            return self.add(node, scope)
        if function is None:
            raise ImportFault(unknown_op(node.key))
        opsets = {**LATEST, **opset_versions(function.opset_import)}
        if node.key in CONDITIONS:
            CONDITIONS[node.key](node, Emit(self, scope, scope.prefix + node.name))
        parent = bodies[0].scope if bodies else None
        inner = Scope(
            scope.builder, opsets, parent=parent, origins=scope.builder.origins
        )  # fmt: skip
        return self.call(function, node, inner, scope)

    def add(self, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Add a node as it is and infer its types; raises :class:`ImportFault`."""
        known = spec(node.key)
        if known is None:
            raise ImportFault(unknown_op(node.key))
        if node.domain not in LATEST:
            check_registered(node, known)
            fill_zero_points(node, known.zero_points, scope)
        builder = scope.builder
        made = builder.graph.add_node(
            node.op, node.inputs, node.attrs,  # type: ignore[arg-type]
            outputs=[scope.title(o) for o in node.outputs],
            domain=node.domain, name=scope.prefix + node.name, origins=builder.origins,
        )  # fmt: skip
        # A condition of a body only counts if the body runs.
        needs = self.needs if builder.parent is None else None
        infer_node(builder.graph, made, builder.known, needs)
        for value in made.values:
            check_size(value.type)
        return made.values

    def graph_name(self, hint: str) -> str:
        """A name for a body that no other graph of the model has; an identifier."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", hint)[-80:].strip("_")
        base = base if base[:1].isalpha() else f"g{base}"
        name, n = base, 0
        while name in self._graph_names:
            n += 1
            name = f"{base}_{n}"
        self._graph_names.add(name)
        return name

    def _look_over(self, proto: onnx.NodeProto, scope: Scope) -> None:
        """Report a node with broken inputs if its op is unknown, which can be seen without them."""
        for attribute in proto.attribute:
            if attribute.HasField("g"):
                for inner in attribute.g.node:
                    try:
                        self._look_over(inner, scope)
                    except ImportFault as e:
                        self.block(str(e), scope.prefix + inner.name, op_key(inner))
        key = op_key(proto)
        if not (reads(key) or call_key(proto) in self._functions):
            raise ImportFault(unknown_op(key))

    def _reason(self, error: Exception, node: str, op: str) -> str:
        if not isinstance(error, GraphkilnError):
            return f"{type(error).__name__}: {error}"
        own = (error.node, error.op) == (node, op)
        reason = error.reason if own else str(error)
        if self._open and isinstance(error, UndeterminedError):
            reason += f"; it may help to give the inputs' dimensions sizes ({self._open})"
        return reason

    # ---- functions ---------------------------------------------------------------------------

    def call(
        self, function: onnx.FunctionProto, node: OnnxNode, inner: Scope, scope: Scope
    ) -> Sequence[Slot]:
        """Import a function's nodes in place of the node that calls it."""
        key = function_key(function)
        if key in scope.calls:
            raise ImportFault(f"function {'.'.join(k for k in key if k)} calls itself")
        if len(scope.calls) >= MAX_CALLS:
            raise ImportFault(f"functions call each other more than {MAX_CALLS} deep")
        if len(node.inputs) > len(function.input) or len(node.outputs) > len(function.output):
            raise ImportFault("has more inputs or outputs than the function it calls")
        inner.calls = (*scope.calls, key)
        inner.prefix = f"{scope.prefix}{node.name}/"
        inner.bindings = self._bind(function, node, scope)
        for formal, actual in zip_longest(function.input, node.inputs):
            inner.define(text(formal), actual)
        inner.renames = {
            formal: scope.title(actual)
            for formal, actual in zip(function.output, node.outputs, strict=False) if actual
        }  # fmt: skip
        self.run_nodes(function.node, inner)
        return [
            inner.lookup(text(own)) if asked else None
            for own, asked in zip(function.output, node.outputs, strict=False)
        ]

    def _bind(
        self, function: onnx.FunctionProto, node: OnnxNode, scope: Scope
    ) -> Mapping[str, Any]:
        allowed = {*function.attribute, *(a.name for a in function.attribute_proto)}
        unknown = sorted(set(node.attrs) - allowed)
        if unknown and node.domain not in LATEST:
            raise ImportFault(f"the function it calls has no attribute {unknown[0]!r}")
        defaults = {
            a.name: attribute_value(a, scope, self.source, self.symbols)
            for a in function.attribute_proto if a.name not in node.attrs
        }  # fmt: skip
        return {**defaults, **node.attrs}


@contextmanager
def _standing_for(name: str, scope: Scope) -> Iterator[None]:
    """Give nodes that are added in this context the origin ``name``."""
    builder = scope.builder
    outer = builder.origins
    builder.origins = scope.origins or Origins([scope.prefix + name])
    try:
        yield
    finally:
        builder.origins = outer


def _fitted(declared: Type, default: np.ndarray) -> TensorType:
    """The type of an input with this default; raises :class:`ImportFault` if they do not fit."""
    found = array_type(default)
    if not isinstance(declared, TensorType) or declared.dtype != found.dtype:
        raise ImportFault(f"is {declared}, its initializer {found}")
    if declared.shape is None:
        return found
    pairs = list(zip_longest(declared.shape, found.dims))
    if any(d is None or (isinstance(d, int) and d != size) for d, size in pairs):
        raise ImportFault(f"is {declared}, its initializer {found}")
    return declared


def _is_static(t: Type) -> bool:
    return not isinstance(t, TensorType) or t.is_static


def unknown_op(key: str) -> str:
    return f"op {shorten(key, 80)} is not supported"


def _version(node: OnnxNode, scope: Scope) -> int:
    found = scope.opsets.get(node.domain)
    if found is None and node.domain in LATEST:
        raise ImportFault(f"the model imports no opset of {node.domain or 'ai.onnx'}")
    return found or 1
