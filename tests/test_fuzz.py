"""300 random graphs of all families; ``python -m tests.fuzz`` makes as many as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from graphkiln.machine import cpu_features
from graphkiln.targets.cpu.features import features_of

ROOT = Path(__file__).parent.parent
COMMON = "x86-64-v3"


def test_random_graphs(tmp_path: Path) -> None:
    """The same ones in each run, by code that is the same on most machines: no chance decides."""
    runs_here = not set(features_of(COMMON).required) - cpu_features()
    target = f"cpu:{COMMON}" if runs_here else "cpu"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--count", "300", "--seed", "1", "--no-shrink",
         "--limit", "180", "--target", target, "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 right" in done.stdout
