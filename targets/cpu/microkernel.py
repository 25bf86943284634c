"""The register tile at the heart of matmul and convolution.

A tile of ``rows`` x ``vectors`` SIMD accumulators stays in registers over the whole reduction;
every step loads ``vectors`` weight vectors and broadcasts ``rows`` scalars. Accumulators are
separate one-register buffers, so that LLVM promotes each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from ..tir.builder import BufferTensor, Builder, index

Expr = Any
Indices = tuple[Expr, ...]


class RegisterTile:
    """Accumulators of ``rows`` x ``vectors`` SIMD registers of ``lanes`` elements."""

    def __init__(self, b: Builder, rows: int, vectors: int, lanes: int, dtype: str) -> None:
        self.b = b
        self.rows = rows
        self.vectors = vectors
        self.lanes = lanes
        self.dtype = dtype
        self.accumulators: list[list[BufferTensor]] = [
            [b.local((lanes,), dtype, "acc") for _ in range(vectors)] for _ in range(rows)
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
        self.fill(lambda _r, _v: tirx.Broadcast(tirx.const(0, self.dtype), self.lanes))

    def reduce(
        self,
        extents: Sequence[Any],
        scalar: Callable[[int, Indices], Expr],
        vector: Callable[[int, Indices], Expr],
    ) -> None:
        """acc[r][v] += scalar(r, k) * vector(v, k) over all k in the grid ``extents``."""
        with self.b.grid(*extents) as k:
            self.step(lambda r: scalar(r, k), lambda v: vector(v, k))

    def step(self, scalar: Callable[[int], Expr], vector: Callable[[int], Expr]) -> None:
        """One rank-one update."""
        weights = [self.b.let(vector(v), "w") for v in range(self.vectors)]
        for r in range(self.rows):
            x = self.b.let(tirx.Broadcast(scalar(r), self.lanes), "x")
            for v in range(self.vectors):
                acc = self.accumulators[r][v]
                acc.store_raw([self.lane_index], acc.load_raw([self.lane_index]) + x * weights[v])

    def value(self, row: int, vector: int, lane: Expr) -> Expr:
        """The scalar in a lane; inside a vectorised loop over lanes, the whole register."""
        return self.accumulators[row][vector].load_raw([lane])
