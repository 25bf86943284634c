"""Further members of artifacts: what targets add is listed, hashed and read like the rest."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from graphkiln.codegen.artifact import (
    ArtifactContents,
    ArtifactWriteError,
    _json,
    _sealed,
    write_artifact,
)
from graphkiln.contract import MOST_MEMBERS, join_texts, split_texts
from graphkiln.runtime import (
    ArtifactError,
    Device,
    devices,
    read_artifact,
    register_device,
    verify,
)
from graphkiln.runtime.devices import Devices
from graphkiln.runtime.manifest import FileSpec, Manifest, MemberSpec, parse_manifest
from graphkiln.targets.base import Member

TABLES = {"tables.bin": Member("mirror.tables", b"\1\2\3"), "empty": Member("mirror.x.y", b"")}


MANIFEST: dict[str, Any] = {
    "producer": {"graphkiln": "0.1.0"}, "provenance": {}, "inputs": [], "outputs": [],
    "target": {"kind": "cpu", "name": "cpu", "triple": "", "arch": "", "features": []},
}  # fmt: skip


def contents(members: Mapping[str, Member]) -> ArtifactContents:
    return ArtifactContents(MANIFEST, b"\x7fELF library", [], "", {}, members)


@pytest.fixture(params=[False, True], ids=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    where = tmp_path / "model.kiln"
    write_artifact(contents(TABLES), where, folder=request.param)
    return where


def test_members_are_read_as_written(path: Path) -> None:
    artifact = read_artifact(path, full=True)
    assert dict(artifact.members) == {"tables.bin": b"\1\2\3", "empty": b""}
    assert artifact.manifest.members["tables.bin"] == MemberSpec(
        "mirror.tables",
        FileSpec("039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81", 3),
    )
    verify(path)


def test_without_members_the_manifest_says_nothing_of_them(tmp_path: Path) -> None:
    write_artifact(contents({}), tmp_path / "model.kiln")
    artifact = read_artifact(tmp_path / "model.kiln")
    assert "members" not in artifact.manifest.raw and not artifact.members


@pytest.mark.parametrize("name", [
    "../tables", "a/b", "/etc/passwd", ".hidden", "", "Tables", "library.so", "manifest.json",
    "x" * 65, "a\nb",
])  # fmt: skip
def test_names_that_no_member_may_have(name: str) -> None:
    with pytest.raises(ArtifactWriteError, match="is no name for a further member"):
        contents({name: Member("mirror.tables", b"")})


@pytest.mark.parametrize("kind", ["tables", "", ".tables", "mirror.", "Mirror.tables", "a b.c"])
def test_kinds_that_no_member_may_have(kind: str) -> None:
    with pytest.raises(ArtifactWriteError, match=r"the kind of the member 'a' is a device and"):
        contents({"a": Member(kind, b"")})


def test_too_many_members() -> None:
    many = {f"m{i}": Member("mirror.tables", b"") for i in range(MOST_MEMBERS + 1)}
    with pytest.raises(ArtifactWriteError, match="at most 64"):
        contents(many)


def test_a_changed_member_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_artifact(contents(TABLES), folder, folder=True)
    (folder / "tables.bin").write_bytes(b"\1\2\4")
    with pytest.raises(ArtifactError, match=r"tables\.bin does not match its SHA-256"):
        read_artifact(folder)
    (folder / "tables.bin").write_bytes(b"\1\2")
    with pytest.raises(ArtifactError, match=r"tables\.bin has 2 bytes instead of 3"):
        read_artifact(folder)
    (folder / "tables.bin").unlink()
    with pytest.raises(ArtifactError, match=r"lacks the member 'tables\.bin'"):
        read_artifact(folder)


@pytest.mark.parametrize("name", ["more.bin", "../more", "Upper"])
def test_members_that_the_manifest_does_not_list(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.kiln"
    write_artifact(contents(TABLES), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(ArtifactError, match="holds a member that does not belong there: "):
        read_artifact(path)


def test_the_library_goes_with_its_members(tmp_path: Path) -> None:
    """Tables of another compilation, with a manifest that was made to fit, are refused."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    write_artifact(contents(TABLES), ours, folder=True)
    write_artifact(contents({"tables.bin": Member("mirror.tables", b"\7\7\7")}), other, True)
    for name in ("manifest.json", "tables.bin"):
        (ours / name).write_bytes((other / name).read_bytes())
    (ours / "empty").unlink()
    with pytest.raises(ArtifactError, match=r"library\.so does not match its SHA-256"):
        read_artifact(ours)
    (ours / "library.so").write_bytes((other / "library.so").read_bytes())
    assert read_artifact(ours).members["tables.bin"] == b"\7\7\7"


def reread(changes: dict[str, Any], folder: Path) -> Manifest:
    """The manifest of an artifact with other fields, and a hash that fits them."""
    write_artifact(contents({}), folder / "model", folder=True)
    raw = json.loads((folder / "model" / "manifest.json").read_bytes())
    raw |= {**changes, "self_sha256": "0" * 64}
    return parse_manifest(_sealed(_json(raw)))


ENTRY = {"kind": "mirror.tables", "sha256": "0" * 64, "size": 3}


@pytest.mark.parametrize(("members", "message"), [
    ([], "'members' must be a dict"),
    ({"../x": ENTRY}, "'../x' is no name of a member"),
    ({"ir.txt": ENTRY}, "'ir.txt' is no name of a member"),
    ({"x": 1}, "'x' must be a dict"),
    ({"x": {**ENTRY, "kind": "tables"}}, "'tables' is no kind of a member"),
    ({"x": {**ENTRY, "size": -1}}, "'size' is out of range"),
    ({"x": {**ENTRY, "sha256": "z"}}, "not a SHA-256"),
    ({f"m{i}": ENTRY for i in range(65)}, "members: more than 64"),
])  # fmt: skip
def test_manifests_of_members_are_validated(tmp_path: Path, members: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        reread({"members": members}, tmp_path)


# ---- devices and memory spaces -------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "message"), [
    ({"devices": "a"}, "'devices' must be a list"),
    ({"devices": [1]}, "'devices' must hold strings"),
    ({"devices": ["a", "a"]}, "'devices' must hold different names"),
    ({"devices": ["cpu"]}, "'devices' must hold different names"),
    ({"devices": ["a"], "spaces": ["cpu"]}, "'spaces' must hold different names"),
    ({"devices": [f"d{i}" for i in range(65)]}, "'devices' must hold different names"),
    ({"devices": ["a"], "spaces": ["b"]}, "spaces: 'b' is none of the devices"),
    ({"weights": [{"name": "w", "dtype": "int8", "shape": [0], "offset": 0, "nbytes": 0,
                   "space": "a"}]}, "weights: 'a' is none of the spaces"),
])  # fmt: skip
def test_manifests_of_devices_are_validated(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        reread(changes, tmp_path)


def test_artifacts_of_older_versions_name_the_device_as_their_kind(tmp_path: Path) -> None:
    class Old(Device):
        name = "old"

    target = {**MANIFEST["target"], "kind": "old"}
    manifest = reread({"target": target}, tmp_path)
    assert manifest.devices == ("old",) and manifest.spaces == ()
    with pytest.raises(ArtifactError, match="unknown target kind 'old'"):
        Devices(manifest)
    register_device(Old())
    try:
        with pytest.raises(ArtifactError, match="by an older graphkiln: compile the model again"):
            Devices(manifest).require()
        Devices(reread({"target": target, "devices": ["old"]}, tmp_path)).require()
    finally:
        del devices._registered["old"]


def test_joined_contents() -> None:
    parts = [b"a", b"", b"bc" * 1000]
    assert split_texts(join_texts(parts)) == parts and split_texts(b"") == []
    for cut in (1, 7, 12, len(join_texts(parts)) - 1):
        with pytest.raises(ValueError, match="cut off"):
            split_texts(join_texts(parts)[:cut])
