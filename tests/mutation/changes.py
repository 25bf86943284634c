"""What may be wrong with a line of a rule, as changes of its syntax tree.

Each change is one fault as people make them: another comparison or axis, a condition or an operand
that is missing, operands in the other order, another input, a constant that is off. What only tells
(messages, names, claims, annotations) stays as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeGuard

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.MatMult, ast.Pow)
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_BUILDERS = frozenset({"op", "node", "add", "Op"})
"""Calls whose later arguments are operands."""
_TELLING = frozenset({"explain", "warn", "keep", "miss"})
_NAMING = frozenset({"claim", "hint", "like", "name"})
"""Keyword arguments that only say where something comes from or what it is called."""
_UNTOUCHED = (
    ast.Assert, ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal,
)  # fmt: skip
_CLAIMING = frozenset({"exact", "moved", "proved", "rounds"})
"""Calls that make what a rule promises, which its tests do not look at."""
_UNORDERED = frozenset({"isinstance", "max", "min", "Rule", *_TELLING, *_CLAIMING})
_CONDITION = 3
"""Which argument of a rule says when it applies."""
_MOST_DROPPED = 4
"""Of a longer list, only the last element is dropped."""


@dataclass(frozen=True)
class Site:
    """Where a change is: ``statement`` holds it, in the function or lambda ``function``.

    ``function`` is None for what runs when the module is imported; ``scope`` names the function,
    or the rule, and ``piece`` is what a person should see of it.
    """

    scope: str
    statement: ast.AST
    function: ast.AST | None
    piece: ast.AST


@dataclass(frozen=True)
class Change:
    """``holder.field`` (or its element ``index``) becomes ``new``."""

    site: Site
    holder: ast.AST
    field: str
    index: int | None
    new: Any

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The tree has the change inside of this context."""
        old = self._old()
        new = copy(self.new)  # it may be a part of the old
        self._put(ast.fix_missing_locations(ast.copy_location(new, old)))
        try:
            yield
        finally:
            self._put(old)

    def _put(self, value: Any) -> None:
        if self.index is None:
            setattr(self.holder, self.field, value)
        else:
            getattr(self.holder, self.field)[self.index] = value

    def texts(self) -> tuple[str, str]:
        """The piece of the source before and after."""
        piece = self.site.piece
        before = _shown(piece)
        if self._old() is piece:
            return before, _shown(self.new)
        with self.applied():
            return before, _shown(piece)

    def _old(self) -> Any:
        value = getattr(self.holder, self.field)
        return value if self.index is None else value[self.index]


def _shown(piece: ast.AST) -> str:
    """One line of source; of a compound statement the line that heads it."""
    if _is_rule(piece):
        return f"Rule({ast.unparse(piece.args[0])}, ...)"
    text = ast.unparse(piece)
    if hasattr(piece, "body") and isinstance(piece, ast.stmt):
        text = text.split("\n")[0]
    return " ".join(text.split())


def changes(tree: ast.Module) -> Iterator[Change]:
    """All changes of the module, in the order of its text."""
    for statement in tree.body:
        if not _is_told(statement):
            yield from _Finder()._statement(statement, Site("", statement, None, statement))


def _is_told(statement: ast.stmt) -> bool:
    """A docstring, ``__all__``, or an alias of a type."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True
    if isinstance(statement, ast.AnnAssign) and "TypeAlias" in ast.unparse(statement.annotation):
        return True
    if not isinstance(statement, ast.Assign):
        return False
    names, value = statement.targets, statement.value
    if isinstance(value, ast.Subscript) and ast.unparse(value.value) in ("dict", "list", "tuple"):
        return True
    return any(isinstance(n, ast.Name) and n.id in ("__all__", "claims") for n in names)


class _Finder:
    def _statement(self, node: ast.stmt, site: Site) -> Iterator[Change]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            scope = f"{site.scope}.{node.name}".lstrip(".")
            function = node if isinstance(node, ast.FunctionDef) else None
            for i, inner in enumerate(node.body):
                if not _is_told(inner):
                    yield from self._in_list(node, "body", i, Site(scope, inner, function, inner))
            return
        named = Site(site.scope or _target(node), node, site.function, node)
        yield from self._fields(node, named)

    def _in_list(self, holder: ast.AST, field: str, i: int, site: Site) -> Iterator[Change]:
        node = getattr(holder, field)[i]
        if isinstance(node, _UNTOUCHED):
            return
        for new in _other_statements(node):
            yield Change(site, holder, field, i, new)
        yield from self._statement(node, site)

    def _fields(self, node: ast.AST, site: Site) -> Iterator[Change]:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "decorator_list", "returns", "ctx", "targets", "target"):
                continue
            if isinstance(value, list):
                for i, item in enumerate(value):
                    if isinstance(item, ast.stmt):
                        inner = Site(site.scope, item, site.function, item)
                        yield from self._in_list(node, field, i, inner)
                    elif isinstance(item, ast.AST):
                        yield from self._expression(node, field, i, item, site)
            elif isinstance(value, ast.AST):
                yield from self._expression(node, field, None, value, site)

    def _expression(
        self, holder: ast.AST, field: str, index: int | None, node: ast.AST, site: Site
    ) -> Iterator[Change]:
        if isinstance(node, _UNTOUCHED) or _is_naming(node):
            return
        if site.function is None:
            site = _entry_site(holder, node, site)
        if isinstance(node, ast.Lambda):
            site = Site(site.scope, node, site.function or node, node)
        if isinstance(node, ast.keyword):
            yield from self._fields(node, site)
            return
        if _is_rule(node):
            nothing = ast.Starred(ast.Tuple([], ast.Load()), ast.Load())
            yield Change(site, holder, field, index, nothing)
        elif _is_rule(holder) and index == _CONDITION:
            yield Change(site, holder, field, index, ast.Constant(None))
        for new in _other_expressions(holder, node, site):
            yield Change(site, holder, field, index, new)
        yield from self._fields(node, site)


def _target(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        first = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        return ast.unparse(first)
    return ""


def _is_naming(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg in _NAMING


def _entry_site(holder: ast.AST, node: ast.AST, site: Site) -> Site:
    """In a table: its entry; of a rule its argument, under the rule's name."""
    if _is_rule(holder):
        return Site(site.scope, site.statement, None, node)
    if site.piece is site.statement and isinstance(holder, ast.Dict | ast.Tuple | ast.List):
        scope = str(node.args[0].value) if _is_rule(node) else site.scope
        return Site(scope, site.statement, None, node)
    return site


def _is_rule(node: ast.AST) -> TypeGuard[ast.Call]:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return called and node.func.id == "Rule" and isinstance(node.args[0], ast.Constant)


# ---- statements ----------------------------------------------------------------------------------


def _other_statements(node: ast.stmt) -> Iterator[ast.stmt]:
    if isinstance(node, ast.Continue | ast.AugAssign):
        yield ast.Pass()
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if _called(node.value) not in _TELLING:
            yield ast.Pass()
    if isinstance(node, ast.If):
        for outcome in (False, True):
            yield ast.If(ast.Constant(outcome), node.body, node.orelse)


# ---- expressions ---------------------------------------------------------------------------------


def _other_expressions(holder: ast.AST, node: ast.AST, site: Site) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        yield from _comparisons(node)
    elif isinstance(node, ast.BoolOp):
        yield from _clauses(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.BinOp):
        yield from _operations(node)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.List | ast.Tuple) and not _is_unpacked(holder):
        yield from _elements(node, isinstance(holder, ast.Compare))
    elif isinstance(node, ast.comprehension):
        for i in range(len(node.ifs)):
            rest = node.ifs[:i] + node.ifs[i + 1 :]
            yield ast.comprehension(node.target, node.iter, rest, node.is_async)
    elif isinstance(node, ast.Subscript):
        yield from _other_names(node, site)


def _comparisons(node: ast.Compare) -> Iterator[ast.expr]:
    for i, op in enumerate(node.ops):
        ops = [*node.ops[:i], _COMPARISONS[type(op)](), *node.ops[i + 1 :]]
        yield ast.Compare(node.left, ops, node.comparators)
    if len(node.ops) > 1:
        yield ast.Compare(node.left, node.ops[:1], node.comparators[:1])
        yield ast.Compare(node.comparators[0], node.ops[1:], node.comparators[1:])


def _is_unpacked(holder: ast.AST) -> bool:
    """``a, b = x, y``: one statement for two."""
    return isinstance(holder, ast.Assign) and isinstance(holder.targets[0], ast.Tuple)


def _clauses(node: ast.BoolOp) -> Iterator[ast.expr]:
    for i in range(len(node.values)):
        rest = node.values[:i] + node.values[i + 1 :]
        yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]


def _constants(node: ast.Constant) -> Iterator[ast.expr]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)
    elif isinstance(value, str) and "|" in value and " " not in value:
        names = value.split("|")
        for i in range(len(names)):
            yield ast.Constant("|".join(names[:i] + names[i + 1 :]))


def _operations(node: ast.BinOp) -> Iterator[ast.expr]:
    other = _OPERATORS.get(type(node.op))
    if other is not None:
        yield ast.BinOp(node.left, other(), node.right)
    if isinstance(node.op, _ORDERED):
        yield ast.BinOp(node.right, node.op, node.left)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    name = _called(node)
    args = node.args
    if name == "errstate":  # which warnings are given
        return
    if isinstance(node.func, ast.Name) and name in _FUNCTIONS:
        yield ast.Call(ast.Name(_FUNCTIONS[name], ast.Load()), args, node.keywords)
    movable = [i for i, a in enumerate(args) if _is_operand(a)]
    if len(movable) > 1 and name not in _UNORDERED:
        i, j = movable[-2:]
        swapped = list(args)
        swapped[i], swapped[j] = args[j], args[i]
        yield ast.Call(node.func, swapped, node.keywords)
    if name in _BUILDERS and len(args) > 1:
        yield ast.Call(node.func, args[:-1], node.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in _NAMING and not _is_truth(keyword.value):
            yield ast.Call(node.func, args, node.keywords[:i] + node.keywords[i + 1 :])


def _is_truth(node: ast.expr) -> bool:
    """Another value of it is as good as none."""
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _is_operand(node: ast.expr) -> bool:
    """Not a graph, a name of an operation or a trait, which nobody takes for an operand."""
    if isinstance(node, ast.Constant | ast.Starred | ast.Dict | ast.Lambda):
        return False
    text = ast.unparse(node)
    return not text.endswith("graph") and not text.startswith("Trait.") and not text.isupper()


def _elements(node: ast.List | ast.Tuple, is_set: bool) -> Iterator[ast.expr]:
    elements, kind = node.elts, type(node)
    if any(_is_rule(e) for e in elements):
        return
    if len(elements) < 2:
        return
    first = 0 if len(elements) <= _MOST_DROPPED else len(elements) - 1
    for i in range(first, len(elements)):
        yield kind(elements[:i] + elements[i + 1 :], ast.Load())
    if is_set:
        return
    if ast.unparse(elements[0]) != ast.unparse(elements[1]):
        yield kind([elements[1], elements[0], *elements[2:]], ast.Load())


def _other_names(node: ast.Subscript, site: Site) -> Iterator[ast.expr]:
    """``m["x"]`` for another name that the function asks the match for."""
    if site.function is None or not isinstance(node.value, ast.Name):
        return
    owner = node.value.id
    if not isinstance(node.slice, ast.Constant) or not isinstance(node.slice.value, str):
        return
    asked = {
        n.slice.value: None
        for n in ast.walk(site.function)
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name) and n.value.id == owner
        and isinstance(n.slice, ast.Constant) and isinstance(n.slice.value, str)
    }  # fmt: skip
    others = [name for name in asked if name != node.slice.value]
    for name in others[:1]:
        yield ast.Subscript(node.value, ast.Constant(name), node.ctx)
