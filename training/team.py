"""Data-parallel training: processes that each take a share of every batch.

PyTorch's launcher starts them and says so in the environment (``torchrun``). Each has the whole
model; gradients are summed over all, so every process takes the same step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from .samples import Batch


class Team:
    """The processes of a training; alone where no launcher started it."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Does this process write and tell?"""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch: every ``size``-th one."""
        return batch if self.size == 1 else batch.every(self.size, self.rank)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], share: float) -> None:
        """Replace gradients by the sum over all processes, each counting for its ``share``."""
        if self.size == 1:
            return
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad * share
            distributed.all_reduce(p.grad)

    def sums(self, numbers: list[float]) -> list[float]:
        """The sums of numbers over all processes."""
        if self.size == 1:
            return numbers
        held = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(held)
        return [float(n) for n in held]


def rank() -> int:
    """The number of this process among those that a launcher started; 0 where none did."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def team() -> Iterator[Team]:
    """The processes that a launcher started, connected, or one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    own = not distributed.is_initialized()
    if own:
        distributed.init_process_group("gloo")
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        if own:
            distributed.destroy_process_group()


__all__ = ["Team", "rank", "team"]
