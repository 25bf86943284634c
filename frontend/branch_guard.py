"""The guard of an assumed branch of an If (see :mod:`.assumptions`)."""

from __future__ import annotations

from ..ir.graph import Value
from .emit import Emit
from .scope import Slot


class Guard:
    """Passes values on if a condition holds, and fails at run time otherwise."""

    def __init__(self, emit: Emit, condition: Value, holds: bool, message: str) -> None:
        self._emit = emit
        self._message = message
        self._source = condition
        self._holds = holds
        self._condition: Value | None = None

    @property
    def used(self) -> bool:
        return self._condition is not None

    def __call__(self, slot: Slot) -> Slot:
        if not isinstance(slot, Value) or slot.constant is not None:
            return slot
        if self._condition is None:
            self._condition = self._scalar()
        return self._emit("kiln.Require", slot, self._condition, message=self._message)

    def _scalar(self) -> Value:
        value = self._source
        if value.rank:
            value = self._emit("Reshape", value, self._emit.ints([]))
        return value if self._holds else self._emit("Not", value)
