"""What IR, passes, targets and reports know of ops stands in the registry, not in lists beside it.

A collection literal with the names of two or more ops is such a list. Rules are none: a dict from
ops to functions says what is done with each, and the pattern of a rewrite names what it rewrites.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphkiln
from graphkiln.ir.registry import specs

ROOT = Path(graphkiln.__file__).parent
SCANNED = ("ir", "passes", "codegen", "targets", "cli", "quantizer", "driver.py")

OF_OPS = ("ir/ops/", "ir/evaluators/", "targets/generic/ops/", "targets/cpu/recurrent.py")
"""Files that are about the ops they name: their inference, evaluation, lowerings and kernels."""

ALLOWED = {
    ("ir/dims.py", "__all__"): "classes of size expressions, which bear the names of ops",
    ("passes/decompose.py", "_ACTIVATIONS"):
        "values that com.microsoft's FusedConv has in its attribute activation, not ops of a graph",
    ("passes/prune/coupling.py", "UNSETTLED"):
        "forms with operands for sizes, in whose places the pass shapes puts ops of the dialect",
}  # fmt: skip
"""(File, the name assigned) of the tables that stay, and why."""


def _files() -> Iterator[Path]:
    for name in SCANNED:
        found = ROOT / name
        yield from [found] if found.is_file() else sorted(found.rglob("*.py"))


def _names() -> frozenset[str]:
    """Names and keys of the built-in ops."""
    own = [s for s in specs() if s.infer.__module__.startswith("graphkiln.")]
    return frozenset(n for s in own for n in (s.name, s.key))


def _entries(node: ast.AST) -> list[ast.expr]:
    """The elements of a literal, the keys of a dict; of tuples among them the first element."""
    if isinstance(node, ast.Set | ast.Tuple | ast.List):
        entries = node.elts
    elif isinstance(node, ast.Dict) and not _holds_functions(node):
        entries = [k for k in node.keys if k is not None]
    elif isinstance(node, ast.Call) and _splits(node):
        return [ast.Constant(word) for word in _text(node.func.value).replace("|", " ").split()]
    else:
        return []
    return [e.elts[0] if isinstance(e, ast.Tuple) and e.elts else e for e in entries]


def _splits(node: ast.Call) -> bool:
    """Is this ``"A B C".split()``?"""
    f = node.func
    return isinstance(f, ast.Attribute) and f.attr == "split" and bool(_text(f.value))


def _text(node: ast.AST) -> str:
    """The end of a string: of ``"com.microsoft." + "Gelu"`` the second part."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        node = node.right
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _holds_functions(node: ast.Dict) -> bool:
    """Are all values functions, or made by calls? By this project's style others are upper case."""
    values = [v for k, v in zip(node.keys, node.values, strict=True) if k is not None]
    return all(
        isinstance(v, ast.Lambda | ast.Call) or _last(v).strip("_").islower() for v in values
    )


def _last(node: ast.expr) -> str:
    """The last name of ``a.b.c``; nothing for other expressions."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def tables(source: str, names: frozenset[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Line, name assigned and ops of each table in a file."""
    tree = ast.parse(source)
    assigned = {id(n): name for s in tree.body if (name := _target(s)) for n in ast.walk(s)}
    for node in ast.walk(tree):
        found = [t for e in _entries(node) if (t := _text(e)) in names]
        if len(found) > 1 and isinstance(node, ast.expr):
            yield node.lineno, assigned.get(id(node), ""), found


def _target(statement: ast.stmt) -> str:
    """The one name that a statement assigns."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def test_no_list_of_ops_stands_outside_the_registry() -> None:
    names, wrong, used = _names(), [], set()
    for path in _files():
        file = path.relative_to(ROOT).as_posix()
        if file.startswith(OF_OPS):
            continue
        for line, name, ops in tables(path.read_text(encoding="utf-8"), names):
            if (file, name) in ALLOWED:
                used.add((file, name))
            else:
                wrong.append(f"{file}:{line} lists {', '.join(ops)}")
    assert not wrong, "make it a trait or a field of OpSpec:\n" + "\n".join(wrong)
    assert used == set(ALLOWED), "these exceptions are needed no more"


@pytest.mark.parametrize(
    "source",
    [
        'HEAVY = frozenset({"Conv", "MatMul"})',
        'HEAVY = ["Conv", "MatMul"]',
        'if node.op in ("Conv", "MatMul"): pass',
        'COST = {"Conv": 3, "MatMul": 2}',
        'COST = {"Conv": LARGE, "MatMul": SMALL}',
        'AXES = {("Conv", 1): (1, 2), ("MatMul", 0): (-1,)}',
        'OURS = {MS + "Gelu", MS + "QGemm"}',
        'HEAVY = "Conv MatMul".split()',
        'HEAVY = frozenset("Conv|MatMul".split("|"))',
        'ZERO = dict.fromkeys(("Conv", "MatMul"), rule)',
    ],
)
def test_tables_are_found(source: str) -> None:
    assert [ops for _, _, ops in tables(source, _names())]


@pytest.mark.parametrize(
    "source",
    [
        'RULES = {"Conv": conv.convolution, "MatMul": _product, "Gemm": lambda n: n}',
        'KERNELS = {"Conv": convolution(cpu), "MatMul": matmul(cpu)}',
        'PATTERN = Op("Add", Op("Mul", Var("x")))',
        'if node.op == "Conv": pass',
        'NAMES = ("Conv", "conv")',
    ],
)
def test_rules_are_no_tables(source: str) -> None:
    assert not list(tables(source, _names()))
