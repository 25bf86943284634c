"""Which operations are elementwise once their parameters are known."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Node, Value
from .registry import has_trait
from .traits import Trait


def is_elementwise(node: Node, inputs: Sequence[Value | None]) -> bool:
    """Does each element of the result depend only on elements of the inputs at the same index?

    ``inputs`` broadcast. The trait ``elementwise`` says so for all nodes of an op. It also holds
    for nodes of ops like QuantizeLinear whose parameters are single numbers.
    """
    if has_trait(node, Trait.ELEMENTWISE):
        return True
    if not has_trait(node, Trait.GRANULAR):
        return False
    return all(v is None or v.tensor_type.numel == 1 for v in inputs[1:])


__all__ = ["is_elementwise"]
