"""Artifacts: written once, the same every time, and refused when anything in them is off."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support.artifacts import contents, rewrite

from graphkiln.codegen import artifact as writer
from graphkiln.codegen.artifact import ArtifactWriteError, write_artifact
from graphkiln.runtime import ArtifactError, InputError, load, read_artifact, verify
from graphkiln.runtime.checksum import weights_digest

MEMBERS = {"manifest.json", "library.so", "weights.bin", "ir.txt", "report.json"}


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    where = tmp_path / "model.kiln"
    write_artifact(contents(), where, folder=request.param == "folder")
    return where


def test_reads_what_was_written(path: Path) -> None:
    artifact = read_artifact(path, full=True)
    assert artifact.library[:-64] == b"\x7fELF library"
    assert artifact.ir_text == "graph é\n"
    assert json.loads(artifact.report) == {"seconds": 1.5}
    first, second = artifact.manifest.weights
    np.testing.assert_array_equal(artifact.weight(first), np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(artifact.weight(second), np.ones((2, 3), np.int8))
    verify(path)


def test_weights_are_mapped_and_aligned(path: Path) -> None:
    artifact = read_artifact(path)
    assert artifact.weights.ctypes.data % 64 == 0
    for spec in artifact.manifest.weights:
        assert artifact.weight(spec).ctypes.data % 64 == 0
    assert artifact.weights.flags.writeable
    artifact.weights[:] = 0
    verify(path)


def test_file_layout(tmp_path: Path) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path)
    with zipfile.ZipFile(path) as archive:
        assert {info.filename for info in archive.infolist()} == MEMBERS
        assert archive.testzip() is None
        info = archive.getinfo("weights.bin")
        assert info.compress_type == zipfile.ZIP_STORED
        data = archive.read("weights.bin")
    assert path.read_bytes()[4096 : 4096 + len(data)] == data


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a.kiln", "b.kiln"):
        write_artifact(contents(), tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    first, second = ((tmp_path / name).read_bytes() for name in ("a.kiln", "b.kiln"))
    assert first == second


def test_no_weights(tmp_path: Path) -> None:
    for folder in (False, True):
        write_artifact(contents([]), tmp_path / f"{folder}.kiln", folder)
        assert read_artifact(tmp_path / f"{folder}.kiln").weights.size == 0


def test_weights_of_every_kind(tmp_path: Path) -> None:
    values = np.array([[1, 2, 3], [4, 5, 6]])
    dtypes = {
        "float32": np.float32,
        "float16": np.float16,
        "bool": np.bool_,
        "bfloat16": ml_dtypes.bfloat16,
        "float8e4m3fn": ml_dtypes.float8_e4m3fn,
        "int4": ml_dtypes.int4,
        "uint2": ml_dtypes.uint2,
    }
    weights = [(name, values.astype(dtype)) for name, dtype in dtypes.items()]
    weights += [("empty", np.zeros((0, 3), np.float32)), ("scalar", np.array(7, np.int64))]
    weights += [("big", values.astype(">i4")), ("columns", np.asfortranarray(values))]
    write_artifact(contents(weights), tmp_path / "model.kiln")
    artifact = read_artifact(tmp_path / "model.kiln")
    specs = {spec.name: spec for spec in artifact.manifest.weights}
    assert all(specs[name].dtype == name for name in dtypes)
    stored = {name: artifact.weight(spec) for name, spec in specs.items()}
    assert stored["bfloat16"].view(ml_dtypes.bfloat16).tolist() == values.tolist()
    assert stored["int4"].tolist() == values.tolist()
    assert stored["columns"].tolist() == stored["big"].tolist() == values.tolist()
    assert stored["empty"].shape == (0, 3) and stored["scalar"] == 7


def test_weights_that_are_strings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactWriteError, match="'s' holds strings"):
        write_artifact(contents([("s", np.array(["a"]))]), tmp_path / "model.kiln")
    assert not any(tmp_path.iterdir())


# ---- integrity ---------------------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes small weights take the way of large ones, in several segments."""
    from graphkiln.runtime import checksum

    monkeypatch.setattr(writer, "GRID_ABOVE", 1000)
    for module in (writer, checksum):
        monkeypatch.setattr(module, "GRID_ROWS", 3)
        monkeypatch.setattr(module, "GRID_COLUMNS", 5)
        monkeypatch.setattr(module, "GRID_BLOCK", 120)
        monkeypatch.setattr(module, "GRID_SEGMENT", 1200)


@pytest.mark.parametrize("count", [288, 300, 301, 1025, 5000])
def test_both_sides_agree_on_the_sums(tmp_path: Path, small_segments: None, count: int) -> None:
    weights = [("w", np.random.default_rng(0).standard_normal(count).astype(np.float32))]
    write_artifact(contents(weights), tmp_path / "model.kiln")
    artifact = read_artifact(tmp_path / "model.kiln", full=True)
    assert artifact.manifest.checksum[0] == "grid64-1"


def test_the_sums_are_what_they_say() -> None:
    """A plain restatement of the definition, over more than one segment and a ragged end."""
    block = 63 * 1025 * 8
    size = 64 * block + 8 * 70_000
    data = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    digests = b""
    for segment in (data[: 64 * block].tobytes(), data[64 * block :].tobytes()):
        sums = b""
        for start in range(0, len(segment), block):
            words = np.frombuffer(segment[start : start + block].ljust(block, b"\0"), np.uint64)
            grid = words.reshape(63, 1025)
            sums += grid.sum(axis=0).tobytes() + grid.sum(axis=1).tobytes()
        digests += hashlib.sha256(sums).digest()
    expected = hashlib.sha256(digests + struct.pack("<Q", size)).hexdigest()
    for threads in (1, 2, 3):
        assert weights_digest(data, "grid64-1", threads) == expected


def flip_signs(words: np.ndarray) -> None:
    words ^= np.uint64(1 << 63)


def swap_words(words: np.ndarray) -> None:
    words[[3, 70_000]] = words[[70_000, 3]]


def swap_rows(words: np.ndarray) -> None:
    words[:1025], words[1025:2050] = words[1025:2050].copy(), words[:1025].copy()


def swap_blocks(words: np.ndarray) -> None:
    block = 63 * 1025
    words[:block], words[block : 2 * block] = words[block : 2 * block].copy(), words[:block].copy()


def zero_run(words: np.ndarray) -> None:
    words[500_000:550_000] = 0


def shift(words: np.ndarray) -> None:
    words[:] = np.roll(words, 1)


@pytest.mark.parametrize(
    "change", [flip_signs, swap_words, swap_rows, swap_blocks, zero_run, shift]
)
def test_the_sums_see_damage(change: Callable[[np.ndarray], None]) -> None:
    data = np.random.default_rng(2).integers(0, 256, 8 << 20, np.uint8)
    good = weights_digest(data, "grid64-1", 2)
    change(data.view(np.uint64))
    assert weights_digest(data, "grid64-1", 2) != good


def test_the_sums_see_every_flipped_bit() -> None:
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, 1 << 20, np.uint8)
    good = weights_digest(data, "grid64-1", 1)
    for at in rng.integers(0, data.size, 100):
        data[at] ^= 1 << (at % 8)
        assert weights_digest(data, "grid64-1", 1) != good
        data[at] ^= 1 << (at % 8)


def damage(path: Path, at: int, mask: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    damaged = path.with_name("damaged.kiln")
    damaged.write_bytes(data)
    return damaged


def test_every_flipped_byte_is_noticed_or_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path)
    whole = read_artifact(path)
    rng = random.Random(0)
    places = [*range(60), *range(4090, path.stat().st_size)]
    noticed = 0
    for at in places:
        damaged = damage(path, at, 1 << rng.randrange(8))
        try:
            found = read_artifact(damaged)
        except ArtifactError as error:
            noticed += 1
            assert str(damaged) in str(error) and "\n" not in str(error)
            continue
        assert found.manifest.raw == whole.manifest.raw, at
        assert (found.library, found.ir_text, found.report) == whole[2:5], at
        np.testing.assert_array_equal(found.weights, whole.weights)
    assert noticed > len(places) * 0.7


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path)
    data = path.read_bytes()
    cut = tmp_path / "cut.kiln"
    for size in range(0, len(data), 97):
        cut.write_bytes(data[:size])
        with pytest.raises(ArtifactError):
            read_artifact(cut)


@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_folder_members_are_checked(tmp_path: Path, member: str) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path, folder=True)
    file = path / member
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged|JSON"):
        read_artifact(path)
    file.write_bytes(data + b"\0" * 8)
    with pytest.raises(ArtifactError):
        read_artifact(path)
    file.unlink()
    with pytest.raises(ArtifactError, match=f"lacks {member}"):
        read_artifact(path)


def test_what_is_loaded_is_what_was_checked(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes a folder's library behind the check."""
    path = tmp_path / "model.kiln"
    with zipfile.ZipFile(models.path("square")) as archive:
        archive.extractall(path)

    def checked(where: str) -> Any:
        artifact = read_artifact(where)
        (path / "library.so").write_bytes(b"something else")
        return artifact

    monkeypatch.setattr("graphkiln.runtime.session.load_artifact", checked)
    monkeypatch.setattr("graphkiln.runtime.library._modules", {})
    x = np.ones(64, np.float32)
    (y,) = load(path).run(None, {"x": x})
    np.testing.assert_array_equal(y, (x + np.arange(64, dtype=np.float32)) ** 2)


@pytest.mark.parametrize("member", sorted(MEMBERS - {"weights.bin"}))
def test_members_that_grow_out_of_all_proportion_are_refused(tmp_path: Path, member: str) -> None:
    path, bomb = tmp_path / "model.kiln", tmp_path / "bomb.kiln"
    write_artifact(contents(), path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, "w") as made:
        for info in archive.infolist():
            held = archive.read(info)
            if info.filename == member:
                held += b" " * (32 << 20)
            made.writestr(info.filename, held, compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match=f"{member} grows from"):
        read_artifact(bomb)


def test_long_texts_that_repeat_themselves_are_read(tmp_path: Path) -> None:
    """Deflated, the text would be a hundredth of what it is, and look like a bomb."""
    line = "  %" + "/encoder/layers/attention" * 400 + " = Relu(%x)\n"
    text = line * ((20 << 20) // len(line))
    path = tmp_path / "model.kiln"
    write_artifact(replace(contents(), ir_text=text), path)
    assert read_artifact(path, full=True).ir_text == text
    verify(path)


def test_links_and_strangers_in_a_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path, folder=True)
    (path / "extra").touch()
    with pytest.raises(ArtifactError, match="does not belong there: 'extra'"):
        read_artifact(path)
    (path / "extra").unlink()
    shutil.move(path / "library.so", tmp_path / "outside.so")
    (path / "library.so").symlink_to(tmp_path / "outside.so")
    with pytest.raises(ArtifactError, match="library.so is not a plain file"):
        read_artifact(path)


@pytest.mark.parametrize("name", ["../evil.so", "/tmp/evil.so", "sub/library.so", "library.so"])
def test_other_members_in_a_file_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path)
    with zipfile.ZipFile(path, "a") as archive:
        with pytest.warns(UserWarning) if name == "library.so" else nothing():
            archive.writestr(name, b"evil")
    with pytest.raises(ArtifactError, match="does not belong|holds twice"):
        read_artifact(path)


def nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no readable artifact"),
        (b"not a zip" * 100, "is no readable artifact"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_artifact(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "model.kiln"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ArtifactError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    """What is never written is never decompressed."""
    path, other = tmp_path / "model.kiln", tmp_path / "other.kiln"
    write_artifact(contents(), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name), method if name == "ir.txt" else None)
    with pytest.raises(ArtifactError, match="ir.txt is neither stored nor deflated"):
        read_artifact(other)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """Opening a pipe would wait for whoever writes into it."""
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "model.kiln"
        os.mkfifo(path)
    with pytest.raises(ArtifactError, match="is neither a file nor a folder"):
        load(path)


# ---- the manifest ------------------------------------------------------------------------------


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "newer schema": (lambda m: m.update(schema=2), "artifact schema 2, .*: upgrade graphkiln"),
    "schema type": (lambda m: m.update(schema="1"), "'schema' must be a int, it is a str"),
    "schema bool": (lambda m: m.update(schema=True), "'schema' must be a int, it is a bool"),
    "no target": (lambda m: m.pop("target"), "'target' must be a dict, it is missing"),
    "features": (lambda m: m["target"].update(features=[1]), "'features' must hold strings"),
    "inputs": (lambda m: m.update(inputs={}), "'inputs' must be a list"),
    "an input": (lambda m: m.update(inputs=[3]), r"inputs\[0\]: not a JSON object"),
    "twins": (lambda m: m.update(inputs=m["inputs"] * 2), "two values have the same name"),
    "kind": (lambda m: m["inputs"][0].update(kind="map"), "unknown kind 'map'"),
    "dtype": (lambda m: m["inputs"][0].update(dtype="float7"), "unknown element type 'float7'"),
    "keys": (lambda m: m["outputs"][0].update(keys=[1, "a"]), "'keys' must be a list of ints or"),
    "too many keys": (lambda m: m["outputs"][0].update(keys=[*range(77)]), "77 keys do not fit"),
    "dim": (lambda m: m["inputs"][0].update(shape=[-1]), "-1 is not a dimension"),
    "dim bool": (lambda m: m["inputs"][0].update(shape=[True]), "True is not a dimension"),
    "elem": (lambda m: m["inputs"][0].update(kind="sequence"), "elem: not a JSON object"),
    "offset": (lambda m: m["weights"][1].update(offset=1 << 40), "lies outside weights.bin"),
    "negative": (lambda m: m["weights"][1].update(offset=-64), "'offset' is out of range"),
    "unaligned": (lambda m: m["weights"][1].update(offset=8), "not aligned"),
    "nbytes": (lambda m: m["weights"][1].update(nbytes=7), "'nbytes' is 7, the shape needs 6"),
    "huge shape": (lambda m: m["weights"][1].update(shape=[1 << 61] * 4), "the shape needs"),
    "weight dtype": (lambda m: m["weights"][0].update(dtype="string"), "unknown element type"),
    "files": (lambda m: m["files"].update({"../x": {}}), "unknown member '../x'"),
    "hash": (lambda m: m["files"]["ir.txt"].update(sha256="abc"), "not a SHA-256"),
    "size": (lambda m: m["files"]["ir.txt"].update(size=3), "ir.txt has 9 bytes instead of 3"),
    "algorithm": (
        lambda m: m["weights_checksum"].update(algorithm="md5"),
        "unknown algorithm 'md5': upgrade graphkiln",
    ),
    "hosts": (lambda m: m.update(host_functions="Unique"), "'host_functions' must be a list"),
    "other inputs": (lambda m: m.update(inputs=[]), "library.so was compiled for another manifest"),
    "other sizes": (lambda m: m["inputs"][0].update(shape=["N", 4]), "for another manifest"),
    "swapped weights": (lambda m: m["weights"].reverse(), "for another manifest"),
    "no features": (lambda m: m["target"].update(features=["sse9"]), "for another manifest"),
    "rank": (lambda m: m["weights"][0].update(shape=[1] * 65), "more than 64 dimensions"),
    "input rank": (lambda m: m["inputs"][0].update(shape=[1] * 65), "more than 64 dimensions"),
    "escapes": (lambda m: m["inputs"][0].update(dtype="\x1b[2J"), r"element type '\\x1b\[2J'"),
    "novel": (lambda m: m["inputs"][0].update(dtype="x" * 100_000), r"type 'x{3,300} \.\.\. x+'"),
    "library": (
        lambda m: m["files"]["library.so"].update(sha256="0" * 64),
        "library.so does not match its SHA-256",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_manifests_are_validated(tmp_path: Path, name: str) -> None:
    change, message = FORGERIES[name]
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path, folder=True)
    rewrite(path, change)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_artifact(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1_000


@pytest.mark.parametrize("text", ["[]", "{", "nul", "[" * 100_000, '{"a": 1}', "\ud800"])
def test_manifests_that_are_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path, folder=True)
    (path / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ArtifactError):
        read_artifact(path)


def test_random_manifests_never_surprise(tmp_path: Path) -> None:
    """Any value anywhere is either fine or an ArtifactError."""
    path = tmp_path / "model.kiln"
    write_artifact(contents(), path, folder=True)
    original = (path / "manifest.json").read_bytes()
    rng = random.Random(3)
    odd = [None, -1, 1.5, True, "", "x", [], {}, [[]], {"a": 1}, 1 << 80, "0" * 64]

    def corrupt(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], (dict, list)) and rng.random() < 0.7:
            corrupt(node[key])
        else:
            node[key] = rng.choice(odd)

    for _ in range(300):
        (path / "manifest.json").write_bytes(original)
        rewrite(path, corrupt)
        try:
            read_artifact(path)
        except ArtifactError:
            continue


# ---- the machine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"arch": "riscv64"}, "was compiled for riscv64, this machine is .*: compile the model"),
        ({"triple": "x86_64-pc-windows-msvc"}, "was compiled for windows .*, this is linux"),
        ({"features": ["avx512f", "warp_drive"]}, "lacks .*warp_drive.*older one than 'cpu'"),
        ({"kind": "abacus"}, "unknown target kind 'abacus'"),
    ],
)
def test_other_machines_artifacts_are_refused(
    tmp_path: Path, target: dict[str, Any], message: str
) -> None:
    made = contents()
    made.manifest["target"].update(target)
    write_artifact(made, tmp_path / "model.kiln")
    read_artifact(tmp_path / "model.kiln")
    with pytest.raises(ArtifactError, match=message) as caught:
        load(tmp_path / "model.kiln")
    assert str(caught.value).startswith(f"{tmp_path / 'model.kiln'}: ")


def test_a_model_for_a_gpu_where_there_is_none(models: Any, tmp_path: Path) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU here")
    made = contents()
    made.manifest["target"]["kind"] = "cuda"
    write_artifact(made, tmp_path / "model.kiln")
    with pytest.raises(ArtifactError, match="was compiled for CUDA, "):
        load(tmp_path / "model.kiln")


def test_a_library_that_is_none(tmp_path: Path) -> None:
    for folder in (False, True):
        path = tmp_path / f"{folder}.kiln"
        write_artifact(contents(), path, folder)
        with pytest.raises(ArtifactError, match="library cannot be loaded"):
            load(path)


def test_a_host_function_that_is_not_there(tmp_path: Path) -> None:
    write_artifact(contents(host_functions=["Teleport"]), tmp_path / "model.kiln")
    with pytest.raises(ArtifactError, match="needs the host function 'Teleport'"):
        load(tmp_path / "model.kiln")


def test_a_wrong_number_of_threads(models: Any) -> None:
    for threads in (0, -1, 1.5, "2", 10**6, True):
        with pytest.raises(InputError, match="threads must be a whole number from 1"):
            load(models.path("square"), threads=threads)


def test_folders_load_and_run(models: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(models.path("square")) as archive:
        archive.extractall(tmp_path / "square")
    x = np.ones(64, np.float32)
    (y,) = load(tmp_path / "square").run(None, {"x": x})
    np.testing.assert_array_equal(y, (x + np.arange(64)) ** 2)


# ---- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", range(1, 6))
def test_a_failed_write_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: bool,
    error: BaseException,
    call: int,
) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents([]), path, folder)
    before = read_artifact(path)
    calls = 0

    def copy(data: Any, file: Any) -> None:
        nonlocal calls
        calls += 1
        file.write(b"half")
        if calls == call:
            raise error
        original(data, file)

    original = writer._copy
    monkeypatch.setattr(writer, "_copy", copy)
    kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ArtifactWriteError
    with pytest.raises(kind) as caught:
        write_artifact(contents(), path, folder)
    if kind is ArtifactWriteError:
        assert "No space left on device" in str(caught.value)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.kiln"]
    assert read_artifact(path).manifest.raw == before.manifest.raw


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactWriteError, match=r".*cannot write it: No such file or directory"):
        write_artifact(contents(), tmp_path / "nowhere" / "model.kiln")


def test_writing_replaces(tmp_path: Path) -> None:
    for folder in (False, True):
        path = tmp_path / f"{folder}.kiln"
        write_artifact(contents([]), path, folder)
        write_artifact(contents(), path, folder)
        assert len(read_artifact(path).manifest.weights) == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["False.kiln", "True.kiln"]


def test_writing_never_replaces_something_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "precious").touch()
    for form in (False, True):
        with pytest.raises(ArtifactWriteError, match="cannot write"):
            write_artifact(contents(), folder, form)
    assert (folder / "precious").exists()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ArtifactWriteError, match="is no artifact folder"):
        write_artifact(contents(), file, folder=True)


@pytest.mark.slow
def test_more_than_four_gigabytes(tmp_path: Path) -> None:
    weights = [("w", np.zeros((1 << 30) + 100, np.float32)), ("last", np.arange(3))]
    write_artifact(contents(weights), tmp_path / "model.kiln")
    artifact = read_artifact(tmp_path / "model.kiln")
    assert artifact.weight(artifact.manifest.weights[1]).tolist() == [0, 1, 2]
    assert artifact.weights.ctypes.data % 4096 == 0
