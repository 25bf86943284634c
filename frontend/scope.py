"""Scopes: the names of values while a model is imported.

A :class:`Builder` fills one :class:`Graph`; a :class:`Scope` maps the names of one GraphProto or
function to values. A function uses its caller's builder. The body of a control flow op has a
builder of its own, which makes outer values that the body uses further inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from ..ir.graph import Graph, Value
from ..ir.infer import KNOWN_LIMIT, Known
from ..ir.origins import NONE, Origins
from ..ir.types import Type
from .errors import ImportFault


class Broken:
    """Stands for a value whose node could not be imported."""


BROKEN = Broken()

Slot: TypeAlias = "Value | Broken | None"


@dataclass(frozen=True)
class Body:
    """A graph attribute, with the scope whose names it may use."""

    proto: onnx.GraphProto
    scope: Scope


RawAttr: TypeAlias = "int | float | str | tuple[Any, ...] | np.ndarray | Type | Body"
"""The value of a node's attribute."""


class Builder:
    """A graph under construction, with the values that inference knows so far.

    ``origins`` is the ONNX node that is being imported, which new nodes get as their origin.
    """

    def __init__(self, graph: Graph, parent: Builder | None = None) -> None:
        self.graph = graph
        self.parent = parent
        self.known: Known = {}
        self.origins: Origins = NONE if parent is None else parent.origins
        self.captured: dict[Value, Value] = {}
        self._fetched: dict[Value, Value] = {}

    def constant(self, array: np.ndarray, name: str) -> Value:
        value = self.graph.add_constant(array, name)
        if array.size <= KNOWN_LIMIT:
            self.known[value] = array
        return value

    def fetch(self, value: Value) -> Value:
        """``value`` in this graph, if it is of an outer one: constants are copied, others captured.

        ``captured`` maps each outer value that became an input to that input, in order.
        """
        if value.node in self.graph:
            return value
        if self.parent is None:
            raise ImportFault(f"value {value.name!r} is out of reach here")
        outer = self.parent.fetch(value)
        inner = self._fetched.get(outer)
        if inner is None:
            inner = self._fetched[outer] = self._bring(outer)
        return inner

    def outer(self, inner: Value) -> Value | None:
        """The outer value that became the input ``inner``, or None."""
        return next((o for o, i in self.captured.items() if i == inner), None)

    def _bring(self, outer: Value) -> Value:
        array = outer.constant
        if array is not None:
            return self.constant(array, outer.name)
        assert self.parent is not None
        inner = self.graph.add_input(outer.name, outer.type)
        self.captured[outer] = inner
        if outer in self.parent.known:
            self.known[inner] = self.parent.known[outer]
        return inner


class Scope:
    """The names of one graph or function body.

    ``opsets`` are the versions that its nodes are written for, ``bindings`` the attributes of the
    function call that it belongs to, and ``prefix`` is put before the names of new values. The
    nodes of an expansion are not those of the model, so their origins are ``origins``.
    """

    def __init__(
        self,
        builder: Builder,
        opsets: Mapping[str, int],
        *,
        parent: Scope | None = None,
        bindings: Mapping[str, RawAttr] | None = None,
        prefix: str = "",
        calls: tuple[Any, ...] = (),
        origins: Origins | None = None,
    ) -> None:
        self.builder = builder
        self.opsets = opsets
        self.parent = parent
        self.bindings = bindings or {}
        self.prefix = prefix
        self.calls = calls
        self.origins = origins
        self.renames: dict[str, str] = {}
        self.values: dict[str, Slot] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def define(self, name: str, value: Slot) -> None:
        """Give ``name`` a value, once in a scope."""
        if self.holds(name):
            raise ImportFault(f"value {name!r} is defined twice")
        self.values[name] = value

    def title(self, name: str) -> str:
        """The name in the graph for this scope's ``name``; empty stays empty."""
        return self.renames.get(name) or (name and self.prefix + name)

    def holds(self, name: str) -> bool:
        return name in self.values or name in self.arrays

    def lookup(self, name: str) -> Slot:
        """The value of ``name`` in this scope's graph; raises :class:`ImportFault`."""
        slot = self._find(name)
        return self.builder.fetch(slot) if isinstance(slot, Value) else slot

    def _find(self, name: str) -> Slot:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            if name in scope.arrays:
                value = scope.builder.constant(scope.arrays[name], scope.prefix + name)
                scope.values[name] = value
                return value
            scope = scope.parent
        raise ImportFault(f"value {name!r} is not defined")
