"""The order in which a graph's nodes run one by one, with numbered slots for their values."""

from __future__ import annotations

from dataclasses import dataclass, field

from .bindings import attribute_symbols, has_symbols
from .graph import Graph, Node, Value


@dataclass
class Step:
    """One node. Values are in numbered slots (-1: omitted); those in ``dead`` are not used after
    it.
    """

    node: Node
    inputs: list[int]
    outputs: list[int]
    symbolic: bool
    dead: list[int] = field(default_factory=list)


@dataclass
class Plan:
    """The steps of a graph.

    ``checks`` are nodes without results, which run as soon as their symbols have values.
    """

    slots: int
    inputs: list[int]
    constants: list[tuple[int, Node]]
    steps: list[Step]
    outputs: list[int]
    checks: list[tuple[Node, frozenset[str]]] = field(default_factory=list)


def plan_of(graph: Graph) -> Plan:
    """The steps of ``graph``; bodies have plans of their own."""
    slots: dict[Value, int] = {}

    def slot(value: Value) -> int:
        return slots.setdefault(value, len(slots))

    constants: list[tuple[int, Node]] = []
    steps: list[Step] = []
    checks: list[tuple[Node, frozenset[str]]] = []
    for node in graph.topological_all():
        if not node.outputs and node.key != "Output":
            checks.append((node, attribute_symbols(node)))
        elif node.key == "Constant" and "value" in node.attrs:
            constants.append((slot(node.out()), node))
        elif node.key not in ("Input", "Output"):
            inputs = [-1 if v is None else slot(v) for v in graph.inputs_of(node)]
            outputs = [slot(v) for v in node.values]
            steps.append(Step(node, inputs, outputs, has_symbols(node)))
    results = [slot(v) for v in graph.outputs]
    plan = Plan(0, [slot(v) for v in graph.inputs], constants, steps, results, checks)
    plan.slots = len(slots)
    _mark_dead(plan)
    return plan


def _mark_dead(plan: Plan) -> None:
    needed = set(plan.outputs)
    for step in reversed(plan.steps):
        for slot in {*step.inputs, *step.outputs} - needed - {-1}:
            step.dead.append(slot)
            needed.add(slot)


__all__ = ["Plan", "Step", "plan_of"]
