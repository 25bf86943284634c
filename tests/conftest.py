"""Fixtures for every test: golden files and the folder of real models."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every run and every machine, and no example database left behind.
settings.register_profile("graphkiln", derandomize=True, database=None, deadline=None)
settings.register_profile("fresh", derandomize=False, database=None, deadline=None, print_blob=True)
settings.load_profile("graphkiln")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="write the golden files instead of comparing"
    )
    parser.addoption(
        "--check-bounds", action="store_true", help="build kernels that check every access"
    )
    parser.addoption(
        "--cpu", metavar="NAME", help="take this machine for a CPU such as x86-64-v3, if it is one"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have this process compile for what the options ask for."""
    if config.getoption("--check-bounds"):
        _check_bounds()
    if name := config.getoption("--cpu"):
        _take_for(name)


def _check_bounds() -> None:
    """Every CPU target has the option ``check=bounds``."""
    from graphkiln.targets.cpu.target import CpuTarget

    parse = CpuTarget.parse.__func__  # type: ignore[attr-defined]

    def parse_checking(cls: type[CpuTarget], detail: str, options: Any) -> CpuTarget:
        return parse(cls, detail, {**options, "check": "bounds"})

    CpuTarget.parse = classmethod(parse_checking)  # type: ignore[method-assign]


def _take_for(name: str) -> None:
    """The target ``cpu`` is the named one."""
    from graphkiln.machine import cpu_features
    from graphkiln.targets.cpu import features

    chosen = features.features_of(name)
    missing = set(chosen.required) - cpu_features()
    if missing:
        pytest.exit(f"this CPU cannot run code for {name}: it lacks {', '.join(sorted(missing))}")
    features.host_features = lambda: chosen


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("GRAPHKILN_MODELS"):
        return
    for item in items:
        if item.get_closest_marker("models"):
            item.add_marker(pytest.mark.skip(reason="GRAPHKILN_MODELS is not set"))


@pytest.fixture
def models_folder() -> Path:
    """The folder GRAPHKILN_MODELS names; tests that use it carry ``@pytest.mark.models``."""
    return Path(os.environ["GRAPHKILN_MODELS"])


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: ``text`` equals ``golden/<name>.txt`` beside the test's file."""
    update = request.config.getoption("--update-goldens")

    def check(name: str, text: str) -> None:
        path = request.path.parent / "golden" / f"{name}.txt"
        if update:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        if not path.exists():
            pytest.fail(f"{path} is missing; --update-goldens writes it")
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), "golden", "now", lineterm=""
            )
            pytest.fail(f"{path.name} differs (--update-goldens accepts it):\n" + "\n".join(lines))

    return check
