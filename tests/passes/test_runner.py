"""What a pass gets to measure with when the driver runs it: compiled graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphkiln
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes import base
from graphkiln.passes.base import Pass, PassContext, register_pass
from graphkiln.passes.claims import exact

ran: dict[str, Any] = {}


@dataclass(frozen=True)
class Measure(Pass):
    """Runs the graph on one feed, and changes nothing."""

    name: ClassVar[str] = "measure"
    claims = {"nothing": exact("x = x", "it changes nothing")}

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}
        before = len(graph)
        run = context.runner(graph)
        ran["results"], ran["expected"] = run(feeds), evaluate(graph, feeds)
        assert len(graph) == before
        context.measure("largest", float(np.abs(ran["results"][0]).max()))
        return {}


def model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Exp", ["r"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_the_driver_hands_passes_compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_PASSES", dict(base._PASSES))
    register_pass(Measure)
    artifact = graphkiln.compile(model(), passes="default@before(lower)=measure")
    (y,), (expected,) = ran["results"], ran["expected"]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    (entry,) = [p for p in artifact.report["passes"] if p["pass"] == "measure"]
    assert entry["numbers"] == {"largest": pytest.approx(float(np.exp(3.0)), rel=1e-6)}
