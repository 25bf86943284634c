"""Stands in for the process that times kernels; ``TIMER_PLAN`` says what becomes of each.

It is a list of (part of a kernel's text, outcome): seconds, ``abort``, ``hang`` or ``error``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Serve requests as ``graphkiln.codegen.timing`` does."""
    plan = json.loads(os.environ["TIMER_PLAN"])
    kept: list[float] = []
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "seconds" in request:
            answer, kept = {"seconds": kept}, []
        else:
            outcome = next(result for part, result in plan if part in request["text"])
            if outcome == "abort":
                os.abort()
            elif outcome == "hang":
                time.sleep(100)
            elif outcome == "error":
                answer = {"error": "no such instruction"}
            else:
                kept.append(outcome)
        print(json.dumps(answer), flush=True)
