"""``graphkiln compile --tune`` and ``--tuned``, through the installed command."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.command import COMMAND, Run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Three small convolutions, each of which can be computed in several ways."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i, (channels, filters) in enumerate(((16, 48), (48, 32), (32, 64))):
        array = rng.normal(size=(filters, channels, 1, 1)).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("x3", TensorProto.FLOAT, [1, 64, 12, 12])], weights,
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def rows(database: Path) -> int:
    """How many kernels a database knows; 0 where there is none yet."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(database)
    try:
        (count,) = connection.execute("SELECT count(*) FROM choices").fetchone()
    except sqlite3.OperationalError:  # not made yet
        return 0
    finally:
        connection.close()
    return int(count)


def test_tuning_is_remembered(
    graphkiln_command: Run, model: Path, cache: Path, tmp_path: Path
) -> None:
    def compiled(name: str, *options: str) -> tuple[str, bytes]:
        path = tmp_path / name
        done = graphkiln_command("compile", model, "-o", path, *options, GRAPHKILN_CACHE=str(cache))
        assert done.code == 0 and done.err == "", done
        return done.out, path.read_bytes()

    told, tuned = compiled("tuned.kiln", "--tune", "60")
    assert "Tuning" in told and "kernels timed" in told and "failed" not in told
    assert rows(cache / "tuned.sqlite") > 0
    told, again = compiled("again.kiln", "--tuned")
    assert "Tuning" not in told and again == tuned
    told, again = compiled("known.kiln", "--tune", "1")
    assert "known before" in told and again == tuned


def test_a_tiny_budget_ends_soon(
    graphkiln_command: Run, model: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.kiln"
    done = graphkiln_command(
        "compile", model, "-o", out, "--tune", "0.01", GRAPHKILN_CACHE=str(cache)
    )
    assert done.code == 0 and "time was up" in done.out and out.exists()
    assert graphkiln_command("compile", model, "-o", out, "--tuned", "--quiet",
                             GRAPHKILN_CACHE=str(cache)).code == 0  # fmt: skip


@pytest.mark.parametrize("option", [("--tune", "5"), ("--tuned",)])
def test_a_corrupt_database_is_told(
    graphkiln_command: Run, model: Path, cache: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    cache.mkdir()
    (cache / "tuned.sqlite").write_bytes(b"not a database, but long enough to be one " * 99)
    out = tmp_path / "m.kiln"
    done = graphkiln_command("compile", model, "-o", out, *option, GRAPHKILN_CACHE=str(cache))
    done.fails("tuned.sqlite", "not a database")
    assert not out.exists()
    assert graphkiln_command("compile", model, "-o", out).code == 0


def test_tuned_without_a_database(graphkiln_command: Run, model: Path, cache: Path) -> None:
    done = graphkiln_command("compile", model, "--tuned", GRAPHKILN_CACHE=str(cache))
    done.fails("no database of tuned kernels", "--tune")
    graphkiln_command("compile", model, "--tune", "soon").fails("--tune", code=2)
    graphkiln_command("compile", model, "--tune", "-1").fails("--tune", code=2)


def test_a_killed_compilation_leaves_what_it_timed(
    graphkiln_command: Run, model: Path, cache: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "GRAPHKILN_CACHE": str(cache)}
    out = tmp_path / "m.kiln"
    command = [str(COMMAND), "compile", str(model), "-o", str(out), "--tune", "100"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not rows(cache / "tuned.sqlite") and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    held = rows(cache / "tuned.sqlite")
    assert held > 0
    done = graphkiln_command(
        "compile", model, "-o", out, "--tune", "60", GRAPHKILN_CACHE=str(cache)
    )
    assert done.code == 0 and "known before" in done.out
    assert rows(cache / "tuned.sqlite") > held
