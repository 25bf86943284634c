"""Reference evaluation of any graph, with NumPy and ``onnx.reference``.

A value is an array (ml_dtypes for the element types NumPy lacks, objects for strings), a list for a
sequence, None for an empty optional. The interpreter is simple rather than fast: tests compare
every pass and every kernel with its results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import Blocker
from .bindings import (
    Bindings,
    bind_inputs,
    bind_type,
    concrete,
    has_symbols,
    known_extent,
    mismatch,
)
from .control import CONTROL
from .dims import DimError
from .evaluators import EVALUATORS
from .graph import Graph, GraphError, Node, Value
from .plan import Plan, Step, plan_of
from .reference import Runner, reference_runner
from .registry import spec
from .types import TensorType, to_numpy_dtype

OnValue: TypeAlias = "Callable[[Value, Any], None]"


class EvaluationError(GraphError):
    """A graph cannot be evaluated on the given inputs."""


def evaluate(
    graph: Graph,
    feeds: Mapping[str, Any],
    *,
    on_value: OnValue | None = None,
    check_types: bool = False,
) -> list[Any]:
    """The outputs of ``graph`` for ``feeds`` (values by input name).

    ``on_value`` is called with every input and every result, also in bodies. ``check_types``
    compares each result with its inferred type. Raises :class:`EvaluationError` for feeds that do
    not fit and for nodes that fail.
    """
    return Interpreter(graph, on_value=on_value, check_types=check_types).run(feeds)


def run_node(
    node: Node, inputs: Sequence[Any], bindings: Mapping[str, int] | None = None
) -> list[Any]:
    """The outputs of one operation; omitted inputs are None.

    ``bindings`` gives the symbols its attributes and bodies need. Raises
    :class:`EvaluationError`.
    """
    return _Engine(None, False).run_node(node, list(inputs), dict(bindings or {}))


class Interpreter:
    """Evaluates one graph many times; the graph must not change meanwhile."""

    def __init__(
        self, graph: Graph, *, on_value: OnValue | None = None, check_types: bool = False
    ) -> None:
        self._graph = graph
        self._engine = _Engine(on_value, check_types)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """As :func:`evaluate`."""
        names = [v.name for v in self._graph.inputs]
        feeds = {**_defaults(self._graph), **feeds}
        missing = [n for n in names if n not in feeds]
        unknown = [n for n in feeds if n not in names]
        if missing or unknown:
            raise EvaluationError(f"missing inputs: {missing}; unknown inputs: {unknown}")
        values = [_as_value(feeds[n]) for n in names]
        bindings = bind_inputs(self._graph, values, {})
        for v, value in zip(self._graph.inputs, values, strict=True):
            problem = mismatch(v.node.outputs[v.index].type, value, bindings)
            if problem is not None:
                raise EvaluationError(f"input {v.name!r}: {problem}")
        return self._engine.run_graph(self._graph, values, bindings)


def _defaults(graph: Graph) -> dict[str, Any]:
    return {v.name: d for v in graph.inputs if (d := v.node.attrs.get("default")) is not None}


def _as_value(value: Any) -> Any:
    if value is None or isinstance(value, np.ndarray):
        return value
    return [_as_value(v) for v in value] if isinstance(value, list) else np.asarray(value)


def _as_result(value: Any) -> Any:
    """A result as an array, also if NumPy made it a scalar; strings are objects."""
    if isinstance(value, list):
        return [_as_result(v) for v in value]
    array = np.asarray(value) if isinstance(value, np.generic) else value
    if isinstance(array, np.ndarray) and array.dtype.kind in "UST":
        return array.astype(object)
    return array


class _Engine:
    """Runs graphs; it caches their plans and the implementations of their nodes."""

    def __init__(self, on_value: OnValue | None, check_types: bool) -> None:
        self._on_value = on_value
        self._check_types = check_types
        self._plans: dict[Graph, Plan] = {}
        self._runners: dict[tuple[Node, tuple[bool, ...]], Runner] = {}

    def run_graph(self, graph: Graph, inputs: list[Any], bindings: Bindings) -> list[Any]:
        plan = self._plans.get(graph)
        if plan is None:
            plan = self._plans[graph] = plan_of(graph)
        slots: list[Any] = [None] * plan.slots
        for slot, node in plan.constants:
            slots[slot] = node.attrs["value"]
        for v, slot, value in zip(graph.inputs, plan.inputs, inputs, strict=True):
            slots[slot] = value
            self._tell(v, value)
        waiting = self._run_checks(plan.checks, bindings)
        for step in plan.steps:
            self._run_step(step, slots, bindings)
            waiting = self._run_checks(waiting, bindings)
        return [slots[slot] for slot in plan.outputs]

    def _run_checks(
        self, checks: list[tuple[Node, frozenset[str]]], bindings: Bindings
    ) -> list[tuple[Node, frozenset[str]]]:
        """Run those whose symbols have values; returns the others."""
        waiting = []
        for node, symbols in checks:
            if symbols <= bindings.keys():
                self.run_node(node, [], bindings, symbolic=True)
            else:
                waiting.append((node, symbols))
        return waiting

    def _run_step(self, step: Step, slots: list[Any], bindings: Bindings) -> None:
        arguments = [None if i < 0 else slots[i] for i in step.inputs]
        results = self.run_node(step.node, arguments, bindings, symbolic=step.symbolic)
        for v, slot, value in zip(step.node.values, step.outputs, results, strict=True):
            slots[slot] = value
            self._tell(v, value)
        for slot in step.dead:
            slots[slot] = None

    def _tell(self, value: Value, array: Any) -> None:
        if self._on_value is not None:
            self._on_value(value, array)

    def run_node(
        self, node: Node, inputs: list[Any], bindings: Bindings, *, symbolic: bool | None = None
    ) -> list[Any]:
        """The outputs of ``node``; symbols that the results' shapes determine are added to
        ``bindings``.
        """
        symbolic = has_symbols(node) if symbolic is None else symbolic
        try:
            with np.errstate(all="ignore"):
                results = self._call(node, inputs, bindings, symbolic)
        except GraphError:
            raise
        except Exception as e:  # whatever NumPy or onnx.reference raise for a node that fails
            raise EvaluationError(str(e), at=node) from e
        results = [_as_result(r) for r in results]
        if len(results) < len(node.outputs):
            raise EvaluationError(
                f"{len(results)} results for {len(node.outputs)} outputs", at=node
            )
        results = results[: len(node.outputs)]
        self._bind_results(node, results, bindings)
        return results

    def _bind_results(self, node: Node, results: list[Any], bindings: Bindings) -> None:
        for out, value in zip(node.outputs, results, strict=True):
            bind_type(out.type, value, bindings)
            problem = mismatch(out.type, value, bindings) if self._check_types else None
            if problem is not None:
                raise EvaluationError(Blocker(problem, node.name, node.key, output=out.name))

    def _call(self, node: Node, inputs: list[Any], bindings: Bindings, symbolic: bool) -> list[Any]:
        if symbolic:
            try:
                node = concrete(node, bindings)
            except DimError as e:
                raise EvaluationError(str(e), at=node) from e
        control = CONTROL.get(node.key)
        if control is not None:
            return control(node, inputs, lambda g, v: self._run_body(g, v, bindings), bindings)
        known = spec(node.key)
        own = known.evaluate if known is not None else None
        own = own or EVALUATORS.get(node.key)
        if own is not None:
            return own(node, inputs)
        try:
            return self._reference(node, inputs, keep=not symbolic)
        except Exception:
            # ONNX's implementations fail on some operands without elements.
            results = _without_elements(node, bindings)
            if results is None:
                raise
            return results

    def _run_body(self, graph: Graph, inputs: list[Any], bindings: Bindings) -> list[Any]:
        if len(inputs) != len(graph.inputs):
            raise EvaluationError(
                f"graph {graph.name!r} takes {len(graph.inputs)} inputs, not {len(inputs)}"
            )
        return self.run_graph(graph, inputs, bind_inputs(graph, inputs, bindings))

    def _reference(self, node: Node, inputs: list[Any], keep: bool) -> list[Any]:
        present = tuple(value is not None for value in inputs)
        runner = self._runners.get((node, present))
        if runner is None:
            runner = reference_runner(node, present)
        if keep:
            self._runners[node, present] = runner
        return runner(inputs)


def _without_elements(node: Node, bindings: Bindings) -> list[Any] | None:
    """The outputs of a node if all are known to be empty, else None."""
    results = []
    for out in node.outputs:
        if not isinstance(out.type, TensorType) or out.type.shape is None:
            return None
        shape = [known_extent(d, bindings) for d in out.type.shape]
        if 0 not in shape or None in shape:
            return None
        results.append(np.empty(tuple(d or 0 for d in shape), to_numpy_dtype(out.type.dtype)))
    return results


__all__ = ["EvaluationError", "Interpreter", "evaluate", "run_node"]
