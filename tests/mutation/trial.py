"""Runs the tests of mutants, each in a process of its own that is made by fork.

A pytest session collects the tests once. What changes a function is put into the functions that
are there, and only tests that come to the changed statement run, those of little else first. What
changes a table that a module makes when it is imported, or a function that makes it, runs in a
process that has not imported it yet, with the tests that come to anything in its file.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from multiprocessing import Pipe
from types import CodeType
from typing import Any

import pytest

from .mutants import ROOT, Mutant, RuleFile
from .swap import LiveFunctions, hear_hits, instrumented, number_sites

LIMIT = 30.0
"""Seconds for the tests of one mutant: rules that undo each other may never end."""
MOST_TESTS = 100
"""Tests of little else that are run for one mutant."""
WIDEST_TESTS = 20
"""Where there are more than that, so many of those that come to most are run as well."""
_SURVEY = 1800.0
"""Seconds in which the tests of all files must have run once."""

_HEAVY = (
    "numpy", "networkx", "onnx", "onnx.reference", "hypothesis", "onnxruntime", "z3",
    "graphkiln.ir.interpreter", "graphkiln.ir.text",
)  # fmt: skip
_OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "--rootdir", str(ROOT / "tests"),
            "-c", str(ROOT / "tests" / "pytest.ini")]  # fmt: skip


Result = tuple[str, int, float]


@dataclass(frozen=True)
class Outcome:
    """``test`` failed with the mutant (or how it ended else); empty where all passed."""

    mutant: Mutant
    test: str
    tests: int
    seconds: float

    @property
    def is_caught(self) -> bool:
        return bool(self.test)


class Died(Exception):
    """A forked process came to no end of its own."""


@dataclass(frozen=True)
class _End:
    """The last thing that a forked process sends: nothing, or what it died of."""

    error: str = ""


Send = Callable[[Any], None]


def in_child(work: Callable[[Send], None], limit: float) -> Iterator[Any]:
    """What ``work`` sends from a forked process; raises Died where that does not return."""
    here, there = Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        _child(work, there)
    there.close()
    try:
        while here.poll(limit):
            found = here.recv()
            if isinstance(found, _End):
                if found.error:
                    raise Died(found.error)
                return
            yield found
        raise Died(f"no end within {limit:.0f} s")
    except EOFError:
        raise Died("the process died") from None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        here.close()


def _child(work: Callable[[Send], None], there: Any) -> None:
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        work(there.send)
        there.send(_End())
    except BaseException:
        there.send(_End(traceback.format_exc()))
    finally:
        os._exit(0)


# ---- functions -----------------------------------------------------------------------------------


class Collected:
    """A pytest plugin that hands the collected tests to ``use`` in the place of running them."""

    def __init__(self, use: Callable[[list[pytest.Item]], None]) -> None:
        self._use = use
        self.error: Exception | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        try:
            self._use(session.items)
        except Exception as error:
            self.error = error
        return True


class Failures:
    """A pytest plugin that knows which tests failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def run_items(items: Sequence[pytest.Item]) -> Failures:
    """Run tests of a session up to the first that fails."""
    heard = Failures()
    manager = items[0].config.pluginmanager
    manager.register(heard)
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if heard.failed:
            break
    manager.unregister(heard)
    return heard


Hits = dict[tuple[str, int], list[int]]
"""The numbers of the tests that come to a statement of a file."""


def survey(
    live: LiveFunctions, files: Sequence[RuleFile], items: Sequence[pytest.Item]
) -> tuple[Hits, list[str]]:
    """In a child: which tests come to each statement, and which fail."""
    hits: Hits = defaultdict(list)
    current: set[tuple[str, int]] = set()
    hear_hits(current.add)
    for file in files:
        assert live.install(file, instrumented(file)), file.name
    failed: list[str] = []
    for number, item in enumerate(items):
        current.clear()
        failed += run_items([item]).failed
        for place in current:
            hits[place].append(number)
    return dict(hits), failed


class Trials:
    """The trials of functions' mutants, with the tests that were collected."""

    def __init__(self, files: Sequence[RuleFile], items: Sequence[pytest.Item]) -> None:
        self._items = items
        for file in files:
            importlib.import_module(file.module)
            number_sites(file)
        self._live = LiveFunctions(list(files))
        (found,) = in_child(lambda send: send(survey(self._live, files, items)), 3600)
        self._hits, failed = found
        if failed:
            raise SystemExit(f"tests fail without any fault: {', '.join(failed)}")
        self._breadth = Counter((file, n) for (file, _), tests in self._hits.items() for n in tests)
        self._files = [os.path.relpath(i.path, ROOT) for i in items]

    def run(self, mutant: Mutant) -> Result | list[str]:
        """What came of a mutant; where it takes an import, the tests that come to its file."""
        if mutant.change.site.function is None:
            return self._of_file(mutant)
        start = time.monotonic()
        numbers = self._tests(mutant)
        if not numbers:  # it may run when the module is imported
            return self._of_file(mutant, whole=True)
        chosen = [self._items[n] for n in numbers]
        test = _failed(lambda send: send(self._try(mutant, chosen)))
        if test is None:
            return self._of_file(mutant)
        return test, len(chosen), time.monotonic() - start

    def _tests(self, mutant: Mutant) -> list[int]:
        """The tests that come to the statement, or the lambda: those of little else first."""
        site = mutant.change.site
        owner = site.piece if isinstance(site.piece, ast.Lambda) else site.statement
        place = mutant.file.name, owner.site  # type: ignore[attr-defined]
        return self._closest(self._own(mutant, self._hits.get(place, ())), mutant.file.name)

    def _closest(self, numbers: Iterable[int], file: str) -> list[int]:
        """So many of the tests, those first that come to least else in the file."""
        found = sorted(numbers, key=lambda n: (self._breadth[file, n], n))
        return [*found[:MOST_TESTS], *found[MOST_TESTS:][-WIDEST_TESTS:]]

    def _own(self, mutant: Mutant, numbers: Iterable[int]) -> list[int]:
        tests = mutant.file.tests
        return [n for n in numbers if self._files[n] in tests]

    def _of_file(self, mutant: Mutant, whole: bool = False) -> list[str]:
        """The tests that come to the mutant's file, or all where none of it runs in tests.

        All of its own two files of tests (with ``whole`` also those that do not come to it, but to
        what it made when it was imported), and so many of the others.
        """
        name = mutant.file.name
        numbers = {n for (file, _), tests in self._hits.items() if file == name for n in tests}
        own = self._own(mutant, numbers) or self._own(mutant, range(len(self._items)))
        candidates = range(len(self._items)) if whole else own
        near = [n for n in candidates if self._files[n] in mutant.file.tests[:2]]
        far = self._closest(set(own).difference(near), name)
        return [self._items[n].nodeid for n in sorted([*near, *far])]

    def _try(self, mutant: Mutant, items: Sequence[pytest.Item]) -> str | None:
        if not self._live.change(mutant.file, mutant.change.applied):
            return None
        return next(iter(run_items(items).failed), "")


def _failed(work: Callable[[Send], None]) -> Any:
    """The test that ``work`` sends, or how it ended else."""
    try:
        (test,) = in_child(work, LIMIT)
    except Died as death:
        return str(death)
    return test


def with_items(files: Sequence[RuleFile], use: Callable[[Trials], None]) -> None:
    """Collect the tests of the files, and hand over what runs them."""
    tests = list(dict.fromkeys(t for file in files for t in file.tests))
    plugin = Collected(lambda items: use(Trials(files, items)))
    paths = [str(ROOT / t) for t in tests]
    status = pytest.main([*_OPTIONS, *paths], plugins=[plugin])
    if plugin.error is not None:
        raise plugin.error
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"the tests cannot be collected ({status})")


# ---- tables --------------------------------------------------------------------------------------


class _Changed(SourceFileLoader):
    """Loads a module with a fault."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.file.module, str(mutant.file.path))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        with self._mutant.change.applied():
            return compile(self._mutant.file.tree, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self._mutant.file.module:
            return None
        file = self._mutant.file.path
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Changed(self._mutant), submodule_search_locations=inside
        )


def preload() -> None:
    """Import what takes long and holds no rules, before processes are forked."""
    for name in _HEAVY:
        importlib.import_module(name)


def run_imported(mutant: Mutant, tests: Sequence[str]) -> Outcome:
    """Try a mutant in a process that imports the file; this one must not have done so."""
    assert mutant.file.module not in sys.modules
    start = time.monotonic()
    test = _failed(lambda send: send(_import_and_run(mutant, tests)))
    return Outcome(mutant, test, len(tests), time.monotonic() - start)


def _import_and_run(mutant: Mutant, tests: Sequence[str]) -> str:
    sys.meta_path.insert(0, _Finder(mutant))
    heard = Failures()
    status = pytest.main([*_OPTIONS, *(str(ROOT / "tests" / t) for t in tests)], plugins=[heard])
    passed = status == pytest.ExitCode.OK
    return next(iter(heard.failed), "" if passed else f"pytest ends with {status!r}")


# ---- both ----------------------------------------------------------------------------------------


def try_all(mutants: Sequence[Mutant]) -> Iterator[Outcome]:
    """The outcome of each mutant, those of functions first."""
    preload()
    imported: list[tuple[Mutant, list[str]]] = []
    for number, found in in_child(lambda send: _try_changed(mutants, send), _SURVEY):
        if isinstance(found, list):
            imported.append((mutants[number], found))
        else:
            yield Outcome(mutants[number], *found)
    for mutant, tests in imported:
        yield run_imported(mutant, tests)


def _try_changed(mutants: Sequence[Mutant], send: Send) -> None:
    """Send the number of each mutant with its result, or the tests for it after an import."""
    files = list(dict.fromkeys(m.file for m in mutants))

    def use(trials: Trials) -> None:
        for number, mutant in enumerate(mutants):
            send((number, trials.run(mutant)))

    with_items(files, use)
