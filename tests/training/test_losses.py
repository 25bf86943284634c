"""Losses against their definitions, in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.training.augment import Augmentation, AugmentError
from graphkiln.training.errors import TrainingError
from graphkiln.training.losses import (
    Projection,
    attention_loss,
    feature_loss,
    hard_loss,
    soft_loss,
)
from graphkiln.training.recipe import Match, Recipe, RecipeError
from graphkiln.training.trainer import rate_factor


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 10), st.sampled_from([1, -1]))
def test_soft_loss(seed: int, temperature: float, axis: int) -> None:
    random = np.random.default_rng(seed)
    s, t = (random.normal(0, 3, (4, 5, 2)) for _ in range(2))
    p, q = (_softmax(x / temperature, axis) for x in (t, s))
    want = (p * np.log(p / q)).sum(axis).mean() * temperature**2
    got = soft_loss(torch.tensor(s), torch.tensor(t), temperature, axis)
    assert float(got) == pytest.approx(want, rel=1e-6, abs=1e-12)
    assert float(soft_loss(torch.tensor(s), torch.tensor(s), temperature, axis)) == 0


def test_hard_loss() -> None:
    s = np.random.default_rng(0).normal(size=(4, 3))
    labels = np.array([0, 2, 1, 1])
    want = -np.log(_softmax(s, 1)[np.arange(4), labels]).mean()
    assert float(hard_loss(torch.tensor(s), torch.tensor(labels), -1)) == pytest.approx(want)


def test_features_and_attention() -> None:
    random = np.random.default_rng(0)
    s, t = random.normal(size=(2, 3, 4, 4)), random.normal(size=(2, 3, 4, 4))
    want = ((s - t) ** 2).mean() / (t**2).mean()
    assert float(feature_loss(torch.tensor(s), torch.tensor(t))) == pytest.approx(want)
    maps = [(x**2).sum(1).reshape(2, -1) for x in (s, t)]
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    want = ((a - b) ** 2).sum(1).mean()
    assert float(attention_loss(torch.tensor(s), torch.tensor(t))) == pytest.approx(want)
    assert float(attention_loss(torch.tensor(2 * s), torch.tensor(s))) < 1e-15
    with pytest.raises(TrainingError, match="has no"):
        attention_loss(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(TrainingError, match="other sizes"):
        attention_loss(torch.ones(2, 3, 4), torch.ones(2, 5, 4))


def test_projections_map_channels() -> None:
    s, t = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    found = Projection(s, t)
    assert found(s).shape == t.shape
    torch.testing.assert_close(found(s)[:, 3], s[:, 0])
    assert Projection(s, s).map is None
    with pytest.raises(TrainingError, match="more than their channels"):
        Projection(s, torch.randn(2, 5, 2, 2))


def test_recipes_refuse_what_makes_no_sense() -> None:
    for wrong in ({"epochs": 0}, {"alpha": 1.5}, {"loss": "l1"}, {"validation": 1.0},
                  {"lr": math.nan}, {"schedule": "steps"}):  # fmt: skip
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            Recipe(**wrong)  # type: ignore[arg-type]
    assert Match.parse("a=b") == Match("a", "b")
    assert Match.parse("a") == Match("a", "a")
    for text in ("", "a=", "=b"):
        with pytest.raises(RecipeError, match="STUDENT=TEACHER"):
            Match.parse(text)


def test_schedules() -> None:
    cosine = [rate_factor(Recipe(warmup=0.2), i, 10) for i in range(10)]
    assert cosine[:3] == [0.5, 1.0, 1.0] and cosine[1:] == sorted(cosine[1:], reverse=True)
    assert rate_factor(Recipe(warmup=0.0), 0, 10) == 1.0
    assert rate_factor(Recipe(warmup=0.0), 5, 10) == pytest.approx(0.5)
    assert rate_factor(Recipe(warmup=0.0, schedule="constant"), 9, 10) == 1.0
    assert rate_factor(Recipe(schedule="one-cycle"), 1, 10) == pytest.approx(2 / 3)


# ---- augmentation --------------------------------------------------------------------------------


def _random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augmentation_is_seeded_and_bounded() -> None:
    x = torch.zeros(6, 1, 9, 9)
    x[:, :, 4, 4] = 1.0
    moving = Augmentation.parse("shift=2")
    a, b = (moving.apply(x, _random()) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, moving.apply(x, _random(1)))
    places = torch.arange(9.0)
    for image in a[:, 0]:
        total = image.sum()
        row, column = (image.sum(1) * places).sum() / total, (image.sum(0) * places).sum() / total
        assert abs(row - 4) <= 2 and abs(column - 4) <= 2 and total == pytest.approx(1, abs=1e-4)


def test_rotation_keeps_the_middle() -> None:
    x = torch.randn(3, 2, 7, 7)
    found = Augmentation.parse("rotate=180,scale=0.3,shear=0.2").apply(x, _random())
    torch.testing.assert_close(found[:, :, 3, 3], x[:, :, 3, 3], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, x)


def test_noise_and_what_is_left_alone() -> None:
    noisy = Augmentation.parse("noise=0.5")
    x = torch.zeros(10000)
    assert float(noisy.apply(x, _random()).std()) == pytest.approx(0.5, rel=0.05)
    tokens = torch.arange(4)
    assert noisy.apply(tokens, _random()) is tokens
    assert torch.equal(Augmentation().apply(x, _random()), x)


@pytest.mark.parametrize("text", ["shift", "shift=-1", "turn=3", "noise=x", "noise=inf"])
def test_augmentations_that_make_no_sense(text: str) -> None:
    with pytest.raises(AugmentError, match="NAME=NUMBER"):
        Augmentation.parse(text)
