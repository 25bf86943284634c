"""Sparsity."""

from .sparsify import Compared, Criterion, Sparsify

__all__ = ["Compared", "Criterion", "Sparsify"]
