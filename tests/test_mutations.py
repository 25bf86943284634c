"""Damaged models and artifacts: each ends in one clear error, or is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_damaged_models() -> None:
    """``python benchmarks/mutate.py`` tries 2,000."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "mutate.py"), "--count", "200", "--compile-every", "20",
         "--jobs", "2"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" in done.stdout and "compiled" in done.stdout


def test_damaged_artifacts() -> None:
    """``python benchmarks/mutate_artifacts.py`` tries 4,000."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "mutate_artifacts.py"), "--count", "180", "--jobs", "2",
         "--limit", "60"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" in done.stdout and "right" in done.stdout
