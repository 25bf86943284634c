"""Further members of artifacts: what targets add is listed, hashed and read like the rest."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from graphkiln.codegen.artifact import ArtifactContents, ArtifactWriteError, write_artifact
from graphkiln.contract import MOST_MEMBERS
from graphkiln.runtime import ArtifactError, read_artifact, verify
from graphkiln.runtime.manifest import FileSpec, MemberSpec, parse_manifest
from graphkiln.targets.base import Member

TABLES = {"tables.bin": Member("mirror.tables", b"\1\2\3"), "empty": Member("mirror.x.y", b"")}


MANIFEST = {
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
    from graphkiln.codegen.artifact import _json, _sealed

    write_artifact(contents({}), tmp_path / "model", folder=True)
    raw = json.loads((tmp_path / "model" / "manifest.json").read_bytes())
    raw |= {"members": members, "self_sha256": "0" * 64}
    with pytest.raises(ArtifactError, match=message):
        parse_manifest(_sealed(_json(raw)))
