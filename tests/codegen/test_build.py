"""What is said of kernels that cannot be built."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from graphkiln.codegen import build
from graphkiln.codegen.build import (
    build_kernels,
    compiler_version,
    failure,
    parse_target,
)
from graphkiln.codegen.kernels import KernelSpec, kernel_spec
from graphkiln.codegen.workers import IN_PROCESS_LIMIT, Workers
from graphkiln.ir.graph import Graph
from graphkiln.ir.types import DTYPES, TensorType


@pytest.fixture
def spec() -> KernelSpec:
    graph = Graph("g")
    t = TensorType(DTYPES["float32"], (4,))
    node = graph.add_node("Relu", [graph.add_input("x", t)], name="act", types=[t])
    graph.set_outputs([node.out()])
    return kernel_spec(graph, node)


@pytest.mark.parametrize("text, reason", [
    ("no space left", "no space left"),
    ("Traceback:\n  a line\nValueError: odd\n", "ValueError: odd"),
    ("Check failed: (d != 0) is false: by zero\n\nmodule\n(... 272 lines skipped ...)",
     "Check failed: (d != 0) is false: by zero"),
])  # fmt: skip
def test_one_line_gives_the_reason(spec: KernelSpec, text: str, reason: str) -> None:
    assert str(failure(spec, RuntimeError(text))) == f"node 'act' (kernel Relu): {reason}"


def test_workers_import_nothing_from_the_current_folder(
    spec: KernelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "numpy", "tvm", "networkx", "importlib", "select", "tvm_ffi", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not from here')")
    monkeypatch.chdir(tmp_path)
    kernels = {f"kernel_{i}": spec for i in range(IN_PROCESS_LIMIT + 1)}
    with Workers(2) as workers:
        built = build_kernels(kernels, parse_target("cpu"), workers=workers, cache_folder="")
    assert list(built) == list(kernels) and all(built.values())


def test_errors_without_a_text_give_their_kind(spec: KernelSpec) -> None:
    assert str(failure(spec, MemoryError())) == "node 'act' (kernel Relu): MemoryError"


def test_kernels_are_built_again_where_a_target_from_outside_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "outside" / "deep"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "target.py").write_text(
        "from graphkiln.targets.cpu.target import CpuTarget\nclass Mine(CpuTarget): pass\n"
    )
    (tmp_path / "single.py").write_text(
        "from graphkiln.targets.cpu.target import CpuTarget\nclass Mine(CpuTarget): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = parse_target("cpu")
    assert build.foreign_code([own]) == ""
    for name, elsewhere in (("outside.deep.target", package.parent / "kernels.py"),
                            ("single", tmp_path / "single.py")):  # fmt: skip
        target = import_module(name).Mine(own.features)
        before = build.foreign_code([own, target])
        (tmp_path / "unrelated.py").write_text(f"# {name}")
        assert before and build.foreign_code([target]) == before
        assert build.kernel_version(target).endswith(before)
        with open(elsewhere, "a") as file:
            file.write("# changed")
        assert build.foreign_code([target]) != before


def test_kernels_are_built_again_where_lowering_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cache holds what another pipeline made, under a name that nobody asks for."""
    version, root = compiler_version.__wrapped__, Path(build.__file__).parent.parent
    before = version()
    shutil.copytree(root / "codegen", tmp_path / "codegen")
    for folder in ("targets", "ir"):
        shutil.copytree(root / folder, tmp_path / folder)
    shutil.copy(root / "contract.py", tmp_path)
    monkeypatch.setattr(build, "_ROOT", tmp_path)
    assert version() == before
    with open(tmp_path / "codegen" / "tvm_passes.py", "a") as file:
        file.write("# changed")
    assert version() != before
