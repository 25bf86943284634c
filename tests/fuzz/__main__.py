"""Random graphs against onnxruntime, the reference, and graphkiln with other passes.

    python -m tests.fuzz                                300 graphs of all families, a fresh seed
    python -m tests.fuzz --count 20000 --jobs 2         as many as a release wants
    python -m tests.fuzz --family sizes --seed 17 --count 1 -v

Each failing graph is made smaller and written below --out as a case: model.onnx, inputs.npz,
expected.npz and note.txt. The seed is printed, and gives the same graphs again. The exit code is 1
where anything was found.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .cases import save
from .families import families
from .hunt import Item, hunt, items


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=300, help="graphs in all")
    parser.add_argument("--seed", type=int, help="the first graph's number (default: a fresh one)")
    parser.add_argument("--family", action="append", choices=sorted(families()),
                        help="only these (default: all in turn)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=60, help="seconds for one graph")
    parser.add_argument("--target", default="cpu", help="what to compile for")
    parser.add_argument("--out", type=Path, help="folder for what is found (default: found-SEED)")
    parser.add_argument("--no-shrink", action="store_true", help="write graphs as they are")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every graph's time")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    cache = tempfile.mkdtemp(prefix="fuzz-cache-")
    os.environ["GRAPHKILN_CACHE"] = cache
    try:
        return search(options, seed)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def search(options: argparse.Namespace, seed: int) -> int:
    wanted = items(options.family or list(families()), seed, options.count)
    out = options.out or Path(f"found-{seed}")
    counts: Counter[str] = Counter()
    start = time.monotonic()
    for found in hunt(wanted, jobs=options.jobs, limit=options.limit, target=options.target,
                      shrink=not options.no_shrink):  # fmt: skip
        item: Item = found.item
        finding = found.finding
        counts[finding.kind if finding else found.status] += 1
        if options.verbose:
            print(f"{item.family} {item.seed} {found.seconds:.2f} s", flush=True)
        if finding is not None:
            place = save(out, found) if found.subject else None
            where = f" -> {place}" if place else ""
            message = " ".join(finding.message.split())[:300]
            title = f"{finding.kind:9} {item.family} --seed {item.seed}"
            print(f"{title}: {message}{where}", flush=True)
    total, seconds = counts.total(), time.monotonic() - start
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    print(f"seed {seed}: {total} graphs in {seconds:.0f} s, {total / seconds:.1f} a second: {told}")
    return 1 if counts.total() > counts["right"] else 0


if __name__ == "__main__":
    sys.exit(main())
