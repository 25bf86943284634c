"""SmoothQuant: what is large in some channels moves from activations into weights.

    X W = (X S^-1) (S W)        s_j = max |X_j|^a / max |W_j|^(1 - a)

Activations get one scale for the tensor, which a few large channels decide, while weights have one
for each output channel, and bear more. The strength ``a`` is chosen for each tensor by the least
error of what its products compute of it once both are quantized, over all samples:

    sum of (Q(X S^-1) Q(S W) - X W)^2

Where each run finds its ranges, one for each row (:mod:`.dynamic`), a large channel costs the
others of its row as much, and Q is by rows.

``S^-1`` goes into the constants that give the tensor (:mod:`.sources`), so nothing is computed that
was not before. G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth and S. Han, *SmoothQuant: Accurate and
Efficient Post-Training Quantization for Large Language Models*, 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Value
from ..base import PassContext, Row, register_pass
from ..claims import AFFINE, rounds
from ..fold_affine.linear import Channels
from .channel_ranges import STRENGTHS, ChannelRanges
from .dynamic import rounded_in_run
from .measure import measured, reduced, values_by_name
from .numbers import activation_parameters, decibels, quantized, weight_parameters
from .operands import activation_kind, filter_axis, linear_channels
from .outermost import Outermost
from .places import Use
from .scaling import Changes, Source, constant_at, multiplied, multiplied_inputs, put
from .sources import source_of
from .twins import dequantized, rounded

_GAIN = 0.5
"""The part of a tensor's error that factors must leave at most. Less is not worth that all channels
fill the range afterwards: any of them may be cut off in other data, not only the largest."""
_MOST_NUMBERS = 1 << 25
"""Weights that are measured at once, with all factors; more take another round of samples."""


@register_pass
@dataclass(frozen=True)
class Smooth(Outermost):
    """Scales channels of what products read, and their weights by the inverse.

    The float function stays the same up to rounding. Takes sample data. A row of the table
    ``smoothed`` tells of each tensor the products that read it, the ``strength`` (None where it
    stays as it is) and the ``reason``, and the ratio of signal to quantization noise of the
    products ``before`` and ``after``, in decibels. ``dynamic`` says that what products read is to
    be quantized with ranges that each run finds.
    """

    dynamic: bool = False

    name = "smooth"
    claims = {"activation-ranges": rounds("X W = (X S^-1) (S W)", AFFINE)}

    @property
    def uses_samples(self) -> bool:
        return True

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        inputs = [_Input(x, readers) for x, readers in _read(graph).items()]
        for one in inputs:
            one.find_source(graph)
        fit = [one for one in inputs if one.source is not None]
        if fit and not context.data:
            raise GraphError("smoothing goes by what layers read: give sample data")
        for group in _groups(graph, fit):
            _observe(graph, group, context)
            for one in group:
                one.find_factors(graph)
            _measure(graph, group, context, self.dynamic)
        editor = context.editor(graph)
        count = sum(one.smooth(editor) for one in fit)
        editor.remove_unused()
        editor.finish()
        for one in inputs:
            context.tell("smoothed", **one.row())
        return {"activation-ranges": count}


@dataclass
class _Input:
    """A tensor ``x`` that products read, and what is found out of it.

    ``source`` are the constants that take the inverse factors, ``reason`` says why it stays as it
    is. ``ranges`` are those of its channels over all samples, ``factors`` what there is to choose
    from, and ``errors`` the sums of squares that they lead to; ``power`` is that of the results.
    """

    x: Value
    readers: list[Channels]
    source: Source | None = None
    reason: str = ""
    strength: float | None = None
    ranges: ChannelRanges = field(default_factory=lambda: ChannelRanges(0))
    factors: list[np.ndarray] = field(default_factory=list)
    errors: np.ndarray = field(default_factory=lambda: np.zeros(1 + len(STRENGTHS)))
    power: float = 0.0

    @property
    def axis(self) -> int:
        """The axis of the channels."""
        return self.readers[0].input_axis

    def find_source(self, graph: Graph) -> None:
        own = {(reader.node, 0) for reader in self.readers}
        if set(graph.uses(self.x)) != own:
            self.reason = "not only products read it"
        elif len({reader.input_axis for reader in self.readers}) > 1:
            self.reason = "its products add up along several axes"
        else:
            found = source_of(graph, self.x, self.axis)
            if isinstance(found, str):
                self.reason = found
            else:
                self.source = found
                self.ranges = ChannelRanges(found.count)

    def see(self, low: np.ndarray, high: np.ndarray) -> None:
        """Count the extremes in one sample, one for each index of the axis."""
        assert self.source is not None
        self.ranges.see(self.source.channels, low, high)

    def find_factors(self, graph: Graph) -> None:
        """Find the factors that there are to choose from."""
        assert self.source is not None
        found = np.zeros(self.source.count)
        for reader in self.readers:
            weights = np.abs(reader.unpacked(constant_at(graph, Use(reader.node, 1))))
            np.maximum.at(found, self.source.channels, weights.max(axis=(2, 3)).reshape(-1))
        self.factors = self.ranges.factors(found)

    def smooth(self, editor: Editor) -> bool:
        """Scale by the best factors; False where the tensor stays as it is."""
        best = int(np.argmin(self.errors))
        if self.errors[best] >= _GAIN * self.errors[0]:
            self.reason = "no strength is better by 3 dB"
            return False
        changes = self._changes(editor.graph, self.factors[best])
        if changes is None:
            self.reason = "numbers would overflow or vanish"
            return False
        put(editor, "activation-ranges", changes)
        self.strength = STRENGTHS[best - 1]
        return True

    def _changes(self, graph: Graph, s: np.ndarray) -> Changes | None:
        assert self.source is not None
        changes = self.source.divided(graph, s)
        for reader in self.readers:
            weights = multiplied_inputs(graph, reader, s[self.source.channels])
            changes = None if changes is None or weights is None else changes | weights
        return changes

    def row(self) -> Row:
        after = self.errors[0] if self.strength is None else self.errors.min()
        return {
            "tensor": self.x.name, "layers": [reader.node.name for reader in self.readers],
            "strength": self.strength, "reason": self.reason,
            "before": decibels(self.power, float(self.errors[0])),
            "after": decibels(self.power, float(after)),
        }  # fmt: skip


def _read(graph: Graph) -> dict[Value, list[Channels]]:
    """The tensors of a run that products by constant weights read, with these."""
    found: dict[Value, list[Channels]] = {}
    for node in graph.topological():
        x, channels = graph.input(node, 0), linear_channels(graph, node)
        if x is not None and channels is not None and not x.is_constant:
            found.setdefault(x, []).append(channels)
    return found


def _groups(graph: Graph, inputs: Sequence[_Input]) -> Iterator[list[_Input]]:
    """Tensors whose candidates are measured at once."""
    group: list[_Input] = []
    held = 0
    for one in inputs:
        weights = sum(constant_at(graph, Use(r.node, 1)).size for r in one.readers)
        if group and held + weights > _MOST_NUMBERS:
            yield group
            group, held = [], 0
        group.append(one)
        held += weights
    if group:
        yield group


# ---- runs ----------------------------------------------------------------------------------------


def _observe(graph: Graph, inputs: Sequence[_Input], context: PassContext) -> None:
    """Find the extremes of all channels."""

    def measure(editor: Editor) -> list[Value]:
        found = values_by_name(editor.graph)
        outputs = []
        for one in inputs:
            x = found[one.x.name]
            others = [a for a in range(x.rank) if a != one.axis]
            outputs.append(reduced(editor, "ReduceMin", x, others))
            outputs.append(reduced(editor, "ReduceMax", x, others))
        return outputs

    for results in measured(graph, measure, context):
        for i, one in enumerate(inputs):
            one.see(np.asarray(results[2 * i]), np.asarray(results[2 * i + 1]))


def _measure(graph: Graph, inputs: Sequence[_Input], context: PassContext, dynamic: bool) -> None:
    """Add up the errors that all factors of each tensor lead to."""
    kind = activation_kind(context.hardware)

    def measure(editor: Editor) -> list[Value]:
        found = values_by_name(editor.graph)
        outputs = []
        for one in inputs:
            results = [found[reader.node.out().name] for reader in one.readers]
            for s in one.factors:
                read = _divided(editor, one, found[one.x.name], s)
                if dynamic:
                    read = rounded_in_run(editor, read, kind, by_rows=one.axis == read.rank - 1)
                else:
                    read = rounded(editor, read, activation_parameters(one.ranges.divided(s), kind))
                twins = _twins(editor, one, read, results, s)
                pairs = zip(twins, results, strict=True)
                outputs.append(_squares(editor, [editor.op("Sub", a, b) for a, b in pairs]))
            outputs.append(_squares(editor, results))
        return outputs

    each = 2 + len(STRENGTHS)
    for numbers in measured(graph, measure, context):
        for i, one in enumerate(inputs):
            *errors, power = (float(n) for n in numbers[i * each : (i + 1) * each])
            one.errors += errors
            one.power += power


def _divided(editor: Editor, one: _Input, x: Value, s: np.ndarray) -> Value:
    """``x / s``."""
    assert one.source is not None
    shape = [-1 if a == one.axis else 1 for a in range(x.rank)]
    factors = (1 / s[one.source.channels]).astype(np.float32)
    return editor.op("Mul", x, editor.constant(factors.reshape(shape)))


def _twins(
    editor: Editor, one: _Input, read: Value, results: Sequence[Value], s: np.ndarray
) -> list[Value]:
    """What the products give of ``read`` once the weights times ``s`` are quantized."""
    assert one.source is not None
    by = s[one.source.channels]
    twins = []
    for reader, y in zip(one.readers, results, strict=True):
        _, w, *rest = editor.graph.inputs_of(y.node)
        assert w is not None and w.constant is not None
        weights = multiplied(reader, w.constant, by)
        p = weight_parameters(weights, filter_axis(editor.graph, y.node, 1))
        operands = [read, dequantized(editor, quantized(weights, p), p), *rest]
        twins.append(editor.clone(y.node, operands).out())
    return twins


def _squares(editor: Editor, values: Sequence[Value]) -> Value:
    """The sum of the squares of all elements of some tensors."""
    total, *others = (reduced(editor, "ReduceSumSquare", v) for v in values)
    for other in others:
        total = editor.op("Add", total, other)
    return total


__all__ = ["Smooth"]
