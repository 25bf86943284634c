"""Inputs for a session: from files, or random ones that fit its types."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np


def feeds_for(session: Any, files: Sequence[str], dims: Sequence[str], seed: int) -> dict[str, Any]:
    """Arrays for every input of a session: given ones from files, random ones for the rest.

    Inputs that may be left out are.
    """
    feeds = load_files(files)
    sizes = parse_dims(dims)
    _refuse_unknown(sizes, session)
    learn_sizes(session, feeds, sizes)
    random = np.random.default_rng(seed)
    for i in session.get_inputs():
        if i.name not in feeds and not i.type.startswith("optional("):
            feeds[i.name] = random_input(i.name, i.type, i.shape, sizes, random)
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


def _refuse_unknown(sizes: Mapping[str, int], session: Any) -> None:
    open_dims = {d for i in session.get_inputs() for d in i.shape if isinstance(d, str)}
    known = {name for d in open_dims for name in re.findall(r"[^\W\d]\w*", d)} | open_dims
    for name in sizes:
        if name not in known:
            told = f"open are {', '.join(sorted(open_dims))}" if open_dims else "none is open"
            raise click.BadParameter(f"no input has a dimension {name!r}: {told}",
                                     param_hint="--dim")  # fmt: skip


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
    name: str, kind: str, shape: Sequence[int | str] | None, sizes: Mapping[str, int], random: Any
) -> Any:
    """A random array of an onnxruntime type such as ``tensor(float)``; open dims are 1.

    Floats are standard normal, integers 0 or 1: valid as indices and token ids nearly everywhere.
    """
    from ..runtime.dtypes import KNOWN, STRING, ort_name, public_dtype

    names = {f"tensor({ort_name(t)})": t for t in KNOWN if t != STRING}
    if kind not in names:
        given = f"give input {name!r} a file with -i"
        raise click.ClickException(f"there are no random inputs of type {kind}: {given}")
    dims = [size_of(d, sizes) for d in shape or ()]
    dtype = public_dtype(names[kind])
    if "int" in names[kind] or names[kind] == "bool":
        return random.integers(0, 2, dims).astype(dtype)
    return random.standard_normal(dims).astype(dtype)


def size_of(dim: int | str | None, sizes: Mapping[str, int]) -> int:
    """The extent of a dim; names that ``sizes`` lacks are 1."""
    if isinstance(dim, int):
        return dim
    if dim is None or dim in sizes:
        return sizes.get(str(dim), 1)
    from ..ir.dims import DimError, evaluate, free_symbols, parse_dim

    try:
        parsed = parse_dim(dim)
        return evaluate(parsed, {s: sizes.get(s, 1) for s in free_symbols(parsed)})
    except DimError:
        return 1


def _arrays(name: str, value: Any) -> list[tuple[str, Any]]:
    if not (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
        return [(name, value)]
    keys = list(value[0])
    rows = np.array([[row[key] for key in keys] for row in value], np.float32)
    return [(f"{name}/keys", np.array(keys)), (f"{name}/values", rows)]


def save_outputs(path: str, outputs: Mapping[str, Any]) -> None:
    """Write arrays to an ``.npz`` file, complete or not at all.

    A list of maps that have the same keys becomes ``NAME/keys`` and ``NAME/values``.
    """
    outputs = {k: a for name, value in outputs.items() for k, a in _arrays(name, value)}
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
