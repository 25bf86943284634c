"""Damaged models end in one clear error, quickly, and without a traceback.

``pytest tests/frontend/test_mutations.py -m slow`` tries 2,000 of them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import onnx.backend.test
import pytest
from frontend.mutate import mutate_bytes, mutate_fields

from graphkiln.frontend import FrontendError, load_model

_DATA = Path(onnx.backend.test.__file__).parent / "data"
_SECONDS = 10


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    """The small models that come with onnx: control flow, sequences, functions, old opsets."""
    found = sorted(_DATA.glob("simple/*/model.onnx")) + sorted(_DATA.glob("pytorch-*/*/model.onnx"))
    assert len(found) > 100
    return [path.read_bytes() for path in found]


def _mutants(models: list[bytes], seeds: range) -> Iterator[tuple[int, bytes]]:
    for seed in seeds:
        rng = random.Random(seed)
        mutate = mutate_bytes if seed % 2 else mutate_fields
        yield seed, mutate(rng.choice(models), rng)


def _check(models: list[bytes], seeds: range) -> None:
    refused = 0
    for seed, data in _mutants(models, seeds):
        start = time.monotonic()
        try:
            load_model(data)
        except FrontendError as e:
            refused += 1
            assert e.blockers, seed
            lines = str(e).split("\n")
            assert all(s.startswith("<bytes>: ") and s.isprintable() for s in lines), seed
        assert time.monotonic() - start < _SECONDS, seed
    assert refused > len(seeds) // 4, "the mutations are too tame"


def test_mutated_models(models: list[bytes]) -> None:
    _check(models, range(200))


@pytest.mark.slow
def test_many_mutated_models(models: list[bytes]) -> None:
    _check(models, range(200, 2200))
