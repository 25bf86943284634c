"""Constant folding: operations on constants are evaluated at compile time.

The size of results is limited. A result may be as large as the constants that it replaces (those
that nothing else uses); what it is larger by counts against ``max_bytes``, for the whole model.
``ConstantOfShape`` is folded up to half a gigabyte, since models keep weights in that form.
Constants that are stored in fewer bits than their result (int8 weights in front of DequantizeLinear
or Cast, weights of a product in 16-bit floats) are folded only if they have at most ``max_widened``
elements, or are vectors (biases, not weights) and ``widen_vectors`` is set.

With ``exact``, only operations are evaluated whose results are the same bits in every
implementation: they move elements, compute on integers, or round the exact result once.

An ``If`` with a constant condition is replaced by the branch that is taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.bindings import has_symbols
from ..ir.graph import Graph, GraphError, Node, Value
from ..ir.interpreter import run_node
from ..ir.registry import has_trait, spec_of
from ..ir.traits import Trait
from ..ir.types import TensorType, Type, array_type
from .base import Pass, PassContext, PassResult, register_pass
from .bodies import sizes_known
from .captures import captured_inputs, drop_inputs
from .claims import exact, rounds
from .queries import sole_consumer, widens_weights

_ONE_RESULT = (Trait.INJECTIVE, Trait.SHAPE_ONLY, Trait.ROUNDS_ONCE)
"""Traits of ops whose result is the same in every implementation."""

_CONTROL = "it is about control flow"

_MOST_FILLED = 512 << 20
"""Bytes of the largest ``ConstantOfShape`` that is folded; larger ones are computed at run time."""


def _bytes_of(t: Type) -> int:
    """Bytes of a tensor; 0 if its size is not static."""
    if not isinstance(t, TensorType) or not t.is_static:
        return 0
    return math.prod(t.static_shape) * max(1, t.dtype.bits // 8)


@register_pass
@dataclass(frozen=True)
class Fold(Pass):
    """Evaluates operations that depend on constants only."""

    max_bytes: int = 1 << 20
    max_widened: int = 16
    widen_vectors: bool = False

    name = "fold"
    claims = {
        "values": exact(
            "f(constants) = its value, f integer, moving or rounding once",
            "it is about two implementations of an op, which tests compare",
        ),
        "functions": rounds(
            "f(constants) = its value, f any", "what the kernel of f may differ from a rounded f"
        ),
        "captured": exact("a captured constant = a constant of the body", _CONTROL),
        "If": exact("if(true, a, b) = a, if(false, a, b) = b", _CONTROL),
    }

    exact: bool = False

    def run(self, graph: Graph, context: PassContext) -> PassResult:
        counts: Counter[str] = Counter()
        budget = _Budget(self.max_bytes)
        # Outer graphs come first, since constants sink into the bodies that use them.
        for part in graph.walk(regions=False):
            counts.update(_Folder(part, context, self, budget).run())
        return PassResult.of(counts)

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return _Folder(graph, context, self, _Budget(self.max_bytes)).run()


@dataclass
class _Budget:
    """Bytes that folding may still add to the model."""

    left: int


class _Folder:
    """Folds one graph."""

    def __init__(self, graph: Graph, context: PassContext, options: Fold, budget: _Budget) -> None:
        self._graph = graph
        self._context = context
        self._options = options
        self._budget = budget
        self._editor = context.editor(graph)
        self._counts: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        for node in self._graph.topological():
            if node not in self._graph:
                continue
            if self._graph.bodies(node):
                self._sink_constants(node)
                self._choose_branch(node)
            else:
                self._fold(node)
        self._editor.finish()
        return self._counts

    # ---- evaluation --------------------------------------------------------------------------

    def _fold(self, node: Node) -> None:
        """Evaluate ``node`` and replace it by constants, or report why it stays."""
        inputs = self._graph.inputs_of(node)
        reason = self._objection(node, inputs)
        results = None
        if reason is None:
            arrays = [None if v is None else v.constant for v in inputs]
            try:
                results = run_node(node, arrays)
            except GraphError as e:
                reason = f"cannot be evaluated: {e}"
        if results is not None and not all(isinstance(r, np.ndarray) for r in results):
            reason = "a result is not a tensor"
        if reason is None and results is not None:
            reason = self._growth_objection(node, inputs, results)
        if reason is None and results is not None:
            self._replace(node, results)
        elif self._context.explain is not None and reason:
            self._context.explain("fold", node, reason)

    def _objection(self, node: Node, inputs: list[Value | None]) -> str | None:
        """Why ``node`` is not evaluated; an empty string for reasons that need no report."""
        if not node.outputs or any(v is not None and v.constant is None for v in inputs):
            return ""
        if not inputs and node.key == "kiln.ShapeValue":
            return ""
        if has_trait(node, Trait.STOCHASTIC):
            return "its results may differ between runs"
        if has_symbols(node):
            return "its result depends on symbolic sizes"
        if self._options.exact and not _same_everywhere(node, inputs):
            return "its kernel may round otherwise"
        return self._size_objection(node, inputs) or self._widening(node, inputs)

    def _size_objection(self, node: Node, inputs: list[Value | None]) -> str | None:
        """What :meth:`_growth_objection` would say, as far as types tell before evaluation."""
        sizes = [_bytes_of(v.type) for v in node.values if self._graph.uses(v)]
        if node.key == "ConstantOfShape":
            most = max(sizes, default=0)
            return f"would have {most} bytes" if most > _MOST_FILLED else None
        growth = sum(sizes) - self._freed(node, inputs)
        if growth > max(self._budget.left, 0):
            return f"would add {growth} bytes, {self._budget.left} are left"
        return None

    def _freed(self, node: Node, inputs: list[Value | None]) -> int:
        """Bytes of the constants that only ``node`` uses."""
        return sum(
            v.constant.nbytes
            for v in {v for v in inputs if v is not None}
            if v.constant is not None and sole_consumer(self._graph, v) is node
        )

    def _widening(self, node: Node, inputs: list[Value | None]) -> str | None:
        arrays = [v.constant for v in inputs if v is not None and v.constant is not None]
        largest = max(arrays, key=lambda a: a.size, default=None)
        out = node.outputs[0].type if node.outputs else None
        if largest is None or largest.size <= self._options.max_widened:
            return None
        if not isinstance(out, TensorType) or not out.is_static:
            return None
        if self._options.widen_vectors and largest.ndim < 2:
            return None
        have = array_type(largest).dtype
        most = 16 if have.is_float and self._feeds_products(node) else 8
        if have.kind in "iuf" and have.bits <= most < out.dtype.bits and out.dtype.is_float:
            return f"keeps {largest.size} elements as {have}"
        return None

    def _feeds_products(self, node: Node) -> bool:
        """Is the result read, and by nothing but products that take it in 16 bits?"""
        users = [user for user, _ in self._graph.uses(node.out())]
        return bool(users) and all(map(widens_weights, users))

    def _growth_objection(
        self, node: Node, inputs: list[Value | None], results: list[np.ndarray]
    ) -> str | None:
        """Take the bytes that folding adds from the budget, or return why it may not add them."""
        used = [
            r for v, r in zip(node.values, results, strict=False) if self._graph.out_edges(v.node)
        ]
        growth = sum(r.nbytes for r in used) - self._freed(node, inputs)
        if node.key != "ConstantOfShape" and growth > 0:
            if growth > self._budget.left:
                return f"would add {growth} bytes, {self._budget.left} are left"
            self._budget.left -= growth
        return None

    def _replace(self, node: Node, results: list[np.ndarray]) -> None:
        for value, result in zip(node.values, results, strict=False):
            if self._graph.uses(value):
                self._editor.begin("values", node, hint=value.name)
                # A view would keep the whole array that it is part of in memory.
                array = result if result.flags.c_contiguous else result.copy(order="C")
                self._editor.replace(value, self._editor.constant(array, value.name))
        self._counts[node.op] += 1

    # ---- control flow ------------------------------------------------------------------------

    def _sink_constants(self, node: Node) -> None:
        """Make constants that bodies capture constants of the bodies; the arrays are shared."""
        sunk = []
        for c in captured_inputs(self._graph, node):
            array = c.outer.constant
            if array is None:
                continue
            for body, inner in c.inner:
                if body.uses(inner):
                    editor = self._context.editor(body)
                    editor.begin("captured", node)
                    editor.replace_uses(inner, editor.constant(array, c.outer.name))
            sunk.append(c)
        if sunk:
            drop_inputs(self._context.editor, self._graph, node, sunk)
            self._counts["captured"] += len(sunk)

    def _choose_branch(self, node: Node) -> None:
        """Replace an ``If`` by the branch that its known condition selects."""
        if node.key != "If":
            return
        condition, *captured = self._graph.inputs_of(node)
        known = None if condition is None else self._editor.known.get(condition)
        if known is None or known.dtype == object:
            return
        branch = node.attrs["then_branch" if known.reshape(-1)[0] else "else_branch"]
        assert isinstance(branch, Graph)
        if not sizes_known(self._graph, branch, captured):
            return
        self._editor.begin("If", node)
        results = self._editor.inline(branch, captured)
        for value, result in zip(node.values, results, strict=False):
            self._editor.replace(value, result)
        self._editor.remove_unused([node])
        self._counts["If"] += 1


def _same_everywhere(node: Node, inputs: list[Value | None]) -> bool:
    """Is the result the same in every implementation, so that no kernel gives other bits?"""
    if any(has_trait(node, t) for t in _ONE_RESULT):
        return not has_trait(node, Trait.CONVERTS) or _holds(node, inputs)
    types = [v.type for v in (*inputs, *node.values) if v is not None]
    integers = all(isinstance(t, TensorType) and t.dtype.kind in "iub" for t in types)
    return integers and (has_trait(node, Trait.ELEMENTWISE) or spec_of(node).propagate is not None)


def _holds(node: Node, inputs: list[Value | None]) -> bool:
    """Is a conversion defined for its numbers? Those that an integer type does not hold are not."""
    x, target = inputs[0], node.out().type
    array = None if x is None else x.constant
    if array is None or not isinstance(target, TensorType) or not target.dtype.is_integer:
        return True
    if not array_type(array).dtype.is_float:
        return True
    low = -(2.0 ** (target.dtype.bits - 1)) if target.dtype.kind == "i" else 0.0
    high = low + 2.0**target.dtype.bits
    whole = np.trunc(array.astype(np.float64))
    return bool(np.all((whole >= low) & (whole < high)))
