"""Compile time and memory, each model in a fresh process with an empty kernel cache.

python benchmarks/compile_time.py [MODEL.onnx ...] [--synthetic 20000]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from synthetic import synthetic_model

_CHILD = """
import json, resource, sys, time
start = time.perf_counter()
import graphkiln
artifact = graphkiln.compile(sys.argv[1])
artifact.save(sys.argv[2])
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": time.perf_counter() - start, "peak": own * 1024,
                  "worker_peak": children * 1024, "weights": artifact.report["weight_bytes"],
                  "stages": artifact.seconds}))
"""


def compile_once(model: str, cache: str) -> dict[str, float]:
    """One compilation in a process of its own; ``size`` is the artifact's."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.kiln"
        run = subprocess.run(
            [sys.executable, "-c", _CHILD, model, str(out)], capture_output=True, text=True,
            env={**os.environ, "GRAPHKILN_CACHE": cache},
        )  # fmt: skip
        if run.returncode:
            raise click.ClickException(run.stderr.strip().splitlines()[-1])
        result: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
        result["size"] = out.stat().st_size
        return result


@click.command()
@click.argument("models", nargs=-1, type=click.Path(exists=True))
@click.option("--synthetic", type=int, help="Also a synthetic model of this many nodes.")
def main(models: tuple[str, ...], synthetic: int | None) -> None:
    """Time the compilation of MODELS, first without and then with the kernel cache."""
    with tempfile.TemporaryDirectory() as folder:
        paths = list(models)
        if synthetic:
            path = Path(folder) / f"synthetic_{synthetic}.onnx"
            path.write_bytes(synthetic_model(synthetic).SerializeToString())
            paths.append(str(path))
        for model in paths:
            cache = tempfile.mkdtemp(dir=folder)
            started = time.perf_counter()
            cold = compile_once(model, cache)
            wall = time.perf_counter() - started
            warm = compile_once(model, cache)
            beside = (cold["peak"] - cold["weights"]) / 2**20
            over = (cold["size"] - cold["weights"]) / 2**20
            click.echo(
                f"{Path(model).stem:24s} {wall:6.1f} s, again {warm['seconds']:5.1f} s,"
                f" peak {beside:7.0f} MiB besides the weights,"
                f" workers {cold['worker_peak'] / 2**20:5.0f} MiB,"
                f" artifact = weights + {over:.2f} MiB"
            )


if __name__ == "__main__":
    main()
