"""Graphs are edited, walked and copied in one place: no layer above has its own way to do it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import graphkiln

ROOT = Path(graphkiln.__file__).parent
ABOVE = ("passes", "codegen", "targets", "frontend", "cli", "runtime")
EDITS = {
    "add_node", "add_constant", "add_input", "set_input", "replace_uses", "prune", "rename",
    "drop_last_output", "_connect", "remove_edge", "add_edge", "remove_node",
}  # fmt: skip
"""Methods of graphs that change them."""

NO_WALKERS = {
    "frontend/assumptions.py _causes": "goes from values to what they are computed from",
}
"""Functions that look at bodies on another way than through all nested graphs."""

BUILDERS = {
    "passes/fuse/outline.py": "the body of a region, and names of its results",
    "codegen/kernels.py": "the canonical region that names a kernel",
    "codegen/scalar_calls.py": "regions of one op for counters and conditions of loops",
    "targets/cpu/candidates.py": "regions of one op whose tiles are timed",
}
"""Files outside of the frontend that build graphs of their own, and which."""


def functions(folder: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(ROOT).as_posix(), node


def calls(function: ast.FunctionDef) -> Iterator[tuple[ast.expr | None, str, int]]:
    """The receiver, name and line of each call in a function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.value, node.func.attr, node.lineno
            elif isinstance(node.func, ast.Name):
                yield None, node.func.id, node.lineno


def test_passes_change_graphs_through_the_editor() -> None:
    wrong = []
    for folder in ("passes", "codegen", "targets", "cli"):
        for path, function in functions(folder):
            for receiver, name, line in calls(function):
                if receiver is None or name not in EDITS or path in BUILDERS:
                    continue
                owner = ast.unparse(receiver)
                if not owner.startswith("editor") and not owner.endswith((".editor", "_editor")):
                    wrong.append(f"{path}:{line} {owner}.{name}")
    wrong = [w for w in wrong if not w.endswith("os.rename")]
    assert not wrong, "\n".join(wrong)


def test_nobody_else_walks_nested_graphs() -> None:
    """A walker asks for the bodies of nodes and calls itself, or keeps a list of graphs to see."""
    wrong = []
    for folder in ABOVE:
        for path, function in functions(folder):
            made = list(calls(function))
            lines = [line for _, name, line in made if name == "bodies"]
            own = any(name == function.name for _, name, _ in made)
            loops = any(isinstance(n, ast.While) for n in ast.walk(function))
            stacks = any(name in ("append", "extend", "pop") for _, name, _ in made) and loops
            if f"{path} {function.name}" not in NO_WALKERS and (own or stacks):
                wrong += [f"{path}:{line} {function.name}" for line in lines]
    assert not wrong, "\n".join(wrong)


def test_nobody_else_copies_nodes() -> None:
    """A copier makes a node from another one's op."""
    wrong = []
    for folder in ABOVE:
        for path, function in functions(folder):
            for node in ast.walk(function):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if node.func.attr == "add_node" and node.args:
                    if isinstance(node.args[0], ast.Attribute) and node.args[0].attr == "op":
                        wrong.append(f"{path}:{node.lineno}")
    assert [w for w in wrong if not w.startswith("frontend/importer.py")] == []
