"""8-bit activations in the signedness that the target's dot product takes.

``(x, scale, zero)`` and ``(x ^ 0x80, scale, zero ^ 0x80)`` stand for the same numbers, one in int8
and one in uint8. Where every producer and consumer of a value reads a constant zero point beside
it, both change together, and nothing is computed anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.ops.vision import resize_picks
from ..ir.types import TensorType, dtype
from .base import Pass, PassContext, register_pass
from .claims import exact

_MS = "com.microsoft."
_BYTES = ("int8", "uint8")
_READS: dict[str, tuple[tuple[int, int], ...]] = {
    "DequantizeLinear": ((0, 2),),
    "QLinearConv": ((0, 2),),
    "QLinearMatMul": ((0, 2),),
    "MatMulInteger": ((0, 2),),
    "ConvInteger": ((0, 2),),
    _MS + "QGemm": ((0, 2),),
    _MS + "QLinearAdd": ((0, 2), (3, 5)),
    _MS + "QLinearMul": ((0, 2), (3, 5)),
    _MS + "QLinearGlobalAveragePool": ((0, 2),),
    _MS + "QLinearAveragePool": ((0, 2),),
    _MS + "QLinearSigmoid": ((0, 2),),
    _MS + "QLinearLeakyRelu": ((0, 2),),
}
"""Pairs of a data input and its zero point."""

_WRITES = {
    "QuantizeLinear": 2,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    _MS + "QGemm": 8,
    _MS + "QLinearAdd": 7,
    _MS + "QLinearMul": 7,
    _MS + "QLinearGlobalAveragePool": 4,
    _MS + "QLinearAveragePool": 4,
    _MS + "QLinearSigmoid": 4,
    _MS + "QLinearLeakyRelu": 4,
}
"""The input that holds the result's zero point."""

_ONE_TYPE = frozenset(_MS + op for op in (
    "QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid",
    "QLinearLeakyRelu",
))  # fmt: skip
"""Ops whose result has the element type of their data."""

_MOVES = frozenset({
    "MaxPool", "Transpose", "Concat", "Split", "Identity", "GlobalMaxPool", "DepthToSpace",
    "SpaceToDepth", "Resize", "kiln.Reshape", "kiln.Slice", "kiln.Expand",
})  # fmt: skip
"""Ops that pick elements, all from data of one zero point, and keep their order."""

_BOUNDED = frozenset({"Clip"})
"""Ops whose inputs after the data are bounds, which change as zero points do."""

_DOTS = frozenset({
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", _MS + "QGemm",
})  # fmt: skip


@register_pass
@dataclass(frozen=True)
class Signs(Pass):
    """Flips the sign bit of 8-bit activations to suit the target; see the file's text."""

    name = "signs"
    claims = {"flipped": exact(
            "(x, scale, zero) = (x ^ 128, scale, zero ^ 128), the other sign",
            "it is about whole sums of products of bytes",
        )}

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.target.layouts
        wanted = None if layouts is None else layouts.activation
        counts: Counter[str] = Counter()
        if wanted is None:
            return counts
        editor = context.editor(graph)
        done: set[Value] = set()
        for node in list(graph.topological()):
            x = graph.input(node, 0) if node.key in _DOTS else None
            if x is None or x in done or x.dtype not in _BYTES or x.dtype == wanted:
                continue
            group = _Group(graph)
            if group.grow(x):
                group.flip(editor, wanted)
                counts["flipped"] += len(group.values)
            done |= group.values
        editor.finish()
        return counts


@dataclass
class _Group:
    """Values that must change together, and the zero points beside them."""

    graph: Graph
    values: set[Value] = field(default_factory=set)
    zeros: dict[tuple[Node, int], None] = field(default_factory=dict)

    def grow(self, start: Value) -> bool:
        """Collect what belongs to ``start``; False where something in it cannot change."""
        open_values = [start]
        while open_values:
            value = open_values.pop()
            if value in self.values:
                continue
            self.values.add(value)
            if value.constant is not None:
                return False
            if not self._produced(value, open_values) or not self._consumed(value, open_values):
                return False
        return all(self._is_known(node, i) for node, i in self.zeros)

    def _produced(self, value: Value, open_values: list[Value]) -> bool:
        node = value.node
        if node.key in _WRITES:
            self.zeros[node, _WRITES[node.key]] = None
            open_values += self._tied(node)
            return True
        return self._moved(node, open_values)

    def _consumed(self, value: Value, open_values: list[Value]) -> bool:
        for node, i in self.graph.uses(value):
            zero = dict(_READS.get(node.key, ())).get(i)
            if zero is not None:
                self.zeros[node, zero] = None
                open_values += self._tied(node)
            elif not self._moved(node, open_values):
                return False
        return True

    def _moved(self, node: Node, open_values: list[Value]) -> bool:
        if node.key in _BOUNDED:
            return self._bounded(node, open_values)
        if node.key not in _MOVES or self.graph.bodies(node):
            return False
        if node.key == "Resize" and not resize_picks(node):
            return False
        near = [*self.graph.inputs_of(node), *node.values]
        open_values += [v for v in near if v is not None and v.dtype in _BYTES]
        return True

    def _bounded(self, node: Node, open_values: list[Value]) -> bool:
        x, *bounds = self.graph.inputs_of(node)
        self.zeros.update({(node, i): None for i, v in enumerate(bounds, 1) if v is not None})
        open_values += [v for v in (x, node.out()) if v is not None]
        return True

    def _tied(self, node: Node) -> Iterator[Value]:
        """Other values of the one element type that the op has."""
        if node.key in _ONE_TYPE:
            yield from (self.graph.required_inputs(node)[i] for i, _ in _READS[node.key])
            yield node.out()

    def _is_known(self, node: Node, i: int) -> bool:
        zero = self.graph.input(node, i)
        return zero is None or (zero.constant is not None and zero.constant.size == 1)

    def flip(self, editor: Editor, wanted: str) -> None:
        """Change the zero points, and with them the types of the values."""
        graph = self.graph
        kind = np.dtype(wanted)
        for node, i in self.zeros:
            zero = graph.input(node, i)
            old = np.zeros((), _other(kind)) if zero is None else zero.constant
            assert old is not None
            flipped = (old.view(np.uint8) ^ np.uint8(128)).view(kind)
            editor.begin("flipped", node)
            editor.set_input(node, i, editor.constant(flipped, "zero_point"))
            if node.key == "QuantizeLinear":
                node.attrs.pop("output_dtype", None)
        for value in self.values:
            t = value.tensor_type
            value.set_type(TensorType(dtype(wanted), t.shape, t.layout))


def _other(kind: np.dtype) -> np.dtype:
    return np.dtype("int8" if kind == np.uint8 else "uint8")
