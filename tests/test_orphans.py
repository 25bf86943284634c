"""Children of the tools end with whoever started them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import until

TESTS = Path(__file__).parent
PATHS = os.pathsep.join([str(TESTS), str(TESTS.parent / "benchmarks"), *sys.path])

BUSY = """
import os, sys

def busy(path):
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    while True:
        pass
"""
STARTS = {
    "fuzz": "from fuzz import workers; list(workers.run(iter([path]), busy, jobs=2, limit=99))",
    "pool": "from pool import run_all; list(run_all([path], busy, jobs=1, limit=99))",
    "child": "from child import Child; Child(lambda: busy).ask(path, 99)",
}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("tool", STARTS)
def test_no_child_outlives_its_parent(tmp_path: Path, tool: str, end: signal.Signals) -> None:
    path = tmp_path / "pid"
    code = f"{BUSY}\npath = sys.argv[1]\n{STARTS[tool]}"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": PATHS}
    )
    try:
        assert until(path.exists, 30)
        child = int(path.read_text())
        parent.send_signal(end)
        parent.wait(30)
        try:
            assert until(lambda: not _runs(child), 30)
        finally:
            if _runs(child):
                os.kill(child, signal.SIGKILL)
    finally:
        parent.kill()


def _runs(pid: int) -> bool:
    """Is this a process that has not ended? One that nobody has waited for is dead as well."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
