"""Small faults in rewrite rules, one at a time: does a test of the rule fail with each?

    python -m tests.mutation --sample 60               the same ones each time, in a minute or two
    python -m tests.mutation --file passes/simplify    all of a folder, or of a file
    python -m tests.mutation                           all: hours

With a sample, the first of a larger one are those of a smaller one. Each fault that no test
noticed is printed as a line. One that nobody could notice, as it does not
change what the rule does, stands in equivalent.txt below the reason for that. The exit code is 1
where a fault was neither noticed nor stands there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .mutants import Mutant, rule_files
from .trial import Outcome, try_all

EQUIVALENT = Path(__file__).with_name("equivalent.txt")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--file", action="append", default=[], help="only these, or what they hold")
    parser.add_argument("--sample", type=int, metavar="N", help="N of them, of all files")
    parser.add_argument("--list", action="store_true", help="print the faults, and try none")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the end of each")
    options = parser.parse_args()
    mutants = chosen(options.file, options.sample)
    if options.list:
        print("\n".join(m.key for m in mutants))
        return 0
    return search(mutants, options.verbose)


def chosen(parts: Sequence[str], sample: int | None) -> list[Mutant]:
    """The mutants of the files with these names or in these folders; of all without names."""
    found = [
        m
        for f in rule_files()
        if not parts or any(f.name == p or f.name.startswith(f"{p.rstrip('/')}/") for p in parts)
        for m in f.mutants()
    ]
    if sample is None:
        return found
    return sorted(found, key=lambda m: m.rank)[:sample]


def equivalent() -> set[str]:
    """The keys of the faults that change nothing."""
    lines = EQUIVALENT.read_text("utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def search(mutants: Sequence[Mutant], verbose: bool) -> int:
    known = equivalent()
    counts: Counter[str] = Counter()
    start = time.monotonic()
    for outcome in try_all(mutants):
        kind = _kind(outcome, known)
        counts[kind] += 1
        if kind == "survived" or verbose:
            told = f" ({outcome.test or f'{outcome.tests} tests'}, {outcome.seconds:.2f} s)"
            print(f"{kind:10} {outcome.mutant.key}{told if verbose else ''}", flush=True)
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    print(f"{counts.total()} faults in {time.monotonic() - start:.0f} s: {told}")
    return 1 if counts["survived"] else 0


def _kind(outcome: Outcome, known: set[str]) -> str:
    if outcome.is_caught:
        return "caught"
    return "equivalent" if outcome.mutant.key in known else "survived"


if __name__ == "__main__":
    sys.exit(main())
