"""Signals during a long run: their handlers run soon, whatever Python has been told to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkiln
from graphkiln.codegen.artifact import write_artifact

# Compiled code says that it works by the first signal that is handled, or by nothing at all.
SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
from graphkiln.runtime import load

session = load(sys.argv[1], threads=1)
feeds = {"x": np.ones(session.get_inputs()[0].shape, np.float32)}
signal.signal(signal.SIGINT, signal.default_int_handler)

def send(number, seconds=1.0):
    code = f"sleep {seconds}; kill -{int(number)} {os.getpid()}"
    import subprocess
    return subprocess.Popen(["sh", "-c", code])

def run():
    begin = time.monotonic()
    try:
        session.run(None, feeds)
    finally:
        print("after", time.monotonic() - begin, flush=True)
"""


def value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def product(source: str, target: str) -> list[onnx.NodeProto]:
    """Two kernels that take a few hundredths of a second."""
    return [
        helper.make_node("MatMul", [source, "w"], [f"{target}_m"]),
        helper.make_node("Softmax", [f"{target}_m"], [target]),
    ]


def chain(layers: int) -> list[onnx.NodeProto]:
    names = ["x", *(f"x{i}" for i in range(1, layers)), "y"]
    return [n for source, target in pairwise(names) for n in product(source, target)]


def turns(_count: int) -> list[onnx.NodeProto]:
    """A Loop; it has a function of its own."""
    body = helper.make_graph(
        [*product("state", "next"), helper.make_node("Identity", ["on"], ["still"])], "body",
        [value("turn", kind=TensorProto.INT64), value("on", kind=TensorProto.BOOL),
         value("state", SIZE, SIZE)],
        [value("still", kind=TensorProto.BOOL), value("next", SIZE, SIZE)],
    )  # fmt: skip
    return [helper.make_node("Loop", ["many", "", "x"], ["y"], body=body)]


KINDS = {"native": lambda: chain(250), "machine": lambda: chain(1200), "loop": lambda: turns(1200)}
SIZE = 1024


@pytest.fixture(scope="module", params=KINDS)
def long_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose run takes ten seconds and more."""
    weight = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32) / SIZE
    constants = {"w": weight, "many": np.array(1200)}
    graph = helper.make_graph(
        KINDS[request.param](), "g", [value("x", SIZE, SIZE)], [value("y", SIZE, SIZE)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )  # fmt: skip
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    contents = graphkiln.compile(model, jobs=1).contents
    assert ("native" in contents.manifest) == (request.param != "machine")
    path = tmp_path_factory.mktemp("long") / "long.kiln"
    write_artifact(contents, path)
    return path


def child(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + code, str(path)], env=environment, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


def test_an_interrupt_ends_a_long_run(long_model: Path) -> None:
    code = """
for _ in range(2):
    send(signal.SIGINT)
    try:
        run()
    except KeyboardInterrupt:
        print("interrupted")
"""
    done = child(long_model, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[2::3] == ["interrupted"] * 2
    assert all(float(t) < 10 for t in done.stdout.split()[1::3])


def test_an_exit_ends_a_long_run(long_model: Path) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
send(signal.SIGTERM)
run()
"""
    done = child(long_model, code)
    assert done.returncode == 143, done.stderr


def test_the_default_of_a_signal_ends_the_process(long_model: Path) -> None:
    code = """
send(signal.SIGTERM)
run()
"""
    assert child(long_model, code).returncode == -signal.SIGTERM
