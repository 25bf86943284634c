"""Some of ONNX's own cases with every dim open, on feeds that fit and that do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "benchmarks" / "open_dims.py"


@pytest.mark.parametrize(
    "chosen",
    [
        ["--op", "^(LinearAttention|QLinearMatMul|MaxUnpool|TensorScatter)$", "--count", "12"],
        ["--op", "^(Concat|Gather|Slice|Pad|TopK|MatMulInteger|OneHot|Einsum)$", "--count", "24"],
    ],
    ids=["sizes that decide each other", "movement"],
)
def test_open_dims(chosen: list[str]) -> None:
    """``python benchmarks/open_dims.py`` tries every case."""
    done = subprocess.run(
        [sys.executable, str(TOOL), *chosen, "--feeds", "12", "--jobs", "1", "--limit", "60"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnxruntime" in done.stdout
