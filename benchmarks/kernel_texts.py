"""The text of every kernel of models, to compare two versions of graphkiln.

    python benchmarks/kernel_texts.py write FOLDER MODEL.onnx [...]
    python benchmarks/kernel_texts.py compare BEFORE AFTER

A change of the compiler's shape leaves every kernel as it was: write the texts with the version
before it, write them again with the version after it, and compare. A model's file holds each kernel
once, by its region's text: the region, then the TensorIR that the target makes of it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import graphkiln
from graphkiln.codegen.lower import lower_graph
from graphkiln.codegen.program_text import kernel_text
from graphkiln.targets import parse_target

_SHOWN = 40
"""Lines of a difference that are printed for each model."""


@click.group()
def main() -> None:
    """Write or compare the texts of models' kernels."""


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("models", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--target", default="cpu:x86-64-v3", show_default=True, help="What to compile for.")
def write(folder: Path, models: tuple[Path, ...], target: str) -> None:
    """Write one file for each of MODELS into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    with click.progressbar(models, file=sys.stderr, item_show_func=_title) as shown:
        for model in shown:
            text = "\n".join(kernel_texts(model, target))
            (folder / f"{_title(model)}.txt").write_text(text, encoding="utf-8")


@main.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Print what differs between two folders; exits with 1 where something does."""
    names = sorted({p.name for folder in (before, after) for p in folder.glob("*.txt")})
    differ = [name for name in names if _differs(before / name, after / name)]
    click.echo(f"{len(names)} models, {len(differ)} differ")
    if differ:
        sys.exit(1)


def kernel_texts(model: Path, target: str) -> Iterator[str]:
    """The text of each distinct kernel of a model, ordered by its region's text."""
    machine = parse_target(target)
    lowered = lower_graph(graphkiln.optimize(str(model), target), machine, "")
    for spec in sorted(lowered.kernels.values(), key=lambda s: (s.text, s.role)):
        yield f"---- {spec.role}\n{kernel_text(spec, 'kernel', machine)}".rstrip("\n")


def _differs(before: Path, after: Path) -> bool:
    """Do two files differ? What does is printed."""
    a, b = (_lines(p) for p in (before, after))
    lines = list(difflib.unified_diff(a, b, str(before), str(after), n=2, lineterm=""))
    for line in lines[:_SHOWN]:
        click.echo(line)
    if len(lines) > _SHOWN:
        click.echo(f"... {len(lines) - _SHOWN} more lines")
    return bool(lines)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _title(model: Path | None) -> str:
    """The name of a model's file; many are called after their folder."""
    if model is None:
        return ""
    return model.parent.name if model.stem in ("model", "skeleton") else model.stem


if __name__ == "__main__":
    main()
