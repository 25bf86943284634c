"""Rewrite rules as data: a pattern, a condition, a replacement.

A pattern is a tree over the producers of a value:

    Op("Mul", Var("x"), Op("Sigmoid", Var("x")))

``Var`` matches any value (the same name twice: the same value), ``Const`` a constant, ``Op`` the
result of an operation, ``Either`` one of several patterns, ``Maybe`` an operation that may be
absent. Commutative ops (by their registry trait) match in both orders of their inputs.
Operations inside a match must have no uses outside of it unless they are ``shared``, since a
replacement would otherwise compute them twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..ir.edit import Editor, can_replace
from ..ir.graph import Graph, GraphError, Node, Value
from ..ir.registry import attribute, has_trait, keys_with
from ..ir.traits import Trait
from ..ir.types import TensorType
from .claims import Claim
from .precision import is_number
from .queries import splat

Explain: TypeAlias = "Callable[[str, Node, str], None]"
"""Called for a rewrite that was tried and not made, with (rule, node, reason)."""


@dataclass(frozen=True)
class Var:
    """Any value; ``where`` may restrict it."""

    name: str
    where: Callable[[Value], bool] | None = None


@dataclass(frozen=True)
class Const:
    """A constant; with ``value``, one all of whose elements are that number.

    The last bits may differ, as exporters round: see :func:`~.precision.is_number`.
    """

    name: str = ""
    value: float | None = None
    scalar: bool = False


@dataclass(frozen=True, eq=False)
class Op:
    """The result of an operation, whose op is one of ``ops``: keys joined by ``|``, or traits.

    ``attrs`` maps attributes to values or to tests; missing attributes have their defaults.
    ``rest`` allows inputs after the given ones; None as an input pattern stands for an omitted
    input. ``needs`` are sets of op keys: of each set, some input must be produced by a member,
    which is a quick test.
    """

    ops: str | tuple[Trait, ...]
    inputs: tuple[Pattern | None, ...]
    name: str
    attrs: Mapping[str, Any]
    shared: bool
    output: int
    rest: bool
    named: frozenset[str]
    needs: tuple[frozenset[str], ...]

    def __init__(
        self, ops: str | tuple[Trait, ...], *inputs: Pattern | None, name: str = "",
        attrs: Mapping[str, Any] | None = None, shared: bool = False, output: int = 0,
        rest: bool = False,
    ) -> None:  # fmt: skip
        for key, value in (
            ("ops", ops), ("inputs", inputs), ("name", name), ("attrs", attrs or {}),
            ("shared", shared), ("output", output), ("rest", rest),
            ("named", frozenset(ops.split("|") if isinstance(ops, str) else ())),
            ("needs", tuple(k for k in map(_producers, inputs) if k is not None)),
        ):  # fmt: skip
            object.__setattr__(self, key, value)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the ops that match; for traits, those of the ops that are registered now."""
        return self.named if isinstance(self.ops, str) else keys_with(self.ops)


@dataclass(frozen=True)
class Either:
    """Any of several patterns, tried in order."""

    choices: tuple[Pattern, ...]

    def __init__(self, *choices: Pattern) -> None:
        object.__setattr__(self, "choices", choices)


@dataclass(frozen=True)
class Maybe:
    """``op``, or in its absence what would be its first input."""

    op: Op


Pattern: TypeAlias = "Var | Const | Op | Either | Maybe"
"""A pattern for a value."""


def _producers(pattern: Pattern | None) -> frozenset[str] | None:
    """The keys of the ops that may produce what ``pattern`` matches; None for any."""
    if isinstance(pattern, Op):
        return pattern.named or None
    if isinstance(pattern, Const):
        return frozenset({"Constant"})
    if isinstance(pattern, Either):
        found = [_producers(p) for p in pattern.choices]
        known = [k for k in found if k is not None]
        return frozenset().union(*known) if len(known) == len(found) else None
    return None


@dataclass(frozen=True)
class Match:
    """A match of a pattern: values and nodes by their names in the pattern."""

    graph: Graph
    values: Mapping[str, Value]
    nodes: Mapping[str, Node]
    inner: tuple[tuple[Node, bool], ...] = ()

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def get(self, name: str) -> Value | None:
        """The value called ``name``; None if that part of the pattern was absent."""
        return self.values.get(name)

    @property
    def root(self) -> Node:
        """The node whose result the pattern describes."""
        return self.inner[0][0]

    def node(self, name: str) -> Node:
        """The node called ``name``."""
        return self.nodes[name]

    def attr(self, name: str, key: str) -> Any:
        """Attribute ``key`` (or its default) of the node called ``name``."""
        return attribute(self.nodes[name], key)


Replace: TypeAlias = "Callable[[Match, Editor], Value | Sequence[Value | None] | None]"
"""Builds the replacement of a match; :class:`Rule` says what it may return."""

Condition: TypeAlias = "Callable[[Match], str | None]"
"""Returns why a match must not be rewritten, or None if it may."""


@dataclass(frozen=True)
class Rule:
    """One rewrite: if ``pattern`` matches and ``when`` has no objection, ``replace`` builds the
    value that replaces the root's result.

    For a root of several results, ``replace`` returns a list with a value for each (None for those
    without uses). It returns None if the rewrite does not apply after all. ``claim`` is what the
    rewrite promises about the numbers.
    """

    name: str
    pattern: Op
    replace: Replace
    when: Condition | None = None
    claim: Claim = field(kw_only=True)


def exact_rules(rules: Sequence[Rule]) -> list[Rule]:
    """Those of ``rules`` whose claim is that no bit changes."""
    return [rule for rule in rules if rule.claim.is_exact]


class _Tracer:
    """Remembers why a pattern did not match, at the point where it matched most."""

    def __init__(self) -> None:
        self.reason = ""
        self._matched = -1

    def miss(self, reason: str, m: Match) -> None:
        if len(m.inner) > self._matched:
            self.reason, self._matched = reason, len(m.inner)


def match(graph: Graph, pattern: Op, node: Node, tracer: _Tracer | None = None) -> Match | None:
    """The first match of ``pattern`` with ``node`` as its root, or None."""
    if node.key not in pattern.keys:
        return None
    start = Match(graph, {}, {})
    for found in _op(graph, pattern, node.out(pattern.output), start, tracer):
        outside = _used_outside(graph, found)
        if outside is None:
            return found
        if tracer is not None:
            tracer.miss(f"{outside.name!r} is used elsewhere", found)
    return None


def _used_outside(graph: Graph, found: Match) -> Node | None:
    members = {n for n, _ in found.inner}
    for node, shared in found.inner[1:]:
        if not shared and any(c not in members for c in graph.out_edges(node)):
            return node
    return None


def _value(
    graph: Graph, p: Pattern | None, v: Value | None, m: Match, t: _Tracer | None
) -> Iterator[Match]:
    """All ways in which ``v`` matches ``p``, as extensions of the match ``m``.

    Matching backtracks: an alternative is tried if the rest of the pattern does not match.
    """
    if p is None or v is None:
        if p is None and v is None:
            yield m
        return
    if isinstance(p, Op):
        yield from _op(graph, p, v, m, t)
    elif isinstance(p, Var):
        yield from _var(p, v, m)
    elif isinstance(p, Const):
        yield from _const(p, v, m, t)
    elif isinstance(p, Maybe):
        yield from _op(graph, p.op, v, m, None)
        yield from _value(graph, p.op.inputs[0], v, m, t)
    else:
        for choice in p.choices:
            yield from _value(graph, choice, v, m, t)


def _var(p: Var, v: Value, m: Match) -> Iterator[Match]:
    """A match of a variable, which must be the same value everywhere."""
    bound = m.values.get(p.name)
    if bound is not None:
        if bound == v:
            yield m
    elif p.where is None or p.where(v):
        yield _bind(m, p.name, v)


def _const(p: Const, v: Value, m: Match, t: _Tracer | None) -> Iterator[Match]:
    array = v.constant
    if array is None or p.scalar and array.size != 1:
        if t is not None:
            t.miss(f"{v.name!r} is not a {'scalar ' if p.scalar else ''}constant", m)
        return
    if p.value is not None:
        number = splat(v)
        if number is None or not is_number(number, p.value, v.tensor_type.dtype.name):
            if t is not None:
                t.miss(f"constant {v.name!r} is {number}, not {p.value}", m)
            return
    yield _bind(m, p.name, v) if p.name else m


def _op(graph: Graph, p: Op, v: Value, m: Match, t: _Tracer | None) -> Iterator[Match]:
    """Matches of an operation: op, attributes and number of inputs, then the inputs."""
    node = v.node
    if node.key not in p.keys or v.index != p.output:
        if t is not None:
            t.miss(f"{v.name!r} comes from {node.key}, not {p.ops}", m)
        return
    for key, wanted in p.attrs.items():
        have = attribute(node, key)
        if not (wanted(have) if callable(wanted) else _same(have, wanted)):
            if t is not None:
                t.miss(f"{node.name!r} has {key}={have}", m)
            return
    nodes = {**m.nodes, p.name: node} if p.name else m.nodes
    m = Match(m.graph, m.values, nodes, (*m.inner, (node, p.shared)))
    inputs = graph.inputs_of(node)
    if t is None and p.needs and not _plausible(p, _keys(inputs)):
        return
    if len(inputs) < len(p.inputs):
        inputs += [None] * (len(p.inputs) - len(inputs))
    elif len(inputs) > len(p.inputs) and not p.rest:
        if t is not None:
            t.miss(f"{node.name!r} has {len(inputs)} inputs", m)
        return
    yield from _inputs(graph, p.inputs, inputs, m, t)
    if len(p.inputs) == 2 and len(inputs) == 2 and has_trait(node, Trait.COMMUTATIVE):
        yield from _inputs(graph, p.inputs[::-1], inputs, m, t)


def _keys(inputs: Sequence[Value | None]) -> set[str]:
    """The ops of the nodes that make these inputs."""
    return {v.node.key for v in inputs if v is not None}


def _plausible(p: Op, producers: set[str]) -> bool:
    """A quick test that most nodes fail which do not match."""
    return not any(map(producers.isdisjoint, p.needs))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return tuple(a) == tuple(b)
    return bool(a == b)


def _inputs(
    graph: Graph,
    patterns: Sequence[Pattern | None],
    inputs: Sequence[Value | None],
    m: Match,
    t: _Tracer | None,
) -> Iterator[Match]:
    """Matches of the inputs, one after the other."""
    if not patterns:
        yield m
        return
    for found in _value(graph, patterns[0], inputs[0], m, t):
        yield from _inputs(graph, patterns[1:], inputs[1:], found, t)


def _bind(m: Match, name: str, v: Value) -> Match:
    return Match(m.graph, {**m.values, name: v}, m.nodes, m.inner)


# ---- driver --------------------------------------------------------------------------------------


class RewriteContext(Protocol):
    """What rewriting needs of the context of its pass, such as a :class:`~.base.PassContext`."""

    @property
    def explain(self) -> Explain | None:
        """Called for every rule that was tried and not applied, if given."""

    def editor(self, graph: Graph) -> Editor:
        """An editor of ``graph``."""


@dataclass
class _Worklist:
    """Nodes to visit, in topological order; each is there once."""

    keys: frozenset[str]
    queue: deque[Node] = field(default_factory=deque)
    waiting: set[Node] = field(default_factory=set)

    def push(self, node: Node) -> None:
        if node.key in self.keys and node not in self.waiting:
            self.waiting.add(node)
            self.queue.append(node)

    def pop(self) -> Node:
        node = self.queue.popleft()
        self.waiting.discard(node)
        return node


def rewrite(graph: Graph, rules: Sequence[Rule], context: RewriteContext) -> Counter[str]:
    """Apply ``rules`` until none matches; returns how often each was applied.

    Nodes are visited in topological order, and again after one of their inputs was rewritten, so
    the time is proportional to the size of the graph. Raises :class:`GraphError` if rules undo each
    other endlessly.
    """
    by_key: dict[str, list[Rule]] = {}
    for rule in rules:
        for key in sorted(rule.pattern.keys):
            by_key.setdefault(key, []).append(rule)
    work = _Worklist(frozenset(by_key))
    for node in graph.topological():
        work.push(node)
    editor = context.editor(graph)
    counts: Counter[str] = Counter()
    budget = 64 * len(graph.nx) + 1024
    while work.queue:
        node = work.pop()
        if node not in graph:
            continue
        applied = _first(graph, by_key[node.key], node, editor, context.explain)
        if applied is None:
            continue
        counts[applied.name] += 1
        budget -= 1
        if budget < 0:
            raise GraphError(f"rule {applied.name} and others undo each other without end")
        for changed in editor.fresh:
            if changed in graph:
                work.push(changed)
        for consumer in editor.affected:
            if consumer in graph:
                work.push(consumer)
    editor.finish()
    return counts


def _first(
    graph: Graph, rules: Sequence[Rule], node: Node, editor: Editor, explain: Explain | None
) -> Rule | None:
    """The first rule that rewrote ``node``."""
    producers = _keys(graph.inputs_of(node))
    for rule in rules:
        if explain is None and rule.pattern.needs and not _plausible(rule.pattern, producers):
            continue
        reason = apply_rule(graph, rule, node, editor, explain is not None)
        if reason is None:
            return rule
        if explain is not None and reason:
            explain(rule.name, node, reason)
    return None


def apply_rule(
    graph: Graph, rule: Rule, node: Node, editor: Editor, trace: bool = False
) -> str | None:
    """Rewrite ``node`` by ``rule``; returns None if that was done, else why not (if ``trace``)."""
    tracer = _Tracer() if trace else None
    found = match(graph, rule.pattern, node, tracer)
    if found is None:
        return tracer.reason if tracer is not None else ""
    reason = rule.when(found) if rule.when is not None else None
    if reason is not None:
        return reason
    editor.begin(
        rule.name, *(n for n, _ in found.inner), hint=node.out(rule.pattern.output).name
    )  # fmt: skip
    new = rule.replace(found, editor)
    if new is None:
        editor.discard()
        return "the replacement does not apply"
    if isinstance(new, Value):
        pairs = [(node.out(rule.pattern.output), new)]
    else:
        given = zip(node.values, new, strict=True)
        pairs = [(old, v) for old, v in given if v is not None]
    if not all(_stands_for(v, old) for old, v in pairs):
        editor.discard()
        return "the result would be of another type"
    editor.replace_all(pairs)
    return None


def _stands_for(new: Value, old: Value) -> bool:
    """Is ``new`` of the type of ``old``, as far as that is known?

    It is not in x * 1 = x where the constant of ones has a larger shape than x. A size of x may be
    open there, and the result's a number.
    """
    a, b = old.type, new.type
    if not can_replace(old, new):
        return False
    if not isinstance(a, TensorType) or not isinstance(b, TensorType) or None in (a.shape, b.shape):
        return True
    return all(x == y or not isinstance(x, int) for x, y in zip(a.dims, b.dims, strict=True))


__all__ = [
    "Const", "Either", "Explain", "Match", "Maybe", "Op", "Pattern", "Replace", "RewriteContext",
    "Rule", "Var", "apply_rule", "exact_rules", "match", "rewrite",
]  # fmt: skip
