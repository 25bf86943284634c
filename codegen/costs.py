"""What each kernel costs, as expressions over the sizes it is called with.

The artifact's report carries them: who times an artifact need not know its graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ir.dims import Dim, SymExpr, dim_min
from ..ir.graph import Graph, Node, Value
from ..ir.parser import parse_graph
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType
from .flops import is_elementwise, node_flops
from .kernels import KernelSpec, kernel_symbols
from .storage import storage_bytes


def kernel_costs(
    kernels: Mapping[str, KernelSpec], calls: Mapping[str, list[KernelSpec]]
) -> dict[str, dict[str, Any]]:
    """The report's entry for each kernel by name; ``calls`` has the spec of each call.

    An entry holds ``ops``, ``nodes`` and ``origins`` (for each call the node behind it, and the
    ONNX nodes which that stands for), ``symbols`` (the names of a call's sizes, in order),
    ``flops`` and ``bytes`` (ints, or the text of an expression over these names), and
    ``arithmetic``: ``float32``, ``float64`` or ``int8``.
    """
    return {name: _cost(spec, calls.get(name, [])) for name, spec in kernels.items()}


def _cost(spec: KernelSpec, calls: list[KernelSpec]) -> dict[str, Any]:
    region = parse_graph(spec.text)
    demand = Demand(region)
    return {
        "ops": [n.op for n in region.topological()],
        "nodes": [call.node for call in calls],
        "origins": [list(call.origins) for call in calls],
        "symbols": kernel_symbols(region, spec.role),
        "flops": _json(demand.flops() if spec.role == "main" else 0),
        "bytes": _json(demand.moved_bytes()),
        "arithmetic": arithmetic(region),
    }


def _json(d: Dim) -> int | str:
    return str(d) if isinstance(d, SymExpr) else int(d)


class Demand:
    """How many elements of each value of a region are read at most.

    Kernels compute on their way what a picking op, such as a lookup in a table of converted
    weights, wants of its operand, and leave the rest.
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
        """What one use wants of a value of so many elements."""
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
        """Operations for what is wanted."""
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
    """The element type that decides how fast the machine computes; float32 where nothing does."""
    for node in region.topological():
        kind = _product_type(region, node)
        if kind is not None:
            return kind
    types = {v.dtype for v in region.outputs}
    return "float64" if types == {"float64"} else "float32"


def _product_type(region: Graph, node: Node) -> str | None:
    """How a node multiplies, if it does that and little else."""
    first = region.input(node, 0) if has_trait(node, Trait.CONTRACTION) else None
    if first is None:
        return None
    return {"int8": "int8", "uint8": "int8", "float64": "float64"}.get(first.dtype, "float32")
