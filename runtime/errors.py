"""What can go wrong when an artifact is loaded or run; every message is one line."""

from __future__ import annotations

from ..errors import ArtifactError, ExecutionError, GraphkilnError, InputError

__all__ = [
    "ArtifactError", "ExecutionError", "GraphkilnError", "InputError", "first_line", "printable",
    "reason",
]  # fmt: skip

_MOST_SHOWN = 400
_NO_MEMORY = ("std::bad_alloc", "array is too big")
"""How C++ and NumPy say it, the latter where the bytes do not fit 64 bits."""


def reason(error: BaseException) -> str:
    """Why a run failed, in one line."""
    line = first_line(error)
    if isinstance(error, MemoryError) or line.startswith(_NO_MEMORY):
        return "these inputs need more memory than there is"
    return line


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its type's name."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    return type(error).__name__


def printable(text: str) -> str:
    """A text from a file that nobody vouches for, as it may go to a terminal: short, no escapes."""
    if len(text) > _MOST_SHOWN:
        text = f"{text[: _MOST_SHOWN // 2]} ... {text[-_MOST_SHOWN // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
