"""A compiler process: reads kernel requests as JSON lines, answers with object files."""

from __future__ import annotations

import json
import os
import signal
import sys

from ..targets import parse_target
from .build import build_object, reason_of
from .child import die_with_parent
from .kernels import KernelSpec


def main() -> None:
    """Serve requests from standard input until it ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C ends
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with replies
    for line in sys.stdin.buffer:
        request = json.loads(line)
        spec = KernelSpec(request["text"], request["role"], request["op"], (), (), request["node"])
        try:
            content = build_object(spec, request["name"], parse_target(request["target"]))
        except Exception as e:
            out.write(json.dumps({"error": reason_of(e)}).encode() + b"\n")
        else:
            out.write(json.dumps({"size": len(content)}).encode() + b"\n" + content)
        out.flush()
