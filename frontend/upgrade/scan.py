"""Scan of opset 8, which had a batch axis."""

from __future__ import annotations

from collections.abc import Sequence

from ..control import place_batched_scan
from ..emit import Emit
from ..node import OnnxNode
from ..scope import Slot
from . import upgrade


@upgrade("Scan", until=8)
def scan_over_batch(node: OnnxNode, emit: Emit) -> Sequence[Slot]:
    return place_batched_scan(emit.importer, node, emit.scope)
