"""LeNet-5 made small: channels removed in steps, what was lost learned again from the original.

    python benchmarks/lenet5.py MODEL.onnx --train TRAIN.npz --test TEST.npz [--seeds 5]

The files hold the model's input and ``label``. In each step the student keeps the most important
channels of the last one, and is trained. Ways:

    teacher   the original's results are all that the student sees, no labels
    labels    the original's results and labels, one half each
    small     a student of the last step's size that begins with random weights, and learns from the
              original and labels (``small taught``), or from labels alone (``small alone``)

Prints for each seed the accuracy of the compiled student on the test set, and then for each way the
mean and the worst of all seeds, beside the original's accuracy, parameters and operations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod

import click
import numpy as np
import onnx
import torch
from onnx import numpy_helper

import graphkiln
from graphkiln.distiller import Distilled
from graphkiln.ir.dims import evaluate, free_symbols
from graphkiln.ir.flops import count_flops
from graphkiln.ir.graph import Graph

Sizes = tuple[int, int, int, int]
STEPS: tuple[Sizes, ...] = ((4, 12, 48, 32), (3, 10, 30, 22), (2, 9, 16, 14))
"""Filters of the two convolutions, and units of the two hidden layers, in each step."""

AUGMENT = "shift=1,rotate=8"
_INPUTS_OF_A_FILTER = 25


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of a LeNet-5 with so many channels."""
    c1, c2, f1, f2 = sizes
    return {
        "c1.weight": (c1, 1, 5, 5), "c1.bias": (c1,),
        "c2.weight": (c2, c1, 5, 5), "c2.bias": (c2,),
        "f1.weight": (f1, c2 * _INPUTS_OF_A_FILTER), "f1.bias": (f1,),
        "f2.weight": (f2, f1), "f2.bias": (f2,),
        "f3.weight": (10, f2), "f3.bias": (10,),
    }  # fmt: skip


def resized(model: onnx.ModelProto, sizes: Sizes, seed: int) -> onnx.ModelProto:
    """The model with other numbers of channels, and random weights (K. He et al., 2015)."""
    random = np.random.default_rng(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = shapes(sizes)
    for tensor in copy.graph.initializer:
        shape = wanted[tensor.name]
        fan = prod(shape[1:]) if len(shape) > 1 else 0
        array = random.normal(0, np.sqrt(2 / fan), shape) if fan else np.zeros(shape)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    return copy


def accuracy(student: Distilled, path: str) -> float:
    """The share of digits that the compiled student tells."""
    session = student.session(threads=1)
    return _accuracy(session, path)


def _accuracy(session: graphkiln.Session, path: str) -> float:
    held = np.load(path)
    (name,) = (i.name for i in session.get_inputs())
    (results,) = session.run(None, {name: held[name]})
    return float((results.argmax(1) == held["label"]).mean())


def parameters(graph: Graph) -> int:
    """The number of weights."""
    return sum(
        node.attrs["value"].size for node in graph.nx
        if node.key == "Constant" and node.out().dtype == "float32"
    )  # fmt: skip


def shrunk(
    original: str, train: str, labels: str | None, seed: int, epochs: Sequence[int]
) -> Distilled:
    """The student after all steps."""
    model = onnx.load(original)
    before: onnx.ModelProto | str = original
    student: Distilled | None = None
    for sizes, count in zip(STEPS, epochs, strict=True):
        student = graphkiln.distill(
            resized(model, sizes, seed), original, train, labels=labels, start=before,
            epochs=count, seed=seed, **_recipe(),
        )  # fmt: skip
        before = student.to_onnx()
    assert student is not None
    return student


def small(original: str, train: str, alpha: float, seed: int, epochs: int) -> Distilled:
    """A student that begins with random weights."""
    first = resized(onnx.load(original), STEPS[-1], seed)
    return graphkiln.distill(
        first, original, train, labels="label", alpha=alpha, epochs=epochs, seed=seed, **_recipe()
    )


def _recipe() -> dict[str, object]:
    from graphkiln.training.augment import Augmentation

    return {
        "lr": 4e-3, "schedule": "one-cycle", "batch": 64, "weight_decay": 1e-3, "validation": 0.0,
        "temperature": 3.0, "augment": Augmentation.parse(AUGMENT), "jobs": 1,
    }  # fmt: skip


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True))
@click.option("--train", required=True, type=click.Path(exists=True))
@click.option("--test", required=True, type=click.Path(exists=True))
@click.option("--seeds", default=5, help="How many seeds.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--epochs", default="8,12,80", help="Epochs of each step; small has the sum.")
@click.option("--way", "ways", multiple=True, help="Only these ways.")
def main(
    model: str, train: str, test: str, seeds: int, first: int, epochs: str, ways: tuple[str, ...]
) -> None:
    torch.set_num_threads(1)
    counts = [int(n) for n in epochs.split(",")]
    runs = {
        "teacher": lambda seed: shrunk(model, train, None, seed, counts),
        "labels": lambda seed: shrunk(model, train, "label", seed, counts),
        "small taught": lambda seed: small(model, train, 0.9, seed, sum(counts)),
        "small alone": lambda seed: small(model, train, 0.0, seed, sum(counts)),
    }
    whole = graphkiln.compile(model, jobs=1)
    with whole.session(threads=1) as session:
        best = _accuracy(session, test)
    original = graphkiln.driver.import_model(model).graph
    click.echo(f"original: {best:.2%}, {parameters(original)} parameters")
    for way in ways or runs:
        found = []
        for seed in range(first, first + seeds):
            started = time.perf_counter()
            student = runs[way](seed)
            found.append(accuracy(student, test))
            seconds = time.perf_counter() - started
            click.echo(f"{way}, seed {seed}: {found[-1]:.2%} ({seconds:.0f} s)")
        fewer = 1 - parameters(student.graph) / parameters(original)
        less = 1 - _flops(student.graph) / _flops(original)
        click.echo(
            f"{way}: mean {np.mean(found):.2%}, worst {min(found):.2%}; {fewer:.1%} of the"
            f" parameters and {less:.1%} of the operations removed"
        )


def _flops(graph: Graph) -> int:
    """The operations of one image."""
    total = count_flops(graph)
    return evaluate(total, dict.fromkeys(free_symbols(total), 1))


if __name__ == "__main__":
    main()
