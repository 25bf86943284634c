"""What each kernel costs, as expressions over the sizes it is called with.

The artifact's report carries them: who times an artifact need not know its graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import node_text
from ..ir.dims import Dim, SymExpr, dim_min, evaluate, parse_dim
from ..ir.flops import is_elementwise, node_flops
from ..ir.graph import Graph, Node, Value
from ..ir.parser import parse_graph
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType
from ..targets.base import KernelPlan, Target
from .kernels import KernelSpec, kernel_symbols
from .storage import storage_bytes

MUCH = 10_000_000
"""Operations of a call from which on a slow kernel is worth a warning: about a millisecond."""

USUAL = 32
"""What open sizes are taken for where only the magnitude counts."""


def kernel_costs(
    kernels: Mapping[str, KernelSpec], calls: Mapping[str, list[KernelSpec]], target: Target
) -> dict[str, dict[str, Any]]:
    """The report's entry for each kernel by name; ``calls`` has the spec of each call.

    An entry holds ``ops``, ``nodes`` and ``origins`` (for each call the node behind it, and the
    ONNX nodes which that stands for), ``symbols`` (the names of a call's sizes, in order),
    ``flops`` and ``bytes`` (ints, or the text of an expression over these names), ``arithmetic``:
    ``float32``, ``float64`` or ``int8``, the ``template`` (its op, or null for the generic
    schedule) with its ``algorithm`` and largest register ``tile`` (rows by columns of the result,
    ``14x32``), and ``generic``: why it is the generic one, where the kernel adds up products.
    """
    return {name: _cost(spec, calls.get(name, []), target) for name, spec in kernels.items()}


def fallback_warnings(
    kernels: Mapping[str, KernelSpec], costs: Mapping[str, Mapping[str, Any]], target: Target
) -> Iterator[str]:
    """A line for each kernel with much to compute that falls back on the generic schedule."""
    for name, spec in kernels.items():
        plan = target.plan(parse_graph(spec.text)) if costs[name]["generic"] else KernelPlan()
        if plan.fallback and _usual(costs[name]) >= MUCH:
            yield (
                f"{node_text(spec.node, f'kernel {spec.op}')}: runs by the generic schedule, which "
                f"is several times slower: {plan.reason}"
            )


def _usual(cost: Mapping[str, Any]) -> int:
    """Operations of a call, sizes that are open taken for :data:`USUAL`."""
    flops = cost["flops"]
    if isinstance(flops, int):
        return flops
    return evaluate(parse_dim(flops), dict.fromkeys(cost["symbols"], USUAL))


def _cost(spec: KernelSpec, calls: list[KernelSpec], target: Target) -> dict[str, Any]:
    region = parse_graph(spec.text)
    demand = Demand(region)
    plan = target.plan(region) if spec.role == "main" else KernelPlan()
    return {
        "ops": [n.op for n in region.topological()],
        "nodes": [call.node for call in calls],
        "origins": [list(call.origins) for call in calls],
        "symbols": kernel_symbols(region, spec.role),
        "flops": _json(demand.flops() if spec.role == "main" else 0),
        "bytes": _json(demand.moved_bytes()),
        "arithmetic": arithmetic(region),
        "template": plan.template or None,
        "algorithm": plan.algorithm or None,
        "tile": plan.tile or None,
        "generic": plan.reason,
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
