"""Tables and numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    """A ``rich`` table; columns whose name starts with ``>`` are right-aligned."""
    from rich import box
    from rich.table import Table

    out = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for c in columns:
        out.add_column(c.lstrip(">"), justify="right" if c.startswith(">") else "left")
    for row in rows:
        out.add_row(*(str(v) for v in row))
    return out


def show(*items: Any) -> None:
    """Print tables or text to standard output."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    for item in items:
        console.print(item, markup=False) if isinstance(item, str) else console.print(item)


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def number(count: float) -> str:
    """A large count with a metric unit."""
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.0f}{unit}" if not unit else f"{count:.2f}{unit}"
        count /= 1000
    return f"{count:.2f} T"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds < 0.1 else f"{seconds:.2f} s"
