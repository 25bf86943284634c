"""The two safety nets: nothing that is run under them may be caught.

    python benchmarks/nets.py                            all of it under each net, one after another
    python benchmarks/nets.py --net bounds --graphs 0    ONNX's cases with checked kernels
    python benchmarks/nets.py --every 10                 a tenth of everything
    python benchmarks/nets.py --cases FOLDER             folders with model.onnx and inputs*.npz too

The nets are ``bounds``, kernels that check each access (the target option ``check=bounds``), and
``end`` and ``front``, kernels as they are, on buffers that end or begin at a guard page
(``GRAPHKILN_GUARD``, with the target option ``memory=apart``). Under each run ONNX's own backend
cases, the same with every dim open and feeds of other sizes and values, random graphs, and cases in
folders. A hit is an access that a check refused, or a process that ended by a signal; what else may
be wrong with a result is the business of ``conformance.py``, ``open_dims.py`` and ``tests.fuzz``.
The exit code is 1 after a hit.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from conformance import Case, load_cases, run_case
from open_dims import DATA, KINDS
from open_feeds import feeds, input_names, opened

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from fuzz import workers  # noqa: E402
from fuzz.families import families  # noqa: E402
from fuzz.hunt import Finding, Item, items, judge_item  # noqa: E402
from fuzz.judge import compiled  # noqa: E402

GUARD = "GRAPHKILN_GUARD"
NETS = {
    "bounds": ("check=bounds", ""),
    "end": ("memory=apart", "end"),
    "front": ("memory=apart", "front"),
}
"""By name: the target option, and where the guard pages are."""

REFUSED = "outside of its buffer"


cases = cache(load_cases)
"""ONNX's own, made once: that takes seconds."""


@dataclass(frozen=True)
class Task:
    """Something to run; ``run`` gives a message, empty if all is right."""

    suite: str
    name: str
    run: Callable[[str], str]


def conformance_tasks() -> Iterator[Task]:
    """ONNX's own cases."""
    for case in cases():

        def run(target: str, case: Case = case) -> str:
            status, message = run_case(case, target)
            return "" if status in ("right", "random") else f"{status}: {message}"

        yield Task("conformance", f"{case.kind}/{case.name}", run)


def open_tasks(seed: int, count: int) -> Iterator[Task]:
    """ONNX's own cases with every dim open, ``count`` feeds each."""
    for case in cases() if count else ():
        if case.kind in KINDS:

            def run(target: str, case: Case = case) -> str:
                return run_open(case, seed, count, target)

            yield Task("open", f"{case.kind}/{case.name}", run)


def run_open(case: Case, seed: int, count: int, target: str) -> str:
    """Every error, since most feeds are meant to be refused."""
    model, sets = case.read()
    names = input_names(model)
    try:
        session = compiled(opened(model, named=True), None, target)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    said = []
    for n, feed in enumerate(feeds(sets[0][0], case.name, seed, count)):
        given = dict(zip(names, feed.values, strict=False))
        try:
            session.run(None, {k: v for k, v in given.items() if v is not None})
        except Exception as e:
            said.append(f"feed {n} ({feed.how}): {type(e).__name__}: {e}")
    return "; ".join(said)


def graph_tasks(seed: int, count: int) -> Iterator[Task]:
    """Random graphs of all families in turn."""
    for item in items(list(families()), seed, count):

        def run(target: str, item: Item = item) -> str:
            found = judge_item(item, target, peer=False)
            return f"{found.kind}: {found.message}" if isinstance(found, Finding) else ""

        yield Task("graphs", f"--family {item.family} --seed {item.seed}", run)


def folder_tasks(root: Path) -> Iterator[Task]:
    """Folders with a model, or a ``make.py`` that writes one, and its inputs."""
    for folder in sorted({p.parent for p in root.rglob("inputs*.npz")}):

        def run(target: str, folder: Path = folder) -> str:
            return run_folder(folder, target)

        yield Task("cases", str(folder.relative_to(root)), run)
    for script in sorted(root.rglob("make.py")):

        def run_made(target: str, script: Path = script) -> str:
            with tempfile.TemporaryDirectory() as place:
                subprocess.run([sys.executable, script, place], check=True, capture_output=True)
                return run_folder(Path(place), target)

        yield Task("cases", str(script.relative_to(root)), run_made)


def run_folder(folder: Path, target: str) -> str:
    """Every error, since feeds may be meant to be refused."""
    import graphkiln

    try:
        session = graphkiln.compile(str(folder / "model.onnx"), target=target, jobs=1).session()
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    said = []
    for path in sorted(folder.glob("inputs*.npz")):
        try:
            session.run(None, dict(np.load(path)))
        except Exception as e:
            said.append(f"{path.name}: {type(e).__name__}: {e}")
    return "; ".join(said)


def tasks(options: argparse.Namespace) -> list[Task]:
    """All that is asked for."""
    found = [] if options.no_conformance else list(conformance_tasks())
    found += open_tasks(options.seed, options.feeds)
    found += graph_tasks(options.seed, options.graphs)
    if options.cases:
        found += folder_tasks(options.cases)
    found = [t for t in found if re.search(options.filter, t.name)]
    return found[options.first :: options.every]


def watch(net: str, options: argparse.Namespace) -> int:
    """Run everything in this process's children under a net; the number of hits."""
    from graphkiln import onnx_backend

    onnx_backend.warmup()
    import onnxruntime  # noqa: F401 - before the children are forked

    wanted = tasks(options)
    target = f"cpu:{options.cpu},{NETS[net][0]}"
    counts: Counter[str] = Counter()
    start = time.monotonic()

    def work(number: int) -> str:
        # Feeds ask for sizes that no memory holds.
        resource.setrlimit(resource.RLIMIT_DATA, (DATA, DATA))
        return wanted[number].run(target)

    for done in workers.run(iter(range(len(wanted))), work, jobs=options.jobs, limit=options.limit):
        task, said = wanted[done.item], done.answer
        if done.status != "done":
            said = f"{done.status}: exit code {done.answer}"
        hit = done.status == "crash" or REFUSED in said
        kind = "hit" if hit else done.status if done.status != "done" else "run"
        counts[kind] += 1
        if hit or options.verbose:
            title = f"{kind:4} {net} {done.seconds:6.2f} s {task.suite} {task.name}"
            print(f"{title}: {_shown(said)}", flush=True)
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    seconds = time.monotonic() - start
    hits = counts["hit"]
    print(f"{net}: {len(wanted)} tasks in {seconds:.0f} s: {told}, {hits} hits", flush=True)
    return hits


def _shown(said: str) -> str:
    """One line with the part of a message that says what was refused."""
    line = " ".join(said.split())
    first = max(0, line.find(REFUSED) - 150)
    return line[first : first + 300]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", action="append", choices=sorted(NETS), help="only this one")
    parser.add_argument("--cpu", default="", help="the CPU to compile for, such as x86-64-v3")
    parser.add_argument("--feeds", type=int, default=10, help="feeds for each open case")
    parser.add_argument("--graphs", type=int, default=300, help="random graphs under each net")
    parser.add_argument("--seed", type=int, help="the first graph's number (default: a fresh one)")
    parser.add_argument("--cases", type=Path, help="a folder of cases")
    parser.add_argument("--no-conformance", action="store_true", help="leave out ONNX's cases")
    parser.add_argument("--filter", default="", help="a regular expression for names")
    parser.add_argument("--every", type=int, default=1, help="take one of so many")
    parser.add_argument("--first", type=int, default=0, help="which of them is the first taken")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=120, help="seconds for one task")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every task")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 31)
        print(f"seed {options.seed}", flush=True)
    nets = options.net or list(NETS)
    if len(nets) == 1 and os.environ.get(GUARD, "") == NETS[nets[0]][1]:
        return 1 if watch(nets[0], options) else 0
    # The variable counts when the runtime is imported, so each net has a process of its own.
    arguments = [a for n, a in enumerate(sys.argv[1:]) if not _is_net(sys.argv[1:], n)]
    codes = [_child([*arguments, "--net", net, "--seed", str(options.seed)], net) for net in nets]
    return max(codes)


def _is_net(arguments: list[str], n: int) -> bool:
    """Is this argument ``--net`` or its value?"""
    return arguments[n].startswith("--net") or (n > 0 and arguments[n - 1] == "--net")


def _child(arguments: list[str], net: str) -> int:
    environment = {**os.environ, GUARD: NETS[net][1]}
    command = [sys.executable, os.path.abspath(__file__), *arguments]
    return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
