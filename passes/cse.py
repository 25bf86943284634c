"""Common subexpression elimination: equal operations on equal inputs are computed once.

Operations are equal if their op, attributes (with defaults for missing ones) and inputs are; the
inputs of commutative ops may be in any order. Constants are equal if element type, shape and every
bit are. One pass in topological order finds all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.literals import constant_hash
from ..ir.registry import OpSpec, spec
from ..ir.traits import Trait
from .base import Pass, PassContext, register_pass
from .claims import exact

_SAMPLES = 16

_MERGED = "what is computed stays as it is"


@register_pass
@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Merges equal operations and equal constants."""

    name = "cse"
    claims = {
        "constants": exact("equal constants = one", _MERGED),
        "nodes": exact("f(x), f(x) = one f(x)", _MERGED),
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        editor = context.editor(graph)
        counts: Counter[str] = Counter()
        counts["constants"] = _merge_constants(graph, editor)
        seen: dict[Hashable, Node] = {}
        for node in graph.topological():
            key = _key(graph, node)
            first = node if key is None else seen.setdefault(key, node)
            if first is not node:
                _merge(editor, node, first)
                counts["nodes"] += 1
        editor.finish()
        return counts


def _merge(editor: Editor, node: Node, first: Node) -> None:
    editor.begin("nodes", node)
    for old, new in zip(node.values, first.values, strict=True):
        if node in editor.graph:
            editor.replace(old, new)


# ---- constants -----------------------------------------------------------------------------------


def _merge_constants(graph: Graph, editor: Editor) -> int:
    groups: dict[Hashable, list[Node]] = {}
    for node in graph.nx:
        array = node.out().constant if node.key == "Constant" else None
        if array is not None and array.dtype != np.dtype(object):
            groups.setdefault(_sample(array), []).append(node)
    merged = 0
    for nodes in groups.values():
        # All of a weight is read only if another one has the same sample.
        seen: dict[str, Node] = {}
        for node in nodes if len(nodes) > 1 else ():
            first = seen.setdefault(constant_hash(node.attrs["value"]), node)  # type: ignore[arg-type]
            if first is not node:
                editor.begin("constants", node)
                editor.replace(node.out(), first.out())
                merged += 1
    return merged


def _sample(array: np.ndarray) -> Hashable:
    """A key that is equal for equal arrays, and cheap to compute."""
    few = array.reshape(-1)[:_SAMPLES] if array.flags.c_contiguous else array.flat[:_SAMPLES]
    return array.dtype.str, str(array.dtype), array.shape, np.asarray(few).tobytes()


# ---- operations ----------------------------------------------------------------------------------


def _key(graph: Graph, node: Node) -> Hashable | None:
    """A key that is equal for nodes that compute the same; None for nodes that are never merged."""
    found = spec(node.key)
    if found is None or Trait.STOCHASTIC in found.traits or graph.bodies(node) or not node.outputs:
        return None
    inputs: list[Value | None] = graph.inputs_of(node)
    if Trait.COMMUTATIVE in found.traits:
        inputs = sorted(inputs, key=_order)
    return node.key, node.device, len(node.outputs), _attributes(node, found), tuple(inputs)


def _order(value: Value | None) -> tuple[int, int]:
    return (-1, 0) if value is None else (value.node.serial, value.index)


def _attributes(node: Node, found: OpSpec) -> Hashable:
    """The attributes as a hashable value, without those that have their default."""
    items = []
    for name, value in sorted(node.attrs.items()):
        frozen = _freeze(value)
        if frozen != _freeze(found.defaults.get(name)):
            items.append((name, frozen))
    return tuple(items)


def _freeze(value: Any) -> Hashable:
    """A hashable value that is equal for equal attribute values only."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.dtype(object):
            return "array", value.shape, repr(value.tolist())
        return "array", str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, tuple | list):
        return tuple(_freeze(v) for v in value)
    if isinstance(value, float | np.floating):
        # NaN equals itself here, and 0.0 is not -0.0.
        return "float", repr(float(value))
    if isinstance(value, bool | int | np.integer):
        return "int", int(value)
    return type(value).__name__, value
