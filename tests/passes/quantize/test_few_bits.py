"""Weights of few bits: codes, steps, packing, and rounding that makes up for its errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from graphkiln.ir.ops.quant_evaluate import unpack_fields
from graphkiln.passes.quantize.few_bits import (
    FewBits,
    Format,
    least_error,
    pack_fields,
    rounded,
    whole_range,
)
from graphkiln.passes.quantize.gptq import reconstructed

RNG = np.random.default_rng(1)
FORMS = st.builds(Format, st.sampled_from([2, 4, 8]), st.sampled_from([16, 32]), st.booleans())


def weights(inner: int = 96, columns: int = 24) -> np.ndarray:
    return RNG.standard_normal((inner, columns)).astype(np.float32)


def noise(w: np.ndarray, found: FewBits, gram: np.ndarray) -> float:
    off = found.values() - w
    return float(np.sum((gram @ off) * off))


@given(
    w=arrays.arrays(np.float32, st.tuples(st.integers(1, 70), st.integers(1, 3)),
                    elements=st.floats(-1e4, 1e4, width=32)),
    form=FORMS,
)  # fmt: skip
def test_the_whole_range_is_off_by_half_a_step(w: np.ndarray, form: Format) -> None:
    found = rounded(w, form)
    assert found.codes.max() <= form.most and found.scales.shape == (
        -(-len(w) // form.block),
        w.shape[1],
    )
    step = np.repeat(np.abs(found.scales), form.block, axis=0)[: len(w)].astype(np.float64)
    # Symmetric codes reach one step less on the side that the largest weight is not on.
    slack = 1.0 if form.symmetric else 0.5 + 1e-3
    assert np.all(np.abs(found.values() - w) <= step * (slack + 1e-5) + 1e-30)
    assert np.all(found.values()[w == 0] == 0)


def test_the_largest_weight_is_exact() -> None:
    w = np.array([[1.0, -1.0], [-8.0, 8.0], [3.0, 3.0]], np.float32)
    np.testing.assert_array_equal(rounded(w, Format()).values()[1], [-8, 8])


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_narrower_range_is_taken_where_it_is_better(symmetric: bool) -> None:
    form = Format(4, 32, symmetric)
    w = weights()
    plain, best = (rounded(w, form, find).values() - w for find in (whole_range, least_error))
    by_block = [np.sum(off.reshape(3, 32, -1) ** 2, axis=1) for off in (plain, best)]
    assert np.all(by_block[1] <= by_block[0] + 1e-12)
    assert by_block[1].sum() < 0.93 * by_block[0].sum()


@given(codes=arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 20))),
       bits=st.sampled_from([2, 4, 8]))  # fmt: skip
def test_packed_fields_are_unpacked(codes: np.ndarray, bits: int) -> None:
    codes &= (1 << bits) - 1
    found = unpack_fields(pack_fields(codes, bits), bits)[:, : codes.shape[1]]
    np.testing.assert_array_equal(found, codes)


def test_operands_have_the_shapes_of_the_op() -> None:
    data, scales, zeros = rounded(weights(70, 5), Format(4, 32, False)).operands()
    assert zeros is not None
    assert (data.shape, scales.shape, zeros.shape) == ((5, 3, 16), (5, 3), (5, 2))
    assert rounded(weights(70, 5), Format()).operands()[2] is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [((3, 32), "bits must be 2, 4 or 8, not 3"), ((4, 24), "power of two"), ((4, 8), "from 16")],
)
def test_formats_that_there_are_not(options: tuple[int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Format(*options)


# ---- reconstruction ------------------------------------------------------------------------------


def operands(rank: int, inner: int = 160) -> np.ndarray:
    """Correlated ones, as activations are."""
    mixed = RNG.standard_normal((400, rank)) @ RNG.standard_normal((rank, inner))
    return mixed + 0.05 * RNG.standard_normal((400, inner))


@pytest.mark.parametrize("form", [Format(), Format(4, 16, False), Format(2, 64)])
def test_results_are_closer_by_two_decibels(form: Format) -> None:
    x, w = operands(20), weights(160)
    gram = x.T @ x
    nearest = min(noise(w, rounded(w, form, find), gram) for find in (whole_range, least_error))
    assert noise(w, reconstructed(w, gram, form), gram) < nearest / 10**0.2


def test_by_its_definition() -> None:
    """Row by row, with the inverse of what is left of H worked out anew each time."""
    x, w, form = operands(30, 40), weights(40, 3), Format(4, 16)
    gram = x.T @ x
    damped = gram + 0.01 * np.mean(np.diag(gram)) * np.eye(40)
    rest, wanted = w.astype(np.float64), np.empty((40, 3))
    for k in range(40):
        if k % 16 == 0:
            scale, zero = least_error(rest[k : k + 16], form)
        code = np.clip(np.round(rest[k] / scale.astype(np.float64)) + zero, 0, 15)
        wanted[k] = (code - zero) * scale.astype(np.float64)
        inverse = np.linalg.inv(damped[k:, k:])
        rest[k:] -= np.outer(inverse[:, 0], (rest[k] - wanted[k]) / inverse[0, 0])
    np.testing.assert_allclose(reconstructed(w, gram, form).values(), wanted, atol=1e-9)


@pytest.mark.parametrize("inner", [128, 150, 290])
def test_blocks_that_cross_groups_of_rows(inner: int) -> None:
    """Blocks of 256 rows, of which 128 are done together."""
    x, w, form = operands(30, inner), weights(inner, 4), Format(4, 256)
    gram = x.T @ x
    assert noise(w, reconstructed(w, gram, form), gram) < 0.7 * noise(w, rounded(w, form), gram)


def test_operands_that_are_never_seen() -> None:
    w = weights(64)
    found = reconstructed(w, np.zeros((64, 64)), Format())
    np.testing.assert_array_equal(found.codes, rounded(w, Format(), least_error).codes)
