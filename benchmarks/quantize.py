"""A float model, quantized by graphkiln and by other tools from the same samples.

    python benchmarks/quantize.py MODEL.onnx --samples TRAIN.npz --test TEST.npz [--count 200]

The files hold an array for each input, whose first axis runs over samples, and the test file also
``label`` where the classes are known. Each tool calibrates on the first ``--count`` samples of the
first file. Prints the share of right classes of the first output, or without labels the agreement
with the float model (the mean cosine of the results), the size of the file, and the seconds that
quantizing took. Models of graphkiln are run by graphkiln and, exported, by onnxruntime; those of
others by onnxruntime and, compiled, by graphkiln.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

import graphkiln
from graphkiln.quantizer.scores import agreement
from graphkiln.samples import samples_of

Feeds = dict[str, np.ndarray]
METHODS = ("minmax", "average", "percentile", "mse", "entropy")


def split(source: Path, model: Path, limit: int) -> tuple[list[Feeds], list[int] | None]:
    """Samples of a file, and their labels if it has any."""
    found = onnx.load(model, load_external_data=False).graph
    constants = {t.name for t in found.initializer}
    inputs = {
        i.name: len(i.type.tensor_type.shape.dim) for i in found.input if i.name not in constants
    }
    feeds, labels = [], []
    for number, sample in enumerate(samples_of(str(source), {**inputs, "label": 0})):
        if number == limit:
            break
        feeds.append({name: np.asarray(sample[name]) for name in inputs})
        if "label" in sample:
            labels.append(int(sample["label"]))
    return feeds, labels if len(labels) == len(feeds) else None


def score(run: Callable[[Feeds], list[Any]], test: list[Feeds], labels: Any, right: Any) -> float:
    """The share of right classes, or the agreement with the float model's results, in percent."""
    found = [run(feeds) for feeds in test]
    if labels is not None:
        classes = [int(results[0].argmax()) for results in found]
        return 100 * float(np.mean(np.equal(classes, labels)))
    return 100 * float(np.mean([agreement(a, b) for a, b in zip(found, right, strict=True)]))


def by_graphkiln(model: Path, data: list[Feeds], target: Path, method: str) -> None:
    graphkiln.quantize(model, data, method=method).save(target)


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

    kind = nncf.ModelType.TRANSFORMER if method == "transformer" else None
    loaded = onnx.load(model)
    found = nncf.quantize(loaded, nncf.Dataset(data), model_type=kind, subset_size=len(data))
    onnx.save(found, target)


TOOLS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "graphkiln": (by_graphkiln, METHODS),
    "onnxruntime": (by_onnxruntime, ("minmax", "entropy", "percentile")),
    "nncf": (by_nncf, ("default",)),
}


def runners(path: Path) -> dict[str, Callable[[Feeds], list[Any]]]:
    """Both runtimes for an ONNX model; what a runtime cannot run is left out."""
    import onnxruntime

    found: dict[str, Callable[[Feeds], list[Any]]] = {}
    mine = graphkiln.compile(path).session()
    found["graphkiln"] = lambda feeds: list(mine.run(None, feeds))
    try:
        theirs = onnxruntime.InferenceSession(path)
    except Exception as e:  # what others raise for their own reasons
        click.echo(f"onnxruntime does not load {path.name}: {str(e).splitlines()[0]}", err=True)
    else:
        found["onnxruntime"] = lambda feeds: list(theirs.run(None, feeds))
    return found


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--samples", "given", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--test", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--count", default=200, help="Samples to calibrate on.")
@click.option("--most", default=sys.maxsize, help="Samples to test on.")
@click.option("--tools", default=",".join(TOOLS))
def main(model: Path, given: Path, test: Path, count: int, most: int, tools: str) -> None:
    data, _ = split(given, model, count)
    tests, labels = split(test, model, most)
    exact = runners(model)["onnxruntime"]
    right = [exact(feeds) for feeds in tests]
    what = "right here" if labels is not None else "agrees here"
    click.echo(f"{'tool':12s} {'method':12s} {what:>12s} {'in ort':>9s} {'KiB':>8s} {'s':>6s}")
    floats = score(exact, tests, labels, right)
    click.echo(f"{'floats':25s} {'':12s} {floats:9.2f} {model.stat().st_size / 1024:8.0f}")
    with tempfile.TemporaryDirectory() as folder:
        for tool in tools.split(","):
            make, methods = TOOLS[tool]
            for method in methods:
                path = Path(folder) / f"{tool}_{method}.onnx"
                start = time.perf_counter()
                make(model, data, path, method)
                seconds = time.perf_counter() - start
                found = {
                    name: score(run, tests, labels, right) for name, run in runners(path).items()
                }
                cells = " ".join(
                    f"{found.get(name, float('nan')):{width}.2f}"
                    for name, width in (("graphkiln", 12), ("onnxruntime", 9))
                )
                size = path.stat().st_size / 1024
                click.echo(f"{tool:12s} {method:12s} {cells} {size:8.0f} {seconds:6.1f}")


if __name__ == "__main__":
    main()
