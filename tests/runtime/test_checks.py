"""Checks on their own: symbolic dimensions, the machine, where TVM's libraries are found."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphkiln.runtime
from graphkiln import machine
from graphkiln.ir.dims import DimError, evaluate, parse_dim
from graphkiln.runtime import ArtifactError, InputError, compatibility, tvm_runtime
from graphkiln.runtime.arithmetic import parse
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


NAMES = ("N", "past", "_k")
TREES = st.recursive(
    st.one_of(st.integers(-9, 9), st.sampled_from(NAMES)),
    lambda inner: st.tuples(st.sampled_from("+ - * // % max min".split()), inner, inner),
    max_leaves=12,
)
SIZES = st.fixed_dictionaries({name: st.integers(0, 40) for name in NAMES})


def written(tree: Any) -> str:
    """A tree as a text with all brackets."""
    if not isinstance(tree, tuple):
        return str(tree)
    op, a, b = tree[0], written(tree[1]), written(tree[2])
    return f"{op}({a}, {b})" if op in ("max", "min") else f"({a}){op}({b})"


@given(TREES, SIZES)
def test_the_runtime_counts_as_the_compiler_does(tree: Any, sizes: dict[str, int]) -> None:
    """The text that the compiler prints, and one with all that it simplifies away."""
    text = written(tree)
    try:
        dim = parse_dim(text)
        value = evaluate(dim, sizes)
    except DimError:  # divided by zero, or too large
        return
    for given_text in (text, str(dim)):
        expression = parse(given_text, NAMES)
        assert expression is not None, given_text
        try:
            assert expression.evaluate(sizes) == value, given_text
        except ZeroDivisionError:
            assert given_text == text  # the compiler may have simplified the division away


@given(st.text(alphabet="Npast019+-*/%(), maxin_.[]'=:", max_size=24))
def test_what_is_read_is_in_the_grammar_of_dims(text: str) -> None:
    """Of texts that the compiler writes and reads, none means something else to the runtime."""
    expression = parse(text, NAMES)
    if expression is None:
        return
    sizes = {"N": 7, "past": 4, "_k": 3}
    try:
        value = expression.evaluate(sizes)
        dim = parse_dim(text)
    except (ZeroDivisionError, DimError):
        return
    assert evaluate(dim, sizes) == value


def test_no_depth_is_too_deep() -> None:
    deep = "+".join(["N"] * 3000)
    expression = parse(deep, {"N"})
    assert expression is None or expression.evaluate({"N": 2}) == 6000
    nested = parse("-(" * 60 + "N" + ")" * 60, {"N"})
    assert nested is not None and nested.evaluate({"N": 5}) == 5


def test_the_runtime_executes_no_text() -> None:
    """No module of the runtime has ``eval``, ``exec`` or ``compile``."""
    for path in Path(graphkiln.runtime.__file__).parent.rglob("*.py"):
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(found, ast.Call) and isinstance(found.func, ast.Name):
                assert found.func.id not in ("eval", "exec", "compile"), path


def test_division_by_zero_checks_nothing() -> None:
    symbols(("5//N",), ("N",)).check([(3,), (0,)])


def test_absent_inputs_bind_nothing() -> None:
    symbols(("N+1",), ("N",)).check([(3,), None])
    symbols(("N",), ("N",), ("N+1",)).check([None, (2,), (3,)])


def target(**changes: object) -> TargetSpec:
    fields = {"kind": "cpu", "name": "cpu", "triple": "", "arch": machine.machine_arch()}
    return TargetSpec(**{**fields, "features": (), **changes})  # type: ignore[arg-type]


def test_this_machine_runs_its_own_code() -> None:
    compatibility.check_target(target(features=tuple(machine.cpu_features())))
    compatibility.check_target(target(triple="x86_64-linux-gnu"))


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


@pytest.mark.parametrize("code", ["import graphkiln.runtime", "graphkiln.compile(sys.argv[1])"])
def test_pytorch_is_left_alone(code: str, tmp_path: Path) -> None:
    """TVM imports PyTorch where it can, and that takes seconds."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = f"import sys, graphkiln; {code}; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
    model = Path(__file__).parents[1] / "models" / "mnist_cntk.onnx"
    subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env={**os.environ, "PYTHONPATH": path}, check=True, timeout=120,
    )  # fmt: skip
