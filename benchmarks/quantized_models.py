"""Float models, quantized by other people's tools.

    python benchmarks/quantized_models.py MODEL.onnx [MODEL.onnx ...] --tool nncf --into DIR

Writes DIR/NAME_TOOL.onnx for each model. ``onnxruntime`` is ``quantize_static`` as its users call
it: preprocessed, QDQ, weights by channel, every tensor between 8-bit ops quantized. ``nncf`` is
``nncf.quantize`` with its defaults, which places fewer quantizers, and ``nncf-transformer`` the
same for that type of model; both write NAME_nncf.onnx. Calibrates on the inputs kept for a model
(``NAME/inputs.npz`` or ``NAME.npz`` in ``--inputs``), moved a little, or on random ones: made for
latencies, not for accuracy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx
import onnx.version_converter

_SAMPLES = 4


def samples(
    model: onnx.ModelProto, kept: Path | None, count: int = _SAMPLES
) -> Iterator[dict[str, np.ndarray]]:
    """Feeds to calibrate on; floats vary by a hundredth of their spread from sample to sample."""
    random = np.random.default_rng(0)
    feeds = dict(np.load(kept)) if kept else random_feeds(model, random)
    for _ in range(count):
        yield {name: _moved(value, random) for name, value in feeds.items()}


def _moved(value: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if value.dtype.kind != "f":
        return value
    noise = value.std() * 0.01 * random.standard_normal(value.shape)
    return np.asarray(value + noise, value.dtype)


def random_feeds(model: onnx.ModelProto, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Normally distributed floats, other types zero; open dimensions are 1."""
    constants = {t.name for t in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in constants:
            tensor = value.type.tensor_type
            shape = [d.dim_value or 1 for d in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            feeds[value.name] = random.standard_normal(shape).astype(dtype)
    return feeds


def with_channel_axes(model: onnx.ModelProto) -> onnx.ModelProto:
    """In an opset whose DequantizeLinear has an axis: the tool writes one in any opset."""
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return model if version >= 13 else onnx.version_converter.convert_version(model, 13)


def by_onnxruntime(source: Path, kept: Path | None, target: Path) -> None:
    """QDQ by ``onnxruntime.quantization.quantize_static``."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = samples(onnx.load(source), kept)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    prepared = target.with_suffix(".prepared.onnx")
    try:
        onnx.save(with_channel_axes(onnx.load(source)), prepared)
        # Its symbolic shape inference gives up on many exports.
        q.quant_pre_process(prepared, prepared, skip_symbolic_shape=True)
        q.quantize_static(
            prepared, target, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
            activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
        )  # fmt: skip
    finally:
        prepared.unlink(missing_ok=True)


def by_nncf(source: Path, kept: Path | None, target: Path, transformer: bool = False) -> None:
    """QDQ by ``nncf.quantize``."""
    import nncf

    model = onnx.load(source)
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    data = nncf.Dataset(list(samples(model, kept)))
    onnx.save(nncf.quantize(model, data, model_type=kind, subset_size=_SAMPLES), target)


TOOLS = {
    "onnxruntime": by_onnxruntime, "nncf": by_nncf,
    "nncf-transformer": partial(by_nncf, transformer=True),
}  # fmt: skip


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--tool", type=click.Choice(list(TOOLS)), required=True)
@click.option("--into", type=click.Path(path_type=Path), required=True)
@click.option("--inputs", type=click.Path(exists=True), help="A folder with inputs by model.")
def main(models: tuple[Path, ...], tool: str, into: Path, inputs: str | None) -> None:
    from latency import kept_inputs

    into.mkdir(parents=True, exist_ok=True)
    for source in models:
        target = into / f"{source.stem}_{tool.partition('-')[0]}.onnx"
        with tempfile.TemporaryDirectory() as folder:
            # External data of a skeleton stays where it is.
            made = Path(folder) / target.name
            TOOLS[tool](source, kept_inputs(source, inputs), made)
            onnx.save(onnx.load(made), target)
        click.echo(f"{target} {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
