"""A graph as a ``torch.nn.Module``: its nodes run in order, and PyTorch differentiates them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import Blocker, GraphkilnError
from ..ir.bindings import Bindings, bind_shape, concrete
from ..ir.dims import free_symbols
from ..ir.graph import Graph, Node, Value
from ..ir.plan import Plan, Step, plan_of
from ..ir.types import TensorType
from .emit import Call, Emitter, Tensor, emission
from .errors import TrainingError
from .tensors import to_tensor, torch_dtype
from .weights import Choose, array_of, weights_of

OnValue = Callable[[str, Tensor], None]
"""Told the name and the tensor of each result of the main graph."""


class Module(nn.Module):
    """A graph that trains.

    Its parameters are the graph's weights, by the names of the constants: dots make submodules, so
    ``c1.weight`` is the parameter ``weight`` of the submodule ``c1``. Weights behind a
    ``DequantizeLinear`` are trained as floats and quantized in each run (:mod:`.ops.quantize`).
    Other constants stay as they are. Batch normalisations run in their inference form: they train
    as affine transforms, and their statistics stay.
    """

    def __init__(self, graph: Graph, trainable: Choose | None = None) -> None:
        """``graph`` must not change while the module is used; its constants are copied.

        ``trainable`` is as :func:`.weights.weights_of` takes it. Raises :class:`TrainingError`
        listing the nodes that do not run in PyTorch.
        """
        super().__init__()
        _require_emitters(graph)
        self._graph = graph
        self._plans: dict[Graph, _BodyPlan] = {}
        self._constants: dict[Node, Tensor] = {}
        self._weights = {w.node: w for w in weights_of(graph, trainable)}
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for weight in self._weights.values():
            self._places[weight.name] = self._add(weight.name, weight.initial())

    def _add(self, name: str, tensor: Tensor) -> tuple[nn.Module, str]:
        """Register a parameter at the place that its name tells."""
        *path, leaf = name.split(".")
        owner: nn.Module = self
        for part in path:
            part = _free(owner, part, reuse=True)
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part] or owner
        leaf = _free(owner, leaf)
        owner.register_parameter(leaf, nn.Parameter(tensor))
        return owner, leaf

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters by the names of the graph's constants."""
        return {name: getattr(owner, leaf) for name, (owner, leaf) in self._places.items()}

    @property
    def graph(self) -> Graph:
        """The graph that runs, with the weights that it began with."""
        return self._graph

    @property
    def input_names(self) -> list[str]:
        """The names of the graph's inputs, in order."""
        return [v.name for v in self._graph.inputs]

    @property
    def batch_size(self) -> int | None:
        """The size of the inputs' first axes where the model fixes them to one; else None."""
        sizes = {t.shape[0] for v in self._graph.inputs
                 if isinstance(t := v.type, TensorType) and t.shape}  # fmt: skip
        size = next(iter(sizes)) if len(sizes) == 1 else None
        return size if isinstance(size, int) else None

    @property
    def output_names(self) -> tuple[str, ...]:
        """What users call the graph's results, in order."""
        return self._graph.output_names

    def forward(self, *inputs: Tensor, on_value: OnValue | None = None, **named: Tensor) -> Any:
        """The graph's result, or a list of its results, for inputs in order or by name.

        ``on_value`` is called with each result of a node of the main graph, by its name. Raises
        :class:`TrainingError` for inputs that do not fit and for nodes that fail.
        """
        values = self._bound(inputs, named)
        results = self._run(self._graph, values, {}, on_value)
        results = [_declared(t, v) for t, v in zip(results, self._graph.outputs, strict=True)]
        return results[0] if len(results) == 1 else results

    def to_graph(self) -> Graph:
        """A copy of the graph with the weights as they are now."""
        copy = self._graph.copy()
        trained = {w.name: w for w in self._weights.values()}
        for node in list(copy.nx):
            if node.key == "Constant" and node.outputs[0].name in trained:
                weight = trained[node.outputs[0].name]
                node.attrs["value"] = weight.array(self.weights[weight.name])
        return copy

    # ---- running -----------------------------------------------------------------------------

    def _bound(self, inputs: Sequence[Tensor], named: Mapping[str, Tensor]) -> list[Tensor]:
        names = self.input_names
        given = {**dict(zip(names, inputs, strict=False)), **named}
        for v in self._graph.inputs:
            default = v.node.attrs.get("default")
            if v.name not in given and default is not None:
                given[v.name] = to_tensor(default)  # type: ignore[arg-type]
        missing = [n for n in names if n not in given]
        unknown = [n for n in given if n not in names]
        if missing or unknown or len(inputs) > len(names):
            raise TrainingError(
                f"takes the inputs {', '.join(names)}; missing: {missing}, unknown: {unknown},"
                f" in order: {len(inputs)}"
            )
        return [given[n] for n in names]

    def _run(
        self, graph: Graph, inputs: Sequence[Any], outer: Bindings, on_value: OnValue | None = None
    ) -> list[Any]:
        plan = self._plan(graph)
        own: Bindings = {}
        slots: list[Any] = [None] * plan.steps.slots
        for v, slot, tensor in zip(graph.inputs, plan.steps.inputs, inputs, strict=True):
            slots[slot] = tensor
            _bind(v, tensor, own)
        bindings = {**outer, **own}
        for slot, node in plan.steps.constants:
            slots[slot] = self._constant(node)
        waiting = self._check(plan.steps.checks, bindings)
        for step, emitter, fresh in plan.calls:
            self._step(step, emitter, slots, bindings, fresh)
            if fresh and waiting:
                waiting = self._check(waiting, bindings)
            if on_value is not None:
                for v, slot in zip(step.node.values, step.outputs, strict=True):
                    on_value(v.name, slots[slot])
            for slot in step.dead:
                slots[slot] = None
        return [slots[slot] for slot in plan.steps.outputs]

    def _step(
        self, step: Step, emitter: Emitter, slots: list[Any], bindings: Bindings, fresh: bool
    ) -> None:
        node = step.node
        arguments = [None if i < 0 else slots[i] for i in step.inputs]
        results = self._call(node, emitter, arguments, bindings, step.symbolic)
        for v, slot, result in zip(node.values, step.outputs, results, strict=False):
            slots[slot] = result
            if fresh:
                _bind(v, result, bindings)

    def _call(
        self, node: Node, emitter: Emitter, inputs: list[Any], bindings: Bindings, symbolic: bool
    ) -> list[Any]:
        try:
            made = concrete(node, bindings) if symbolic else node
            call = Call(made, inputs, lambda g, v: self._run(g, v, bindings))
            results = emitter(call)
        except GraphkilnError as e:
            if isinstance(e, TrainingError) and e.node:
                raise
            raise TrainingError(e.reason, at=node) from e
        except (RuntimeError, IndexError, ValueError, TypeError) as e:
            told = str(e).splitlines()[0] if str(e) else type(e).__name__
            raise TrainingError(told, at=node) from e
        return results if isinstance(results, list) else [results]

    def _check(
        self, checks: list[tuple[Node, frozenset[str]]], bindings: Bindings
    ) -> list[tuple[Node, frozenset[str]]]:
        """Run the checks whose symbols have values; returns the others."""
        waiting = []
        for node, symbols in checks:
            if symbols <= bindings.keys():
                self._call(node, _emitter(node), [], bindings, True)
            else:
                waiting.append((node, symbols))
        return waiting

    def _constant(self, node: Node) -> Tensor:
        weight = self._weights.get(node)
        if weight is not None:
            owner, leaf = self._places[weight.name]
            return weight.value(getattr(owner, leaf))
        if node not in self._constants:
            self._constants[node] = to_tensor(array_of(node))
        return self._constants[node]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Module:
        """What moves or converts parameters does so with the other constants."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        graphs = list(self._graph.walk())
        for node in (n for g in graphs for n in g.nx if n.key == "Constant"):
            if node not in self._weights:
                self._constants[node] = fn(self._constant(node))
        return self

    def _plan(self, graph: Graph) -> _BodyPlan:
        if graph not in self._plans:
            self._plans[graph] = _BodyPlan.of(graph)
        return self._plans[graph]


@dataclass(frozen=True)
class _BodyPlan:
    """The steps of one graph, each with its emitter, and whether its results bind symbols."""

    steps: Plan
    calls: list[tuple[Step, Emitter, bool]]

    @classmethod
    def of(cls, graph: Graph) -> _BodyPlan:
        steps = plan_of(graph)
        known = {s for v in graph.inputs for s in _symbols(v)}
        calls = []
        for step in steps.steps:
            symbols = {s for v in step.node.values for s in _symbols(v)}
            calls.append((step, _emitter(step.node), not symbols <= known))
            known |= symbols
        return cls(steps, calls)


def _symbols(value: Value) -> frozenset[str]:
    t = value.node.outputs[value.index].type
    if not isinstance(t, TensorType) or t.shape is None:
        return frozenset()
    return frozenset().union(*(free_symbols(d) for d in t.shape))


def _bind(value: Value, tensor: Any, bindings: Bindings) -> None:
    t = value.node.outputs[value.index].type
    if isinstance(t, TensorType) and t.shape is not None and isinstance(tensor, torch.Tensor):
        bind_shape(t.shape, tuple(tensor.shape), bindings)


def _declared(result: Tensor, value: Value) -> Tensor:
    """A result in its own type: codes of quantizers are held as floats."""
    t = value.node.outputs[value.index].type
    if isinstance(t, TensorType) and t.dtype.is_integer and result.is_floating_point():
        return result.to(torch_dtype(t.dtype))
    return result


def _emitter(node: Node) -> Emitter:
    known = emission(node.key)
    assert known is not None, "all nodes have one: the module's constructor asks"
    return known.emit


def _require_emitters(graph: Graph) -> None:
    """Raise :class:`TrainingError` naming each op that has no emitter, at its first node."""
    missing: dict[str, Node] = {}
    for part in graph.walk():
        for node in part.nodes:
            if emission(node.key) is None:
                missing.setdefault(node.key, node)
    if missing:
        raise TrainingError(
            *(Blocker("does not run in PyTorch", n.name, n.key) for n in missing.values())
        )


def _free(owner: nn.Module, name: str, reuse: bool = False) -> str:
    """The name, with underscores behind it where something else of ``owner`` has it.

    With ``reuse``, a submodule of this name is what is wanted.
    """
    name = name or "_"
    while hasattr(owner, name) and not (reuse and name in owner._modules):
        name += "_"
    return name


def module(graph: Graph, trainable: Choose | None = None) -> Module:
    """A graph as a ``torch.nn.Module`` that trains; see :class:`Module`."""
    return Module(graph, trainable)


__all__ = ["Module", "OnValue", "module"]
