"""Traits of ops: algebraic and structural facts that passes, targets and reports go by.

An op declares its traits where it is registered. Leaving one out means that nothing makes use of
that fact; only what restricts an op must be declared (``stochastic``, ``effect``, ``host``,
``control_flow``).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import Enum


class Trait(str, Enum):
    """One fact about an op; its ``meaning`` completes "the op ..."."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Trait:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ELEMENTWISE = "elementwise", "maps an index to the same index, after broadcasting"
    INJECTIVE = "injective", "reads at most one element of each input for an element of a result"
    PICKS = "picks", "returns elements of its first input"
    VIEW = "view", "returns the memory of its first input under another shape"
    REDUCTION = "reduction", "makes one element of many"
    ANCHOR = "anchor", "is heavy: it gets a kernel of its own, with what is cheap around it"
    COMMUTATIVE = "commutative", "takes its inputs in any order: f(a, b) = f(b, a)"
    ASSOCIATIVE = "associative", "can be regrouped: f(f(a, b), c) = f(a, f(b, c))"
    IDEMPOTENT = "idempotent", "changes nothing where it comes twice: f(f(x)) = f(x)"
    INVOLUTION = "involution", "undoes itself: f(f(x)) = x"
    STOCHASTIC = "stochastic", "returns something else in every run"
    HOST = "host", "runs as a host function"
    SHAPE_ONLY = "shape_only", "looks at the shapes of its inputs, not at their data"
    EFFECT = "effect", "has no result and stays in the graph for what it does"
    CONTROL_FLOW = "control_flow", "runs graphs that are its attributes"
    NONNEGATIVE = "nonnegative", "returns floats that are +0 or greater, or NaN"
    UNORDERED_SUM = (
        "unordered_sum", "ends in a sum in an order of its own: its zeros have no defined sign"
    )  # fmt: skip
    IGNORES_ZERO_SIGN = "ignores_zero_sign", "returns the same for -0 and +0"
    ROUNDS_ONCE = (
        "rounds_once",
        "returns the exact result, rounded at most once: every implementation gives the same bits",
    )


def traits_of(key: str, names: Iterable[Trait | str]) -> frozenset[Trait]:
    """The traits that op ``key`` declares, each as a member or by its name.

    Raises ``ValueError`` for a name that is no trait; it tells the closest one.
    """
    return frozenset(name if isinstance(name, Trait) else _named(key, name) for name in names)


def _named(key: str, name: str) -> Trait:
    known = {t.value: t for t in Trait}
    if name not in known:
        near = get_close_matches(name, known, 1, 0)
        raise ValueError(f"op {key}: {name!r} is not a trait; the closest one is {near[0]!r}")
    return known[name]


__all__ = ["Trait", "traits_of"]
