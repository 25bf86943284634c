"""``graphkiln.quantize``: calibration, quantization, and the search within a budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..driver import Compilation, CompileOptions, Listener, OptionError, Shapes, Source, silent
from .control import Candidate, within_budget
from .journal import Journal
from .result import Quantized
from .scores import Metric, Scores

if TYPE_CHECKING:
    import numpy as np

    from ..driver import Data
    from ..ir.graph import Graph, Node
    from ..passes.base import PassContext, Row
    from ..passes.ranges import Range

_WEIGHTS = {"int8-weights": 8, "int4-weights": 4}
"""The bits of weight-only schemes."""
_BEFORE = (
    "settle,decompose,recognize{attention=false},simplify,recognize{attention=false},fold_affine,"
    "simplify"
)
"""The passes before quantization: those of ``settle`` and ``rewrite``, but for attention, which is
recognised when the quantized model is compiled. What they leave has ONNX form, and what is constant
is known."""


def quantize(
    model: Any,
    data: str | os.PathLike[str] | Data = (),
    target: str = "cpu",
    shapes: Shapes | None = None,
    *,
    scheme: str = "int8",
    method: str = "minmax",
    share: float = 0.9999,
    equalize: bool = False,
    smooth: bool = False,
    bias_correction: bool = False,
    block: int = 32,
    rounding: str | None = None,
    only: Iterable[str] = (),
    exclude: Iterable[str] = (),
    exclude_worst: int = 0,
    ranges: Mapping[str, Range] | None = None,
    metric: Metric | None = None,
    max_drop: float | None = None,
    journal: str | os.PathLike[str] | None = None,
    options: CompileOptions | None = None,
    listener: Listener | None = None,
    **fields: Any,
) -> Quantized:
    """Quantize an ONNX model after training.

    ``model`` is a path, bytes or an ``onnx.ModelProto`` in floats. ``data`` are samples: dicts of
    arrays by input, or a source as :func:`.samples.samples_of` reads it; what else they hold, such
    as labels, the metric sees.

    The ``scheme`` ``int8`` quantizes weights and activations. A tensor's range is that of
    ``ranges``, or is picked by ``method`` (``minmax``, ``average``, ``percentile``, ``mse``,
    ``entropy``) from what runs on the samples show; ``share`` is the share of the numbers inside
    for percentiles. With ``equalize``, channels between two layers get ranges that are alike, and
    with ``smooth``, large channels of activations move into weights, before ranges are found. With
    ``bias_correction``, biases make up for the shifts that quantization brings to the means of
    channels. The schemes ``int8-weights`` and ``int4-weights`` quantize weights in blocks of
    ``block`` along the sums. ``rounding`` of weights is ``nearest``, the default for ``int8``,
    ``mse``, the default of the others and only theirs, or ``gptq``, which takes samples.

    ``only`` and ``exclude`` are patterns of layers that are quantized and that are not: names of
    nodes, or ops. ``exclude_worst`` leaves so many layers in floats, those whose results have the
    lowest ratio of signal to quantization noise. With ``max_drop``, as few layers are left as keep
    the mean of ``metric`` over the samples (default: agreement with the float model, 0 to 1) within
    that of the float model. ``journal`` is a file in which what was found is kept: the same call
    goes on from there if it was stopped, and comes to the same result. Further keywords are fields
    of :class:`CompileOptions`, by which the result is compiled.

    Raises :class:`.OptionError` for options that make no sense, :class:`.SamplesError` for data
    that cannot be read, :class:`.PassError` for samples that do not fit the model,
    :class:`.BudgetError` where no layer can be quantized within ``max_drop``, and what importing
    and compiling raise.
    """
    from ..codegen.collector import rare_collections

    chosen = options or CompileOptions(target=target, shapes=shapes, **fields)
    selection = tuple(only), tuple(exclude)
    step: Step
    _refuse_others(scheme, method, share, (equalize, smooth, bias_correction), block)
    if scheme == "int8":
        step = _static(method, share, bias_correction, rounding or "nearest", *selection)
    else:
        step = _weights(scheme, block, rounding or "mse", *selection)
    passes = ",".join([_BEFORE, *["equalize"] * equalize, *["smooth"] * smooth])
    if exclude_worst < 0:
        raise OptionError(f"exclude_worst is 0 or more, not {exclude_worst}")
    if max_drop is not None and not 0 <= max_drop < float("inf"):
        raise OptionError(f"max_drop is 0 or more, not {max_drop}")
    if metric is not None and max_drop is None:
        raise OptionError("a metric needs max_drop, the drop that is allowed")
    with rare_collections():
        work = _Quantization.of(model, data, chosen, listener or silent, ranges or {}, passes)
        work.keep(journal, data, f"{passes} {step} {dict(ranges or {})} {max_drop}")
        work.check_ranges(step)
        left = work.worst_first(step)[:exclude_worst] if exclude_worst else []
        if max_drop is None:
            return work.result(step, left)
        return work.controlled(step, left, metric, max_drop)


def _refuse_others(
    scheme: str, method: str, share: float, recovery: tuple[bool, bool, bool], block: int
) -> None:
    """Raise :class:`.OptionError` for options that the scheme or the method would ignore."""
    defaults = {name: p.default for name, p in signature(quantize).parameters.items()}
    ways = dict(zip(("equalize", "smooth", "bias_correction"), recovery, strict=True))
    static = {"method": method, "share": share, **ways}
    for name, value in ({"block": block} if scheme == "int8" else static).items():
        if value != defaults[name]:
            raise OptionError(f"{name} does nothing with the scheme {scheme}")
    if share != defaults["share"] and method != "percentile":
        raise OptionError(f"share does nothing with the method {method}")


class Step(Protocol):
    """A scheme with its options."""

    def warn_of_unused(self, graph: Graph, context: PassContext) -> None:
        """Warn of ranges of the context that quantizing a graph would not use."""

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        """How much each layer of a graph would suffer by itself: decibels by its name."""

    def quantize(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> Mapping[str, int]:
        """Quantize a graph in place, but for layers that ``leave`` gives a reason for."""


def _static(
    method: str, share: float, correct: bool, rounding: str, only: tuple[str, ...],
    exclude: tuple[str, ...],
) -> Step:  # fmt: skip
    from ..passes.quantize import Method, Quantize, WeightRounding

    if not 0 < share <= 1:
        raise OptionError(f"share is above 0 and at most 1, not {share}")
    known = _one_of("method", method, [m.value for m in Method])
    way = WeightRounding(_one_of("rounding", rounding, [r.value for r in WeightRounding]))
    return Quantize(Method(known), share, only, exclude, bias_correction=correct, rounding=way)


def _weights(
    scheme: str, block: int, rounding: str, only: tuple[str, ...], exclude: tuple[str, ...]
) -> Step:
    from ..passes.quantize import QuantizeWeights, Rounding

    _one_of("scheme", scheme, ["int8", *_WEIGHTS])
    if block < 16 or block & (block - 1):
        raise OptionError(f"block is a power of two from 16 on, not {block}")
    known = _one_of("rounding", rounding, [r.value for r in Rounding])
    return QuantizeWeights(_WEIGHTS[scheme], block, Rounding(known), only=only, exclude=exclude)


def _one_of(option: str, value: str, known: list[str]) -> str:
    if value not in known:
        raise OptionError(f"{option} is one of {', '.join(known)}, not {value!r}")
    return value


@dataclass
class _Quantization:
    """A model with what is needed to quantize it, several times in different ways."""

    graph: Graph
    source: Source
    options: CompileOptions
    listener: Listener
    compilation: Compilation
    tensors: dict[str, Row] = field(default_factory=dict)
    noise: dict[str, float | None] = field(default_factory=dict)
    journal: Journal = field(default_factory=lambda: Journal(None, ""))
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Any, data: Any, options: CompileOptions, listener: Listener,
        ranges: Mapping[str, Range], passes: str,
    ) -> _Quantization:  # fmt: skip
        """Import a model, and prepare it by some passes."""
        dumps = None if options.dump_ir is None else Path(options.dump_ir) / "quantize"
        first = replace(options, passes=passes, dump_ir=dumps, stop_after=None, tune=0.0)
        compilation = Compilation(first, listener, data, dict(ranges))
        graph, source = compilation.imported(model)
        graph = compilation.optimize(graph)
        warnings = (*source.warnings, *compilation.report["warnings"])
        work = cls(graph, replace(source, warnings=warnings), options, listener, compilation)
        for record in compilation.records:
            work.tables |= record.tables
        return work

    def keep(self, journal: str | os.PathLike[str] | None, data: Any, options: str) -> None:
        """Keep what is found in a file, with what it was found for."""
        place = os.fspath(data) if isinstance(data, (str, os.PathLike)) else ""
        key = f"{self.source.sha256} {place} {self.options.target} {options}"
        self.journal = Journal(None if journal is None else Path(journal), key)

    def check_ranges(self, step: Step) -> None:
        """Warn of ranges that nothing uses."""
        context = self._context()
        step.warn_of_unused(self.graph, context)
        warnings = (*self.source.warnings, *context.warnings)
        self.source = replace(self.source, warnings=warnings)

    def result(self, step: Step, left: Collection[str]) -> Quantized:
        """The model with all layers quantized that the step selects, but for those ``left``."""
        graph, context = self.graph.copy(), self._context()
        reasons = dict.fromkeys(left, "left in floats for accuracy")
        self.listener("quantize", 0, 1)
        step.quantize(graph, context, lambda node: reasons.get(node.name))
        context.refresh(graph)
        tensors = self._learn(context)
        self.listener("quantize", 1, 1)
        rows = context.tables.get("layers", ())
        layers = [{**row, "alone": self.noise.get(row["layer"])} for row in rows]
        warnings = [*self.source.warnings, *context.warnings]
        return Quantized(
            graph, replace(self.source, warnings=tuple(warnings)), self.options,
            {row["tensor"]: context.ranges[row["tensor"]] for row in tensors},
            layers, tensors, warnings, tables=self.tables,
        )  # fmt: skip

    def _learn(self, context: PassContext) -> list[Row]:
        """Keep the ranges that were found; gives the rows of tensors.

        What was seen of a tensor is only told when its range is found.
        """
        rows = list(context.tables.get("tensors", ()))
        for row in rows:
            self.tensors.setdefault(row["tensor"], row)
        self.compilation.ranges.update(context.ranges)
        return [self.tensors[row["tensor"]] for row in rows]

    def _context(self) -> PassContext:
        """A context of its own, with the ranges found so far."""
        context = self.compilation.manager().context()
        context.ranges = dict(self.compilation.ranges)
        context.journal, context.codes = self.journal, self.codes
        return context

    def controlled(
        self, step: Step, start: list[str], metric: Metric | None, max_drop: float
    ) -> Quantized:
        """The model with the fewest layers in floats, ``start`` and others, whose score drops by
        ``max_drop`` at most.
        """
        original = Compilation(self.options, silent).run_graph(self.graph.copy(), self.source)
        with original.session() as session:
            scores = Scores(self.compilation.data, session, metric)
            best = self._kept("float score", lambda: scores.of(session))

            def attempt(left: Collection[str]) -> Candidate[Quantized]:
                left = [*start, *left]
                found = self.result(step, left)
                found.score, found.float_score = self._score(found, left, scores), best
                return Candidate(found, tuple(left), found.score)

            least = best - max_drop
            first = attempt(())
            if first.score >= least:
                return first.model
            order = [name for name in self.worst_first(step) if name not in start]
            return within_budget(attempt, first, order, least).model

    def _score(self, found: Quantized, left: Collection[str], scores: Scores) -> float:
        def measured() -> float:
            with found.session() as candidate:
                return scores.of(candidate)

        return self._kept(f"score without {', '.join(left)}", measured)

    def _kept(self, name: str, work: Callable[[], float]) -> float:
        """What the journal has by this name, or else what ``work`` gives."""
        held = self.journal.load(name)
        if held is None:
            held = work()
            self.journal.save(name, held)
        return float(held)

    def worst_first(self, step: Step) -> list[str]:
        """Layers by how much each suffers by itself, the worst first."""
        from ..passes.quantize import worst_first

        if not self.noise:
            self.listener("sensitivity", 0, 1)
            context = self._context()
            held = self.journal.load("noise")
            self.noise = step.noise(self.graph, context) if held is None else held
            self.journal.save("noise", self.noise)
            self._learn(context)
            self.listener("sensitivity", 1, 1)
        return worst_first(self.noise)
