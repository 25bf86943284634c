"""``docs/claims.md``: every page has claims, and the tests that hold them exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "claims.md"
ROW = re.compile(r"^\| (?!claim )(.+) \| (.+) \|$", re.M)


def sections() -> dict[str, list[tuple[str, str]]]:
    """The rows (claim, tests) below each heading; those before the first stand under ``""``."""
    title, *parts = re.split(r"^## (.+)$", PAGE.read_text("utf-8"), flags=re.M)
    found = {"": ROW.findall(title)}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        found[name] = ROW.findall(text)
    return found


@cache
def functions(path: Path) -> frozenset[str]:
    """The test functions of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    names = (n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    return frozenset(n for n in names if n.startswith("test_"))


def test_every_page_has_claims() -> None:
    pages = {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")} - {
        "docs/claims.md"
    }
    found = sections()
    assert set(found) - {""} == {"README.md", "docs/api", *pages}
    for page, rows in found.items():
        assert any("`" in tests for _, tests in rows), f"{page or 'the head'}: nothing is held"


@pytest.mark.parametrize("page", sections(), ids=lambda p: p or "head")
def test_tests_exist(page: str) -> None:
    for claim, told in sections()[page]:
        if told.startswith("none: "):
            continue
        named = re.findall(r"`([^`]+)`", told)
        assert named and ", ".join(f"`{n}`" for n in named) == told, claim
        for name in named:
            file, _, test = name.partition("::")
            if not test:
                assert (ROOT / file).is_file(), name
                continue
            assert (TESTS / file).is_file(), name
            assert test in functions(TESTS / file), name
