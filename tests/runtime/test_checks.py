"""Checks on their own: symbolic dimensions, the machine, where TVM's libraries are found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphkiln.runtime import ArtifactError, InputError, machine, tvm_runtime
from graphkiln.runtime.dims import SymbolCheck
from graphkiln.runtime.manifest import TargetSpec, ValueSpec


def symbols(*shapes: tuple) -> SymbolCheck:
    specs = [ValueSpec(f"x{i}", "tensor", "float32", shape) for i, shape in enumerate(shapes)]
    return SymbolCheck(specs)


@pytest.mark.parametrize(
    ("dim", "size"),
    [
        ("N", 4),
        ("N+1", 5),
        ("past - 1", 6),
        ("2*N - past", 1),
        ("(N+past)//2", 5),
        ("past % N", 3),
        ("max(N,past)", 7),
        ("min(N, 3)*2", 6),
        ("-N + past", 3),
    ],
)
def test_expressions(dim: str, size: int) -> None:
    check = symbols((dim,), ("N", "past"))
    check.check([(size,), (4, 7)])
    with pytest.raises(InputError, match=r"'x0'|'x1'"):
        check.check([(size + 1,), (4, 7)])


@pytest.mark.parametrize(
    "dim",
    [
        "batch size", "N+M", "N.real", "__import__('os')", "max", "N[0]", "N if N else 1", "1.5*N",
        "lambda: 0", "f(N)", "max(N, key=N)", "", "(" * 500, "é",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_a_label(dim: str) -> None:
    check = symbols((dim,), ("N", dim))
    check.check([(3,), (4, 3)])
    with pytest.raises(InputError):
        check.check([(3,), (4, 5)])


def test_division_by_zero_checks_nothing() -> None:
    symbols(("5//N",), ("N",)).check([(3,), (0,)])


def test_absent_inputs_bind_nothing() -> None:
    symbols(("N+1",), ("N",)).check([(3,), None])
    symbols(("N",), ("N",), ("N+1",)).check([None, (2,), (3,)])


def target(**changes: object) -> TargetSpec:
    fields = {"kind": "cpu", "name": "cpu", "triple": "", "arch": machine.machine_arch()}
    return TargetSpec(**{**fields, "features": (), **changes})  # type: ignore[arg-type]


def test_this_machine_runs_its_own_code() -> None:
    machine.check_target(target(features=tuple(machine.cpu_features())))
    machine.check_target(target(triple="x86_64-linux-gnu"))


def test_flags_are_read_from_either_architecture(tmp_path: Path) -> None:
    for line in ("flags\t\t: fpu avx2 avx512f", "Features\t: fpu avx2 avx512f"):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n")
        found = machine.cpu_features(str(tmp_path / "cpuinfo"))
        assert found == {"fpu", "avx2", "avx512f"}
    assert machine.cpu_features(str(tmp_path / "nothing")) == frozenset()


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("150000 100000", 2), ("5000 100000", 1), ("", None)]
)
def test_quotas(tmp_path: Path, text: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert machine._quota(str(tmp_path)) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", None), ("150000", 2), ("5000", 1)])
def test_quotas_of_the_first_version(tmp_path: Path, quota: str, cpus: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert machine._quota(str(tmp_path)) == cpus


def test_cores_are_at_least_one_and_at_most_the_affinity() -> None:
    assert 1 <= machine.usable_cores() <= len(os.sched_getaffinity(0))


def test_without_tvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_runtime, "_handles", {})
    monkeypatch.setattr(tvm_runtime, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="TVM's runtime is not installed: install apache-tvm"):
        tvm_runtime.load_libraries(cuda=False)


def test_with_an_incomplete_tvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("tvm", tmp_path / "__init__.py")
    monkeypatch.setattr(tvm_runtime, "_handles", {})
    monkeypatch.setattr(tvm_runtime, "find_spec", lambda name: spec)
    with pytest.raises(ArtifactError, match="cannot be loaded .*: install apache-tvm again"):
        tvm_runtime.load_libraries(cuda=False)


def test_pytorch_is_left_alone(tmp_path: Path) -> None:
    """tvm_ffi imports PyTorch where it can, and that takes seconds."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = "import sys, graphkiln.runtime; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60
    )
