"""The two safety nets: checks in kernels, and buffers next to guard pages.

Faults on purpose are caught, each by its net, and a tenth of ONNX's cases and of the random graphs
that ``python benchmarks/nets.py`` runs is caught by none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NETS = TESTS.parent / "benchmarks" / "nets.py"
PLACES = ("input", "weight", "output", "temporary", "workspace")


def ends(target: str, guard: str, faults: list[str]) -> dict[str, str]:
    """How each fault of ``support/overstep.py`` ends."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "support" / "overstep.py"), target, *faults],
        env={**os.environ, "GRAPHKILN_GUARD": guard}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_checked_kernels() -> None:
    faults = [f"{place}+1" for place in PLACES]
    faults += ["input+0", "input-1", "output-1", "workspace+0", "workspace-1"]
    for fault, end in ends("cpu:,check=bounds", "", faults).items():
        if fault.endswith("+0"):
            assert end == "fine"
            continue
        verb = "writes" if fault[:-2] in ("output", "workspace") else "reads"
        assert end.startswith("ExecutionError") and f"{verb} outside of its buffer" in end, end


@pytest.mark.parametrize("guard, seen, unseen", [("end", "+1", "-1"), ("front", "-1", "+1")])
def test_guard_pages(guard: str, seen: str, unseen: str) -> None:
    """Up to 63 bytes lie between the end of a workspace and the page."""
    caught = [f"{place}{seen}" for place in PLACES[:-1]]
    caught.append("workspace+17" if guard == "end" else "workspace-1")
    others = ["input+0", "workspace+0", f"temporary{unseen}", f"output{unseen}"]
    found = ends("cpu:,memory=apart", guard, [*caught, *others])
    assert {found[fault] for fault in caught} == {"SIGSEGV"}
    assert {found[fault] for fault in others} == {"fine"}


def test_an_unknown_guard() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import graphkiln.runtime"],
        env={**os.environ, "GRAPHKILN_GUARD": "both"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "GRAPHKILN_GUARD is 'both': it may be end or front" in done.stderr


@pytest.mark.parametrize("number, net", [(0, "bounds"), (1, "end"), (2, "front")])
def test_nothing_is_caught(number: int, net: str) -> None:
    """Each net has another thirtieth."""
    done = subprocess.run(
        [sys.executable, str(NETS), "--net", net, "--every", "30", "--first", str(number),
         "--seed", "1", "--jobs", "2"],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " tasks in " in done.stdout and ", 0 hits" in done.stdout
