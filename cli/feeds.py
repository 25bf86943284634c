"""Inputs for a session: from files, or random ones that fit its types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

_NUMPY = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    **{f"{u}int{b}": f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)},
}  # fmt: skip


def feeds_for(
    session: Any, files: Sequence[str], dims: Sequence[str], seed: int
) -> dict[str, Any]:
    """Arrays for every input of a session: given ones from files, random ones for the rest."""
    feeds = load_files(files)
    sizes = parse_dims(dims)
    learn_sizes(session, feeds, sizes)
    random = np.random.default_rng(seed)
    for i in session.get_inputs():
        if i.name not in feeds:
            feeds[i.name] = random_input(i.type, i.shape, sizes, random)
    return feeds


def parse_dims(given: Sequence[str]) -> dict[str, int]:
    """``NAME=8`` by name."""
    out = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        if not equals or not value.isdigit():
            raise click.BadParameter(f"{text!r} is not NAME=8", param_hint="--dim")
        out[name] = int(value)
    return out


def load_files(files: Sequence[str]) -> dict[str, Any]:
    """The arrays of ``FILE.npz`` and ``NAME=FILE.npy`` arguments; nothing is unpickled."""
    feeds: dict[str, Any] = {}
    for text in files:
        name, equals, path = text.rpartition("=")
        loaded = _load(path if equals else text)
        if isinstance(loaded, dict):
            feeds.update(loaded)
        elif not equals:
            raise click.BadParameter(f"{text}: say which input, as NAME={text}", param_hint="-i")
        else:
            feeds[name] = loaded
    return feeds


def _load(path: str) -> Any:
    if not Path(path).is_file():
        raise click.ClickException(f"{path}: no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        return {k: loaded[k] for k in loaded.files} if hasattr(loaded, "files") else loaded
    except (ValueError, OSError, EOFError) as e:
        raise click.ClickException(f"{path}: not a .npy or .npz file of plain arrays") from e


def learn_sizes(session: Any, feeds: Mapping[str, Any], sizes: dict[str, int]) -> None:
    """Symbolic dims that the given arrays fix."""
    for i in session.get_inputs():
        if i.name in feeds and i.shape is not None:
            for d, extent in zip(i.shape, np.shape(feeds[i.name]), strict=False):
                if isinstance(d, str):
                    sizes.setdefault(d, int(extent))


def random_input(
    kind: str, shape: Sequence[int | str] | None, sizes: Mapping[str, int], random: Any
) -> Any:
    """A random array of an onnxruntime type such as ``tensor(float)``; unknown dims are 1."""
    name = _NUMPY.get(kind.removeprefix("tensor(").removesuffix(")"))
    if name is None or not kind.startswith("tensor("):
        raise click.ClickException(f"there are no random inputs of type {kind}: give a file with -i")
    dims = [d if isinstance(d, int) else sizes.get(str(d), 1) for d in shape or ()]
    if name.startswith("float"):
        return random.standard_normal(dims).astype(name)
    if name == "bool":
        return random.random(dims) < 0.5
    return random.integers(0, 2, dims).astype(name)


def save_outputs(path: str, outputs: Mapping[str, Any]) -> None:
    """Write arrays to an ``.npz`` file, complete or not at all."""
    bad = [n for n, v in outputs.items() if not isinstance(v, np.ndarray) or v.dtype == object]
    if bad:
        raise click.ClickException(f"output {bad[0]!r} is no plain array: it cannot be written")
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as f:
            np.savez(f, **dict(outputs))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
