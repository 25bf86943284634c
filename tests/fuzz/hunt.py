"""Many graphs, in children; those that fail are judged again and made smaller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from . import workers
from .judge import Finding, Subject, judge
from .make import make
from .shrink import Shrinker

Raw: TypeAlias = "tuple[bytes, Any, Any]"
"""A subject's model, serialised, its feeds and its pipelines."""


@dataclass(frozen=True)
class Item:
    """One graph by what it is made from."""

    family: str
    seed: int


@dataclass(frozen=True)
class Found:
    """What became of an item: ``status`` is ``right`` or ``found``."""

    item: Item
    status: str
    seconds: float
    finding: Finding | None = None
    subject: Subject | None = None


def items(names: Sequence[str], seed: int, count: int) -> Iterator[Item]:
    """Families in turn; the numbers go up from ``seed``."""
    for n in range(count):
        yield Item(names[n % len(names)], seed + n)


def hunt(
    wanted: Iterator[Item], *, jobs: int, limit: float, target: str, shrink: bool
) -> Iterator[Found]:
    """The items as they end; what is found comes with a subject of one feed, made smaller."""
    from graphkiln import onnx_backend

    onnx_backend.warmup()
    import onnxruntime  # noqa: F401 - before the children are forked

    for done in workers.run(wanted, partial(judge_item, target=target), jobs=jobs, limit=limit):
        if done.status == "crash":
            done = _without_peer(done.item, limit, target)
        if done.status == "done":
            finding = done.answer
        else:
            finding = Finding(done.status, -1, f"exit code {done.answer}")
        if not isinstance(finding, Finding):
            yield Found(done.item, finding, done.seconds)
            continue
        keep = _reduced if shrink else _whole
        subject = keep(done.item, finding, limit, target)
        yield Found(done.item, "found", done.seconds, finding, subject)


def _without_peer(item: Item, limit: float, target: str) -> workers.Done[Item]:
    """The item again by the reference alone: onnxruntime ends the process on some empty inputs."""
    work = partial(judge_item, target=target, peer=False)
    (done,) = workers.run(iter([item]), work, jobs=1, limit=limit)
    return done


def judge_item(item: Item, target: str = "cpu", peer: bool = True) -> Finding | str:
    """What is wrong with the graph of an item, or ``right``."""
    try:
        subject = make(item.family, item.seed)
    except Exception as e:
        return Finding("failed", -1, f"import: {type(e).__name__}: {e}")
    return judge(subject, target, peer) or "right"


def _made(item: Item, limit: float) -> Subject | None:
    """The subject of an item; None if it cannot be made. A child makes it: onnxruntime, which
    evaluates graphs while they grow, ends the process on some empty inputs.
    """
    (done,) = workers.run(iter([item]), _make_raw, jobs=1, limit=limit)
    return None if done.status != "done" or done.answer is None else _subject(done.answer)


def _make_raw(item: Item) -> Raw | None:
    try:
        return _raw(make(item.family, item.seed))
    except Exception:
        return None


def _whole(item: Item, finding: Finding, limit: float, _target: str) -> Subject | None:
    """The subject as it was made, with the feeds that show the fault."""
    subject = _made(item, limit)
    if subject is None:
        return None
    passes = [] if finding.passes is None else [finding.passes]
    return replace_feeds(subject, max(0, finding.feeds), passes)


def _reduced(item: Item, finding: Finding, limit: float, target: str) -> Subject | None:
    """The smallest subject with the same fault; each attempt has a child of its own."""
    subject = _made(item, limit)
    if subject is None:
        return None
    pipelines = [finding.passes] if finding.passes is not None else []
    numbers = range(len(subject.feeds)) if finding.feeds < 0 else [finding.feeds]

    def shows(candidate: Subject) -> bool:
        work = partial(_judge_raw, target=target, peer=finding.kind != "crash")
        (done,) = workers.run(iter([_raw(candidate)]), work, jobs=1, limit=limit)
        if done.status != "done":
            return finding.kind == done.status
        return isinstance(done.answer, Finding) and finding.same_fault(done.answer)

    for n in numbers:
        one = replace_feeds(subject, n, pipelines)
        if shows(one):
            return Shrinker(shows).shrink(one)
    return replace_feeds(subject, numbers[0], pipelines)


def replace_feeds(subject: Subject, number: int, pipelines: Sequence[str]) -> Subject:
    """The subject with one of its feeds."""
    return replace(subject, feeds=[subject.feeds[number]], pipelines=pipelines)


def _judge_raw(raw: Raw, target: str, peer: bool) -> Finding | None:
    return judge(_subject(raw), target, peer)


def _raw(subject: Subject) -> Raw:
    """What of a subject goes from process to process."""
    return subject.model.SerializeToString(), subject.feeds, subject.pipelines


def _subject(raw: Raw) -> Subject:
    import onnx

    model, feeds, pipelines = raw
    return Subject(onnx.ModelProto.FromString(model), feeds, pipelines)


__all__ = ["Found", "Item", "hunt", "items", "judge_item"]
