"""Patterns of sparsity against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.passes.prune.patterns import Blocks, OfEach, parse_pattern

SHAPES = st.tuples(*(st.integers(1, n) for n in (2, 9, 9, 3)))


@given(SHAPES, st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_a_block_scores_the_root_of_its_mean_square(
    shape: tuple[int, ...], outputs: int, inputs: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).normal(size=shape)
    form = Blocks(outputs, inputs)
    scores = form.scores(weights)
    spread = form.spread(scores, shape)
    assert spread.shape == shape
    for g, i, o, p in np.ndindex(*shape):
        i0, o0 = i // inputs * inputs, o // outputs * outputs
        part = weights[g, i0 : i0 + inputs, o0 : o0 + outputs, p]
        assert spread[g, i, o, p] == pytest.approx(np.sqrt((part**2).mean()))


@given(SHAPES, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_of_each_few_the_largest_stay(
    shape: tuple[int, ...], kept: int, more: int, seed: int
) -> None:
    weights = np.random.default_rng(seed).integers(-9, 9, shape).astype(float)
    of = kept + more
    mask = OfEach(kept, of).mask(weights)
    for g, _, o, p in np.ndindex(*shape):
        for start in range(0, shape[1], of):
            part = np.abs(weights[g, start : start + of, o, p])
            stays = mask[g, start : start + of, o, p]
            assert stays.sum() == min(kept, len(part))
            assert not (~stays).any() or part[stays].min() >= part[~stays].max()


def test_texts() -> None:
    assert parse_pattern("16x4") == Blocks(16, 4)
    assert parse_pattern("2:4") == OfEach(2, 4)
    for text in ("", "0x1", "4:4", "5:4", "2:0", "x4", "dense", "16x99999"):
        with pytest.raises(ValueError, match="is no pattern"):
            parse_pattern(text)
