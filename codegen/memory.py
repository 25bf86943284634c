"""The static memory plan: offsets in one arena for values whose sizes and lifetimes are known.

Values share memory where their lifetimes do not overlap. Three values of 64 bytes that are live in
steps 0 to 1, 1 to 2 and 2 to 3 take 128 bytes: the first and the third both lie at offset 0.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from ..contract import ALIGNMENT


@dataclass(frozen=True)
class Interval:
    """A value that needs ``size`` bytes from step ``start`` to step ``end``, both included."""

    start: int
    end: int
    size: int


def aligned(size: int) -> int:
    """``size`` rounded up to the arena's alignment; at least one unit."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def plan(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Offsets for the intervals, such that none that overlap in time overlap in memory.

    Returns the offsets and the arena's size in bytes. Up to 1,500 intervals are placed greedily by
    size, the largest first, which comes closest to the lower bound but takes quadratic time. More
    are placed in one scan over time, best fit, which is near-linear.
    """
    if len(intervals) <= 1500:
        return _largest_first(intervals)
    return _in_time_order(intervals)


def _largest_first(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Place each at the lowest offset that is free of those placed whose lifetimes overlap."""
    order = sorted(range(len(intervals)), key=lambda i: (-intervals[i].size, intervals[i].start))
    offsets = [0] * len(intervals)
    placed: list[tuple[int, int, int]] = []  # (offset, end, interval), sorted by offset
    total = 0
    for i in order:
        item = intervals[i]
        size = aligned(item.size)
        at = 0
        for offset, end, other in placed:
            rival = intervals[other]
            if rival.end < item.start or item.end < rival.start:
                continue
            if offset - at >= size:
                break
            at = max(at, end)
        offsets[i] = at
        bisect.insort(placed, (at, at + size, i))
        total = max(total, at + size)
    return offsets, total


def _in_time_order(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Place each when its lifetime starts, and return its memory to a free list at its end."""
    offsets = [0] * len(intervals)
    order = sorted(range(len(intervals)), key=lambda i: intervals[i].start)
    ends = sorted(range(len(intervals)), key=lambda i: intervals[i].end)
    free: list[tuple[int, int]] = []  # (offset, size), sorted by offset
    total = 0
    done = 0
    for i in order:
        while done < len(ends) and intervals[ends[done]].end < intervals[i].start:
            released = ends[done]
            _release(free, offsets[released], aligned(intervals[released].size))
            done += 1
        offsets[i], total = _take(free, aligned(intervals[i].size), total)
    return offsets, total


def _take(free: list[tuple[int, int]], size: int, total: int) -> tuple[int, int]:
    """Offset of ``size`` bytes in the smallest hole that holds them, or at the arena's end.

    Returns the arena's new size with it.
    """
    best = min(
        (k for k, (_, s) in enumerate(free) if s >= size), key=lambda k: free[k][1], default=None
    )
    if best is not None:
        offset, hole = free.pop(best)
        if hole > size:
            bisect.insort(free, (offset + size, hole - size))
        return offset, total
    if free and sum(free[-1]) == total:  # grow the last hole
        offset, _ = free.pop()
        return offset, offset + size
    return total, total + size


def _release(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Add a hole, merged with those it touches."""
    k = bisect.bisect(free, (offset, size))
    if k < len(free) and free[k][0] == offset + size:
        size += free.pop(k)[1]
    if k and sum(free[k - 1]) == offset:
        offset, before = free.pop(k - 1)
        size += before
    bisect.insort(free, (offset, size))
