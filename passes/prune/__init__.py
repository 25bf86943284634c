"""Structured pruning: whole channels are removed wherever they are coupled.

:mod:`.coupling` finds which axes of the graph are the same, :mod:`.channels` which of their
positions can only be dropped together, and defines what that does to the results. Criteria
(:mod:`.importance`) say how important each channel is, :mod:`.select` which ones go, and
:mod:`.remove` makes constants and sizes smaller.
"""

from .channels import Channels, Group
from .idle import Idle
from .importance import CRITERIA, ON_SAMPLES
from .prune import Prune
from .remove import dropped_positions, remove
from .select import Amounts, select

__all__ = [
    "CRITERIA", "ON_SAMPLES", "Amounts", "Channels", "Group", "Idle", "Prune", "dropped_positions",
    "remove", "select",
]  # fmt: skip
