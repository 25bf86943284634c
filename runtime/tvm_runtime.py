"""TVM's runtime libraries and ``tvm_ffi``, without TVM's compiler.

``import tvm`` costs a second and maps the whole compiler. What a compiled model needs is
``tvm_ffi`` and two small libraries that lie in the tvm package's ``lib`` folder, which is found
without importing the package.
"""

from __future__ import annotations

import ctypes
import os
import threading
from importlib.util import find_spec
from typing import Any

from .errors import ArtifactError, first_line

_LIBRARIES = ("libtvm_runtime.so", "libtvm_runtime_extra.so")
_CUDA_LIBRARY = "libtvm_runtime_cuda.so"
_lock = threading.Lock()
_handles: dict[str, ctypes.CDLL] = {}


def load_libraries(cuda: bool) -> None:
    """Loads TVM's runtime into this process, once. Raises ArtifactError where it is missing."""
    with _lock:
        for name in (*_LIBRARIES, *((_CUDA_LIBRARY,) if cuda else ())):
            if name not in _handles:
                _handles[name] = _load(os.path.join(_library_folder(), name))


def global_function(name: str) -> Any:
    """A function of TVM's registry."""
    import tvm_ffi

    return tvm_ffi.get_global_func(name)


def _library_folder() -> str:
    spec = find_spec("tvm")
    if spec is None or spec.origin is None:
        raise ArtifactError("TVM's runtime is not installed: install apache-tvm")
    return os.path.join(os.path.dirname(spec.origin), "lib")


def _load(path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    except OSError as error:
        reason = first_line(error)
    if path.endswith(_CUDA_LIBRARY):
        raise ArtifactError(f"was compiled for CUDA, which this machine lacks ({reason})")
    raise ArtifactError(f"TVM's runtime cannot be loaded ({reason}): install apache-tvm again")
