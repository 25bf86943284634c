"""Shape propagation: small integer tensors that inference knows are no longer computed.

    known tensor, all ints              -> Constant
    known tensor with symbolic dims     -> kiln.ShapeValue{dims, shape, dtype}
    Reshape, Flatten, Squeeze,
    Unsqueeze (any ``view``)            -> kiln.Reshape{shape}
    Expand, ConstantOfShape             -> kiln.Expand{shape}
    Slice                               -> kiln.Slice{starts, steps, shape}

``kiln.Reshape`` is the one canonical form of views, static or not. Afterwards the chains of
Shape, Gather, Concat and the like have no uses. A symbol that stands for a data-dependent size is
only used where the data flow guarantees that it is known (see ``symbols_bound``); ops for which
that does not hold stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.dims import Dim
from ..ir.graph import Graph, Node, Value
from ..ir.infer import make_context
from ..ir.ops.movement_borders import slice_ranges
from ..ir.ops.shape import fill_value
from ..ir.ops.shape_values import ints_of
from ..ir.registry import attribute, has_trait
from ..ir.shapes import normalize_axes
from ..ir.traits import Trait
from ..ir.types import TensorType, to_numpy_dtype
from .base import Pass, PassContext, register_pass
from .claims import exact, moved
from .queries import input_symbols, symbols_bound

_INFERRED = "inference works the value out, op by op"


@register_pass
@dataclass(frozen=True)
class Shapes(Pass):
    """Replaces computed shapes by their known values."""

    name = "shapes"
    claims = {
        "constant": exact("a known tensor of integers = a constant", _INFERRED),
        "shapevalue": exact("a known tensor with symbolic dims = kiln.ShapeValue", _INFERRED),
        "reshape": moved("reshape, flatten, squeeze, unsqueeze = kiln.Reshape"),
        "expand": moved("expand, constantofshape = kiln.Expand"),
        "slice": moved("slice = kiln.Slice"),
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        resolver = _Resolver(graph, context)
        for node in graph.topological():
            if node in graph:
                resolver.movement(node)
        for node in reversed(graph.topological()):
            if node in graph:
                resolver.results(node)
        resolver.finish()
        return resolver.counts


class _Resolver:
    def __init__(self, graph: Graph, context: PassContext) -> None:
        self._graph = graph
        self._editor = context.editor(graph)
        self._bound = input_symbols(graph)
        self.counts: Counter[str] = Counter()

    def finish(self) -> None:
        self._editor.finish()

    # ---- movements with a known target -------------------------------------------------------

    def movement(self, node: Node) -> None:
        """Replace a movement whose parameters are known by its dialect form."""
        if node.domain == "kiln" or not node.outputs:
            return
        rule = _RULES.get(node.key)
        if rule is None and has_trait(node, Trait.VIEW):
            rule = _Resolver._view
        out = node.outputs[0].type
        if rule is None or not isinstance(out, TensorType) or out.shape is None:
            return
        self._editor.begin("shapes", node, hint=node.outputs[0].name)
        new = rule(self, node, out)
        if new is not None:
            self._editor.replace(node.out(), new)
            self.counts[new.node.op.lower()] += 1

    def _view(self, node: Node, out: TensorType) -> Value | None:
        x = self._graph.input(node, 0)
        if x is None or not symbols_bound(out.dims, self._bound, [x]):
            return None
        return self._editor.op("kiln.Reshape", x, shape=out.dims)

    def _expand(self, node: Node, out: TensorType) -> Value | None:
        x = self._graph.input(node, 0)
        if x is None or not symbols_bound(out.dims, self._bound, [x]):
            return None
        return self._editor.op("kiln.Expand", x, shape=out.dims)

    def _constant_of_shape(self, node: Node, out: TensorType) -> Value | None:
        if out.is_static or not symbols_bound(out.dims, self._bound, []):
            return None
        fill = np.asarray(fill_value(attribute(node, "value")))
        return self._editor.op("kiln.Expand", self._editor.constant(fill), shape=out.dims)

    def _slice(self, node: Node, out: TensorType) -> Value | None:
        """A ``kiln.Slice``, if starts, steps and sizes are dims that are known where it runs."""
        inputs = self._graph.inputs_of(node)
        x = inputs[0]
        context = make_context(self._graph, node, inputs, self._editor.known)
        count = context.known(1)
        if x is None or count is None:
            return None
        given = ints_of(context.known(3)) if context.has(3) else list(range(count.size))
        steps = ints_of(context.known(4)) if context.has(4) else [1] * count.size
        if given is None or steps is None:
            return None
        axes = normalize_axes(given, x.rank)
        ranges = slice_ranges(context, axes)
        starts: list[Dim] = [0] * x.rank
        strides: list[Dim] = [1] * x.rank
        for k, a in enumerate(axes):
            found = None if ranges is None else ranges[k]
            if found is None:
                return None
            starts[a], strides[a] = found[0], steps[k]
        if not symbols_bound((*starts, *out.dims), self._bound, [x]):
            return None
        attrs = {"starts": tuple(starts), "steps": tuple(strides), "shape": out.dims}
        return self._editor.op("kiln.Slice", x, **attrs)

    # ---- values ------------------------------------------------------------------------------

    def results(self, node: Node) -> None:
        """Replace the results of ``node`` that are known integers."""
        if node.key == "kiln.ShapeValue":
            return
        for value in node.values:
            array = self._editor.known.get(value)
            if array is not None and node in self._graph and self._graph.uses(value):
                self._known(value, array)

    def _known(self, value: Value, array: np.ndarray) -> None:
        """Replace ``value`` by a constant, or by a ``kiln.ShapeValue`` of dims."""
        t = value.type
        if not isinstance(t, TensorType) or t.dtype.kind not in "iub" or not t.is_static:
            return
        self._editor.begin("shapes", value.node, hint=value.name)
        if array.dtype != object:
            exact = array.astype(to_numpy_dtype(t.dtype)).reshape(t.static_shape)
            self._editor.replace(value, self._editor.constant(exact, value.name))
            self.counts["constant"] += 1
            return
        dims = tuple(int(d) if isinstance(d, np.integer) else d for d in array.reshape(-1))
        if t.dtype.kind in "iu" and symbols_bound(dims, self._bound, []):
            attrs = {"dims": dims, "shape": t.static_shape, "dtype": t.dtype.name}
            self._editor.replace(value, self._editor.op("kiln.ShapeValue", **attrs))
            self.counts["shapevalue"] += 1


_RULES = {
    "Expand": _Resolver._expand,
    "ConstantOfShape": _Resolver._constant_of_shape,
    "Slice": _Resolver._slice,
}
