"""Kernels that step out of their buffers, each run in a process of its own.

    python overstep.py TARGET [FAULT ...]

prints a JSON object of each fault's end: a signal's name, an error's text, or ``fine``. A fault is
a place (``input``, ``weight``, ``output``, ``temporary`` or ``workspace``) and how many elements
beyond its end, or before its beginning, are touched: ``input+1``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import graphkiln
from graphkiln.ir.registry import op
from graphkiln.targets.generic.registry import lowering
from graphkiln.targets.tir.extents import index

DOMAIN = "test.overstep"
ROWS, COLUMNS = 30, 51
COUNT = ROWS * COLUMNS


@op("Copy", domain=DOMAIN, defaults={"read": 0, "write": 0, "workspace": 0})
def infer(ctx: Any) -> Any:
    return [ctx.tensor(0)]


@lowering(f"{DOMAIN}.Copy")
def lower(ctx: Any) -> Any:
    """A copy, element by element, that reads or writes so many elements too far on."""
    b, read, write, beyond = ctx.b, *(ctx.attr(n) for n in ("read", "write", "workspace"))
    result = ctx.result(0)
    x, y = b.view(ctx.buffered(0), (COUNT,)), b.view(result, (COUNT,))
    held = b.workspace((COUNT,), "float32")
    with b.loop(COUNT) as i:
        y.store((i + write,), x[i + read])
    if beyond:
        at = COUNT - 1 + beyond if beyond > 0 else beyond
        held.store((index(at),), x[0])
        y.store((index(0),), held[index(at)])
    return result


def model(place: str, far: int) -> Any:
    """The model with a fault in it, or a sound one for ``far`` 0."""
    attributes = {
        "output": {"write": far}, "workspace": {"workspace": far}
    }.get(place, {"read": far})  # fmt: skip
    source = {"weight": "w", "temporary": "t"}.get(place, "x")
    weight = np.ones((ROWS, COLUMNS), np.float32)
    nodes = [
        helper.make_node("Softmax", ["x"], ["t"]),
        helper.make_node("Copy", [source], ["c"], domain=DOMAIN, **attributes),
        helper.make_node("Add", ["t", "c"], ["y"]),
    ]
    if place == "output":
        nodes[1].output[0], nodes[2].output[0], nodes[2].input[1] = "y", "z", "y"
    names = ("x", "y", "z") if place == "output" else ("x", "y")
    shape = [ROWS, COLUMNS]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in names]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets)


def attempt(target: str, fault: str) -> str:
    """How one fault ends."""
    place, far = re.fullmatch(r"([a-z]+)([+-]\d+)", fault).groups()  # type: ignore[union-attr]
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # TVM looks up names for half a minute
        try:
            session = graphkiln.compile(model(place, int(far)), target=target, jobs=1).session()
            session.run(None, {"x": np.ones((ROWS, COLUMNS), np.float32)})
            told = "fine"
        except Exception as e:
            told = f"{type(e).__name__}: {e}"
        os.write(send, told.encode())
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as stream:
        said = stream.read().decode()
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


if __name__ == "__main__":
    print(json.dumps({fault: attempt(sys.argv[1], fault) for fault in sys.argv[2:]}))
