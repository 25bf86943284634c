"""The pass contract: what a pass is, what it may use, and what it returns.

A pass is a frozen dataclass. Its fields are its options, and the text form of a pipeline spells
them the same way: ``fold{max-bytes=1048576},cse``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from ..errors import Blocker, GraphkilnError
from ..ir.edit import Editor, Listener
from ..ir.graph import Graph, GraphError
from ..ir.hardware import GenericHardware, Hardware
from ..ir.infer import Known, infer_types
from ..ir.symbols import Renames, collect_renames, rename_symbols
from .captures import captured_inputs
from .claims import Claim, Exactness
from .facts import Fact
from .options import option_types
from .pattern import Explain, Rule
from .ranges import Range
from .services import Feeds, Journal, NoJournal, Runner, fresh_random, reference_runner

Row: TypeAlias = "Mapping[str, Any]"
"""A row of a table: what stands in each column, by the column's name."""

# A size that becomes known may make another one known. A round is one inference of the graph.
_REFRESHES = 4


@dataclass(frozen=True)
class PassBlocker(Blocker):
    """Why a pass failed: its text, and the texts of the passes that ran before it."""

    failed: str = ""
    done: tuple[str, ...] = ()

    def __str__(self) -> str:
        ran = ", ".join(self.done) or "none"
        return f"pass {self.failed} failed: {super().__str__()} (passes run before: {ran})"


class PassError(GraphError):
    """A pass failed, or left a graph that does not verify; its blockers name the pass."""

    @classmethod
    def of(cls, error: Exception, failed: str, done: Iterable[str]) -> PassError:
        """The error of the pass with the text ``failed``, caused by ``error``; ``done`` ran before
        it.
        """
        found = error.blockers if isinstance(error, GraphkilnError) else [Blocker(str(error))]
        return cls(*(PassBlocker(**vars(b), failed=failed, done=tuple(done)) for b in found))


@dataclass(frozen=True)
class PassResult:
    """What a pass did: the number of changes, how many of each kind, and what it measured."""

    changes: int
    details: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> PassResult:
        """The result whose details are ``counts`` and whose changes are their sum."""
        kept = {k: n for k, n in counts.items() if n}
        return cls(sum(kept.values()), kept)


@dataclass
class PassContext:
    """What passes share while a pipeline runs.

    ``hardware`` answers questions about the target, and ``warnings`` are messages for the user.
    ``explain``, if given, is called with (rule, node, reason) for every rewrite that was tried and
    not made; ``listener`` hears of every edit. ``data`` are sample feeds of the model, which may be
    gone through several times (``data_from`` says what made them up where they are no samples of
    real inputs), ``ranges`` those of tensors by name: the user's, and what passes have found.
    ``codes`` are the integers of weights that passes have rounded, by layer. ``runner`` runs graphs
    (the driver's compiles them), ``journal`` keeps results of long work, and ``random`` gives the
    same numbers in every compilation. ``numbers`` are the measurements of the pass that is running,
    and ``tables`` what it found in rows, by the table's name.
    """

    hardware: Hardware = field(default_factory=GenericHardware)
    warnings: list[str] = field(default_factory=list)
    explain: Explain | None = None
    listener: Listener | None = None
    data: Iterable[Feeds] = ()
    data_from: str = ""
    ranges: dict[str, Range] = field(default_factory=dict)
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    runner: Runner = reference_runner
    journal: Journal = field(default_factory=NoJournal)
    random: np.random.Generator = field(default_factory=fresh_random)
    numbers: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    _known: dict[Graph, Known] = field(default_factory=dict)
    _captured: dict[Graph, Known] = field(default_factory=dict)

    def warn(self, message: str) -> None:
        """Add a message for the user, unless it was added before."""
        if message not in self.warnings:
            self.warnings.append(message)

    def measure(self, name: str, value: float) -> None:
        """Record a number that the pass measured, such as the error that it makes."""
        self.numbers[name] = float(value)

    def tell(self, table: str, **row: Any) -> None:
        """Add a row to a table of what the pass found; its cells can be written as JSON."""
        self.tables.setdefault(table, []).append(row)

    def known(self, graph: Graph) -> Known:
        """The values of ``graph`` that are known at compile time; types are inferred if needed.

        In a body, values that it captures are known if they were known when the outer graph was
        asked.
        """
        found = self._known.get(graph)
        if found is None:
            found = self._learn(graph, infer_types(graph, self._captured.get(graph)))
        return found

    def editor(self, graph: Graph) -> Editor:
        """An editor of ``graph``, whose edits ``listener`` hears."""
        return Editor(graph, self.known(graph), self.listener)

    def _learn(self, graph: Graph, known: Known) -> Known:
        """Store the known values of ``graph``, and those that its bodies capture."""
        self._known[graph] = known
        for node in graph.nx:
            for capture in captured_inputs(graph, node) if node.attrs else ():
                array = known.get(capture.outer)
                for body, inner in capture.inner:
                    if array is not None:
                        self._captured.setdefault(body, {})[inner] = array
        return known

    def refresh(self, graph: Graph) -> None:
        """Infer the types of ``graph`` and its bodies again, and the known values.

        Where a size was a symbol and is known now, the symbol is replaced by it.
        """
        for _ in range(_REFRESHES):
            nodes = [n for g in graph.walk(regions=False) for n in g.nx]
            before = {n: [o.type for o in n.outputs] for n in nodes}
            self._known.clear()
            self._captured.clear()
            self._learn(graph, infer_types(graph))
            renames: Renames = {}
            for node, types in before.items():
                for out, old in zip(node.outputs, types, strict=True):
                    collect_renames(node, old, out.type, renames)
            if not renames:
                return
            rename_symbols(graph, renames)


@dataclass(frozen=True)
class Pass(ABC):
    """One transformation of a graph and of the bodies in it.

    ``rules`` are the rewrites that it consists of. ``claims`` says what its other edits promise
    about the numbers, by a name for each kind of edit. A pass has at least one of both. The manager
    checks the facts that a pass ``requires`` before it runs, and those that it ``ensures``
    afterwards.
    """

    name: ClassVar[str] = ""
    rules: ClassVar[tuple[Rule, ...]] = ()
    claims: ClassVar[Mapping[str, Claim]] = {}
    requires: ClassVar[tuple[Fact, ...]] = ()
    ensures: ClassVar[tuple[Fact, ...]] = ()

    def run(self, graph: Graph, context: PassContext) -> PassResult:
        """Change ``graph`` in place; the default applies the pass to every body, then to it."""
        counts: Counter[str] = Counter()
        parts = list(graph.walk(regions=False))
        if len(parts) > 1:
            for part in parts:
                context.known(part)
        for part in reversed(parts):
            counts.update(self.apply(part, context))
        return PassResult.of(counts)

    @classmethod
    def promises(cls) -> list[tuple[str, Claim]]:
        """Every rule and other edit of the pass by name, with its claim; equal ones once."""
        found = [(r.name, r.claim) for r in cls.rules]
        return list(dict.fromkeys([*found, *cls.claims.items()]))

    @classmethod
    def is_lossy(cls) -> bool:
        """May the graph compute another function afterwards, rather than the same with other
        rounding?
        """
        return any(claim.exactness is Exactness.LOSSY for _, claim in cls.promises())

    @property
    def uses_samples(self) -> bool:
        """Does the pass go through ``data`` of its context?"""
        return False

    @abstractmethod
    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        """Change one graph in place, without its bodies; returns the number of changes by kind."""


P = TypeVar("P", bound=type[Pass])

_PASSES: dict[str, type[Pass]] = {}


def register_pass(cls: P) -> P:
    """Class decorator: register the pass under its name.

    Raises ``ValueError`` if the name is missing or taken, if the pass claims nothing about the
    numbers, or if an option has a type that pipelines cannot spell.
    """
    if not cls.name or cls.name in _PASSES:
        raise ValueError(f"pass name {cls.name!r} is empty or taken")
    if not cls.promises():
        raise ValueError(f"pass {cls.name!r} has neither rules nor claims")
    try:
        option_types(cls)
    except TypeError as e:
        raise ValueError(f"pass {cls.name!r}: {e}") from e
    _PASSES[cls.name] = cls
    return cls


def pass_class(name: str) -> type[Pass] | None:
    """The registered pass called ``name``, or None."""
    return _PASSES.get(name)


def pass_names() -> list[str]:
    """The names of all registered passes, sorted."""
    return sorted(_PASSES)


__all__ = [
    "Explain", "Pass", "PassContext", "PassError", "PassResult", "Row", "pass_class",
    "pass_names", "register_pass",
]  # fmt: skip
