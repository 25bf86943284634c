"""Some of ONNX's own cases with every dim open, on feeds that fit and that do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "benchmarks" / "open_dims.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *options, "--jobs", "1", "--limit", "60"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip


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
    done = run(*chosen, "--feeds", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "onnxruntime" in done.stdout


def test_a_record_is_gone_on_with(tmp_path: Path) -> None:
    """Also where its last line was cut off; runs of other options do not go together."""
    record = tmp_path / "runs.jsonl"
    options = ("--op", "^(Abs|Identity)$", "--count", "2", "--record", str(record))
    first = run(*options, "--feeds", "4")
    assert first.returncode == 0, first.stdout + first.stderr
    lines = record.read_text().splitlines()
    assert len(lines) == 3
    record.write_text("\n".join([*lines[:2], lines[2][:20]]) + "\n")
    again = run(*options, "--feeds", "4", "-v")
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()
    assert again.stdout.startswith("test_")
    other = run(*options, "--feeds", "5")
    assert other.returncode == 2
    assert "other options" in other.stderr
