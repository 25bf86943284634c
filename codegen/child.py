"""Child processes that run a module of this package and answer requests over pipes."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .collector import THRESHOLDS

# ``python -c`` puts the current folder first on the path, where a file may have the name of any
# module: it is taken out before anything is imported.
_START = (
    f"import gc; gc.set_threshold(*{THRESHOLDS});"
    " import sys; sys.path = [p for p in sys.path if p]; import importlib, importlib.util as u;"
    "s = u.spec_from_file_location('graphkiln', sys.argv[1] + '/__init__.py',"
    " submodule_search_locations=[sys.argv[1]]);"
    "m = u.module_from_spec(s); sys.modules['graphkiln'] = m; s.loader.exec_module(m);"
    "importlib.import_module(sys.argv[2]).main()"
)

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, however that happens.

    Linux takes the thread that started this process for the parent, so that must live as long.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # the parent ended before prctl


def start_child(
    module: str, environment: Mapping[str, str] | None = None, *, stdin: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """A process that runs ``main`` of a module of this package, with pipes to it.

    ``stdin`` is what ``subprocess.Popen`` takes; other than a pipe, nothing is piped.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _START, str(Path(__file__).parent.parent), module],
        stdin=stdin, stdout=subprocess.PIPE if stdin == subprocess.PIPE else None,
        env=None if environment is None else {**os.environ, **environment},
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends its children
    )  # fmt: skip


class ChildLost(Exception):
    """A child ended or did not answer in time."""


class Child:
    """One child and its answers, each within a time limit."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = start_child(module, environment)
        self._read = b""

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a request; raises :class:`ChildLost` where none comes in time."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + seconds
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            while b"\n" not in self._read:
                left = max(0.0, deadline - time.monotonic())
                if not select.select([process.stdout], [], [], left)[0]:
                    raise ChildLost(f"no answer within {seconds:.0f} s")
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    raise ChildLost("the process stopped")
                self._read += part
        except OSError as e:
            raise ChildLost(f"the process stopped ({e})") from e
        line, _, self._read = self._read.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
