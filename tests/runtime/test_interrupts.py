"""Whatever is raised at any point of a run, a load or a close, all that comes later is right.

A signal's handler may raise between any two instructions of Python. Here a trace function does,
once for each instruction that the runtime executes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphkiln
from graphkiln import runtime
from graphkiln.runtime import ExecutionError, Session, host, load
from graphkiln.runtime.direct import Direct
from graphkiln.runtime.instance import Instance

FOLDER = str(Path(runtime.__file__).parent)
Feeds = dict[str, Any]


def struck_at(
    number: int, kind: type[BaseException], work: Callable[[], Any], unit: str = "opcode"
) -> bool:
    """Does ``work``, and raises before the runtime's step of this number; was there one?

    A step is an opcode or a line, as ``unit`` says. Python sees to it that no handler runs between
    the end of a block with a lock and its release, a trace function must see to it itself.
    """
    left = number

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = unit == "opcode", unit == "line"
        if event == unit and "_lock" not in getline(frame.f_code.co_filename, frame.f_lineno or 0):
            if left == 0:
                left = -1
                raise kind
            left -= 1
        return trace

    sys.settrace(trace)
    try:
        work()
    except kind:
        pass
    except ExecutionError as error:
        # Raised in a host function, it crosses compiled code as text.
        assert isinstance(error.__cause__, (kind, RuntimeError))
    finally:
        sys.settrace(None)
    return left < 0


def strikes(kind: type[BaseException], work: Callable[[], Any]) -> Iterator[int]:
    """Does ``work`` again and again, and yields after each time that it was struck."""
    number = 0
    while struck_at(number, kind, work):
        yield number
        number += 1
    assert number > 10


def in_another_thread(work: Callable[[], Any]) -> None:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Case:
    """A session, feeds of several shapes, and what must come out."""

    def __init__(self, session: Session, feeds: list[Feeds], answer: Callable[..., list]) -> None:
        self.session, self.feeds, self.answer = session, feeds, answer

    def check(self, feeds: Feeds) -> None:
        found = self.session.run(None, feeds)
        for value, wanted in zip(found, self.answer(**feeds), strict=True):
            same(value, wanted)
            if isinstance(value, np.ndarray):
                assert not any(np.shares_memory(value, fed) for fed in arrays(feeds.values()))

    def check_all(self) -> None:
        for feeds in self.feeds:
            self.check(feeds)


def arrays(values: Any) -> Iterator[np.ndarray]:
    for value in values:
        yield from arrays(value) if isinstance(value, list) else [np.asarray(value)]


def same(value: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        assert len(value) == len(wanted)
        for one, other in zip(value, wanted, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(value, wanted)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def native() -> Case:
    """Native code with open sizes; small and large arrays take ways of their own."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"]),
        helper.make_node("Add", ["x", "x"], ["d"]),
    ]
    values = {"x": ["N", "M"], "t": ["M", "N"], "d": ["N", "M"]}
    x, *results = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items()
    )
    graph = helper.make_graph(nodes, "g", [x], results)
    opset = helper.make_opsetid("", 21)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = graphkiln.compile(model, jobs=1).session(threads=1)
    assert isinstance(session._instances.idle[0], Direct)
    feeds = [{"x": numbers(*s)} for s in ((3, 5), (5, 3), (200, 100), (3, 5))]
    return Case(session, feeds, lambda x: [np.maximum(x, 0).T, x + x])


def machine(models: Any, name: str) -> Session:
    session = load(models.path(name))
    assert isinstance(session._instances.idle[0], Instance)
    return session


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, models: Any) -> Case:
    match request.param:
        case "native":
            case: Case = request.getfixturevalue("native")
            return case
        case "machine":
            feeds = [{"x": numbers(n)} for n in (7, 9, 20_000, 20_001, 7)]
            feeds.insert(3, {"x": numbers(20_001)[1:]})
            return Case(machine(models, "double"), feeds, lambda x: [x + x])
        case "handed on":
            feeds = [{"x": numbers(64), "big": numbers(40_000)}]
            weight = np.arange(64, dtype=np.float32)
            return Case(
                machine(models, "handed_on"), feeds,
                lambda x, big: [x, x.reshape(8, 8), weight, big],
            )  # fmt: skip
        case _:
            few = [numbers(2), numbers(3)]
            feeds = [{"s": few, "x": numbers(4)}, {"s": [], "x": numbers(2)}]
            return Case(
                machine(models, "sequence"), feeds,
                lambda s, x: [[*s, x], np.array(len(s) + 1)],
            )  # fmt: skip


@pytest.mark.parametrize("case", ["native", "machine", "handed on", "sequence"], indirect=True)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, KeyError])
def test_runs_after_one_that_was_struck(case: Case, kind: type[BaseException]) -> None:
    """Struck in a run of the shapes before, and of others. Some code swallows a KeyError."""
    for before, struck in zip(case.feeds, case.feeds[1:] or case.feeds, strict=False):
        case.check(before)
        for number in strikes(kind, lambda feeds=struck: case.session.run(None, feeds)):
            case.check(struck)
            case.check(before)
            if number % 40 == 0:
                case.check_all()
                in_another_thread(case.check_all)
    assert len(case.session._instances.idle) == 1


@contextmanager
def concat_is(function: Callable[..., tuple]) -> Iterator[None]:
    """Sessions that are loaded meanwhile call ``function`` for StringConcat."""
    original = host.find("StringConcat")
    try:
        host.host_function("StringConcat")(function)
        host.register(["StringConcat"])
        yield
    finally:
        host.host_function("StringConcat")(original)
        host.register(["StringConcat"])


def test_an_exit_passes_through_host_functions(models: Any) -> None:
    """What SIGTERM does while compiled code runs is done when Python is back, there."""

    def ended(*_: Any) -> tuple:
        sys.exit(143)

    with concat_is(ended):
        session = machine(models, "strings")
        with pytest.raises(SystemExit) as caught:
            session.run(None, {"x": ["a"]})
    assert caught.value.code == 143


def test_loads_after_one_that_was_struck(models: Any) -> None:
    for name in ("double", "sequence"):
        path = models.path(name)
        feeds = {"x": numbers(5)} if name == "double" else {"s": [], "x": numbers(2)}
        load(path).run(None, feeds)
        number = 0
        while struck_at(number, KeyboardInterrupt, lambda path=path: load(path), "line"):
            with load(path) as session:
                session.run(None, feeds)
            number += 1


def test_closes_after_one_that_was_struck(models: Any) -> None:
    number, struck = 0, True
    while struck:
        session = machine(models, "double")
        struck = struck_at(number, KeyboardInterrupt, session.close)
        session.close()
        with pytest.raises(ExecutionError, match="closed"):
            session.run(None, {"x": numbers(2)})
        number += 1


def test_a_close_during_a_run_of_another_thread(models: Any) -> None:
    began, go = threading.Event(), threading.Event()
    results: list[Any] = []

    def waiting(_attrs: dict[str, Any], *values: Any) -> tuple:
        began.set()
        go.wait(30)
        return (values[0] + values[1],)

    with concat_is(waiting):
        session = machine(models, "strings")
        thread = threading.Thread(
            target=lambda: results.append(session.run(["y"], {"x": ["a"]})[0].tolist())
        )
        thread.start()
        assert began.wait(30)
        session.close()
        go.set()
        thread.join()
    assert results == [["aa"]]
    with pytest.raises(ExecutionError, match="closed"):
        session.run(["y"], {"x": ["a"]})
