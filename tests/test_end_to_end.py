"""From an ONNX file to numbers: real models against onnxruntime, and what users are promised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkiln
from graphkiln import onnx_backend

MODELS = Path(__file__).parent / "models"
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAMES = sorted(path.stem for path in MODELS.glob("*.onnx"))


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A kernel cache that starts empty."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``artifact(name)``: the shipped model compiled, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("artifacts")

    def compiled(name: str) -> Path:
        path = folder / f"{name}.kiln"
        if not path.exists():
            graphkiln.compile(MODELS / f"{name}.onnx", jobs=2).save(path)
        return path

    return compiled


def assert_close(mine: list[Any], wanted: list[Any]) -> None:
    for a, b in zip(mine, wanted, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max(initial=0))


def assert_close_quantized(mine: list[Any], wanted: list[Any]) -> None:
    """Sums added in another order may round to the neighbouring step, now and then."""
    for a, b in zip(mine, wanted, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        off = np.abs(a - b)
        assert off.max() < 1.01 / 255 and (off > 1e-4).mean() < 1e-4


def reference(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_feeds(session: Any, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Random floats; every open dimension is ``batch``."""
    random = np.random.default_rng(seed)
    return {
        i.name: random.random([d if isinstance(d, int) else batch for d in i.shape], np.float32)
        for i in session.get_inputs()
    }


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_agree_with_onnxruntime(name: str, artifact: Callable[[str], Path]) -> None:
    theirs = reference(MODELS / f"{name}.onnx")
    with graphkiln.load(artifact(name)) as mine:
        for attribute in ("get_inputs", "get_outputs"):
            described = [[(v.name, v.type, len(v.shape)) for v in getattr(s, attribute)()]
                         for s in (mine, theirs)]  # fmt: skip
            assert described[0] == described[1]
        for seed in range(2):
            feeds = random_feeds(theirs, seed)
            agree = assert_close_quantized if "qcdq" in name else assert_close
            agree(mine.run(None, feeds), theirs.run(None, feeds))


def test_open_batch_of_a_real_model(artifact: Callable[[str], Path]) -> None:
    theirs = reference(MODELS / "basic_pitch_cnn.onnx")
    with graphkiln.load(artifact("basic_pitch_cnn")) as mine:
        for batch in (2, 1, 3):
            feeds = random_feeds(theirs, batch, batch)
            assert_close(mine.run(None, feeds), theirs.run(None, feeds))


def open_model(path: Path) -> Path:
    """A model with an open batch and an open length: [N, T, 8] -> [N, 3], [N, 2*T, 8]."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "square"], ["h"]),
        helper.make_node("Softmax", ["h"], ["p"], axis=1),
        helper.make_node("Mul", ["p", "x"], ["q"]),
        helper.make_node("ReduceSum", ["q", "axis"], ["s"], keepdims=0),
        helper.make_node("Gemm", ["s", "narrow"], ["y"]),
        helper.make_node("Concat", ["x", "h"], ["z"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 8])]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yz"]
    weights = [
        numpy_helper.from_array(random.standard_normal((8, 8)).astype(np.float32), "square"),
        numpy_helper.from_array(random.standard_normal((8, 3)).astype(np.float32), "narrow"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    graph = helper.make_graph(nodes, "open", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_open_sizes(tmp_path: Path) -> None:
    path = open_model(tmp_path / "open.onnx")
    theirs = reference(path)
    session = graphkiln.compile(path, jobs=1).session()
    random = np.random.default_rng(1)
    for n, t in ((1, 1), (3, 6), (2, 17), (1, 64), (7, 33), (16, 1)):
        x = random.standard_normal((n, t, 8)).astype(np.float32)
        assert_close(session.run(None, {"x": x}), theirs.run(None, {"x": x}))


def compile_elsewhere(model: Path, output: Path, cache: str) -> bytes:
    """The artifact that a fresh process makes."""
    code = "import graphkiln, sys; graphkiln.compile(sys.argv[1]).save(sys.argv[2])"
    environment = {**os.environ, "GRAPHKILN_CACHE": cache, "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", code, str(model), str(output)],
        check=True, env=environment, timeout=120,
    )  # fmt: skip
    return output.read_bytes()


@pytest.mark.parametrize("name", ["mnist_cntk", "sdp_attention_block"])
def test_same_input_same_bytes(name: str, tmp_path: Path, kernel_cache: Path) -> None:
    # Processes of their own: ops that other tests register here would be part of the kernels' keys.
    model = MODELS / f"{name}.onnx"
    first = compile_elsewhere(model, tmp_path / "first.kiln", str(kernel_cache))
    assert compile_elsewhere(model, tmp_path / "warm.kiln", str(kernel_cache)) == first
    assert compile_elsewhere(model, tmp_path / "cold.kiln", "") == first


def test_the_artifact_is_small(artifact: Callable[[str], Path]) -> None:
    for name in ("mnist_cntk", "basic_pitch_cnn"):
        with graphkiln.load(artifact(name)) as session:
            weights = session.report["weight_bytes"]
        assert artifact(name).stat().st_size < weights + 2 * 2**20


def test_cold_start(artifact: Callable[[str], Path]) -> None:
    """Well under 100 MB, and no module too many: they are what the time is spent on."""
    code = r"""if True:
        import sys
        import numpy as np
        before = set(sys.modules)
        from graphkiln.runtime import load
        session = load(sys.argv[1])
        session.run(None, {"Input3": np.zeros((1, 1, 28, 28), np.float32)})
        modules = len(set(sys.modules) - before)
        import json, re
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) / 1024
        print(json.dumps({"modules": modules, "megabytes": peak}))
    """
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(artifact("mnist_cntk"))],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        runs.append(json.loads(done.stdout))
    assert max(r["modules"] for r in runs) < 150
    assert min(r["megabytes"] for r in runs) < 100


def test_backend_interface() -> None:
    model = onnx.load(MODELS / "mnist_cntk.onnx")
    image = np.random.default_rng(0).random((1, 1, 28, 28), np.float32) * 255
    wanted = reference(MODELS / "mnist_cntk.onnx").run(None, {"Input3": image})
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("TPU")
    assert_close(list(onnx_backend.prepare(model).run([image])), wanted)
    assert_close(list(onnx_backend.prepare(model).run(image)), wanted)
    assert_close(list(onnx_backend.run_model(model, [image])), wanted)
    with pytest.raises(ValueError, match="2 inputs given, the model takes 1"):
        onnx_backend.prepare(model).run([image, image])


def test_a_sample_of_the_conformance_cases(tmp_path: Path) -> None:
    """``python benchmarks/conformance.py`` runs all 2,036."""
    out = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "conformance.py"), "--sample", "100", "--jobs", "2",
         "--filter", "^test_", "--json", str(out)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    right = [r for r in results if r["status"] == "right"]
    assert len(results) == 100
    assert len(right) >= 88, done.stdout
