"""Static quantization: weights and activations are integers, with ranges from sample data.

y = W x   becomes   DQ(W) DQ(Q(x))

Weights have 8 bits, activations 8 or 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

from ...ir.graph import Graph, GraphError, Node, Value
from ...ir.layer_work import layer_work
from ..base import PassContext, Row, register_pass
from ..claims import lossy
from ..ranges import Range, remark_on_unused
from .bias_correction import correct_biases
from .calibration import Calibration, Method
from .gain import gains, slowdown
from .histogram import Histogram
from .insert import Inserted, insert_quantizers
from .numbers import decibels
from .observers import observe
from .operands import activation_kind
from .outermost import Outermost
from .pairs import Pairs, pairings
from .places import Objection, Places, places_of
from .rounding import WeightRounding, round_together
from .selection import Selection
from .sensitivity import layer_noise, worst_first
from .tables import Tables, bytes_by_row
from .twins import static_twin

_SPREAD = 24
"""Bins of the histograms that are reported."""
_RARELY = 8
"""Every so many samples numbers are counted where only the report shows them."""


@register_pass
@dataclass(frozen=True)
class Quantize(Outermost):
    """Quantizes products to weights of 8 bits, and ``activations`` of 8 or 16.

    Ranges are those that the compilation is given; for other tensors, ``method`` picks them from
    what runs on the sample data show, with ``share`` (0 to 1) of the numbers inside for
    percentiles. ``only`` and ``exclude`` are patterns of layers, see :class:`.Selection`, and
    ``exclude_worst`` is the number of layers that are left because their results suffer most.
    With ``bias_correction``, biases make up for the shifts of means (:mod:`.bias_correction`).
    ``rounding`` of weights is to the ``nearest`` code, or ``gptq``, which takes sample data
    (:mod:`.rounding`). Where the target sums products in pairs that could saturate, ``pairs`` of
    weights are chosen to be ``safe``, or ``split`` in two by the compiler (:mod:`.pairs`).
    Layers that integers would slow down on the target stay floats (:mod:`.gain`), but with
    ``all_layers``.

    With 16 bits, only what convolutions and products of matrices read is quantized: everything
    between them computes floats, and tables that are looked up stay as they are.
    """

    activations: int = 8
    method: Method = Method.MINMAX
    share: float = 0.9999
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    exclude_worst: int = 0
    bias_correction: bool = False
    rounding: WeightRounding = WeightRounding.NEAREST
    all_layers: bool = False
    pairs: Pairs = Pairs.SAFE

    name = "quantize"
    claims = {
        "weights": lossy(
            "W = s * q, q from -127 to 127",
            "s / 2 for each weight, s in pairs at their limit; with gptq no more error in any "
            "channel over the samples",
        ),
        "activations": lossy("x = s * (q - z)", "s / 2 inside of the range, clipped outside"),
        "tables": lossy("T = s * q, q from -127 to 127", "s / 2 for each number of a row"),
        "means": lossy("b = b - E[y' - y]", "the mean shift of a channel"),
        "biases": lossy("b = s_x * s_W * q", "s_x * s_W / 2"),
    }

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for a share that makes no sense, or that the method ignores, and
        for another number of bits.
        """
        if self.activations not in (8, 16):
            raise ValueError(f"activations have 8 or 16 bits, not {self.activations}")
        Calibration(self.method, self.share)
        if self.method is not Method.PERCENTILE and self.share != type(self).share:
            raise ValueError(f"share does nothing with the method {self.method.value}")

    @property
    def uses_samples(self) -> bool:
        return True

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        remark = remark_on_unused(context.ranges, self.ranged(graph, context))
        if remark is not None:
            context.warn(remark)
        worst: list[str] = []
        if self.exclude_worst:
            worst = worst_first(self.noise(graph, context))[: self.exclude_worst]
        reason = f"among the {self.exclude_worst} layers that suffer most"
        return self.quantize(graph, context, lambda n: reason if n.name in worst else None)

    def ranged(self, graph: Graph, context: PassContext) -> set[str]:
        """The tensors that are quantized in a run, by name."""
        return {v.name for v in self._places(graph, context, lambda _: None).tensors}

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        """What quantizing each selected layer alone does to its result: the ratio of signal to
        noise in decibels, by the layer's name.
        """
        places = self._rounded(self._places(graph, context, lambda _: None), context)
        kind = self._kind(context)
        ranges = self._ranges(places, kind, context)
        twin = partial(static_twin, places=places, ranges=ranges, kind=kind)
        noise = layer_noise(graph, places.products, twin, context)
        return noise | self._tables(graph, lambda _: None).noise

    def calibrate(self, graph: Graph, context: PassContext, leave: Objection) -> None:
        """Find the range of each tensor that :meth:`quantize` would quantize."""
        self._ranges(self._places(graph, context, leave), self._kind(context), context)

    def quantize(self, graph: Graph, context: PassContext, leave: Objection) -> Mapping[str, int]:
        """Quantize the selected layers of a graph, but for those that ``leave`` objects to."""
        gain = self._gains(self._selected(graph, lambda _: None), context)
        places = self._rounded(self._places(graph, context, leave), context)
        kind = self._kind(context)
        ranges = self._ranges(places, kind, context)
        editor = context.editor(graph)
        inserted = Inserted()
        if self.bias_correction:
            corrected = correct_biases(places, ranges, kind, context, editor)
            inserted.counts["means"] = corrected
        insert_quantizers(editor, places, ranges, kind, inserted)
        tables = self._tables(graph, leave)
        tables.replace(editor, "tables")
        editor.finish()
        if tables.rows:
            inserted.counts["tables"] = len(tables.rows)
        _tell_layers(places, f"static int{self.activations}", inserted.decibels, gain, context)
        tables.tell(context)
        _keep_tensors(places, context)
        return inserted.counts

    def _kind(self, context: PassContext) -> str:
        """The integers of activations."""
        return activation_kind(context.hardware) if self.activations == 8 else "uint16"

    def _gains(self, places: Places, context: PassContext) -> dict[Node, float]:
        return gains(places, context.hardware, self.activations)

    def _tables(self, graph: Graph, leave: Objection) -> Tables:
        selected = Selection(self.only, self.exclude)
        kept = None if self.activations == 8 else "tables have no 16 bits"
        return Tables.of(graph, bytes_by_row, lambda n: selected.objection(n) or leave(n) or kept)

    def _places(self, graph: Graph, context: PassContext, leave: Objection) -> Places:
        """What is quantized: the selected layers, but for those that would become slower."""
        places = self._selected(graph, leave)
        slow: dict[Node, str | None] = {}
        if not self.all_layers:
            bits = self.activations
            slow = {n: slowdown(g, bits) for n, g in self._gains(places, context).items()}
        if any(slow.values()):
            places = self._selected(graph, lambda node: leave(node) or slow.get(node))
        if self.pairs is Pairs.SAFE:
            places.pairings = pairings(graph, places.products, context.hardware)
        return places

    def _selected(self, graph: Graph, leave: Objection) -> Places:
        selected = Selection(self.only, self.exclude)

        def objection(node: Node) -> str | None:
            found = selected.objection(node) or _computed(graph, node) or leave(node)
            return found or (None if self.activations == 8 else _without_words(graph, node))

        return places_of(graph, objection, follow=self.activations == 8)

    def _rounded(self, places: Places, context: PassContext) -> Places:
        """The places, with the codes of weights that are rounded together."""
        if self.rounding is WeightRounding.GPTQ:
            round_together(places, context)
        return places

    def _ranges(self, places: Places, kind: str, context: PassContext) -> dict[str, Range]:
        """The range of each tensor, one for all tensors of a group."""
        given = context.ranges
        open_groups = [g for g in places.groups if not any(v.name in given for v in g)]
        unknown = [v for g in open_groups for v in g if v not in places.moved]
        seen: Mapping[str, Histogram] = {}
        if unknown:
            if not context.data:
                raise GraphError(f"the range of {unknown[0].name!r} is not known: give sample data")
            run, journal = context.runner, context.journal
            every = 1 if self.method.needs_counts else _RARELY
            seen = observe(places.graph, unknown, context.data, run, journal, every)
        symmetric = kind.startswith("int")
        levels = (1 << self.activations) - symmetric
        method = Calibration(self.method, self.share, levels)
        found: dict[str, Range] = {}
        for group in places.groups:
            together = _seen_of(group, seen)
            known = [given[v.name] for v in group if v.name in given]
            chosen = _range_of(known, together, method, symmetric, context.data_from)
            found |= {v.name: chosen for v in group}
            _tell_tensors(group, chosen, known, together, levels, context)
        given |= found
        return found


def _computed(graph: Graph, node: Node) -> str | None:
    """An objection to products of two tensors of a run, as in attention: the kernels of integers
    take constant weights, which are packed for them, and those of attention are for floats.
    """
    if any(v.is_constant for v in graph.required_inputs(node)[:2]):
        return None
    return "both operands are computed in the run"


def _without_words(graph: Graph, node: Node) -> str | None:
    """An objection to products for whose operands of 16 bits there are no kernels of integers."""
    if layer_work(graph, node) is not None:
        return None
    return "16 bits are for convolutions and products of matrices"


def _range_of(
    known: Sequence[Range], seen: Histogram, method: Calibration, symmetric: bool, by: str
) -> Range:
    """The range of a group: the given ones together, or what the method picks from data that
    comes from ``by``. It holds 0.
    """
    if known:
        whole = reduce(Range.merged, known)
        return Range(min(0.0, whole.low), max(0.0, whole.high), whole.by)
    return Range(*(method.range_of(seen, symmetric) if seen.runs else (0.0, 0.0)), by)


def _seen_of(group: Sequence[Value], seen: Mapping[str, Histogram]) -> Histogram:
    """What was seen of all tensors of a group."""
    merged = Histogram()
    for value in group:
        if value.name in seen:
            merged = merged.merged(seen[value.name])
    return merged


# ---- reports -------------------------------------------------------------------------------------


def _tell_layers(
    places: Places, scheme: str, weights: Mapping[Node, float | None], gain: Mapping[Node, float],
    context: PassContext,
) -> None:  # fmt: skip
    """How each layer computes, the quantization noise of its weights, and what integers gain."""
    reasons = dict(places.left)
    for node in sorted([*places.products, *reasons], key=lambda n: n.serial):
        context.tell(
            "layers", layer=node.name, op=node.key, onnx=list(node.origins.names),
            scheme="float" if node in reasons else scheme, reason=reasons.get(node, ""),
            decibels=weights.get(node), gain=gain.get(node),
        )  # fmt: skip


def _keep_tensors(places: Places, context: PassContext) -> None:
    """Keep the first row of each tensor that is quantized.

    It was told when the range was found, which may have been for more layers.
    """
    first: dict[str, Row] = {}
    for row in context.tables.get("tensors", ()):
        first.setdefault(row["tensor"], row)
    names = {v.name for v in places.tensors}
    context.tables["tensors"] = [row for name, row in first.items() if name in names]


def _tell_tensors(
    group: Sequence[Value], chosen: Range, known: Sequence[Range], seen: Histogram, levels: int,
    context: PassContext,
) -> None:  # fmt: skip
    """What was seen of the tensors of a group, and what rounding and clipping does to them."""
    counted = bool(seen.total)
    error = seen.error(chosen.low, chosen.high, levels) if counted else 0.0
    for value in group:
        context.tell(
            "tensors", tensor=value.name, bits=levels.bit_length() - (levels % 2 == 0),
            low=chosen.low, high=chosen.high,
            by=chosen.by or ("given" if known else "sample data"),
            seen=[seen.low, seen.high] if seen.runs else None,
            clipped=seen.outside(chosen.low, chosen.high) if counted else None,
            decibels=decibels(seen.power, error) if counted else None,
            histogram=seen.spread(_SPREAD) if counted else None,
        )  # fmt: skip


__all__ = ["Quantize"]
