"""Results that need nothing of what fails: a check may go with the dead code around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphkiln.ir.bindings import Bindings
from graphkiln.ir.control import CONTROL
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import Interpreter

from .tolerance import SAMPLES, perturbed


class _Failed:
    """What stands for the result of a node that failed."""


_FAILED = _Failed()


def _go_on(interpreter: Interpreter) -> Interpreter:
    """A node that fails has results that fail whatever uses them; a graph's own checks still end
    the run."""
    engine = interpreter._engine
    strictly = engine.run_node

    def run_node(
        node: Node, inputs: list[Any], bindings: Bindings, *, symbolic: bool | None = None
    ) -> list[Any]:
        if not node.outputs:
            return strictly(node, inputs, bindings, symbolic=symbolic)
        # A body may do without a value that is handed to it.
        if node.key not in CONTROL and any(x is _FAILED for x in inputs):
            return [_FAILED] * len(node.outputs)
        try:
            return strictly(node, inputs, bindings, symbolic=symbolic)
        except Exception:
            return [_FAILED] * len(node.outputs)

    engine.run_node = run_node  # type: ignore[method-assign]
    return interpreter


def unneeded_failure(
    graph: Graph, feeds: Mapping[str, Any]
) -> tuple[list[Any], list[list[Any]]] | None:
    """The outputs and their perturbed evaluations, where no output needs what fails; else None."""
    try:
        plain = _go_on(Interpreter(graph)).run(feeds)
        wrong = [_go_on(perturbed(graph, n)).run(feeds) for n in range(SAMPLES)]
    except Exception:
        return None
    if any(x is _FAILED for outputs in (plain, *wrong) for x in outputs):
        return None
    return plain, wrong
