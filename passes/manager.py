"""Runs passes one after the other: verifies, times, counts and dumps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..ir.graph import Graph
from ..ir.text import print_graph
from ..ir.verify import verify
from .base import Pass, PassContext, PassError, PassResult
from .edits import EditCounter, Edits
from .pipeline import format_pass
from .target import TargetFacts


@dataclass(frozen=True)
class PassRecord:
    """What one pass of a run did, and how long it took with inference and verification.

    ``details`` counts changes as the pass does, ``edits`` nodes and values by rule.
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

    def to_report(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        return asdict(self)


BeforePass = Callable[[Pass, Graph], None]
"""Given each pass and the graph that it will change."""

OnPass = Callable[[str, int, int], None]
"""Told of progress: the name of the pass that ended, passes done, passes in all."""


@dataclass
class PipelineResult:
    """The graph after a run (the one that went in, changed), and what happened."""

    graph: Graph
    records: list[PassRecord]
    warnings: list[str]


class PassManager:
    """Runs ``passes`` over a graph.

    After every pass that changed something types are inferred again and, with ``verify``, the
    graph is verified. ``dump_dir`` receives the text after each pass (``00_import.txt``,
    ``03_fold.txt``); ``stop_after`` names the pass after which the run ends, or gives its number,
    from 1; ``facts`` answers what passes ask about the hardware; ``before`` is called before each
    pass, and ``on_pass`` hears of it as it ends. Raises ``ValueError`` where ``stop_after`` names
    no pass, or where the order of passes breaks what one of them requires.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        *,
        verify: bool = True,
        dump_dir: str | os.PathLike[str] | None = None,
        stop_after: str | int | None = None,
        facts: TargetFacts | None = None,
        before: BeforePass | None = None,
        on_pass: OnPass | None = None,
    ) -> None:
        self.passes = list(passes)
        self.verify = verify
        self.dump_dir = None if dump_dir is None else Path(dump_dir)
        self.stop_after = _stop_index(self.passes, stop_after)
        self.facts = facts
        self.before = before
        self.on_pass = on_pass
        _check_facts(self.passes)

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
                    index, p.name, format_pass(p), seconds, before, nodes,
                    result.changes, result.details, edits.by_rule,
                )  # fmt: skip
            )
            self._dump(graph, index, p.name)
            if self.on_pass is not None:
                self.on_pass(p.name, index, len(self.passes))
        context.listener = listener
        return PipelineResult(graph, records, context.warnings)

    def context(self) -> PassContext:
        """A fresh context for a run."""
        return PassContext() if self.facts is None else PassContext(self.facts)

    def run_pass(
        self,
        p: Pass,
        graph: Graph,
        context: PassContext | None = None,
        done: Sequence[str] = (),
    ) -> PassResult:
        """Run one pass, then infer and verify; ``done`` names the passes before it."""
        context = context or self.context()
        try:
            result = p.run(graph, context)
            if result.changes:
                context.refresh(graph)
                if self.verify:
                    # The types come from inference a moment ago: no need to infer them again.
                    verify(graph, types=False)
            return result
        except Exception as e:
            raise PassError.of(e, format_pass(p), done) from e

    def _dump(self, graph: Graph, index: int, name: str) -> None:
        if self.dump_dir is None:
            return
        self.dump_dir.mkdir(parents=True, exist_ok=True)
        path = self.dump_dir / f"{index:02d}_{name}.txt"
        path.write_text(print_graph(graph), encoding="utf-8", newline="\n")


def _stop_index(passes: Sequence[Pass], stop: str | int | None) -> int:
    """How many passes run."""
    if stop is None:
        return len(passes)
    if isinstance(stop, str) and not stop.isdigit():
        names = [p.name for p in passes]
        if stop not in names:
            told = ", ".join(dict.fromkeys(names))
            raise ValueError(f"cannot stop after {stop!r}: the passes are {told}")
        return len(names) - names[::-1].index(stop)
    if not 1 <= int(stop) <= len(passes):
        raise ValueError(f"cannot stop after pass {stop}: there are {len(passes)}")
    return int(stop)


def _check_facts(passes: Sequence[Pass]) -> None:
    facts: set[str] = set()
    for p in passes:
        missing = p.requires - facts
        if missing:
            raise ValueError(f"pass {p.name} needs a pass before it that ensures {sorted(missing)}")
        facts |= p.ensures


__all__ = ["OnPass", "PassManager", "PassRecord", "PipelineResult"]
