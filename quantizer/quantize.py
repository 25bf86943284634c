"""``graphkiln.quantize``: calibration, quantization, and the search within a budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..driver import Compilation, CompileOptions, Listener, OptionError, Shapes, Source, silent
from .control import BudgetError, Candidate, Clock, within_budget
from .fallback import WithFallback
from .journal import Journal
from .precision import FLOAT, Entry, entries_of, mixed_step
from .result import Quantized
from .schemes import SCHEMES, Step, option_names, step_of
from .scores import Metric, Scores

if TYPE_CHECKING:
    import numpy as np

    from ..driver import Data
    from ..ir.graph import Graph
    from ..passes.base import PassContext, Row
    from ..passes.ranges import Range
    from .data_free import MadeUp

_BEFORE = (
    "settle,decompose,recognize{attention=false},simplify,recognize{attention=false},fold_affine,"
    "simplify"
)
"""The passes before quantization: those of ``settle`` and ``rewrite``, but for attention, which is
recognised when the quantized model is compiled. What they leave has ONNX form, and what is constant
is known."""


_RANGED = ("int8", "int16")
"""The schemes that go by ranges of tensors."""
_SMOOTH = {"int8": "smooth", "int8-dynamic": "smooth{dynamic=true}"}
"""The pass that moves large channels, for each scheme that it helps."""


def quantize(
    model: Any,
    data: str | os.PathLike[str] | Data = (),
    target: str = "cpu",
    shapes: Shapes | None = None,
    *,
    scheme: str = "int8",
    equalize: bool = False,
    smooth: bool = False,
    only: Iterable[str] = (),
    exclude: Iterable[str] = (),
    precision: str | os.PathLike[str] | Sequence[Entry] = (),
    exclude_worst: int = 0,
    fallback: str = FLOAT,
    ranges: Mapping[str, Range] | None = None,
    data_free: bool = False,
    metric: Metric | None = None,
    max_drop: float | None = None,
    time_budget: float | None = None,
    journal: str | os.PathLike[str] | None = None,
    options: CompileOptions | None = None,
    listener: Listener | None = None,
    **fields: Any,
) -> Quantized:
    """Quantize an ONNX model after training.

    ``model`` is a path, bytes or an ``onnx.ModelProto`` in floats. ``data`` are samples: dicts of
    arrays by input, or a source as :func:`.samples.samples_of` reads it; what else they hold, such
    as labels, the metric sees.

    Each ``scheme`` has options, which are keywords, too (:mod:`.schemes`). ``int8`` quantizes
    weights and activations, ``int16`` gives activations 16 bits. A tensor's range is that of
    ``ranges``, or is picked by ``method`` (``minmax``, ``average``, ``percentile``, ``mse``,
    ``entropy``) from what runs on the samples show; ``share`` is the share of the numbers inside
    for percentiles. With ``bias_correction``, biases make up for the shifts that quantization
    brings to the means of channels. Layers that integers would slow down on the target stay
    floats, but with ``all_layers``. Where the target sums products in pairs that could saturate,
    ``pairs`` of weights are chosen to be ``safe``, or ``split`` when the model is compiled.
    ``int8-dynamic`` quantizes both with ranges that each run finds, and needs no samples. The
    schemes ``int8-weights`` and ``int4-weights`` quantize weights in blocks of ``block`` along the
    sums.
    ``rounding`` of weights is ``nearest``, the default for ``int8``, ``mse``, the default of the
    others and only theirs, or ``gptq``, which takes samples. ``float16-weights`` and
    ``bfloat16-weights`` store weights in 16 bits.

    With ``equalize``, channels between two layers get ranges that are alike, and with ``smooth``,
    large channels of activations move into weights, before ranges are found, which takes samples
    for ``int8-dynamic``, too. With ``data_free``, ranges come from inputs that are made up
    (:mod:`.data_free`) in the place of samples, and the result has a warning that says so.

    ``only`` and ``exclude`` are patterns of layers that are quantized and that are not: names of
    nodes, or ops. ``precision`` gives some layers another scheme, or none: entries, or a file with
    them (:mod:`.precision`); ``scheme`` and ``only`` are then about the others. ``exclude_worst``
    leaves so many layers, those whose results have the lowest ratio of signal to quantization
    noise. Layers that are left stay floats, or get the scheme ``fallback`` with its defaults. With
    ``max_drop``, as few layers are left as keep the mean of ``metric`` over the samples (default:
    agreement with the float model, 0 to 1) within that of the float model, in floats where
    ``fallback`` would not do. No attempt is begun that is expected to end later than
    ``time_budget`` seconds after the call, and the result is the best one until then. ``journal``
    is a file in which what was found is kept: the same call goes on from there if it was stopped,
    and comes to the same result. Further keywords are fields of :class:`CompileOptions`, by which
    the result is compiled.

    Raises :class:`.OptionError` for options that make no sense, :class:`.SamplesError` for data
    and :class:`.PrecisionError` for precision files that cannot be read, :class:`.PassError` for
    samples that do not fit the model, :class:`.BudgetError` where no layer can be quantized within
    ``max_drop`` and ``time_budget``, :class:`.DataFreeError` for inputs that cannot be made up, and
    what importing and compiling raise.
    """
    from ..codegen.collector import rare_collections

    given = {name: fields.pop(name) for name in option_names() & fields.keys()}
    chosen = options or CompileOptions(target=target, shapes=shapes, **fields)
    if data_free:
        _refuse_with_data_free(scheme, data, max_drop)
    entries = entries_of(precision)
    step: Step = (
        mixed_step(entries, scheme, given, only, exclude)
        if entries
        else step_of(scheme, given, only, exclude)
    )
    _refuse_recovery(scheme, equalize, smooth)
    passes = ",".join([_BEFORE, *["equalize"] * equalize, *([_SMOOTH[scheme]] if smooth else [])])
    other = None if fallback == FLOAT else WithFallback(step, _fallback(fallback))
    if fallback == scheme and not given and not entries:
        raise OptionError(f"fallback does nothing: it is the scheme {scheme}, as for all layers")
    if other is not None and max_drop is None and not exclude_worst:
        raise OptionError("fallback needs max_drop or exclude_worst, which leave layers to it")
    if exclude_worst < 0:
        raise OptionError(f"exclude_worst is 0 or more, not {exclude_worst}")
    _check_budgets(metric, max_drop, time_budget)
    clock = Clock(time_budget)
    with rare_collections():
        work = _Quantization.of(
            model, data, chosen, listener or silent, ranges or {}, passes, data_free
        )
        work.keep(
            journal, data, f"{passes} {step} {dict(ranges or {})} {max_drop} {data_free} {fallback}"
        )
        work.check_ranges(step)
        left = work.worst_first(step)[:exclude_worst] if exclude_worst else []
        if max_drop is None:
            return work.result(other or step, left)
        tried = [step] if other is None else [other, step]
        return work.controlled(tried, left, metric, max_drop, clock)


def _fallback(scheme: str) -> Step:
    """The scheme of layers that are left. Raises :class:`.OptionError` where there is none."""
    if scheme not in SCHEMES:
        known = ", ".join([FLOAT, *SCHEMES])
        raise OptionError(f"fallback is one of {known}, not {scheme!r}")
    return step_of(scheme, {})


def _check_budgets(
    metric: Metric | None, max_drop: float | None, time_budget: float | None
) -> None:
    """Raise :class:`.OptionError` for what would be ignored, and for budgets below 0."""
    if max_drop is None:
        for value, name in ((metric, "a metric"), (time_budget, "a time budget")):
            if value is not None:
                raise OptionError(f"{name} needs max_drop, the drop that is allowed")
    for value, name in ((max_drop, "max_drop"), (time_budget, "time_budget")):
        if value is not None and not 0 <= value < float("inf"):
            raise OptionError(f"{name} is 0 or more, not {value}")


def _refuse_with_data_free(scheme: str, data: Any, max_drop: float | None) -> None:
    """Raise :class:`.OptionError` for what makes no sense with made-up data."""
    if scheme not in _RANGED:
        raise OptionError(f"data_free does nothing with the scheme {scheme}")
    if isinstance(data, (str, os.PathLike)) or data != ():
        raise OptionError("data_free takes the place of samples: give one of them")
    if max_drop is not None:
        raise OptionError("max_drop needs samples of real inputs to measure on, not data_free")


def _refuse_recovery(scheme: str, equalize: bool, smooth: bool) -> None:
    """Raise :class:`.OptionError` for ways to lose less with schemes that they are not for."""
    for name, asked, schemes in (("equalize", equalize, _RANGED), ("smooth", smooth, _SMOOTH)):
        if asked and scheme not in schemes:
            raise OptionError(f"{name} does nothing with the scheme {scheme}")


def _first_found(steps: list[Step], search: Callable[[Step], Quantized]) -> Quantized:
    """What the search by the first of the steps finds that finds something."""
    for step in steps[:-1]:
        try:
            return search(step)
        except BudgetError:
            continue
    return search(steps[-1])


@dataclass
class _Quantization:
    """A model with what is needed to quantize it, several times in different ways."""

    graph: Graph
    source: Source
    options: CompileOptions
    listener: Listener
    compilation: Compilation
    tensors: dict[tuple[str, int], Row] = field(default_factory=dict)
    noise: dict[str, float | None] = field(default_factory=dict)
    journal: Journal = field(default_factory=lambda: Journal(None, ""))
    made_up: MadeUp | None = None
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Any, data: Any, options: CompileOptions, listener: Listener,
        ranges: Mapping[str, Range], passes: str, data_free: bool = False,
    ) -> _Quantization:  # fmt: skip
        """Import a model, and prepare it by passes; with ``data_free``, make up data for it."""
        from .data_free import WARNING, MadeUp

        dumps = None if options.dump_ir is None else Path(options.dump_ir) / "quantize"
        first = replace(options, passes=passes, dump_ir=dumps, stop_after=None, tune=0.0)
        compilation = Compilation(first, listener, data, dict(ranges))
        graph, source = compilation.imported(model)
        made_up = MadeUp.of(graph, ranges) if data_free else None
        graph = compilation.optimize(graph)
        told = () if made_up is None else (WARNING,)
        warnings = (*source.warnings, *compilation.report["warnings"], *told)
        work = cls(
            graph, replace(source, warnings=warnings), options, listener, compilation,
            made_up=made_up,
        )  # fmt: skip
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
        from ..passes.ranges import remark_on_unused

        context = self._context()
        remark = remark_on_unused(context.ranges, step.ranged(self.graph, context))
        if remark is not None:
            warnings = (*self.source.warnings, remark)
            self.source = replace(self.source, warnings=warnings)

    def result(self, step: Step, left: Collection[str]) -> Quantized:
        """The model with all layers quantized that the step selects, but for those ``left``."""
        graph, context = self.graph.copy(), self._context()
        reasons = dict.fromkeys(left, "left for accuracy")
        self.listener("quantize", 0, 1)
        step.quantize(graph, context, lambda node: reasons.get(node.name))
        context.refresh(graph)
        tensors = self._learn(context)
        self.listener("quantize", 1, 1)
        rows = context.tables.get("layers", ())
        layers = [{"gain": None, **row, "alone": self.noise.get(row["layer"])} for row in rows]
        warnings = [*self.source.warnings, *context.warnings]
        return Quantized(
            graph, replace(self.source, warnings=tuple(warnings)), self.options,
            {row["tensor"]: context.ranges[row["tensor"]] for row in tensors},
            layers, tensors, warnings, tables=self.tables,
        )  # fmt: skip

    def _learn(self, context: PassContext) -> list[Row]:
        """Keep the ranges that were found; gives the rows of tensors.

        What was seen of a tensor is only told when its range is found. Names that the model does
        not have may stand for other tensors the next time.
        """
        names = {v.name for node in self.graph.nx for v in node.values}
        rows = list(context.tables.get("tensors", ()))
        for row in rows:
            if row["tensor"] in names:
                self.tensors.setdefault((row["tensor"], row["bits"]), row)
        found = context.ranges.items()
        self.compilation.ranges.update((name, r) for name, r in found if name in names)
        return [self.tensors.get((row["tensor"], row["bits"]), row) for row in rows]

    def _context(self) -> PassContext:
        """A context of its own, with the ranges found so far."""
        context = self.compilation.manager().context()
        context.ranges = dict(self.compilation.ranges)
        context.journal, context.codes = self.journal, self.codes
        if self.made_up is not None:
            self.made_up.replace_data(context)
        return context

    def controlled(
        self, steps: list[Step], start: list[str], metric: Metric | None, max_drop: float,
        clock: Clock,
    ) -> Quantized:  # fmt: skip
        """The model with the fewest layers left, ``start`` and others, whose score drops by
        ``max_drop`` at most, as far as the ``clock`` allows to look for it. It is by the first of
        the steps that has one.
        """
        original = Compilation(self.options, silent).run_graph(self.graph.copy(), self.source)
        with original.session() as session:
            scores = Scores(self.compilation.data, session, metric)
            best = self._kept("float score", lambda: scores.of(session))

            def candidate(step: Step, left: Collection[str]) -> Candidate[Quantized]:
                left = [*start, *left]
                found = self.result(step, left)
                found.score, found.float_score = self._score(found, step, left, scores), best
                return Candidate(found, tuple(left), found.score)

            def search(step: Step) -> Quantized:
                def attempt(left: Collection[str]) -> Candidate[Quantized]:
                    return clock.timed(lambda: candidate(step, left))

                first = attempt(())
                if first.score >= least:
                    return first.model
                order = [name for name in self.worst_first(step) if name not in start]
                every = isinstance(step, WithFallback)
                return within_budget(attempt, first, order, least, clock, every=every).model

            least = best - max_drop
            chosen = _first_found(steps, search)
            if clock.stopped:
                chosen.warnings.append(
                    f"the {clock.seconds:g} s are up: with more, fewer layers may stay floats"
                )
            return chosen

    def _score(self, found: Quantized, step: Step, left: Collection[str], scores: Scores) -> float:
        def measured() -> float:
            # A copy: what compiling finds out would be missing where a journal has the score.
            with replace(found).session() as candidate:
                return scores.of(candidate)

        name = f"score of {type(step).__name__} without" if left else "score without"
        return self._kept(f"{name} {', '.join(left)}", measured)

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
