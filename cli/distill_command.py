"""``graphkiln distill``: a student, its teacher and samples in, a trained student out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import compile_options, make_options, require_writable
from .progress import Progress
from .tables import facts, milliseconds, show, size, table

if TYPE_CHECKING:
    from ..distiller import Distilled
    from ..training.trainer import Epoch


@click.command("distill")
@click.argument("model", type=click.Path())
@click.option(
    "--teacher", required=True, type=click.Path(), metavar="MODEL.onnx",
    help="The model whose results the student learns.",
)  # fmt: skip
@click.option(
    "--data", required=True, metavar="FILE.npz|FOLDER|MODULE:FUNCTION",
    help="Samples: arrays whose first axis runs over them, a file for each, or a function that "
    "yields dicts of arrays.",
)  # fmt: skip
@click.option("--labels", metavar="NAME", help="The array of the samples that is the right class.")
@click.option(
    "-o", "--output", type=click.Path(),
    help="An artifact, or an ONNX model where it ends in .onnx (default: MODEL.kiln).",
)  # fmt: skip
@click.option(
    "--start", metavar="student|teacher|MODEL.onnx", default="student", show_default=True,
    help="Whose weights the student begins with, as far as they fit.",
)  # fmt: skip
@click.option("--temperature", type=float, help="Softens distributions (default: 3).")
@click.option(
    "--alpha", type=float,
    help="The share of the teacher in the loss, labels get the rest (default: 0.5 with --labels, "
    "else 1).",
)  # fmt: skip
@click.option(
    "--loss", type=click.Choice(["kl", "mse"]),
    help="How results are compared: as distributions of classes (default), or as numbers.",
)  # fmt: skip
@click.option("--class-axis", type=int, help="The axis of the classes (default: -1).")
@click.option(
    "--match", multiple=True, metavar="STUDENT=TEACHER",
    help="Two values, by name, that shall be alike.",
)  # fmt: skip
@click.option("--feature-weight", type=float, help="The weight of --match (default: 1).")
@click.option(
    "--attention", multiple=True, metavar="STUDENT=TEACHER",
    help="Two values whose energy shall lie at the same places.",
)  # fmt: skip
@click.option("--attention-weight", type=float, help="The weight of --attention (default: 1).")
@click.option("--epochs", type=int, help="How often all samples are seen (default: 20).")
@click.option("--batch", type=int, help="Samples of a step (default: 64).")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), help="(default: adamw)")
@click.option("--lr", type=float, help="The learning rate (default: 0.001).")
@click.option("--weight-decay", type=float, help="(default: 0.0001)")
@click.option(
    "--schedule", type=click.Choice(["cosine", "one-cycle", "constant"]),
    help="How the learning rate goes on (default: cosine).",
)  # fmt: skip
@click.option("--warmup", type=float, help="The share of steps in which it rises (default: 0.05).")
@click.option("--clip", type=float, help="The largest norm of a gradient (default: none).")
@click.option(
    "--validation", type=float,
    help="The share of samples held out, by which the best weights are chosen (default: 0.1).",
)  # fmt: skip
@click.option(
    "--patience", type=int, help="End after so many epochs without a lower loss (default: never)."
)  # fmt: skip
@click.option(
    "--augment", metavar="shift=2,rotate=10,...",
    help="Random changes of images: shift (pixels), rotate (degrees), scale, shear, noise.",
)  # fmt: skip
@click.option(
    "--teacher-sees", type=click.Choice(["same", "original"]),
    help="The images that the teacher gets, as changed for the student (default: same) or not.",
)  # fmt: skip
@click.option("--seed", type=int, help="Decides about all random choices (default: 0).")
@click.option(
    "--checkpoint", type=click.Path(file_okay=False), metavar="DIR",
    help="Keep the state of the training here.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
@click.option("--report", type=click.Path(), metavar="FILE.json", help="Write the report.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@compile_options
def command(
    model: str, teacher: str, data: str, labels: str | None, output: str | None, start: str,
    checkpoint: str | None, resume: bool, report: str | None, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """Train MODEL to give what its teacher gives: a smaller, pruned or quantized model."""
    from ..distiller import distill

    path = Path(output) if output else Path(model).with_suffix(".kiln")
    require_writable(path, model)
    if report is not None and not Path(report).parent.is_dir():
        raise click.ClickException(f"cannot write {report}: there is no such folder")
    given = _recipe_fields(values)
    options = make_options(values)
    started = time.perf_counter()
    with Progress(quiet) as progress:
        found = distill(
            model, teacher, data, labels=labels, start=start, checkpoint=checkpoint,
            resume=resume, options=options, listener=progress,
            on_epoch=None if quiet else _tell, **given,
        )  # fmt: skip
        if _is_first():
            found.save(path, progress)
            if report is not None:
                Path(report).write_text(json.dumps(found.report, indent=1) + "\n", "utf-8")
    if not quiet and _is_first():
        _summary(found, path, time.perf_counter() - started)


def _recipe_fields(values: dict[str, Any]) -> Mapping[str, Any]:
    """The options of the recipe that were given, taken out of ``values``."""
    from ..training.augment import Augmentation
    from ..training.recipe import Match, Recipe

    names = Recipe.__dataclass_fields__.keys() & values.keys()
    given = {name: values.pop(name) for name in names}
    given = {name: value for name, value in given.items() if value not in (None, ())}
    for name in ("match", "attention"):
        if name in given:
            given[name] = tuple(Match.parse(text) for text in given[name])
    if "augment" in given:
        given["augment"] = Augmentation.parse(given["augment"])
    return given


def _is_first() -> bool:
    """Is this the process that writes, of those that a launcher started?"""
    from ..training.team import rank

    return rank() == 0


def _tell(epoch: Epoch) -> None:
    losses = "  ".join(f"{name} {value:.4g}" for name, value in epoch.losses.items())
    held = ""
    if epoch.held_loss is not None:
        held = f"  held out: loss {epoch.held_loss:.4g}, right {epoch.held_accuracy:.2%}"
    click.echo(
        f"epoch {epoch.number + 1}: {losses}  right {epoch.accuracy:.2%}{held}"
        f"  ({epoch.seconds:.1f} s)"
    )


def _summary(found: Distilled, path: Path, seconds: float) -> None:
    if found.transferred:
        columns = ["weight", "teacher's", "why not"]
        rows = [(r["weight"], r["teacher"], r["reason"]) for r in found.transferred]
        show(table("Weights at the start", columns, rows))
    told = {"epochs": str(len(found.history))}
    held = [row for row in found.history if row["held loss"] is not None]
    if held:
        best = min(held, key=lambda row: row["held loss"])
        told["best epoch"] = (
            f"{best['epoch'] + 1}, held out: loss {best['held loss']:.4g}, right"
            f" {best['held accuracy']:.2%}"
        )
    told["time"] = milliseconds(seconds)
    told["written"] = f"{path}, {size(path.stat().st_size)}"
    show(facts("Summary", told))
    for warning in found.warnings:
        click.echo(f"note: {warning}")
