"""Damaged artifacts: each must be refused with one clear error, or run right, quickly.

    python benchmarks/mutate_artifacts.py                   4,000 of them, all kinds in turn
    python benchmarks/mutate_artifacts.py --kind manifest --count 500
    python benchmarks/mutate_artifacts.py --only 17 --save m.kiln     one of them, to look at

Damage is bits that flip, parts that are cut off, swapped, zeroed or too many, odd fields in the
ZIP file's records, compressed data that is wrong, folders with members of other kinds, and
manifests with other values whose hash fits them (the machine code stays what it was: an artifact
is code, and is trusted as such). Each runs in a process of its own with 10 seconds and 2 GB of
address space; one in fifty goes through the commands ``run`` and ``inspect``. The exit code is 1
where one crashes, hangs, gives other numbers from an unchanged manifest, or anything but one line.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from artifact_damage import DAMAGES, folder_damage
from child import Child
from pool import Ended, run_all

MODELS = Path(__file__).parent.parent / "tests" / "models"
MEMORY = 2 << 30
KINDS = (*DAMAGES, "folder")
GOOD = ("right", "refused", "other")

_TEXTS = {
    "open": """
<ir_version: 10, opset_import: ["" : 21]>
open (float[N, 4] x, float[N, 1] y) => (float[N, 3] r, float[N, 4] s)
<float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
{ s = Add(x, y)  t = MatMul(s, w)  r = Relu(t) }""",
    "loop": """
<ir_version: 10, opset_import: ["" : 21]>
loop (int64 n, float[2] x) => (float[2] last, float[M, 2] all)
{
  last, all = Loop <body = body (int64 i, bool c, float[2] a) => (bool d, float[2] b, float[2] e)
    { d = Identity(c)  b = Add(a, a)  e = Identity(b) }> (n, , x)
}""",
    "texts": """
<ir_version: 10, opset_import: ["" : 21]>
texts (string[N] a, string[N] b) => (string[N] joined, bool[N] same)
{ joined = StringConcat(a, b)  upper = StringNormalizer<case_change_action = "LOWER">(a)
  same = Equal(upper, b) }""",
    "lists": """
<ir_version: 10, opset_import: ["" : 21]>
lists (float[A, 3] x, bool flag) => (seq(float[3]) parts, float[B, 3] back)
{
  parts = SplitToSequence <axis = 0> (x)
  back = If (flag) <
    then_branch = t () => (float[B, 3] p) { p = Identity(x) },
    else_branch = e () => (float[B, 3] q) { q = Neg(x) }>
}""",
}


@dataclass(frozen=True)
class Base:
    """A sound artifact, feeds for it, and what it gives for them."""

    name: str
    data: bytes
    feeds: dict[str, Any]
    outputs: list[Any]


@dataclass(frozen=True)
class Mutant:
    """A damaged artifact, made again from its number."""

    seed: int
    kind: str
    command: bool


def _made(_: Any) -> list[Base]:
    """The sound artifacts; asked of a child, so that this process never loads the compiler."""
    import onnx.parser

    import graphkiln

    models = {path.stem: path for path in
              (MODELS / "mnist_cntk.onnx", MODELS / "espcn_subpixel_qcdq.onnx")}  # fmt: skip
    made: dict[str, Any] = {
        **models, **{n: onnx.parser.parse_model(t) for n, t in _TEXTS.items()},
    }  # fmt: skip
    return [_base(name, graphkiln.compile(model, jobs=1)) for name, model in made.items()]


def _base(name: str, artifact: Any) -> Base:
    from graphkiln.runtime import load

    with tempfile.TemporaryDirectory() as folder:
        path = artifact.save(Path(folder) / "m.kiln")
        session = load(path, threads=1)
        feeds = fitting_feeds(session)
        return Base(name, path.read_bytes(), feeds, session.run(None, feeds))


def fitting_feeds(session: Any) -> dict[str, Any]:
    """Ones of every input's type and sizes; an open dim is 2."""
    feeds: dict[str, Any] = {}
    for spec in session._inputs:
        if spec.elem is not None or spec.optional:
            continue
        shape = [d if isinstance(d, int) else 2 for d in spec.shape or ()]
        if np.prod(shape, dtype=object) > 1 << 24:
            shape = [1] * len(shape)
        text = spec.dtype == "string"
        feeds[spec.name] = np.full(shape, "a", object) if text else np.ones(shape, _type(spec))
    return feeds


def _type(spec: Any) -> Any:
    from graphkiln.runtime.dtypes import public_dtype

    return public_dtype(spec.dtype)


def place(mutant: Mutant, bases: Sequence[Base], folder: Path) -> tuple[Base, Path]:
    """Writes the damaged artifact of a number."""
    rng = random.Random(mutant.seed)
    base = rng.choice(bases)
    path = folder / f"{mutant.seed}.kiln"
    if mutant.kind == "folder":
        folder_damage(base.data, path, rng)
    else:
        path.write_bytes(DAMAGES[mutant.kind](base.data, rng))
    return base, path


def attempt(mutant: Mutant, bases: Sequence[Base], folder: Path) -> tuple[str, str]:
    """How a mutant ends: ``right``, ``refused``, ``other`` (numbers of a changed manifest),
    ``wrong`` or ``raised``, and why."""
    base, path = place(mutant, bases, folder)
    if mutant.command:
        return _by_command(path)
    try:
        status = _by_calls(base, path)
    except Exception as e:
        text = str(e)
        meant = type(e).__module__.startswith("graphkiln")
        clear = text.isprintable() and len(text) < 2_000
        return "refused" if meant and clear else "raised", f"{type(e).__name__}: {text}"
    if status == "wrong" and mutant.kind == "manifest":
        status = "other"
    return status, ""


def _by_calls(base: Base, path: Path) -> str:
    from graphkiln.runtime import load, verify
    from graphkiln.runtime.errors import GraphkilnError

    session = load(path, threads=1)
    try:
        results = session.run(None, base.feeds)
    except GraphkilnError:
        results = None
    # What the manifest now says that the model takes is fed as well.
    for _ in range(2):
        session.run(None, fitting_feeds(session))
    session.report, session.ir_text  # noqa: B018 - read, as `inspect` does
    verify(path)
    return "right" if results is not None and _same(results, base.outputs) else "wrong"


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        fits = isinstance(got, list) and len(got) == len(wanted)
        return fits and all(_same(g, w) for g, w in zip(got, wanted, strict=True))
    return got is wanted or bool(np.array_equal(got, wanted))


def _by_command(path: Path) -> tuple[str, str]:
    for command in (["run"], ["inspect", "--verify"]):
        done = subprocess.run(
            [sys.executable, "-m", "graphkiln", *command, str(path)],
            capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told = done.stderr.strip()
        if done.returncode and (
            done.returncode not in (1, 2) or len(told.splitlines()) != 1 or not told.isprintable()
        ):
            return "raised", f"{command[0]}: exit code {done.returncode}: {told[-300:]}"
        if done.returncode:
            return "refused", told
    return "right", ""


def show(results: Sequence[Ended[Mutant]], verbose: bool) -> int:
    """Totals by kind, and every mutant that ended badly; returns how many did."""
    counts: Counter[tuple[str, str]] = Counter()
    for r in sorted(results, key=lambda r: r.item.seed):
        status, message = r.answer if r.status == "done" else (r.status, f"exit code {r.answer}")
        counts[r.item.kind, status] += 1
        if status not in GOOD or verbose:
            reason = " ".join(message.split())[:240]
            print(f"{r.item.seed:6} {r.item.kind:11} {status:8} {r.seconds:6.2f} s  {reason}")
    for kind in dict.fromkeys(r.item.kind for r in results):
        told = ", ".join(f"{n} {s}" for (k, s), n in sorted(counts.items()) if k == kind)
        print(f"{kind:12} {told}")
    slowest = max((r.seconds for r in results), default=0)
    bad = sum(n for (_, s), n in counts.items() if s not in GOOD)
    print(f"{counts.total()} in all, {bad} ended badly, the slowest took {slowest:.1f} s")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these kinds")
    parser.add_argument("--only", type=int, help="just this one")
    parser.add_argument("--save", type=Path, help="write the artifact of --only here, run nothing")
    parser.add_argument("--command-every", type=int, default=50, help="one in so many by command")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=10, help="seconds for one")
    parser.add_argument("-v", "--verbose", action="store_true", help="print those that end well")
    options = parser.parse_args()

    maker = Child(lambda: _made)
    bases = maker.ask(None, 600)
    maker.end()
    kinds = options.kind or KINDS
    first, count = (options.first, options.count) if options.only is None else (options.only, 1)
    every = options.command_every
    mutants = [
        Mutant(s, kinds[s % len(kinds)], every > 0 and s % every == every // 2)
        for s in range(first, first + count)
    ]
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        if options.save:
            place(mutants[0], bases, Path(name))[1].rename(options.save)
            return 0
        from graphkiln.runtime.tvm_runtime import load_libraries

        load_libraries(cuda=False)  # before the children are forked
        work = partial(attempt, bases=bases, folder=Path(name))
        results = list(
            run_all(mutants, work, jobs=options.jobs, limit=options.limit, memory=MEMORY)
        )
    return 1 if show(results, options.verbose or options.only is not None) else 0


if __name__ == "__main__":
    sys.exit(main())
