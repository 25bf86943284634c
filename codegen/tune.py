"""Tuning: times the best few ways to compute each heavy kernel of a model, and remembers them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import GraphkilnError
from ..ir.choices import Choice, KernelShape, shape_key
from ..ir.text import print_graph
from ..machine import cpu_features, machine_arch
from ..targets.base import Target
from ..targets.cpu.candidates import best_choices, kernel_graph
from ..targets.cpu.database import Database, DatabaseError, Entry, Timing, find_shipped
from ..targets.cpu.features import CpuFeatures
from ..targets.cpu.layouts import CpuLayouts
from ..targets.cpu.speed import template_seconds
from .child import Child, ChildLost
from .objects import cache_place

CANDIDATES = 3
"""How many tiles of each algorithm are timed."""
MARGIN = 1.02
"""How many times as fast as the cost model's choice another must be in order to replace it."""

_FILE = "tuned.sqlite"
_MODULE = "graphkiln.codegen.timing"
_CANDIDATE_SECONDS = 30.0
_ROUND_SECONDS = 0.3

Progress = Callable[[int, int], None]


class TuningError(GraphkilnError):
    """Kernels cannot be tuned, and why."""


@dataclass
class TuningReport:
    """How many of the distinct heavy kernels of a model tuning did what with.

    ``known`` were in a database already, ``timed`` were timed now, and ``changed`` of those got
    another choice than the cost model's. For ``late`` ones the time was up, and ``open`` ones
    cannot be timed since some extent is a run-time dim. ``failed`` counts candidates, not kernels,
    that did not build or run.
    """

    known: int = 0
    timed: int = 0
    changed: int = 0
    late: int = 0
    open: int = 0
    failed: int = 0


class Tuner:
    """Looks up choices for one target in the user's database and the package's, and adds to it.

    ``create`` makes the user's database where there is none. Raises :class:`TuningError` for
    targets that have no choices, or whose database does not exist, and
    :class:`~graphkiln.targets.cpu.database.DatabaseError` for one that cannot be used.
    """

    def __init__(self, target: Target, *, create: bool) -> None:
        layouts = target.hardware.layouts
        if not isinstance(layouts, CpuLayouts):
            raise TuningError(f"target {target.spec} has no kernels to tune")
        self.target = target
        self.cpu: CpuFeatures = layouts.cpu
        self.database = _open(create)
        self._plain = layouts

    def __enter__(self) -> Tuner:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    @property
    def layouts(self) -> CpuLayouts:
        """What the layout pass asks: the user's choices come before the package's."""
        return replace(self._plain, lookup=self.find)

    def find(self, shape: KernelShape) -> Choice | None:
        """The tuned choice for a shape; None where neither database has one."""
        found = self.database.find(shape, self.cpu.target)
        return find_shipped(self.cpu.target, shape) if found is None else found

    def recorder(self, counts: Counter[KernelShape]) -> CpuLayouts:
        """Layouts that count how often each shape is asked for, and know no tuned choice."""

        def lookup(shape: KernelShape) -> None:
            counts[shape] += 1

        return replace(self._plain, lookup=lookup)

    def tune(
        self, counts: Mapping[KernelShape, int], seconds: float, progress: Progress
    ) -> TuningReport:
        """Time the shapes that have no tuned choice yet, for about ``seconds``.

        The kernel with the largest estimated share of a run is timed first.
        """
        _check_machine(self.cpu)
        report = TuningReport()
        waiting = []
        for shape in by_share(self.cpu, counts):
            if self.find(shape) is not None:
                report.known += 1
            elif not (choices := best_choices(self.cpu, shape, CANDIDATES)):
                report.open += 1
            elif len(choices) > 1:
                waiting.append((shape, choices))
        deadline = time.monotonic() + seconds
        with _Bench(self.target.spec, self.cpu, deadline) as bench:
            for done, (shape, choices) in enumerate(waiting):
                progress(done, len(waiting))
                timings = bench.time(shape, choices)
                if timings is None:
                    report.late = len(waiting) - done
                    break
                self._keep(shape, timings, report)
        progress(len(waiting) - report.late, len(waiting))
        return report

    def measure(self, shapes: Sequence[KernelShape]) -> Iterator[list[Timing]]:
        """Time the candidates of each shape, also of those with a tuned choice; store nothing."""
        with _Bench(self.target.spec, self.cpu, float("inf")) as bench:
            for shape in shapes:
                yield bench.time(shape, best_choices(self.cpu, shape, CANDIDATES)) or []

    def _keep(self, shape: KernelShape, timings: list[Timing], report: TuningReport) -> None:
        import tvm

        report.timed += 1
        report.failed += sum(t.seconds is None for t in timings)
        chosen = fastest(timings)
        if chosen is None:
            return
        report.changed += chosen != timings[0].choice
        entry = Entry(chosen, tuple(timings), str(tvm.__version__))
        self.database.store(shape, self.cpu.target, entry)


def database_path() -> Path | None:
    """The user's database; None where nothing is kept."""
    place = cache_place()
    return None if place is None else place / _FILE


def _open(create: bool) -> Database:
    path = database_path()
    if path is None:
        raise TuningError("GRAPHKILN_CACHE is empty, so there is no place for tuned kernels")
    if not create and not path.exists():
        raise TuningError(f"there is no database of tuned kernels {path}; --tune makes one")
    return Database(path, create=create)


def _check_machine(cpu: CpuFeatures) -> None:
    here = machine_arch()
    if here != cpu.arch:
        raise TuningError(f"kernels for {cpu.target} cannot be timed on a machine of type {here}")
    missing = sorted(set(cpu.required) - cpu_features())
    if missing:
        lacks = ", ".join(missing)
        raise TuningError(f"kernels for {cpu.target} cannot be timed here: this CPU lacks {lacks}")


def by_share(cpu: CpuFeatures, counts: Mapping[KernelShape, int]) -> list[KernelShape]:
    """The shapes by their estimated share of a run's time, the largest first."""
    shares = {s: template_seconds(cpu, s) * count for s, count in counts.items()}
    return sorted(counts, key=lambda s: (-shares[s], shape_key(s)))


def fastest(timings: list[Timing], margin: float = MARGIN) -> Choice | None:
    """The choice with the least time, but the first (the cost model's) unless that is ``margin``
    times as slow. None where no candidate ran.
    """
    ran = [(t.seconds, t.choice) for t in timings if t.seconds is not None]
    if not ran:
        return None
    seconds, choice = min(ran, key=lambda r: r[0])
    first = timings[0]
    near = first.seconds is not None and first.seconds <= seconds * margin
    return first.choice if near else choice


class _Bench:
    """A child process that times kernels.

    If it dies or hangs, the candidate at hand counts as failed, and a new process takes over.
    """

    def __init__(self, target: str, cpu: CpuFeatures, deadline: float) -> None:
        self.target = target
        self.cpu = cpu
        self.deadline = deadline
        self.child: Child | None = None

    def __enter__(self) -> _Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def time(self, shape: KernelShape, choices: list[Choice]) -> list[Timing] | None:
        """The seconds of each candidate; None where the time was up."""
        bad: set[Choice] = set()
        while True:
            good = [c for c in choices if c not in bad]
            lost = self._prepare(shape, good, bad)
            if time.monotonic() >= self.deadline:
                return None
            if lost:
                continue  # what else was built went with the process
            good = [c for c in good if c not in bad]
            try:
                seconds = self._ask({"seconds": _ROUND_SECONDS})["seconds"] if good else []
            except ChildLost:
                if time.monotonic() >= self.deadline:
                    return None
                bad.update(good)
                seconds, good = [], []
            found = dict(zip(good, seconds, strict=True))
            return [Timing(c, found.get(c)) for c in choices]

    def _prepare(self, shape: KernelShape, choices: list[Choice], bad: set[Choice]) -> bool:
        """Build candidates in the child, and add those that fail to ``bad``.

        Returns whether the child was lost over one of them.
        """
        for choice in choices:
            text = print_graph(kernel_graph(self.cpu, shape, choice))
            try:
                answer = self._ask({"text": text, "target": self.target})
            except ChildLost:
                bad.add(choice)
                return True
            if "error" in answer:
                bad.add(choice)
        return False

    def _ask(self, request: Mapping[str, object]) -> dict[str, list[float]]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ChildLost("no time is left")
        if self.child is None:
            self.child = Child(_MODULE, {"TVM_NUM_THREADS": "1"})
        try:
            return self.child.ask(request, min(left, _CANDIDATE_SECONDS))
        except ChildLost:
            self._drop()
            raise

    def _drop(self) -> None:
        if self.child is not None:
            self.child.close()
        self.child = None


__all__ = ["CANDIDATES", "MARGIN", "DatabaseError", "Tuner", "TuningError", "TuningReport",
           "by_share", "database_path", "fastest"]  # fmt: skip
