"""Estimates of layers in floats and in bytes: what is faster, and by what it is bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphkiln.ir.choices import ProductShape
from graphkiln.ir.layer_work import LayerWork
from graphkiln.ir.windows import ConvShape
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.layer_speed import joining_seconds, layer_seconds, rounding_seconds
from graphkiln.targets.cpu.speed import BANDWIDTH

POINTWISE = LayerWork(
    ConvShape(256, 256, 1, (1, 1), (1, 1), (1, 1), (14, 14), False), 1, 256 * 196, 256 * 256
)
DEPTHWISE = LayerWork(
    ConvShape(1, 1, 256, (3, 3), (1, 1), (1, 1), (14, 14), False), 1, 256 * 196, 256 * 9
)
ONE_ROW = LayerWork(ProductShape(1, 4096, 4096), 1, 4096, 4096 * 4096)
VNNI, AVX2 = features_of("cascadelake"), features_of("x86-64-v3")


def gain(cpu: str, work: LayerWork) -> float:
    features = features_of(cpu)
    floats, integers = (layer_seconds(features, w) for w in (work, work.in_bytes()))
    assert floats is not None and integers is not None
    return floats / integers


def test_dot_products_of_bytes_multiply_several_times_as_fast() -> None:
    assert 3 < gain("cascadelake", POINTWISE) < 4.5
    assert 1.3 < gain("x86-64-v3", POINTWISE) < 2.3
    assert gain("cascadelake", DEPTHWISE) < 1.5 and gain("x86-64-v3", DEPTHWISE) < 1.2


def test_a_row_takes_as_long_as_its_weights() -> None:
    seconds = layer_seconds(VNNI, ONE_ROW)
    assert seconds == pytest.approx(4 * 4096 * 4096 / BANDWIDTH, rel=0.01)
    assert gain("cascadelake", ONE_ROW) == pytest.approx(4, rel=0.01)


def test_what_the_cache_does_not_hold_comes_from_memory() -> None:
    """Written once and read once, without what stays."""
    large = replace(DEPTHWISE, read=10**7)
    moved = 8e7 - VNNI.l2 + 4 * DEPTHWISE.weights
    assert layer_seconds(VNNI, large) == pytest.approx(moved / BANDWIDTH)


def test_skipping_positions_makes_steps_slower() -> None:
    assert isinstance(DEPTHWISE.shape, ConvShape)
    strided = replace(DEPTHWISE, shape=replace(DEPTHWISE.shape, strides=(2, 2)))
    for work in (DEPTHWISE, DEPTHWISE.in_bytes()):
        twice = strided if work is DEPTHWISE else strided.in_bytes()
        assert layer_seconds(VNNI, twice) == pytest.approx(2 * (layer_seconds(VNNI, work) or 0))


def test_images_count_each() -> None:
    one, many = (layer_seconds(VNNI, replace(POINTWISE, images=n)) for n in (1, 8))
    assert one is not None and many == pytest.approx(8 * one)


def test_bytes_are_not_known_without_dot_products() -> None:
    plain = features_of("aarch64")
    assert layer_seconds(plain, POINTWISE) is not None
    assert layer_seconds(plain, POINTWISE.in_bytes()) is None


def test_wider_registers_round_faster() -> None:
    assert rounding_seconds(VNNI, 1000) < rounding_seconds(AVX2, 1000) / 2
    assert rounding_seconds(VNNI, 2000) == pytest.approx(2 * rounding_seconds(VNNI, 1000))


def test_wider_registers_join_faster() -> None:
    assert joining_seconds(VNNI, 1000) == pytest.approx(joining_seconds(AVX2, 1000) / 2)
