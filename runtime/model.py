"""A model's code and weights in this process, from which instances that run it are made."""

from __future__ import annotations

from typing import Any

from ..contract import LIBRARY
from . import guard, host
from .artifact import LoadedArtifact, weight_of
from .devices import Devices
from .direct import Direct, NativeCode
from .errors import ArtifactError, first_line
from .instance import Instance
from .library import load_library
from .manifest import NativeSpec
from .tvm_runtime import load_libraries
from .values import tensor_from_storage


class Model:
    """Loads the artifact's library. All threads of a session share it.

    It does not change once it is made, but for the tensors of the weights, which are added when a
    virtual machine first needs them.

    Raises ArtifactError where the library cannot be loaded or lacks a function that it should have.
    """

    def __init__(self, artifact: LoadedArtifact) -> None:
        manifest = artifact.manifest
        self._path = artifact.path
        self._inputs, self._outputs = manifest.inputs, manifest.outputs
        self._blob = artifact.weights
        try:
            self.devices = Devices(manifest)
            load_libraries(cuda=False)
            if guard.ACTIVE is not None and not self.devices.names:
                guard.ACTIVE.replace_allocators()
            self.devices.require()
            host.register(manifest.host_functions)
            digest = manifest.files[LIBRARY].sha256
            self._library = load_library(artifact.library, digest)
            self.devices.attach(self._library, artifact.members)
        except ArtifactError as error:
            raise ArtifactError(error.reason, file=artifact.path) from error
        self._polls = manifest.polls
        self._weight_specs = manifest.weights
        self._weights: Any = None
        self._native = self._native_code(manifest.native)

    def instance(self) -> Direct | Instance:
        """A new instance with buffers of its own: native code where there is some, else a virtual
        machine.
        """
        if self._native is None:
            return self.machine()[1]
        try:
            return Direct(self._native, self._inputs, self._outputs, self._polls)
        except (RuntimeError, AttributeError, ValueError) as error:
            raise self._unusable(error) from error

    def machine(self) -> tuple[Any, Instance]:
        """A new virtual machine, on which every model can run, and the instance that feeds it."""
        try:
            if self._weights is None:
                arrays = [weight_of(self._blob, spec) for spec in self._weight_specs]
                self._weights = self.devices.keep(
                    [tensor_from_storage(array) for array in arrays],
                    [spec.space for spec in self._weight_specs],
                )
            machine = self._library["vm_load_executable"]()
            machine["vm_initialization"](*self.devices.machine)
            main = machine["main"]
        except (RuntimeError, AttributeError, ValueError) as error:
            raise self._unusable(error) from error
        low = self._blob.ctypes.data
        high = low + self._blob.nbytes
        return machine, Instance(
            main, self._inputs, self._outputs, self._weights, low, high, self._polls
        )

    def _native_code(self, spec: NativeSpec | None) -> NativeCode | None:
        if spec is None:
            return None
        words, fixups = weight_of(self._blob, spec.words), weight_of(self._blob, spec.fixups)
        if fixups.size and not 0 <= fixups.min() <= fixups.max() < len(words):
            raise ArtifactError("native code with fixups outside of its frame", file=self._path)
        try:
            return NativeCode(self._library, words, fixups, self._blob, spec.stop)
        except AttributeError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: BaseException) -> ArtifactError:
        reason = f"the compiled model cannot be started ({first_line(error)})"
        return ArtifactError(reason, file=self._path)
