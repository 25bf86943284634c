"""The op registry: one :class:`OpSpec` for every op the compiler knows.

Standard ops keep ONNX's names and semantics at one fixed opset (:data:`OPSET`); their attribute
defaults and parameter names come from onnx's own schemas. Ops that passes create are registered
under the domain ``kiln`` with the same class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from .dims import Dim
from .graph import Attr, Graph, GraphError, Node, Value
from .types import TensorType, Type

OPSET = 28
"""The ai.onnx opset every graph is in after import."""

ML_OPSET = 5
"""The ai.onnx.ml opset every graph is in after import."""


class InferenceError(GraphError):
    """The types of a node's inputs do not fit its op."""


@dataclass(frozen=True)
class Equality:
    """Two dims that are the same wherever the model is right; ``why`` says what ``node`` needs."""

    a: Dim
    b: Dim
    node: str
    why: str


@dataclass
class InferContext:
    """What type inference of one node may look at.

    ``inputs`` are the input types (None: omitted), ``known(i)`` the compile-time value of input
    ``i`` as an int64/object array of dims (symbolic entries are ``SymExpr``), or a plain array
    for constants of any dtype, or None when it is only known at run time. ``results`` are the
    output types that inference gave, for propagate rules; ``equalities`` what
    :meth:`require_equal` found.
    """

    graph: Graph
    node: Node
    inputs: list[Type | None]
    _known: Callable[[int], np.ndarray | None]
    _fresh: Callable[[str], Dim]
    outer: Mapping[Value, Any] = field(default_factory=dict)
    results: list[Type] = field(default_factory=list)
    equalities: list[Equality] = field(default_factory=list)

    def attr(self, name: str) -> Any:
        """An attribute's value, or the schema's default, or None."""
        return attribute(self.node, name)

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> TensorType:
        """The type of a tensor input; raises :class:`InferenceError` otherwise."""
        t = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(t, TensorType):
            raise self.error(f"input {index} must be a tensor, not {t}")
        return t

    def known(self, index: int) -> np.ndarray | None:
        return self._known(index) if self.has(index) else None

    def fresh_dim(self, hint: str = "d") -> Dim:
        """A new symbol for a dim that is only known once the node has run.

        Asking twice for one node in one inference gives distinct symbols; inferring the node
        again gives the same symbols in the same order.
        """
        return self._fresh(hint)

    def require_equal(self, a: Dim, b: Dim, why: str) -> None:
        """Note that the op cannot run unless ``a == b``; ``why`` completes "it needs ...".

        Raises :class:`InferenceError` where both are known and differ.
        """
        if a == b:
            return
        if isinstance(a, int) and isinstance(b, int):
            raise self.error(f"needs {why}, not {a} and {b}")
        self.equalities.append(Equality(a, b, f"node {self.node.name!r} ({self.node.key})", why))

    def error(self, message: str) -> InferenceError:
        return InferenceError(f"node {self.node.name!r} ({self.node.key}): {message}")


Infer: TypeAlias = "Callable[[InferContext], list[Type]]"
# Symbolic evaluation on small integer arrays (dtype object, entries Dim): inputs -> outputs.
Propagate: TypeAlias = (
    "Callable[[InferContext, list[np.ndarray | None]], list[np.ndarray | None] | None]"
)
Evaluate: TypeAlias = "Callable[[Node, list[Any]], list[Any]]"


@dataclass(frozen=True)
class OpSpec:
    """All that is known of one op.

    ``traits`` are algebraic and structural facts:
    ``elementwise`` (same index in, same index out, after broadcasting),
    ``injective`` (each output element reads at most one element of each input: movement),
    ``reduction``, ``commutative``, ``associative``, ``idempotent``, ``involution``,
    ``stochastic`` (results differ between runs), ``host`` (runs as a host function),
    ``shape_only`` (looks at the shapes of its inputs, not at their data),
    ``control_flow``.
    """

    name: str
    domain: str
    infer: Infer
    evaluate: Evaluate | None = None
    propagate: Propagate | None = None
    traits: frozenset[str] = frozenset()
    defaults: Mapping[str, Attr] = field(default_factory=dict)
    doc: str = ""
    min_inputs: int = 0
    max_inputs: int = 2**31
    min_outputs: int = 1
    max_outputs: int = 2**31
    attributes: frozenset[str] | None = None

    @property
    def key(self) -> str:
        return self.name if not self.domain else f"{self.domain}.{self.name}"


_REGISTRY: dict[str, OpSpec] = {}


def register(spec: OpSpec, *, override: bool = False) -> OpSpec:
    """Add an op; raises ``ValueError`` when the name is taken and ``override`` is false."""
    if spec.key in _REGISTRY and not override:
        raise ValueError(f"op {spec.key} is registered already")
    _REGISTRY[spec.key] = spec
    return spec


def op(
    *names: str,
    domain: str = "",
    traits: Iterable[str] = (),
    evaluate: Evaluate | None = None,
    propagate: Propagate | None = None,
    defaults: Mapping[str, Attr] | None = None,
    doc: str = "",
    arity: tuple[int, int] | None = None,
) -> Callable[[Infer], Infer]:
    """Decorator: register the function as type inference of the named ops.

    For the standard domains the arity, attribute names, defaults and documentation are taken
    from onnx's schema; ``defaults`` add to them.
    """

    def wrap(infer: Infer) -> Infer:
        for name in names:
            facts = _schema_facts(name, domain)
            merged = {**facts.pop("defaults", {}), **(defaults or {})}
            if arity is not None:
                facts["min_inputs"], facts["max_inputs"] = arity
            facts.setdefault("doc", doc)
            register(
                OpSpec(name, domain, infer, evaluate, propagate, frozenset(traits), merged, **facts)
            )
        return infer

    return wrap


def _schema_facts(name: str, domain: str) -> dict[str, Any]:
    if domain not in ("", "ai.onnx.ml", "ai.onnx.preview"):
        return {}
    import onnx.defs

    version = {"": OPSET, "ai.onnx.ml": ML_OPSET}.get(domain, 1)
    if not onnx.defs.has(name, version, domain):
        return {}
    schema = onnx.defs.get_schema(name, version, domain)
    defaults = {}
    for key, attribute in schema.attributes.items():
        value = _default_value(attribute.default_value)
        if value is not None:
            defaults[key] = value
    return {
        "defaults": defaults,
        "doc": (schema.doc or "").strip(),
        "min_inputs": schema.min_input,
        "max_inputs": schema.max_input,
        "min_outputs": schema.min_output,
        "max_outputs": schema.max_output,
        "attributes": frozenset(schema.attributes),
    }


def _default_value(proto: Any) -> Attr:
    """The Python value of a schema's default attribute (proto type numbers as in onnx.proto)."""
    if proto is None or not proto.name:
        return None
    kind = proto.type
    if kind == 1:
        return float(proto.f)
    if kind == 2:
        return int(proto.i)
    if kind == 3:
        return bytes(proto.s).decode()
    if kind == 6:
        return tuple(float(v) for v in proto.floats)
    if kind == 7:
        return tuple(int(v) for v in proto.ints)
    if kind == 8:
        return tuple(bytes(v).decode() for v in proto.strings)
    return None


@cache
def _load_specs() -> None:
    """Import the files that register the built-in ops (once)."""
    from . import ops

    ops.load()


def spec(key: str) -> OpSpec | None:
    """The spec of ``Conv``, ``com.microsoft.Gelu`` ..., or None."""
    _load_specs()
    return _REGISTRY.get(key)


def spec_of(node: Node) -> OpSpec:
    """The spec of a node's op; raises :class:`GraphError` for an unknown one."""
    found = spec(node.key)
    if found is None:
        raise GraphError(f"node {node.name!r}: op {node.key} is not known")
    return found


def specs() -> Iterator[OpSpec]:
    """Every registered op, by key."""
    _load_specs()
    return iter([_REGISTRY[k] for k in sorted(_REGISTRY)])


def attribute(node: Node, name: str) -> Any:
    """An attribute of a node, or its op's default, or None."""
    if name in node.attrs:
        return node.attrs[name]
    found = spec(node.key)
    return None if found is None else found.defaults.get(name)


def has_trait(node: Node, trait: str) -> bool:
    found = spec(node.key)
    return found is not None and trait in found.traits


__all__ = [
    "ML_OPSET", "OPSET", "Equality", "InferContext", "InferenceError", "OpSpec", "Value",
    "attribute", "has_trait", "op", "register", "spec", "spec_of", "specs",
]  # fmt: skip
