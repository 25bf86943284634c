"""One process a peer: loads a model, then times runs on request.

Run as ``python peers.py PEER MODEL INPUTS OUTPUTS THREADS``: the first results go to the file
OUTPUTS; then each count read from standard input is answered by one JSON line of seconds, taken
after some milliseconds of runs that are not counted. Used by :mod:`.latency`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], list[Any]]

# A process that wakes up may find all its threads on one core, until the kernel moves them.
_SETTLING = 0.005


def graphkiln(model: str, feeds: dict[str, np.ndarray], threads: int) -> Run:
    """A compiled artifact."""
    from graphkiln.runtime import load

    session = load(model, threads=threads)
    return lambda: list(session.run(None, feeds))


def onnxruntime(model: str, feeds: dict[str, np.ndarray], threads: int) -> Run:
    """onnxruntime with all its optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: list(session.run(None, feeds))


def openvino(model: str, feeds: dict[str, np.ndarray], threads: int) -> Run:
    """openvino with the latency hint, computing in float32, shapes as the inputs have them."""
    import openvino as ov

    core = ov.Core()
    read = core.read_model(model)
    names = [i.get_any_name() for i in read.inputs]
    read.reshape({n: list(feeds[n].shape) for n in names if n in feeds})
    config = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }  # fmt: skip
    compiled = core.compile_model(read, "CPU", config)
    request = compiled.create_infer_request()
    given = {n: feeds[n] for n in names}
    return lambda: [np.asarray(v) for v in request.infer(given, share_inputs=True).values()]


def tvm(model: str, feeds: dict[str, np.ndarray], threads: int) -> Run:
    """TVM's own ONNX importer and default pipeline for this CPU, shapes as the inputs have them."""
    import onnx
    from tvm import relax, runtime
    from tvm.relax.frontend.onnx import from_onnx

    from graphkiln.targets import parse_target

    os.environ["TVM_NUM_THREADS"] = str(threads)
    shapes = {n: list(v.shape) for n, v in feeds.items()}
    module = from_onnx(onnx.load(model), shape_dict=shapes, sanitize_input_names=False)
    executable = relax.build(module, parse_target("cpu").tvm_target())
    machine = relax.VirtualMachine(executable, runtime.cpu())
    function = module["main"]
    given = [runtime.tensor(feeds[v.name]) for v in function.params]

    def run() -> list[Any]:
        result = machine["main"](*given)
        return [v.numpy() for v in ([result] if isinstance(result, runtime.Tensor) else result)]

    return run


def mnn(model: str, feeds: dict[str, np.ndarray], threads: int) -> Run:
    """MNN on its own form of the model, in float32 where the model is."""
    import MNN.expr as expr
    import MNN.nn as nn
    import onnx

    # The converter without the command around it, which installs packages.
    from _tools import mnnconvert

    source = os.path.abspath(model)
    graph = onnx.load(source, load_external_data=False).graph
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.mnn"
        os.chdir(folder)  # where the converter leaves a file
        mnnconvert(["", "-f", "ONNX", "--modelFile", source, "--MNNModel", path])
        config = {"backend": 0, "numThread": threads, "precision": "high"}
        names = [n for n in feeds if n in {i.name for i in graph.input}]
        module = nn.load_module_from_file(
            path, names, [o.name for o in graph.output],
            runtime_manager=nn.create_runtime_manager((config,)),
        )  # fmt: skip
        os.chdir("/")
    types = {"float32": expr.float, "int32": expr.int, "int64": expr.int, "uint8": expr.uint8}
    given = []
    for n in names:
        # It knows no int64 inputs.
        value = feeds[n].astype(np.int32) if feeds[n].dtype == np.int64 else feeds[n]
        kind = types[feeds[n].dtype.name]
        held = expr.placeholder(list(value.shape), expr.NCHW, kind)
        given.append((held, np.ascontiguousarray(value)))

    def run() -> list[Any]:
        for held, value in given:
            held.write(value)
        # It computes a result when that is read, and has none for a model that it cannot run.
        results = module.onForward([held for held, _ in given])
        if not results:
            raise RuntimeError("MNN gives no results")
        return [np.asarray(v.read()) for v in results]

    return run


PEERS = {
    "graphkiln": graphkiln, "float": graphkiln,
    "onnxruntime": onnxruntime, "openvino": openvino, "mnn": mnn, "tvm": tvm,
}  # fmt: skip


def main() -> None:
    """Serve timing requests until standard input ends."""
    peer, model, inputs, outputs, threads = sys.argv[1:6]
    # Replies have standard output to themselves: MNN prints on it.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["GRAPHKILN_NUM_THREADS"] = threads
    loaded = np.load(inputs)
    feeds = {k: loaded[k] for k in loaded.files}
    try:
        run = PEERS[peer](model, feeds, int(threads))
        np.savez(outputs, *run())
    except Exception as e:
        lines = str(e).strip().splitlines()
        reason = f"{type(e).__name__}: {lines[0] if lines else ''}"
        print(json.dumps({"error": reason}), file=replies, flush=True)
        return
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        seconds = []
        settle(run)
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        answer = {"seconds": seconds, "peak_bytes": peak_bytes()}
        print(json.dumps(answer), file=replies, flush=True)


def settle(run: Run) -> None:
    """Run for some milliseconds."""
    start = time.perf_counter()
    while time.perf_counter() - start < _SETTLING:
        run()


def peak_bytes() -> int:
    """The most memory this process had resident (``ru_maxrss`` would count its parent's, too)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
