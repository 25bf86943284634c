"""The op registry: one :class:`OpSpec` for every op the compiler knows.

Standard ops keep ONNX's names and semantics at one fixed opset (:data:`OPSET`); their attribute
defaults and parameter names come from onnx's own schemas. Ops that passes create are registered
under the domain ``kiln`` with the same class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from ..errors import UndeterminedError, node_text
from .axes.map import AxisMap
from .conditions import Condition, Relation
from .dims import Dim, SymExpr, known_le
from .discovery import load_modules
from .graph import Attr, Graph, GraphError, Node, Value
from .shapes import broadcast, broadcast_dim
from .traits import Trait, traits_of
from .types import Shape, TensorType, Type

OPSET = 28
"""The ai.onnx opset of every graph after import."""

ML_OPSET = 5
"""The ai.onnx.ml opset of every graph after import."""


class InferenceError(GraphError):
    """The types of a node's inputs do not fit its op."""


class UndeterminedTypeError(InferenceError, UndeterminedError):
    """The type of a node's result depends on data that is only known at run time."""


@dataclass(frozen=True)
class ValueNeed:
    """A condition on the elements of input ``index`` of ``node``, which a run will check.

    They must be at least ``low``, at most ``high`` and less than ``below`` (None: no bound), and if
    ``nonzero``, not 0; with ``or_one``, 1 is allowed in any case. No two may be equal modulo
    ``apart``. ``why`` completes "it needs ...".

    Only every ``stride``-th element counts, from element ``offset`` on. The check is inserted in
    front of input ``at`` of the node, by default ``index``.
    """

    node: Node
    index: int
    low: Dim | None
    high: Dim | None
    why: str
    nonzero: bool = False
    stride: int = 1
    offset: int = 0
    below: Dim | None = None
    or_one: bool = False
    apart: int | None = None
    at: int | None = None


@dataclass
class Needs:
    """The conditions of one graph's nodes that inference cannot prove."""

    conditions: list[Condition] = field(default_factory=list)
    values: list[ValueNeed] = field(default_factory=list)


@dataclass
class InferContext:
    """What a rule for type inference of one node may use.

    ``inputs`` are the input types (None: omitted). ``known(i)`` is the value of input ``i`` if it
    is known at compile time: an int64 or object array of dims (symbolic entries are ``SymExpr``),
    or a plain array for constants of any dtype; else None. ``results`` are the inferred output
    types, for propagate rules. ``needs`` are the conditions that the ``require`` methods recorded,
    and ``collect`` those of every graph, if a caller wants those of bodies too. ``introduced`` are
    the symbols that :meth:`fresh_dim` gave.
    """

    graph: Graph
    node: Node
    inputs: list[Type | None]
    _known: Callable[[int], np.ndarray | None]
    _fresh: Callable[[str], Dim]
    outer: Mapping[Value, Any] = field(default_factory=dict)
    results: list[Type] = field(default_factory=list)
    needs: Needs = field(default_factory=Needs)
    collect: dict[Graph, Needs] | None = None
    introduced: list[Dim] = field(default_factory=list)

    def attr(self, name: str) -> Any:
        """An attribute's value, or the schema's default, or None."""
        return attribute(self.node, name)

    def has(self, index: int) -> bool:
        """Is input ``index`` given?"""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> TensorType:
        """The type of a tensor input; raises :class:`InferenceError` otherwise."""
        t = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(t, TensorType):
            raise self.error(f"input {index} must be a tensor, not {t}")
        return t

    def known(self, index: int) -> np.ndarray | None:
        """The value of input ``index`` if it is known at compile time, else None."""
        return self._known(index) if self.has(index) else None

    def fresh_dim(self, hint: str = "d") -> Dim:
        """A new symbol for a dim that is only known once the node has run.

        Asking twice for one node in one inference gives distinct symbols; inferring the node
        again gives the same symbols in the same order.
        """
        return self._fresh(hint)

    # ---- conditions ----------------------------------------------------------------------------

    def require(self, relation: Relation, a: Dim, b: Dim, why: str) -> None:
        """Record that the op can only run if ``a`` is in ``relation`` to ``b``.

        ``why`` completes "it needs ...". Raises :class:`InferenceError` if that can never hold.
        """
        if isinstance(a, int) and isinstance(b, int) and relation.holds(a, b):
            return  # the most frequent case
        if a == b and relation is not Relation.MULTIPLE:
            return  # the next one: every other relation holds between equal sizes
        node = self.node
        condition = Condition(relation, a, b, "", why, node.origins)
        if condition.refuted():
            raise self.error(f"needs {why}, not {a} and {b}")
        if not condition.proved():
            told = node_text(node.name, node.key)
            self.needs.conditions.append(replace(condition, node=told))

    def require_equal(self, a: Dim, b: Dim, why: str) -> None:
        """Record that the op needs ``a == b``; see :meth:`require`."""
        self.require(Relation.EQUAL, a, b, why)

    def require_at_most(self, a: Dim, b: Dim, why: str) -> None:
        """Record that the op needs ``a <= b``; see :meth:`require`."""
        self.require(Relation.AT_MOST, a, b, why)

    def require_multiple(self, a: Dim, b: Dim, why: str) -> None:
        """Record that ``b`` must divide ``a``; see :meth:`require`."""
        self.require(Relation.MULTIPLE, a, b, why)

    def require_same_shape(self, a: Shape, b: Shape, why: str) -> None:
        """Record that the op needs equal shapes, dim by dim (:meth:`require_equal`).

        Raises :class:`InferenceError` if the ranks differ.
        """
        if len(a) != len(b):
            raise self.error(f"needs {why}, not ranks {len(a)} and {len(b)}")
        for x, y in zip(a, b, strict=True):
            self.require_equal(x, y, why)

    def broadcast(self, *shapes: Shape) -> Shape:
        """The common shape of ``shapes``; records that the op needs them to broadcast."""
        out: Shape = ()
        for shape in shapes:
            longer, shorter = (out, shape) if len(out) >= len(shape) else (shape, out)
            for a, b in zip(reversed(longer), reversed(shorter), strict=False):
                broadcast_dim(a, b)  # raises where a constant and a bound can never agree
                self.require(Relation.BROADCAST, a, b, "operands that broadcast")
            out = broadcast([out, shape])
        return out

    def broadcast_known(self, *shapes: Shape | None) -> Shape | None:
        """As :meth:`broadcast`, but None if a shape is None, as its rank is not known."""
        known = [s for s in shapes if s is not None]
        return self.broadcast(*known) if len(known) == len(shapes) else None

    def broadcast_to(self, shape: Shape, target: Shape, what: str = "an operand") -> Shape:
        """``target``; records that the op needs ``shape`` to broadcast to it, in this direction."""
        if len(shape) > len(target):
            raise self.error(f"rank {len(shape)} does not broadcast to rank {len(target)}")
        for have, want in zip(reversed(shape), reversed(target), strict=False):
            why = f"{what} that broadcasts to ({', '.join(map(str, target))})"
            self.require(Relation.BROADCAST_TO, have, want, why)
        return target

    def require_values(self, index: int, low: Dim | None, high: Dim | None, why: str) -> None:
        """Record that all elements of integer input ``index`` must be from ``low`` to ``high``.

        Both are included; None is no bound. Elements that are known are compared at once.
        """
        entries = self.known(index)
        if entries is None:
            if self.has(index) and self.tensor(index).shape != (0,):
                self._need(ValueNeed(self.node, index, low, high, why))
            return
        for entry in {str(e): e for e in entries.reshape(-1).tolist()}.values():
            if low is not None:
                self.require_at_most(low, entry, why)
            if high is not None:
                self.require_at_most(entry, high, why)

    def require_numbers(
        self, index: int, why: str, *, low: int, high: int | None = None, below: int | None = None,
        nonzero: bool = False, at: int | None = None,
    ) -> None:  # fmt: skip
        """Record what the elements of a float input must be; none may be NaN.

        The arguments are as in :class:`ValueNeed`. Raises :class:`InferenceError` if elements are
        known and do not fit.
        """
        entries = self.known(index)
        if entries is None:
            if self.has(index) and self.tensor(index).shape != (0,):
                need = ValueNeed(self.node, index, low, high, why, nonzero, below=below, at=at)
                self.needs.values.append(need)
            return
        for x in entries.reshape(-1).astype(float).tolist():
            fits = low <= x and (high is None or x <= high) and (below is None or x < below)
            if not fits or nonzero and x == 0:
                raise self.error(f"needs {why}, not {x}")

    def require_axes(self, index: int, rank: int, why: str) -> None:
        """Record that the unknown elements of input ``index`` must be axes, none of them twice.

        Negative ones count from the end.
        """
        self._need(ValueNeed(self.node, index, -rank, rank - 1, why, apart=rank))

    def require_indices(self, index: int, size: Dim, why: str = "") -> None:
        """Record that all elements of input ``index`` must be indices into an axis of ``size``.

        Negative ones count from the end.
        """
        self.require_values(index, -size, size - 1, why or f"indices within an axis of {size}")

    def require_column(
        self, index: int, column: int, columns: int, low: Dim, high: Dim, why: str, *,
        or_one: bool = False, at: int | None = None,
    ) -> None:  # fmt: skip
        """As :meth:`require_values`, for one column of a tensor whose last axis has ``columns``.

        ``or_one`` and ``at`` are as in :class:`ValueNeed`.
        """
        entries = self.known(index)
        if entries is None:
            need = ValueNeed(self.node, index, low, high, why, False, columns, column)
            self._need(replace(need, or_one=or_one, at=at))
            return
        for entry in {str(e): e for e in entries.reshape(-1, columns)[:, column].tolist()}.values():
            if or_one and entry == 1:
                continue
            self.require_at_most(low, entry, why)
            self.require_at_most(entry, high, why)

    def require_nonzero(self, index: int, why: str) -> None:
        """Record that no element of integer input ``index`` may be 0."""
        entries = self.known(index)
        if entries is None:
            if self.has(index):
                self._need(ValueNeed(self.node, index, None, None, why, True))
            return
        for entry in {str(e): e for e in entries.reshape(-1).tolist()}.values():
            if isinstance(entry, SymExpr):
                self.require_at_most(1, entry if known_le(0, entry) else entry * entry, why)
            elif isinstance(entry, int) and entry == 0:
                raise self.error(f"needs {why}, not 0")

    def _need(self, need: ValueNeed) -> None:
        if not self.tensor(need.index).dtype.is_integer:
            kind = self.tensor(need.index).dtype
            raise self.error(f"input {need.index} must hold integers, not {kind}")
        self.needs.values.append(need)

    def error(self, message: str) -> InferenceError:
        """An error to raise, which names this node; ``message`` says what does not fit."""
        return InferenceError(message, at=self.node)

    def undetermined(self, message: str) -> UndeterminedTypeError:
        """An error to raise if something is not known that must be known at compile time."""
        return UndeterminedTypeError(message, at=self.node)


Infer: TypeAlias = "Callable[[InferContext], list[Type]]"
"""Gives the types of a node's results; raises ``ctx.error(...)`` if its inputs do not fit."""

Propagate: TypeAlias = (
    "Callable[[InferContext, list[np.ndarray | None]], list[np.ndarray | None] | None]"
)
"""The values of a node's results at compile time, from those of its inputs (None: not known).

Values are small integer arrays of dtype object with dims as entries, such as ``[N, 3, 2*N]``.
"""

Evaluate: TypeAlias = "Callable[[Node, list[Any]], list[Any]]"
"""The reference: a node's results as NumPy arrays of the inferred types, from its inputs.

An omitted input is None; sequences are lists.
"""

Flops: TypeAlias = "Callable[[Node, Sequence[Value | None]], Dim]"
"""The arithmetic operations of one node with these inputs, by the types of inputs and results."""

InputAxes: TypeAlias = "Callable[[Node, int], tuple[int, ...]]"
"""Gives axes of one input of a node, which is given by its number."""

DescribeAxes: TypeAlias = "Callable[[Graph, Node], AxisMap | None]"
"""Gives the axis map of a typed node, or None if nothing is known."""


@dataclass(frozen=True)
class OpSpec:
    """All that is known of one op.

    ``infer`` gives the types of results and records what the op requires of its inputs.
    ``evaluate`` is the reference evaluation; without it the op can be compiled, but not folded or
    checked. ``propagate`` computes known values, such as sizes in arithmetic on shapes. ``traits``
    are algebraic and structural facts; :class:`~graphkiln.ir.traits.Trait` lists them. ``defaults``
    are the values of missing attributes, ``attributes`` the names of those that a node may have
    (None: any). ``min_inputs`` to ``max_outputs`` bound the numbers of inputs and results.
    """

    name: str
    domain: str
    infer: Infer
    evaluate: Evaluate | None = None
    propagate: Propagate | None = None
    traits: frozenset[Trait] = frozenset()
    defaults: Mapping[str, Attr] = field(default_factory=dict)
    doc: str = ""
    min_inputs: int = 0
    max_inputs: int = 2**31
    min_outputs: int = 1
    max_outputs: int = 2**31
    attributes: frozenset[str] | None = None
    omitted: frozenset[int] = frozenset()
    """Inputs below ``min_inputs`` that may be omitted."""
    zero_points: Mapping[int, int] = field(default_factory=dict)
    """Inputs that are zero points, each with the input that it is for; omitted ones are 0."""
    result_zero_point: int | None = None
    """The input that is the zero point of the first result."""
    dim_attributes: tuple[str, ...] = ()
    """Attributes that are lists of dims, in the order in which a host function takes them."""
    flops: Flops | None = None
    """The arithmetic operations of a node, where a multiply-add counts two.

    None stands for one for each element of an elementwise op's result or of a reduction's input,
    and none for other ops.
    """
    summed_axes: InputAxes | None = None
    """The axes of an input along which its products are added up; () if it is no factor."""
    homogeneous: tuple[tuple[int, ...], ...] = ()
    """Sets of float inputs: if all of one set are multiplied by s > 0, so is the first result.

    That also holds at each index of an axis that they share with the result, whose other indices
    may have other factors. Omitted inputs do not count. :func:`homogeneous_inputs` knows those of
    ops that only move elements, too.
    """
    axes: DescribeAxes | None = None
    """The axis map of a typed node (see :mod:`.axes`), None if nothing is known.

    Ops with the trait ``elementwise`` need no rule (see :func:`.axes.query.axes_of`).
    """

    @property
    def key(self) -> str:
        """The op's name with its domain in front: ``Conv``, ``com.microsoft.Gelu``."""
        return self.name if not self.domain else f"{self.domain}.{self.name}"


_REGISTRY: dict[str, OpSpec] = {}
_WITH_TRAIT: dict[tuple[Trait, ...], frozenset[str]] = {}
"""The cache of :func:`keys_with`, which is cleared when an op is registered."""


def register(spec: OpSpec, *, override: bool = False) -> OpSpec:
    """Register an op; its traits may be given by name.

    Raises ``ValueError`` for an unknown trait, and for a name that is taken, unless ``override``.
    """
    if spec.key in _REGISTRY and not override:
        raise ValueError(f"op {spec.key} is registered already")
    spec = replace(spec, traits=traits_of(spec.key, spec.traits))
    _REGISTRY[spec.key] = spec
    _WITH_TRAIT.clear()
    return spec


def op(
    *names: str,
    domain: str = "",
    traits: Iterable[Trait | str] = (),
    evaluate: Evaluate | None = None,
    propagate: Propagate | None = None,
    defaults: Mapping[str, Attr] | None = None,
    doc: str = "",
    arity: tuple[int, int] | None = None,
    results: tuple[int, int] | None = None,
    attributes: Iterable[str] | None = None,
    omitted: Iterable[int] = (),
    zero_points: Mapping[int, int] | None = None,
    result_zero_point: int | None = None,
    dim_attributes: tuple[str, ...] = (),
    flops: Flops | None = None,
    summed_axes: InputAxes | None = None,
    homogeneous: tuple[tuple[int, ...], ...] = (),
    axes: DescribeAxes | None = None,
) -> Callable[[Infer], Infer]:
    """Decorator: register the function as type inference of the named ops.

    For the standard domains the arity, attribute names, defaults and documentation are taken
    from onnx's schema; ``defaults`` add to them. ``arity`` and ``results`` are the least and most
    inputs and outputs of other ops, ``attributes`` their names besides those of ``defaults``
    (None: any); ``omitted`` are those of the first inputs that may be left out,
    the others are described at :class:`OpSpec`.
    """

    def wrap(infer: Infer) -> Infer:
        for name in names:
            facts = _schema_facts(name, domain)
            merged = {**facts.pop("defaults", {}), **(defaults or {})}
            if arity is not None:
                facts["min_inputs"], facts["max_inputs"] = arity
            if results is not None:
                facts["min_outputs"], facts["max_outputs"] = results
            if attributes is not None:
                facts["attributes"] = frozenset(attributes) | merged.keys()
            facts.setdefault("doc", doc)
            if omitted:
                facts["omitted"] = frozenset(omitted)
            if zero_points is not None:
                facts["zero_points"] = zero_points
            facts["dim_attributes"] = dim_attributes
            facts["result_zero_point"] = result_zero_point
            facts["flops"], facts["summed_axes"] = flops, summed_axes
            facts["homogeneous"] = homogeneous
            key = f"{domain}.{name}" if domain else name
            declared = traits_of(key, traits)
            facts["axes"] = axes
            register(OpSpec(name, domain, infer, evaluate, propagate, declared, merged, **facts))
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
    """Load the files that register the built-in ops (once)."""
    load_modules(f"{__package__}.ops")


def spec(key: str) -> OpSpec | None:
    """The spec of ``Conv``, ``com.microsoft.Gelu`` ..., or None."""
    _load_specs()
    return _REGISTRY.get(key)


def spec_of(node: Node) -> OpSpec:
    """The spec of a node's op; raises :class:`GraphError` for an unknown one."""
    found = spec(node.key)
    if found is None:
        raise GraphError(f"op {node.key} is not known", node=node.name)
    return found


def specs() -> Iterator[OpSpec]:
    """Every registered op, by key."""
    _load_specs()
    return iter([_REGISTRY[k] for k in sorted(_REGISTRY)])


def keys_with(traits: tuple[Trait, ...]) -> frozenset[str]:
    """The keys of all ops that declare one of ``traits``."""
    _load_specs()
    found = _WITH_TRAIT.get(traits)
    if found is None:
        found = frozenset(s.key for s in specs() if not s.traits.isdisjoint(traits))
        _WITH_TRAIT[traits] = found
    return found


def attribute(node: Node, name: str) -> Any:
    """An attribute of a node, or its op's default, or None."""
    if name in node.attrs:
        return node.attrs[name]
    found = spec(node.key)
    return None if found is None else found.defaults.get(name)


def homogeneous_inputs(node: Node) -> tuple[tuple[int, ...], ...]:
    """The sets of inputs that multiply a node's first result, see :attr:`OpSpec.homogeneous`."""
    found = spec(node.key)
    if found is None or found.homogeneous:
        return () if found is None else found.homogeneous
    return () if found.traits.isdisjoint((Trait.PICKS, Trait.VIEW)) else ((0,),)


def has_trait(node: Node, trait: Trait) -> bool:
    """Does the node's op declare ``trait``?"""
    found = spec(node.key)
    return found is not None and trait in found.traits


__all__ = [
    "ML_OPSET", "OPSET", "DescribeAxes", "Evaluate", "Flops", "Infer", "InferContext",
    "InferenceError", "InputAxes", "Needs", "OpSpec", "Propagate", "Value", "ValueNeed",
    "attribute", "has_trait", "homogeneous_inputs", "keys_with", "op", "register", "spec",
    "spec_of", "specs",
]  # fmt: skip
