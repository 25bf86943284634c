"""Timing single kernels, and the machine's peaks they are held against."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.aarch64 import needs_aarch64

from graphkiln.machine import cpu_features
from graphkiln.runtime import ExecutionError, InputError, Session, load
from graphkiln.runtime import peak as peaks


class Interrupt(BaseException):
    """As a KeyboardInterrupt, but not one to stop the tests."""


FEEDS = {"x": np.arange(64, dtype=np.float32)}


@pytest.fixture
def square(models: Any) -> Session:
    return load(models.path("square"))


def test_times_each_call_of_each_run(models: Any) -> None:
    session = load(models.path("double"))
    profiler = session.profiler({"x": np.ones(1 << 16, np.float32)})
    for _ in range(20):
        start = time.perf_counter()
        profiler.run()
        last = time.perf_counter() - start
    assert [call.name for call in profiler.calls] == ["double"]
    seconds = profiler.seconds()
    assert profiler.runs == 20 and seconds.shape == (20, 1)
    assert (seconds >= 0).all() and 0 < seconds[-1, 0] < last
    assert profiler.hook_seconds > 0


def test_what_the_hook_takes_is_subtracted(
    square: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by 100 ns whenever it is read, only the hook takes any time."""
    monkeypatch.setattr(time, "perf_counter_ns", itertools.count(0, 100).__next__)
    profiler = square.profiler(FEEDS)
    for _ in range(20):
        profiler.run()
    assert profiler.hook_seconds == pytest.approx(1e-7)
    assert (profiler.seconds() == 0).all()


def test_the_fastest_run_in_order(models: Any) -> None:
    session = load(models.path("double"))
    profiler = session.profiler({"x": np.ones(1 << 16, np.float32)})
    for _ in range(5):
        profiler.run()
    (timed,) = profiler.fastest()
    assert timed.call.name == "double" and timed.start > 0 and timed.seconds > 0
    assert timed.seconds in profiler.seconds()[:, 0]


def test_profiled_results_do_not_disturb_others(square: Session) -> None:
    (before,) = square.run(None, FEEDS)
    profiler = square.profiler(FEEDS)
    profiler.run()
    (after,) = square.run(None, FEEDS)
    np.testing.assert_array_equal(before, after)


def test_feeds_are_checked(square: Session) -> None:
    with pytest.raises(InputError):
        square.profiler({"x": np.zeros(3, np.float32)})
    square.close()
    with pytest.raises(ExecutionError, match="closed"):
        square.profiler(FEEDS)


def test_interrupts_reach_the_caller(square: Session, capfd: pytest.CaptureFixture[str]) -> None:
    """A handler that ran inside of the hook could raise there, which the machine cannot take."""
    profiler = square.profiler(FEEDS)

    def interrupt(_number: int, _frame: Any) -> None:
        raise Interrupt

    held = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(20):
            with pytest.raises(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                end = time.perf_counter() + 10
                while time.perf_counter() < end:
                    profiler.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, held)
    profiler.run()
    assert capfd.readouterr().err == ""


def test_peaks_are_plausible() -> None:
    """Magnitudes only: how fast a machine is depends on who else uses it."""
    single, double = (peaks.peak_operations(t) for t in ("float32", "float64"))
    assert single is not None and double is not None
    assert 1e8 < double < 1e14 and 1e8 < single < 1e14
    dots = peaks.peak_operations("int8")
    assert dots is None or 1e8 < dots < 1e15


@pytest.mark.parametrize("threads", [1, 2])
def test_bandwidths_are_plausible(threads: int) -> None:
    for nbytes in (1 << 18, 1 << 27):
        assert 1e7 < peaks.copy_bandwidth(nbytes, threads) < 1e14


def test_sizes_out_of_range_are_moved_into_it() -> None:
    assert [peaks.copied_bytes(n) for n in (0, 1 << 20, 1 << 60)] == [1 << 18, 1 << 20, 1 << 28]


def test_loops_of_features() -> None:
    def bits(kind: str, *features: str) -> list[int]:
        return [loop.operations for loop in peaks.x86_loops(kind, frozenset(features))]

    assert bits("float32") == [] and bits("int8", "fma", "avx512f") == []
    assert bits("float32", "fma", "avx512f") == [12 * 32, 12 * 16]
    assert bits("float64", "fma") == [12 * 8]
    assert bits("int8", "avx512_vnni", "avx_vnni") == [12 * 128, 12 * 64]
    assert peaks.arm_loops("int8", frozenset()) == []


INSTRUCTIONS = {
    ("float32", "fma"): "c4c21db8dd",  # vfmadd231ps ymm3, ymm12, ymm13
    ("float64", "fma"): "c4c29db8dd",  # vfmadd231pd ymm3, ymm12, ymm13
    ("float32", "avx512f"): "62d21d48b8dd",  # vfmadd231ps zmm3, zmm12, zmm13
    ("float64", "avx512f"): "62d29d48b8dd",
    ("int8", "avx_vnni"): "c4c21d50dd",  # vpdpbusd ymm3, ymm12, ymm13
    ("int8", "avx512_vnni"): "62d21d4850dd",
}


@pytest.mark.parametrize(("kind", "feature"), INSTRUCTIONS)
def test_x86_instructions(kind: str, feature: str) -> None:
    """As GNU's assembler writes them."""
    (loop,) = peaks.x86_loops(kind, frozenset({feature}))
    assert bytes.fromhex(INSTRUCTIONS[kind, feature]) in loop.code


RUNNER = """
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(int count, char **names) {
    int allowed = PROT_READ | PROT_WRITE | PROT_EXEC;
    void *page = mmap(0, 4096, allowed, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FILE *file = fopen(names[1], "rb");
    size_t size = fread(page, 1, 4096, file);
    __builtin___clear_cache((char *)page, (char *)page + size);
    register double kept asm("d8") = 3.0;
    __asm__ volatile("" : "+w"(kept));
    ((void (*)(long))page)(1000);
    __asm__ volatile("" : "+w"(kept));
    return kept != 3.0;
}
"""


@needs_aarch64()
@pytest.mark.parametrize("kind", peaks.ARITHMETIC)
def test_arm_loops_run(kind: str, tmp_path: Path) -> None:
    (loop,) = peaks.arm_loops(kind, frozenset({"asimddp"}))
    (tmp_path / "loop").write_bytes(loop.code)
    (tmp_path / "runner.c").write_text(RUNNER)
    build = ["aarch64-linux-gnu-gcc", "-static", "-O1", "-o", "runner", "runner.c"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=60)
    run = ["qemu-aarch64", "-cpu", "max", "runner", "loop"]
    assert subprocess.run(run, cwd=tmp_path, timeout=60).returncode == 0


def test_peaks_belong_to_this_machine() -> None:
    known = cpu_features() & {"fma", "asimd"}
    assert (peaks.peak_operations("float32") is not None) == bool(known)
