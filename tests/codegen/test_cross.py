"""Whole artifacts for another architecture: linked here, and run by an emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm_ffi
from onnx import TensorProto, helper, numpy_helper
from support.aarch64 import COMPILER, MACHINE, needs_aarch64
from support.command import MODELS

import graphkiln
from graphkiln.codegen.link import LinkError, find_linker
from graphkiln.runtime import ArtifactError, load, read_artifact
from graphkiln.runtime.artifact import LoadedArtifact, weight_of
from graphkiln.runtime.dtypes import public_dtype

Array = np.ndarray
_RUNNER = Path(__file__).parent.parent / "support" / "artifact_runner.c"

pytestmark = needs_aarch64()


def digits() -> tuple[onnx.ModelProto, list[Array]]:
    rng = np.random.default_rng(0)
    return onnx.load(MODELS / "mnist_cntk.onnx"), [rng.random((1, 1, 28, 28), np.float32)]


def open_sizes() -> tuple[onnx.ModelProto, list[Array]]:
    """A convolution and a product whose sizes are known at run time, and a branch."""
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.standard_normal((16, 8, 3)).astype(np.float32),
        "m": rng.standard_normal((16, 20)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2], pads=[1, 1]),
        helper.make_node("Gelu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Softmax", ["p"], ["s"], axis=-1),
    ]
    values = {"x": ["N", 8, "L"], "s": ["N", "M", 20], "p": ["N", "M", 20]}
    x, *results = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items()
    )
    held = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], results, held)
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return model, [rng.standard_normal((2, 8, 37)).astype(np.float32)]


@pytest.mark.parametrize("case", [digits, open_sizes])
def test_an_artifact_for_aarch64_runs(
    case: Callable[[], tuple[onnx.ModelProto, list[Array]]], tmp_path: Path
) -> None:
    model, feeds = case()
    made = graphkiln.compile(model, "cpu:aarch64", linker=COMPILER)
    path = made.save(tmp_path / "foreign", folder=True)
    found = run(read_artifact(path), feeds, tmp_path)
    session = graphkiln.compile(model).session(threads=1)
    names = [i.name for i in session.get_inputs()]
    wanted = session.run(None, dict(zip(names, feeds, strict=True)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.reshape(other.shape), other, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArtifactError, match="was compiled for aarch64, this machine is"):
        load(path)


def run(artifact: LoadedArtifact, feeds: Sequence[Array], folder: Path) -> list[Array]:
    """What an artifact's native code computes in the emulator."""
    spec = artifact.manifest.native
    assert spec is not None and spec.stop is not None
    words, fixups = (weight_of(artifact.weights, part) for part in (spec.words, spec.fixups))
    outputs = artifact.manifest.outputs
    parts = [[len(words), len(fixups), len(feeds), len(outputs), spec.stop], words, fixups]
    data = b"".join(np.array(part, np.int64).tobytes() for part in parts)
    for feed in feeds:
        data += np.array([feed.ndim, *feed.shape, feed.nbytes], np.int64).tobytes() + feed.tobytes()
    for output in outputs:
        item = public_dtype(output.dtype).itemsize
        data += np.array([len(output.shape or ()), item], np.int64).tobytes()
    (folder / "run").write_bytes(data)
    (folder / "weights").write_bytes(artifact.weights.tobytes())
    (folder / "library.so").write_bytes(artifact.library)
    runner = folder / "runner"
    info = tvm_ffi.libinfo
    includes = [f"-I{p()}" for p in (info.find_include_path, info.find_dlpack_include_path)]
    output_of([COMPILER, "-O1", "-rdynamic", *includes, "-o", runner, _RUNNER, "-ldl", "-lm"])
    loader = output_of([COMPILER, "-print-file-name=ld-linux-aarch64.so.1"]).decode().strip()
    root = Path(loader).resolve().parent.parent
    command = [MACHINE, "-cpu", "max", "-L", root, runner, folder / "library.so"]
    content = output_of([*command, folder / "weights", folder / "run"])
    return split(content, [public_dtype(o.dtype) for o in outputs])


def split(content: bytes, dtypes: Sequence[np.dtype]) -> list[Array]:
    """Outputs of one type and, as in the models here, of one size."""
    assert len(set(dtypes)) == 1
    return list(np.frombuffer(content, dtypes[0]).reshape(len(dtypes), -1))


def output_of(command: Sequence[str | Path]) -> bytes:
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def test_a_linker_for_another_machine_is_told_at_once() -> None:
    with pytest.raises(LinkError, match=f"{COMPILER}' is for aarch64, not x86_64"):
        find_linker(COMPILER, "x86_64")
    with pytest.raises(LinkError, match="is for .*, not riscv64"):
        find_linker("cc", "riscv64")
