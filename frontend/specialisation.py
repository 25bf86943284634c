"""Specialisation: imports are repeated until the model's dimensions fit together.

If an import finds symbols that can only have one value, it is repeated with that value. If it fails
because a condition on open dimensions decides a rank, it is repeated with an assumed answer to each
such condition (see :mod:`.assumptions`). This is a depth-first search: after a failure the latest
of the answers that led to it is reversed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..ir.conditions import Condition, Relation
from ..ir.dims import Dim, DimError, free_symbols, solve, substitute, sym
from ..ir.graph import Graph, Node, Value
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType
from .assumptions import Assumptions, guard_messages
from .control import SCALARS
from .defaults import Defaults, inputs_with_defaults
from .errors import Blocker, FrontendError, shorten
from .guards import add_guards
from .importer import Importer
from .ml.maps import misplaced_maps
from .source import Source
from .valuetypes import Pins

MAX_IMPORTS = 32
"""The most imports of one model."""


def import_graph(
    source: Source, shapes: Pins, defaults: Defaults = "auto"
) -> tuple[Graph, list[str]]:
    """The typed graph of a model, and remarks; raises :class:`FrontendError`.

    With "auto" ``defaults``, initializers are constants if the model cannot be imported otherwise.
    """
    try:
        return _Attempts(source, shapes, defaults).run()
    except FrontendError:
        if defaults != "auto" or not inputs_with_defaults(source.proto, defaults)[0]:
            raise
    graph, remarks = _Attempts(source, shapes, "constant").run()
    return graph, [*remarks, "initializers among the inputs are taken as constants: as inputs "
                   "they would leave open what must be known"]  # fmt: skip


@dataclass(frozen=True)
class _Outcome:
    """The outcome of an import: ``graph`` is None if it failed."""

    importer: Importer
    graph: Graph | None
    error: FrontendError | None
    bindings: Mapping[str, Dim]
    remarks: tuple[str, ...]
    answers: Mapping[str, bool]


@dataclass
class _Step:
    """An assumed answer; ``reasons`` are the earlier answers because of which it was reversed."""

    key: str
    answer: bool
    is_reversed: bool = False
    reasons: set[str] = field(default_factory=set)


class _Attempts:
    def __init__(self, source: Source, shapes: Pins, defaults: Defaults) -> None:
        self._source = source
        self._defaults = defaults
        self._shapes = shapes
        self._left = MAX_IMPORTS

    def run(self) -> tuple[Graph, list[str]]:
        first = found = self._import({}, (), None)
        if first.importer.undecided and (first.graph is None or any(_unranked(first.graph))):
            found = self._search(first) or first
        if found.graph is None:
            assert first.error is not None
            raise first.error
        blockers = [_unranked_blocker(n, v) for n, v in _unranked(found.graph)]
        blockers += misplaced_maps(found.graph)
        if blockers:
            raise FrontendError(self._source.name, blockers)
        guards = [f"{m}; running it fails for others" for m in guard_messages(found.graph)]
        add_guards(found.graph, found.importer.inputs_of)
        return found.graph, [*found.importer.warnings, *found.remarks, *guards]

    def _import(
        self,
        bindings: Mapping[str, Dim],
        remarks: tuple[str, ...],
        answers: Mapping[str, bool] | None,
    ) -> _Outcome:
        """Import, and repeat that while there are symbols to bind."""
        while True:
            self._left -= 1
            assumptions = None if answers is None else Assumptions(answers)
            importer = Importer(self._source, bindings, assumptions, self._defaults)
            graph, error = None, None
            try:
                graph = importer.run(self._shapes)
            except FrontendError as e:
                error = e
            if assumptions is not None:
                answers = {**assumptions.given, **assumptions.made}
            bound, notes = _solve(importer.needs.conditions, importer.inputs_of)
            if not bound or self._left <= 0:
                return _Outcome(importer, graph, error, bindings, remarks, answers or {})
            bindings = {**{s: substitute(d, bound) for s, d in bindings.items()}, **bound}
            remarks = (*remarks, *notes)

    def _search(self, first: _Outcome) -> _Outcome | None:
        """An import that succeeds with assumed answers, if there is one.

        Answers are preferred by which the results have the ranks that the file declares.
        """
        trail: list[_Step] = []
        best: _Outcome | None = None
        while self._left > 0:
            answers = {step.key: step.answer for step in trail}
            found = self._import(first.bindings, first.remarks, answers)
            assumptions = found.importer.assumptions
            assert assumptions is not None
            if found.graph is not None:
                best = best or found
                if not assumptions.blame:
                    return found
            trail += [_Step(k, v) for k, v in found.answers.items() if k not in answers]
            blame = assumptions.blame
            if len(found.bindings) > len(first.bindings):
                # Symbols that were bound may be the cause, and these may depend on any answer.
                blame = {step.key for step in trail}
            if not _reverse(trail, blame):
                break
        return best


def _unranked(graph: Graph) -> Iterator[tuple[Node, Value]]:
    """Tensors of unknown rank, with the nodes that compute with them.

    Control flow only passes them on, unless they are its counts and conditions.
    """
    for current in graph.walk():
        for node in current.nodes:
            inputs = current.inputs_of(node)
            if node.key == "Identity":
                continue
            if has_trait(node, Trait.CONTROL_FLOW):
                inputs = inputs[: SCALARS.get(node.op, 0)]
            for value in inputs:
                if value is not None and _is_unranked(value):
                    yield node, value


def _unranked_blocker(node: Node, value: Value) -> Blocker:
    reason = f"the rank of its input {value.name!r} is not known when the model is compiled"
    return Blocker(reason, node.name, node.key)


def _is_unranked(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is None


def _reverse(trail: list[_Step], blame: set[str]) -> bool:
    """Reverse the latest answer among those to blame that was not reversed yet."""
    while trail:
        step = trail.pop()
        if step.key not in blame:
            continue
        blame = (blame | step.reasons) - {step.key}
        if not step.is_reversed:
            trail.append(_Step(step.key, not step.answer, True, blame))
            return True
    return False


def _solve(
    conditions: Iterable[Condition], inputs_of: Mapping[str, str]
) -> tuple[dict[str, Dim], list[str]]:
    """Values of input symbols that follow from equalities, each with a remark."""
    bound: dict[str, Dim] = {}
    notes = []
    for e in conditions:
        if e.relation is not Relation.EQUAL:
            continue
        found = _binding(substitute(e.a, bound), substitute(e.b, bound), list(inputs_of))
        if found is None:
            continue
        symbol, value = found
        bound = {s: substitute(d, {symbol: value}) for s, d in bound.items()}
        bound[symbol] = value
        remark = (
            f"input {inputs_of[symbol]!r}: dimension {symbol} is taken to be {value}, because "
            f"{e.node} needs {e.why}"
        )
        notes.append(shorten(remark))
    return bound, notes


def _binding(a: Dim, b: Dim, symbols: list[str]) -> tuple[str, Dim] | None:
    """The symbol that ``a == b`` determines, and its value; None if it determines none."""
    names = free_symbols(a) | free_symbols(b)
    if not names or not names <= set(symbols):
        return None
    if len(names) == 1:
        (name,) = names
        try:
            size = solve(a - b, 0, name)
        except DimError:
            return None
        return None if size is None else (name, size)
    first, *_, last = sorted(names, key=symbols.index)
    return (last, sym(first)) if {a, b} == {sym(first), sym(last)} else None
