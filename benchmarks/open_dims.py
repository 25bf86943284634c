"""ONNX's own cases with every dim open: sizes and values that fit, and that do not.

    python benchmarks/open_dims.py                          every case, 40 feeds each
    python benchmarks/open_dims.py --count 60 --seed 3      a part of them, other feeds
    python benchmarks/open_dims.py --op 'Conv|Pool' -v      those whose op or name matches

Every dim of every input becomes an open one with a name of its own (``--unnamed``: without), the
model is compiled once, and each feed runs here and in onnxruntime, each in a child process with
limits on time and memory. Where onnxruntime does not know an op or a type, onnx.reference judges.

A run is ``right`` (equal within the suite's tolerance, or refused by both), ``rounding`` (equal
within what the roundings of the graph may add up to), ``differs``, ``accepted`` (a result where the
judge raises), ``refused`` (an error where the judge has a result), ``failed`` (an error that is
not meant for people), ``crash`` or ``timeout``. What is listed in open_dims.toml is ``excepted``,
for the reason that stands there. The exit code is 1 where anything else than these is found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tomllib
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

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

DATA = 6 << 30
KINDS = ("node", "simple", "pytorch-operator", "expanded")
GOOD = ("right", "rounding", "excepted", "unjudged", "not compiled")
OUTCOMES = (
    "right", "rounding", "excepted", "differs", "accepted", "refused", "failed", "crash",
    "timeout", "unjudged", "not compiled",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A run that is not plainly right; ``how`` says how its feed was made, ``number`` which."""

    case: str
    op: str
    named: bool
    outcome: str
    number: int
    how: str
    judge: str
    judged: str
    got: str
    reason: str = ""


@dataclass
class Told:
    """What became of a case: outcomes of its feeds, and the runs to show."""

    case: str
    op: str
    judge: str
    counts: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)


@dataclass(frozen=True)
class Allowed:
    """Runs of an op that may be other than the judge's, and why."""

    op: str
    outcome: str
    reason: str
    judge: str = ""
    judged: str = ""
    got: str = ""

    def holds(self, found: Found) -> bool:
        return (
            re.fullmatch(self.op, found.op) is not None
            and re.fullmatch(self.outcome, found.outcome) is not None
            and re.search(self.judge, found.judge) is not None
            and re.search(self.judged, found.judged) is not None
            and re.search(self.got, found.got) is not None
        )


def exceptions() -> list[Allowed]:
    """What open_dims.toml lists."""
    listed = tomllib.loads((HERE / "open_dims.toml").read_text("utf-8"))["exception"]
    return [Allowed(**entry) for entry in listed]


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
        model, sets = case.read()
        op = op_of(model, case.name)
        data = opened(model, named).SerializeToString()
        names = input_names(model)
        tried = list(feeds(sets[0][0], case.name, seed, count))
        for child in (self._ours, *self._judges.values()):
            child.renew()
        judge, wanted = self._judged(data, names, tried, case, sets[0][1])
        told = Told(case.name, op, judge)
        loaded = self._ours.ask(Load(data), 120)
        if loaded is not None:
            outcome, text = _not_loaded(loaded)
            told.counts[outcome] += 1
            told.found.append(Found(case.name, op, named, outcome, -1, "", judge, "", text))
            return told
        for n, feed in enumerate(tried):
            got = self._ask_again(data, self._ours, names, feed)
            outcome, judged, text = self._outcome(case, names, feed, wanted[n], got)
            found = Found(case.name, op, named, outcome, n, feed.how, judge, judged, text)
            told.counts[outcome] += 1
            if outcome not in ("right", "rounding", "unjudged"):
                told.found.append(found)
        return told

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
            child.ask(Load(data), 120)
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
        if wanted is None or isinstance(wanted, Lost) and wanted.status == "timeout":
            return "unjudged", judged, text
        if isinstance(wanted, Raised | Lost):
            return ("right" if isinstance(got, Raised) else "accepted"), judged, text
        if isinstance(got, Raised):
            return "refused", judged, text
        if _agree(got, wanted, case):
            return "right", judged, text
        if RANDOM.search(case.name):
            return "unjudged", judged, text
        close = self._ours.ask(Close(_named(names, feed), got, wanted), self._limit)
        return ("rounding", "", "") if close is None else ("differs", "", _text(close))


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


def _not_loaded(loaded: Any) -> tuple[str, str]:
    if isinstance(loaded, Lost):
        return loaded.status, _text(loaded)
    return ("not compiled" if loaded.meant else "failed"), loaded.text


def _text(answer: Any) -> str:
    if isinstance(answer, Lost):
        return f"{answer.status} {answer.code}" if answer.status == "crash" else answer.status
    if isinstance(answer, Raised):
        return answer.text
    return answer if isinstance(answer, str) else ""


def op_of(model: Any, name: str) -> str:
    """The op of a model of one node; the case's name where there are more."""
    nodes = model.graph.node
    return nodes[0].op_type if len(nodes) == 1 else name.removeprefix("test_")


def excused(told: Told, listed: Sequence[Allowed]) -> Told:
    """The same, with what is listed counted as excepted."""
    kept = []
    for found in told.found:
        rule = next((e for e in listed if e.holds(found)), None)
        if rule is None:
            kept.append(found)
            continue
        told.counts[found.outcome] -= 1
        told.counts["excepted"] += 1
        kept.append(Found(**{**asdict(found), "outcome": "excepted", "reason": rule.reason}))
    told.found = kept
    return told


def run_cases(
    cases: Sequence[tuple[Case, bool]], count: int, seed: int, limit: float, jobs: int
) -> Iterator[Told]:
    """All cases, in their order; each thread has children of its own."""
    from graphkiln import onnx_backend

    onnx_backend.warmup()
    import onnxruntime  # noqa: F401 - before the children are forked

    listed = exceptions()
    benches = [Bench(limit) for _ in range(jobs)]
    free = list(benches)

    def one(item: tuple[Case, bool]) -> Told:
        bench = free.pop()
        try:
            return excused(bench.run(*item, count, seed), listed)
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


def show_case(told: Told) -> None:
    """A line for the case, and one for each run that is neither right nor excepted."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(told.counts.items()) if n)
    print(f"{told.case}: {counts} ({told.judge})", flush=True)
    for f in told.found:
        if f.outcome not in GOOD:
            said = f"{f.judged[:150]!r}; graphkiln: {f.got[:150]!r}"
            print(f"    {f.outcome} {f.number} ({f.how}): {said}", flush=True)


def show(results: Sequence[Told]) -> None:
    """Each kind of find once with how often it was met, then totals."""
    groups: dict[tuple[str, str], list[Found]] = {}
    for found in (f for told in results for f in told.found):
        groups.setdefault((found.outcome, found.op), []).append(found)
    for (outcome, op), members in sorted(groups.items()):
        if outcome == "excepted":
            continue
        f = members[0]
        cases = len({m.case for m in members})
        told = f"{f.case} feed {f.number} ({f.how}): {f.judge}: {f.judged}; graphkiln: {f.got}"
        print(f"{outcome:12} {op} {len(members)}x in {cases}: {' '.join(told.split())[:420]}")
    reasons = Counter(f.reason for told in results for f in told.found if f.reason)
    for reason, number in reasons.most_common():
        print(f"{number:7} excepted: {reason}")
    print(f"\n{'judge':16}{'cases':>7}" + "".join(f"{o:>13}" for o in OUTCOMES))
    for judge in ("onnxruntime", "onnx.reference", "none", "all"):
        part = [t for t in results if judge in ("all", t.judge)]
        counts = sum((t.counts for t in part), Counter())
        print(f"{judge:16}{len(part):7}" + "".join(f"{counts[o]:13}" for o in OUTCOMES))


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
    parser.add_argument("--json", type=Path, help="write every find to this file")
    parser.add_argument("-v", "--verbose", action="store_true", help="print cases as they end")
    options = parser.parse_args()

    cases = [(c, not options.unnamed) for c in chosen(options.op, options.count, options.seed)]
    cache = tempfile.mkdtemp(prefix="open-dims-cache-")
    os.environ.setdefault("GRAPHKILN_CACHE", cache)
    results = []
    try:
        for told in run_cases(cases, options.feeds, options.seed, options.limit, options.jobs):
            results.append(told)
            if options.verbose:
                show_case(told)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    show(results)
    if options.json:
        finds = [asdict(f) for told in results for f in told.found]
        options.json.write_text(json.dumps(finds, indent=1) + "\n")
    totals = sum((t.counts for t in results), Counter())
    return 1 if any(n for o, n in totals.items() if o not in GOOD) else 0


if __name__ == "__main__":
    sys.exit(main())
