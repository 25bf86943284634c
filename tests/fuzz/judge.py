"""Runs a graph by several judges and says where graphkiln stands alone."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import graphkiln
from graphkiln.driver import import_model
from graphkiln.errors import GraphkilnError
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.runtime import Session

from .tolerance import MORE, SAMPLES, difference, samples
from .unneeded import unneeded_failure

Feeds = Mapping[str, Any]


class Failed(Exception):
    """A judge has no result; the text says why."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a graph.

    ``kind`` is ``wrong`` (other numbers than every judge), ``reference`` (onnxruntime agrees and
    only the project's own reference does not), ``refused`` (not compiled, or no run although
    others run), ``accepted`` (numbers where the others refuse), ``failed`` (an error that is not
    meant), ``passes`` (other numbers with other passes), ``crash`` or ``timeout``. ``feeds`` is
    the number of the feeds.
    """

    kind: str
    feeds: int
    message: str
    passes: str | None = None

    def same_fault(self, other: Finding) -> bool:
        """Whether a smaller graph shows what this one does."""
        return self.kind == other.kind


@dataclass
class Subject:
    """A model, its feeds, and the pipelines to compile it with besides the default one."""

    model: onnx.ModelProto
    feeds: Sequence[Feeds]
    pipelines: Sequence[str] = ()

    @cached_property
    def graph(self) -> Graph:
        """As it is imported; raises what the frontend raises."""
        return import_model(self.model).graph


def onnxruntime_session(model: onnx.ModelProto) -> Any:
    """onnxruntime without optimisations; raises :class:`Failed`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as e:
        raise Failed(str(e)) from e


def peer_results(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[Any]:
    """onnxruntime's outputs for each feed; an exception where it has none."""
    try:
        session = onnxruntime_session(model)
    except Failed as e:
        return [e] * len(feeds)
    return [_attempt(lambda f=f: session.run(None, dict(f))) for f in feeds]


def _attempt(run: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except Exception as e:
        return e


def compiled(model: onnx.ModelProto, passes: str | None, target: str = "cpu") -> Session:
    """The model in this process; two threads, so that parallel loops have tasks."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        artifact = graphkiln.compile(model, target=target, passes=passes, jobs=1)
        return graphkiln.load(artifact.save(Path(folder) / "m.kiln"), threads=2)


def judge(subject: Subject, target: str = "cpu", peer: bool = True) -> Finding | None:
    """The first thing that is wrong, or None; without the ``peer`` only the reference judges."""
    peers: list[Any] = [Failed("not asked")] * len(subject.feeds)
    if peer:
        peers = peer_results(subject.model, subject.feeds)
    try:
        subject.graph  # noqa: B018 - made by asking for it
    except Exception as e:
        accepted = any(isinstance(p, list) for p in peers)
        return Finding("refused" if meant(e) else "failed", 0, told(e)) if accepted else None
    plain = [_attempt(lambda f=f: evaluate(subject.graph.copy(), f)) for f in subject.feeds]
    for passes in (None, *subject.pipelines):
        found = _judge_pipeline(subject, passes, peers, plain, target)
        if found is not None:
            return found
    return None


def _judge_pipeline(
    subject: Subject, passes: str | None, peers: list[Any], plain: list[Any], target: str
) -> Finding | None:
    try:
        session = compiled(subject.model, passes, target)
    except Exception as e:
        if all(isinstance(p, Exception) for p in plain):
            return None if meant(e) else Finding("failed", 0, told(e), passes)
        return Finding("refused" if meant(e) else "failed", 0, told(e), passes)
    for n, feeds in enumerate(subject.feeds):
        got = _attempt(lambda f=feeds: session.run(None, dict(f)))
        if isinstance(got, Exception) and not meant(got):
            return Finding("failed", n, told(got), passes)
        found = _compare(subject, n, got, peers[n], plain[n])
        if found is not None:
            return Finding(found[0], n, found[1], passes)
    return None


def _compare(subject: Subject, n: int, got: Any, peer: Any, plain: Any) -> tuple[str, str] | None:
    if isinstance(plain, Exception) and isinstance(peer, Exception):
        right = isinstance(got, Exception) or _is_stricter(peer) or _is_unneeded(subject, n, got)
        return None if right else ("accepted", told(peer))
    if isinstance(got, Exception):
        if isinstance(plain, Exception) or isinstance(peer, Exception):
            return None  # the judges do not agree either
        return "refused", told(got)
    if isinstance(plain, Exception):
        return None if isinstance(peer, list) else ("accepted", told(plain))
    wrong = samples(subject.graph, subject.feeds[n])
    found = _verdict(got, peer, plain, wrong)
    if found is not None:
        # What rounding decides by chance, few samples may miss.
        wrong += samples(subject.graph, subject.feeds[n], range(SAMPLES, SAMPLES + MORE))
        found = _verdict(got, peer, plain, wrong)
    return found


def _verdict(
    got: list[Any], peer: Any, plain: list[Any], wrong: list[list[Any]]
) -> tuple[str, str] | None:
    against_plain = differs(got, plain, wrong)
    if isinstance(peer, Exception):
        return None if against_plain is None else ("wrong", against_plain)
    against_peer = differs(got, peer, wrong)
    if against_plain is not None and against_peer is not None:
        return "wrong", f"{against_peer} (and the reference: {against_plain})"
    if against_plain is not None:
        return "reference", against_plain
    return None


_STRICTER = re.compile(
    r"size != 0 && \(input_shape_size % size\) == 0.*Input shape:\{(.*,)?0(,.*)?\}, requested"
    r"|running \w*Conv\w* node.*Invalid input shape: \{(.*,)?0(,.*)?\}"
    r"|running \w*(Conv|Pool)\w* node.*Only N can be zero",
    re.S,
)


def _is_stricter(peer: Exception) -> bool:
    """Does onnxruntime refuse what the op's text allows?

    It infers no -1 of a Reshape of nothing; graphkiln divides the sizes, where that is exact. It
    convolves and pools no images without pixels: results have none either, or are of borders only.
    """
    return _STRICTER.search(str(peer)) is not None


def _is_unneeded(subject: Subject, n: int, got: list[Any]) -> bool:
    """Do the results not depend on what fails, and are they what they should be?"""
    found = unneeded_failure(subject.graph, subject.feeds[n])
    return found is not None and differs(got, *found) is None


def differs(got: list[Any], base: list[Any], wrong: list[list[Any]]) -> str | None:
    """Why outputs are not the wanted within rounding; None where they are."""
    for i, (g, b) in enumerate(zip(got, base, strict=True)):
        found = difference(g, np.asarray(b) if isinstance(b, np.generic) else b,
                           [w[i] for w in wrong])  # fmt: skip
        if found is not None:
            return f"output {i}: {found}"
    return None


def meant(error: Exception) -> bool:
    """Is it an error for people, and not one of the compiler's own faults?"""
    return isinstance(error, GraphkilnError) and type(error).__name__ not in (
        "BuildError", "PassError", "ExecutionError",
    )  # fmt: skip


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
