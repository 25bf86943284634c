"""The cost model: operations, bytes and estimated time of a kernel, all from shapes.

Passes, code generation and tuning use it, directly or through the hardware, which knows its rates.
A region is the closed graph of one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .dims import Dim, dim_min, evaluate, free_symbols
from .flops import is_elementwise, node_flops
from .graph import Graph, Node, Value
from .registry import has_trait
from .storage import storage_bytes
from .traits import Trait
from .types import TensorType

USUAL = 32
"""The number to assume for a size that is not known."""


class Demand:
    """How many elements of each value of a region are read, at most.

    Where an op picks elements, a kernel computes only those of its operand. A ``Gather`` of 10 rows
    from a table that ``Cast`` converts reads and converts 10 rows, not the table.
    """

    def __init__(self, region: Graph) -> None:
        self.region = region
        self.elements: dict[Value, Dim] = {}
        for node in reversed(list(region.topological_all())):
            for v in node.values:
                if isinstance(v.node.outputs[v.index].type, TensorType):
                    self.elements[v] = self._of(v)

    def _of(self, value: Value) -> Dim:
        whole = value.tensor_type.numel
        wanted: Dim = 0
        for node, index in self.region.uses(value):
            wanted = wanted + self._by(node, index, whole)
        return dim_min(whole, wanted)

    def _by(self, node: Node, index: int, whole: Dim) -> Dim:
        """How many elements one use reads, of a value of so many elements."""
        if has_trait(node, Trait.SHAPE_ONLY):
            return 0
        first = index == 0 and (has_trait(node, Trait.PICKS) or has_trait(node, Trait.INJECTIVE))
        same = is_elementwise(node) and node.out().tensor_type.numel == whole
        if not first and not same:
            return whole
        wanted: Dim = 0
        for v in node.values:
            wanted = wanted + self.elements[v]
        return wanted

    def flops(self) -> Dim:
        """Arithmetic operations for the elements that are read."""
        total: Dim = 0
        for node in self.region.topological():
            count = self.elements[node.out()] if is_elementwise(node) else None
            total = total + (node_flops(self.region, node) if count is None else count)
        return total

    def moved_bytes(self) -> Dim:
        """Bytes of a kernel's inputs and outputs, weights included; each counts once."""
        total: Dim = 0
        for v in self.region.inputs:
            total = total + self.elements[v] * storage_bytes(v.dtype)
        for v in self.region.outputs:
            total = total + v.tensor_type.numel * storage_bytes(v.dtype)
        return total


def arithmetic(region: Graph) -> str:
    """The element type that a region computes in, by which rates differ; float32 by default."""
    for node in region.topological():
        kind = _product_type(region, node)
        if kind is not None:
            return kind
    types = {v.dtype for v in region.outputs}
    return "float64" if types == {"float64"} else "float32"


def _product_type(region: Graph, node: Node) -> str | None:
    """The element type of a node's products, if it computes sums of products."""
    first = region.input(node, 0) if has_trait(node, Trait.CONTRACTION) else None
    if first is None:
        return None
    return {"int8": "int8", "uint8": "int8", "float64": "float64"}.get(first.dtype, "float32")


@dataclass(frozen=True)
class Rates:
    """What one core of a machine does in a second.

    ``products`` are operations of sums of products, by element type (see :func:`arithmetic`), where
    a multiply-add counts two. ``others`` are other operations, and ``bandwidth`` is bytes from and
    to memory.
    """

    products: Mapping[str, float]
    others: float
    bandwidth: float

    def seconds(self, region: Graph) -> float:
        """The roofline of a region: the seconds of its operations or of its bytes, whichever are
        more.

        Unknown sizes count as :data:`USUAL` (Williams, Waterman and Patterson, "Roofline", 2009).
        """
        demand = Demand(region)
        multiplies = any(has_trait(n, Trait.CONTRACTION) for n in region.nodes)
        rate = self.products[arithmetic(region)] if multiplies else self.others
        return max(usual(demand.flops()) / rate, usual(demand.moved_bytes()) / self.bandwidth)


def usual(d: Dim) -> int:
    """A number for an expression whose symbols count as :data:`USUAL`.

    It is 1 or more if there are any: a window may be larger than an image of that size, and a
    result of less than no elements has no cost.
    """
    symbols = free_symbols(d)
    found = evaluate(d, dict.fromkeys(symbols, USUAL))
    return max(found, 1) if symbols else found


__all__ = ["USUAL", "Demand", "Rates", "arithmetic", "usual"]
