"""Arithmetic on sizes: expressions of a manifest, such as ``2*N+1``, as code of a stack machine.

The grammar is that of the compiler's dims: integers, names, ``+ - * // %``, ``max`` and ``min``. No
text is ever executed; a text outside of the grammar is not an expression. ``2*N+1`` becomes push 2,
push N, multiply, push 1, add.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import ast

Combine: TypeAlias = "Callable[[int, int], int]"

_OPERATORS: dict[str, Combine] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul,
    "FloorDiv": operator.floordiv, "Mod": operator.mod,
}  # fmt: skip
_CALLS: dict[str, Combine] = {"max": max, "min": min}


class Step(NamedTuple):
    """Replace the top two numbers by what ``combine`` makes of them, or push the size called
    ``name``, or push ``value``.
    """

    combine: Combine | None = None
    name: str | None = None
    value: int = 0


class Expression:
    """A size computed from others."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """Its value. Raises KeyError for a name without a size, ZeroDivisionError."""
        stack: list[int] = []
        for combine, name, value in self._steps:
            if combine is not None:
                last = stack.pop()
                stack[-1] = combine(stack[-1], last)
            else:
                stack.append(value if name is None else sizes[name])
        return stack[0]


def parse(text: str, names: Collection[str]) -> Expression | None:
    """Parse an expression over ``names``; None where the text is not one."""
    import ast  # only where a model has such a text

    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    # Steps are collected last to first, from the root of the tree down. A work list rather than
    # recursion, so that deep trees do not exhaust the stack.
    steps: list[Step] = []
    work: list[ast.expr] = [tree.body]
    while work:
        node = work.pop()
        found = _step(node, names)
        if found is None:
            return None
        steps += found[0]
        work += found[1]
    return Expression(steps[::-1])


def _step(node: ast.expr, names: Collection[str]) -> tuple[list[Step], list[ast.expr]] | None:
    """The steps that end the code of an expression, and the operands whose code comes before."""
    import ast

    if isinstance(node, ast.Constant) and type(node.value) is int:
        return [Step(value=node.value)], []
    if isinstance(node, ast.Name) and node.id in names:
        return [Step(name=node.id)], []
    if isinstance(node, ast.BinOp):
        combine = _OPERATORS.get(type(node.op).__name__)
        return None if combine is None else ([Step(combine)], [node.left, node.right])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [Step(operator.sub)], [ast.Constant(0), node.operand]
    if isinstance(node, ast.Call) and len(node.args) > 1 and not node.keywords:
        combine = _CALLS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if combine is not None:
            return [Step(combine)] * (len(node.args) - 1), node.args
    return None


__all__ = ["Expression", "parse"]
