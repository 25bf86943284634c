"""Control flow: bodies run by the module itself, so gradients pass through what they use."""

from __future__ import annotations

from typing import Any

import torch

from ...errors import OperandError
from ...ir.graph import Graph
from ..emit import Call, emits


@emits("If")
def if_(call: Call) -> list[Any]:
    branch = call.attr("then_branch" if bool(call[0]) else "else_branch")
    return call.run(branch, call.inputs[1:])


@emits("Loop")
def loop(call: Call) -> list[Any]:
    """The carried values, then what each iteration gave, stacked; raises for none of those."""
    limit, going = call.get(0), call.get(1)
    count = int(call.attr("num_carried") or 0)
    body: Graph = call.attr("body")
    carried, captured = list(call.inputs[2 : 2 + count]), list(call.inputs[2 + count :])
    rows: list[list[Any]] = []
    while (going is None or bool(going)) and (limit is None or len(rows) < int(limit)):
        counter = torch.tensor(len(rows))
        going, *results = call.run(body, [counter, torch.tensor(True), *carried, *captured])
        carried, row = results[:count], results[count:]
        rows.append(row)
    return [*carried, *_stacked(rows, len(body.outputs) - 1 - count)]


@emits("Scan")
def scan(call: Call) -> list[Any]:
    count, scanned = int(call.attr("num_carried") or 0), int(call.attr("num_scan_inputs"))
    body: Graph = call.attr("body")
    inputs = call.inputs
    carried, captured = list(inputs[:count]), list(inputs[count + scanned :])
    axes = _options(call, "scan_input_axes", scanned)
    backward = _options(call, "scan_input_directions", scanned)
    parts = [
        list(call[count + i].unbind(axis))[:: -1 if back else 1]
        for i, (axis, back) in enumerate(zip(axes, backward, strict=True))
    ]
    rows = []
    for slices in zip(*parts, strict=True):
        results = call.run(body, [*carried, *slices, *captured])
        carried = results[:count]
        rows.append(results[count:])
    made = len(body.outputs) - count
    axes = _options(call, "scan_output_axes", made)
    backward = _options(call, "scan_output_directions", made)
    stacked = zip(_stacked(rows, made), axes, backward, strict=True)
    return [*carried, *((t.flip(0) if back else t).movedim(0, axis) for t, axis, back in stacked)]


def _options(call: Call, name: str, count: int) -> list[int]:
    values = list(call.attr(name) or [])
    return [*values, *[0] * (count - len(values))]


def _stacked(rows: list[list[Any]], count: int) -> list[torch.Tensor]:
    if count and not rows:
        raise OperandError("a loop without iterations has no results to stack")
    return [torch.stack([row[i] for row in rows]) for i in range(count)]
