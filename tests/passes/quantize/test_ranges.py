"""Files of ranges: read back, merged, refused with the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphkiln.passes.ranges import Range, RangesError, merge_ranges, read_ranges, write_ranges

RANGES = {"conv/1": Range(-1.5, 6.0), "x": Range(0.0, 0.1)}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(write_ranges(RANGES))
    assert read_ranges(path) == RANGES
    assert list(read_ranges(path)) == list(RANGES)


def test_merged_ranges_hold_both() -> None:
    other = {"x": Range(-1.0, 0.05), "y": Range(2.0, 3.0)}
    assert merge_ranges(RANGES, other) == {
        "conv/1": Range(-1.5, 6.0), "x": Range(-1.0, 0.1), "y": Range(2.0, 3.0),
    }  # fmt: skip
    assert RANGES["x"] == Range(0.0, 0.1)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_ranges_that_are_none(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="low must not be above high"):
        Range(*ends)


HEAD = {"graphkiln ranges": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("[1]", "does not begin with 'graphkiln ranges': 1"),
        ('{"graphkiln ranges": 2, "tensors": {}}', "does not begin with"),
        (json.dumps(HEAD), "has no tensors"),
        (json.dumps({**HEAD, "tensors": {"x": {"low": 0}}}), "tensor 'x': misses 'high'"),
        (json.dumps({**HEAD, "tensors": {"x": {"low": 1, "high": 0}}}), "tensor 'x': low must"),
        (json.dumps({**HEAD, "tensors": {"x": {"low": "a", "high": 0}}}), "tensor 'x': could not"),
        (json.dumps({**HEAD, "tensors": {"x": 3}}), "tensor 'x': "),
    ],
)
def test_damaged_files_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(RangesError) as caught:
        read_ranges(path)
    assert str(caught.value).startswith(f"{path}: ") and reason in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RangesError, match="No such file"):
        read_ranges(tmp_path / "none.json")
