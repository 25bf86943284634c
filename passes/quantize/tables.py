"""Tables whose rows are looked up, such as embeddings of words, in few bits.

    Gather(T, i)   becomes   DequantizeLinear(Gather(Q, i), Gather(s, i))       T ~ s (Q - z)

Only the rows that are asked for are read and turned into floats. Tables are a good part of language
models and of recommenders: in 8 bits with a scale for each row, or in fewer with one for each block
of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute
from ..base import PassContext
from .few_bits import FewBits
from .numbers import decibels, quantized, restored, weight_parameters
from .operands import looked_up
from .places import Objection

_SHORTEST = 16
"""The shortest rows that are worth a scale."""


@dataclass(frozen=True)
class Rows:
    """Quantized rows: ``data`` int8 ``[V, D]``, or uint8 with fields of ``bits``, low ones first.

    ``scales`` are float32 ``[V, blocks]``, ``block`` the elements that share one. The zero point is
    0 for int8, and the middle of the codes for others. ``ratio`` is that of signal to noise.
    """

    data: np.ndarray
    scales: np.ndarray
    block: int
    bits: int
    ratio: float | None


Encode: TypeAlias = "Callable[[np.ndarray], Rows | str]"
"""The quantized form of a float32 table ``[V, D]``, or why it has none."""


def bytes_by_row(table: np.ndarray) -> Rows | str:
    """Symmetric int8 numbers with a scale for each row."""
    if table.shape[1] < _SHORTEST:
        return f"its rows have fewer than {_SHORTEST} numbers"
    p = weight_parameters(table, 0)
    integers = quantized(table, p)
    return Rows(integers, p.scale[:, None], table.shape[1], 8, _noise(table, restored(integers, p)))


def bits_by_block(
    table: np.ndarray, encode: Callable[[np.ndarray], FewBits], block: int
) -> Rows | str:
    """Codes of few bits with a scale for each block of a row; ``encode`` takes ``[D, V]``."""
    if table.shape[1] % block:
        return f"its rows of {table.shape[1]} numbers are no whole blocks of {block}"
    found = encode(table.T)
    data, scales, _ = found.operands()
    return Rows(
        data.reshape(len(table), -1), scales, block, found.form.bits,
        _noise(table, found.values().T),
    )  # fmt: skip


def _noise(table: np.ndarray, rounded: np.ndarray) -> float | None:
    power = float(np.mean(table**2, dtype=np.float64))
    return decibels(power, float(np.mean((rounded - table) ** 2, dtype=np.float64)))


@dataclass
class Tables:
    """The lookups of a graph whose tables are quantized by ``encode``, and the others with the
    reasons.
    """

    encode: Encode
    rows: dict[Node, Rows] = field(default_factory=dict)
    left: dict[Node, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, encode: Encode, objection: Objection) -> Tables:
        """All lookups of constant float32 tables to which there is no objection."""
        tables = cls(encode)
        encoded: dict[Value, Rows | str] = {}
        for node in graph.topological():
            table = looked_up(graph, node)
            if table is None:
                continue
            reason = _unfit(graph, node, table) or objection(node)
            if reason is None and table not in encoded:
                assert table.constant is not None
                encoded[table] = encode(table.constant)
            found = encoded[table] if reason is None else reason
            if isinstance(found, str):
                tables.left[node] = found
            else:
                tables.rows[node] = found
        return tables

    @property
    def noise(self) -> dict[str, float | None]:
        """The ratio of signal to noise of each table, in decibels by the lookup's name."""
        return {node.name: found.ratio for node, found in self.rows.items()}

    def replace(self, editor: Editor, rule: str) -> None:
        """Put the quantized forms in the place of the lookups."""
        constants: dict[int, Value] = {}
        for node, found in self.rows.items():
            editor.begin(rule, node, hint=node.out().name)

            def shared(array: np.ndarray) -> Value:
                if id(array) not in constants:
                    constants[id(array)] = editor.constant(array)
                return constants[id(array)]

            editor.replace(node.out(), _looked_up(editor, node, found, shared))

    def tell(self, context: PassContext) -> None:
        """Add rows to the table of layers."""
        for node in sorted([*self.rows, *self.left], key=lambda n: n.serial):
            found = self.rows.get(node)
            context.tell(
                "layers", layer=node.name, op=node.key, onnx=list(node.origins.names),
                scheme="float" if found is None else f"int{found.bits} weights",
                reason=self.left.get(node, ""), decibels=None if found is None else found.ratio,
            )  # fmt: skip


def _unfit(graph: Graph, node: Node, table: Value) -> str | None:
    """Why a lookup stays as it is, or None."""
    weights, places = table.constant, graph.required_inputs(node)[1:]
    assert weights is not None
    if node.key != "Gather" or attribute(node, "axis") % max(weights.ndim, 1):
        return "it does not look up rows"
    if weights.dtype != np.float32 or weights.ndim != 2 or not weights.size:
        return f"its table is no float32 matrix, but {weights.dtype} {list(weights.shape)}"
    if not np.isfinite(weights).all():
        return "its table holds infinity or NaN"
    known = all(getattr(v.type, "shape", None) is not None for v in places)
    return None if known else "the rank of its indices is not known"


def _looked_up(
    editor: Editor, node: Node, found: Rows, constant: Callable[[np.ndarray], Value]
) -> Value:
    """The rows of a lookup, dequantized."""
    places = editor.graph.required_inputs(node)[1]
    gather = partial(editor.op, "Gather", axis=0)
    data, scale = gather(constant(found.data), places), gather(constant(found.scales), places)
    attrs = {"axis": places.rank, "block_size": found.block}
    if found.data.dtype == np.int8:
        return editor.op("DequantizeLinear", data, scale, **attrs)
    middle = editor.constant(np.asarray(1 << (found.bits - 1), np.uint8))
    zero = editor.op("Expand", middle, editor.op("Shape", scale))
    codes = _unpacked(editor, data, found.bits)
    return editor.op("DequantizeLinear", codes, scale, zero, **attrs)


def _unpacked(editor: Editor, packed: Value, bits: int) -> Value:
    """The fields of bytes along the last axis, low ones first, a byte each."""
    if bits == 8:
        return packed
    last = packed.rank
    axes, parts = editor.constant(np.array([last])), []
    for shift in range(0, 8, bits):
        moved = packed
        if shift:
            moved = editor.op("BitShift", packed, editor.scalar(shift, packed), direction="RIGHT")
        part = editor.op("BitwiseAnd", moved, editor.scalar((1 << bits) - 1, packed))
        parts.append(editor.op("Unsqueeze", part, axes))
    joined = editor.op("Concat", *parts, axis=last)
    return editor.op("Reshape", joined, editor.constant(np.array([*[0] * (last - 1), -1])))


__all__ = ["Encode", "Rows", "Tables", "bits_by_block", "bytes_by_row"]
