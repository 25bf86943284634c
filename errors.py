"""The errors that users of graphkiln meet; a leaf that every layer may import.

Every message is one line that names what is at fault (one line for each fault of a model).
"""

from __future__ import annotations


class GraphkilnError(Exception):
    """Base of what graphkiln raises on purpose."""


class ArtifactError(GraphkilnError):
    """The artifact cannot be read, was damaged, or does not fit this machine."""


class InputError(GraphkilnError, ValueError):
    """A feed, an output name or a thread count is wrong, or sizes or values of a run do not fit."""


class ExecutionError(GraphkilnError, RuntimeError):
    """The compiled model failed while it ran."""
