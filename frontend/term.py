"""Terms: values with arithmetic operators, for ops that are expanded into arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Value
from ..ir.onnx_types import element_code
from .emit import Emit


@dataclass(frozen=True)
class Term:
    """A value with arithmetic operators; plain numbers get its element type."""

    value: Value
    emit: Emit

    def _combine(self, op: str, other: Term | float, swap: bool = False) -> Term:
        if isinstance(other, Term):
            right = other.value
        else:
            right = self.emit.scalar(other, self.value)
        pair = (right, self.value) if swap else (self.value, right)
        return Term(self.emit(op, *pair), self.emit)

    def __add__(self, other: Term | float) -> Term:
        return self._combine("Add", other)

    def __sub__(self, other: Term | float) -> Term:
        return self._combine("Sub", other)

    def __rsub__(self, other: float) -> Term:
        return self._combine("Sub", other, swap=True)

    def __mul__(self, other: Term | float) -> Term:
        return self._combine("Mul", other)

    def __truediv__(self, other: Term | float) -> Term:
        return self._combine("Div", other)

    def __neg__(self) -> Term:
        return Term(self.emit("Neg", self.value), self.emit)

    def __pow__(self, other: Term) -> Term:
        return self._combine("Pow", other)

    def __rpow__(self, base: float) -> Term:
        return self._combine("Pow", base, swap=True)

    __radd__ = __add__
    __rmul__ = __mul__

    def apply(self, op: str) -> Term:
        """The result of an op of one input."""
        return Term(self.emit(op, self.value), self.emit)

    def sqrt(self) -> Term:
        return self.apply("Sqrt")

    def like(self, other: Term) -> Term:
        """The term cast to the element type of ``other``."""
        if self.value.dtype == other.value.dtype:
            return self
        to = element_code(other.value.dtype)
        return Term(self.emit("Cast", self.value, to=to), self.emit)

    def where_positive(self, then: Term, other: Term) -> Term:
        """``then`` where this is above zero, else ``other``."""
        positive = self.emit("Greater", self.value, self.emit.scalar(0, self.value))
        return Term(self.emit("Where", positive, then.value, other.value), self.emit)
