"""Latency side by side with onnxruntime and openvino.

    python benchmarks/latency.py MODEL.onnx [MODEL.onnx ...] [--inputs DIR] [--threads 1]

Every peer has a process of its own; rounds alternate between them, so that noise of the machine
meets all. Prints medians, ratios (peer / graphkiln: above 1 graphkiln is faster), peak memory
against onnxruntime's, the largest difference from the first peer's results, seconds of compilation
and geometric means, and writes JSON with ``--json``. A difference is in units of the tolerance
(rtol 1e-3 and atol 1e-4 of the output's largest magnitude): above 1 the results disagree.
``--inputs`` is a folder with NAME/inputs.npz or NAME.npz; random inputs otherwise. ``--peers`` may
also name ``mnn``, and ``tvm``, its own importer and default pipeline, which takes seconds for a
large network. With ``--floats``, a folder, the peer ``float`` is graphkiln on the float selves of
quantized models, NAME.onnx for NAME_TOOL.onnx, which also has NAME's inputs. ``--target`` is what
graphkiln compiles for; peers choose by the machine.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

_PEERS = Path(__file__).with_name("peers.py")
# Idle workers of the peer before look for work for some milliseconds, on a core that is needed now.
_PAUSE = 0.02


@dataclass
class Peer:
    """A running peer process; ``error`` says why it cannot serve."""

    name: str
    process: subprocess.Popen[str]
    outputs: Path
    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    error: str = ""

    def ask(self, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        reply = self.read()
        self.seconds += reply.get("seconds", [])
        self.peak = reply.get("peak_bytes", self.peak)

    def results(self) -> list[np.ndarray]:
        """What the first run returned."""
        with np.load(self.outputs) as held:
            return [held[k] for k in held.files]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": "the process died"}
        self.error = reply.get("error", self.error)
        return reply

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def start(name: str, model: Path, inputs: Path, outputs: Path, threads: int) -> Peer:
    """Start a peer and wait until it is ready; pinned to the first ``threads`` cores."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    process = subprocess.Popen(
        [sys.executable, str(_PEERS), name, str(model), str(inputs), str(outputs), str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    peer = Peer(name, process, outputs)
    peer.read()
    return peer


def measure(peers: list[Peer], seconds: float) -> None:
    """Alternate between the peers until each has run for about ``seconds``."""
    alive = [p for p in peers if not p.error]
    for p in alive:
        p.ask(3)
    for p in alive:
        p.seconds.clear()
    slowest = 0.0
    for p in alive:
        p.ask(1)
        slowest = max(slowest, p.seconds[-1])
    rounds = max(5, min(40, int(seconds / max(slowest, 1e-6))))
    batch = max(1, min(50, int(0.01 / max(slowest, 1e-6))))
    for _ in range(rounds):
        for p in alive:
            time.sleep(_PAUSE)
            p.ask(batch)


def kept_inputs(model: Path, folder: str | None) -> Path | None:
    """The inputs that a folder holds for a model or its float self, by name."""
    if folder:
        for name in (model.stem, float_self(model)):
            for candidate in (Path(folder) / name / "inputs.npz", Path(folder) / f"{name}.npz"):
                if candidate.exists():
                    return candidate
    return None


def float_self(model: Path) -> str:
    """The name of the model that NAME_TOOL.onnx was quantized from."""
    return model.stem.rpartition("_")[0]


def find_inputs(model: Path, folder: str | None, scratch: Path) -> Path:
    """The inputs kept for a model, or random ones."""
    kept = kept_inputs(model, folder)
    if kept:
        return kept
    from graphkiln.cli.feeds import random_input
    from graphkiln.runtime import load

    random = np.random.default_rng(0)
    with load(scratch / f"{model.stem}.kiln") as session:
        feeds = {
            i.name: random_input(i.name, i.type, i.shape, {}, random) for i in session.get_inputs()
        }
    path = scratch / f"{model.stem}.npz"
    np.savez(path, **feeds)
    return path


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--inputs", type=click.Path(exists=True), help="Folder of inputs.")
@click.option("--threads", default=1, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Time for each peer and model.")
@click.option("--peers", default="onnxruntime,openvino", show_default=True)
@click.option("--target", default="cpu", show_default=True)
@click.option("--floats", type=click.Path(exists=True), help="Folder of the float selves.")
@click.option("--json", "json_path", type=click.Path(), help="Write the figures here.")
def main(
    models: tuple[str, ...], inputs: str | None, threads: int, seconds: float, peers: str,
    target: str, floats: str | None, json_path: str | None,
) -> None:  # fmt: skip
    """Compare latencies of MODELS."""
    from graphkiln import compile as compile_model

    names = [p for p in peers.split(",") if p] + (["float"] if floats else [])
    results: dict[str, Any] = {}
    columns = " ".join(f"{n:>12s} {'ratio':>6s}" for n in names)
    last = f"{'memory':>6s} {'error':>8s} {'build':>6s}"
    click.echo(f"{'model':28s} {'graphkiln':>10s} {columns} {last}")
    with tempfile.TemporaryDirectory() as folder:
        for text in models:
            model = Path(text)
            artifact = Path(folder) / f"{model.stem}.kiln"
            began = time.perf_counter()
            float_artifact = artifact.with_suffix(".float.kiln")
            try:
                compile_model(str(model), target).save(artifact)
                if floats:
                    compile_model(f"{floats}/{float_self(model)}.onnx", target).save(float_artifact)
            except Exception as e:
                click.echo(f"{model.stem:28s} does not compile: {str(e).splitlines()[0][:120]}")
                continue
            built = time.perf_counter() - began
            feeds = find_inputs(model, inputs, Path(folder))
            kept = {n: Path(folder) / f"{n}.npz" for n in ("graphkiln", *names)}
            running = [start("graphkiln", artifact, feeds, kept["graphkiln"], threads)]
            running += [
                start(n, float_artifact if n == "float" else model, feeds, kept[n], threads)
                for n in names
            ]
            measure(running, seconds)
            results[model.stem] = report(model.stem, running, built)
            for p in running:
                p.process.kill()
                p.process.wait()
            for path in Path(folder).glob("*.kiln"):
                path.unlink()
    summary(results, names)
    if json_path:
        Path(json_path).write_text(json.dumps({"threads": threads, "models": results}, indent=1))


def report(name: str, peers: list[Peer], built: float) -> dict[str, Any]:
    """Print a row and return its figures."""
    own, *others = peers
    if own.error:
        click.echo(f"{name:28s} {own.error[:100]}")
        return {"error": own.error}
    row: dict[str, Any] = {"graphkiln": own.median, "compile": built}
    row["peak"] = {p.name: p.peak for p in peers if not p.error}
    cells = []
    for p in others:
        if p.error:
            cells.append(f"{'-':>12s} {'-':>6s}")
            continue
        row[p.name] = p.median
        cells.append(f"{p.median * 1e3:12.3f} {p.median / own.median:6.2f}")
    running = [p for p in others if not p.error]
    if running:
        row["difference"] = difference(own.results(), running[0].results())
        cells.append(f"{own.peak / running[0].peak:6.2f} {row['difference']:8.1e}")
    cells.append(f"{built:6.1f}")
    click.echo(f"{name:28s} {own.median * 1e3:10.3f} " + " ".join(cells))
    return row


def difference(own: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference in units of the tolerance; infinite where types or shapes differ."""
    worst = 0.0
    for a, b in zip(own, expected, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return math.inf
        if a.dtype.kind != "f":
            worst = max(worst, 0.0 if np.array_equal(a, b) else math.inf)
        elif b.size:
            x, y = a.astype(np.float64), b.astype(np.float64)
            if not np.array_equal(np.isnan(x), np.isnan(y)):
                return math.inf
            bound = 1e-3 * np.abs(y) + 1e-4 * np.nanmax(np.abs(y)) + 1e-30
            worst = max(worst, float(np.nanmax(np.abs(x - y) / bound)))
    return worst


def summary(results: dict[str, Any], names: list[str]) -> None:
    """Print geometric means of the ratios, and against the better peer of each model."""
    rows = [r for r in results.values() if "error" not in r]
    for n in names:
        ratios = [r[n] / r["graphkiln"] for r in rows if n in r]
        if ratios:
            click.echo(
                f"geometric mean against {n}: {geometric(ratios):.3f}"
                f" over {len(ratios)} models, worst {min(ratios):.2f}"
            )
    best = [min(r[n] for n in names if n in r) / r["graphkiln"] for r in rows
            if any(n in r for n in names)]  # fmt: skip
    if best:
        click.echo(f"geometric mean against the better of them: {geometric(best):.3f}")


def geometric(values: list[float]) -> float:
    return math.exp(sum(math.log(v) for v in values) / len(values))


if __name__ == "__main__":
    main()
