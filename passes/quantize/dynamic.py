"""Dynamic quantization: weights are 8-bit integers, and so is what they are multiplied by, with a
range that is found from the numbers of each run.

For a product by a matrix, each row (each token of a transformer) has a range of its own:

    s = (max(x, 0) - min(x, 0)) / 255,    z = least - round(min(x, 0) / s),    q = round(x / s) + z
    x W  =  s s_W (q Q - z sum(Q))

For a convolution each sample has one, around 0, or from 0 on where no number is negative, so that
the zero point is a constant, which borders are filled with:

    s = max|x| / 127 (or 255),    x * W  =  s s_W ((q - z) * Q)

No samples are needed, inputs of any range are quantized alike, and a row's result does not depend
on the rows beside it. Finding the range takes one more pass over ``x``: a part of the products'
time that falls with the number of columns of W.

Rows as by O. Zafrir and others, *Q8BERT: Quantized 8Bit BERT*, 2019, with a range for each; Z. Yao
and others, *ZeroQuant*, 2022, call it token-wise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.onnx_types import element_code
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ..base import PassContext, register_pass
from ..claims import lossy
from ..float_signs import not_below_zero
from .insert import BIAS
from .matrices import MatrixProduct, matrix_product
from .numbers import Parameters, decibels, quantized, restored, weight_parameters
from .operands import activation_kind, is_float
from .outermost import Outermost
from .pairs import Pairing, Pairs, pairing
from .places import Objection
from .selection import Selection
from .sensitivity import layer_noise
from .tables import Tables, bytes_by_row

_LEAST = np.asarray(np.finfo(np.float32).tiny, np.float32)
"""The scale of numbers that are all 0."""


@register_pass
@dataclass(frozen=True)
class QuantizeDynamic(Outermost):
    """Quantizes products by constant weights to 8 bits, with ranges found in each run, and tables
    that are looked up, whose rows have a scale each.

    ``only`` and ``exclude`` are patterns of layers, see :class:`.Selection`. Where the target sums
    products in pairs that could saturate, ``pairs`` of weights are chosen to be ``safe``, or
    ``split`` in two by the compiler (:mod:`.pairs`).
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pairs: Pairs = Pairs.SAFE

    name = "quantize_dynamic"
    claims = {
        "dynamic": lossy(
            "x = s (q - z), W = s_W Q",
            "s / 2 for each number, s_W / 2 for weights, s_W in pairs at their limit",
        ),
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return self.quantize(graph, context, lambda _: None)

    def quantize(self, graph: Graph, context: PassContext, leave: Objection) -> Mapping[str, int]:
        """Quantize the selected layers of a graph, but for those that ``leave`` objects to."""
        layers, reasons = self._layers(graph, context, leave)
        tables = self._tables(graph, leave)
        ratios = {layer.node: layer.weight_noise() for layer in layers}
        insertion = _Insertion(context.editor(graph), activation_kind(context.hardware))
        for layer in layers:
            insertion.replace(layer)
        tables.replace(insertion.editor, "dynamic")
        insertion.editor.finish()
        for node in sorted([*ratios, *reasons], key=lambda n: n.serial):
            context.tell(
                "layers", layer=node.name, op=node.key, onnx=list(node.origins.names),
                scheme="dynamic int8" if node in ratios else "float",
                reason=reasons.get(node, ""), decibels=ratios.get(node),
            )  # fmt: skip
        tables.tell(context)
        return {"dynamic": len(layers) + len(tables.rows)}

    def ranged(self, graph: Graph, context: PassContext) -> set[str]:
        """No tensors: ranges are found in the run."""
        return set()

    def calibrate(self, graph: Graph, context: PassContext, leave: Objection) -> None:
        """Nothing is to be found beforehand."""

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        """What quantizing each selected layer alone does to its result: the ratio of signal to
        noise in decibels, by the layer's name.
        """
        layers, _ = self._layers(graph, context, lambda _: None)
        by_name = {layer.node.name: layer for layer in layers}
        kind = activation_kind(context.hardware)

        def twin(editor: Editor, node: Node) -> Value:
            return by_name[node.name].product(_Insertion(editor, kind), node)

        noise = layer_noise(graph, [layer.node for layer in layers], twin, context)
        return noise | self._tables(graph, lambda _: None).noise

    def _tables(self, graph: Graph, leave: Objection) -> Tables:
        selected = Selection(self.only, self.exclude)
        return Tables.of(graph, bytes_by_row, lambda n: selected.objection(n) or leave(n))

    def _layers(
        self, graph: Graph, context: PassContext, leave: Objection
    ) -> tuple[list[_Layer], dict[Node, str]]:
        """The layers to quantize, and the products that are none with the reasons."""
        selected = Selection(self.only, self.exclude)
        layers: list[_Layer] = []
        reasons: dict[Node, str] = {}
        for node in graph.topological():
            if not has_trait(node, Trait.CONTRACTION):
                continue
            safe = self.pairs is Pairs.SAFE
            pairs = pairing(graph, node, context.hardware) if safe else None
            found: _Layer | str = _layer(graph, node, pairs)
            if not isinstance(found, str):
                found = selected.objection(node) or leave(node) or found
            if isinstance(found, str):
                reasons[node] = found
            else:
                layers.append(found)
        return layers, reasons


# ---- layers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Matrix:
    """A product of rows by a matrix; ``limit`` is that of pairs of rows of weights, if any."""

    found: MatrixProduct
    limit: int | None

    @property
    def node(self) -> Node:
        return self.found.node

    def product(self, insertion: _Insertion, node: Node) -> Value:
        """``s s_W (q Q - z sum(Q)) + b`` for ``node`` of the edited graph, added to it."""
        editor = insertion.editor
        x, bias = _operands(editor.graph, node)
        rows = insertion.rows(x)
        integers, p = self._weights()
        sums = editor.constant(integers.sum(axis=0, dtype=np.int32))
        total = editor.op("MatMulInteger", rows.integers, editor.constant(integers))
        total = editor.op("Sub", total, editor.op("Mul", rows.zero, sums))
        result = insertion.scaled(total, rows.scale, p.scale)
        return result if bias is None else editor.op("Add", result, bias)

    def weight_noise(self) -> float | None:
        """The ratio of signal to noise of the weights in decibels."""
        return _ratio(self.found.weights, *self._weights())

    def _weights(self) -> tuple[np.ndarray, Parameters]:
        pairs = None if self.limit is None else Pairing(0, self.limit)
        p = weight_parameters(self.found.weights, 1, pairing=pairs)
        return quantized(self.found.weights, p, pairing=pairs), p


@dataclass(frozen=True)
class _Convolution:
    """A convolution by constant filters, in whose ``pairs`` no products may saturate."""

    node: Node
    weights: np.ndarray
    pairs: Pairing | None

    def product(self, insertion: _Insertion, node: Node) -> Value:
        """``s s_W ((q - z) * Q) + b`` for ``node`` of the edited graph, added to it."""
        editor = insertion.editor
        x, bias = _operands(editor.graph, node)
        sample = insertion.sample(x)
        integers, p = self._integers()
        data = [sample.integers, editor.constant(integers), sample.zero]
        total = editor.node("ConvInteger", data, dict(self.node.attrs)).out()
        channels = (-1, *[1] * (self.node.out().rank - 2))
        result = insertion.scaled(total, sample.scale, p.scale.reshape(channels))
        if bias is None:
            return result
        assert bias.constant is not None
        return editor.op("Add", result, editor.constant(bias.constant.reshape(channels)))

    def weight_noise(self) -> float | None:
        """The ratio of signal to noise of the filters in decibels."""
        return _ratio(self.weights, *self._integers())

    def _integers(self) -> tuple[np.ndarray, Parameters]:
        p = weight_parameters(self.weights, 0, pairing=self.pairs)
        return quantized(self.weights, p, pairing=self.pairs), p


_Layer = _Matrix | _Convolution


def _operands(graph: Graph, node: Node) -> tuple[Value, Value | None]:
    """What a layer multiplies by its weights, and its bias."""
    x, _, bias = [*graph.inputs_of(node), None][: BIAS + 1]
    assert x is not None
    return x, bias


def _layer(graph: Graph, node: Node, pairs: Pairing | None) -> _Layer | str:
    """A product as a layer that can be quantized, or why it is none."""
    if node.key == "Conv":
        return _convolution(graph, node, pairs)
    found = matrix_product(graph, node)
    if isinstance(found, str):
        return found
    limit = None if pairs is None else pairs.limit
    return "it has no rows" if found.x.rank < 2 else _Matrix(found, limit)


def _convolution(graph: Graph, node: Node, pairs: Pairing | None) -> _Convolution | str:
    """A convolution as a layer, or why it cannot be quantized."""
    x, w, bias = [*graph.inputs_of(node), None][:3]
    if x is None or w is None or w.constant is None:
        return "its weights are computed in the run"
    if w.constant.dtype != np.float32:
        return f"its weights are {w.constant.dtype}, not float32"
    if not np.isfinite(w.constant).all():
        return "its weights hold infinity or NaN"
    if not is_float(x):
        return f"{x.name!r} is no float32 tensor of known rank"
    if bias is not None and bias.constant is None:
        return "its bias is computed in the run"
    return _Convolution(node, w.constant, pairs)


def _ratio(weights: np.ndarray, integers: np.ndarray, p: Parameters) -> float | None:
    off = restored(integers, p) - weights
    return decibels(
        float(np.mean(weights**2, dtype=np.float64)), float(np.mean(off**2, dtype=np.float64))
    )


# ---- edits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operand:
    """``x = scale (integers - zero)``: int32 zero points for rows, those of the integers' type for
    samples.
    """

    integers: Value
    scale: Value
    zero: Value


@dataclass
class _Insertion:
    """Adds quantized products to a graph; a tensor that several read is quantized once."""

    editor: Editor
    kind: str
    _rows: dict[Value, _Operand] = field(default_factory=dict)
    _samples: dict[Value, _Operand] = field(default_factory=dict)

    def replace(self, layer: _Layer) -> None:
        """Put the quantized form in the place of a layer."""
        node = layer.node
        self.editor.begin("dynamic", node, hint=node.out().name)
        self.editor.replace(node.out(), layer.product(self, node))

    def rows(self, x: Value) -> _Operand:
        """A tensor with a range for each index of all axes but the last."""
        if x not in self._rows:
            self._rows[x] = self._quantize_rows(x)
        return self._rows[x]

    def sample(self, x: Value) -> _Operand:
        """A tensor with a range for each index of the first axis."""
        if x not in self._samples:
            self._samples[x] = self._quantize_sample(x)
        return self._samples[x]

    def scaled(self, total: Value, scale: Value, factors: np.ndarray) -> Value:
        """Sums of products as float32, times the scales of both operands."""
        editor = self.editor
        result = editor.op("Mul", editor.op("Cast", total, to=element_code("float32")), scale)
        return editor.op("Mul", result, editor.constant(factors))

    def _quantize_rows(self, x: Value) -> _Operand:
        editor, limits = self.editor, np.iinfo(self.kind)
        zero = _float(editor, 0)
        low = editor.op("Min", self._reduced("ReduceMin", x, [-1]), zero)
        high = editor.op("Max", self._reduced("ReduceMax", x, [-1]), zero)
        scale = self._scale(editor.op("Sub", high, low), limits.max - limits.min)
        first = editor.op("Round", editor.op("Div", low, scale))
        shift = editor.op("Sub", _float(editor, limits.min), first)
        return _Operand(
            self._integers(x, scale, shift), scale,
            editor.op("Cast", shift, to=element_code("int32")),
        )  # fmt: skip

    def _quantize_sample(self, x: Value) -> _Operand:
        editor, limits = self.editor, np.iinfo(self.kind)
        largest = self._reduced("ReduceMax", editor.op("Abs", x), list(range(1, x.rank)))
        middle = 0 if limits.min < 0 or not_below_zero(editor.graph, x) else limits.max // 2 + 1
        scale = self._scale(largest, limits.max - middle)
        return _Operand(
            self._integers(x, scale, _float(editor, middle)), scale,
            editor.constant(np.asarray(middle, self.kind)),
        )  # fmt: skip

    def _reduced(self, op: str, x: Value, axes: list[int]) -> Value:
        return self.editor.op(op, x, self.editor.constant(np.array(axes)), keepdims=1)

    def _scale(self, width: Value, levels: int) -> Value:
        editor = self.editor
        scale = editor.op("Div", width, _float(editor, levels))
        return editor.op("Max", scale, editor.constant(_LEAST))

    def _integers(self, x: Value, scale: Value, shift: Value) -> Value:
        """The nearest integers; rounding both ends of a range may lead one step out of it."""
        editor, limits = self.editor, np.iinfo(self.kind)
        steps = editor.op("Add", editor.op("Round", editor.op("Div", x, scale)), shift)
        bounds = _float(editor, limits.min), _float(editor, limits.max)
        return editor.op("Cast", editor.op("Clip", steps, *bounds), to=element_code(self.kind))


def rounded_in_run(editor: Editor, x: Value, kind: str, by_rows: bool) -> Value:
    """``x`` as it is read once it has been integers of ``kind``, with a range for each row, or for
    each sample.
    """
    insertion = _Insertion(editor, kind)
    found = insertion.rows(x) if by_rows else insertion.sample(x)
    integers, zero = (
        editor.op("Cast", v, to=element_code("float32")) for v in (found.integers, found.zero)
    )
    return editor.op("Mul", editor.op("Sub", integers, zero), found.scale)


def _float(editor: Editor, number: float) -> Value:
    return editor.constant(np.asarray(number, np.float32))


__all__ = ["QuantizeDynamic", "rounded_in_run"]
