"""Recurrent layers with packed gates (see :mod:`..packing`); the layout pass creates them.

Input 0 is the product of X with the weights, ``X * W^T`` with the biases that can be added
beforehand, for all steps. Its columns are ordered ``[direction, block, gate, element]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..axes.recurrent import packed_recurrent
from ..dims import Dim
from ..graph import Attr, Node, Output, Value
from ..interpreter import run_node
from ..packing import unpack_gates, unpack_recurrent_weight
from ..registry import Flops, InferContext, attribute, op
from ..traits import Trait
from ..types import Type
from .flops import needed
from .rnn import DIRECTIONS, infer_layer

FIRST_STATE = 4
"""The input that is the initial h; the one before it is the lengths."""

GATES = {"RNNPacked": 1, "GRUPacked": 3, "LSTMPacked": 4}
STATES = {"RNNPacked": 1, "GRUPacked": 1, "LSTMPacked": 2}

_LAYER = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "layout",
          "linear_before_reset", "input_forget")  # fmt: skip


def plain_attributes(node: Node) -> dict[str, Any]:
    """The attributes of the layer as ONNX has it."""
    given = {k: v for k in _LAYER if (v := node.attrs.get(k)) is not None}
    return {**given, "hidden_size": int(attribute(node, "hidden_size"))}


def plain_columns(node: Node, blocks: int, tile: int) -> np.ndarray:
    """The columns of input 0 in ONNX's order of gates: ``[directions, gates * hidden]``."""
    count, gates = DIRECTIONS[attribute(node, "direction")], GATES[node.op]
    columns = np.arange(count * blocks * gates * tile).reshape(count, blocks, gates, tile)
    return unpack_gates(columns, int(attribute(node, "hidden_size")))


def plain_parameters(node: Node, r: np.ndarray, bias: np.ndarray | None) -> list[Any]:
    """W, R and B of the ONNX layer whose X is input 0 in the order of :func:`plain_columns`.

    W only picks each direction's columns.
    """
    gates = GATES[node.op]
    recurrent = unpack_recurrent_weight(r, gates)
    count, width, hidden = recurrent.shape
    w = np.eye(count * width, dtype=r.dtype).reshape(count, width, count * width)
    if bias is None:
        return [w, recurrent, None]
    b = np.zeros((count, 2 * width), r.dtype)
    b[:, 2 * width - hidden :] = bias[:, :hidden]
    return [w, recurrent, b]


def _evaluate(node: Node, inputs: list[Any]) -> list[Any]:
    gates, r, *others = inputs
    bias = others[0] if others else None
    _, blocks, _, width = r.shape
    columns = plain_columns(node, blocks, width // GATES[node.op]).reshape(-1)
    plain = Node(
        node.op.removesuffix("Packed"), "", node.name, plain_attributes(node),
        [Output(o.name, None) for o in node.outputs], 0,
    )  # fmt: skip
    operands = [gates[..., columns], *plain_parameters(node, r, bias), *others[1:]]
    while operands[-1] is None:
        operands.pop()
    return run_node(plain, operands)


_DEFAULTS: dict[str, Attr] = {"direction": "forward", "layout": 0}
_DOC = (
    "{} whose inputs' share of the gates is input 0, with R packed as [D, blocks, hidden, "
    "gates*tile]{}; then sequence_lens and initial states."
)


def _infer(c: InferContext) -> list[Type]:
    gates, r = c.tensor(0), c.tensor(1)
    _, blocks, hidden, width = r.dims
    count = DIRECTIONS.get(c.attr("direction"), 0)
    if hidden != c.attr("hidden_size") or gates.dims[-1] != count * blocks * width:
        raise c.error(f"{gates} does not fit weights {r}")
    return infer_layer(c, hidden, STATES[c.node.op], gates=None, first_state=FIRST_STATE)


def _flops(gates: int) -> Flops:
    """Operations without those of ``X * W^T``, which another kernel computes."""

    def rule(node: Node, inputs: Sequence[Value | None]) -> Dim:
        x, hidden = needed(inputs, 0), int(attribute(node, "hidden_size"))
        weights = DIRECTIONS[attribute(node, "direction")] * gates * hidden * hidden
        return 2 * x.shape[0] * x.shape[1] * weights

    return rule


_TRAITS = (Trait.CONTRACTION,)


@op(
    "RNNPacked", domain="kiln", arity=(2, 5), evaluate=_evaluate, defaults=_DEFAULTS,
    traits=_TRAITS, flops=_flops(1), doc=_DOC.format("RNN", ""),
    axes=packed_recurrent,
)  # fmt: skip
def _infer_rnn(c: InferContext) -> list[Type]:
    return _infer(c)


@op(
    "GRUPacked", domain="kiln", arity=(2, 5), evaluate=_evaluate,
    defaults={**_DEFAULTS, "linear_before_reset": 0}, traits=_TRAITS, flops=_flops(3),
    doc=_DOC.format("GRU", ", and the recurrent bias [D, blocks*tile] of linear_before_reset"),
    axes=packed_recurrent,
)  # fmt: skip
def _infer_gru(c: InferContext) -> list[Type]:
    return _infer(c)


@op(
    "LSTMPacked", domain="kiln", arity=(2, 6), evaluate=_evaluate,
    defaults={**_DEFAULTS, "input_forget": 0}, traits=_TRAITS, flops=_flops(4),
    doc=_DOC.format("LSTM without peepholes", ""),
    axes=packed_recurrent,
)  # fmt: skip
def _infer_lstm(c: InferContext) -> list[Type]:
    return _infer(c)
