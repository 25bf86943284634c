"""Tables and numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLAIN_WIDTH = 120


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    """A ``rich`` table; columns whose name starts with ``>`` are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for c in columns:
        right = c.startswith(">")
        out.add_column(c.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(harmless(str(v))) for v in row))
    return out


def harmless(text: str) -> str:
    """A text from a file that nobody vouches for, with escapes of terminals spelled out."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def facts(title: str, rows: Mapping[str, Any]) -> str:
    """Lines of a name and what it is."""
    width = max(map(len, rows), default=0)
    lines = (f"  {name:<{width}}  {value}" for name, value in rows.items())
    return harmless("\n".join([title, *lines, ""] if title else [*lines, ""]))


def show(*items: Any) -> None:
    """Print tables or text to standard output; text is never wrapped."""
    import shutil

    import click
    from rich.console import Console

    width = None if Console().is_terminal else max(_PLAIN_WIDTH, shutil.get_terminal_size().columns)
    console = Console(highlight=False, width=width)
    for item in items:
        if isinstance(item, str):
            click.echo(item)
        else:
            console.print(item)


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
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else f"{seconds:.2f} s"
