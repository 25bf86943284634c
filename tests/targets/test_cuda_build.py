"""What the CUDA target contributes to artifacts; none of it needs a GPU."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tvm import tirx

import graphkiln
from graphkiln.codegen.build import BuildError, TvmCompiler, build_kernels
from graphkiln.codegen.kernels import KernelSpec
from graphkiln.contract import CUDA_MODULES, first_text, join_texts, split_texts
from graphkiln.ir.parser import parse_graph
from graphkiln.runtime import ArtifactError, load, read_artifact
from graphkiln.targets import TargetError, parse_target
from graphkiln.targets.base import Kernel, Target
from graphkiln.targets.cuda import device_code
from graphkiln.targets.cuda.lowering import _constant

TARGET = "cuda:sm_90"
ADD = """
graph kernel(%x: float32[4,8], %y: float32[8]) -> (z) {
  %s = Add(%x, %y) : float32[4,8]
  %z = Relu(%s) : float32[4,8]
  return %z
}
"""

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc here")


def spec(text: str = ADD, node: str = "add") -> KernelSpec:
    return KernelSpec(text, "main", "Add_Relu", (0, 1), (), node)


class Cached:
    """Services with a cache of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def compile_kernels(self, kernels: Mapping[str, Kernel], target: Target) -> dict[str, bytes]:
        return build_kernels(kernels, target, cache_folder=str(self.folder))


@pytest.fixture
def without_nvcc(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The sources that nvcc would have compiled."""
    sources: list[bytes] = []

    def fake(source: bytes, arch: str) -> bytes:
        sources.append(source)
        return b"machine code for " + arch.encode()

    monkeypatch.setattr(device_code, "_fat_binary", fake)
    return sources


def test_each_kernel_is_compiled_once(tmp_path: Path, without_nvcc: list[bytes]) -> None:
    target = parse_target(TARGET)
    first = target.build({"one": spec(), "two": spec()}, Cached(tmp_path))
    assert set(first.objects) == {"one", "two"}
    assert all(o.startswith(b"\x7fELF") for o in first.objects.values())
    assert [b"one_kernel" in s for s in without_nvcc] == [True, False]
    assert len(list((tmp_path / "kernels").iterdir())) == 2
    again = target.build({"one": spec(), "two": spec()}, Cached(tmp_path))
    assert len(without_nvcc) == 2 and again == first


def test_device_code_is_a_member(tmp_path: Path, without_nvcc: list[bytes]) -> None:
    (member,) = parse_target(TARGET).build({"one": spec()}, Cached(tmp_path)).members.values()
    assert member.kind == CUDA_MODULES
    (module,) = split_texts(member.content)
    form, rest = first_text(module)
    assert form == b"fatbin" and b"one_kernel" in rest
    assert rest.endswith(join_texts([b"machine code for sm_90"]))


def test_a_kernel_without_device_code(tmp_path: Path, without_nvcc: list[bytes]) -> None:
    empty = ADD.replace("4,8", "0,8")
    parts = parse_target(TARGET).build({"none": spec(empty)}, Cached(tmp_path))
    assert list(parts.objects) == ["none"] and not without_nvcc
    assert [split_texts(m.content) for m in parts.members.values()] == [[]]


def test_errors_name_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: bytes, arch: str) -> bytes:
        raise device_code.DeviceCodeError("nvcc: no room")

    monkeypatch.setattr(device_code, "_fat_binary", fail)
    with pytest.raises(BuildError) as caught:
        kernels = {"one": spec(node="a"), "two": spec(node="b")}
        parse_target(TARGET).build(kernels, Cached(tmp_path))
    assert [str(b) for b in caught.value.blockers] == [
        "node 'a' (kernel Add_Relu): nvcc: no room",
        "node 'b' (kernel Add_Relu): nvcc: no room",
    ]


def test_workspace_within_a_thread_is_its_own() -> None:
    """The sizes of Slice are computed through a table; a GPU's thread cannot allocate one."""
    region = parse_graph(
        "graph g(%x: float32[8], %a: int64[1], %b: int64[1], %c: int64[1]) -> (y) {\n"
        "  %y = Slice(%x, %a, %b, %c) : float32[s0]\n  return %y\n}\n"
    )
    target = parse_target(TARGET)
    function = target.sizes_kernel(region, "sizes")
    library = TvmCompiler().compile({"sizes": function}, target)
    assert "sizes_kernel" in library.imports[0].inspect_source()


def test_workspace_of_open_sizes_between_launches() -> None:
    """Resize keeps a table an axis; several launches fill and read them."""
    region = parse_graph(
        "graph g(%x: float32[2,4], %s: int64[2]) -> (y) {\n"
        '  %y = Resize(%x, _, _, %s) {mode="nearest"} : float32[s0,s1]\n  return %y\n}\n'
    )
    target = parse_target(TARGET)
    library = TvmCompiler().compile({"resize": target.kernel(region, "resize")}, target)
    source = library.imports[0].inspect_source()
    assert len(set(re.findall(r"__global__ void .* (resize_kernel\w*)\(", source))) == 3


def test_without_nvcc_everything_but_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvcc" else f"/bin/{name}")
    model = "models/mnist_cntk.onnx"
    path = Path(__file__).parent.parent / model
    assert graphkiln.check(str(path), target=TARGET) == []
    with pytest.raises(TargetError, match="compiling for CUDA needs nvcc"):
        graphkiln.compile(str(path), target=TARGET)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_infinities_are_constants(dtype: str) -> None:
    """As bits TVM would take their address, which constants of C++ have not."""
    region = parse_graph(
        f"graph g(%x: {dtype}[8]) -> (y) {{\n  %y = IsInf(%x) : bool[8]\n  return %y\n}}\n"
    )
    target = parse_target(TARGET)
    library = TvmCompiler().compile({"k": target.kernel(region, "k")}, target)
    source = library.imports[0].inspect_source()
    assert "CUDART_INF" in source and not re.search(r"&\(\d", source)


def test_bits_of_constant_floats_are_constants() -> None:
    """What Mod gives for a zero has the sign bit of its operand, and no others."""
    region = parse_graph(
        "graph g(%x: float64[8], %y: float64[8]) -> (z) {\n"
        "  %z = Mod(%x, %y) {fmod=1} : float64[8]\n  return %z\n}\n"
    )
    target = parse_target(TARGET)
    library = TvmCompiler().compile({"k": target.kernel(region, "k")}, target)
    assert not re.search(r"&\(-?\d", library.imports[0].inspect_source())


@pytest.mark.parametrize(("to", "given", "wanted"), [
    ("float32", tirx.const(0x7F800000, "uint32"), 'T.float32("inf")'),
    ("float16", tirx.const(0xFC00, "uint16"), 'T.float16("-inf")'),
    ("float64", tirx.const(-(2**63), "int64"), "T.float64(-0.0)"),
    ("int64", tirx.const(-0.0, "float64"), f"T.int64({-(2**63)})"),
    ("uint32", tirx.const(-1.5, "float32"), "T.uint32(3217031168)"),
    ("int32", tirx.const(-1.5, "float32"), "-1077936128"),
    ("uint64", tirx.const(1.0, "float64"), "T.uint64(4607182418800017408)"),
])  # fmt: skip
def test_reinterpreted_constants(to: str, given: Any, wanted: str) -> None:
    assert str(_constant(tirx.reinterpret(to, given))) == wanted


@needs_nvcc
def test_nvcc_compiles_for_the_architecture(tmp_path: Path) -> None:
    (member,) = parse_target(TARGET).build({"one": spec()}, Cached(tmp_path)).members.values()
    (module,) = split_texts(member.content)
    assert b"\x7fELF" in module  # a cubin within the fat binary


@needs_nvcc
def test_what_nvcc_refuses() -> None:
    with pytest.raises(device_code.DeviceCodeError, match=r"^nvcc: .*error"):
        device_code._fat_binary(b"int f() { return nothing; }\n", "sm_90")


@needs_nvcc
def test_artifacts_hold_the_device_code(tmp_path: Path) -> None:
    path = Path(__file__).parent.parent / "models" / "mnist_cntk.onnx"
    artifact = graphkiln.compile(str(path), target=TARGET)
    artifact.save(tmp_path / "model.kiln")
    read = read_artifact(tmp_path / "model.kiln")
    assert len(split_texts(read.members["cuda.bin"])) == artifact.report["kernels"]
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        with pytest.raises(ArtifactError, match="was compiled for CUDA, "):
            load(tmp_path / "model.kiln")
