"""``graphkiln.prune``: pruning by a ratio, or as far as operations or accuracy ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..driver import Compilation, CompileOptions, Listener, OptionError, Shapes, Source, silent
from ..quantizer.scores import Metric, Scores
from .result import Pruned, Size

if TYPE_CHECKING:
    from ..driver import Data
    from ..ir.graph import Graph
    from ..passes.base import Pass

_BEFORE = "settle,cse,dce"
"""The passes before pruning. Sizes are known after them, and batch normalizations still apart."""

_HALVINGS = 7
"""A ratio that is searched for is found within 2^-7 of the range."""


def prune(
    model: Any,
    data: str | os.PathLike[str] | Data = (),
    target: str = "cpu",
    shapes: Shapes | None = None,
    *,
    ratio: float | None = None,
    target_flops: float | None = None,
    max_drop: float | None = None,
    metric: Metric | None = None,
    overall: bool = False,
    layers: Mapping[str, float] | None = None,
    criterion: str = "l2",
    multiple: int | None = None,
    reconstruct: bool = False,
    options: CompileOptions | None = None,
    listener: Listener | None = None,
    **fields: Any,
) -> Pruned:
    """Remove channels, units and heads from an ONNX model, wherever they are coupled.

    ``model`` is a path, bytes or an ``onnx.ModelProto``. Dropped are the least important channels
    by ``criterion``: ``l1`` or ``l2`` (magnitudes of weights, the default), ``batch-norm``
    (scales), ``median`` (filters near the geometric median), ``activation`` (on ``data``: dicts of
    arrays by input, or a source as :func:`.samples.samples_of` reads it) or ``random``.

    ``ratio`` (0 to 1, default 0.3) is the share of the channels of every axis, or with ``overall``
    of all channels together. ``layers`` gives nodes whose names or ops match a pattern ratios of
    their own for the channels that they make; 0 leaves these. Axes of four times ``multiple`` or
    more stay multiples of it (default: the channels that the target's kernels take at a time).

    With ``reconstruct``, the weights that read dropped channels are replaced by those that come
    closest to the original on ``data``, by least squares.

    With ``target_flops`` (0 to 1) the least ratio is taken that leaves no more than this share of
    the operations, and with ``max_drop`` the greatest one that keeps the mean of ``metric`` over
    ``data`` (default: agreement with the original, 0 to 1) within that of the original. Further
    keywords are fields of :class:`CompileOptions`, by which the result is compiled.

    Channels of the outermost graph are pruned. Results are those of the original in which each
    dropped channel counts for 0 wherever it is summed over. Raises :class:`.OptionError` for
    options that make no sense and for a ``target_flops`` that cannot be reached,
    :class:`.PassError` for samples that do not fit, and what importing and compiling raise.
    """
    from ..codegen.collector import rare_collections
    from ..passes.prune import ON_SAMPLES

    chosen = options or CompileOptions(target=target, shapes=shapes, **fields)
    _check(ratio, target_flops, max_drop, metric)
    needs_data = max_drop is not None or reconstruct or criterion in ON_SAMPLES
    has_data = not isinstance(data, tuple) or bool(data)
    if has_data is not needs_data:
        why = "needs samples: give data" if needs_data else "uses no samples: leave the data out"
        raise OptionError(f"pruning by {criterion!r} {why}")
    how = _How(overall, dict(layers or {}), criterion, multiple, reconstruct)
    with rare_collections():
        work = _Pruning.of(model, data, chosen, listener or silent, how)
        if target_flops is not None:
            return work.within_operations(target_flops)
        if max_drop is not None:
            return work.within_drop(max_drop, metric)
        return work.at(0.3 if ratio is None else ratio)


def _check(
    ratio: float | None, target_flops: float | None, max_drop: float | None, metric: Any
) -> None:
    """Raise :class:`.OptionError` for numbers out of range, and for what would be ignored."""
    goals = {"ratio": ratio, "target_flops": target_flops, "max_drop": max_drop}
    given = [name for name, value in goals.items() if value is not None]
    if len(given) > 1:
        raise OptionError(f"give one of {' and '.join(given)}, not both")
    for name in given:
        value = goals[name]
        if value is not None and not 0 <= value < 1:
            raise OptionError(f"{name} is 0 or more, and less than 1, not {value}")
    if metric is not None and max_drop is None:
        raise OptionError("a metric needs max_drop, the drop that is allowed")


@dataclass(frozen=True)
class _How:
    """The options that do not say how much."""

    overall: bool
    layers: dict[str, float]
    criterion: str
    multiple: int | None
    reconstruct: bool

    def step(self, ratio: float) -> Pass:
        """The pass that drops this share."""
        from ..passes.prune import Prune

        layers = tuple(f"{pattern}={own}" for pattern, own in self.layers.items())
        return Prune(
            ratio, self.overall, layers, self.criterion, self.multiple, self.reconstruct
        )  # fmt: skip


@dataclass
class _Pruning:
    """A model with what is needed to prune it, several times by different ratios."""

    graph: Graph
    source: Source
    options: CompileOptions
    listener: Listener
    compilation: Compilation
    how: _How
    before: Size

    @classmethod
    def of(
        cls, model: Any, data: Any, options: CompileOptions, listener: Listener, how: _How
    ) -> _Pruning:
        """Import a model, and find its sizes."""
        dumps = None if options.dump_ir is None else Path(options.dump_ir) / "prune"
        first = replace(options, passes=_BEFORE, dump_ir=dumps, stop_after=None, tune=0.0)
        compilation = Compilation(first, listener, data)
        graph, source = compilation.imported(model)
        graph = compilation.optimize(graph)
        warnings = (*source.warnings, *compilation.report["warnings"])
        source = replace(source, warnings=warnings)
        return cls(graph, source, options, listener, compilation, how, Size.of(graph))

    def at(self, ratio: float) -> Pruned:
        """The model without this share of its channels."""
        from ..passes.manager import PassManager

        graph, context = self.graph.copy(), self.compilation.manager().context()
        self.listener("prune", 0, 1)
        PassManager([self.how.step(ratio)]).run(graph, context)
        self.listener("prune", 1, 1)
        return Pruned(
            graph, self.source, self.options, ratio, self.before, Size.of(graph),
            context.tables.get("groups", []), [*self.source.warnings, *context.warnings],
        )  # fmt: skip

    def within_operations(self, share: float) -> Pruned:
        """The model with the least ratio that leaves this share of the operations at most."""
        most = share * self.before.operations
        last = self.at(1 - 2**-_HALVINGS)
        if last.after.operations > most:
            least = last.after.operations / max(self.before.operations, 1)
            raise OptionError(
                f"no less than {least:.1%} of the operations are left whatever is pruned, and"
                f" target_flops is {share}"
            )
        return _halved(self.at, last, lambda found: found.after.operations <= most, least=True)

    def within_drop(self, drop: float, metric: Metric | None) -> Pruned:
        """The model with the greatest ratio whose score drops by this at most."""
        original = Compilation(self.options, silent).run_graph(self.graph.copy(), self.source)
        with original.session() as session:
            scores = Scores(self.compilation.data, session, metric)
            best = scores.of(session)

            def scored(ratio: float) -> Pruned:
                found = self.at(ratio)
                with found.session() as pruned:
                    found.score, found.original_score = scores.of(pruned), best
                return found

            def keeps(found: Pruned) -> bool:
                return found.score is not None and found.score >= best - drop

            return _halved(scored, scored(0.0), keeps, least=False)


def _halved(
    at: Callable[[float], Pruned], first: Pruned, suits: Callable[[Pruned], bool], *, least: bool
) -> Pruned:
    """The model with the least (or greatest) ratio that suits, by halving; ``first`` does."""
    low, high, best = 0.0, 1.0, first
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = at(middle)
        if suits(found):
            best = found
        if suits(found) is least:
            high = middle
        else:
            low = middle
    return best


__all__ = ["prune"]
