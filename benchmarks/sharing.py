"""Latency on a machine that computes something else as well.

    python benchmarks/sharing.py MODEL.onnx [MODEL.onnx ...] [--starts 10 --peer-starts 10]

Each start is a fresh process of each peer, beside a load: ``none``, ``loop`` (a process that
computes), ``pair`` (two threads that wake each other), ``eight`` (processes that compute). Prints,
in milliseconds, the worst of the starts' medians, as a start may find its threads on a busy core,
for graphkiln also on one thread, and writes JSON with ``--json``.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from latency import Peer, find_inputs, start

_LOOP = "while True: pass"
_PAIR = """
import os, threading
a, b = os.pipe(), os.pipe()
def answer():
    while True:
        os.read(a[0], 1)
        sum(range(2_000))
        os.write(b[1], b"x")
threading.Thread(target=answer, daemon=True).start()
while True:
    os.write(a[1], b"x")
    sum(range(2_000))
    os.read(b[0], 1)
"""
LOADS = {"none": [], "loop": [_LOOP], "pair": [_PAIR], "eight": [_LOOP] * 8}


@contextmanager
def beside(load: str) -> Iterator[None]:
    """The processes of a load, while it lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for code in LOADS[load]]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def median_of_start(peer: Peer, seconds: float) -> float:
    """The median of runs for about ``seconds``, in milliseconds, and NaN for a peer that cannot
    run the model; the process ends.
    """
    try:
        if peer.error and peer.name == "graphkiln":
            raise click.ClickException(peer.error)
        if peer.error:
            return math.nan
        peer.ask(5)
        peer.ask(max(5, min(5_000, int(seconds / max(peer.median, 1e-6)))))
        return peer.median * 1e3
    finally:
        peer.process.kill()
        peer.process.wait()


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--inputs", type=click.Path(exists=True), help="A folder with inputs by model.")
@click.option("--threads", default=2)
@click.option("--starts", default=10, help="Processes of graphkiln, of which the worst counts.")
@click.option("--peer-starts", default=10, help="The same for each peer.")
@click.option("--seconds", default=0.5, help="How long each runs.")
@click.option("--loads", default=",".join(LOADS))
@click.option("--peers", default="onnxruntime,openvino")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(
    models: tuple[Path, ...], inputs: str | None, threads: int, starts: int, peer_starts: int,
    seconds: float, loads: str, peers: str, out: Path | None,
) -> None:  # fmt: skip
    import graphkiln

    entrants = [("graphkiln", threads), ("graphkiln", 1), *((p, threads) for p in peers.split(","))]
    titles = [f"{name}, {count}" for name, count in entrants]
    click.echo(f"{'model':24s} {'load':6s} " + " ".join(f"{t:>15s}" for t in titles))
    records = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for model in models:
            artifact = Path(graphkiln.compile(str(model)).save(scratch / f"{model.stem}.kiln"))
            given = find_inputs(model, inputs, scratch)
            for load in loads.split(","):
                worst = [0.0] * len(entrants)
                for turn in range(max(starts, peer_starts)):
                    for i, (name, count) in enumerate(entrants):
                        if turn >= (starts if name == "graphkiln" else peer_starts):
                            continue
                        path = artifact if name == "graphkiln" else model
                        with beside(load):
                            peer = start(name, path, given, scratch / "outputs.npz", count)
                            worst[i] = float(np.maximum(worst[i], median_of_start(peer, seconds)))
                click.echo(f"{model.stem:24s} {load:6s} " + " ".join(f"{w:15.3f}" for w in worst))
                figures = dict(zip(titles, worst, strict=True))
                records.append({"model": model.stem, "load": load, **figures})
                if out:
                    out.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
