"""Conditions between sizes: what is proved holds for all sizes, what is refuted for none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.conditions import Condition, Relation, multiple_that_fits
from graphkiln.ir.dims import (
    Dim,
    DimError,
    dim_broadcast,
    dim_max,
    dim_min,
    evaluate,
    parse_dim,
    sym,
)

N, M, K = sym("N"), sym("M"), sym("K")

SIZES = [dict(zip("NMK", sizes, strict=True)) for sizes in itertools.product(range(5), repeat=3)]


def _grown(parts: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    constants = st.integers(1, 4)
    return st.one_of(
        st.builds(lambda a, b: a + b, parts, parts),
        st.builds(lambda a, b: a * b, parts, constants),
        st.builds(lambda a, b: a // b, parts, constants),
        st.builds(lambda a, b: a % b, parts, constants),
        st.builds(dim_max, parts, parts),
        st.builds(dim_min, parts, parts),
    )


DIMS = st.recursive(st.sampled_from([N, M, K, 0, 1, 2, 3, 7]), _grown, max_leaves=4)


@given(st.sampled_from(list(Relation)), DIMS, DIMS)
def test_proofs_and_refutations_are_right(relation: Relation, a: Dim, b: Dim) -> None:
    c = Condition(relation, a, b, "node", "this")
    answers = {c.holds(sizes) for sizes in SIZES}
    assert not (c.proved() and False in answers), "proved, but it fails for some sizes"
    assert not (c.refuted() and True in answers), "refuted, but it holds for some sizes"


@pytest.mark.parametrize(
    ("relation", "a", "b", "proved", "refuted"),
    [
        (Relation.EQUAL, N, N, True, False),
        (Relation.EQUAL, N, M, False, False),
        (Relation.EQUAL, N + 1, 0, False, True),
        (Relation.AT_MOST, 0, N, True, False),
        (Relation.AT_MOST, N + 2, N, False, True),
        (Relation.AT_MOST, 3, N, False, False),
        (Relation.MULTIPLE, 4 * N, 2, True, False),
        (Relation.MULTIPLE, N * M, M, True, False),
        (Relation.MULTIPLE, N, 2, False, False),
        (Relation.MULTIPLE, 3, 2, False, True),
        (Relation.BROADCAST, 1, N, True, False),
        (Relation.BROADCAST, N, 1, True, False),
        (Relation.BROADCAST, N + 3, 2, False, True),
        (Relation.BROADCAST_TO, N, 1, False, False),
        (Relation.BROADCAST_TO, 1, N, True, False),
    ],
)
def test_what_is_decided(relation: Relation, a: Dim, b: Dim, proved: bool, refuted: bool) -> None:
    c = Condition(relation, a, b, "node", "this")
    assert (c.proved(), c.refuted()) == (proved, refuted)


def test_a_common_size_is_numpys() -> None:
    common = dim_broadcast(dim_broadcast(N, M), K)
    assert common == dim_broadcast(M, dim_broadcast(K, N)), "the order does not matter"
    for sizes in SIZES:
        try:
            (wanted,) = np.broadcast_shapes(*((n,) for n in sizes.values()))
        except ValueError:
            continue
        assert evaluate(common, sizes) == wanted
    assert parse_dim(str(common)) == common


def test_a_common_size_with_constants() -> None:
    assert dim_broadcast(N, 1) == N == dim_broadcast(1, N) == dim_broadcast(N, N)
    assert dim_broadcast(N, 5) == 5 and dim_broadcast(dim_broadcast(N, M), 0) == 0
    with pytest.raises(DimError, match="3 and 4"):
        dim_broadcast(3, 4)


def test_a_common_size_that_one_operand_is() -> None:
    """Tables of 512 positions: what is cut to 512 fits only where nothing was cut off."""
    assert dim_broadcast(dim_min(N, 512), N) == N
    assert dim_broadcast(N + 1, N + 3) == N + 3
    assert dim_broadcast(dim_min(N, M), N) != N, "M may be 0"
    for a, b in ((dim_min(N, 2), N), (N + 1, N + 3), (dim_min(N, M), N), (N // 2, N)):
        for sizes in SIZES:
            x, y = evaluate(a, sizes), evaluate(b, sizes)
            if x == y or 1 in (x, y):
                (wanted,) = np.broadcast_shapes((x,), (y,))
                assert evaluate(dim_broadcast(a, b), sizes) == wanted


def test_hints_name_the_least_power_of_two() -> None:
    half = Condition(Relation.EQUAL, N // 2 + (N + 1) // 2, 2 * (N // 2), "node", "halves")
    eighth = Condition(Relation.MULTIPLE, N, 8, "node", "eighths")
    assert multiple_that_fits([half], "N") == 2
    assert multiple_that_fits([half, eighth], "N") == 8
    assert multiple_that_fits([Condition(Relation.EQUAL, N, 3, "node", "three")], "N") is None
