"""The pass manager: runs passes one after the other, verifies, times, counts and dumps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..ir.graph import Graph, GraphError
from ..ir.hardware import Hardware
from ..ir.text import print_graph
from ..ir.verify import verify
from .base import Pass, PassContext, PassError, PassResult, Row, pass_class, pass_names
from .edits import EditCounter, Edits
from .pipeline import PipelineError, format_pass
from .ranges import Range
from .services import Feeds, Runner


@dataclass(frozen=True)
class PassRecord:
    """What one pass did, and the seconds it took, with inference and verification.

    ``details`` are the changes as the pass counts them, ``edits`` nodes and values by rule,
    ``numbers`` the measurements of the pass, and ``tables`` what it found in rows.
    """

    index: int
    name: str
    text: str
    seconds: float
    nodes_before: int
    nodes_after: int
    changes: int
    details: Mapping[str, int] = field(default_factory=dict)
    edits: Mapping[str, Edits] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, list[Row]] = field(default_factory=dict)

    def to_report(self) -> dict[str, Any]:
        """The record as a dict for JSON."""
        return asdict(self)


BeforePass = Callable[[Pass, Graph], None]
"""Called with each pass and the graph, before it runs."""

OnPass = Callable[[str, int, int], None]
"""Called after each pass, with its name, the number of passes done, and of all passes."""


@dataclass
class PipelineResult:
    """The graph after a run (the same object, changed in place), and a record of each pass."""

    graph: Graph
    records: list[PassRecord]
    warnings: list[str]


class PassManager:
    """Runs ``passes`` over a graph.

    After every pass that changed something, types are inferred again and, with ``verify``, the
    graph is verified. ``dump_dir`` is a folder for the text after each pass (``00_import.txt``,
    ``03_fold.txt``). ``stop_after`` is the name of the pass after which the run ends, or its
    number, from 1. ``hardware`` answers questions about the target, and ``runner`` runs graphs for
    passes, on ``data`` or other feeds; ``ranges`` of tensors are read and added to. ``before`` is
    called before each pass, ``on_pass`` after it.
    Raises :class:`PipelineError` if ``stop_after`` names no pass.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        *,
        verify: bool = True,
        dump_dir: str | os.PathLike[str] | None = None,
        stop_after: str | int | None = None,
        hardware: Hardware | None = None,
        runner: Runner | None = None,
        data: Iterable[Feeds] = (),
        ranges: dict[str, Range] | None = None,
        before: BeforePass | None = None,
        on_pass: OnPass | None = None,
    ) -> None:
        self.passes = list(passes)
        self.verify = verify
        self.dump_dir = None if dump_dir is None else Path(dump_dir)
        self.stop_after = _stop_index(self.passes, stop_after)
        self.hardware = hardware
        self.runner = runner
        self.data = data
        self.ranges = {} if ranges is None else ranges
        self.before = before
        self.on_pass = on_pass

    def run(self, graph: Graph, context: PassContext | None = None) -> PipelineResult:
        """Change ``graph`` in place; raises :class:`PassError` naming the pass that failed.

        A listener of the context hears every edit.
        """
        context = context or self.context()
        listener = context.listener
        records: list[PassRecord] = []
        self._dump(graph, 0, "import")
        nodes = graph.count_nodes()
        for index, p in enumerate(self.passes[: self.stop_after], 1):
            if self.before is not None:
                self.before(p, graph)
            edits = EditCounter(listener)
            context.listener = edits
            started = time.perf_counter()
            result = self.run_pass(p, graph, context, [r.text for r in records])
            seconds = time.perf_counter() - started
            before, nodes = nodes, graph.count_nodes()
            records.append(
                PassRecord(
                    index,
                    p.name,
                    format_pass(p),
                    seconds,
                    before,
                    nodes,
                    result.changes,
                    result.details,
                    edits.by_rule,
                    result.numbers,
                    result.tables,
                )  # fmt: skip
            )
            self._dump(graph, index, p.name)
            if self.on_pass is not None:
                self.on_pass(p.name, index, len(self.passes))
        context.listener = listener
        return PipelineResult(graph, records, context.warnings)

    def context(self) -> PassContext:
        """A fresh context for a run."""
        context = PassContext() if self.hardware is None else PassContext(self.hardware)
        context.data, context.ranges = self.data, self.ranges
        if self.runner is not None:
            context.runner = self.runner
        return context

    def run_pass(
        self,
        p: Pass,
        graph: Graph,
        context: PassContext | None = None,
        done: Sequence[str] = (),
    ) -> PassResult:
        """Run one pass, then infer types and verify; ``done`` are the texts of the passes before
        it.
        """
        context = context or self.context()
        context.numbers, context.tables = {}, {}
        try:
            _require(p, graph)
            result = p.run(graph, context)
            if result.changes:
                context.refresh(graph)
                if self.verify:
                    # Types were just inferred, so verification need not infer them again.
                    verify(graph, types=False)
            if self.verify:
                _ensure(p, graph)
            return replace(
                result,
                numbers={**result.numbers, **context.numbers},
                tables={**result.tables, **context.tables},
            )
        except Exception as e:
            raise PassError.of(e, format_pass(p), done) from e

    def _dump(self, graph: Graph, index: int, name: str) -> None:
        if self.dump_dir is None:
            return
        self.dump_dir.mkdir(parents=True, exist_ok=True)
        path = self.dump_dir / f"{index:02d}_{name}.txt"
        path.write_text(print_graph(graph), encoding="utf-8", newline="\n")


def _stop_index(passes: Sequence[Pass], stop: str | int | None) -> int:
    """The number of passes to run."""
    if stop is None:
        return len(passes)
    if isinstance(stop, str) and not stop.isdigit():
        names = [p.name for p in passes]
        if stop not in names:
            told = ", ".join(dict.fromkeys(names))
            raise PipelineError(f"cannot stop after {stop!r}: the passes are {told}")
        return len(names) - names[::-1].index(stop)
    if not 1 <= int(stop) <= len(passes):
        raise PipelineError(f"cannot stop after pass {stop}: there are {len(passes)}")
    return int(stop)


def _require(p: Pass, graph: Graph) -> None:
    """Raise if the graph lacks a fact that the pass requires."""
    for fact in p.requires:
        objection = fact.missing(graph)
        if objection is not None:
            others = [n for n in pass_names() if fact in (pass_class(n) or Pass).ensures]
            hint = f"; run {' or '.join(others)} before it" if others else ""
            raise GraphError(f"it needs a graph with {fact.name}, and {objection}{hint}")


def _ensure(p: Pass, graph: Graph) -> None:
    """Raise if the graph lacks a fact that the pass says it ensures."""
    for fact in p.ensures:
        objection = fact.missing(graph)
        if objection is not None:
            raise GraphError(f"it says that it leaves {fact.name}, but {objection}")


__all__ = ["OnPass", "PassManager", "PassRecord", "PipelineResult"]
