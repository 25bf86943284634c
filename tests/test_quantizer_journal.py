"""Quantization that was stopped goes on from its journal, and comes to the same result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.breaking_model import accuracy, model, samples, schemes

import graphkiln
from graphkiln.ir.magnitudes import BINS
from graphkiln.passes.quantize.histogram import Histogram
from graphkiln.passes.services import NoJournal
from graphkiln.quantizer.files import write_text
from graphkiln.quantizer.journal import Journal, JournalError


class Stopped(BaseException):
    """As an interrupt is: nobody catches it."""


class Data:
    """Samples that count how often they are asked for, and stop the program once."""

    def __init__(self, stop: int | None) -> None:
        self.stop, self.asked = stop, 0
        self.samples = samples()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for number, sample in enumerate(self.samples):
            if number == self.stop:
                raise Stopped
            self.asked += 1
            yield sample


@pytest.fixture(autouse=True)
def every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphkiln.quantizer.journal._OFTEN", -1.0)


def bytes_of(found: graphkiln.Quantized) -> bytes:
    return found.to_onnx().SerializeToString()


def test_stopped_calibration_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "j.json"
    with pytest.raises(Stopped):
        graphkiln.quantize(model(), Data(7), journal=journal, method="average", jobs=1)
    assert json.loads(journal.read_text())["entries"]["seen"]["samples"] == 7
    rest = Data(None)
    found = graphkiln.quantize(model(), rest, journal=journal, method="average", jobs=1)
    assert bytes_of(found) == bytes_of(
        graphkiln.quantize(model(), samples(), method="average", jobs=1)
    )
    assert found.report == graphkiln.quantize(model(), samples(), method="average", jobs=1).report


def test_stopped_control_goes_on(tmp_path: Path) -> None:
    calls = 0

    def metric(results: Any, sample: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 30:  # in the middle of the first candidate that leaves a layer
            raise Stopped
        return accuracy(results, sample)

    journal = tmp_path / "j.json"
    options: dict[str, Any] = {"metric": metric, "max_drop": 0.05, "jobs": 1}
    wanted = graphkiln.quantize(model(), samples(), **{**options, "metric": accuracy})
    with pytest.raises(Stopped):
        graphkiln.quantize(model(), samples(), journal=journal, **options)
    entries = json.loads(journal.read_text())["entries"]
    assert {"seen", "float score", "score without ", "noise"} <= set(entries)
    before = calls
    found = graphkiln.quantize(model(), samples(), journal=journal, **options)
    assert calls - before == 12
    assert bytes_of(found) == bytes_of(wanted) and schemes(found) == schemes(wanted)
    assert found.score == wanted.score and found.float_score == wanted.float_score


def test_other_work_starts_anew(tmp_path: Path) -> None:
    journal = tmp_path / "j.json"
    graphkiln.quantize(model(), samples(), journal=journal, jobs=1)
    data = Data(None)
    graphkiln.quantize(model(), data, journal=journal, jobs=1)
    assert data.asked == 12  # they are gone through, and not run
    first = Journal(journal, "another")
    assert first.load("seen") is None


def test_entries_come_back(tmp_path: Path) -> None:
    path = tmp_path / "j.json"
    journal = Journal(path, "k")
    journal.save("a", 1.5)
    journal.save("b", {"x": [1, None]})
    again = Journal(path, "k")
    assert again.load("a") == 1.5 and again.load("b") == {"x": [1, None]}
    assert again.load("c") is None
    assert [p.name for p in tmp_path.iterdir()] == ["j.json"]


def test_what_is_under_way_is_written_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j.json", "k")
    assert journal.is_due()
    monkeypatch.setattr("graphkiln.quantizer.journal._OFTEN", 1e9)
    journal.save("a", 1)
    assert not journal.is_due()
    assert not Journal(None, "k").is_due() and not NoJournal().is_due()


def test_without_a_file_nothing_is_kept() -> None:
    journal = Journal(None, "k")
    journal.save("a", 1)
    assert journal.load("a") is None


@pytest.mark.parametrize("text", ["no JSON", "[1]", "{}", '{"graphkiln journal": 1}'])
def test_files_of_another_kind_are_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "j.json"
    path.write_text(text)
    with pytest.raises(JournalError) as caught:
        Journal(path, "k")
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_text() == text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "no" / "j.json", "k").save("a", 1)


@given(
    st.lists(
        st.tuples(st.floats(-(2.0**90), 0, width=32), st.floats(0, 2.0**90, width=32),
                  st.lists(st.integers(0, BINS - 1), max_size=5)),
        max_size=4,
    )
)  # fmt: skip
def test_histograms_come_back(runs: list[tuple[float, float, list[int]]]) -> None:
    seen = Histogram()
    for low, high, bins in runs:
        seen.add(np.bincount(bins, minlength=BINS).astype(np.int64), low, high)
    again = Histogram.from_json(json.loads(json.dumps(seen.to_json())))
    np.testing.assert_array_equal(again.counts, seen.counts)
    assert (again.low, again.high, again.runs) == (seen.low, seen.high, seen.runs)
    assert (again.mean_low, again.mean_high) == (seen.mean_low, seen.mean_high)


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    """As the user's mask says, like any other file."""
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "r.json", "{}")
    modes = {name: (tmp_path / name).stat().st_mode for name in ("plain", "r.json")}
    assert modes["r.json"] == modes["plain"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "r.json"]
    with pytest.raises(OSError):
        write_text(tmp_path / "none" / "r.json", "{}")
