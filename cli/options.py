"""Options and value parsers that subcommands share."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click


def parse_shapes(given: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """``input=1x3x224x224`` (entries may be names) by input; raises a usage error."""
    shapes: dict[str, tuple[int | str, ...]] = {}
    for text in given:
        name, equals, dims = text.rpartition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=1x3x224x224", param_hint="--shape")
        parts = [p for p in dims.split("x") if p] if dims else []
        entries = [int(p) if p.isdigit() else p for p in parts]
        if any(isinstance(e, str) and not e.isidentifier() for e in entries):
            raise click.BadParameter(f"{dims!r} is not a shape", param_hint="--shape")
        shapes[name] = tuple(entries)
    return shapes


def require_writable(path: Path, model: str) -> None:
    """Raise a clean error where a model cannot be written to ``path``, or that is the model."""
    from ..codegen.artifact import require_writable as require_artifact

    if not path.parent.is_dir():
        raise click.ClickException(f"cannot write {path}: there is no folder {path.parent}")
    if os.path.exists(path) and os.path.exists(model) and os.path.samefile(path, model):
        raise click.ClickException(f"cannot write {path}: it is the model")
    if path.suffix != ".onnx":
        require_artifact(path, False)


plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE.py",
    type=click.Path(exists=True, dir_okay=False),
    help="Run this Python file first, which registers ops or passes.",
)  # fmt: skip


def compile_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the options of a compilation."""
    for option in reversed(
        [
            click.option("--target", default="cpu", show_default=True, help="What to compile for."),
            click.option(
                "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224",
                help="Pin the shape of an input; may be given several times.",
            ),
            click.option(
                "--input-defaults", type=click.Choice(["auto", "open", "constant"]), default="auto",
                show_default=True,
                help="What initializers among the inputs are: inputs with a default, constants, or "
                "(auto) inputs unless the model lists its weights there.",
            ),
            click.option(
                "--passes", metavar="PIPELINE",
                help="The passes to run, e.g. 'fold{max-bytes=1048576},cse',"
                " 'default@without(fuse)' or 'exact'.",
            ),
            click.option(
                "--dump-ir", type=click.Path(file_okay=False), metavar="DIR",
                help="Write the numbered IR text after each pass.",
            ),
            click.option("--stop-after", metavar="PASS", help="Run passes up to this one only."),
            click.option(
                "--jobs", type=click.IntRange(0), default=0, help="Compiler processes (0: cores)."
            ),
            click.option("--linker", help="The C compiler to link with (for cross compiling)."),
            plugin_option,
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def make_options(values: Mapping[str, Any]) -> Any:
    """``CompileOptions`` from the options of :func:`compile_options`; runs the plugins."""
    from ..driver import CompileOptions

    shapes = parse_shapes(values["shapes"]) or None
    run_plugins(values["plugins"])
    fields = {k: v for k, v in values.items() if k != "plugins"}
    return CompileOptions(**{**fields, "shapes": shapes})


def run_plugins(paths: Sequence[str]) -> None:
    """Import the files of :func:`plugin_option`. Raises a clean error for one that fails."""
    for path in paths:
        _run_plugin(path)


def _run_plugin(path: str) -> None:
    name = f"graphkiln_plugin_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.BadParameter(f"{path} is not a Python file", param_hint="--plugin")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise click.ClickException(f"{path}: {type(e).__name__}: {e}") from e
