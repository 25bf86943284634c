"""Weight-only quantization: products by constant matrices, and tables that are looked up
(:mod:`.tables`), get weights of few bits.

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
from ...ir.graph import Graph, GraphError, Node
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ..base import PassContext, register_pass
from ..claims import lossy
from ..fold_affine.linear import linear_form
from .few_bits import FewBits, Format, least_error, rounded, whole_range
from .gptq import reconstructed, result_errors
from .gram import grams
from .matrices import MatrixProduct, matrix_product
from .measure import values_by_name
from .numbers import decibels
from .places import Objection
from .selection import Selection
from .tables import Rows, Tables, bits_by_block
from .weights_only import WeightsOnly


class Rounding(str, Enum):
    """How weights become codes."""

    NEAREST = "nearest"
    MSE = "mse"
    GPTQ = "gptq"


@register_pass
@dataclass(frozen=True)
class QuantizeWeights(WeightsOnly):
    """Puts MatMulNBits in the place of products by constant matrices, and packs tables that are
    looked up.

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

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for bits and blocks that there are not."""
        Format(self.bits, self.block, self.symmetric)

    @property
    def uses_samples(self) -> bool:
        return self.rounding is Rounding.GPTQ

    def quantize(self, graph: Graph, context: PassContext, leave: Objection) -> Mapping[str, int]:
        """Quantize the selected products of a graph, but for those that ``leave`` objects to."""
        form = Format(self.bits, self.block, self.symmetric)
        selected = Selection(self.only, self.exclude)
        layers, reasons = [], {}
        for node in graph.topological():
            if has_trait(node, Trait.CONTRACTION):
                found = _layer(graph, node, form)
                if isinstance(found, MatrixProduct):
                    found = selected.objection(node) or leave(node) or found
                if isinstance(found, MatrixProduct):
                    layers.append(found)
                else:
                    reasons[node] = found
        rows: dict[Node, tuple[float | None, str]] = dict.fromkeys(reasons, (None, "float"))
        tables = Tables.of(graph, self._rows, lambda n: selected.objection(n) or leave(n))
        editor = context.editor(graph)
        for layer, gram in self._grams(graph, layers, context):
            quantized = self._quantized(layer.weights, gram, form)
            rows[layer.node] = (_ratio(layer.weights, quantized, gram), f"int{self.bits} weights")
            _replace(editor, layer, quantized, self.accuracy_level)
        tables.replace(editor, "few-bits")
        editor.finish()
        for node in sorted(rows, key=lambda n: n.serial):
            ratio, scheme = rows[node]
            context.tell(
                "layers", layer=node.name, op=node.key, onnx=list(node.origins.names),
                scheme=scheme, reason=reasons.get(node, ""), decibels=ratio,
            )  # fmt: skip
        tables.tell(context)
        return {"few-bits": len(layers) + len(tables.rows)}

    def _rows(self, table: np.ndarray) -> Rows | str:
        """A table that is looked up: the Gram matrix of its rows would tell nothing."""
        # Blocks with zero points have no form of their own: their ends are rarely far from 0.
        form = Format(self.bits, self.block)
        find = whole_range if self.rounding is Rounding.NEAREST else least_error
        return bits_by_block(table, lambda w: rounded(w, form, find), self.block)

    def _quantized(self, weights: np.ndarray, gram: np.ndarray | None, form: Format) -> FewBits:
        if gram is not None:
            return reconstructed(weights, gram, form)
        if self.rounding is Rounding.MSE:
            return rounded(weights, form, least_error)
        return rounded(weights, form)

    def _grams(
        self, graph: Graph, layers: Sequence[MatrixProduct], context: PassContext
    ) -> Iterator[tuple[MatrixProduct, np.ndarray | None]]:
        """Each layer, with the Gram matrix of what it reads where rounding asks for that."""
        if self.rounding is not Rounding.GPTQ:
            yield from ((layer, None) for layer in layers)
            return
        if layers and not context.data:
            raise GraphError("gptq rounds by what layers read: give sample data")
        # Edits of the layers before would change what the others read.
        original = graph.copy()
        values = values_by_name(original)
        products = []
        for layer in layers:
            form = linear_form(original, values[layer.node.out().name].node)
            assert form is not None, "the weights of a layer are a matrix"
            products.append(form)
        found = grams(original, products, context)
        yield from ((layer, gram) for layer, (gram,) in zip(layers, found, strict=True))


def _layer(graph: Graph, node: Node, form: Format) -> MatrixProduct | str:
    """A node as a product by a matrix with a block of weights at least, or why it is none."""
    found = matrix_product(graph, node)
    if isinstance(found, MatrixProduct) and len(found.weights) < form.block:
        return f"its sums of {len(found.weights)} products are shorter than a block"
    return found


def _replace(editor: Editor, layer: MatrixProduct, quantized: FewBits, accuracy_level: int) -> None:
    node = layer.node
    editor.begin("few-bits", node, hint=f"{node.out().name}_weights")
    # The layer in front may have been replaced since this one was found.
    x, _, bias = [*editor.graph.inputs_of(node), None][:3]
    data, scales, zeros = quantized.operands()
    given = [
        x, editor.constant(data), editor.constant(scales),
        None if zeros is None else editor.constant(zeros), None, bias,
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
