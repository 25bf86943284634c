"""Smaller models with the same fault: fewer nodes and attributes, simpler inputs, closed dims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from graphkiln.ir.interpreter import evaluate

from .judge import Feeds, Subject
from .net import inner_names, make_model

Check = Callable[[Subject], bool]
"""Whether a subject still shows the fault; it must not raise."""

ATTEMPTS = 150


class Shrinker:
    """Greedy: of the ways to make a model smaller, each that keeps the fault is taken."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.left = ATTEMPTS

    def shrink(self, subject: Subject) -> Subject:
        """The smallest that was found; ``subject`` must have one feed."""
        changed = True
        while changed and self.left > 0:
            changed = False
            for step in (self._nodes, self._attributes, self._dims, self._values):
                smaller = step(subject)
                if smaller is not None:
                    subject, changed = smaller, True
        return subject

    def _first(self, candidates: Iterator[Subject | None]) -> Subject | None:
        for candidate in candidates:
            if candidate is None:
                continue
            if self.left <= 0:
                return None
            self.left -= 1
            if self.check(candidate):
                return candidate
        return None

    def _nodes(self, subject: Subject) -> Subject | None:
        """Without ever smaller runs of nodes."""
        found, count = None, len(subject.model.graph.node)
        size = max(1, count // 2)
        while size >= 1:
            smaller = self._first(
                without_nodes(subject, set(range(at, min(at + size, count))))
                for at in range(0, count, size)
                if count > 1
            )
            if smaller is not None:
                found = subject = smaller
                count = len(subject.model.graph.node)
                size = min(size, max(1, count // 2))
            else:
                size //= 2
        return found

    def _attributes(self, subject: Subject) -> Subject | None:
        return self._first(_without_attributes(subject))

    def _dims(self, subject: Subject) -> Subject | None:
        return self._first(iter([closed(subject)]))

    def _values(self, subject: Subject) -> Subject | None:
        return self._first(_simpler_values(subject))


def recorded(subject: Subject) -> dict[str, np.ndarray]:
    """Every tensor of a run of the reference, by name, constants too."""
    found: dict[str, Any] = {}

    def keep(value: Any, array: Any) -> None:
        found[value.name] = array

    try:
        evaluate(subject.graph.copy(), subject.feeds[0], on_value=keep)
    except Exception:  # what was computed before it failed
        pass
    arrays = {n: a for n, a in found.items() if isinstance(a, np.ndarray)}
    return arrays | constants_of(subject.model) | dict(subject.feeds[0])


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def without_nodes(subject: Subject, dropped: set[int]) -> Subject | None:
    """The model without some nodes: what they gave becomes inputs with the recorded values."""
    nodes = [n for i, n in enumerate(subject.model.graph.node) if i not in dropped]
    return assembled(subject, nodes) if nodes else None


def assembled(
    subject: Subject, nodes: list[onnx.NodeProto], feeds: Feeds | None = None
) -> Subject | None:
    """A model of these nodes; outputs are what none of them uses, and outputs of the old one."""
    known = recorded(subject)
    dims = {i.name: _dims_of(i) for i in subject.model.graph.input}
    made = {o for n in nodes for o in n.output if o}
    used = {i for n in nodes for i in n.input if i} | inner_names(nodes)
    old = {o.name: o for o in subject.model.graph.output}
    inner_made = _made_inside(nodes)
    constants = {n: known[n] for n in used & constants_of(subject.model).keys()}
    wanted = used - made - constants.keys() - inner_made
    if any(n not in known for n in wanted):
        return None
    inputs = [(n, known[n].dtype, dims.get(n, known[n].shape)) for n in sorted(wanted)]
    ends = [o for n in nodes for o in n.output if o and (o not in used or o in old)]
    if not ends or any(o not in known for o in ends):
        return None
    outputs = [(o, known[o].dtype, known[o].ndim) for o in ends]
    given = {n: (feeds or {}).get(n, known[n]) for n in wanted}
    opset = next(o.version for o in subject.model.opset_import if not o.domain)
    model = make_model(nodes, inputs, outputs, constants, opset)
    return attempt(model, given, subject.pipelines)


def attempt(model: onnx.ModelProto, feeds: Feeds, pipelines: Any) -> Subject:
    names = {i.name for i in model.graph.input}
    return Subject(model, [{n: a for n, a in feeds.items() if n in names}], pipelines)


def _made_inside(nodes: list[onnx.NodeProto]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                found |= {o for n in a.g.node for o in n.output} | _made_inside(list(a.g.node))
                found |= {i.name for i in a.g.input} | {t.name for t in a.g.initializer}
    return found


def _dims_of(info: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(
        d.dim_param if d.HasField("dim_param") else d.dim_value
        for d in info.type.tensor_type.shape.dim
    )


def _without_attributes(subject: Subject) -> Iterator[Subject | None]:
    """Attributes at their defaults."""
    for i, node in enumerate(subject.model.graph.node):
        for k in range(len(node.attribute)):
            model = onnx.ModelProto()
            model.CopyFrom(subject.model)
            del model.graph.node[i].attribute[k]
            try:
                onnx.checker.check_model(model)
            except Exception:
                continue
            yield attempt(model, subject.feeds[0], subject.pipelines)


def closed(subject: Subject) -> Subject | None:
    """Open dims at the sizes that they have in the feed."""
    model = onnx.ModelProto()
    model.CopyFrom(subject.model)
    changed = False
    for info in model.graph.input:
        for d, size in zip(
            info.type.tensor_type.shape.dim, subject.feeds[0][info.name].shape, strict=True
        ):
            if d.HasField("dim_param"):
                changed = True
                d.Clear()
                d.dim_value = size
    return attempt(model, subject.feeds[0], subject.pipelines) if changed else None


def _simpler_values(subject: Subject) -> Iterator[Subject | None]:
    """Feeds of zeros, ones or whole numbers in place of any."""
    feeds: Mapping[str, np.ndarray] = subject.feeds[0]
    for name, array in feeds.items():
        if array.dtype == object or array.dtype.kind == "b":
            continue
        wide = array.astype(np.float64)
        for simple in (np.zeros_like(wide), np.ones_like(wide), np.round(wide)):
            with np.errstate(all="ignore"):
                changed = simple.astype(array.dtype)
            if (changed != array).any():
                yield attempt(subject.model, {**feeds, name: changed}, subject.pipelines)


__all__ = ["Shrinker", "assembled", "closed", "without_nodes"]
