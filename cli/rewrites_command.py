"""``graphkiln rewrites``: what each rewrite promises about the numbers."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rewrites")
@click.option("--markdown", type=click.Path(dir_okay=False), help="Write the table to this file.")
@click.option("--pass", "pass_name", help="Show the rewrites of this pass only.")
def command(markdown: str | None, pass_name: str | None) -> None:
    """Print the table of rewrites."""
    from . import rewrites
    from .tables import show, table

    rows = rewrites.rewrites()
    if markdown is not None:
        Path(markdown).write_text(rewrites.markdown(rows), encoding="utf-8", newline="\n")
        return
    names = list(dict.fromkeys(r.pass_name for r in rows))
    if pass_name is not None and pass_name not in names:
        told = f"{pass_name!r} is not one of {', '.join(names)}"
        raise click.BadParameter(told, param_hint="--pass")
    chosen = [r for r in rows if pass_name in (None, r.pass_name)]
    lines = [(r.pass_name, r.rule, r.family, r.exactness, r.equation, r.known) for r in chosen]
    show(table("Rewrites", ["pass", "rule", "family", "class", "equation", "known"], lines))
    for kind, meaning in rewrites.MEANINGS.items():
        click.echo(f"{sum(r.exactness == kind for r in chosen):5} {kind}: {meaning}")
