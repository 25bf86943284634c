"""Gives functions that stand in tables and closures other code, where they are."""

from __future__ import annotations

import ast
import builtins
import copy
import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from .mutants import RuleFile

_HIT = "__graphkiln_hit__"

Places = dict[tuple[str, int], list[CodeType]]
"""Code objects by their name and their line."""


class LiveFunctions:
    """The functions of files that have been imported, lambdas and inner functions among them."""

    def __init__(self, files: list[RuleFile]) -> None:
        self._files = {str(f.path): f for f in files}
        self._functions: dict[str, list[FunctionType]] = defaultdict(list)
        for found in gc.get_objects():
            if type(found) is FunctionType and found.__code__.co_filename in self._files:
                self._functions[found.__code__.co_filename].append(found)

    def install(self, file: RuleFile, tree: ast.Module) -> bool:
        """Run them as ``tree`` has them; False where that takes an import."""
        return self._replace(file, _places(file, file.tree), _places(file, tree))

    def change(self, file: RuleFile, applied: Callable[[], Any]) -> bool:
        """The same for a change of the file's own tree, which it has in the context ``applied``."""
        old = _places(file, file.tree)
        with applied():
            new = _places(file, file.tree)
        return self._replace(file, old, new)

    def _replace(self, file: RuleFile, old: Places, new: Places) -> bool:
        places = {
            _fingerprint(code): (place, i)
            for place, codes in old.items()
            for i, code in enumerate(codes)
            if len(codes) == len(new.get(place, ()))
        }
        try:
            for function in self._functions[str(file.path)]:
                place, i = places[_fingerprint(function.__code__)]
                function.__code__ = new[place][i]
        except (KeyError, ValueError):  # it was made in another way, or wants another closure
            return False
        return True


def _places(file: RuleFile, tree: ast.Module) -> Places:
    found: Places = defaultdict(list)
    for code in _inner(compile(tree, str(file.path), "exec", dont_inherit=True)):
        found[code.co_name, code.co_firstlineno].append(code)
    return found


def _fingerprint(code: CodeType) -> tuple[object, ...]:
    """Equal for the code of the same function; code that has run may differ from itself before."""
    return code.co_name, code.co_firstlineno, code.co_code, code.co_linetable, code.co_names


def _inner(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


# ---- which statements run ------------------------------------------------------------------------


def hear_hits(heard: Callable[[tuple[str, int]], None]) -> None:
    """Have instrumented code tell of every statement that it comes to."""
    setattr(builtins, _HIT, lambda name, number: heard((name, number)))


def number_sites(file: RuleFile) -> None:
    """Number the statements and lambdas of a file's tree, as ``site``."""
    for number, node in enumerate(ast.walk(file.tree)):
        if isinstance(node, ast.stmt | ast.Lambda):
            node.site = number  # type: ignore[attr-defined]


def instrumented(file: RuleFile) -> ast.Module:
    """The file with a call in front of every statement of a function, and in every lambda."""
    tree = copy.deepcopy(file.tree)
    return ast.fix_missing_locations(_Instrument(file.name).visit(tree))


class _Instrument(ast.NodeTransformer):
    def __init__(self, name: str) -> None:
        self._name = name
        self._depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.generic_visit(node)
        both = ast.Tuple([self._call(node), node.body], ast.Load())
        node.body = ast.Subscript(both, ast.Constant(1), ast.Load())
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse") if self._depth else ():
            block = getattr(node, field, None)
            if isinstance(block, list):
                pairs = [(ast.copy_location(ast.Expr(self._call(s)), s), s) for s in block]
                setattr(node, field, [s for pair in pairs for s in pair])
        return node

    def _call(self, node: ast.AST) -> ast.Call:
        place = [ast.Constant(self._name), ast.Constant(node.site)]  # type: ignore[attr-defined]
        return ast.Call(ast.Name(_HIT, ast.Load()), place, [])  # type: ignore[arg-type]
