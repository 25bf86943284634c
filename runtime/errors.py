"""What can go wrong when an artifact is loaded or run; every message is one line."""

from __future__ import annotations

from ..errors import ArtifactError, ExecutionError, GraphkilnError, InputError

__all__ = [
    "ArtifactError", "ExecutionError", "GraphkilnError", "InputError", "first_line", "reason",
]  # fmt: skip


def reason(error: BaseException) -> str:
    """Why a run failed, in one line."""
    line = first_line(error)
    if isinstance(error, MemoryError) or line == "std::bad_alloc":
        return "these inputs need more memory than there is"
    return line


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its type's name."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    return type(error).__name__
