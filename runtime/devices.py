"""The devices that models run on, and whose memory their tensors are in.

The host, a CPU, runs every program: it allocates memory of all spaces by their number, copies
between them, and launches kernels. What it needs to know of another device is a :class:`Device`,
which is either built in, brought by a plugin (an entry point in the group ``graphkiln.devices``),
or registered by :func:`register_device`.

Memory is TVM's to allocate: a device names a type and a number of DLPack's that TVM's runtime, or a
library that the device loads, has an allocator for. One whose kernels the host's cores emulate may
take a number of its own of the CPU's type.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from ..contract import CUDA_MODULES, HOST, split_texts
from .errors import ArtifactError, first_line
from .manifest import Manifest
from .tvm_runtime import global_function, load_libraries
from .values import tvm_ffi

GROUP = "graphkiln.devices"
"""The group of entry points; each gives a :class:`Device`, or a class of one."""

CPU_MEMORY, CUDA_MEMORY = (1, 0), (2, 0)
_POOLED = 2
_EXISTS = 0
_CUDA_LOADER = "ffi.Module.load_from_bytes.cuda"
_CODE = "library"


class Device:
    """A device beside the host; plugins inherit from this.

    ``name`` is what targets call it, ``memory`` the type and number that DLPack has for its memory
    space, and ``member_kinds`` are the kinds of artifacts' members that :meth:`attach` reads.
    """

    name: str
    memory: tuple[int, int] = CPU_MEMORY
    member_kinds: frozenset[str] = frozenset()

    def require(self) -> None:
        """Make the device ready for use; raises :class:`ArtifactError` where it is absent."""

    def attach(self, library: Any, members: Mapping[str, bytes]) -> None:
        """Take the ``members`` of its kinds, by name, of a model that is being loaded.

        ``library`` is the model's code, a module of tvm_ffi's: its kernels find functions of other
        modules among what it imports. It is the same for all sessions of a model. Raises
        :class:`ArtifactError` for members that it cannot use.
        """


class CudaDevice(Device):
    """The first GPU."""

    name = "cuda"
    memory = CUDA_MEMORY
    member_kinds = frozenset({CUDA_MODULES})

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._complete: set[Any] = set()

    def require(self) -> None:
        load_libraries(cuda=True)
        if not global_function("runtime.GetDeviceAttr")(*CUDA_MEMORY, _EXISTS):
            raise ArtifactError("was compiled for CUDA, and this machine has no usable GPU")

    def attach(self, library: Any, members: Mapping[str, bytes]) -> None:
        with self._lock:
            if library in self._complete:
                return
            for name, content in members.items():
                try:
                    modules = list(map(global_function(_CUDA_LOADER), split_texts(content)))
                except (RuntimeError, ValueError) as error:
                    raise ArtifactError(f"{name} cannot be loaded ({first_line(error)})") from None
                for module in modules:
                    library.import_module(module)
            self._complete.add(library)


_registered: dict[str, Device] = {}


def register_device(device: Device) -> None:
    """Make a device known to this process, instead of another one of its name.

    Raises ValueError for the host's name.
    """
    if device.name == HOST:
        raise ValueError(f"{HOST!r} is the host")
    _registered[device.name] = device


def find_device(name: str) -> Device:
    """The device called ``name``; raises :class:`ArtifactError` where nothing here knows it."""
    if name not in _registered:
        for found in entry_points(group=GROUP, name=name):
            made = found.load()
            register_device(made() if isinstance(made, type) else made)
    try:
        return _registered[name]
    except KeyError:
        raise ArtifactError(
            f"was compiled for the device {name!r}, which nothing here knows: install the plugin"
            " that brings it"
        ) from None


class Devices:
    """What a model needs beside the host: ``names`` of devices, and ``spaces``, memory of some."""

    def __init__(self, manifest: Manifest) -> None:
        """Raises ArtifactError for devices and kinds of members that nothing here knows."""
        self.names = manifest.devices
        self._outdated = bool(self.names) and "devices" not in manifest.raw
        self._devices = {name: self._find(name) for name in manifest.devices}
        self._spaces = {space: self._devices[space].memory for space in manifest.spaces}
        self._members: dict[str, list[str]] = {}
        for name, member in manifest.members.items():
            self._owner(name, member.kind)

    def _find(self, name: str) -> Device:
        try:
            return find_device(name)
        except ArtifactError:
            if self._outdated:
                raise ArtifactError(
                    f"was compiled for the unknown target kind {name!r}: upgrade graphkiln"
                ) from None
            raise

    def _owner(self, member: str, kind: str) -> None:
        """Note who reads a member."""
        owner = kind.partition(".")[0]
        device = self._devices.setdefault(owner, find_device(owner))
        if kind not in device.member_kinds:
            raise ArtifactError(
                f"holds {member!r}, a member of kind {kind!r}, which the device {owner!r} of this"
                " machine cannot read: install a newer plugin for it"
            )
        self._members.setdefault(owner, []).append(member)

    def require(self) -> None:
        """Make all ready; raises ArtifactError where one is absent."""
        for device in self._devices.values():
            device.require()
        if self._outdated:
            raise ArtifactError("was compiled by an older graphkiln: compile the model again")

    def attach(self, library: Any, members: Mapping[str, bytes]) -> None:
        """Hand the members of an artifact to the devices that read them.

        ``library`` is the one that was loaded, a module of bytecode that imports the code.
        """
        code = next((m for m in library.imports if m.kind == _CODE), library)
        for name, device in self._devices.items():
            own = self._members.get(name, ())
            device.attach(code, {member: members[member] for member in own})

    @property
    def machine(self) -> tuple[int, ...]:
        """The arguments of ``vm_initialization``: type, number and allocator of each space."""
        return tuple(
            n for memory in (*self._spaces.values(), CPU_MEMORY) for n in (*memory, _POOLED)
        )

    def keep(self, weights: Sequence[Any], spaces: Iterable[str]) -> Any:
        """The weights, in their spaces, as the one array that every run passes to ``main``."""
        pairs = zip(weights, spaces, strict=True)
        return tvm_ffi.Array([w if space == HOST else self._moved(w, space) for w, space in pairs])

    def _moved(self, weight: Any, space: str) -> Any:
        return global_function("vm.builtin.to_device")(weight, *self._spaces[space])


register_device(CudaDevice())
