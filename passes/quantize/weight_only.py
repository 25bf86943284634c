"""Weight-only quantization: products by constant weights get weights of few bits.

    x W   becomes   MatMulNBits(x, q, s, z),    W ~ s (q - z)

Activations stay floats: weights are unpacked where they are multiplied. That is faster where a
product waits for its weights, as for one token of a language model, and smaller everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Node, Value
from ...ir.registry import attribute, has_trait
from ...ir.traits import Trait
from ...ir.types import TensorType
from ..base import Pass, PassContext, PassResult, register_pass
from ..claims import lossy
from ..fold_affine.linear import linear_form
from .few_bits import FewBits, Format, least_error, rounded
from .gptq import reconstructed, result_errors
from .gram import grams
from .numbers import decibels
from .places import Objection
from .selection import Selection


class Rounding(str, Enum):
    """How weights become codes."""

    NEAREST = "nearest"
    MSE = "mse"
    GPTQ = "gptq"


@register_pass
@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Puts MatMulNBits in the place of products by constant matrices.

    Weights have ``bits`` (2, 4, 8) in blocks of ``block`` along the sums, symmetric ones or with
    zero points. ``rounding`` is to the ``nearest`` code, with the range of the least ``mse``, or
    ``gptq``, which takes sample data (:mod:`.gptq`). ``only`` and ``exclude`` are patterns of
    layers. ``accuracy_level`` 4 lets kernels round activations to 8 bits, too, by block.
    """

    bits: int = 4
    block: int = 32
    rounding: Rounding = Rounding.MSE
    symmetric: bool = True
    accuracy_level: int = 0
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    name = "quantize_weights"
    claims = {"few-bits": lossy("W = s (q - z)", "s / 2 for each weight inside of the range")}

    def run(self, graph: Graph, context: PassContext) -> PassResult:
        return PassResult.of(self.apply(graph, context))

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return self.quantize(graph, context, lambda _: None)

    def quantize(self, graph: Graph, context: PassContext, leave: Objection) -> Mapping[str, int]:
        """Quantize the selected products of a graph, but for those that ``leave`` objects to."""
        form = Format(self.bits, self.block, self.symmetric)
        selected = Selection(self.only, self.exclude)
        layers, reasons = [], {}
        for node in graph.topological():
            if has_trait(node, Trait.CONTRACTION):
                found = _layer(graph, node, form)
                if isinstance(found, _Layer):
                    found = selected.objection(node) or leave(node) or found
                if isinstance(found, _Layer):
                    layers.append(found)
                else:
                    reasons[node] = found
        rows: dict[Node, tuple[float | None, str]] = dict.fromkeys(reasons, (None, "float"))
        editor = context.editor(graph)
        for layer, gram in self._grams(graph, layers, context):
            quantized = self._quantized(layer.weights, gram, form)
            rows[layer.node] = (_ratio(layer.weights, quantized, gram), f"int{self.bits} weights")
            _replace(editor, layer, quantized, self.accuracy_level)
        editor.finish()
        for node in sorted(rows, key=lambda n: n.serial):
            ratio, scheme = rows[node]
            context.tell(
                "layers", layer=node.name, op=node.key, onnx=list(node.origins.names),
                scheme=scheme, reason=reasons.get(node, ""), decibels=ratio,
            )  # fmt: skip
        return {"few-bits": len(layers)}

    def warn_of_unused(self, graph: Graph, context: PassContext) -> None:
        """No ranges are used."""
        if context.ranges:
            context.warn("weight-only quantization uses no ranges")

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        """The ratio of signal to noise of each selected layer in decibels, by the layer's name."""
        self.quantize(graph.copy(), context, lambda _: None)
        rows = context.tables.get("layers", ())
        return {row["layer"]: row["decibels"] for row in rows if row["scheme"] != "float"}

    def _quantized(self, weights: np.ndarray, gram: np.ndarray | None, form: Format) -> FewBits:
        if gram is not None:
            return reconstructed(weights, gram, form)
        if self.rounding is Rounding.MSE:
            return rounded(weights, form, least_error)
        return rounded(weights, form)

    def _grams(
        self, graph: Graph, layers: Sequence[_Layer], context: PassContext
    ) -> Iterator[tuple[_Layer, np.ndarray | None]]:
        """Each layer, with the Gram matrix of what it reads where rounding asks for that."""
        if self.rounding is not Rounding.GPTQ:
            yield from ((layer, None) for layer in layers)
            return
        if layers and not context.data:
            raise GraphError("gptq rounds by what layers read: give sample data")
        # Edits of the layers before would change what the others read.
        original = graph.copy()
        nodes = {node.out().name: node for node in original.nodes}
        products = []
        for layer in layers:
            form = linear_form(original, nodes[layer.node.out().name])
            assert form is not None, "the weights of a layer are a matrix"
            products.append(form)
        found = grams(original, products, context)
        yield from ((layer, gram) for layer, (gram,) in zip(layers, found, strict=True))


@dataclass(frozen=True)
class _Layer:
    """A product of ``x`` by constant weights ``[K, N]``; ``bias`` is ``[N]``."""

    node: Node
    x: Value
    weights: np.ndarray
    bias: Value | None


def _layer(graph: Graph, node: Node, form: Format) -> _Layer | str:
    """A node as a layer, or why it is none."""
    x, w, bias = [*graph.inputs_of(node), None, None, None][:3]
    is_gemm = node.key == "Gemm"
    if not is_gemm and node.key != "MatMul" or x is None or w is None:
        return "it is no product of matrices"
    if w.constant is None:
        return "its weights are computed in the run"
    weights = w.constant
    if weights.ndim != 2 or weights.dtype != np.float32:
        return f"its weights are no float32 matrix, but {weights.dtype} {list(weights.shape)}"
    if is_gemm:
        if attribute(node, "transB"):
            weights = weights.T
        plain = attribute(node, "alpha") == 1 and attribute(node, "beta") == 1
        if not plain or attribute(node, "transA"):
            return "it scales or transposes its operands"
        if bias is not None and bias.shape != (weights.shape[1],):
            return "its bias is not for each column"
    if len(weights) < form.block:
        return f"its sums of {len(weights)} products are shorter than a block"
    if not np.isfinite(weights).all():
        return "its weights hold infinity or NaN"
    kind = x.type
    known = isinstance(kind, TensorType) and kind.shape is not None and len(kind.shape) > 0
    return _Layer(node, x, weights, bias) if known else "the rank of its operand is not known"


def _replace(editor: Editor, layer: _Layer, quantized: FewBits, accuracy_level: int) -> None:
    node = layer.node
    editor.begin("few-bits", node, hint=f"{node.out().name}_weights")
    data, scales, zeros = quantized.operands()
    given = [
        layer.x, editor.constant(data), editor.constant(scales),
        None if zeros is None else editor.constant(zeros), None, layer.bias,
    ]  # fmt: skip
    while given[-1] is None:
        given.pop()
    inner, columns = layer.weights.shape
    attrs = {
        "K": inner, "N": columns, "bits": quantized.form.bits, "block_size": quantized.form.block,
        "accuracy_level": accuracy_level,
    }  # fmt: skip
    product = editor.node("MatMulNBits", given, attrs, domain="com.microsoft")
    editor.replace(node.out(), product.out())


def _ratio(weights: np.ndarray, quantized: FewBits, gram: np.ndarray | None) -> float | None:
    """Signal to noise in decibels: of the result where ``gram`` is known, else of the weights."""
    exact = weights.astype(np.float64)
    off = quantized.values() - exact
    if gram is None:
        return decibels(float(np.mean(exact**2)), float(np.mean(off**2)))
    return decibels(*(float(result_errors(w, gram).sum()) for w in (exact, off)))


__all__ = ["QuantizeWeights", "Rounding"]
