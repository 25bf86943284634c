"""One virtual machine and the buffers of its inputs; used by one thread at a time."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from ..contract import ALIGNMENT, POLLS_LONG
from . import guard, signals
from .dtypes import is_plain, public_dtype
from .feeds import FeedCheck
from .manifest import ValueSpec
from .values import (
    Array,
    Tensor,
    aligned_empty,
    array_get,
    export,
    from_vm,
    import_array,
    items,
    to_vm,
)

# Up to this size, copying an input takes less time than exporting the caller's array by DLPack.
# With guard pages every input is copied, since the caller's array has none.
_SMALL = 32 << 10 if guard.ACTIVE is None else sys.maxsize

# For up to so many inputs a linear search is faster than sorting and bisection.
_FEW = 4

_ndarray = np.ndarray

_Buffer: TypeAlias = "tuple[np.ndarray, Any]"
"""An array and the tensor of its memory."""


class Slot:
    """One tensor input, and how its content reaches the machine.

    ``shape`` and ``dtype`` are those of the last feed that passed all checks; a feed that has the
    same is not checked again. ``low`` to ``high`` is the memory that the machine got as the input
    in this run.

    A signal's handler may raise between any two steps here, so a buffer is assigned only when it is
    complete, and dropped before the shape that it was made for changes.
    """

    __slots__ = ("name", "spec", "dtype", "shape", "low", "high", "_small", "_large")

    def __init__(self, spec: ValueSpec) -> None:
        self.name = spec.name
        self.spec = spec
        plain = spec.elem is None and is_plain(spec.dtype)
        self.dtype = public_dtype(spec.dtype) if plain else None
        self.shape: tuple[int, ...] | None = None
        self.low = self.high = 0
        self._small: _Buffer | None = None
        self._large: _Buffer | None = None
        if plain and spec.shape is not None and all(type(dim) is int for dim in spec.shape):
            self.expect(tuple(int(dim) for dim in spec.shape if dim is not None))

    def expect(self, shape: tuple[int, ...]) -> None:
        """From now on feeds have this shape."""
        if shape != self.shape:
            self._small = self._large = None
            self.shape = shape

    def take(self, array: np.ndarray) -> Any:
        """A tensor with the array's content: its own memory if that is large and aligned."""
        small = self._small
        if small is not None:
            small[0][...] = array
            return small[1]
        if array.nbytes <= _SMALL:
            small = self._copied(_buffer_like(array), array)
            self._small = small
            return small[1]
        if array.flags.carray:
            tensor = import_array(array)
            if tensor.data_ptr() % ALIGNMENT == 0:
                return self._seen(tensor, array.nbytes)
        if self._large is None:
            self._large = _buffer_like(array)
        return self._copied(self._large, array)[1]

    def _copied(self, buffer: _Buffer, array: np.ndarray) -> _Buffer:
        buffer[0][...] = array
        self._seen(buffer[1], array.nbytes)
        return buffer

    def _seen(self, tensor: Any, nbytes: int) -> Any:
        self.low = tensor.data_ptr()
        self.high = self.low + nbytes
        return tensor


def _buffer_like(array: np.ndarray) -> _Buffer:
    buffer = aligned_empty(array.shape, array.dtype)
    return buffer, import_array(buffer)


class Instance:
    """A virtual machine's ``main`` with a slot for every input.

    ``weights`` are its second argument, whose memory is ``low`` to ``high``. ``polls`` says whether
    it takes a word to poll for signals behind the inputs, see `Manifest`.
    """

    def __init__(
        self, main: Callable[..., Any], inputs: Sequence[ValueSpec], outputs: Sequence[ValueSpec],
        weights: Any, low: int, high: int, polls: str | None,
    ) -> None:  # fmt: skip
        self.main = main
        self.weights = weights
        self._low, self._high = low, high
        self._slots = [Slot(spec) for spec in inputs]
        self._outputs = outputs
        self._plain = [spec.elem is None and is_plain(spec.dtype) for spec in outputs]
        self._check = FeedCheck(inputs)
        self._polls = polls
        self._signal = () if polls is None else (signals.QUIET.tensor,)
        self._brief = polls is None
        self._nested: list[tuple[int, int]] = []
        self._lent: tuple[list[int], list[int]] | None = None

    def run(self, feeds: Mapping[str, Any], wanted: Sequence[int]) -> list[Any]:
        """The wanted outputs. Raises InputError for feeds that do not fit."""
        arguments = self.bind(feeds)
        if self._brief:
            return self._collect(wanted, self.main(arguments, self.weights))
        return self._collect(wanted, self._watched(arguments))

    def spell_out(self) -> None:
        """From now on loops run as bytecode, so that their kernels can be watched."""
        if self._signal:
            self._signal = (signals.LOUD.tensor,)

    def _watched(self, arguments: tuple[Any, ...]) -> Any:
        """What ``main`` returns in a run during which signals are handled.

        Where it turns out to be brief, later runs with the same shapes are not watched.
        """
        start = perf_counter()
        with signals.watched() as word:
            results = self.main((*arguments[:-1], word.tensor), self.weights)
        self._brief = self._polls == POLLS_LONG and perf_counter() - start < signals.BRIEF
        return results

    def bind(self, feeds: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of ``main``. Raises InputError for feeds that do not fit."""
        arguments = []
        self._lent = None
        try:
            for slot in self._slots:
                value = feeds[slot.name]
                if (
                    type(value) is not _ndarray
                    or value.dtype is not slot.dtype
                    or value.shape != slot.shape
                ):
                    return self._bind_checked(feeds)
                arguments.append(slot.take(value))
            if len(feeds) == len(arguments):
                return (*arguments, *self._signal)
        except (KeyError, TypeError, IndexError):  # the last where feeds are an array
            pass
        return self._bind_checked(feeds)

    def _bind_checked(self, feeds: Mapping[str, Any]) -> tuple[Any, ...]:
        values = self._check(feeds)
        self._brief = self._polls is None
        self._nested = []
        for slot, value in zip(self._slots, values, strict=True):
            if slot.dtype is not None and value is not None:
                slot.expect(value.shape)
        return (*map(self._hand_over, self._slots, values), *self._signal)

    def _hand_over(self, slot: Slot, value: Any) -> Any:
        if slot.dtype is not None and value is not None:
            return slot.take(value)
        argument = to_vm(value, slot.spec)
        self._note_memory(argument)
        return argument

    def _note_memory(self, argument: Any) -> None:
        if isinstance(argument, Tensor):
            low = argument.data_ptr()
            itemsize = np.from_dlpack(argument).itemsize
            self._nested.append((low, low + argument.numel() * itemsize))
        elif isinstance(argument, Array):
            for item in items(argument):
                self._note_memory(item)

    def _collect(self, wanted: Sequence[int], results: Any) -> list[Any]:
        """The outputs as arrays of their own: those that alias a feed, a weight or an output that
        was given already are copied.
        """
        plain = self._plain
        seen: set[int] = set()
        outputs = []
        for index in wanted:
            value = array_get(results, index)
            if plain[index] and type(value) is Tensor:
                array = export(value)
                outputs.append(array if self._owns(value.data_ptr(), seen) else array.copy())
            else:
                outputs.append(from_vm(value, self._outputs[index], partial(self._owns, seen=seen)))
        return outputs

    def _owns(self, address: int, seen: set[int]) -> bool:
        """Is the memory at ``address`` no weight's and no feed's, and not given out yet?"""
        if address in seen or self._low <= address < self._high:
            return False
        seen.add(address)
        return not self.lends(address)

    def lends(self, address: int) -> bool:
        """Does the address lie in memory of an input of this run?"""
        if len(self._slots) <= _FEW and not self._nested:
            for slot in self._slots:
                if slot.low <= address < slot.high:
                    return True
            return False
        if self._lent is None:
            self._lent = _joined([*((slot.low, slot.high) for slot in self._slots), *self._nested])
        lows, highs = self._lent
        place = bisect_right(lows, address) - 1
        return place >= 0 and address < highs[place]


def _joined(ranges: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Starts of the ranges in order, and for each the highest end of all up to it.

    An address lies in some range if and only if it is below the end that belongs to the last start
    not above it.
    """
    ranges.sort()
    return [low for low, _ in ranges], list(accumulate((high for _, high in ranges), max))
