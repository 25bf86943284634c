"""Sparsity: weights that matter least become zero, singly or in blocks.

    y = sum_k w_k x_k ~ sum_{k kept} w'_k x_k

``magnitude`` keeps the largest weights (S. Han, J. Pool, J. Tran and W. Dally, *Learning both
Weights and Connections for Efficient Neural Networks*, 2015). ``wanda`` goes by what a weight adds
on samples, ``|w_k| (sum x_k^2)^1/2`` (M. Sun, Z. Liu, A. Bair and Z. Kolter, *A Simple and
Effective Pruning Approach for Large Language Models*, 2024). With ``adjust``, those that stay make
up for those that go, else ``w' = w``: the least squares of ``X (w' - w)`` row by row, as in E.
Frantar and D. Alistarh, *SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot*,
2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Node
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ..base import PassContext, register_pass
from ..claims import lossy
from ..fold_affine.linear import Channels
from ..quantize.gptq import Ahead, compensated, result_errors
from ..quantize.gram import grams, sum_length
from ..quantize.operands import linear_channels
from ..quantize.outermost import Outermost
from ..quantize.selection import Selection
from ..queries import single_use
from .patterns import Blocks, OfEach, parse_pattern

_WEIGHTS = 1
_LONGEST = 8192
"""The most products in a sum whose Gram matrix is made: it takes the square of that."""


class Criterion(str, Enum):
    """By what weights are compared."""

    MAGNITUDE = "magnitude"
    WANDA = "wanda"


class Compared(str, Enum):
    """With which others a weight is compared."""

    OUTPUT = "output"
    """Those of the same output."""
    LAYER = "layer"
    """Those of its layer."""
    OVERALL = "overall"
    """Those of all layers: some become sparser than others."""


@register_pass
@dataclass(frozen=True)
class Sparsify(Outermost):
    """Sets a share of the weights of products to zero.

    ``pattern`` is one of :mod:`.patterns`; of single weights and blocks, ``zeros`` is the share
    that becomes zero among those that are ``compared``. ``only`` and ``exclude`` are patterns of
    layers. Each product is a row of the table ``sparse``: the share of zeros, and with samples the
    ratio of signal to noise of its result in decibels, or why it stays as it is.
    """

    pattern: str = "1x1"
    zeros: float = 0.5
    criterion: Criterion = Criterion.MAGNITUDE
    compared: Compared = Compared.LAYER
    adjust: bool = False
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    name = "sparsify"
    claims = {"sparse": lossy("sum_k w_k x_k = sum_{k kept} w_k x_k", "the products left out")}

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for patterns and shares that there are not."""
        form = parse_pattern(self.pattern)
        if not 0 < self.zeros < 1:
            raise ValueError(f"zeros is a share, more than 0 and less than 1, not {self.zeros}")
        if isinstance(form, OfEach) and self.compared is not Compared.LAYER:
            raise ValueError(f"{self.pattern} compares neighbours: give no other 'compared'")
        if isinstance(form, Blocks) and form.outputs > 1 and self.compared is Compared.OUTPUT:
            raise ValueError("blocks of several outputs are not compared for each output")

    @property
    def uses_samples(self) -> bool:
        return self.adjust or self.criterion is Criterion.WANDA

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        layers, reasons = self._layers(graph)
        if layers and self.uses_samples and not context.data:
            raise GraphError("wanda and adjust go by what layers read: give sample data")
        masks = self._masks(graph, layers, context)
        changed = []
        for layer, gram in self._each(graph, layers, context, self.uses_samples):
            weights = _matrices(layer, layer.unpacked(_weights(graph, layer)))
            found = self._kept(weights, _matrices(layer, masks[layer.node]), gram)
            changed.append((layer, found, _decibels(weights, found, gram)))
        editor = context.editor(graph)
        for layer, matrices, ratio in changed:
            _replace(editor, layer, matrices)
            self._tell(context, layer.node, 1 - float(masks[layer.node].mean()), ratio, "")
        for node, reason in reasons.items():
            self._tell(context, node, 0.0, None, reason)
        editor.finish()
        return {"sparse": len(changed)}

    def _kept(self, weights: np.ndarray, mask: np.ndarray, gram: np.ndarray | None) -> np.ndarray:
        """The weights ``[groups, K, outputs]`` that stay, and zeros."""
        if gram is None or not self.adjust:
            return _without(weights, mask)
        return np.array([_adjusted(*group) for group in zip(weights, mask, gram, strict=True)])

    def _layers(self, graph: Graph) -> tuple[list[Channels], dict[Node, str]]:
        """The products whose weights become sparse, and why others stay as they are."""
        selected, layers, reasons = Selection(self.only, self.exclude), [], {}
        for node in graph.topological():
            if has_trait(node, Trait.CONTRACTION):
                found = selected.objection(node) or self._layer(graph, node)
                if isinstance(found, Channels):
                    layers.append(found)
                else:
                    reasons[node] = found
        return layers, reasons

    def _layer(self, graph: Graph, node: Node) -> Channels | str:
        found, value = linear_channels(graph, node), graph.input(node, _WEIGHTS)
        if found is None or value is None:
            return "its weights are no constant float32 matrix"
        if not single_use(graph, value):
            return "its weights are used elsewhere too"
        if found.counts[1] == 1:
            return "each output has a single input channel"
        if self.uses_samples and sum_length(found) > _LONGEST:
            return f"its sums of {sum_length(found)} products are too long to observe"
        return found

    def _each(
        self, graph: Graph, layers: Sequence[Channels], context: PassContext, observed: bool
    ) -> Iterator[tuple[Channels, np.ndarray | None]]:
        """Each layer, with the Gram matrices of what it reads if they are ``observed``."""
        if not observed:
            yield from ((layer, None) for layer in layers)
            return
        yield from zip(layers, grams(graph, layers, context), strict=True)

    def _masks(
        self, graph: Graph, layers: Sequence[Channels], context: PassContext
    ) -> dict[Node, np.ndarray]:
        """Which weights stay, ``[groups, inputs, outputs, positions]`` of each layer."""
        form = parse_pattern(self.pattern)
        scores: dict[Node, np.ndarray] = {}
        shapes: dict[Node, tuple[int, ...]] = {}
        masks: dict[Node, np.ndarray] = {}
        wanda = self.criterion is Criterion.WANDA
        for layer, gram in self._each(graph, layers, context, wanda):
            weights = np.abs(layer.unpacked(_weights(graph, layer)).astype(np.float64))
            if gram is not None:
                weights = weights * _norms(layer, gram)
            if isinstance(form, OfEach):
                masks[layer.node] = form.mask(weights)
            else:
                scores[layer.node], shapes[layer.node] = form.scores(weights), weights.shape
        if isinstance(form, Blocks):
            for node, kept in self._kept_blocks(scores).items():
                masks[node] = form.spread(kept, shapes[node])
        return masks

    def _kept_blocks(self, scores: Mapping[Node, np.ndarray]) -> dict[Node, np.ndarray]:
        if self.compared is Compared.OVERALL:
            every = np.concatenate([s.reshape(-1) for s in scores.values()] or [np.empty(0)])
            kept = _largest(every[None], self.zeros)[0]
            ends = np.cumsum([s.size for s in scores.values()])
            parts = np.split(kept, ends[:-1]) if len(ends) else []
            return {n: p.reshape(scores[n].shape) for n, p in zip(scores, parts, strict=True)}
        found = {}
        for node, each in scores.items():
            rows = each.transpose(0, 2, 1, 3)  # groups, outputs, inputs, positions
            count = prod(rows.shape[:2]) if self.compared is Compared.OUTPUT else 1
            kept = _largest(rows.reshape(count, -1), self.zeros).reshape(rows.shape)
            found[node] = kept.transpose(0, 2, 1, 3)
        return found

    def _tell(
        self, context: PassContext, node: Node, zeros: float, ratio: float | None, reason: str
    ) -> None:
        context.tell(
            "sparse", layer=node.name, op=node.key, onnx=list(node.origins.names),
            pattern="" if reason else self.pattern, zeros=round(zeros, 4), decibels=ratio,
            reason=reason,
        )  # fmt: skip


def _weights(graph: Graph, layer: Channels) -> np.ndarray:
    value = graph.input(layer.node, _WEIGHTS)
    assert value is not None and value.constant is not None
    return value.constant


def _matrices(layer: Channels, unpacked: np.ndarray) -> np.ndarray:
    """``[groups, inputs, outputs, positions]`` as ``[groups, K, outputs]``, with the sums' K."""
    groups, _, outputs, _ = layer.counts
    return unpacked.transpose(0, 1, 3, 2).reshape(groups, -1, outputs)


def _norms(layer: Channels, gram: np.ndarray) -> np.ndarray:
    """The norms of what the weights multiply, ``[groups, inputs, 1, positions]``."""
    groups, inputs, _, positions = layer.counts
    squares = np.diagonal(gram, axis1=1, axis2=2)
    return np.asarray(np.sqrt(squares).reshape(groups, inputs, 1, positions))


def _largest(rows: np.ndarray, zeros: float) -> np.ndarray:
    """Which numbers of each row stay if a share ``zeros`` of them, the smallest, goes."""
    gone = int(round(zeros * rows.shape[1]))
    order = np.argsort(rows, axis=1, kind="stable")
    kept = np.ones(rows.shape, bool)
    np.put_along_axis(kept, order[:, :gone], False, axis=1)
    return kept


def _without(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The weights that stay, and zeros without a sign, which artifacts leave out."""
    return np.where(mask, weights, weights.dtype.type(0))


def _adjusted(weights: np.ndarray, mask: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """``[K, outputs]`` without the weights that go, for which the others make up; not so in outputs
    where that would be worse.
    """
    plain, adjusted = _without(weights, mask), np.zeros(weights.shape)

    def stay(k: int, row: np.ndarray, _ahead: Ahead) -> np.ndarray:
        adjusted[k] = _without(row, mask[k])
        return adjusted[k]

    compensated(weights, gram, stay)
    losses = [result_errors(found - weights, gram) for found in (adjusted, plain)]
    return np.where(losses[0] < losses[1], adjusted, plain).astype(np.float32)


def _decibels(weights: np.ndarray, found: np.ndarray, gram: np.ndarray | None) -> float | None:
    """The ratio of a layer's result to the error, on samples; None without samples or error."""
    if gram is None:
        return None
    wide = weights.astype(np.float64)
    signal = sum(float(result_errors(w, h).sum()) for w, h in zip(wide, gram, strict=True))
    error = sum(float(result_errors(f - w, h).sum())
                for f, w, h in zip(found, wide, gram, strict=True))  # fmt: skip
    return 10 * float(np.log10(signal / error)) if signal > 0 and error > 0 else None


def _replace(editor: Editor, layer: Channels, matrices: np.ndarray) -> None:
    """Give a product the weights ``[groups, K, outputs]``."""
    node, old = layer.node, _weights(editor.graph, layer)
    groups, inputs, outputs, positions = layer.counts
    split = matrices.reshape(groups, inputs, positions, outputs).transpose(0, 1, 3, 2)
    value = editor.graph.input(node, _WEIGHTS)
    assert value is not None
    editor.begin("sparse", node, hint=value.name)
    weights = np.ascontiguousarray(layer.packed(split, old.shape).astype(np.float32))
    editor.set_input(node, _WEIGHTS, editor.constant(weights))


__all__ = ["Compared", "Criterion", "Sparsify"]
