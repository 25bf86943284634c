"""Where a model's tensors live: in the CPU's memory, or on a GPU that feeds and results cross to.

A GPU's artifact takes and gives GPU tensors; the weights cross once, when the session is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..contract import CUDA_MODULES, split_texts
from .errors import ArtifactError, first_line
from .tvm_runtime import global_function
from .values import items, tvm_ffi

_CPU, _CUDA = 1, 2
_POOLED = 2
_EXISTS = 0
_CUDA_LOADER = "ffi.Module.load_from_bytes.cuda"

Main = Callable[..., Any]


class Place(NamedTuple):
    """``devices`` are the arguments of ``vm_initialization``: (type, id, allocator) of each."""

    cuda: bool
    devices: tuple[int, ...]

    def require(self) -> None:
        """Raises ArtifactError where the device is absent."""
        if self.cuda and not global_function("runtime.GetDeviceAttr")(_CUDA, 0, _EXISTS):
            raise ArtifactError("was compiled for CUDA, and this machine has no usable GPU")

    def bring(self, library: Any, members: Mapping[str, bytes], kinds: Mapping[str, str]) -> None:
        """Device code that lies in members of the artifact, where the library looks for it.

        ``kinds`` are the members' kinds. Raises ArtifactError for one that is damaged.
        """
        for name, kind in kinds.items():
            if kind == CUDA_MODULES:
                try:
                    for module in split_texts(members[name]):
                        library.import_module(global_function(_CUDA_LOADER)(module))
                except (RuntimeError, ValueError) as error:
                    raise ArtifactError(f"{name} cannot be loaded ({first_line(error)})") from None

    def keep(self, weights: Sequence[Any]) -> Any:
        """The weights as the one array that every run passes to ``main``."""
        if self.cuda:
            return tvm_ffi.Array([_moved(weight, _CUDA) for weight in weights])
        return tvm_ffi.Array(weights)

    def wrap(self, main: Main) -> Main:
        """``main`` as a function of values in the CPU's memory."""
        if not self.cuda:
            return main

        def across(arguments: tuple[Any, ...], weights: Any) -> Any:
            results = main(tuple(_moved(value, _CUDA) for value in arguments), weights)
            return _moved(results, _CPU)

        return across


def place_for(kind: str) -> Place:
    """The place of a target kind. Raises ArtifactError for one that this runtime does not know."""
    if kind == "cuda":
        return Place(True, (_CUDA, 0, _POOLED, _CPU, 0, _POOLED))
    if kind in ("cpu", "llvm", "c"):
        return Place(False, (_CPU, 0, _POOLED))
    raise ArtifactError(f"was compiled for the unknown target kind {kind!r}: upgrade graphkiln")


def _moved(value: Any, device: int) -> Any:
    if isinstance(value, tvm_ffi.Tensor):
        return global_function("vm.builtin.to_device")(value, device, 0)
    if isinstance(value, tvm_ffi.Array):
        return tvm_ffi.Array([_moved(item, device) for item in items(value)])
    return value
