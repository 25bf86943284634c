"""Sums of Gram matrices over samples."""

from __future__ import annotations

import numpy as np

_ROWS = 512
"""Rows that one product takes. Adding its result to the sum takes as long as the products of some
ten rows, and each row more makes the sums of float32 numbers longer."""


class RowGram:
    """``X^T X``, float64 ``[1, K, K]``, of rows float32 ``[n, K]`` that come in parts of any
    size.
    """

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
        return self._sum[None]

    def _multiply(self) -> None:
        rows = self._rows[: self._held]
        self._sum += rows.T @ rows  # NumPy computes half of it: both operands are the same memory
        self._held = 0


class MatrixSum:
    """The sum of matrices float32 ``[groups, K, K]``, in float64."""

    def __init__(self, groups: int, inner: int) -> None:
        """``inner`` is ``K``."""
        self._sum = np.zeros((groups, inner, inner))

    def add(self, matrices: np.ndarray) -> None:
        """Add those of one run."""
        self._sum += matrices

    def total(self) -> np.ndarray:
        """The sum of all runs so far."""
        return self._sum


__all__ = ["MatrixSum", "RowGram"]
