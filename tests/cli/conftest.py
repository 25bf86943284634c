"""The installed command, and an artifact to try it on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.command import COMMAND, MODELS, Outcome, Run


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRAPHKILN_", "TVM_"))}
    return {**kept, "GRAPHKILN_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "80"}


@pytest.fixture(scope="session")
def graphkiln_command(command_environment: dict[str, str]) -> Run:
    """``graphkiln_command(*arguments)`` runs the command as a user would."""

    def run(
        *arguments: str | Path, cwd: Path | None = None, stdout: str | None = None,
        prefix: Sequence[str] = (), **environment: str,
    ) -> Outcome:  # fmt: skip
        with open(stdout or os.devnull, "w") as sink:
            done = subprocess.run(
                [*prefix, str(COMMAND), *map(str, arguments)],
                stdout=sink if stdout else subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=240, cwd=cwd, env={**command_environment, **environment},
            )  # fmt: skip
        return Outcome(done.returncode, done.stdout or "", done.stderr)

    return run


@pytest.fixture(scope="session")
def digits(graphkiln_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model, compiled by the command."""
    path = tmp_path_factory.mktemp("digits") / "digits.kiln"
    done = graphkiln_command("compile", MODELS / "mnist_cntk.onnx", "-o", path)
    assert done.code == 0, done
    return path


@pytest.fixture
def model() -> Path:
    return MODELS / "mnist_cntk.onnx"
