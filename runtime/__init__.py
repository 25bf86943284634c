"""Loads and runs compiled artifacts.

Needs NumPy, `tvm_ffi` and TVM's small runtime libraries; imports neither TVM's compiler nor onnx.
"""

from __future__ import annotations

from .artifact import LoadedArtifact, read_artifact
from .devices import Device, register_device
from .errors import ArtifactError, ExecutionError, GraphkilnError, InputError
from .host import host_function
from .session import NodeArg, Session, load, verify

__all__ = [
    "ArtifactError",
    "Device",
    "ExecutionError",
    "GraphkilnError",
    "InputError",
    "LoadedArtifact",
    "NodeArg",
    "Session",
    "host_function",
    "load",
    "read_artifact",
    "register_device",
    "verify",
]
