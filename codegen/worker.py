"""Compiler processes: each reads kernel requests as JSON lines, answers with object files."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket

from ..targets import parse_target
from .build import build_object, reason_of
from .child import die_with_parent
from .kernels import KernelSpec


def main() -> None:
    """Fork a worker for each pair of pipes that comes from standard input, a Unix socket."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a worker
    os.dup2(2, 1)  # what libraries print must not mix with what the command prints
    parse_target("cpu:x86-64-v3").tvm_target()  # loads TVM, whatever this machine's own CPU is
    gc.freeze()  # collections in the forks would write to pages that they share
    with socket.socket(fileno=0) as parent:
        while pipes := socket.recv_fds(parent, 1, 2)[1]:
            if os.fork() == 0:
                _serve(*pipes)
            for pipe in pipes:
                os.close(pipe)


def _serve(requests: int, replies: int) -> None:
    """Serve requests until they end; never returns."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # compilers that a target runs are waited for
    out = os.fdopen(replies, "wb")
    try:
        for line in os.fdopen(requests, "rb"):
            out.write(_reply(json.loads(line)))
            out.flush()
    finally:
        os._exit(0)


def _reply(request: dict[str, str]) -> bytes:
    spec = KernelSpec(request["text"], request["role"], request["op"], (), (), request["node"])
    try:
        content = build_object(spec, request["name"], parse_target(request["target"]))
    except Exception as e:
        return json.dumps({"error": reason_of(e)}).encode() + b"\n"
    return json.dumps({"size": len(content)}).encode() + b"\n" + content
