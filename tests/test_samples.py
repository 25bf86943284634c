"""Sample data: files, folders and functions, one sample at a time."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from graphkiln.samples import SamplesError, samples_of

X = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
N = np.arange(4)


def test_a_file_holds_all_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=X, n=N)
    source = samples_of(str(tmp_path / "c.npz"), {"x": 3, "n": 0})
    for _ in range(2):
        found = list(source)
        assert len(found) == 4
        for i, sample in enumerate(found):
            np.testing.assert_array_equal(sample["x"], X[i : i + 1])
            np.testing.assert_array_equal(sample["n"], N[i])


def test_a_sample_with_all_axes_is_taken_as_it_is(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "c.npz", x=X)
    (first, *_) = samples_of(str(tmp_path / "c.npz"), {"x": 2})
    assert first["x"].shape == (2, 3)


def test_memory_does_not_grow(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros((64, 1 << 16), np.float32))
    source = samples_of(str(tmp_path / "c.npz"), {"x": 2})
    tracemalloc.start()
    try:
        count = sum(1 for _ in source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 64 and peak < 4 << 20


def test_a_folder_has_a_file_for_each(tmp_path: Path) -> None:
    for i in (2, 0, 1):
        np.savez(tmp_path / f"s{i}.npz", x=np.full((1, i + 1), i, np.float32))
    found = list(samples_of(str(tmp_path), {"x": 2}))
    assert [s["x"].shape for s in found] == [(1, 1), (1, 2), (1, 3)]


def test_a_function_yields_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_samples.py").write_text(
        "import numpy as np\ndef three():\n    for i in range(3):\n"
        "        yield {'x': np.full(2, i)}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "made_samples", raising=False)
    path = list(sys.path)
    source = samples_of("made_samples:three", {})
    assert [int(s["x"][0]) for s in source] == [0, 1, 2]
    assert len(list(source)) == 3 and sys.path == path


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("none.npz", "there is no such file"),
        ("nowhere", "is no npz file, no folder and no module:function"),
        ("no_such_module:f", "cannot be imported"),
        ("json:no_such_function", "cannot be imported"),
        ("json:__name__", "is no function"),
    ],
)
def test_sources_that_are_none(source: str, reason: str) -> None:
    with pytest.raises(SamplesError, match=reason) as caught:
        list(samples_of(source, {}))
    assert str(caught.value).startswith(source)


def test_a_function_that_yields_something_else() -> None:
    with pytest.raises(SamplesError, match="sample 0 is a str, no dict of arrays"):
        list(samples_of("sys:getdefaultencoding", {}))


def test_a_function_that_fails() -> None:
    with pytest.raises(SamplesError, match="json:loads: fails: TypeError"):
        list(samples_of("json:loads", {}))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="holds no npz files"):
        list(samples_of(str(tmp_path), {}))


def damaged(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("no archive")
    elif kind == "pickle":
        np.savez(path, x=np.array([{}, {}], object))
    elif kind == "scalar":
        np.savez(path, x=np.float32(1))
    elif kind == "fortran":
        np.savez(path, x=np.asfortranarray(np.zeros((3, 2))))
    elif kind == "counts":
        np.savez(path, x=X, n=N[:2])
    elif kind == "empty":
        with zipfile.ZipFile(path, "w"):
            pass
    else:
        np.savez(path, x=X)
        with zipfile.ZipFile(path) as archive:
            data = archive.read("x.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data[:-8] if kind == "short" else pickle.dumps(3))


@pytest.mark.parametrize(
    "kind", ["text", "pickle", "scalar", "fortran", "counts", "empty", "short", "other"]
)
def test_damaged_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    damaged(path, kind)
    with pytest.raises(SamplesError) as caught:
        list(samples_of(str(path), {"x": 3}))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "pickle"])
def test_damaged_files_in_a_folder(kind: str, tmp_path: Path) -> None:
    damaged(tmp_path / "s.npz", kind)
    with pytest.raises(SamplesError, match="is no npz file of plain arrays"):
        list(samples_of(str(tmp_path), {"x": 3}))
