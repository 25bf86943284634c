"""What can go wrong when an artifact is loaded or run; every message is one line."""

from __future__ import annotations


class GraphkilnError(Exception):
    """Base of everything the runtime raises on purpose."""


class ArtifactError(GraphkilnError):
    """The artifact cannot be read, was damaged, or does not fit this machine."""


class InputError(GraphkilnError, ValueError):
    """A feed, an output name or a thread count is wrong."""


class ExecutionError(GraphkilnError, RuntimeError):
    """The compiled model failed while it ran."""


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
