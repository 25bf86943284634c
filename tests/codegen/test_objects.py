"""The cache of objects: damage, and what others may have put there, never reaches an artifact."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import graphkiln
from graphkiln.codegen.objects import ObjectCache


def _model() -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4, 3]) for n in "xy"]
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], axis=0),
        helper.make_node("TopK", ["s", "k"], ["t", "i"], axis=0),
        helper.make_node("CumSum", ["t", "k0"], ["y"]),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.array([4]), "k"),
        onnx.numpy_helper.from_array(np.array(0), "k0"),
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _library() -> bytes:
    artifact = graphkiln.compile(_model(), jobs=1)
    x = np.random.default_rng(0).random((4, 3), np.float32)
    (y,) = artifact.session().run(None, {"x": x})
    soft = np.exp(x) / np.exp(x).sum(axis=0)
    np.testing.assert_allclose(y, np.cumsum(-np.sort(-soft, axis=0), axis=0), rtol=1e-5)
    return artifact.contents.library


def _each(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(kernels: Path) -> None:
        for path in sorted(kernels.glob("*.o")):
            change(path)

    return damage


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _swap(kernels: Path) -> None:
    """Each object under another kernel's name, whole as it is."""
    paths = sorted(kernels.glob("*.o"))
    contents = [p.read_bytes() for p in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _file_in_its_place(kernels: Path) -> None:
    for path in kernels.iterdir():
        path.unlink()
    kernels.rmdir()
    kernels.write_text("no folder")


FAULTS: dict[str, Callable[[Path], None]] = {
    "empty": _each(lambda p: p.write_bytes(b"")),
    "cut": _each(lambda p: p.write_bytes(p.read_bytes()[:-100])),
    "flipped": _each(_flip),
    "zeroed": _each(lambda p: p.write_bytes(bytes(p.stat().st_size))),
    "longer": _each(lambda p: p.write_bytes(p.read_bytes() + b"\0")),
    "swapped": _swap,
    "pipes": _each(_pipe),
    "folders": _each(_folder),
    "unreadable": _each(lambda p: p.chmod(0)),
    "read only": lambda kernels: kernels.chmod(0o500),
    "a file in its place": _file_in_its_place,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cache_with_faults(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", "")
    wanted = _library()
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    assert _library() == wanted
    FAULTS[fault](tmp_path / "kernels")
    assert _library() == wanted
    assert _library() == wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "files"])
def test_what_belongs_to_others_is_not_taken(what: str, tmp_path: Path) -> None:
    cache = ObjectCache(str(tmp_path))
    cache.put("k", b"code")
    assert cache.get("k") == b"code"
    os.chown(tmp_path / "kernels" if what == "folder" else tmp_path / "kernels" / "k.o", 12345, -1)
    assert cache.get("k") is None


def test_a_folder_open_to_others_is_closed(tmp_path: Path) -> None:
    cache = ObjectCache(str(tmp_path))
    cache.put("k", b"code")
    folder = tmp_path / "kernels"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert cache.get("k") == b"code"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_kept_is_there_whole_and_alone(tmp_path: Path) -> None:
    cache = ObjectCache(str(tmp_path))
    cache.put("k", b"code")
    cache.put("k", b"other")
    assert cache.get("k") == b"other" and cache.get("unknown") is None
    assert [p.name for p in (tmp_path / "kernels").iterdir()] == ["k.o"]
