"""Lowerings: how each op becomes scalar expressions and loops, for any target.

A lowering gets its inputs as :class:`TensorExpr` and returns its outputs as such. An op that
computes an output element from a few input elements returns an expression: nothing is stored, so it
is fused into the loops of its readers. An op that needs loops of its own emits them, stores into
``ctx.result(i)``, and returns that.
"""

from __future__ import annotations

import hashlib
import inspect
import marshal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from ...errors import GraphkilnError
from ...ir.choices import DIRECT, KernelShape
from ...ir.discovery import load_modules
from ...ir.graph import Graph, Node
from ...ir.registry import attribute, spec
from ...ir.types import TensorType
from ..base import LLVM_LEVEL
from ..tir.builder import BufferTensor, Builder, Expr, TensorExpr


class LoweringError(GraphkilnError):
    """An op, or this use of it, cannot be compiled for this target."""


@dataclass
class LowerContext:
    """What a lowering may use: the node, its inputs, and the builder of the kernel."""

    graph: Graph
    node: Node
    b: Builder
    inputs: list[TensorExpr | None]
    types: list[TensorType]
    input_types: list[TensorType | None]
    _known: Callable[[int], np.ndarray | None]
    _destinations: list[BufferTensor | None] = field(default_factory=list)

    def attr(self, name: str) -> Any:
        """An attribute's value, or the op's default, or None."""
        return attribute(self.node, name)

    def has(self, i: int) -> bool:
        """Is input ``i`` given?"""
        return i < len(self.inputs) and self.inputs[i] is not None

    def input(self, i: int) -> TensorExpr:
        """Input ``i``, which must be given."""
        x = self.inputs[i] if i < len(self.inputs) else None
        if x is None:
            raise self.error(f"input {i} is missing")
        return x

    def buffered(self, i: int) -> BufferTensor:
        """Input ``i`` in memory; computed into workspace if it is an expression."""
        return self.b.materialize(self.input(i))

    def known(self, i: int) -> np.ndarray | None:
        """The value of input ``i`` if it is a small constant, else None."""
        return self._known(i) if self.has(i) else None

    def out_shape(self, i: int = 0) -> tuple[Any, ...]:
        """The shape of output ``i`` as ints and int64 expressions."""
        return tuple(self.b.dim(d) for d in self.types[i].dims)

    def out_dtype(self, i: int = 0) -> str:
        """The IR element type of output ``i``."""
        return self.types[i].dtype.name

    def destination(self, i: int = 0) -> BufferTensor | None:
        """The kernel's output for output ``i``; None if that is a value inside of the kernel."""
        return self._destinations[i] if i < len(self._destinations) else None

    def result(self, i: int = 0) -> BufferTensor:
        """Memory for output ``i``: the kernel's output if it is one, else workspace."""
        found = self.destination(i)
        return found or self.b.workspace(self.out_shape(i), self.out_dtype(i), "r")

    def lazy(self, load: Callable[[tuple[Expr, ...]], Expr], i: int = 0,
             cost: int = 1) -> TensorExpr:  # fmt: skip
        """Output ``i`` as an expression; ``load(indices)`` gives its compute-type value."""
        return TensorExpr(self.out_dtype(i), self.out_shape(i), load, cost)

    def error(self, message: str) -> LoweringError:
        """An error to raise, which names this node; ``message`` says what cannot be compiled."""
        return LoweringError(message, at=self.node)


class Packer(Protocol):
    """Makes bytes of vectors of 32-bit numbers: a single vector, one after the other."""

    def low_bytes(self, vectors: Sequence[Expr]) -> Expr:
        """The low bytes of int32, as uint8."""

    def rounded(self, vectors: Sequence[Expr], zero: Expr, dtype: str) -> Expr:
        """``saturate(round(x) + zero)`` of float32, halves to even, as ``dtype`` (int8 or uint8).

        ``zero`` is an int32 in the range of ``dtype``; NaN becomes the least number.
        """


@dataclass(frozen=True)
class Run:
    """Vectors of ``lanes`` elements of an op's output that follow each other in memory.

    ``places`` are the indices of each vector's first element, whose others follow along the last
    axis; ``value(i, lane)`` are the elements of vector ``i``. ``pack`` makes bytes of all vectors.
    """

    places: Sequence[tuple[Expr, ...]]
    value: Callable[[int, Expr], Expr]
    lanes: int
    pack: Packer


@dataclass
class TemplateContext(LowerContext):
    """The context of a template, which gives its results to ``sink(indices, value)``.

    The sink computes the region's epilogue and stores it. It must be called once for every element
    of the op's output, and may be called in a vectorised loop. ``sink_run`` takes several vectors
    of elements instead.
    """

    sink: Callable[[tuple[Expr, ...], Expr], None] = lambda at, value: None
    sink_run: Callable[[Run], None] = lambda run: None


@dataclass(frozen=True)
class Details:
    """How a template computes a node, for reports.

    ``tile`` is the largest register tile as rows by columns of the result, such as ``14x32``.
    ``algorithm`` is ``direct`` if sums of products are computed by their definition, else a name
    such as ``winograd_4x4``.
    """

    tile: str
    algorithm: str = DIRECT


def operand_types(graph: Graph, node: Node, count: int) -> list[TensorType]:
    """The types of a node's first ``count`` inputs, none of which may be omitted."""
    return [v.tensor_type for v in graph.inputs_of(node)[:count] if v is not None]


@dataclass(frozen=True)
class Template:
    """A target's own kernel for an op.

    ``objection(graph, node)`` is the reason why it cannot compute a node, which the generic
    schedule does then, or None. A template that ``stores`` writes its outputs to ``ctx.result(i)``
    itself, rather than to the sink. ``details(graph, node)`` tells how it computes a node that it
    has no objection to; ``shape(graph, node)`` is what a cost model estimates its time from.
    ``level`` is LLVM's optimisation level: the highest one spends most time on loops to unroll and
    to vectorise, of which some templates leave none.
    """

    emit: Callable[[TemplateContext], None]
    details: Callable[[Graph, Node], Details]
    objection: Callable[[Graph, Node], str | None] = lambda graph, node: None
    stores: bool = False
    shape: Callable[[Graph, Node], KernelShape] | None = None
    level: int = LLVM_LEVEL


Lowering: TypeAlias = "Callable[[LowerContext], TensorExpr | Sequence[TensorExpr | None]]"
"""Gives the results of a node: one, or a sequence with None for those that nothing uses."""

Sizes: TypeAlias = "Callable[[LowerContext], Sequence[Expr]]"
"""Gives the data-dependent dims of a node's results as int64 expressions."""

_LOWERINGS: dict[str, Lowering] = {}
_SIZES: dict[str, Sizes] = {}


def lowering(*keys: str) -> Callable[[Lowering], Lowering]:
    """Decorator: this function lowers the ops with these keys (``Conv``, ``kiln.Reshape``)."""

    def wrap(f: Lowering) -> Lowering:
        for key in keys:
            _LOWERINGS[key] = f
        return f

    return wrap


def sizes(*keys: str) -> Callable[[Sizes], Sizes]:
    """Decorator: this function computes, from the inputs' data, the fresh dims of the ops' outputs.

    It returns int64 expressions in the order in which type inference called ``fresh_dim``.
    """

    def wrap(f: Sizes) -> Sizes:
        for key in keys:
            _SIZES[key] = f
        return f

    return wrap


def lowering_of(key: str) -> Lowering | None:
    _load()
    return _LOWERINGS.get(key)


def sizes_of(key: str) -> Sizes | None:
    _load()
    return _SIZES.get(key)


def lowered_keys() -> frozenset[str]:
    """Keys of all ops with a lowering."""
    _load()
    return frozenset(_LOWERINGS)


def foreign_keys() -> frozenset[str]:
    """Keys of the ops that a plugin registered, or whose lowering it registered."""
    return frozenset(k for k, f in {**_LOWERINGS, **_SIZES}.items() if _is_foreign(k, f))


def foreign_digest() -> str:
    """A hash of the code that plugins registered, for cache keys; empty if there is none."""
    found = {**{f"sizes {k}": f for k, f in _SIZES.items()}, **_LOWERINGS}
    digest = hashlib.sha256()
    foreign = sorted((k, f) for k, f in found.items() if _is_foreign(k.removeprefix("sizes "), f))
    for key, function in foreign:
        source = inspect.getsourcefile(function)
        text = Path(source).read_bytes() if source and Path(source).is_file() else b""
        digest.update(key.encode() + b"\0" + text + marshal.dumps(function.__code__))
    return digest.hexdigest()[:16] if foreign else ""


def _is_foreign(key: str, function: Callable[..., Any]) -> bool:
    """Does the op, or the function that lowers it, come from a plugin?"""
    known = spec(key)
    return _is_outside(function) or known is not None and _is_outside(known.infer)


def _is_outside(function: Callable[..., Any]) -> bool:
    return function.__module__.split(".")[0] != __name__.split(".")[0]


@cache
def _load() -> None:
    """Load the files that register the lowerings of the built-in ops (once)."""
    load_modules(f"{__package__}.ops")
