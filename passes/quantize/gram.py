"""Gram matrices of what layers read, summed up over samples: ``H = sum x x^T``."""

from __future__ import annotations

import numpy as np

_ROWS = 512
"""Rows that one product takes. Adding its result to the sum takes as long as the products of some
ten rows, and each row more makes the sums of float32 numbers longer."""


class Gram:
    """``X^T X``, float64 ``[K, K]``, of rows float32 ``[n, K]`` that come in parts of any size."""

    def __init__(self, inner: int) -> None:
        """``inner`` is ``K``."""
        self._sum = np.zeros((inner, inner))
        self._rows = np.empty((_ROWS, inner), np.float32)
        self._held = 0

    def add(self, rows: np.ndarray) -> None:
        """Add rows, which are copied."""
        while len(rows):
            taken = rows[: _ROWS - self._held]
            self._rows[self._held : self._held + len(taken)] = taken
            self._held += len(taken)
            rows = rows[len(taken) :]
            if self._held == _ROWS:
                self._multiply()

    def total(self) -> np.ndarray:
        """The matrix of all rows so far."""
        self._multiply()
        return self._sum

    def _multiply(self) -> None:
        rows = self._rows[: self._held]
        self._sum += rows.T @ rows  # NumPy computes half of it: both operands are the same memory
        self._held = 0


__all__ = ["Gram"]
