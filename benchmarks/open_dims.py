"""ONNX's own cases with every dim open: sizes and values that fit, and that do not.

    python benchmarks/open_dims.py                          every case, 40 feeds each
    python benchmarks/open_dims.py --count 60 --seed 3      a part of them, other feeds
    python benchmarks/open_dims.py --op 'Conv|Pool' -v      those whose op or name matches
    python benchmarks/open_dims.py --record runs.jsonl      goes on where the file ends

Every dim of every input becomes an open one with a name of its own (``--unnamed``: without), the
model is compiled once, and each feed runs here and in onnxruntime, each in a child process with
limits on time and memory. Where onnxruntime does not know an op or a type, onnx.reference judges.

A run is ``right`` (equal within the suite's tolerance, or refused by both), ``rounding`` (equal
within what the roundings of the graph may add up to), ``differs``, ``accepted`` (a result where the
judge raises), ``refused`` (an error where the judge has a result), ``failed`` (an error that is
not meant for people), ``crash`` or ``timeout``; a case may be ``not compiled``. What is listed in
open_dims.toml is ``excepted``, for the reason that stands there. ``unjudged`` are results of ops
that draw random numbers, and those for which there is no judge. The exit code is 1 where anything
else than these is found.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from child import Child, Lost
from conformance import RANDOM, Case, compare, load_cases
from open_feeds import Feed, feeds, input_names, opened
from open_judges import (
    Close,
    Feeds,
    Judge,
    Load,
    Raised,
    graphkiln_run,
    onnxruntime_run,
    reference_run,
)
from open_results import (
    GOOD,
    Found,
    Told,
    exceptions,
    excused,
    open_record,
    show,
    show_case,
    write_record,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

DATA = 6 << 30
"""Bytes that each child may allocate."""

LOADING = 120
"""Seconds that compiling a case may take."""

KINDS = ("node", "simple", "pytorch-operator", "expanded")


class Bench:
    """The children of one thread: one for graphkiln, one for each judge."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._ours = Child(partial(Judge, graphkiln_run), DATA)
        self._judges = {
            "onnxruntime": Child(partial(Judge, onnxruntime_run), DATA),
            "onnx.reference": Child(partial(Judge, reference_run), DATA),
        }

    def close(self) -> None:
        for child in (self._ours, *self._judges.values()):
            child.end()

    def run(self, case: Case, named: bool, count: int, seed: int) -> Told:
        """Every feed of a case."""
        start = time.monotonic()
        model, sets = case.read()
        op = op_of(model, case.name)
        data = opened(model, named).SerializeToString()
        names = input_names(model)
        tried = list(feeds(sets[0][0], case.name, seed, count))
        for child in (self._ours, *self._judges.values()):
            child.renew()
        judge, wanted = self._judged(data, names, tried, case, sets[0][1])
        found: list[Found] = []
        loaded = self._ours.ask(Load(data), LOADING)
        if loaded is not None:
            outcome = _not_loaded(loaded)
            found.append(Found(case.name, op, outcome, -1, "", judge, "", _text(loaded)))
            tried = []
        for n, feed in enumerate(tried):
            got = self._ask_again(data, self._ours, names, feed)
            outcome, judged, text = self._outcome(case, names, feed, wanted[n], got)
            found.append(Found(case.name, op, outcome, n, feed.how, judge, judged, text))
        fine = Counter(f.outcome for f in found if f.outcome in GOOD)
        rest = [f for f in found if f.outcome not in GOOD]
        return Told(case.name, op, judge, time.monotonic() - start, dict(fine), rest)

    def _judged(
        self, data: bytes, names: list[str], tried: list[Feed], case: Case, outputs: list[Any]
    ) -> tuple[str, list[Any]]:
        """The first judge that is right about the suite's own feed, and what it says of all."""
        for name, child in self._judges.items():
            if child.ask(Load(data), self._limit) is not None:
                continue
            first = child.ask(Feeds(_named(names, tried[0])), self._limit)
            if isinstance(first, Lost | Raised) or not _agree(first, outputs, case):
                continue
            rest = [self._ask_again(data, child, names, feed) for feed in tried[1:]]
            return name, [first, *rest]
        return "none", [None] * len(tried)

    def _ask_again(self, data: bytes, child: Child, names: list[str], feed: Feed) -> Any:
        """A run; the model is loaded again after one that was lost."""
        answer = child.ask(Feeds(_named(names, feed)), self._limit)
        if isinstance(answer, Lost):
            child.ask(Load(data), LOADING)
        return answer

    def _outcome(
        self, case: Case, names: list[str], feed: Feed, wanted: Any, got: Any
    ) -> tuple[str, str, str]:
        """The outcome, and what the judge and graphkiln say."""
        judged, text = _text(wanted), _text(got)
        if isinstance(got, Lost):
            return got.status, judged, text
        if isinstance(got, Raised) and not got.meant:
            return "failed", judged, text
        if wanted is None or isinstance(wanted, Lost) or _no_memory(wanted):
            return "unjudged", judged, text
        if isinstance(wanted, Raised):
            return ("right" if isinstance(got, Raised) else "accepted"), judged, text
        if isinstance(got, Raised):
            return "refused", judged, text
        if _agree(got, wanted, case):
            return "right", judged, text
        if RANDOM.search(case.name):
            return "unjudged", judged, text
        close = self._ours.ask(Close(_named(names, feed), got, wanted), self._limit)
        return ("rounding", "", "") if close is None else ("differs", judged, _text(close))


def _named(names: Sequence[str], feed: Feed) -> dict[str, Any]:
    """What is None is left out, as an optional input may be."""
    given = dict(zip(names, feed.values, strict=False))
    return {n: v for n, v in given.items() if v is not None}


def _agree(got: list[Any], wanted: list[Any], case: Case) -> bool:
    """Are outputs equal within the suite's tolerance?"""
    try:
        for g, w in zip(got, wanted, strict=True):
            compare(g, w, case)
    except Exception:
        return False
    return True


def _not_loaded(loaded: Any) -> str:
    """The outcome of a case that cannot be compiled."""
    if isinstance(loaded, Lost):
        return loaded.status
    return "not compiled" if loaded.meant else "failed"


def _no_memory(wanted: Any) -> bool:
    """Did the judge fail for want of memory, which says nothing of the feed?"""
    return isinstance(wanted, Raised) and "Failed to allocate memory" in wanted.text


def _text(answer: Any) -> str:
    """What an answer says; of results their types, as float32[2,3]."""
    if isinstance(answer, Lost):
        return f"{answer.status} {answer.code}" if answer.status == "crash" else answer.status
    if isinstance(answer, Raised):
        return answer.text
    return answer if isinstance(answer, str) else " ".join(map(_type, answer or ()))


def _type(value: Any) -> str:
    if isinstance(value, list):
        return f"seq({' '.join(map(_type, value))})"
    if value is None:
        return "none"
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def op_of(model: Any, name: str) -> str:
    """The op of a model of one node; the case's name where there are more."""
    nodes = model.graph.node
    return nodes[0].op_type if len(nodes) == 1 else name.removeprefix("test_")


def run_cases(
    cases: Sequence[tuple[Case, bool]], count: int, seed: int, limit: float, jobs: int
) -> Iterator[Told]:
    """All cases, in their order; each thread has children of its own."""
    from graphkiln import onnx_backend

    onnx_backend.warmup()
    import onnxruntime  # noqa: F401 - before the children are forked

    benches = [Bench(limit) for _ in range(jobs)]
    free = list(benches)

    def one(item: tuple[Case, bool]) -> Told:
        bench = free.pop()
        try:
            return bench.run(*item, count, seed)
        finally:
            free.append(bench)

    try:
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, cases)
    finally:
        for bench in benches:
            bench.close()


def chosen(pattern: str, count: int, seed: int) -> list[Case]:
    """The cases whose op or name matches, or so many of them by chance."""
    cases = [c for c in load_cases() if c.kind in KINDS and _fits(c, pattern)]
    cases.sort(key=lambda c: KINDS.index(c.kind))
    if 0 < count < len(cases):
        kept = set(random.Random(seed).sample(range(len(cases)), count))
        cases = [c for i, c in enumerate(cases) if i in kept]
    return cases


def _fits(case: Case, pattern: str) -> bool:
    if not pattern or re.search(pattern, case.name):
        return True
    return case.kind == "node" and re.search(pattern, op_of(case.read()[0], case.name)) is not None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--op", default="", help="a regular expression for ops or names of cases")
    parser.add_argument("--count", type=int, default=0, help="only so many cases, by chance")
    parser.add_argument("--feeds", type=int, default=40, help="feeds for each")
    parser.add_argument("--seed", type=int, default=0, help="which cases, and which feeds")
    parser.add_argument("--unnamed", action="store_true", help="open dims without names")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=10, help="seconds for one run")
    parser.add_argument("--record", type=Path, help="keep each case in this file as it ends")
    parser.add_argument("-v", "--verbose", action="store_true", help="print cases as they end")
    options = parser.parse_args()

    listed = exceptions()
    results = []
    how = {k: getattr(options, k) for k in ("feeds", "seed", "unnamed")}
    if options.record:
        try:
            results = [excused(told, listed) for told in open_record(options.record, how)]
        except ValueError as e:
            parser.error(str(e))
    for told in tried(options, {told.case for told in results}):
        if options.record:
            write_record(options.record, told)
        results.append(excused(told, listed))
        if options.verbose:
            show_case(results[-1])
    show(results, listed)
    return 1 if any(f.status not in GOOD for told in results for f in told.found) else 0


def tried(options: argparse.Namespace, done: set[str]) -> Iterator[Told]:
    """The cases that the options choose, but those that are done."""
    cases = chosen(options.op, options.count, options.seed)
    left = [(c, not options.unnamed) for c in cases if c.name not in done]
    cache = tempfile.mkdtemp(prefix="open-dims-cache-")
    os.environ.setdefault("GRAPHKILN_CACHE", cache)
    try:
        yield from run_cases(left, options.feeds, options.seed, options.limit, options.jobs)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
