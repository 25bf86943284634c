"""How much longer runs take that calibrate, and what memory they need.

    python benchmarks/calibration.py MODEL.onnx [--inputs FILE.npz] [--count 100 --count 1000]

Quantizes a float model by ``graphkiln.quantize`` on so many samples, each time in a fresh process.
In front of each sample the plain model runs on it as well. Prints, for each count, the milliseconds
of a plain and of a calibrating run (the mean and the least), all that calibration does with a
sample included; the ratio of the means; and the peak of the memory while samples are run. Samples
are those of ``quantized_models.py``. The first ones, on which caches warm, do not count.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import onnx
from quantized_models import samples

import graphkiln
from graphkiln.runtime import Session

_WARM = 2


@dataclass
class Timed:
    """Samples that are timed from one to the next, each with a plain run in front of it.

    ``plain`` and ``calibrating`` are seconds; ``peak`` is the most memory held so far, in bytes.
    """

    model: Path
    kept: Path | None
    count: int
    session: Session
    plain: list[float] = field(default_factory=list)
    calibrating: list[float] = field(default_factory=list)
    peak: int = 0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        forget_peak()
        net = onnx.load(self.model, load_external_data=False)
        for feeds in samples(net, self.kept, self.count):
            start = time.perf_counter()
            self.session.run(None, feeds)
            middle = time.perf_counter()
            yield feeds
            self.plain.append(middle - start)
            self.calibrating.append(time.perf_counter() - middle)
        self.peak = peak()


def forget_peak() -> None:
    """The peak of this process's memory is what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(model: Path, kept: Path | None, count: int, method: str) -> str:
    """A line of the table."""
    with graphkiln.compile(str(model)).session() as session:
        timed = Timed(model, kept, count, session)
        graphkiln.quantize(str(model), timed, method=method)
    plain, calibrating = (1e3 * np.array(s[_WARM:]) for s in (timed.plain, timed.calibrating))
    cells = [f"{s.mean():8.2f} ({s.min():.2f})" for s in (plain, calibrating)]
    ratio = calibrating.mean() / plain.mean()
    return f"{count:7d}  " + "  ".join(cells) + f"  {ratio:5.2f}  {timed.peak / 2**20:6.0f} MiB"


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--inputs", type=click.Path(exists=True, path_type=Path), help="A sample to vary.")
@click.option("--count", type=click.IntRange(_WARM + 1), multiple=True, default=(100, 1000))
@click.option("--method", default="minmax", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
def main(
    model: Path, inputs: Path | None, count: tuple[int, ...], method: str, threads: int
) -> None:
    os.environ["GRAPHKILN_NUM_THREADS"] = str(threads)
    print("samples      plain ms    calibrating ms  ratio        peak")
    for number in count:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            print(fresh.apply(measured, (model, inputs, number, method)), flush=True)


if __name__ == "__main__":
    main()
