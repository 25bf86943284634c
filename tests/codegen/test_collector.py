"""The garbage collector while something is compiled."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from graphkiln.codegen.collector import THRESHOLDS, rare_collections

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


def test_seldom_within_and_as_before_after() -> None:
    with pytest.raises(KeyError), rare_collections():
        assert gc.get_threshold() == THRESHOLDS
        raise KeyError
    assert gc.get_threshold() == USUAL


@pytest.mark.parametrize("own", [(0, 10, 10), (1_000_000, 10, 10)])
def test_rarer_ones_of_the_process_stay(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with rare_collections():
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own


def test_two_at_once_leave_what_was_before() -> None:
    first, second = rare_collections(), rare_collections()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == USUAL


def test_what_others_set_meanwhile_stays() -> None:
    with rare_collections():
        gc.set_threshold(1234, 5, 6)
    assert gc.get_threshold() == (1234, 5, 6)
