"""A float model, quantized by graphkiln and by other tools from the same samples.

    python benchmarks/quantize.py MODEL.onnx --samples SOURCE --test SOURCE [--metric MODULE:FUNC]

A source is what ``graphkiln quantize --data`` takes: a file, a folder, or ``module:function``. The
metric is a function of the results and the sample, both by name, that gives a score. Without one it
is whether the first output has its largest element at ``label``, where the test samples have that,
and else the agreement with the float model: the cosine of the results. Each tool calibrates on the
first ``--count`` samples. Prints the mean score in percent and the least one, the size of the file,
and the seconds that quantizing took. With ``--draws N`` each tool calibrates N times, each time on
``--count`` samples drawn from all, and the row has the means of the draws, and the scores of the
worst ones in both runtimes: what is luck shows. Models of graphkiln are run by graphkiln and,
exported, by onnxruntime; those of others by onnxruntime and, compiled, by graphkiln. ``--way`` are
options of ``graphkiln.quantize`` as JSON, in place of the methods that pick ranges.

Neural Compressor is not among the tools: from its version 3 on it takes models of PyTorch,
TensorFlow and JAX, and no ONNX.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

import graphkiln
from graphkiln.quantizer.scores import agreement
from graphkiln.samples import function_of, samples_of

Feeds = dict[str, np.ndarray]
Results = dict[str, Any]
Metric = Callable[[Mapping[str, Any], Mapping[str, Any]], float]
METHODS = ("minmax", "average", "percentile", "mse", "entropy")


def split(source: str, model: Path, limit: int) -> tuple[list[Feeds], list[Feeds]]:
    """What the model reads of the samples of a source, and whole samples."""
    found = onnx.load(model, load_external_data=False).graph
    constants = {t.name for t in found.initializer}
    inputs = {
        i.name: len(i.type.tensor_type.shape.dim) for i in found.input if i.name not in constants
    }
    whole = [dict(s) for s in islice(samples_of(source, {**inputs, "label": 0}), limit)]
    return [{name: np.asarray(s[name]) for name in inputs} for s in whole], whole


def calibration_sets(source: str, model: Path, count: int, draws: int) -> list[list[Feeds]]:
    """The first ``count`` samples, or ``draws`` of as many from all, seeded by their number."""
    if not draws:
        return [split(source, model, count)[0]]
    whole, _ = split(source, model, sys.maxsize)
    picks = (np.random.default_rng(d).permutation(len(whole))[:count] for d in range(draws))
    return [[whole[i] for i in sorted(chosen)] for chosen in picks]


def is_right(results: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """Is the label the class with the largest score?"""
    return float(next(iter(results.values())).argmax() == sample["label"])


def score(
    run: Callable[[Feeds], Results], test: tuple[list[Feeds], list[Feeds]], metric: Metric | None,
    right: list[Results],
) -> tuple[float, float]:  # fmt: skip
    """The mean and the least score in percent."""
    scores = []
    for feeds, sample, exact in zip(*test, right, strict=True):
        results = run(feeds)
        if metric is None:
            scores.append(agreement(list(results.values()), list(exact.values())))
        else:
            scores.append(float(metric(results, sample)))
    return 100 * float(np.mean(scores)), 100 * min(scores)


def by_graphkiln(model: Path, data: list[Feeds], target: Path, method: str) -> None:
    options = json.loads(method) if method.startswith("{") else {"method": method}
    graphkiln.quantize(model, data, **options).save(target)


def by_onnxruntime(model: Path, data: list[Feeds], target: Path, method: str) -> None:
    from onnxruntime import quantization as q
    from quantized_models import with_channel_axes

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds: Iterator[Feeds] = iter(data)

        def get_next(self) -> Feeds | None:
            return next(self.feeds, None)

    prepared = target.with_suffix(".prepared.onnx")
    onnx.save(with_channel_axes(onnx.load(model)), prepared)
    q.quant_pre_process(prepared, prepared, skip_symbolic_shape=True)
    kind = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}[method]
    q.quantize_static(
        prepared, target, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
        calibrate_method=q.CalibrationMethod[kind],
    )  # fmt: skip


def by_nncf(model: Path, data: list[Feeds], target: Path, method: str) -> None:
    import nncf
    from quantized_models import with_channel_axes

    kind = nncf.ModelType.TRANSFORMER if method == "transformer" else None
    loaded = with_channel_axes(onnx.load(model))
    found = nncf.quantize(loaded, nncf.Dataset(data), model_type=kind, subset_size=len(data))
    onnx.save(found, target)


TOOLS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "graphkiln": (by_graphkiln, METHODS),
    "onnxruntime": (by_onnxruntime, ("minmax", "entropy", "percentile")),
    "nncf": (by_nncf, ("default",)),
}


def runners(path: Path) -> dict[str, Callable[[Feeds], Results]]:
    """Both runtimes for an ONNX model; what a runtime cannot run is left out."""
    import onnxruntime

    found: dict[str, Callable[[Feeds], Results]] = {}
    mine = graphkiln.compile(path).session()
    names = [o.name for o in mine.get_outputs()]
    found["graphkiln"] = lambda feeds: dict(zip(names, mine.run(None, feeds), strict=True))
    try:
        theirs = onnxruntime.InferenceSession(path)
    except Exception as e:  # what others raise for their own reasons
        click.echo(f"onnxruntime does not load {path.name}: {str(e).splitlines()[0]}", err=True)
    else:
        found["onnxruntime"] = lambda feeds: dict(zip(names, theirs.run(None, feeds), strict=True))
    return found


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--samples", "given", required=True, help="What to calibrate on.")
@click.option("--test", required=True, help="What to test on.")
@click.option("--metric", "named", help="module:function, the score of a sample.")
@click.option("--count", default=200, help="Samples to calibrate on.")
@click.option("--draws", default=0, help="Draw the samples to calibrate on so many times.")
@click.option("--most", default=sys.maxsize, help="Samples to test on.")
@click.option("--tools", default=",".join(TOOLS))
@click.option("--way", "ways", multiple=True, help="Options of graphkiln.quantize as JSON.")
def main(
    model: Path, given: str, test: str, named: str | None, count: int, draws: int, most: int,
    tools: str, ways: tuple[str, ...],
) -> None:  # fmt: skip
    sets = calibration_sets(given, model, count, draws)
    tests = split(test, model, most)
    metric: Metric | None = function_of(named) if named else None
    if metric is None and all("label" in sample for sample in tests[1]):
        metric = is_right
    exact = runners(model)["onnxruntime"]
    right = [exact(feeds) for feeds in tests[0]]
    click.echo(
        f"{'tool':12s} {'method':44s} {'here':>7s} {'least':>7s} {'in ort':>7s} "
        f"{'KiB':>8s} {'s':>6s}" + (f" {'worst':>7s} {'in ort':>7s}" if draws else "")
    )
    mean, least = score(exact, tests, metric, right)
    size = model.stat().st_size / 1024
    click.echo(f"{'floats':12s} {'':44s} {'':7s} {least:7.2f} {mean:7.2f} {size:8.0f}")
    with tempfile.TemporaryDirectory() as folder:
        for tool in tools.split(","):
            make, methods = TOOLS[tool]
            for method in ways if ways and tool == "graphkiln" else methods:
                path = Path(folder) / f"{tool}.onnx"
                rows = []
                for data in sets:
                    start = time.perf_counter()
                    make(model, data, path, method)
                    seconds = time.perf_counter() - start
                    scores = {n: score(r, tests, metric, right) for n, r in runners(path).items()}
                    here, least = scores["graphkiln"]
                    there = scores.get("onnxruntime", (float("nan"), 0.0))[0]
                    rows.append((here, least, there, path.stat().st_size / 1024, seconds))
                here, least, there, size, seconds = np.mean(rows, axis=0)
                worst, _, worst_there, *_ = np.min(rows, axis=0)
                click.echo(
                    f"{tool:12s} {method:44s} {here:7.2f} {least:7.2f} {there:7.2f} "
                    f"{size:8.0f} {seconds:6.1f}"
                    + (f" {worst:7.2f} {worst_there:7.2f}" if draws else "")
                )


if __name__ == "__main__":
    main()
