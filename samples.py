"""Sample data of a model, one sample at a time: what calibration runs on.

A source is an npz file with an array for each input, whose first axis runs over samples; a folder
with an npz file for each sample, whose sizes may differ; or ``module:function``, a Python function
that yields a dict of arrays for each sample. Samples are read as they are needed and may be read
several times, so memory does not grow with their number. Nothing is unpickled.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from .errors import UsageError

Sample: TypeAlias = "Mapping[str, np.ndarray]"


class SamplesError(UsageError):
    """Sample data cannot be read, or does not fit the model."""


def samples_of(source: str, ranks: Mapping[str, int]) -> Iterable[Sample]:
    """The samples of a source, for inputs whose ranks are given by name.

    Raises :class:`SamplesError` where there is no such source; reading raises it, too.
    """
    path = Path(source)
    if path.is_dir():
        return _Folder(path)
    if path.suffix == ".npz" or path.is_file():
        return _Stacked(path, dict(ranks))
    if ":" not in source:
        raise SamplesError("is no npz file, no folder and no module:function", file=source)
    return _Called(source, function_of(source))


def function_of(source: str) -> Callable[..., Any]:
    """The Python function ``module:function``; modules of the current folder are found, too.

    Raises :class:`SamplesError` where there is none.
    """
    module, _, name = source.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise SamplesError(f"cannot be imported: {e}", file=source) from e
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise SamplesError("is no function", file=source)
    function: Callable[..., Any] = found
    return function


@dataclass(frozen=True)
class _Called:
    """What a function yields; it is called for each pass over the samples."""

    source: str
    function: Callable[[], Iterable[Any]]

    def __iter__(self) -> Iterator[Sample]:
        for i, sample in enumerate(self._yielded()):
            if not isinstance(sample, Mapping):
                kind = type(sample).__name__
                raise SamplesError(f"sample {i} is a {kind}, no dict of arrays", file=self.source)
            yield {name: np.asarray(array) for name, array in sample.items()}

    def _yielded(self) -> Iterator[Any]:
        try:
            yield from self.function()
        except Exception as e:
            raise SamplesError(f"fails: {type(e).__name__}: {e}", file=self.source) from e


@dataclass(frozen=True)
class _Folder:
    """A file for each sample, in the order of their names."""

    path: Path

    def __iter__(self) -> Iterator[Sample]:
        files = sorted(self.path.glob("*.npz"))
        if not files:
            raise SamplesError("holds no npz files", file=str(self.path))
        for file in files:
            try:
                with np.load(file, allow_pickle=False) as held:
                    sample = {name: held[name] for name in held.files}
            except (OSError, ValueError, zipfile.BadZipFile) as e:
                raise SamplesError("is no npz file of plain arrays", file=str(file)) from e
            yield sample


@dataclass(frozen=True)
class _Stacked:
    """One file with all samples; each array is read from its start, a sample at a time."""

    path: Path
    ranks: dict[str, int]

    def __iter__(self) -> Iterator[Sample]:
        try:
            with ExitStack() as stack:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                arrays = {
                    name.removesuffix(".npy"): _Array(stack.enter_context(archive.open(name)))
                    for name in archive.namelist()
                }
                yield from self._samples(arrays)
        except FileNotFoundError as e:
            raise SamplesError("there is no such file", file=str(self.path)) from e
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
            if isinstance(e, SamplesError):
                raise
            raise SamplesError("is no npz file of plain arrays", file=str(self.path)) from e

    def _samples(self, arrays: Mapping[str, _Array]) -> Iterator[Sample]:
        counts = {name: array.count for name, array in arrays.items()}
        if len(set(counts.values())) != 1:
            told = ", ".join(f"{name!r} {count}" for name, count in counts.items()) or "none"
            raise SamplesError(f"holds other numbers of samples by array: {told}",
                               file=str(self.path))  # fmt: skip
        for _ in range(next(iter(counts.values()))):
            yield {name: self._fitted(name, array.next()) for name, array in arrays.items()}

    def _fitted(self, name: str, sample: np.ndarray) -> np.ndarray:
        """A sample as the input takes it: alone in a batch, unless it has all axes already."""
        return sample[None] if self.ranks.get(name) == sample.ndim + 1 else sample


class _Array:
    """An array in an npz file, read along its first axis."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"format {version} is not known")
        shape, in_columns, self._dtype = read(file)
        if self._dtype.hasobject or not shape or (in_columns and len(shape) > 1):
            raise ValueError("no plain array of samples, row by row")
        self.count, *rest = shape
        self._shape = tuple(rest)
        self._size = prod(rest) * self._dtype.itemsize

    def next(self) -> np.ndarray:
        """The next sample."""
        data = self._file.read(self._size)
        if len(data) != self._size:
            raise EOFError("the file ends too early")
        return np.frombuffer(data, self._dtype).reshape(self._shape)


__all__ = ["Sample", "SamplesError", "function_of", "samples_of"]
