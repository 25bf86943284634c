"""Gradient (ai.onnx.preview.training): reverse-mode differentiation at import.

The nodes between ``xs`` and ``y`` are visited backwards: from the derivative of ``y`` by a node's
result follow those by its inputs. If the Gradient node's inputs are other values than those named
by ``xs`` and ``zs``, the nodes between are first repeated for these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.types import dtype, to_numpy_dtype
from .derivatives import DERIVATIVES, Local, unbroadcast
from .emit import Emit
from .errors import ImportFault
from .node import OnnxNode


def gradient(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``dy/dx`` for every x of ``xs``, at the values of the node's inputs."""
    xs, zs = (_named(node.attrs.get(k, ()), emit) for k in ("xs", "zs"))
    (y,) = _named((node.attrs["y"],), emit)
    given = [node.required(i) for i in range(len(node.inputs))]
    if len(given) != len(xs) + len(zs):
        raise ImportFault(f"has {len(given)} inputs for {len(xs)} xs and {len(zs)} zs")
    path = _path(emit.scope.builder.graph, y, {*xs, *zs})
    at = dict(zip([*xs, *zs], given, strict=True))
    if any(own is not value for own, value in at.items()):
        at = _repeated(path, at, emit)
    return _Backward(emit, at).run(path, y, xs)


def _named(names: Any, emit: Emit) -> list[Value]:
    found = [emit.scope.lookup(name) for name in names]
    values = [v for v in found if isinstance(v, Value)]
    if len(values) != len(found):
        raise ImportFault("names a value that cannot be imported")
    return values


@dataclass(frozen=True)
class _Step:
    """A node of the differentiated graph, with its inputs."""

    node: Node
    inputs: list[Value | None]


def _path(graph: Graph, y: Value, stops: set[Value]) -> list[_Step]:
    """The nodes on the way from ``stops`` to ``y``, in topological order."""
    steps: dict[Node, _Step] = {}
    open_ends: list[tuple[Value, bool]] = [(y, False)]
    done: set[Node] = set()
    depends: dict[Node, bool] = {}
    while open_ends:
        value, visited = open_ends.pop()
        node = value.node
        if value in stops or node not in graph or (node in done and not visited):
            continue
        inputs = graph.inputs_of(node)
        if not visited:
            done.add(node)
            open_ends.append((value, True))
            open_ends += [(v, False) for v in inputs if v is not None]
        elif any(v in stops or depends.get(v.node, False) for v in inputs if v is not None):
            depends[node] = True
            steps[node] = _Step(node, inputs)
    return list(steps.values())


def _repeated(path: list[_Step], at: dict[Value, Value], emit: Emit) -> dict[Value, Value]:
    """The values that take the place of those on the path if its inputs are other values."""
    out = dict(at)
    for step in path:
        inputs = [None if v is None else out.get(v, v) for v in step.inputs]
        results = emit.many(step.node.key, inputs, dict(step.node.attrs), len(step.node.outputs))
        out.update(zip(step.node.values, results, strict=True))
    return out


class _Backward:
    """Builds derivatives; ``at`` maps values of the original nodes to those used in their place."""

    def __init__(self, emit: Emit, at: Mapping[Value, Value]) -> None:
        self.emit = emit
        self.at = at
        self.totals: dict[Value, Value] = {}

    def run(self, path: list[_Step], y: Value, xs: list[Value]) -> list[Value]:
        wanted = set(xs)
        for step in path:
            if any(v in wanted for v in step.inputs if v is not None):
                # Integers, such as shapes, have no derivative.
                wanted.update(v for v in step.node.values if dtype(v.dtype).is_float)
        self.totals[y] = self._filled(y, 1)
        for step in reversed(path):
            total = self.totals.get(step.node.values[0])
            if total is not None and any(v in wanted for v in step.inputs if v is not None):
                self._pass_on(step, total, wanted)
        return [self.totals[x] if x in self.totals else self._filled(x, 0) for x in xs]

    def _pass_on(self, step: _Step, total: Value, wanted: set[Value]) -> None:
        rule = DERIVATIVES.get(step.node.key)
        if rule is None or len(step.node.outputs) != 1:
            raise ImportFault(f"cannot differentiate {step.node.key} (node {step.node.name!r})")
        inputs = [None if v is None else self.at.get(v, v) for v in step.inputs]
        out = step.node.out()
        parts = rule(Local(step.node, inputs, self.at.get(out, out), total, self.emit))
        for own, value, part in zip(step.inputs, inputs, parts, strict=False):
            if own is None or value is None or own not in wanted:
                continue
            if part is None:
                raise ImportFault(f"cannot differentiate {step.node.key} by one of its inputs")
            made = unbroadcast(part().value, value, self.emit)
            have = self.totals.get(own)
            self.totals[own] = made if have is None else self.emit("Add", have, made)

    def _filled(self, like: Value, number: float) -> Value:
        like = self.at.get(like, like)
        entry = np.array([number], to_numpy_dtype(like.dtype))
        return self.emit("ConstantOfShape", self.emit("Shape", like), value=entry)
