"""``graphkiln ops``: the coverage table."""

from __future__ import annotations

from pathlib import Path

import click

from .options import plugin_option, run_plugins


@click.command("ops")
@click.option("--markdown", type=click.Path(dir_okay=False), help="Write the table to this file.")
@click.option("--domain", help="Show the ops of this domain only.")
@plugin_option
def command(markdown: str | None, domain: str | None, plugins: tuple[str, ...]) -> None:
    """Print the table of supported ops."""
    from . import coverage
    from .tables import show, table

    run_plugins(plugins)
    rows = coverage.coverage()
    if markdown is not None:
        Path(markdown).write_text(coverage.markdown(rows), encoding="utf-8", newline="\n")
        return
    domains = {r.domain for r in rows}
    if domain is not None and domain not in domains:
        known = ", ".join(sorted(domains))
        raise click.BadParameter(f"{domain!r} is not one of {known}", param_hint="--domain")
    chosen = [r for r in rows if domain in (None, r.domain)]
    lines = [(r.domain, r.op, r.how, r.note) for r in chosen]
    show(table("Ops", ["domain", "op", "runs as", ""], lines))
    for how, meaning in coverage.MEANINGS.items():
        click.echo(f"{sum(r.how == how for r in chosen):5} {how}: {meaning}")
