"""``graphkiln run``: an artifact on arrays from files, or on random ones."""

from __future__ import annotations

from typing import Any

import click

from .feeds import feeds_for, save_outputs
from .tables import harmless


@click.command("run")
@click.argument("artifact", type=click.Path())
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=FILE.npy|FILE.npz",
    help="Inputs: one .npz with all of them, or NAME=FILE.npy each. Random ones fill the rest.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(), help="Write the outputs to this .npz file.")
@click.option("--seed", type=int, default=0, show_default=True, help="For random inputs.")
@click.option("--threads", type=click.IntRange(1), help="Threads to run on.")
@click.option("--dim", "dims", multiple=True, metavar="NAME=8", help="Sizes for random inputs.")
def command(
    artifact: str, inputs: tuple[str, ...], output: str | None, seed: int, threads: int | None,
    dims: tuple[str, ...],
) -> None:  # fmt: skip
    """Run ARTIFACT once and show its outputs."""
    from ..runtime import load

    with load(artifact, threads=threads) as session:
        feeds = feeds_for(session, inputs, dims, seed)
        results = session.run(None, feeds)
        names = [o.name for o in session.get_outputs()]
    if output:
        save_outputs(output, dict(zip(names, results, strict=True)))
    for name, value in zip(names, results, strict=True):
        click.echo(harmless(f"{name}: {describe(value)}"))


def describe(value: Any) -> str:
    """One line about a result."""
    import numpy as np

    if value is None:
        return "empty"
    if isinstance(value, list):
        first = f", the first {value[0]}" if value and isinstance(value[0], dict) else ""
        return f"list of {len(value)}{first}"
    array = np.asarray(value)
    with np.printoptions(threshold=8, edgeitems=3, precision=5, linewidth=200):
        text = " ".join(str(array.reshape(-1)).split())
    return f"{array.dtype} {list(array.shape)} {text}"
