"""A Pad in front of a window op becomes pads of that op.

Conv pads with zeros, as does AveragePool with ``count_include_pad``; MaxPool pads with minus
infinity. In front of a MaxPool, a Pad with any number up to zero will do if the input has no
negative elements and every window covers one of them.
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Node, Value
from ...ir.registry import attribute
from ..claims import SUMS, rounds
from ..float_signs import not_below_zero
from ..pattern import Match, Op, Rule, Var
from ..queries import splat

_Pads = tuple[tuple[int, ...], tuple[int, ...]]


def _amounts(m: Match) -> _Pads | None:
    """Constant pads before and after each axis of the input."""
    inputs = [*m.graph.inputs_of(m.node("pad")), None, None, None]
    pads = None if inputs[1] is None else inputs[1].constant
    if pads is None:
        return None
    rank = m["x"].rank
    axes: list[int] = list(range(rank))
    if inputs[3] is not None:
        if inputs[3].constant is None:
            return None
        axes = [int(a) % rank for a in inputs[3].constant]
    begin, end = [0] * rank, [0] * rank
    for k, a in enumerate(axes):
        begin[a], end[a] = int(pads[k]), int(pads[k + len(axes)])
    return tuple(begin), tuple(end)


def _fill(m: Match) -> float | None:
    value = m.graph.input(m.node("pad"), 2)
    number = 0 if value is None else splat(value)
    return None if number is None else float(number)


def _own_pads(node: Node) -> tuple[int, ...] | None:
    mode = attribute(node, "auto_pad")
    if mode not in (None, "NOTSET", "VALID"):
        return None
    return tuple(attribute(node, "pads") or ()) if mode != "VALID" else ()


def _applies(m: Match) -> str | None:
    amounts, fill = _amounts(m), _fill(m)
    if m.attr("pad", "mode") != "constant" or amounts is None or fill is None:
        return "the padding is not constant"
    begin, end = amounts
    if min(*begin, *end) < 0 or any((*begin[:2], *end[:2])):
        return "it pads batch or channels, or crops"
    own = _own_pads(m.root)
    if own is None:
        return "it has automatic padding"
    if m.root.op == "Conv":
        return None if fill == 0 else f"it pads with {fill}"
    if attribute(m.root, "ceil_mode") or len(m.root.outputs) > 1:
        return "it rounds up, or returns indices"
    if m.root.op == "AveragePool":
        counted = attribute(m.root, "count_include_pad") or not any(own)
        return None if fill == 0 and counted else "padding would be counted differently"
    before = own or (0,) * (2 * len(begin) - 4)
    total = [a + b for a, b in zip(before, (*begin[2:], *end[2:]), strict=True)]
    return _max_objection(m, fill, total)


def _max_objection(m: Match, fill: float, pads: list[int]) -> str | None:
    kernel = tuple(attribute(m.root, "kernel_shape"))
    sparse = any(d != 1 for d in attribute(m.root, "dilations") or ())
    if sparse or any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        return "a window may lie in the padding"
    x = m["x"]
    if fill == -np.inf:
        return None
    if fill <= 0 and not_below_zero(m.graph, x):
        return None
    return f"it pads with {fill}"


def _fold(m: Match, r: Editor) -> Value:
    amounts = _amounts(m)
    assert amounts is not None
    spatial = len(amounts[0]) - 2
    own = _own_pads(m.root) or (0,) * (2 * spatial)
    added = (*amounts[0][2:], *amounts[1][2:])
    attrs = {k: v for k, v in m.root.attrs.items() if k != "auto_pad"}
    attrs["pads"] = tuple(a + b for a, b in zip(own, added, strict=True))
    if m.root.op == "AveragePool":
        attrs["count_include_pad"] = 1
    inputs = [m["x"], *m.graph.inputs_of(m.root)[1:]]
    return r.node(m.root.op, inputs, attrs).out()


RULES = (
    Rule(
        "pad",
        Op(
            "Conv|AveragePool|MaxPool",
            Op("Pad", Var("x"), name="pad", rest=True, shared=True),
            rest=True,
        ),
        _fold,
        _applies,
        claim=rounds("window(pad(x)) = window(x) with larger pads", SUMS),
    ),
)
