"""Cold start of an artifact, and loading of many weights.

python benchmarks/start.py MODEL.onnx [--weights 400]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_RUN = """
import sys
import numpy as np
from graphkiln.runtime import load
session = load(sys.argv[1])
kinds = {"tensor(float)": "f4", "tensor(int64)": "i8"}
feeds = {i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], kinds[i.type])
         for i in session.get_inputs()}
session.run(None, feeds)
# Not ru_maxrss, which counts what the parent held when it forked.
status = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""

_LOAD = """
import sys, time
import numpy as np
from graphkiln.runtime import load
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
load(sys.argv[2])  # libraries
before = resident()
start = time.perf_counter()
session = load(sys.argv[1])
seconds = time.perf_counter() - start
session.run(None, {"x": np.ones((1, 1024), np.float32)})
print(seconds, resident() - before)
"""


def child(code: str, *arguments: str) -> tuple[float, str]:
    """Seconds and output of a fresh Python process."""
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
        env={**os.environ, "GRAPHKILN_NUM_THREADS": "1"},
    )  # fmt: skip
    return time.perf_counter() - start, run.stdout


def heavy_model(megabytes: int) -> onnx.ModelProto:
    """Matrix products with that many MB of weights in all."""
    random = np.random.default_rng(0)
    count = max(1, megabytes // 4)
    nodes, weights = [], []
    for i in range(count):
        w = random.standard_normal((1024, 1024), dtype=np.float32)
        weights.append(numpy_helper.from_array(w / 32, f"w{i}"))
        source = "x" if i == 0 else f"v{i - 1}"
        nodes.append(helper.make_node("MatMul", [source, f"w{i}"], [f"v{i}"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1024])
    y = helper.make_tensor_value_info(f"v{count - 1}", TensorProto.FLOAT, [1, 1024])
    graph = helper.make_graph(nodes, "heavy", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.option("--weights", default=400, show_default=True, help="MB of the synthetic model.")
def main(model: str, weights: int) -> None:
    """Time the cold start of MODEL's artifact and the load of a model with many weights."""
    from graphkiln import compile as compile_model

    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.kiln", Path(folder) / "large.kiln"
        compile_model(model).save(small)
        runs = [child(_RUN, str(small)) for _ in range(9)]
        bare = [child("import numpy")[0] for _ in range(5)]
        click.echo(
            f"cold start to first result: median {statistics.median(s for s, _ in runs):.3f} s,"
            f" least {min(s for s, _ in runs):.3f} s (python and numpy alone"
            f" {statistics.median(bare):.3f} s), resident {int(runs[0][1]) / 2**20:.0f} MiB"
        )
        artifact = compile_model(heavy_model(weights))
        size = artifact.report["weight_bytes"]
        artifact.save(large)
        pairs = [child(_LOAD, str(large), str(small))[1].split() for _ in range(7)]
        seconds = statistics.median(float(p[0]) for p in pairs)
        click.echo(
            f"load of {size / 1e6:.0f} MB of weights: median {seconds:.3f} s, resident growth after"
            f" the first run {int(pairs[0][1]) / size:.2f} times the weights"
        )


if __name__ == "__main__":
    main()
