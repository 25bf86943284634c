"""What compiled code and the runtime agree on; a leaf, so that neither needs the other for it.

Code generation writes an artifact by this page, and the runtime reads it by the same page, maybe
years later: what changes the meaning of an artifact that exists needs another :data:`SCHEMA`.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# ---- members and manifest ------------------------------------------------------------------------

SCHEMA = 1
"""The version of the manifest, and of all on this page."""

LIBRARY, WEIGHTS, IR_TEXT, REPORT, MANIFEST = (
    "library.so", "weights.bin", "ir.txt", "report.json", "manifest.json",
)  # fmt: skip
MEMBERS = (LIBRARY, WEIGHTS, IR_TEXT, REPORT)
"""The members that every artifact has; their sizes and hashes are in ``files`` of the manifest.

What targets add is in its ``members``, each with a kind: see :data:`MEMBER_KIND`.
"""

MEMBER_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")
"""How the names of further members look: as file names they stay in the artifact's folder."""

MEMBER_KIND = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
"""How kinds of further members look: the device that reads them, a dot, and what they are."""

MOST_MEMBERS = 64
"""An artifact has no more further members."""

HOST = "cpu"
"""The device that runs all that no other does, and the memory space that feeds and results are in.

An artifact that needs other devices lists their names in ``devices`` of its manifest, and in
``spaces`` the memory spaces, each called after the device that it belongs to, of which its bytecode
allocates memory by their place in the list, the host's following the last.
"""

ALIGNMENT = 64
"""Bytes: tensors, weights in ``weights.bin`` and parts of the arena start on such borders."""

EXPANDED = "expanded_bytes"
"""A field of manifests: the bytes of all weights in memory, where ``weights.bin`` holds some of
them without their zeros.

Then the ``offset`` of each weight is that in memory, and ``stored`` where it begins in
``weights.bin``. One that has ``nonzeros`` is compact there: for each element a bit, the lowest of a
byte first, which says that the element is not zero, padded to 8 bytes, and then these elements.
"""

INTERFACE = ("target", "inputs", "outputs", "host_functions", "weights", "native", "polls")
"""The fields of a manifest that code relies on; null where one is missing."""

OPEN_INTERFACE = ("members", "devices", "spaces")
"""More of them, which only count where they are there."""

CUDA_MODULES = "cuda.modules"
"""The kind of a member with device code for GPUs: several contents, see :func:`join_texts`.

Each is a module that TVM's loader of modules of its kind ``cuda`` reads.
"""

BLANK_DIGEST = "0" * 64
"""Takes the place of the manifest's own SHA-256, ``self_sha256``, while that is computed."""

POLLS_ALWAYS, POLLS_LONG = "always", "long"
"""The values of ``polls``: in which runs bytecode is watched for signals, all or long ones."""


def interface_digest(manifest: Mapping[str, Any]) -> bytes:
    """What code relies on in a manifest, condensed: ``library.so`` ends with these 64 digits.

    They are the SHA-256, in hexadecimal, of the JSON, with sorted keys, of an object with the
    :data:`INTERFACE` fields, and those of :data:`OPEN_INTERFACE` that the manifest has. Code that
    is given other inputs or weights than it was compiled for would read and write elsewhere.
    """
    fields = {key: manifest.get(key) for key in INTERFACE}
    fields |= {key: manifest[key] for key in OPEN_INTERFACE if key in manifest}
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest().encode()


_LENGTH = struct.Struct("<Q")


def join_texts(parts: Iterable[bytes]) -> bytes:
    """Several contents as one: of each its length as 64 bits, little-endian, and its bytes."""
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def split_texts(data: bytes) -> list[bytes]:
    """The contents that :func:`join_texts` joined. Raises ValueError where it is cut off."""
    found = []
    while data:
        part, data = first_text(data)
        found.append(part)
    return found


def first_text(data: bytes) -> tuple[bytes, bytes]:
    """The first of joined contents, and what follows it. Raises ValueError where it is cut off."""
    if len(data) < _LENGTH.size:
        raise ValueError("the contents are cut off")
    (size,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + size
    if len(data) < end:
        raise ValueError("the contents are cut off")
    return data[_LENGTH.size : end], data[end:]


LARGE_MEMBER, MOST_DEFLATED = 16 << 20, 100
"""A member is taken for a ZIP bomb if its content has more bytes than the first, and is more than
the second times as large as its deflated form."""

# ---- the checksum of weights.bin -----------------------------------------------------------------

SHA256, GRID64 = "sha256", "grid64-1"
"""The algorithms of ``weights_checksum``; :mod:`graphkiln.runtime.checksum` defines them."""

GRID_ABOVE = 16 << 20
"""Larger weights, in bytes, get the second."""

GRID_ROWS, GRID_COLUMNS = 63, 1025
GRID_BLOCK = GRID_ROWS * GRID_COLUMNS * 8
GRID_SEGMENT = 64 * GRID_BLOCK
"""Words of a block; bytes of a block and of a segment."""

# ---- element types -------------------------------------------------------------------------------

ML_DTYPES = {
    "bfloat16": "bfloat16", "float8e4m3fn": "float8_e4m3fn", "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2", "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu", "float4e2m1": "float4_e2m1fn",
    "int4": "int4", "uint4": "uint4", "int2": "int2", "uint2": "uint2",
}  # fmt: skip
"""Element types that NumPy lacks, and what ``ml_dtypes`` calls them."""

SMALL_INTEGERS = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8"}
"""Integers of a few bits are stored by value, one in a byte."""

STORAGE = {**dict.fromkeys(ML_DTYPES, "uint8"), "bfloat16": "uint16", **SMALL_INTEGERS}
"""The dtype in memory of each type that NumPy lacks: bfloat16 as its bits in uint16, float8 and
float4 as their codes in uint8, integers of 2 and 4 bits by value."""

# ---- functions of a library ----------------------------------------------------------------------

PLAN, RUN = "graphkiln_plan", "graphkiln_run"
"""Native code: functions of a frame; see :mod:`graphkiln.codegen.native`."""

POOL, THREADS = "graphkiln_pool", "graphkiln_threads"
"""The thread pool; see ``codegen/pool.c``."""

MOST_THREADS = 1024
"""The most threads that a parallel loop can have."""

SPELLED_OUT = -1
"""The value of the polled word in runs of bytecode in which no loop is a function of its own, so
that each of its kernels can be timed. Signals never give the word this value."""

POLL = "graphkiln_poll"
"""The kernel that bytecode calls to look for signals."""

STEP = "graphkiln_step"
"""The kernel that bytecode calls before each iteration of a loop."""

DIM_KERNELS = "dims_"
"""How names of dim kernels begin, which compute dims from dims."""

LOOPS = "loop_"
"""How names of functions begin that run a whole loop."""

HOST_FUNCTIONS = "graphkiln.host."
"""How the names of host functions begin where bytecode calls them; the op follows."""

# ---- the frame of native code --------------------------------------------------------------------

STATUS, FRAME, SCRATCH, FRAME_WEIGHTS, SCRATCH_BYTES, FIRST_PORT = range(6)
"""The first words of a frame: how a run ended, the addresses of the frame, of scratch memory and of
the weights, and how much scratch memory is needed; then come what :class:`Frame` says."""

ADDRESSES = (FRAME, SCRATCH, FRAME_WEIGHTS)
"""The words that hold base addresses; fixups that add these are applied before all others."""

BAILED_OUT = 1 << 32
"""The status of a bailout: the virtual machine has to run. Kernels return int32, never so much."""


@dataclass(frozen=True)
class Frame:
    """The layout of a frame, for inputs and outputs of these ranks.

    Behind the first words come the addresses of inputs and of outputs, the inputs' dims, and the
    outputs' dims. What follows (from ``end`` on) only the native code knows.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def input(self, number: int) -> int:
        return FIRST_PORT + number

    def output(self, number: int) -> int:
        return FIRST_PORT + len(self.inputs) + number

    def input_dim(self, number: int, axis: int) -> int:
        return self.output(len(self.outputs)) + sum(self.inputs[:number]) + axis

    def output_dim(self, number: int, axis: int) -> int:
        return self.input_dim(len(self.inputs), 0) + sum(self.outputs[:number]) + axis

    @property
    def end(self) -> int:
        return self.output_dim(len(self.outputs), 0)
