"""NonMaxSuppression as two ops of the dialect: the boxes that are kept, and their rows.

How many boxes are kept is only known when all have been compared. So one op finds those of each
class, in a tensor that has room for all, and another one counts and lists them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Value
from .emit import Emit
from .node import OnnxNode

_ALL = 2**62
"""More boxes of a class than there can be."""


def non_max_suppression(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """NonMaxSuppression-11: a limit that is known bounds the room for a class."""
    limit = node.input(2)
    known = emit.known(limit)
    most = 0 if limit is None else _ALL
    if known is not None:
        most = max(0, int(known.reshape(-1)[0])) if known.size else 0
    inputs = [node.required(0), node.required(1), *(node.input(i) for i in range(2, 5))]
    centered = node.attrs.get("center_point_box", 0)
    kept = emit("kiln.KeptBoxes", *inputs, center_point_box=centered, most=most)
    return [emit("kiln.BoxRows", kept)]
