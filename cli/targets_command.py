"""``graphkiln targets``: what can be compiled for."""

from __future__ import annotations

import click


@click.command("targets")
def command() -> None:
    """List targets and what this machine is."""
    from ..targets import foreign_names
    from ..targets.cpu.features import features_of, host_features, named_cpus
    from .tables import show, size, table

    rows = []
    for name in named_cpus():
        f = features_of(name)
        rows.append((f"cpu:{name}", f.arch, f.vector_bytes * 8, f.registers, size(f.l2),
                     " ".join(f.required)))  # fmt: skip
    columns = ["target", "arch", ">vector bits", ">registers", ">L2", "needs"]
    show(table("CPU targets", columns, rows))
    click.echo(f"cpu (this machine): cpu:{host_features().name}")
    click.echo("cuda:sm_NN, e.g. cuda:sm_90: compiles where nvcc is on the path")
    for name in foreign_names():
        click.echo(f"{name}: of a plugin")
