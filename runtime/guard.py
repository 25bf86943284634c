"""Guard pages: a safety net for tests of compiled code.

With ``GRAPHKILN_GUARD=end`` each buffer of a run ends right before a page without access rights,
with ``front`` it starts right behind one, so that a kernel that accesses memory beyond that side
ends the process with a segmentation fault. The memory of a freed buffer loses its access rights
too. Memory that is not written yet is filled with 0xFF, which is NaN or -1.

Guarded are inputs, weights, outputs, temporaries, tables of sizes, and the workspace of kernels.
Compile with the target option ``memory=apart``: otherwise temporaries share one buffer, and native
code takes all weights as one.

Tensors end exactly at the page. Workspace must start at a multiple of 64 bytes, which kernels are
compiled to rely on, so up to 63 bytes lie between its end and the page. Tensors of strings are
Python objects and are not guarded.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Any

import numpy as np

from ..contract import ALIGNMENT
from ..tvm_import import import_tvm_ffi
from .errors import GraphkilnError

VARIABLE = "GRAPHKILN_GUARD"
PLACES = ("end", "front")

_PAGE = mmap.PAGESIZE
_UNWRITTEN = 0xFF
_NOTHING, _READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
_FAILED = ctypes.c_void_p(-1).value


def place() -> str | None:
    """Where the page is: ``end``, ``front``, or None for buffers without one.

    Raises GraphkilnError for another value of the variable.
    """
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        return None
    if chosen not in PLACES:
        raise GraphkilnError(f"{VARIABLE} is {chosen!r}: it may be {' or '.join(PLACES)}")
    return chosen


class _LibC:
    """The functions of the C library that make and protect pages."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self.mmap = library.mmap
        self.mmap.argtypes = [address, size, number, number, number, ctypes.c_int64]
        self.mmap.restype = address
        self.mprotect = library.mprotect
        self.mprotect.argtypes = [address, size, number]
        self.munmap = library.munmap
        self.munmap.argtypes = [address, size]


_libc = _LibC()


def _reserve(nbytes: int, alignment: int, where: str) -> tuple[int, int, int]:
    """New memory beside a guard page: its address, the first address of its pages, their bytes.

    Raises MemoryError where there is none.
    """
    usable = -(-nbytes // _PAGE) * _PAGE
    total = usable + 2 * _PAGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    base = _libc.mmap(None, total, _NOTHING, flags, -1, 0)
    if base in (None, _FAILED):
        raise MemoryError(f"{nbytes} bytes")
    first = base + _PAGE
    if usable and _libc.mprotect(first, usable, _READ_WRITE):
        _libc.munmap(base, total)
        raise MemoryError(f"{nbytes} bytes")
    address = first if where == "front" else (first + usable - nbytes) // alignment * alignment
    ctypes.memset(address, _UNWRITTEN, nbytes)
    return address, base, total


class Guard:
    """Allocates guarded buffers, and makes TVM's runtime use them too."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._workspaces: dict[int, tuple[int, int]] = {}
        self._allocate = _ALLOCATE(self._allocate_workspace)
        self._free = _FREE(self._free_workspace)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An uninitialised array; its pages are unmapped when the last reference to it goes."""
        nbytes = dtype.itemsize
        for dim in shape:
            nbytes *= dim
        address, base, total = _reserve(nbytes, dtype.itemsize, self._where)
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        weakref.finalize(memory, _libc.munmap, base, total)
        return np.ndarray(shape, dtype, memoryview(memory))

    # ---- the virtual machine -----------------------------------------------------------------

    def replace_allocators(self) -> None:
        """Make the virtual machines of this process allocate guarded memory."""
        tvm_ffi = import_tvm_ffi()

        def storage(_machine: Any, shape: Any, _device: int, _dtype: Any, _scope: str) -> Any:
            (nbytes,) = shape
            return tvm_ffi.from_dlpack(self.empty((int(nbytes),), np.dtype(np.uint8)))

        def tensor(memory: Any, offset: int, shape: Any, dtype: Any) -> Any:
            return tvm_ffi.from_dlpack(_part(np.from_dlpack(memory), offset, shape, str(dtype)))

        def heap(_machine: Any, size: int) -> Any:
            return tvm_ffi.from_dlpack(self.empty((size,), np.dtype(np.int64)))

        for name, function in (
            ("alloc_storage", storage), ("alloc_tensor", tensor), ("alloc_shape_heap", heap),
        ):  # fmt: skip
            tvm_ffi.register_global_func(f"vm.builtin.{name}", function, override=True)

    # ---- kernels -----------------------------------------------------------------------------

    def take_over_workspaces(self, path: str) -> None:
        """Make the kernels of a loaded library allocate guarded workspace."""
        library = ctypes.CDLL(path)
        for name, function in (
            ("__TVMBackendAllocWorkspace", self._allocate),
            ("__TVMBackendFreeWorkspace", self._free),
        ):
            address = ctypes.cast(function, ctypes.c_void_p)
            try:
                ctypes.c_void_p.in_dll(library, name).value = address.value
            except ValueError:
                pass  # no kernel of the library has workspace

    def _allocate_workspace(
        self, _device_type: int, _device: int, nbytes: int, _code: int, _bits: int
    ) -> int:
        try:
            address, *pages = _reserve(nbytes, ALIGNMENT, self._where)
        except MemoryError:
            return 0
        self._workspaces[address] = pages[0], pages[1]
        return address

    def _free_workspace(self, _device_type: int, _device: int, address: int) -> int:
        return int(_libc.munmap(*self._workspaces.pop(address)))


_ALLOCATE = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int
)
_FREE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def _part(memory: np.ndarray, offset: int, shape: Any, dtype: str) -> np.ndarray:
    """A tensor of a TVM dtype at a byte of a storage."""
    dims, element = tuple(int(dim) for dim in shape), np.dtype(dtype)
    end = offset + element.itemsize * int(np.prod(dims, dtype=np.int64))
    if end > memory.size:
        raise MemoryError(f"a tensor ends at byte {end} of a storage of {memory.size}")
    return memory[offset:end].view(element).reshape(dims)


_place = place()
ACTIVE = None if _place is None else Guard(_place)
"""The allocator of guarded buffers in this process; None without the variable."""
