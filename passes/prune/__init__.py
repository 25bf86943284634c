"""Pruning: whole channels are removed wherever they are coupled, or weights become 0.

:mod:`.coupling` finds which axes of the graph are the same, :mod:`.channels` which of their
positions can only be dropped together, and defines what that does to the results. Criteria
(:mod:`.importance`) say how important each channel is, :mod:`.select` which ones go, and
:mod:`.remove` makes constants and sizes smaller. :mod:`.reconstruct` corrects the weights that are
left, and :mod:`.idle` removes channels that do nothing. :mod:`.sparsify` sets weights to 0 in
patterns that kernels can skip.
"""

from .channels import Channels, Group
from .idle import Idle
from .importance import CRITERIA, ON_SAMPLES
from .prune import Prune
from .remove import dropped_positions, remove
from .select import Amounts, select
from .sparsify import Compared, Criterion, Sparsify

__all__ = [
    "CRITERIA", "ON_SAMPLES", "Amounts", "Channels", "Compared", "Criterion", "Group", "Idle",
    "Prune", "Sparsify", "dropped_positions", "remove", "select",
]  # fmt: skip
