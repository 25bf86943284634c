"""Symbolic dims as tensors that ONNX nodes compute from the shapes of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...ir.dim_algebra import Atom, Broadcast, FloorDiv, Max, Min, Mod, Symbol
from ...ir.dims import Dim, SymExpr, symbol_name
from ...ir.graph import GraphError, Value
from ...ir.types import TensorType


class Writer(Protocol):
    """The writer that sizes need, such as a :class:`~.scope.Scope`."""

    sizes: Sizes

    @property
    def parent(self) -> Writer | None:
        """The writer of the graph around this one."""

    def name(self, value: Value) -> str:
        """The name of a value."""

    def ints(self, values: Sequence[int]) -> str:
        """The name of a new int64 initializer ``[len(values)]``."""

    def tensor(self, array: np.ndarray, hint: str = ...) -> str:
        """The name of a new initializer."""

    def emit(
        self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any] | None = ..., *,
        name: str = ...,
    ) -> str:  # fmt: skip
        """Append a node; returns the name of its output."""


class Sizes:
    """The sizes that one scope can compute, or that outer scopes can."""

    def __init__(self, scope: Writer) -> None:
        self._scope = scope
        self._sources: dict[str, tuple[Value, int]] = {}
        self._scalars: dict[Dim, str] = {}
        self._vectors: dict[tuple[Dim, ...], str] = {}

    def learn(self, value: Value) -> None:
        """Record the symbols that the shape of a written value determines."""
        t = value.node.outputs[value.index].type
        if not isinstance(t, TensorType) or t.shape is None:
            return
        for axis, d in enumerate(t.shape):
            name = symbol_name(d)
            if name is not None:
                self._sources.setdefault(name, (value, axis))

    def vector(self, dims: Sequence[Dim]) -> str:
        """The name of an int64 tensor ``[len(dims)]``."""
        key = tuple(dims)
        for scope in _chain(self._scope):
            if key in scope.sizes._vectors:
                return scope.sizes._vectors[key]
        if all(isinstance(d, int) for d in key):
            name = self._scope.ints([int(d) for d in key])
        elif len(key) == 1:
            name = self.scalar(key[0])
        else:
            name = self._scope.emit("Concat", [self.scalar(d) for d in key], {"axis": 0})
        self._vectors[key] = name
        return name

    def scalar(self, d: Dim) -> str:
        """The name of an int64 tensor ``[1]``; raises ``GraphError`` for an unknown symbol."""
        for scope in _chain(self._scope):
            if d in scope.sizes._scalars:
                return scope.sizes._scalars[d]
        name = self._sum(d) if isinstance(d, SymExpr) else self._scope.ints([d])
        self._scalars[d] = name
        return name

    def _sum(self, d: SymExpr) -> str:
        total = ""
        for monomial, coefficient in d.terms:
            factors = [self._atom(a) for a in monomial]
            if coefficient != 1 or not factors:
                factors.append(self._constant(coefficient))
            term = factors[0]
            for factor in factors[1:]:
                term = self._scope.emit("Mul", [term, factor])
            total = self._scope.emit("Add", [total, term]) if total else term
        return total

    def _constant(self, value: int) -> str:
        return self._scope.tensor(np.array([value], np.int64), "size")

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, Symbol):
            return self._symbol(atom.text)
        a, b = (self.scalar(arg) for arg in atom.args)
        if isinstance(atom, Max | Min):
            return self._scope.emit("Max" if isinstance(atom, Max) else "Min", [a, b])
        if isinstance(atom, Broadcast):
            one = self._scope.emit("Equal", [a, self._constant(1)])
            return self._scope.emit("Where", [one, b, a])
        rest = self._scope.emit("Mod", [a, b])
        if isinstance(atom, Mod):
            return rest
        # ONNX's integer division truncates, that of dims rounds down; without a remainder both
        # agree.
        assert isinstance(atom, FloorDiv)
        return self._scope.emit("Div", [self._scope.emit("Sub", [a, rest]), b])

    def _symbol(self, name: str) -> str:
        for scope in _chain(self._scope):
            source = scope.sizes._sources.get(name)
            if source is not None:
                value, axis = source
                attrs = {"start": axis, "end": axis + 1}
                return self._scope.emit("Shape", [self._scope.name(value)], attrs, name=name)
        raise GraphError(f"no value shows the size {name}")


def _chain(scope: Writer) -> list[Writer]:
    found = [scope]
    while found[-1].parent is not None:
        found.append(found[-1].parent)
    return found
