"""Random nodes of every op that has an axis map, with inputs to evaluate them on."""

from . import attention, elementwise, indexing, movement, normalize, products, windows  # noqa: F401
from .base import CASES, Case, cases

__all__ = ["CASES", "Case", "cases"]
