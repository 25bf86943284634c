"""What a session does to its process: imports, threads, affinity, forks, concurrent calls."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphkiln.runtime import ExecutionError, InputError, host, load

PROLOGUE = """
import os, sys, time
import numpy as np
from graphkiln.runtime import InputError, load

def tasks():
    return len(os.listdir("/proc/self/task"))

def until(workers, run):  # for a while, runs go on alone on a busy machine
    for _ in range(1000):
        assert (run() % (2 * x) == 0)[1:].all()
        if tasks() - before == workers:
            return
        time.sleep(0.01)

x = np.arange(65536, dtype=np.float32)
before = tasks()
path = sys.argv[1]
"""


def child(path: Path, code: str, **environment: str) -> str:
    """Runs Python code with a model's path in a fresh process and gives back what it prints."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TVM_", "GRAPHKILN_"))}
    inherited["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    result = subprocess.run(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(code), str(path)],
        env={**inherited, "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_imports_neither_compiler_nor_onnx(models: Any) -> None:
    code = """
    load(path).run(None, {"x": x})
    heavy = {"tvm", "onnx", "networkx", "torch", "argparse", "concurrent.futures", "onnxruntime"}
    print(sorted(heavy & sys.modules.keys()))
    print([name for name in sys.modules if name.startswith("graphkiln.host.")])
    """
    assert child(models.path("spread"), code).split("\n")[:2] == ["[]", "[]"]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_are_as_many_as_asked(models: Any, threads: int) -> None:
    code = """
    wanted = int(os.environ["WANTED"])
    session = load(path, threads=wanted)
    affinity = os.sched_getaffinity(0)
    for _ in range(3):
        assert (session.run(None, {"x": x})[0] == 2 * x).all()
    assert os.sched_getaffinity(0) == affinity
    print(tasks() - before)
    """
    assert int(child(models.path("spread"), code, WANTED=str(threads))) == threads - 1


@pytest.mark.parametrize("threads", [2, 3])
def test_workers_go_where_the_process_may(models: Any, threads: int) -> None:
    code = """
    earlier = set(os.listdir("/proc/self/task"))
    cores = os.sched_getaffinity(0)
    load(path, threads=int(os.environ["WANTED"])).run(None, {"x": x})
    workers = set(os.listdir("/proc/self/task")) - earlier
    assert all(os.sched_getaffinity(int(t)) == cores for t in workers)
    assert os.sched_getaffinity(0) == cores
    print(len(workers))
    """
    assert int(child(models.path("spread"), code, WANTED=str(threads))) == threads - 1


def test_environment_gives_the_number(models: Any) -> None:
    code = """
    load(path).run(None, {"x": x})
    print(tasks() - before)
    """
    for threads in ("1", "3"):
        printed = child(models.path("spread"), code, GRAPHKILN_NUM_THREADS=threads)
        assert int(printed) == int(threads) - 1


def test_default_is_the_cores_of_this_process(models: Any) -> None:
    code = """
    from graphkiln.machine import usable_cores
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    assert usable_cores() == 1
    load(path).run(None, {"x": x})
    print(tasks() - before)
    """
    assert int(child(models.path("spread"), code)) == 0


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "99999"])
def test_environment_is_checked(models: Any, value: str) -> None:
    code = """
    try:
        load(path)
    except InputError as error:
        print(error)
    """
    printed = child(models.path("spread"), code, GRAPHKILN_NUM_THREADS=value)
    assert printed.startswith("GRAPHKILN_NUM_THREADS must be a whole number from 1 to 1024")


def test_each_session_has_threads_of_its_own_number(models: Any) -> None:
    code = """
    counts = []
    for threads in (1, 2, 1, 3, 2):
        session = load(path, threads=threads)
        most = max(threads - 1, *counts, 0)
        until(most, lambda: session.run(None, {"x": x})[0])
        counts.append(tasks() - before)
    print(counts)
    """
    assert child(models.path("spread"), code) == "[0, 1, 1, 2, 2]\n"


def test_libraries_share_the_workers(models: Any) -> None:
    code = """
    for path in (path, os.environ["OTHER"], path):
        session = load(path, threads=3)
        until(2, lambda: session.run(None, {"x": x})[0])
    print(tasks() - before)
    """
    other = str(models.path("spread_twice"))
    assert int(child(models.path("spread"), code, OTHER=other)) == 2


def test_forked_processes_have_workers_of_their_own(models: Any) -> None:
    code = """
    session = load(path, threads=2)
    session.run(None, {"x": x})
    child = os.fork()
    if child == 0:
        good = all((session.run(None, {"x": x})[0] == 2 * x).all() for _ in range(100))
        os._exit(0 if good and tasks() >= 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (session.run(None, {"x": x})[0] == 2 * x).all()
    """
    child(models.path("spread"), code)


def test_no_temporary_file_stays(models: Any, tmp_path: Path) -> None:
    code = """
    load(path).run(None, {"x": x})
    """
    child(models.path("spread"), code, TMPDIR=str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_no_temporary_folder_is_needed(models: Any) -> None:
    code = """
    import tempfile
    def none(*args, **kwargs):
        raise OSError(30, "Read-only file system")
    tempfile.mkstemp = none
    session = load(path)
    assert (session.run(None, {"x": x})[0] == 2 * x).all()
    """
    child(models.path("spread"), code)


# ---- concurrent calls --------------------------------------------------------------------------


def in_threads(count: int, work: Any) -> None:
    errors: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_share_a_session(models: Any) -> None:
    session = load(models.path("double"))

    def work(index: int) -> None:
        rng = np.random.default_rng(index)
        for _ in range(200):
            x = rng.random(rng.integers(1, 3000), np.float32)
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)

    in_threads(6, work)
    assert 1 <= len(session._instances.idle) <= 6


def test_threads_share_a_session_with_host_functions(models: Any) -> None:
    session = load(models.path("strings"))

    def work(index: int) -> None:
        for turn in range(100):
            text = f"{index}.{turn}"
            assert session.run(["y"], {"x": [text]})[0].tolist() == [text * 2]

    in_threads(4, work)


def test_parallel_kernels_run_in_several_threads(models: Any) -> None:
    session = load(models.path("spread"))

    def work(index: int) -> None:
        x = np.full(65536, index, np.float32)
        for _ in range(20):
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)

    in_threads(3, work)


def test_bad_feeds_do_not_disturb_other_threads(models: Any) -> None:
    session = load(models.path("double"))

    def work(index: int) -> None:
        x = np.full(index + 1, index, np.float32)
        for _ in range(100):
            if index % 2:
                with pytest.raises(InputError):
                    session.run(None, {"x": x.astype(np.float64)})
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)

    in_threads(4, work)


def test_interrupts_pass_through_host_functions(models: Any) -> None:
    def interrupted(attrs: dict[str, Any], *values: Any) -> tuple:
        raise KeyboardInterrupt

    session = load(models.path("strings"))
    original = host.find("StringConcat")
    try:
        host.host_function("StringConcat")(interrupted)
        host.register(["StringConcat"])
        broken = load(models.path("strings"))
        with pytest.raises(KeyboardInterrupt):
            broken.run(None, {"x": ["a"]})
    finally:
        host.host_function("StringConcat")(original)
        host.register(["StringConcat"])
    assert session.run(["y"], {"x": ["a"]})[0].tolist() == ["aa"]


def test_a_closed_session_in_another_thread(models: Any) -> None:
    session = load(models.path("double"))
    session.close()

    def work(index: int) -> None:
        with pytest.raises(ExecutionError, match="closed"):
            session.run(None, {"x": np.zeros(1, np.float32)})

    in_threads(2, work)


def test_daemon_threads_do_not_abort_the_end(models: Any) -> None:
    """They come back from compiled code while Python shuts down."""
    code = """
    import threading, time
    session = load(path, threads=1)
    def work():
        while True:
            session.run(None, {"x": x})
    class Slow:
        def __del__(self):
            time.sleep(0.3)
    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)
    sys.modules["slow"] = Slow()
    """
    child(models.path("double"), code)


def test_the_main_thread_runs_to_the_end(models: Any) -> None:
    code = """
    import atexit
    from graphkiln.runtime import exit
    session = load(path)
    def late():
        assert (session.run(None, {"x": x})[0] == 2 * x).all()
        print("ran")
    atexit.unregister(exit._end)
    for call in (late, exit._end, late):
        atexit.register(call)
    """
    assert child(models.path("spread"), code).split() == ["ran", "ran"]


def test_memory_stays_where_it_is(models: Any) -> None:
    """Neither runs nor loads leak."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    session = load(models.path("spread"))
    x = np.zeros(65536, np.float32)
    unaligned = np.zeros(65537, np.float32)[1:]

    def work() -> None:
        for _ in range(200):
            session.run(None, {"x": x})
            session.run(None, {"x": unaligned})
        for _ in range(20):
            load(models.path("square")).run(None, {"x": x[:64]})

    work()
    start = resident()
    work()
    assert resident() - start < 20 << 20
