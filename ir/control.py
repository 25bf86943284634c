"""Evaluation of ops that hold graphs: If, Loop, Scan, SequenceMap and fused regions.

Bodies are closed, so what they use from outside comes as explicit inputs at the end:

    If(cond, *captured)                       both branches take *captured
    Loop(M, cond, *carried, *captured)        body (i, cond, *carried, *captured)
                                                -> (cond, *carried, *scan_outputs)
    Scan(*carried, *scanned, *captured)       body (*carried, *slices, *captured)
                                                -> (*carried, *scan_outputs)
    SequenceMap(seq, *others, *captured)      body (item, *other items, *captured) -> items
    kiln.Region(*inputs)                      body (*inputs)

``num_carried`` (Loop, Scan), ``num_scan_inputs`` (Scan) and ``num_captured`` (SequenceMap) say
where one part ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import OperandError
from .bindings import known_extent
from .graph import Graph, Node
from .registry import attribute
from .types import TensorType, Type, to_numpy_dtype

RunBody: TypeAlias = "Callable[[Graph, list[Any]], list[Any]]"
Control: TypeAlias = "Callable[[Node, list[Any], RunBody, Mapping[str, int]], list[Any]]"


def _region(node: Node, inputs: list[Any], run: RunBody, _bindings: Mapping[str, int]) -> list[Any]:
    return run(_body(node, "body"), inputs)


def _if(node: Node, inputs: list[Any], run: RunBody, _bindings: Mapping[str, int]) -> list[Any]:
    branch = "then_branch" if _truth(inputs[0]) else "else_branch"
    return run(_body(node, branch), inputs[1:])


def _loop(node: Node, inputs: list[Any], run: RunBody, bindings: Mapping[str, int]) -> list[Any]:
    trips, condition, *rest = [*inputs, None, None] if len(inputs) < 2 else inputs
    carried_count = int(attribute(node, "num_carried") or 0)
    body = _body(node, "body")
    carried, captured = rest[:carried_count], rest[carried_count:]
    limit = None if trips is None else int(np.asarray(trips).reshape(()))
    going = condition is None or _truth(condition)
    rows: list[list[Any]] = []
    i = 0
    while going and (limit is None or i < limit):
        results = run(body, [np.array(i, np.int64), np.array(True), *carried, *captured])
        going = _truth(results[0])
        carried = results[1 : 1 + carried_count]
        rows.append(results[1 + carried_count :])
        i += 1
    types = _result_types(body, 1 + carried_count)
    return [*carried, *_stacked(rows, types, [0] * len(types), bindings)]


def _scan(node: Node, inputs: list[Any], run: RunBody, bindings: Mapping[str, int]) -> list[Any]:
    carried_count = int(attribute(node, "num_carried") or 0)
    scanned_count = int(attribute(node, "num_scan_inputs"))
    body = _body(node, "body")
    carried = inputs[:carried_count]
    scanned = inputs[carried_count : carried_count + scanned_count]
    captured = inputs[carried_count + scanned_count :]
    axes = _options(node, "scan_input_axes", scanned_count)
    backward = _options(node, "scan_input_directions", scanned_count)
    slices = [
        np.flip(np.moveaxis(x, a, 0), 0) if back else np.moveaxis(x, a, 0)
        for x, a, back in zip(scanned, axes, backward, strict=True)
    ]
    rows = []
    for step in range(len(slices[0])):
        results = run(body, [*carried, *(s[step] for s in slices), *captured])
        carried = results[:carried_count]
        rows.append(results[carried_count:])
    types = _result_types(body, carried_count)
    axes = _options(node, "scan_output_axes", len(types))
    backward = _options(node, "scan_output_directions", len(types))
    stacked = zip(_stacked(rows, types, axes, bindings), axes, backward, strict=True)
    return [*carried, *(np.flip(x, a) if back else x for x, a, back in stacked)]


def _sequence_map(
    node: Node, inputs: list[Any], run: RunBody, _bindings: Mapping[str, int]
) -> list[Any]:
    first = len(inputs) - int(attribute(node, "num_captured") or 0)
    mapped, captured = inputs[:first], inputs[first:]
    body = _body(node, "body")
    rows = [
        run(body, [*(v[i] if isinstance(v, list) else v for v in mapped), *captured])
        for i in range(len(mapped[0]))
    ]
    return [[row[k] for row in rows] for k in range(len(body.outputs))]


CONTROL: dict[str, Control] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _sequence_map,
    "kiln.Region": _region,
}
"""The evaluation of each op, by its key; it gets a function that runs a body."""


def _body(node: Node, name: str) -> Graph:
    body = node.attrs.get(name)
    if not isinstance(body, Graph):
        raise OperandError(f"attribute {name!r} is not a graph")
    return body


def _result_types(body: Graph, first: int) -> list[Type | None]:
    return [v.node.outputs[v.index].type for v in body.outputs[first:]]


def _truth(value: Any) -> bool:
    return bool(np.asarray(value).reshape(()))


def _options(node: Node, name: str, count: int) -> list[int]:
    values = list(attribute(node, name) or [])
    return [*values, *[0] * (count - len(values))]


def _stacked(
    rows: list[list[Any]],
    types: Sequence[Type | None],
    axes: Sequence[int],
    bindings: Mapping[str, int],
) -> list[Any]:
    """One array for each scan output; without rows, an empty one of the body's type."""
    if not rows:
        return [_no_rows(t, a, bindings) for t, a in zip(types, axes, strict=True)]
    return [np.stack([row[k] for row in rows], axis=a) for k, a in enumerate(axes)]


def _no_rows(t: Type | None, axis: int, bindings: Mapping[str, int]) -> np.ndarray:
    if not isinstance(t, TensorType) or t.shape is None:
        raise OperandError(f"a scan output of no steps needs a known type, not {t}")
    # A size that only the body determines is unknown if the body never ran.
    shape = [known_extent(d, bindings) or 0 for d in t.shape]
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 0)
    return np.zeros(shape, to_numpy_dtype(t.dtype))
