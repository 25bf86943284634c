"""The errors that users of graphkiln meet; a leaf that every layer may import.

What is wrong is told in fields: a reason, and where there is one the node, its op and the file. The
text of an error is made of them here, one line for each fault, and nobody reads it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

_LONGEST = 400


def shorten(text: str, limit: int = _LONGEST) -> str:
    """Printable text on one line, cut in the middle where it is longer than ``limit``."""
    line = text
    if not text.isprintable():
        line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(line) <= limit:
        return line
    half = limit // 2
    return f"{line[:half]} ... {line[-half:]}"


def node_text(name: str, op: str = "") -> str:
    """How messages name a node: ``node 'conv1' (Conv)``."""
    return f"node '{shorten(name, 120)}'" + (f" ({shorten(op, 80)})" if op else "")


class Place(Protocol):
    """A node at which something is wrong: it has a name, and the key of its op."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def key(self) -> str:
        """The op, with its domain where that is not ONNX's own: ``com.microsoft.Gelu``."""


@dataclass(frozen=True)
class Blocker:
    """One thing that is wrong; all but the ``reason`` are empty where there is nothing to say.

    ``node`` and ``op`` are a node's name and its op's key, ``output`` is one of its outputs,
    ``file`` the model or artifact, ``graph`` the model's graph or a body. With ``kernel`` it is the
    code generated for the node that is wrong: ``op`` is the kernel's title, which lists the ops
    that it computes.
    """

    reason: str
    node: str = ""
    op: str = ""
    file: str = ""
    graph: str = ""
    output: str = ""
    kernel: bool = False

    def __str__(self) -> str:
        return "".join(f"{part}: " for part in self._where()) + self.reason

    def _where(self) -> list[str]:
        parts = [self.file] if self.file else []
        if self.graph:
            parts.append(f"graph {self.graph!r}")
        if self.node or self.op:
            op = f"kernel {self.op}" if self.kernel else self.op
            output = f", output {self.output!r}" if self.output else ""
            parts.append(node_text(self.node, op) + output)
        return parts


class GraphkilnError(Exception):
    """Base of what graphkiln raises on purpose.

    ``blockers`` lists everything that is wrong; ``reason``, ``node``, ``op`` and ``file`` are those
    of the first.
    """

    def __init__(
        self, *faults: str | Blocker, at: Place | None = None, node: str = "", op: str = "",
        file: str = "",
    ) -> None:  # fmt: skip
        """A fault is a reason, which the other arguments give a place, or has its own place.

        ``at`` is a node, in place of its name and its op's key.
        """
        if at is not None:
            node, op = at.name, at.key
        self.blockers: tuple[Blocker, ...] = tuple(
            f if isinstance(f, Blocker) else Blocker(f, node, op, file) for f in faults or ("",)
        )
        super().__init__(*self.blockers)

    def __str__(self) -> str:
        return "\n".join(map(str, self.blockers))

    @property
    def reason(self) -> str:
        """What is wrong."""
        return self.blockers[0].reason

    @property
    def node(self) -> str:
        """The name of the node at fault, or empty."""
        return self.blockers[0].node

    @property
    def op(self) -> str:
        """The key of that node's op, or empty."""
        return self.blockers[0].op

    @property
    def file(self) -> str:
        """The model or artifact at fault, or empty."""
        return self.blockers[0].file

    def locate(self, at: Place) -> None:
        """Say of each fault that has no node yet that it is at this one."""
        self.blockers = tuple(
            b if b.node or b.op else replace(b, node=at.name, op=at.key) for b in self.blockers
        )
        self.args = self.blockers


class UsageError(GraphkilnError, ValueError):
    """An option, a target or a pipeline that a caller asked for makes no sense."""


class OperandError(GraphkilnError, ValueError):
    """Shapes, axes, element types or attributes do not fit an operation or one another."""


class UndeterminedError(GraphkilnError, ValueError):
    """A rank, a size or a value must be known when a model is compiled, and is not.

    It may help to give the dimensions of the model's inputs sizes.
    """


class ArtifactError(GraphkilnError):
    """The artifact cannot be read, was damaged, or does not fit this machine."""


class InputError(GraphkilnError, ValueError):
    """A feed, an output name or a thread count is wrong, or sizes or values of a run do not fit."""


class ExecutionError(GraphkilnError, RuntimeError):
    """The compiled model failed while it ran."""
