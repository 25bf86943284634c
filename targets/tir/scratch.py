"""Workspace for each task of a parallel nest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .builder import BufferTensor, Builder, Expr
from .extents import index


def slice_of(whole: BufferTensor, lead: Sequence[Expr]) -> BufferTensor:
    """``whole[lead]`` as a tensor of the remaining axes, which loads and stores in place."""
    rest = whole.shape[len(lead) :]
    return whole.part(whole.place([*lead, *[index(0)] * len(rest)]), rest)


def scratch(
    b: Builder, tasks: Sequence[Any], shape: Sequence[Any], dtype: str, name: str = "tmp"
) -> Callable[[tuple[Expr, ...]], BufferTensor]:
    """A function that gives the task at an index of a nest over ``tasks`` its workspace of
    ``shape``.

    It is called in the body of the nest, while this function is called before the nest: where tasks
    cannot allocate memory themselves, it allocates that of all tasks.
    """
    if b.loops.task_memory:
        return lambda _at: b.workspace(shape, dtype, name)
    whole = b.workspace((*tasks, *shape), dtype, name)
    return lambda at: slice_of(whole, at)
