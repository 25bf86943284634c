"""Changes 8-bit activations to the signedness that the target's dot product takes.

``(x, scale, zero)`` and ``(x ^ 0x80, scale, zero ^ 0x80)`` stand for the same numbers, one in int8
and one in uint8. If every producer and consumer of a value has a constant zero point for it, the
value's type and the zero points change together, and no operation is added. Constants that such
values are picked from, as rows of an embedding are, change too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.ops.vision import resize_picks
from ..ir.registry import has_trait, spec
from ..ir.traits import Trait
from ..ir.types import BYTES, TensorType, dtype
from .base import Pass, PassContext, register_pass
from .claims import exact


@register_pass
@dataclass(frozen=True)
class Signedness(Pass):
    """Changes int8 activations to uint8 or back, to what the target's dot product takes."""

    name = "signedness"
    claims = {
        "flipped": exact(
            "(x, scale, zero) = (x ^ 128, scale, zero ^ 128), the other sign",
            "it is about whole sums of products of bytes",
        )
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.hardware.layouts
        wanted = None if layouts is None else layouts.activation
        counts: Counter[str] = Counter()
        if wanted is None:
            return counts
        editor = context.editor(graph)
        done: set[Value] = set()
        for node in list(graph.topological()):
            x = graph.input(node, 0) if has_trait(node, Trait.CONTRACTION) else None
            if x is None or x in done or x.dtype not in BYTES or x.dtype == wanted:
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
    """Values that must change together, the zero points beside them, and inputs with constants that
    they are picked from.
    """

    graph: Graph
    values: set[Value] = field(default_factory=set)
    zeros: dict[tuple[Node, int], None] = field(default_factory=dict)
    picked: dict[tuple[Node, int], None] = field(default_factory=dict)

    def grow(self, start: Value) -> bool:
        """Collect the values that must change with ``start``; False if one of them cannot."""
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
        known = spec(node.key)
        zero = None if known is None else known.result_zero_point
        if zero is not None:
            self.zeros[node, zero] = None
            open_values += self._tied(node)
            return True
        return self._moved(node, open_values)

    def _consumed(self, value: Value, open_values: list[Value]) -> bool:
        for node, i in self.graph.uses(value):
            zero = _zero_points(node).get(i)
            if zero is not None:
                self.zeros[node, zero] = None
                open_values += self._tied(node)
            elif not self._moved(node, open_values):
                return False
        return True

    def _moved(self, node: Node, open_values: list[Value]) -> bool:
        if node.key == "Clip":
            return self._bounded(node, open_values)
        if not _selects(node):
            return False
        for i, v in enumerate(self.graph.inputs_of(node)):
            if v is not None and v.dtype in BYTES:
                if v.constant is None:
                    open_values.append(v)
                else:
                    self.picked[node, i] = None
        open_values += [v for v in node.values if v.dtype in BYTES]
        return True

    def _bounded(self, node: Node, open_values: list[Value]) -> bool:
        """The bounds of ``Clip`` change as zero points do."""
        x, *bounds = self.graph.inputs_of(node)
        self.zeros.update({(node, i): None for i, v in enumerate(bounds, 1) if v is not None})
        open_values += [v for v in (x, node.out()) if v is not None]
        return True

    def _tied(self, node: Node) -> Iterator[Value]:
        """The other values of the node that must have the same element type."""
        if has_trait(node, Trait.ONE_BYTE_TYPE):
            yield from (self.graph.required_inputs(node)[i] for i in _zero_points(node))
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
            flipped = _flipped(old, kind)
            editor.begin("flipped", node)
            editor.set_input(node, i, editor.constant(flipped, "zero_point"))
            if node.key == "QuantizeLinear":
                node.attrs.pop("output_dtype", None)
        for node, i in self.picked:
            source = graph.input(node, i)
            assert source is not None and source.constant is not None
            editor.begin("flipped", node)
            editor.set_input(node, i, editor.constant(_flipped(source.constant, kind), source.name))
        for value in self.values:
            t = value.tensor_type
            value.set_type(TensorType(dtype(wanted), t.shape, t.layout))


def _flipped(bytes_: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Bytes of the other sign that stand for the same numbers beside a flipped zero point."""
    return (bytes_.view(np.uint8) ^ np.uint8(128)).view(kind)


def _zero_points(node: Node) -> Mapping[int, int]:
    """The inputs whose signedness may change, each with the input that is its zero point.

    Of a product only the first input, the activations, may; the weights keep their stored type.
    """
    known = spec(node.key)
    pairs = {} if known is None else {data: zero for zero, data in known.zero_points.items()}
    if has_trait(node, Trait.CONTRACTION):
        return {data: zero for data, zero in pairs.items() if data == 0}
    return pairs


def _selects(node: Node) -> bool:
    """Are the results elements of the inputs, also if a monotonic function changed them all?"""
    if node.key == "Resize":
        return resize_picks(node)
    return has_trait(node, Trait.SELECTS) or has_trait(node, Trait.PICKS)


def _other(kind: np.dtype) -> np.dtype:
    return np.dtype("int8" if kind == np.uint8 else "uint8")
