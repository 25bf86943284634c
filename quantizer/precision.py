"""Which layers get which scheme, from a file:

    [[layers]]
    match = "/head/*"
    scheme = "float"

    [[layers]]
    match = ["MatMul", "Gemm"]
    scheme = "int4-weights"
    rounding = "gptq"

The first entry that matches a layer says its scheme; layers that none matches get the default one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..driver import OptionError
from ..errors import UsageError
from .schemes import SCHEMES, Step, step_of
from .several import Part, Several

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLOAT = "float"
"""The scheme of layers that are not quantized."""
_TABLE = "layers"


class PrecisionError(UsageError):
    """A precision file cannot be read, or holds something else."""


@dataclass(frozen=True)
class Entry:
    """The ``scheme`` with its ``options`` for layers that match one of ``patterns``, which are like
    those of :class:`.Selection`.
    """

    patterns: tuple[str, ...]
    scheme: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_precision(path: Path) -> list[Entry]:
    """The entries of a file in their order.

    Raises :class:`PrecisionError`, which names the file and the entry.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise PrecisionError(f"cannot be read: {e.strerror or e}", file=str(path)) from e
    except ValueError as e:
        raise PrecisionError(f"is no TOML: {e}", file=str(path)) from e
    rows = found.get(_TABLE)
    if not isinstance(rows, list) or not rows or len(found) > 1:
        raise PrecisionError(f"must hold entries [[{_TABLE}]] and nothing else", file=str(path))
    entries = []
    for number, row in enumerate(rows, 1):
        try:
            entries.append(_entry(row))
            _step(entries[-1])
        except ValueError as e:
            raise PrecisionError(f"entry {number}: {e}", file=str(path)) from e
        except OptionError as e:
            raise PrecisionError(f"entry {number}: {e.reason}", file=str(path)) from e
    return entries


def _entry(row: Any) -> Entry:
    """Raises ``ValueError`` for what is no entry."""
    if not isinstance(row, dict):
        raise ValueError("it is no table with match and scheme")
    options = dict(row)
    match, scheme = options.pop("match", None), options.pop("scheme", None)
    patterns = [match] if isinstance(match, str) else match
    texts = isinstance(patterns, list) and all(isinstance(p, str) for p in patterns)
    if not patterns or not texts:
        raise ValueError('match must be a pattern, such as "/head/*", or a list of them')
    if not isinstance(scheme, str):
        raise ValueError(f"scheme must be one of {', '.join([FLOAT, *SCHEMES])}")
    return Entry(tuple(patterns), scheme, options)


def mixed_step(
    entries: Sequence[Entry], scheme: str, options: Mapping[str, Any],
    only: Iterable[str], exclude: Iterable[str],
) -> Step:  # fmt: skip
    """The step that gives layers the scheme of the first entry that matches.

    Layers that no entry matches get ``scheme`` with ``options`` where ``only`` selects them.
    ``exclude`` are patterns of layers that stay floats in any case. Raises :class:`.OptionError`
    for options that make no sense, and where nothing would be quantized.
    """
    excluded = tuple(exclude)
    parts = []
    for entry in [*entries, Entry((), scheme, options)]:
        selected = entry.patterns or tuple(only)
        step = _step(entry, selected, excluded)
        replaces = step is not None and SCHEMES[entry.scheme].replaces
        parts.append(Part(entry.patterns, step, replaces))
        excluded += entry.patterns
    if all(part.step is None for part in parts):
        raise OptionError(f"nothing is quantized: every layer has the scheme {FLOAT}")
    return Several(tuple(parts))


def _step(entry: Entry, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> Step | None:
    """The step of an entry by itself; None for floats."""
    if entry.scheme == FLOAT:
        for name in entry.options:
            raise OptionError(f"{name} does nothing with the scheme {FLOAT}")
        return None
    if entry.scheme not in SCHEMES:
        known = ", ".join([FLOAT, *SCHEMES])
        raise OptionError(f"scheme is one of {known}, not {entry.scheme!r}")
    return step_of(entry.scheme, entry.options, only, exclude)


def entries_of(given: str | os.PathLike[str] | Sequence[Entry]) -> Sequence[Entry]:
    """Entries as they are, or those of a file."""
    return read_precision(Path(given)) if isinstance(given, (str, os.PathLike)) else given


__all__ = ["FLOAT", "Entry", "PrecisionError", "entries_of", "mixed_step", "read_precision"]
