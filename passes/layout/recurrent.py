"""Recurrent layers: one product for the inputs of all steps, then the steps with packed weights.

``W x + R h``: the first part depends on no earlier step, so it is one large matrix product over the
whole sequence. Only the product with the hidden state is left for each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.graph import Node, Value
from ...ir.ops.rnn_packed import GATES, plain_attributes
from ...ir.packing import pack_gates, pack_recurrent_weight
from ...ir.registry import attribute
from .planner import Planner
from .product import pack_weights
from .weights import Weights


def recurrent(p: Planner, node: Node) -> None:
    """``RNN``, ``GRU`` and ``LSTM`` of float32 with constant weights and without peepholes."""
    x, w, r, bias, *states = [*p.graph.inputs_of(node), *[None] * 5][:7]
    peepholes = p.graph.inputs_of(node)[7:8]
    if x is None or x.dtype != "float32":
        return p.keep(node, "packed kernels take float32")
    if peepholes not in ([], [None]):
        return p.keep(node, "it has peepholes")
    weight, back, row = (None if v is None else v.constant for v in (w, r, bias))
    if weight is None or back is None or (bias is not None and row is None):
        return p.keep(node, "its weights or its bias are not constant")
    if x.shape[-1] != weight.shape[-1]:
        return p.keep(node, "the size of its inputs is open")
    _convert(p, node, x, weight, back, row, states)


def _convert(
    p: Planner, node: Node, x: Value, w: np.ndarray, r: np.ndarray, bias: np.ndarray | None,
    states: Sequence[Value | None],
) -> None:  # fmt: skip
    op = f"{node.op}Packed"
    gates, hidden = GATES[op], r.shape[-1]
    batch = x.shape[0 if attribute(node, "layout") else 1]
    tile = p.layouts.recurrent_tile(gates, hidden, batch if isinstance(batch, int) else 1)
    linear = node.op == "GRU" and bool(attribute(node, "linear_before_reset"))
    row = _known_bias(bias, linear, hidden)
    projected = _projection(p, node, x, pack_gates(w, gates, tile), row, tile)
    packed = p.constant((node, "recurrent"), pack_recurrent_weight(r, gates, tile), "recurrent")
    late = None
    if linear and bias is not None:
        behind = pack_gates(bias[:, -hidden:], 1, tile)
        late = p.constant((node, "late"), behind.reshape(len(behind), -1), "recurrent_bias")
    attrs = {**plain_attributes(node), "hidden_size": hidden}
    twin = p.editor.node(
        op, [projected, packed, late, *states], attrs, domain="kiln", name=node.name,
        outputs=[o.name for o in node.outputs],
    )  # fmt: skip
    for old, new in zip(node.values, twin.values, strict=True):
        p.editor.replace_uses(old, new)
    p.converted[node] = twin
    p.counts["recurrent"] += 1


def _known_bias(bias: np.ndarray | None, linear: bool, hidden: int) -> np.ndarray | None:
    """The biases [D, gates*H] that can be added to the inputs' product, before all steps.

    That is all but the one that GRU with ``linear_before_reset`` multiplies by its reset gate.
    """
    if bias is None:
        return None
    first, second = np.split(bias, 2, axis=1)
    if not linear:
        return first + second
    return np.concatenate([(first + second)[:, : 2 * hidden], first[:, 2 * hidden :]], axis=1)


def _projection(
    p: Planner, node: Node, x: Value, w: np.ndarray, bias: np.ndarray | None, tile: int
) -> Value:
    """``x`` times ``w`` [D, B, gates, tile, inputs], plus a bias [D, gates*H]."""
    columns = w.size // w.shape[-1]
    matrix = np.ascontiguousarray(w.reshape(columns, w.shape[-1]).T)
    weights = Weights(matrix, np.ones((), np.float32), f"{node.name}_gates", (node, "gates"))
    start = []
    if bias is not None:
        row = pack_gates(bias, w.shape[2], tile).reshape(columns)
        start.append(p.constant((node, "bias"), row, f"{node.name}_bias"))
    operands = pack_weights(p, x, weights).operands(p, f"{weights.name}_packed", start)
    return p.add("MatMulPacked", [x, *operands], {"columns": columns}, like=node)
