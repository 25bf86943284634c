"""Traits of ops: algebraic and structural facts that passes, targets and reports use.

An op declares its traits when it is registered. If a trait is missing, no use is made of that fact,
which is safe. Only traits that restrict an op must be declared: ``stochastic``, ``effect``,
``host``, ``control_flow``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import Enum


class Trait(str, Enum):
    """A fact about an op; its ``meaning`` completes "the op ..."."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Trait:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # ---- which elements an element of a result takes
    ELEMENTWISE = "elementwise", "maps an index to the same index, after broadcasting"
    BROADCASTS = "broadcasts", "brings all its inputs to their common shape"
    GRANULAR = (
        "granular",
        "is elementwise on its first input; the others are parameters of the whole tensor, of the "
        "places along an axis, or of blocks",
    )
    TABULAR = (
        "tabular", "is elementwise on its first input; the others are tables, whatever their shapes"
    )  # fmt: skip
    INJECTIVE = "injective", "reads at most one element of each input for an element of a result"
    PICKS = "picks", "returns elements of its first input"
    SELECTS = (
        "selects",
        "returns elements of its inputs, chosen by place or by order: f(g(x)) = g(f(x)) for every "
        "increasing g",
    )
    ALIAS = "alias", "returns its first input"
    VIEW = "view", "returns the memory of its first input under another shape"
    REDUCTION = "reduction", "makes one element of many"
    SINGLE_PASS = (
        "single_pass",
        "is a reduction that reads each element of its first input once, so that computing what is "
        "in front of it costs no more there",
    )
    SYMMETRIC = (
        "symmetric",
        "gives the same whatever the order and the shape of its first input's elements",
    )
    SHAPE_ONLY = "shape_only", "looks at the shapes of its inputs, not at their data"

    # ---- which kernel it may share, and what it costs
    ANCHOR = "anchor", "is heavy: it gets a kernel of its own, with what is cheap around it"
    CONTRACTION = "contraction", "spends its time on sums of products with its first input"
    CHEAP = "cheap", "takes about one instruction for an element: it may be computed twice"
    MOVEMENT = (
        "movement",
        "moves elements: it is computed in the loops that read its result, and so may its input be",
    )
    SOURCE = (
        "source", "is computed in the loops that read its result, but its inputs are stored first"
    )  # fmt: skip
    PARAMETRIC = (
        "parametric",
        "computes with its scalars whatever their values are: kernels take them as arguments, so "
        "that nodes that differ in them share one",
    )
    JOIN = "join", "stores each input at its own place in the result: inputs are computed there"

    FIXED_RANKS = (
        "fixed_ranks",
        "takes operands of certain ranks, although it broadcasts: they stay as they are",
    )

    # ---- algebra
    COMMUTATIVE = "commutative", "takes its inputs in any order: f(a, b) = f(b, a)"
    ASSOCIATIVE = "associative", "can be regrouped: f(f(a, b), c) = f(a, f(b, c))"
    IDEMPOTENT = (
        "idempotent", "changes nothing where it comes twice: f(f(x)) = f(x), or f(x, x) = x of two"
    )  # fmt: skip
    INVOLUTION = "involution", "undoes itself: f(f(x)) = x"
    ADDITIVE = "additive", "adds its inputs, or subtracts the second"

    # ---- which numbers it returns
    FINITE = "finite", "makes finite numbers of finite ones, sums and products beyond range apart"
    NONNEGATIVE = "nonnegative", "returns floats that are +0 or greater, or NaN"
    KEEPS_NONNEGATIVE = (
        "keeps_nonnegative", "returns +0, more, or NaN where all its floats are +0, more, or NaN"
    )  # fmt: skip
    NOT_BELOW_ZERO = "not_below_zero", "returns floats that are 0 of either sign, more, or NaN"
    UNORDERED_SUM = (
        "unordered_sum", "ends in a sum in an order of its own: its zeros have no defined sign"
    )  # fmt: skip
    IGNORES_ZERO_SIGN = "ignores_zero_sign", "returns the same for -0 and +0"
    ROUNDS_ONCE = (
        "rounds_once",
        "returns the exact result, rounded at most once: every implementation gives the same bits",
    )

    # ---- element types
    FLOAT_POLYMORPHIC = "float_polymorphic", "has floats of one type, which may be any of them"
    CONVERTS = "converts", "turns the numbers of its first input into those of another type"
    ONE_BYTE_TYPE = "one_byte_type", "has quantized inputs and a result of one 8-bit type"

    # ---- how it runs
    STOCHASTIC = "stochastic", "draws random numbers: two equal nodes return different ones"
    HOST = "host", "runs as a host function"
    EFFECT = "effect", "has no result and stays in the graph for what it does"
    CONTROL_FLOW = "control_flow", "runs graphs that are its attributes"


def traits_of(key: str, names: Iterable[Trait | str]) -> frozenset[Trait]:
    """The traits that op ``key`` declares, each given as a member or by its name.

    Raises ``ValueError`` for a name that is no trait; the message suggests the closest one.
    """
    return frozenset(name if isinstance(name, Trait) else _named(key, name) for name in names)


def _named(key: str, name: str) -> Trait:
    known = {t.value: t for t in Trait}
    if name not in known:
        near = get_close_matches(name, known, 1, 0)
        raise ValueError(f"op {key}: {name!r} is not a trait; the closest one is {near[0]!r}")
    return known[name]


__all__ = ["Trait", "traits_of"]
