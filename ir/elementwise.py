"""Which operations are elementwise once their parameters are known."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Node, Value
from .registry import has_trait
from .traits import Trait


def is_elementwise(node: Node, inputs: Sequence[Value | None]) -> bool:
    """Does each element of the result depend only on elements of the inputs at the same index?

    ``inputs`` broadcast, but for tables. The trait ``elementwise`` says so for all nodes of an op.
    It also holds for nodes of ops like QuantizeLinear whose parameters are single numbers, and for
    those of ops that look elements up in a table.
    """
    if has_trait(node, Trait.ELEMENTWISE) or has_trait(node, Trait.TABULAR):
        return True
    if not has_trait(node, Trait.GRANULAR):
        return False
    return all(v is None or v.tensor_type.numel == 1 for v in inputs[1:])


def is_table(node: Node, index: int) -> bool:
    """Is input ``index`` of an elementwise node a table, of which each result may read any part?"""
    return index > 0 and has_trait(node, Trait.TABULAR)


__all__ = ["is_elementwise", "is_table"]
