"""What runs a model on feeds inside a child process: onnxruntime, onnx.reference and graphkiln."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from open_feeds import without_shapes

Run = Callable[[Mapping[str, Any]], list[Any]]

OLDEST = 13
"""The first opset in which the lists of axes and the like are inputs, as they are today."""


@dataclass(frozen=True)
class Load:
    """Asks for another model; the answer is None, or a :class:`Raised`."""

    model: bytes


@dataclass(frozen=True)
class Feeds:
    """Asks for a run; the answer is the list of outputs, or a :class:`Raised`."""

    feeds: Mapping[str, Any]


@dataclass(frozen=True)
class Close:
    """Asks whether outputs are within rounding of those wanted: None, or what differs."""

    feeds: Mapping[str, Any]
    got: list[Any]
    wanted: list[Any]


@dataclass(frozen=True)
class Raised:
    """An error; ``meant`` where it is one for people, and no fault of the program."""

    text: str
    meant: bool = True


class Judge:
    """Answers questions with what ``load`` makes of the model that came last."""

    def __init__(self, load: Callable[[onnx.ModelProto], Run]) -> None:
        self._load = load
        self._run: Run | None = None
        self._model = b""

    def __call__(self, question: Load | Feeds | Close) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return self._answer(question)
            except Exception as e:
                return _raised(e)

    def _answer(self, question: Load | Feeds | Close) -> Any:
        if isinstance(question, Load):
            self._run = None
            self._model = question.model
            self._run = self._load(onnx.ModelProto.FromString(question.model))
            return None
        if isinstance(question, Close):
            return _close(onnx.ModelProto.FromString(self._model), question)
        assert self._run is not None
        return [_sent(v) for v in self._run(question.feeds)]


def _raised(error: Exception) -> Raised:
    from fuzz.judge import meant

    # onnxruntime says where in its sources it stopped before it says why.
    place = r"\[ONNXRuntimeError\].*Status Message: (/\S+ .*?\) )?"
    said = re.sub(place, "", str(error), flags=re.S)
    text = f"{type(error).__name__}: {said}"
    return Raised(text, meant(error) or text.endswith("need more memory than there is"))


def _sent(value: Any) -> Any:
    """Arrays and lists of them; what libraries return as scalars is an array too."""
    if isinstance(value, list | tuple):
        return [_sent(v) for v in value]
    return value if value is None else np.asarray(value)


def _close(model: onnx.ModelProto, question: Close) -> str | None:
    from fuzz.judge import differs
    from fuzz.tolerance import samples

    from graphkiln.driver import import_model

    graph = import_model(model).graph
    return differs(question.got, question.wanted, samples(graph, question.feeds))


def onnxruntime_run(model: onnx.ModelProto) -> Run:
    """onnxruntime without optimisations; raises what it raises.

    Where it cannot load the model as it is, it gets one without the inputs' shapes (its inference
    takes open lengths for 0), or one of an older opset (it lacks the newest version of some ops).
    """
    from fuzz.judge import Failed, onnxruntime_session

    refusal: Failed | None = None
    for variant in _variants(model):
        try:
            session = onnxruntime_session(variant)
        except Failed as e:
            refusal = refusal or e
            continue
        return lambda feeds: list(session.run(None, dict(feeds)))
    assert refusal is not None
    raise refusal


def _variants(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    yield model
    yield without_shapes(model)
    newest = next((o.version for o in model.opset_import if not o.domain), 0)
    for version in range(newest - 1, OLDEST - 1, -1):
        older = onnx.ModelProto.FromString(model.SerializeToString())
        next(o for o in older.opset_import if not o.domain).version = version
        yield older


def reference_run(model: onnx.ModelProto) -> Run:
    """The ONNX project's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda feeds: list(evaluator.run(None, dict(feeds)))


def graphkiln_run(model: onnx.ModelProto) -> Run:
    """Compiled by the default passes."""
    from fuzz.judge import compiled

    session = compiled(model, None)
    return lambda feeds: session.run(None, feeds)
