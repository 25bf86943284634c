"""The register tile at the heart of matmul and convolution.

A tile of ``rows`` x ``vectors`` SIMD accumulators stays in registers during the whole reduction.
Each step loads ``vectors`` vectors of weights, broadcasts one operand per row, and does a
multiply-add of each pair. Accumulators are separate buffers of one register, so that LLVM promotes
each of them to a register.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import tirx

from ..tir.builder import BufferTensor, Builder, TensorExpr
from ..tir.extents import index
from .dot import Dot

Expr = Any
Indices = tuple[Expr, ...]
Place = tuple[TensorExpr, Sequence[Expr]]
"""A tensor and an index into it."""
Weights = tuple[BufferTensor, Sequence[Expr]]


class RegisterTile:
    """Accumulators of ``rows`` x ``vectors`` SIMD registers of ``lanes`` elements."""

    def __init__(self, b: Builder, rows: int, vectors: int, dot: Dot) -> None:
        self.b = b
        self.rows = rows
        self.vectors = vectors
        self.dot = dot
        self.lanes = dot.lanes
        self.accumulators: list[list[BufferTensor]] = [
            [b.local((dot.lanes,), dot.sums, "acc") for _ in range(vectors)] for _ in range(rows)
        ]

    @property
    def lane_index(self) -> Expr:
        return tirx.Ramp(index(0), index(1), self.lanes)

    def fill(self, value: Callable[[int, int], Expr]) -> None:
        """Set each register to the vector ``value(row, vector)``."""
        for r in range(self.rows):
            for v in range(self.vectors):
                self.accumulators[r][v].store_raw([self.lane_index], value(r, v))

    def zero(self) -> None:
        self.fill(lambda _r, _v: tirx.Broadcast(tirx.const(0, self.dot.sums), self.lanes))

    def reduce(
        self, extents: Sequence[Any], x: Callable[[int, Indices], Place],
        w: Callable[[Indices], Weights], first: int = 0,
    ) -> None:  # fmt: skip
        """Add the products of all steps ``k`` in the grid ``extents``.

        ``x(row, k)`` gives a tensor and the index of a row's operand, whose last element counts
        steps along the tensor's last axis. ``w(k)`` gives a tensor and the index of a row of
        weights; those from lane ``first`` on belong to this tile.
        """
        with self.b.grid(*extents) as k:
            self.step(lambda r: x(r, k), w(k), first)

    def step(self, x: Callable[[int], Place], w: Weights, first: int = 0) -> None:
        """One step of the reduction, a rank-one update: see :meth:`reduce`."""
        tensor, at = w
        lanes = self.dot.lanes
        weights = {v: (tensor, at, first + v * lanes) for v in range(self.vectors)}
        self._update(x, weights)

    def step_of_vector(self, vector: int, x: Callable[[int], Place], w: Weights) -> None:
        """One step for a single vector of columns, whose weights are a row of ``w``."""
        tensor, at = w
        self._update(x, {vector: (tensor, at, 0)})

    def _update(
        self, x: Callable[[int], Place], w: Mapping[int, tuple[BufferTensor, Sequence[Expr], int]]
    ) -> None:
        """Add the products of a step; ``w`` says for each vector where its weights begin."""
        b, dot = self.b, self.dot
        weights = {v: b.let(dot.weights(*place), "w") for v, place in w.items()}
        for r in range(self.rows):
            source, (*place, step) = x(r)
            operand = b.let(dot.operand(source, place, step), "x")
            for v, weight in weights.items():
                acc = self.accumulators[r][v]
                old = acc.load_raw([self.lane_index])
                acc.store_raw([self.lane_index], dot.add(old, operand, weight))

    def include(self, other: RegisterTile) -> None:
        """Add the sums of a tile of the same size."""
        lanes = [self.lane_index]
        for mine, theirs in zip(self.accumulators, other.accumulators, strict=True):
            for acc, more in zip(mine, theirs, strict=True):
                acc.store_raw(lanes, acc.load_raw(lanes) + more.load_raw(lanes))

    def value(self, row: int, vector: int, lane: Expr) -> Expr:
        """The sum in a lane. In a vectorised loop over ``lane`` it becomes the whole register."""
        return self.accumulators[row][vector].load_raw([lane])
