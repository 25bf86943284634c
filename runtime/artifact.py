"""Opens an artifact and checks everything that can be checked before any of its code runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..contract import (
    IR_TEXT,
    LIBRARY,
    MANIFEST,
    MEMBERS,
    REPORT,
    WEIGHTS,
    interface_digest,
)
from .checksum import ALGORITHMS, weights_digest
from .compact import expanded
from .compatibility import check_target
from .container import Container, open_container, refuse_stranger
from .dtypes import STORAGE
from .errors import ArtifactError, InputError, printable
from .manifest import FileSpec, Manifest, WeightSpec, parse_manifest

_MAX_MANIFEST = 64 << 20
_DAMAGED = "the file is damaged, copy it again or compile the model again"


class LoadedArtifact(NamedTuple):
    """A checked artifact. ``weights`` is the mapping of the whole of ``weights.bin``, or a copy of
    all weights where that holds some of them without their zeros.

    ``members`` are the contents of further members, for devices to read.
    """

    path: str
    manifest: Manifest
    library: bytes
    ir_text: str
    report: bytes
    weights: np.ndarray
    members: Mapping[str, bytes] = MappingProxyType({})

    def weight(self, spec: WeightSpec) -> np.ndarray:
        """One weight in storage dtype, a view of ``weights``."""
        return weight_of(self.weights, spec)


def weight_of(blob: np.ndarray, spec: WeightSpec) -> np.ndarray:
    """One weight in storage dtype, a view of all of them."""
    data = blob[spec.offset : spec.offset + spec.nbytes]
    return data.view(STORAGE[spec.dtype]).reshape(spec.shape)


def read_artifact(path: str | os.PathLike[str], *, full: bool = False) -> LoadedArtifact:
    """Reads and checks a ``.kiln`` file or folder, whatever machine it was compiled for.

    Checked are the members, the manifest, every size, the SHA-256 of every member but the
    weights, and the weights' fast checksum; with ``full`` their SHA-256 as well. Raises
    ArtifactError, one line that starts with the path, and InputError for what is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"an artifact's path is a str or a path, not a {type(path).__name__}")
    text = os.fsdecode(path)
    try:
        return _read(text, full)
    except ArtifactError as error:
        raise ArtifactError(printable(error.reason), file=text) from None


def load_artifact(path: str | os.PathLike[str]) -> LoadedArtifact:
    """`read_artifact`, and the artifact must have been compiled for a machine like this one."""
    artifact = read_artifact(path)
    try:
        check_target(artifact.manifest.target)
    except ArtifactError as error:
        raise ArtifactError(printable(error.reason), file=artifact.path) from None
    return artifact


def _read(path: str, full: bool) -> LoadedArtifact:
    container = open_container(path)
    try:
        if container.size(MANIFEST) > _MAX_MANIFEST:
            raise ArtifactError(f"manifest.json is too large: {_DAMAGED}")
        manifest = parse_manifest(container.read(MANIFEST))
        _check_further(container, manifest)
        for member in MEMBERS:
            _check_size(container, member, manifest.files[member])
        weights = container.map_weights()
        _check_weights(weights, manifest, full)
        if manifest.expanded is not None:
            weights = expanded(weights, manifest.weights, manifest.expanded)
        library = _member(container, LIBRARY, manifest.files[LIBRARY])
        if not library.endswith(interface_digest(manifest.raw)):
            raise ArtifactError(f"library.so was compiled for another manifest: {_DAMAGED}")
        return LoadedArtifact(
            path=path,
            manifest=manifest,
            library=library,
            ir_text=_member(container, IR_TEXT, manifest.files[IR_TEXT]).decode(),
            report=_member(container, REPORT, manifest.files[REPORT]),
            weights=weights,
            members={n: _member(container, n, m.file) for n, m in manifest.members.items()},
        )
    except UnicodeDecodeError:
        raise ArtifactError(f"ir.txt is not UTF-8: {_DAMAGED}") from None
    finally:
        container.close()


def _check_further(container: Container, manifest: Manifest) -> None:
    """Members that targets added: all that the manifest lists, and no others."""
    for name in container.further:
        if name not in manifest.members:
            refuse_stranger(name)
    for name, member in manifest.members.items():
        if name not in container.further:
            raise ArtifactError(f"lacks the member {name!r}: {_DAMAGED}")
        _check_size(container, name, member.file)


def _check_size(container: Container, member: str, file: FileSpec) -> None:
    found = container.size(member)
    if found != file.size:
        raise ArtifactError(f"{member} has {found} bytes instead of {file.size}: {_DAMAGED}")


def _member(container: Container, member: str, file: FileSpec) -> bytes:
    data = container.read(member)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ArtifactError(f"{member} does not match its SHA-256: {_DAMAGED}")
    return data


def _check_weights(weights: np.ndarray, manifest: Manifest, full: bool) -> None:
    algorithm, digest = manifest.checksum
    if algorithm not in ALGORITHMS:
        raise ArtifactError(f"weights_checksum: unknown algorithm {algorithm!r}: upgrade graphkiln")
    if len(weights) % 8:
        raise ArtifactError(f"weights.bin has an odd size: {_DAMAGED}")
    threads = len(os.sched_getaffinity(0))
    same = weights_digest(weights, algorithm, threads) == digest
    if same and full:
        same = hashlib.sha256(weights.data).hexdigest() == manifest.files[WEIGHTS].sha256
    if not same:
        raise ArtifactError(f"weights.bin does not match its checksum: {_DAMAGED}")
