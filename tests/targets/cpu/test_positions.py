"""Positions of images in the rows of register tiles: all of them, and each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.windows import ConvShape
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.positions import image_runs, rank_conv_tiles, rows_of_tile

extents = st.integers(1, 60)


@given(extents, extents, st.integers(1, 28))
def test_tiles_cover_an_image_exactly(height: int, width: int, limit: int) -> None:
    runs = image_runs(height, width, limit)
    assert sum(size * count for size, count in runs) == height * width
    assert max(size for size, _ in runs) <= limit


def test_takes_whole_rows_where_they_fit() -> None:
    assert [rows_of_tile(7, 7, limit) for limit in (6, 7, 13, 14)] == [0, 1, 1, 2]
    assert image_runs(7, 7, 14) == [(14, 3), (7, 1)]
    for unknown in ((None, 7), (7, None), (1, 7)):
        assert rows_of_tile(*unknown, 14) == 0
    assert rows_of_tile(7, 0, 14) == 0 and image_runs(7, 0, 14) == []


def test_unknown_extents_fill_tiles() -> None:
    assert image_runs(None, None, 14) == [(14, 4), (8, 1)]
    assert image_runs(3, None, 16) == [(16, 12)]


@pytest.mark.parametrize("cpu", ["sapphirerapids", "x86-64-v3", "aarch64"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_an_unknown_image_takes_the_tile_of_a_large_one(cpu: str, kernel: int) -> None:
    """Tiles of unequal size are compared by what a position costs."""
    features = features_of(cpu)
    unknown, large = (
        rank_conv_tiles(features, shape(image, kernel))[0] for image in ((None, None), (64, 64))
    )
    assert unknown.vectors == large.vectors


def shape(image: tuple[int | None, ...], kernel: int, strides: int = 1) -> ConvShape:
    rank = len(image)
    return ConvShape(
        512, 512, 1, (kernel,) * rank, (strides,) * rank, (1,) * rank, image, False
    )  # fmt: skip


@pytest.mark.parametrize("cpu", ["sapphirerapids", "x86-64-v3", "aarch64"])
def test_a_pointwise_image_counts_as_one_row(cpu: str) -> None:
    features = features_of(cpu)
    square, row = (rank_conv_tiles(features, shape(i, 1)) for i in ((7, 7), (49,)))
    assert square == row
    assert rank_conv_tiles(features, shape((None, 7), 1)) == rank_conv_tiles(
        features, shape((None,), 1)
    )


@pytest.mark.parametrize("cpu", ["sapphirerapids", "x86-64-v3", "aarch64"])
@pytest.mark.parametrize(
    "volume, kernel, image, like",
    [
        ((4, 5, 9), (1, 3, 3), (5, 9), (3, 3)),
        ((None, 5, 9), (1, 3, 3), (5, 9), (3, 3)),
        ((5, 9, 1), (3, 3, 1), (5, 9), (3, 3)),
        ((5, 1, 9), (3, 1, 3), (5, 9), (3, 3)),
        ((9, 1, 1), (3, 1, 1), (9,), (3,)),
        ((3, 4, 5), (1, 1, 1), (60,), (1,)),
    ],
)
def test_volumes_count_as_the_images_they_consist_of(
    volume: tuple[int | None, ...], kernel: tuple[int, ...], image: tuple[int, ...],
    like: tuple[int, ...], cpu: str,
) -> None:  # fmt: skip
    ones, pair = (1, 1, 1), (1,) * len(image)
    mine = ConvShape(64, 64, 1, kernel, ones, ones, volume, False)
    theirs = ConvShape(64, 64, 1, like, pair, pair, image, False)
    assert rank_conv_tiles(features_of(cpu), mine) == rank_conv_tiles(features_of(cpu), theirs)


def test_weights_that_do_not_stay_near_make_narrow_tiles() -> None:
    features = features_of("sapphirerapids")
    assert rank_conv_tiles(features, shape((7, 7), 3))[0].vectors == 2
