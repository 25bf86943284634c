"""Runs native code, without a virtual machine and with buffers that are kept between runs.

The code works on a frame of 64-bit words; `graphkiln.contract` says which word holds what, and
`graphkiln.codegen.native` how a frame is prepared. Small inputs and outputs are copied through
buffers whose addresses stay in the frame; of large ones the address is stored in each run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ..contract import (
    ADDRESSES,
    FRAME,
    FRAME_WEIGHTS,
    PLAN,
    POLLS_ALWAYS,
    RUN,
    SCRATCH,
    SCRATCH_BYTES,
    STATUS,
    Frame,
)
from . import guard, signals
from .dtypes import public_dtype
from .feeds import FeedCheck
from .manifest import ValueSpec
from .values import aligned_empty, as_maps, import_array

# Up to this size, copying an array takes less time than asking for its address. With guard pages
# every input is copied, since the caller's array has none.
_SMALL = 32 << 10 if guard.ACTIVE is None else sys.maxsize

_ndarray = np.ndarray
_BYTES = np.dtype(np.uint8)


class HandedOver(Exception):
    """A bailout: the virtual machine has to run these feeds, or say what is wrong with them."""


class Port:
    """One input or output: the word of its address, its current shape, and its buffer if small."""

    __slots__ = ("name", "word", "dtype", "shape", "array")

    def __init__(self, spec: ValueSpec, word: int) -> None:
        self.name = spec.name
        self.word = word
        self.dtype = public_dtype(spec.dtype)
        self.shape: tuple[int, ...] | None = None
        self.array: np.ndarray | None = None

    def expect(self, shape: tuple[int, ...], frame: np.ndarray) -> None:
        """From now on arrays have this shape; small ones get a buffer."""
        nbytes = self.dtype.itemsize
        for dim in shape:
            nbytes *= dim
        self.array = aligned_empty(shape, self.dtype) if nbytes <= _SMALL else None
        if self.array is not None:
            frame[self.word] = self.array.ctypes.data
        self.shape = shape


class NativeCode:
    """A model's native code, shared by all instances.

    ``words`` is the frame's template. ``fixups`` are pairs of words, of which the second is added
    to the first. ``stop`` is the word with the address to poll for signals. Raises AttributeError
    where the library has no such code.
    """

    def __init__(
        self, library: Any, words: np.ndarray, fixups: np.ndarray, weights: np.ndarray,
        stop: int | None,
    ) -> None:  # fmt: skip
        self.plan = library.get_function(PLAN, True)
        self.run = library.get_function(RUN, True)
        self.words = words
        self.weights = weights
        self.stop = stop
        # Those that add base addresses come first: others add words that these have completed.
        first = np.isin(fixups[:, 1], ADDRESSES)
        self.fixups = [(pairs[:, 0].copy(), pairs[:, 1].copy())
                       for pairs in (fixups[first], fixups[~first])]  # fmt: skip


class Direct:
    """An instance of native code: a frame and scratch memory; used by one thread at a time.

    ``polls`` says whether later runs may take longer than the first, see `Manifest`.
    """

    def __init__(
        self, code: NativeCode, inputs: Sequence[ValueSpec], outputs: Sequence[ValueSpec],
        polls: str | None = None,
    ) -> None:  # fmt: skip
        self._code = code
        self._run = code.run
        self._frame = aligned_empty(code.words.shape, code.words.dtype)
        self._tensor = import_array(self._frame)
        self._layout = Frame(*(tuple(len(s.shape or ()) for s in x) for x in (inputs, outputs)))
        self._ins = [Port(spec, self._layout.input(i)) for i, spec in enumerate(inputs)]
        self._outs = [Port(spec, self._layout.output(i)) for i, spec in enumerate(outputs)]
        self._keys = {i: spec.keys for i, spec in enumerate(outputs) if spec.keys}
        self._check = FeedCheck(inputs)
        self._ready = False
        self._brief = code.stop is None
        self._polls = polls
        self._scratch = aligned_empty((0,), _BYTES)

    def run(self, feeds: Mapping[str, Any], wanted: Sequence[int]) -> list[Any]:
        """The wanted outputs.

        Raises InputError for feeds that do not fit, and HandedOver on a bailout.
        """
        held = self._take(feeds) if self._ready else None
        if held is None:
            arrays = self._check(feeds)
            self._expect([array.shape for array in arrays])
            held = [self._put(port, a) for port, a in zip(self._ins, arrays, strict=True)]
        frame, results = self._frame, []
        for port in self._outs:
            array = port.array
            if array is None:
                array = aligned_empty(port.shape or (), port.dtype)
                frame[port.word] = array.ctypes.data
            results.append(array)
        if self._brief:
            self._run(self._tensor)
        else:
            self._run_watched()
        if frame[STATUS]:  # a bailout, or a kernel failed
            raise HandedOver
        given = self._hand_out(results, wanted)
        return self._with_maps(given, wanted) if self._keys else given

    def _run_watched(self) -> None:
        """A run during which signals are handled.

        Where it turns out to be brief, later runs with the same shapes are not watched, unless data
        may make them longer.
        """
        frame, stop = self._frame, self._code.stop
        start = perf_counter()
        with signals.watched() as word:
            try:
                frame[stop] = word.address
                self._run(self._tensor)
            finally:
                frame[stop] = signals.QUIET.address
        self._brief = self._polls != POLLS_ALWAYS and perf_counter() - start < signals.BRIEF

    def _take(self, feeds: Mapping[str, Any]) -> list[np.ndarray] | None:
        """The fast path: pass feeds of the expected names, types and shapes, without other checks.

        Returns arrays that must live until the run is over; None for any other feeds.
        """
        held: list[np.ndarray] = []
        ports = self._ins
        try:
            for port in ports:
                value = feeds[port.name]
                if (
                    type(value) is not _ndarray
                    or value.dtype is not port.dtype
                    or value.shape != port.shape
                ):
                    return None
                held.append(self._put(port, value))
        except (KeyError, TypeError, IndexError):  # the last where feeds are an array
            return None
        return held if len(feeds) == len(ports) else None

    def _put(self, port: Port, value: np.ndarray) -> np.ndarray:
        """Copy an array to the port's buffer, or store its address in the frame.

        Returns the array that must live until the run is over.
        """
        if port.array is not None:
            port.array[...] = value
            return port.array
        flags = value.flags
        if not (flags.c_contiguous and flags.aligned):
            value = value.copy()
        self._frame[port.word] = value.ctypes.data
        return value

    def _expect(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Prepare the frame for inputs of these shapes."""
        self._ready = False
        self._brief = self._code.stop is None
        self._plan(shapes)
        try:
            self._make_room(shapes)
        except (MemoryError, ValueError) as error:
            # There is not so much memory. It may be for a block that this run does not take: the
            # virtual machine allocates for the one that it takes.
            raise HandedOver from error
        self._ready = True

    def _plan(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Fill in the frame's template, and compute what depends on the shapes."""
        frame, code = self._frame, self._code
        frame[...] = code.words
        frame[FRAME] = frame.ctypes.data
        frame[FRAME_WEIGHTS] = code.weights.ctypes.data
        if code.stop is not None:
            frame[code.stop] = signals.QUIET.address
        sizes = [dim for shape in shapes for dim in shape]
        at = self._layout.input_dim(0, 0)
        frame[at : at + len(sizes)] = sizes
        code.plan(self._tensor)
        if frame[STATUS]:
            raise HandedOver

    def _make_room(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Allocate what was planned, and apply the fixups.

        Raises MemoryError or ValueError where there is not so much memory.
        """
        frame = self._frame
        frame[SCRATCH] = self._reserve(int(frame[SCRATCH_BYTES]))
        for words, added in self._code.fixups:
            frame[words] += frame[added]
        at = self._layout.output_dim(0, 0)
        for port, rank in zip(self._outs, self._layout.outputs, strict=True):
            port.expect(tuple(frame[at : at + rank].tolist()), frame)
            at += rank
        for port, shape in zip(self._ins, shapes, strict=True):
            port.expect(shape, frame)

    def _reserve(self, nbytes: int) -> int:
        """The address of at least ``nbytes`` of scratch memory."""
        if nbytes > self._scratch.nbytes:
            self._scratch = aligned_empty((0,), _BYTES)
            self._scratch = aligned_empty((nbytes,), _BYTES)
        return self._scratch.ctypes.data

    def _with_maps(self, given: list[Any], wanted: Sequence[int]) -> list[Any]:
        """The outputs, with lists of maps for matrices whose columns have keys."""
        return [
            as_maps(array, self._keys[index]) if index in self._keys else array
            for index, array in zip(wanted, given, strict=True)
        ]

    def _hand_out(self, results: list[np.ndarray], wanted: Sequence[int]) -> list[Any]:
        """The wanted outputs as arrays that no later run writes to.

        An output that is asked for twice is given as two arrays.
        """
        outs = self._outs
        if type(wanted) is range:
            return [
                array if port.array is None else array.copy()
                for port, array in zip(outs, results, strict=True)
            ]
        given: set[int] = set()
        picked = []
        for index in wanted:
            fresh = outs[index].array is None and index not in given
            picked.append(results[index] if fresh else results[index].copy())
            given.add(index)
        return picked
