"""Arguments of the wrong kind: one line that says what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import MODELS

import graphkiln
from graphkiln.driver import CompileOptions, OptionError
from graphkiln.runtime import InputError, Session, load, verify

DIGITS = MODELS / "mnist_cntk.onnx"


@pytest.fixture(scope="module")
def made() -> graphkiln.Artifact:
    return graphkiln.compile(DIGITS, jobs=1)


@pytest.fixture(scope="module")
def session(made: graphkiln.Artifact) -> Session:
    return made.session(threads=1)


IMAGE = np.zeros((1, 1, 28, 28), np.float32)
OUTPUT = "Plus214_Output_0"


@pytest.mark.parametrize(
    "names", [None, [], (), np.array([]), np.array([OUTPUT]), (OUTPUT,), iter([OUTPUT])]
)
def test_names_of_outputs(session: Session, names: Any) -> None:
    assert len(session.run(names, {"Input3": IMAGE})) == 1


@pytest.mark.parametrize(
    "names", [5, object(), OUTPUT, b"x", [b"x"], [[OUTPUT]], [None], np.array(1), ["x" * 10**6]]
)
def test_odd_names_of_outputs(session: Session, names: Any) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]{10,400}\Z"):
        session.run(names, {"Input3": IMAGE})


@pytest.mark.parametrize("feeds", [
    IMAGE, [IMAGE], None, 5, "x", (IMAGE,), iter([1]), [("Input3", IMAGE)], {5: IMAGE},
    {"Input3": None}, {"Input3": {}}, {"Input3": object()}, {"Input3": "s"},
])  # fmt: skip
def test_odd_feeds(session: Session, feeds: Any) -> None:
    session.run(None, {"Input3": IMAGE})  # so that the shapes are known
    with pytest.raises(InputError, match=r"\A[^\n]{10,400}\Z"):
        session.run(None, feeds)


@pytest.mark.parametrize("path", [b"model.kiln", 5, None, [], object(), np.zeros(3)])
def test_odd_paths(made: graphkiln.Artifact, path: Any) -> None:
    for use in (load, verify, made.save):
        with pytest.raises(InputError, match="path is a str or a path, not a"):
            use(path)
    if not isinstance(path, bytes):
        with pytest.raises(InputError, match="a model is a path, bytes or an onnx.ModelProto"):
            graphkiln.compile(path)


@pytest.mark.parametrize("option", [
    {"target": 5}, {"target": None}, {"shapes": 5}, {"shapes": {"Input3": 5}},
    {"shapes": {"Input3": "1x1"}}, {"shapes": np.zeros(3)}, {"passes": ["fold"]}, {"jobs": "x"},
    {"jobs": -1}, {"jobs": True}, {"linker": b"cc"}, {"stop_after": 1.5}, {"dump_ir": 5},
    {"tune": "x"}, {"tuned": 1},
])  # fmt: skip
def test_odd_options(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(OptionError, match=rf"\A(the shape of 'Input3'|{name}) must be [^\n]+\Z"):
        CompileOptions(**option)


def test_a_path_may_be_an_object_of_bytes(made: graphkiln.Artifact, tmp_path: Path) -> None:
    class Odd:
        def __fspath__(self) -> bytes:
            return bytes(tmp_path / "m.kiln")

    made.save(Odd())
    load(Odd()).run(None, {"Input3": IMAGE})
