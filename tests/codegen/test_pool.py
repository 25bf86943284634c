"""The thread pool in C: every part of every loop once, whoever calls, and without data races."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import graphkiln
from graphkiln.codegen.pool import PoolError, pool_object

_SUPPORT = Path(__file__).parent.parent / "support"
_SOURCES = Path(graphkiln.__file__).parent / "codegen"
_CALLERS = [(1, 2000), (2, 1000), (5, 400), (20, 100)]


def _build(folder: Path, *options: str) -> Path:
    out = folder / "runner"
    command = ["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{_SOURCES}", *options]
    subprocess.run(
        [*command, str(_SUPPORT / "pool_runner.c"), "-o", str(out), "-lpthread"], check=True
    )
    return out


def _run(runner: Path, callers: int, rounds: int) -> None:
    command = [str(runner), str(callers), str(rounds)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("pool"), "-O2")


@pytest.fixture(scope="module")
def watched_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same under the thread sanitizer."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    command = ["cc", "-fsanitize=thread", str(folder / "empty.c"), "-o", str(folder / "empty")]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("the C compiler has no thread sanitizer")
    return _build(folder, "-O1", "-g", "-fsanitize=thread")


@pytest.mark.parametrize(("callers", "rounds"), _CALLERS)
def test_each_part_of_each_loop_once(runner: Path, callers: int, rounds: int) -> None:
    _run(runner, callers, rounds)


@pytest.mark.parametrize(("callers", "rounds"), _CALLERS)
def test_no_data_races(watched_runner: Path, callers: int, rounds: int) -> None:
    _run(watched_runner, callers, rounds // 4)


def test_the_object_is_kept(tmp_path: Path) -> None:
    first = pool_object("cc", platform.machine(), str(tmp_path))
    assert first.startswith(b"\x7fELF")
    # What compiles is not asked again.
    assert pool_object("no-compiler", platform.machine(), str(tmp_path)) == first


def test_a_compiler_that_fails_is_told_in_a_line(tmp_path: Path) -> None:
    compiler = shutil.which("false")
    assert compiler is not None
    with pytest.raises(PoolError, match=r"cannot compile pool\.c: it gives no reason") as error:
        pool_object(compiler, platform.machine(), str(tmp_path))
    assert "\n" not in str(error.value)
