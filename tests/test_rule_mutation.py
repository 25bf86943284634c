"""Faults in rewrite rules: a sample of them, each noticed; and which faults are made."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tool(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.mutation", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


def test_a_sample_of_faults_is_noticed() -> None:
    """The same ones each time; a fault that changes nothing stands in equivalent.txt."""
    done = tool("--sample", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 faults" in done.stdout and "survived" not in done.stdout


def test_what_is_listed_as_equivalent_is_a_fault() -> None:
    """A line goes when the code that it is about goes."""
    listed = (ROOT / "tests" / "mutation" / "equivalent.txt").read_text("utf-8").splitlines()
    keys = [line for line in listed if line and not line.startswith("#")]
    known = tool("--list").stdout.splitlines()
    assert len(known) == len(set(known))
    assert set(keys) <= set(known)
    assert len(keys) == len(set(keys))


SOURCE = '''
LIMIT = 4

def when(m):
    """A docstring."""
    x, c = m["x"], m["c"]
    if x.rank < 2 or c.size != 1:
        return "no"
    assert x.rank
    return None if x.dtype in KNOWN else f"it is {x.dtype}"

CLAIM = rounds(text(), bound())

RULES = (
    Rule("one", Op("Add|Mul", Var("x"), Const("c")), lambda m, r: r.op("Sub", m["c"], m["x"]),
         when, claim=proved("x + c = c - x")),
)
'''

FAULTS = {
    "LIMIT = 5",
    "LIMIT = 3",
    "x, c = (m['c'], m['c'])",
    "x, c = (m['x'], m['x'])",
    "if False:",
    "if True:",
    "if c.size != 1:",
    "if x.rank < 2:",
    "if x.rank <= 2 or c.size != 1:",
    "if x.rank < 3 or c.size != 1:",
    "if x.rank < 1 or c.size != 1:",
    "if x.rank < 2 or c.size == 1:",
    "if x.rank < 2 or c.size != 2:",
    "if x.rank < 2 or c.size != 0:",
    "return None",
    "return f'it is {x.dtype}'",
    "return None if x.dtype not in KNOWN else f'it is {x.dtype}'",
    "*()",
    "None",
    "Op('Add', Var('x'), Const('c'))",
    "Op('Mul', Var('x'), Const('c'))",
    "Op('Add|Mul', Const('c'), Var('x'))",
    "Op('Add|Mul', Var('x'))",
    "lambda m, r: r.op('Sub', m['x'], m['c'])",
    "lambda m, r: r.op('Sub', m['c'])",
    "lambda m, r: r.op('Sub', m['x'], m['x'])",
    "lambda m, r: r.op('Sub', m['c'], m['c'])",
}


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    from mutation.changes import changes

    return changes


def test_which_faults_are_made(changes: object) -> None:
    tree = ast.parse(SOURCE)
    before = ast.dump(tree)
    assert {c.texts()[1] for c in changes(tree)} == FAULTS  # type: ignore[operator]
    assert ast.dump(tree) == before
