"""The helper by which upgrade rules and expansions add operations of the newest opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import node_text
from ..ir.conditions import Condition, Relation
from ..ir.dims import Dim
from ..ir.graph import Value
from ..ir.types import TensorType
from .context import ImportContext
from .errors import ImportFault
from .guards import add_assert
from .node import OnnxNode
from .schema import LATEST
from .scope import Scope


class Emit:
    """Adds operations next to the node called ``name``; calling it adds one."""

    def __init__(self, importer: ImportContext, scope: Scope, name: str) -> None:
        self.importer = importer
        self.scope = scope
        self.name = name

    def __call__(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """The single result of ``op`` in the newest opset."""
        return self.many(op, inputs, attrs, 1)[0]

    def many(
        self, op: str, inputs: Sequence[Value | None], attrs: dict[str, Any], outputs: int
    ) -> list[Value]:
        """The results of an op that has several."""
        domain, _, name = op.rpartition(".")
        hint = f"{self.name}/{name}"
        names = [hint] if outputs == 1 else [f"{hint}_{i}" for i in range(outputs)]
        node = OnnxNode(name, domain, LATEST.get(domain, 1), hint, list(inputs), names, attrs)
        slots = self.importer.place(node, self.scope)
        if not all(isinstance(s, Value) for s in slots):
            raise ImportFault(f"needs {op}, which cannot be imported")
        return [s for s in slots if isinstance(s, Value)]

    def constant(self, array: np.ndarray, hint: str = "const") -> Value:
        return self.scope.builder.constant(array, f"{self.name}/{hint}")

    def ints(self, values: Sequence[int], hint: str = "const") -> Value:
        """A constant ``int64[len(values)]``."""
        return self.constant(np.array(values, np.int64), hint)

    def scalar_int(self, number: int) -> Value:
        """A constant ``int64[]``."""
        return self.constant(np.array(number, np.int64))

    def scalar(self, number: float | int | bool, like: Value, hint: str = "const") -> Value:
        """A constant scalar of the element type of ``like``."""
        from ..ir.types import to_numpy_dtype

        return self.constant(np.array(number).astype(to_numpy_dtype(like.dtype)), hint)

    def is_used(self, output: str) -> bool:
        """Does anything in the model use a value of this name?"""
        return bool(output) and output in self.importer.used_names

    def known(self, value: Value | None) -> np.ndarray | None:
        """The value if it is known at compile time, else None."""
        return None if value is None else self.scope.builder.known.get(value)

    def rank(self, value: Value) -> int:
        """The rank of a tensor; raises :class:`ImportFault` where it is not known."""
        return len(self.dims(value))

    def dims(self, value: Value) -> tuple[Dim, ...]:
        t = value.type
        if not isinstance(t, TensorType) or t.shape is None:
            raise ImportFault(f"the rank of {value.name!r} must be known to bring it to opset "
                              f"{LATEST['']}")  # fmt: skip
        return t.shape

    def require(self, relation: Relation, a: Dim, b: Dim, why: str) -> None:
        """Record a condition of a node that is replaced at import, as inference does for others.

        ``why`` completes "it needs ...". Raises :class:`ImportFault` if it can never hold.
        """
        builder = self.scope.builder
        condition = Condition(relation, a, b, node_text(self.name), why, builder.origins)
        if condition.refuted():
            raise ImportFault(f"needs {why}, not {a} and {b}")
        if condition.proved():
            return
        if builder.parent is None:  # a condition of a body only counts if the body runs
            self.importer.needs.conditions.append(condition)
        add_assert(builder.graph, condition)

    def require_same_shape(self, a: Value, b: Value, why: str) -> None:
        """:meth:`require` that two values have the same shape, if their ranks are known."""
        if any(isinstance(v.type, TensorType) and v.type.shape is None for v in (a, b)):
            return
        if len(self.dims(a)) != len(self.dims(b)):
            raise ImportFault(f"needs {why}, not {a.type} and {b.type}")
        for x, y in zip(self.dims(a), self.dims(b), strict=True):
            self.require(Relation.EQUAL, x, y, why)

    def warn(self, text: str) -> None:
        self.importer.warn(f"{node_text(self.name)}: {text}")
