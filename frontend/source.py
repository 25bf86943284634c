"""The source of a model: the file, its bytes, and its external data."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError

from ..errors import InputError
from .errors import Blocker, FrontendError, ImportFault
from .wire import WireError, slim

ModelLike: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"

_MAP_FROM = 1 << 24
_PROTOBUF_LIMIT = (1 << 31) - 1
_CHUNK = 1 << 24


@dataclass
class Source:
    """An opened model.

    ``data`` are the file's bytes if the weights are read in place (see :mod:`.wire`), and ``files``
    the external data files used so far, by location.
    """

    name: str
    proto: onnx.ModelProto
    path: Path | None = None
    data: memoryview | None = None
    files: dict[str, memoryview] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the model's bytes and of the external files it uses."""
        sha = hashlib.sha256()
        if self.data is not None:
            _update(sha.update, self.data)
        else:
            _update_proto(sha.update, self.proto)
        for location in sorted(self.files):
            sha.update(location.encode("utf-8", "surrogatepass"))
            _update(sha.update, self.files[location])
        return sha.hexdigest()


def open_model(model: ModelLike) -> Source:
    """Read a model from a path, from bytes, or as a ``ModelProto``.

    Raises :class:`FrontendError` where there is no readable model, InputError for something else.
    """
    if isinstance(model, onnx.ModelProto):
        return Source("<model>", model)
    if not isinstance(model, (bytes, str, os.PathLike)):
        kind = type(model).__name__
        raise InputError(f"a model is a path, bytes or an onnx.ModelProto, not a {kind}")
    name = "<bytes>" if isinstance(model, bytes) else os.fsdecode(model)
    try:
        if isinstance(model, bytes):
            data, path = memoryview(model), None
        else:
            path = Path(name)
            data = map_file(path)
        return Source(name, _parse(data), path, data)
    except ImportFault as e:
        raise FrontendError(name, [Blocker(str(e))]) from e


def map_file(path: Path) -> memoryview:
    """A regular file's bytes, memory-mapped if it is large; raises :class:`ImportFault`."""
    try:
        # This is tested first, since opening a pipe or device could block.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImportFault("is not a regular file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _MAP_FROM:
                return memoryview(file.read())
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise ImportFault(f"cannot be read: {reason}") from e


def _parse(data: memoryview) -> onnx.ModelProto:
    if not len(data):
        raise ImportFault("is empty")
    try:
        small = slim(data)
        if len(small) > _PROTOBUF_LIMIT:
            raise ImportFault("is over 2 GiB even without its weights")
        proto = onnx.ModelProto()
        proto.ParseFromString(small)
        return proto
    except (WireError, DecodeError) as e:
        raise ImportFault(f"is not an ONNX model, or is damaged: {e}") from e


def _update(update: Callable[[Any], object], data: memoryview) -> None:
    for start in range(0, len(data), _CHUNK):
        update(data[start : start + _CHUNK])


def _update_proto(update: Callable[[Any], object], proto: onnx.ModelProto) -> None:
    try:
        update(proto.SerializeToString(deterministic=True))
    except (EncodeError, ValueError):
        # Over 2 GiB a message cannot be serialised as a whole, but its parts can.
        for part in (*proto.graph.initializer, *proto.graph.node, *proto.functions):
            update(part.SerializeToString(deterministic=True))
