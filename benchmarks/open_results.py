"""What runs with open dims came to: outcomes, the listed exceptions, a record of cases, a table."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tomllib

LISTED = Path(__file__).with_name("open_dims.toml")
GOOD = ("right", "rounding", "unjudged", "excepted")
OUTCOMES = (
    "right", "rounding", "unjudged", "excepted", "differs", "accepted", "refused", "failed",
    "crash", "timeout", "not compiled",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A run that is not right.

    ``how`` says how its feed was made, ``number`` which it is (-1: none ran), ``judged`` what the
    judge said and ``got`` what graphkiln did. ``reason`` is why it is an exception, if it is one.
    """

    case: str
    op: str
    outcome: str
    number: int
    how: str
    judge: str
    judged: str
    got: str
    reason: str = ""

    @property
    def status(self) -> str:
        """The outcome, as it counts."""
        return "excepted" if self.reason else self.outcome


@dataclass
class Told:
    """What became of a case: how many runs were fine, and those that were not."""

    case: str
    op: str
    judge: str
    seconds: float = 0.0
    fine: dict[str, int] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many runs came to what."""
        return Counter(self.fine) + Counter(f.status for f in self.found)


@dataclass(frozen=True)
class Allowed:
    """Runs of an op that may be other than the judge's, and why.

    ``op`` and ``outcome`` are regular expressions for the whole op and outcome, the others for
    parts of a :class:`Found`'s texts.
    """

    op: str
    outcome: str
    reason: str
    judge: str = ""
    judged: str = ""
    got: str = ""
    how: str = ""

    def holds(self, found: Found) -> bool:
        return (
            re.fullmatch(self.op, found.op) is not None
            and re.fullmatch(self.outcome, found.outcome) is not None
            and re.search(self.judge, found.judge) is not None
            and re.search(self.judged, found.judged) is not None
            and re.search(self.got, found.got) is not None
            and re.search(self.how, found.how) is not None
        )


def exceptions() -> list[Allowed]:
    """What open_dims.toml lists."""
    return [Allowed(**entry) for entry in tomllib.loads(LISTED.read_text("utf-8"))["exception"]]


def excused(told: Told, listed: Sequence[Allowed]) -> Told:
    """The same, with the reason on each run that is listed."""
    reasons = [next((e.reason for e in listed if e.holds(f)), "") for f in told.found]
    marked = [replace(f, reason=r) for f, r in zip(told.found, reasons, strict=True)]
    return replace(told, found=marked)


def open_record(path: Path, how: dict[str, Any]) -> list[Told]:
    """The cases of a file that begins with ``how`` they were run; a new file where there is none.

    Each case is a line of JSON; a last one that was cut off does not count. Raises ``ValueError``
    for cases that were run otherwise.
    """
    if not path.exists():
        path.write_text(json.dumps(how) + "\n", encoding="utf-8")
        return []
    first, *lines = path.read_text("utf-8").splitlines() or [""]
    if first != json.dumps(how):
        raise ValueError(f"{path} holds runs of other options: {first}")
    return [told for line in lines if (told := _told(line)) is not None]


def _told(line: str) -> Told | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return Told(**{**fields, "found": [Found(**f) for f in fields["found"]]})


def write_record(path: Path, told: Told) -> None:
    """Add a case to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(told)) + "\n")


def show_case(told: Told) -> None:
    """A line for the case, and one for each run that is neither right nor excepted."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(told.counts.items()) if n)
    print(f"{told.case}: {counts} ({told.judge}, {told.seconds:.1f} s)", flush=True)
    for f in told.found:
        if f.status not in GOOD:
            said = f"{f.judged[:150]!r}; graphkiln: {f.got[:150]!r}"
            print(f"    {f.outcome} {f.number} ({f.how}): {said}", flush=True)


def show(results: Sequence[Told], listed: Sequence[Allowed]) -> None:
    """Each kind of find once with how often it was met, each reason, then totals."""
    groups: dict[tuple[str, str], list[Found]] = {}
    for found in (f for told in results for f in told.found if f.status not in GOOD):
        groups.setdefault((found.outcome, found.op), []).append(found)
    for (outcome, op), members in sorted(groups.items()):
        f = members[0]
        cases = len({m.case for m in members})
        told = f"{f.case} feed {f.number} ({f.how}): {f.judge}: {f.judged}; graphkiln: {f.got}"
        print(f"{outcome:12} {op} {len(members)}x in {cases}: {' '.join(told.split())[:420]}")
    reasons = Counter(f.reason for told in results for f in told.found if f.reason)
    for reason, number in reasons.most_common():
        print(f"{number:7} excepted: {reason}")
    unused = {e.reason for e in listed} - set(reasons)
    if unused:
        print(f"{len(unused)} listed reasons were not met")
    print(f"\n{'judge':16}{'cases':>7}" + "".join(f"{o:>13}" for o in OUTCOMES))
    for judge in ("onnxruntime", "onnx.reference", "none", "all"):
        part = [t for t in results if judge in ("all", t.judge)]
        counts = sum((t.counts for t in part), Counter())
        print(f"{judge:16}{len(part):7}" + "".join(f"{counts[o]:13}" for o in OUTCOMES))
    sys.stdout.flush()


__all__ = [
    "Allowed", "Found", "Told", "exceptions", "excused", "open_record", "show", "show_case",
    "write_record",
]  # fmt: skip
