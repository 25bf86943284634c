"""Weights in files beside the model: read in place, and never from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.build import model, refusal

from graphkiln.frontend import load_model

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def _write(folder: Path, location: str | None, **entries: object) -> Path:
    proto = model([], [], ["w"])
    tensor = proto.graph.initializer.add(name="w", data_type=1, dims=ARRAY.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if location is not None:
        tensor.external_data.add(key="location", value=location)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def _loaded(path: Path) -> np.ndarray:
    found = load_model(path).graph.outputs[0].constant
    assert found is not None
    return found


@pytest.mark.parametrize("given", [{"offset": 8, "length": ARRAY.nbytes}, {"offset": 8}])
def test_offset_and_length(tmp_path: Path, given: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + ARRAY.tobytes())
    found = _loaded(_write(tmp_path, "w.bin", **given))
    np.testing.assert_array_equal(found, ARRAY)
    assert not found.flags.owndata


def test_files_in_subfolders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(ARRAY.tobytes())
    np.testing.assert_array_equal(_loaded(_write(tmp_path, "sub/w.bin")), ARRAY)


def test_large_files_are_mapped_and_shared(tmp_path: Path) -> None:
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(1 << 30)
    path = _write(tmp_path, "w.bin", offset=1 << 29, length=ARRAY.nbytes)
    found = _loaded(path)
    assert found.sum() == 0 and not found.flags.writeable


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("../w.bin", "outside the model's folder"),
        ("sub/../../w.bin", "outside the model's folder"),
        ("{root}/w.bin", "a relative path is needed"),
        ("", "a relative path is needed"),
        ("missing.bin", "cannot be read"),
        (".", "not a regular file"),
        (None, "a relative path is needed"),
        ("a\0b", "a relative path is needed"),
    ],
)
def test_other_places_are_refused(tmp_path: Path, location: str | None, reason: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "w.bin").write_bytes(ARRAY.tobytes())
    where = None if location is None else location.replace("{root}", str(tmp_path))
    error = refusal(_write(home, where, length=ARRAY.nbytes))
    assert reason in error.reason and "initializer 'w'" in error.reason


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret").write_bytes(ARRAY.tobytes())
    os.symlink(tmp_path / "secret", home / "w.bin")
    os.symlink(tmp_path, home / "up")
    assert "outside the model's folder" in refusal(_write(home, "w.bin")).reason
    assert "outside the model's folder" in refusal(_write(home, "up/secret")).reason


def test_a_linked_model_finds_its_data_beside_the_target(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "abc").write_bytes(ARRAY.tobytes())
    os.symlink(_write(blobs, "w.bin"), snapshot / "m.onnx")
    os.symlink(blobs / "abc", snapshot / "w.bin")
    np.testing.assert_array_equal(_loaded(snapshot / "m.onnx"), ARRAY)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"offset": 4, "length": 48}, "has 48 bytes"),
        ({"offset": 2**63, "length": 48}, "has 48 bytes"),
        ({"offset": -1, "length": 48}, "offset '-1'"),
        ({"offset": "x"}, "offset 'x'"),
        ({"length": "9" * 40}, "length '999"),
        ({"length": 12}, "need 48 bytes of data, not 12"),
    ],
)
def test_ranges_are_checked(tmp_path: Path, entries: dict[str, object], reason: str) -> None:
    (tmp_path / "w.bin").write_bytes(ARRAY.tobytes())
    assert reason in refusal(_write(tmp_path, "w.bin", **entries)).reason


def test_pipes_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    assert "not a regular file" in refusal(_write(tmp_path, "w.bin")).reason
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "not a regular file" in refusal(tmp_path / "pipe.onnx").reason


def test_models_without_a_path_have_no_files(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(ARRAY.tobytes())
    data = _write(tmp_path, "w.bin").read_bytes()
    assert "needs the model's path" in refusal(data).reason


def test_the_digest_covers_the_files(tmp_path: Path) -> None:
    path = _write(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(ARRAY.tobytes())
    first = load_model(path).digest
    assert first == load_model(path).digest
    (tmp_path / "w.bin").write_bytes((ARRAY + 1).tobytes())
    assert load_model(path).digest != first


def _field(number: int, payload: int) -> bytes:
    """The head of a length-delimited field of ``payload`` bytes."""
    out = bytearray([number << 3 | 2])
    while payload > 0x7F:
        out.append(payload & 0x7F | 0x80)
        payload >>= 7
    return bytes([*out, payload])


def test_models_over_2_gib(tmp_path: Path) -> None:
    """One file with a weight of 5 GiB; its bytes are a hole, so the disk stays empty."""
    size = 5 << 30
    proto = model([], [], ["w"])
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[size // 4])
    inner = tensor.SerializeToString() + _field(9, size)
    middle = proto.graph.SerializeToString() + _field(5, len(inner) + size) + inner
    proto.ClearField("graph")
    head = proto.SerializeToString() + _field(7, len(middle) + size) + middle
    path = tmp_path / "large.onnx"
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    found = _loaded(path)
    assert found.shape == (size // 4,) and found[-1] == 0
    with open(path, "r+b") as file:
        file.truncate(len(head) + size - 1)
    assert "is damaged" in refusal(path).reason
