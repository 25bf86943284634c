"""What a rewrite promises about the numbers: every rule and every pass makes such a claim.

``docs/REWRITES.md`` lists all of them; ``tests/proofs`` proves those that can be proved.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Exactness(Enum):
    """How close the results of a rewritten graph are to those of the graph as it was."""

    EXACT = "exact"
    """Every element has the same bits, whatever the inputs; any NaN counts as any other."""

    ROUNDING = "rounding"
    """The same function of real numbers, rounded elsewhere: within a bound that is stated."""

    LOSSY = "lossy"
    """Another function, which is near enough for those who ask for it."""


class Family(Enum):
    """What a rewrite is about, and with it how its claim could be proved."""

    ELEMENTWISE = "elementwise"
    """Numbers of one index: proofs are about bits and IEEE floats."""

    MOVEMENT = "movement"
    """From where elements come: proofs are about indices and sizes."""

    OTHER = "other"
    """Sums over axes, whole ops, control flow, and edits that look at no element."""


@dataclass(frozen=True)
class Claim:
    """``equation`` says what takes the place of what, ``bound`` how far results may move.

    ``is_proved``: there is a proof in ``tests/proofs``; others are tested, and ``unproved`` says
    why they are not proved. Raises ``ValueError`` where a claim of rounding or loss states no
    bound, or where a reason is given for what is proved.
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

NORM = "(n + 32) u of max |x| / sqrt(var + e) * |scale| + |bias|, where no square overflows"
"""The bound of a normalization over n elements."""

SOFTMAX = "(n + 64) u (1 + max |x|), where no exponential overflows and their sum is not 0"
"""The bound of a softmax over n elements."""

ATTENTION = "(n + 64) u (1 + max |score|) of max |v|, where no score overflows"
"""The bound of attention over n keys."""


def exact(equation: str, unproved: str = "", family: Family = Family.OTHER) -> Claim:
    """The claim that no bit changes, which tests hold; ``unproved`` says why no proof does."""
    return Claim(Exactness.EXACT, equation, family=family, unproved=unproved)


def proved(equation: str, family: Family = Family.ELEMENTWISE) -> Claim:
    """The claim that no bit changes, with a proof in ``tests/proofs``."""
    return Claim(Exactness.EXACT, equation, is_proved=True, family=family)


def moved(equation: str) -> Claim:
    """The claim that elements only come from elsewhere, with a proof in ``tests/proofs``."""
    return proved(equation, Family.MOVEMENT)


def rounds(equation: str, bound: str, family: Family = Family.OTHER) -> Claim:
    """The claim that results are equal in the reals, and off by ``bound`` at most."""
    return Claim(Exactness.ROUNDING, equation, bound, family=family)


def lossy(equation: str, bound: str, family: Family = Family.OTHER) -> Claim:
    """The claim that results differ; ``bound`` says by what."""
    return Claim(Exactness.LOSSY, equation, bound, family=family)


__all__ = [
    "ACTIVATION", "AFFINE", "ATTENTION", "NORM", "SOFTMAX", "SUMS", "Claim", "Exactness", "Family",
    "exact", "lossy", "moved", "proved", "rounds",
]  # fmt: skip
