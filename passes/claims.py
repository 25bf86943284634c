"""What a rewrite promises about the numbers: every rule and every pass makes such a claim.

``docs/REWRITES.md`` lists all of them; ``tests/proofs`` proves those that can be proved.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Exactness(Enum):
    """How close the results of a rewritten graph are to those of the original."""

    EXACT = "exact"
    """Every element has the same bits, whatever the inputs; all NaNs count as equal."""

    ROUNDING = "rounding"
    """The same function in real numbers, rounded at other points; results are within a bound."""

    LOSSY = "lossy"
    """Another function, which approximates the original; used only when asked for."""


class Family(Enum):
    """The subject of a rewrite, by which proofs differ."""

    ELEMENTWISE = "elementwise"
    """Arithmetic on single elements: proofs are about bits and IEEE floats."""

    MOVEMENT = "movement"
    """Movements of elements: proofs are about indices and sizes."""

    OTHER = "other"
    """Sums over axes, whole ops, control flow, and edits that do not depend on elements."""


@dataclass(frozen=True)
class Claim:
    """What a rewrite promises: ``equation`` is the rewrite, ``bound`` the largest change of
    results.

    ``is_proved``: there is a proof in ``tests/proofs``. Other claims are tested, and ``unproved``
    is the reason why there is no proof. Raises ``ValueError`` if a claim of rounding or loss has no
    bound, or if one that is proved has a reason.
    """

    exactness: Exactness
    equation: str
    bound: str = ""
    is_proved: bool = False
    family: Family = Family.OTHER
    unproved: str = ""

    def __post_init__(self) -> None:
        if (self.exactness is Exactness.EXACT) == bool(self.bound):
            raise ValueError(f"{self.equation}: exact claims have no bound, all others have one")
        if self.unproved and self.is_proved:
            raise ValueError(f"{self.equation}: it is proved, or there is a reason why not")

    @property
    def is_exact(self) -> bool:
        """Does it claim that no bit changes?"""
        return self.exactness is Exactness.EXACT


# Bounds that several rules share. ``u`` is half a unit in the last place of 1: 2^-24 in float32.

SUMS = "(n + 4) u of the sum of the n terms' magnitudes; zeros may change sign"
"""The bound of sums in another order."""

AFFINE = "(n + 8) u of the sum of the n terms' magnitudes, where nothing overflows in between"
"""The bound of scales and biases that become part of weights."""

ACTIVATION = "32 u of |x| + |b|"
"""The bound of an activation of x that is computed by one op instead of several."""

STEP = "one step of the result, where no scale overflows or vanishes"
"""The bound of sums of integers that are scaled at once, rather than in steps."""

NORM = "(n + 32) u of max |x| / sqrt(var + e) * |scale| + |bias|, where no square overflows"
"""The bound of a normalization over n elements."""

SOFTMAX = "(n + 64) u (1 + max |x|), where no exponential overflows and their sum is not 0"
"""The bound of a softmax over n elements."""

ATTENTION = "(n + 64) u (1 + max |score|) of max |v|, where no score overflows"
"""The bound of attention over n keys."""


def exact(equation: str, unproved: str = "", family: Family = Family.OTHER) -> Claim:
    """The claim that no bit changes, which is tested; ``unproved`` says why it is not proved."""
    return Claim(Exactness.EXACT, equation, family=family, unproved=unproved)


def proved(equation: str, family: Family = Family.ELEMENTWISE) -> Claim:
    """The claim that no bit changes, with a proof in ``tests/proofs``."""
    return Claim(Exactness.EXACT, equation, is_proved=True, family=family)


def moved(equation: str) -> Claim:
    """The claim that elements are only moved, with a proof in ``tests/proofs``."""
    return proved(equation, Family.MOVEMENT)


def rounds(equation: str, bound: str, family: Family = Family.OTHER) -> Claim:
    """The claim that results are equal in real numbers, and within ``bound`` in floats."""
    return Claim(Exactness.ROUNDING, equation, bound, family=family)


def lossy(equation: str, bound: str, family: Family = Family.OTHER) -> Claim:
    """The claim that the function is another one; ``bound`` says how much results differ."""
    return Claim(Exactness.LOSSY, equation, bound, family=family)


__all__ = [
    "ACTIVATION", "AFFINE", "ATTENTION", "NORM", "SOFTMAX", "STEP", "SUMS", "Claim", "Exactness",
    "Family", "exact", "lossy", "moved", "proved", "rounds",
]  # fmt: skip
