"""Which operations are elementwise once their parameters are known."""

from __future__ import annotations

from collections.abc import Sequence

from .graph import Node, Value
from .registry import has_trait
from .traits import Trait


def is_elementwise(node: Node, inputs: Sequence[Value | None]) -> bool:
    """Does the same index go in and out of ``node``, after broadcasting of its ``inputs``?

    By its trait the op says so for all its nodes. Beyond that, it holds for a granular op whose
    parameters are single numbers, such as quantization by one scale and one zero point.
    """
    if has_trait(node, Trait.ELEMENTWISE):
        return True
    if not has_trait(node, Trait.GRANULAR):
        return False
    return all(v is None or v.tensor_type.numel == 1 for v in inputs[1:])


__all__ = ["is_elementwise"]
