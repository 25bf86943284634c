"""What each kernel costs, as expressions over the sizes it is called with.

The artifact's report carries them: who times an artifact need not know its graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import node_text
from ..ir.costs import Demand, arithmetic
from ..ir.dims import Dim, SymExpr
from ..ir.parser import parse_graph
from ..targets.base import KernelPlan, Target
from .kernels import KernelSpec, kernel_symbols

LONG = 1e-3
"""Seconds from which on a slow kernel is worth a warning."""


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


def slow_warnings(
    kernels: Mapping[str, KernelSpec], costs: Mapping[str, Mapping[str, Any]], target: Target
) -> Iterator[str]:
    """A line for each kernel with much to compute whose sums of products run by no template."""
    for name, spec in kernels.items():
        if not costs[name]["generic"]:
            continue
        region = parse_graph(spec.text)
        plan = target.plan(region)
        if plan.reason and target.hardware.seconds(region) >= LONG:
            yield (
                f"{node_text(spec.node, f'kernel {spec.op}')}: runs by the generic schedule, which "
                f"is several times slower: {plan.reason}"
            )


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
