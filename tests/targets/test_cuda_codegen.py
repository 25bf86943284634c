"""Code generation for GPUs on machines that have none, with or without nvcc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphkiln
from graphkiln.codegen.build import BuildError, reason_of
from graphkiln.targets.cuda.target import CudaTarget

TOOL = Path(__file__).parents[2] / "benchmarks" / "cuda_codegen.py"
MODEL = Path(__file__).parents[1] / "models" / "mnist_cntk.onnx"


def run(*arguments: str) -> str:
    """What the tool prints, where no programs are found and no kernels are kept."""
    environment = {**os.environ, "PATH": "", "GRAPHKILN_CACHE": ""}
    done = subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        capture_output=True, text=True, env=environment, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_a_tenth_of_the_conformance_cases() -> None:
    """``python benchmarks/cuda_codegen.py`` tries them all, in about three minutes."""
    assert run("--sample", "200") == "200 cases: 200 built, 0 refused, 0 failed"


@pytest.mark.parametrize("pattern", ["test_(slice|edge_pad|loop11|center_crop)", "nonzero|unique"])
def test_cases_with_sizes_that_data_tell(pattern: str) -> None:
    assert run("--filter", pattern).endswith(" 0 refused, 0 failed")


@pytest.mark.slow
def test_every_conformance_case() -> None:
    assert run().endswith(" 0 refused, 0 failed")


def test_check_and_compile_name_the_same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both fail where TVM makes no device code of a kernel that has a function."""
    reason = "Check failed: threads cannot do this"

    def fail(self: CudaTarget, name: str, function: object, compiler: object) -> bytes:
        raise RuntimeError(f"{reason}\nand a trace")

    monkeypatch.setenv("GRAPHKILN_CACHE", "")
    monkeypatch.setattr(CudaTarget, "check_kernel", fail)
    monkeypatch.setattr(CudaTarget, "compile_kernel", fail)
    monkeypatch.setattr(CudaTarget, "require_tools", lambda self: None)
    blockers = graphkiln.check(MODEL, target="cuda:sm_90")
    with pytest.raises(BuildError) as caught:
        graphkiln.compile(MODEL, target="cuda:sm_90", jobs=1)
    assert [str(b) for b in blockers] == [str(b) for b in caught.value.blockers]
    assert len(blockers) > 3 and all(b.node and b.reason == reason for b in blockers)
    assert reason_of(RuntimeError(reason)) == reason
