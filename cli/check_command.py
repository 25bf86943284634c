"""``graphkiln check``: does a model compile, and does the result compute the same numbers?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from .feeds import feeds_for
from .options import compile_options, make_options
from .progress import Progress


@click.command("check")
@click.argument("model", type=click.Path())
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=FILE.npy|FILE.npz",
    help="Inputs, as for run; random ones fill the rest.",
)  # fmt: skip
@click.option("--dim", "dims", multiple=True, metavar="NAME=8", help="Sizes for random inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="For random inputs.")
@click.option("--rtol", type=float, default=1e-3, show_default=True, help="Relative tolerance.")
@click.option(
    "--atol", type=float, default=1e-4, show_default=True,
    help="Absolute tolerance, as a part of the output's largest value.",
)  # fmt: skip
@click.option("--bisect", is_flag=True, help="Name the first pass that changes the numbers.")
@compile_options
def command(
    model: str, inputs: tuple[str, ...], dims: tuple[str, ...], seed: int, rtol: float,
    atol: float, bisect: bool, **values: Any,
) -> None:  # fmt: skip
    """List what stands in the way of compiling MODEL; if nothing does, compile it and compare.

    The reference is a plain evaluation of the model as it was imported.
    """
    from .. import driver

    options = make_options(values)
    blockers = driver.check(model, options=options)
    if blockers:
        click.echo("\n".join(map(str, blockers)))
        raise SystemExit(1)
    with Progress() as progress:
        artifact = driver.compile(model, options=options, listener=progress)
        with artifact.session() as session:
            feeds = feeds_for(session, inputs, dims, seed)
            progress("run", 0, 1)
            results = session.run(None, feeds)
            names = [o.name for o in session.get_outputs()]
        progress("reference", 0, 1)
        graph = driver.import_model(model, options.shapes, options.input_defaults).graph
        expected = _reference(graph, feeds)
    random = _random_ops(graph)
    if random:
        click.echo(f"note: {', '.join(random)} give random numbers; only types are compared")
    tolerances = None if random else Tolerances(rtol, atol)
    given = zip(names, results, expected, strict=True)
    rows = [_row(name, mine, wanted, tolerances) for name, mine, wanted in given]
    _show(rows, artifact.report["host_functions"])
    if bisect:
        culprit = driver.bisect(model, _complete(graph, feeds), options, rtol=rtol, atol=atol)
        click.echo(_verdict(culprit))
    if any(r.problem for r in rows):
        raise SystemExit(1)


def _verdict(culprit: Any) -> str:
    if culprit is None:
        return "no pass changes the numbers; a difference can only come from code generation"
    return (
        f"pass {culprit.index}, {culprit.text}, is the first to change the numbers:"
        f" {culprit.output!r} is off by {culprit.difference:.3g}"
    )


def _reference(graph: Any, feeds: Mapping[str, Any]) -> list[Any]:
    from ..ir.interpreter import evaluate
    from ..ir.registry import attribute
    from ..runtime.values import as_maps

    outputs: list[Any] = evaluate(graph, _complete(graph, feeds))
    return [
        as_maps(a, attribute(v.node, "keys")) if v.node.key == "kiln.ZipMap" else a
        for v, a in zip(graph.outputs, outputs, strict=True)
    ]


def _complete(graph: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Feeds in which inputs that were left out are None or have their default."""
    return {v.name: feeds.get(v.name, v.node.attrs.get("default")) for v in graph.inputs}


def _random_ops(graph: Any) -> list[str]:
    """The ops of a graph and of the bodies in it that give random numbers."""
    from ..ir.registry import has_trait
    from ..ir.traits import Trait

    random = {n.key for g in graph.walk() for n in g.nodes if has_trait(n, Trait.STOCHASTIC)}
    return sorted(random)


class Tolerances(NamedTuple):
    """``|a - b| <= relative * |b| + absolute * max |b|``."""

    relative: float
    absolute: float


class Row(NamedTuple):
    """How one output compares; ``error`` is its largest difference, ``problem`` empty if right."""

    name: str
    what: str
    error: str
    problem: str


def _row(name: str, mine: Any, wanted: Any, tolerances: Tolerances | None) -> Row:
    import numpy as np

    if isinstance(wanted, np.ndarray) and isinstance(mine, np.ndarray):
        what = f"{mine.dtype} {list(mine.shape)}"
    else:
        what = "list" if isinstance(mine, list) else type(mine).__name__
    error, problem = compare(mine, wanted, tolerances)
    return Row(name, what, f"{error:.3g}", problem)


def compare(mine: Any, wanted: Any, tolerances: Tolerances | None) -> tuple[float, str]:
    """The largest difference of two values, and what is wrong (nothing: an empty text).

    Without tolerances only types and shapes count.
    """
    import numpy as np

    if mine is None or wanted is None:
        return 0.0, "" if mine is wanted else "one is empty, the other is not"
    if isinstance(wanted, list) or isinstance(mine, list):
        return _compare_lists(mine, wanted, tolerances)
    if isinstance(wanted, dict) and isinstance(mine, dict) and mine.keys() == wanted.keys():
        mine, wanted = list(mine.values()), [wanted[key] for key in mine]
    a, b = np.asarray(mine), np.asarray(wanted)
    if a.dtype != b.dtype or a.shape != b.shape:
        return 0.0, f"{a.dtype} {list(a.shape)} instead of {b.dtype} {list(b.shape)}"
    if tolerances is None:
        return 0.0, ""
    if a.dtype == object or a.dtype == bool:
        return 0.0, "" if np.array_equal(a, b) else "values differ"
    return _compare_numbers(a, b, tolerances)


def _compare_lists(mine: Any, wanted: Any, tolerances: Tolerances | None) -> tuple[float, str]:
    if not (isinstance(mine, list) and isinstance(wanted, list) and len(mine) == len(wanted)):
        return 0.0, "sequences of different lengths"
    parts = [compare(a, b, tolerances) for a, b in zip(mine, wanted, strict=True)]
    worst = max((error for error, _ in parts), default=0.0)
    return worst, next((problem for _, problem in parts if problem), "")


def _compare_numbers(a: Any, b: Any, tolerances: Tolerances) -> tuple[float, str]:
    import numpy as np

    wide = np.complex128 if np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    finite = np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.abs(a - b))
    scale = float(np.abs(b[finite]).max(initial=0.0))
    allowed = tolerances.relative * np.abs(np.where(finite, b, 0)) + tolerances.absolute * scale
    wrong = int((~(off <= allowed)).sum())
    worst = float(np.nan_to_num(off, nan=np.inf).max(initial=0.0))
    return worst, f"{wrong} of {b.size} values differ" if wrong else ""


def _show(rows: list[Row], hosts: list[str]) -> None:
    from .tables import show, table

    lines = [(r.name, r.what, r.error, r.problem or "right") for r in rows]
    show(table("Against the reference", ["output", "type", ">largest error", "verdict"], lines))
    if hosts:
        click.echo(f"host functions: {', '.join(hosts)}")
