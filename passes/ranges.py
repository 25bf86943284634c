"""Ranges of tensors as a file that a person can read, edit and merge.

{"graphkiln ranges": 1, "tensors": {"conv1": {"low": 0.0, "high": 6.0}, ...}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError

_VERSION = 1
_HEAD = "graphkiln ranges"
_NAMED = 5
"""Most tensors that a remark names."""


class RangesError(UsageError):
    """A file of ranges cannot be read, or holds something else."""


@dataclass(frozen=True)
class Range:
    """The numbers of a tensor from ``low`` to ``high``, both finite.

    ``by`` says what it was found by, where that was no sample of real inputs.
    """

    low: float
    high: float
    by: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(
                f"low must not be above high, and both finite: {self.low}, {self.high}"
            )

    def merged(self, other: Range) -> Range:
        """The least range that holds both."""
        by = self.by if self.by == other.by else ""
        return Range(min(self.low, other.low), max(self.high, other.high), by)


Ranges = Mapping[str, Range]


def write_ranges(ranges: Ranges) -> str:
    """The text of a file, with the tensors in the order given."""
    tensors = {name: _entry(found) for name, found in ranges.items()}
    return json.dumps({_HEAD: _VERSION, "tensors": tensors}, indent=2, allow_nan=False) + "\n"


def _entry(found: Range) -> dict[str, Any]:
    entry: dict[str, Any] = {"low": found.low, "high": found.high}
    return {**entry, "by": found.by} if found.by else entry


def read_ranges(path: Path) -> dict[str, Range]:
    """The ranges in a file; raises :class:`RangesError`, which names the file and the tensor."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise RangesError(f"cannot be read: {e.strerror or e}", file=str(path)) from e
    except ValueError as e:
        raise RangesError(f"is no JSON: {e}", file=str(path)) from e
    if not isinstance(found, dict) or found.get(_HEAD) != _VERSION:
        raise RangesError(f"does not begin with {_HEAD!r}: {_VERSION}", file=str(path))
    tensors = found.get("tensors")
    if not isinstance(tensors, dict):
        raise RangesError("has no tensors", file=str(path))
    return {name: _range(path, name, entry) for name, entry in tensors.items()}


def _range(path: Path, name: str, entry: Any) -> Range:
    try:
        return Range(float(entry["low"]), float(entry["high"]), str(entry.get("by", "")))
    except (KeyError, TypeError, ValueError) as e:
        reason = f"misses {e}" if isinstance(e, KeyError) else str(e)
        raise RangesError(f"tensor {name!r}: {reason}", file=str(path)) from e


def merge_ranges(first: Ranges, second: Ranges) -> dict[str, Range]:
    """Ranges that hold those of both; a tensor may be in one of them only."""
    merged = dict(first)
    for name, found in second.items():
        merged[name] = merged[name].merged(found) if name in merged else found
    return merged


def remark_on_unused(ranges: Ranges, used: Container[str]) -> str | None:
    """A remark on ranges of tensors that are not among the ``used`` ones; None if there are
    none.
    """
    others = [repr(name) for name in ranges if name not in used]
    if not others:
        return None
    more = f" and {len(others) - _NAMED} others" if len(others) > _NAMED else ""
    return f"no tensor {', '.join(others[:_NAMED])}{more} is quantized, but has a range"


__all__ = [
    "Range", "Ranges", "RangesError", "merge_ranges", "read_ranges", "remark_on_unused",
    "write_ranges",
]  # fmt: skip
