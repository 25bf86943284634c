"""Channels pruned from real models, and how far the results are from those of masked channels.

    python benchmarks/prune.py MODEL.onnx [MODEL.onnx ...] [--ratio 0.3] [--inputs DIR]

Prunes the share ``--ratio`` of the channels of every model by magnitude, and compares it with the
model in which these channels count for 0 wherever they are summed over, both run by onnxruntime on
the inputs kept for the model (``DIR/NAME/inputs.npz``) or on random ones. Prints the greatest
difference, relative to the greatest magnitude of the result (or to 0.001), the share of weights and
of operations that is left, the number of groups of channels that were pruned, and those that were
refused, with ``--reasons`` each one with its reason.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT.parent))

from quantized_models import random_feeds  # noqa: E402
from support.masking import masked  # noqa: E402

from graphkiln.driver import import_model  # noqa: E402
from graphkiln.frontend.export import to_onnx  # noqa: E402
from graphkiln.ir.dims import evaluate, free_symbols  # noqa: E402
from graphkiln.ir.flops import count_flops  # noqa: E402
from graphkiln.ir.graph import Graph  # noqa: E402
from graphkiln.ir.verify import verify  # noqa: E402
from graphkiln.passes.base import PassContext  # noqa: E402
from graphkiln.passes.manager import PassManager  # noqa: E402
from graphkiln.passes.pipeline import parse_pipeline  # noqa: E402
from graphkiln.passes.prune import (  # noqa: E402
    CRITERIA,
    Amounts,
    Channels,
    dropped_positions,
    remove,
    select,
)


def results(graph: Graph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime computes, without optimizations of its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        to_onnx(graph).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    names = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v for k, v in feeds.items() if k in names}))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The greatest difference in terms of the greatest magnitude, or of 0.001 if that is more."""
    if a.dtype.kind != "f":
        return float((a != b).any())
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = np.abs(b).max(initial=1e-3)
    return float(np.abs(a - b).max(initial=0) / scale)


def weights(graph: Graph) -> int:
    """Elements of constants."""
    arrays = [n.out().constant for n in graph.nx if n.key == "Constant"]
    return sum(a.size for a in arrays if a is not None)


def operations(graph: Graph) -> int:
    """Arithmetic operations of one run, where sizes that are open are 1."""
    total = count_flops(graph)
    return evaluate(total, dict.fromkeys(free_symbols(total), 1))


def measure(path: Path, ratio: float, multiple: int, kept: Path | None, reasons: bool) -> str:
    """The line that tells of one model."""
    graph = import_model(path).graph
    PassManager(parse_pipeline("settle,cse,dce")).run(graph)
    context = PassContext()
    context.refresh(graph)
    original, start = graph.copy(), time.perf_counter()
    channels = Channels(graph)
    groups = channels.groups
    seconds = time.perf_counter() - start
    scores = CRITERIA["l2"](channels, context)
    dropped = select(channels, scores, Amounts(ratio, multiple=multiple))
    lost = dropped_positions(channels, dropped)
    pruned = [g for g in groups if dropped[g.channels].any()]
    refused = [g for g in groups if g.reason is not None]
    remove(graph, channels, dropped, context, "pruned")
    verify(graph)
    inputs = None if kept is None else kept / path.stem / "inputs.npz"
    feeds = (
        dict(np.load(inputs)) if inputs is not None and inputs.is_file()
        else random_feeds(onnx.load(path), np.random.default_rng(0))
    )  # fmt: skip
    expected = results(masked(original, lost), feeds)
    worst = max(map(difference, results(graph, feeds), expected))
    if reasons:
        for group in refused:
            click.echo(f"  {group.name}: {group.reason}")
    work = operations(graph) / max(operations(original), 1)
    return (
        f"{path.stem:24} {worst:8.1e}  weights {weights(graph) / weights(original):4.2f}"
        f"  operations {work:4.2f}  pruned {len(pruned):3} refused {len(refused):3}"
        f"  groups found in {seconds:.2f} s"
    )


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--ratio", default=0.3, show_default=True)
@click.option("--multiple", default=8, show_default=True)
@click.option("--inputs", type=click.Path(path_type=Path))
@click.option("--reasons", is_flag=True)
def main(
    models: tuple[Path, ...], ratio: float, multiple: int, inputs: Path | None, reasons: bool
) -> None:
    """Prune MODELS."""
    for path in models:
        try:
            click.echo(measure(path, ratio, multiple, inputs, reasons))
        except Exception as e:  # the others are still of interest
            click.echo(f"{path.stem:24} {type(e).__name__}: {str(e)[:160]}")


if __name__ == "__main__":
    main()
