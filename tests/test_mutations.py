"""Damaged models and artifacts: each ends in one clear error, or is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("tool", "options", "outcomes"),
    [
        ("mutate.py", "--count 200 --compile-every 20", ("refused", "compiled")),
        ("mutate_artifacts.py", "--count 180 --limit 60", ("refused", "right")),
    ],
)
def test_damaged(tool: str, options: str, outcomes: tuple[str, ...]) -> None:
    """By themselves the tools try 4,000 models and 4,000 artifacts."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / tool), *options.split(), "--jobs", "2"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(outcome in done.stdout for outcome in outcomes)
