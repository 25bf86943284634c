"""Promotion: operations on narrow floats, which the target only loads and stores, compute float32.

A target that computes float16 in float32 would round after every kernel. After this pass only
inputs, outputs and stored weights have the narrow type, and casts convert between promoted
operations and others. Results are more exact than before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.onnx_types import element_code
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType
from .base import Pass, PassContext, register_pass
from .claims import rounds

_FLOAT = 1
"""ONNX's number of float32."""

_SMALL = 1 << 14
"""Most elements of a constant that is stored in float32; larger ones keep their type."""


@register_pass
@dataclass(frozen=True)
class Promote(Pass):
    """Computes operations on narrow floats in float32."""

    name = "promote"
    claims = {
        "promoted": rounds(
            "f(x) in float16 = f(x) in float32 between storage",
            "the roundings to float16 that are left out",
        )
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layouts = context.hardware.layouts
        narrow = () if layouts is None else layouts.storage_types
        if not narrow:
            return {}
        return _Promoter(context.editor(graph), narrow).run()


class _Promoter:
    """Promotes the operations of one graph."""

    def __init__(self, editor: Editor, narrow: tuple[str, ...]) -> None:
        self.graph = editor.graph
        self.editor = editor
        self.narrow = narrow
        self.wide: dict[Value, Value] = {}
        self.replaced: list[Node] = []

    def run(self) -> Mapping[str, int]:
        for node in self.graph.topological():
            if self._is_ours(node):
                self._replace(node)
        gone = set(self.replaced)
        for node in self.replaced:
            self._narrow_again(node, gone)
        self.editor.remove_unused(reversed(self.replaced))
        return {"promoted": len(self.replaced)}

    def _is_ours(self, node: Node) -> bool:
        if not has_trait(node, Trait.FLOAT_POLYMORPHIC) or self._looks_up(node):
            return False
        held = [v for v in (*self.graph.inputs_of(node), *node.values) if v is not None]
        if not all(isinstance(v.type, TensorType) for v in held):
            return False
        return any(v.dtype in self.narrow for v in node.values)

    def _looks_up(self, node: Node) -> bool:
        """Does it pick elements of a constant? That rounds nothing, and the table stays narrow."""
        inputs = self.graph.inputs_of(node)
        is_constant = bool(inputs) and inputs[0] is not None and inputs[0].is_constant
        return is_constant and has_trait(node, Trait.PICKS)

    def _replace(self, node: Node) -> None:
        self.editor.begin("promoted", node)
        inputs = [
            self._widened(v) if v is not None and v.dtype in self.narrow else v
            for v in self.graph.inputs_of(node)
        ]
        added = self.editor.clone(node, inputs)
        self.wide.update(zip(node.values, added.values, strict=True))
        self.replaced.append(node)

    def _widened(self, value: Value) -> Value:
        found = self.wide.get(value)
        if found is None:
            found = self._small(value) or self._cast(value, _FLOAT, f"{value.name}_wide")
            self.wide[value] = found
        return found

    def _small(self, value: Value) -> Value | None:
        """A small constant, such as a bias, in float32; None for large weights, which keep their
        type.
        """
        array = value.constant
        if array is None or array.size > _SMALL:
            return None
        return self.editor.constant(array.astype(np.float32), f"{value.name}_wide")

    def _cast(self, value: Value, to: int, name: str) -> Value:
        return self.editor.node("Cast", [value], {"to": to}, outputs=[name]).out()

    def _narrow_again(self, node: Node, gone: set[Node]) -> None:
        """Insert casts for readers that were not promoted, which expect the narrow type."""
        self.editor.begin("promoted", node)
        for old in node.values:
            readers = {n for n, _ in self.graph.uses(old)} - gone
            if not readers:
                continue
            new = self.wide[old]
            if old.dtype != new.dtype:
                new = self._cast(new, element_code(old.tensor_type.dtype), old.name)
            self.editor.replace_uses(old, new, readers)
