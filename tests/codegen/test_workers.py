"""Processes that compile kernels."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphkiln.codegen.kernels import KernelSpec, kernel_spec
from graphkiln.codegen.workers import Workers
from graphkiln.ir.graph import Graph
from graphkiln.ir.types import DTYPES, TensorType
from graphkiln.targets import parse_target

TARGET = parse_target("cpu")


def specs(count: int) -> dict[str, KernelSpec]:
    """That many kernels, each of its own size."""
    found = {}
    for size in range(1, count + 1):
        graph = Graph("g")
        t = TensorType(DTYPES["float32"], (size,))
        node = graph.add_node("Relu", [graph.add_input("x", t)], name="act", types=[t])
        graph.set_outputs([node.out()])
        found[f"kernel_{size}"] = kernel_spec(graph, node)
    return found


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(1) as found:
        yield found


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_each_kernel_is_answered_for(workers: Workers) -> None:
    kernels = specs(3)
    results = list(workers.compile(kernels, TARGET))
    assert sorted(r.name for r in results) == sorted(kernels)
    assert all(r.content and not r.reason for r in results)
    assert list(workers.compile({}, TARGET)) == []


def test_a_kernel_that_cannot_be_built_says_why_and_the_next_one_is_built(workers: Workers) -> None:
    good = specs(2)
    bad = KernelSpec("graph what", "kernel", "Relu", (), (), "act")
    results = {r.name: r for r in workers.compile({"bad": bad, **good}, TARGET)}
    assert results["bad"].content is None and results["bad"].reason
    assert all(results[name].content for name in good)


def test_a_worker_that_dies_takes_only_its_kernel_with_it(workers: Workers) -> None:
    results = workers.compile(specs(6), TARGET)
    first = next(results)
    assert workers._nursery is not None
    (worker,) = children(workers._nursery._process.pid)
    os.kill(worker, signal.SIGKILL)
    rest = list(results)
    lost = [r for r in rest if r.content is None]
    assert first.content and len(rest) == 5 and len(lost) == 1
    assert "the compiler process stopped" in lost[0].reason


def test_where_the_compiler_cannot_start_each_kernel_says_so(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    results = list(workers.compile(specs(2), TARGET))
    assert len(results) == 2
    assert all("the compiler process stopped" in r.reason for r in results)


def test_processes_end_with_the_context_whatever_they_do() -> None:
    start = time.monotonic()
    with Workers(2) as workers:
        next(workers.compile(specs(50), TARGET))
        nursery = workers._nursery
        assert nursery is not None
        started = children(nursery._process.pid)
        assert len(started) == 2
    assert nursery._process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in started)
    assert time.monotonic() - start < 60


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_libraries_print_stays_out_of_standard_output(
    workers: Workers, capfd: pytest.CaptureFixture[str]
) -> None:
    list(workers.compile(specs(1), TARGET))
    assert capfd.readouterr().out == ""
