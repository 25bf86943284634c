"""Recurrent layers with packed weights: the pass, the interpreter and the CPU's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, bind_symbols, one_node
from reference import runtime
from support.cpu_kernels import Kernel, cpus
from support.cpu_kernels import run as run_kernel
from support.pass_checks import run
from support.toy_layouts import cpu_context
from test_rnn import GATES, STATES, layer_inputs

from graphkiln.codegen.kernels import node_region
from graphkiln.frontend import load_model
from graphkiln.frontend.export import to_onnx
from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.targets import parse_target

WITHOUT_PEEPHOLES = 15
WEIGHTS = (1, 2, 3)
LARGE = 370
"""A hidden size that makes each step worth the work of several cores."""


def packed(
    cpu: str, op: str, inputs: list[Any], attrs: dict[str, Any], symbolic: bool = False
) -> tuple[Graph, list[Any]]:
    """The layer with constant weights after the layout pass, and its feeds.

    ``symbolic``: the numbers of steps and sequences are only known at run time.
    """
    constants = [i for i in WEIGHTS if inputs[i] is not None]
    graph = one_node(op, inputs, attrs, "", 1 + STATES[op], False, constants)
    if symbolic:
        for v in graph.inputs:
            dims = {0: (sym("T"), sym("N")), 4: (sym("N"),)}.get(int(v.name[1:]))
            dims = (v.shape[0], sym("N")) if dims is None else dims
            v.node.outputs[0].type = v.tensor_type.with_shape((*dims, *v.shape[len(dims) :]))
        infer_types(graph)
    run(graph, "layout", cpu_context(cpu))
    feeds = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    return graph, feeds


def run_kernels(cpu: str, graph: Graph, feeds: list[Any]) -> list[Any]:
    """The graph's outputs, computed node by node."""
    known: dict[Value, Any] = dict(zip(graph.inputs, feeds, strict=True))
    for node in graph.topological():
        region, arguments = node_region(graph, node)
        operands = [v for i in arguments if (v := graph.input(node, i)) is not None]
        arrays = [known[v] if v in known else v.constant for v in operands]
        used = [v for v in node.values if graph.uses(v)]
        kernel = Kernel(region, arrays, bind_symbols(region, arrays))
        known.update(zip(used, run_kernel(kernel, cpu), strict=True))
    return [known[v] for v in graph.outputs]


def compare(
    op: str, inputs: list[Any], attrs: dict[str, Any], symbolic: bool = False, cpu: str = ""
) -> None:
    wants = runtime(op, inputs, attrs, num_outputs=1 + STATES[op])
    graph, feeds = packed(cpu, op, inputs, attrs, symbolic)
    assert {n.key for n in graph.nodes} == {"kiln.MatMulPacked", f"kiln.{op}Packed"}
    given = dict(zip([v.name for v in graph.inputs], feeds, strict=True))
    for gots in (run_kernels(cpu, graph, feeds), evaluate(graph, given)):
        for got, want in zip(gots, wants, strict=True):
            assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=6)
@given(st.sampled_from(list(GATES)), st.sampled_from(["forward", "reverse", "bidirectional"]),
       st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(1, 70)),
       st.integers(0, WITHOUT_PEEPHOLES), st.booleans(), st.integers(0, 2**16))  # fmt: skip
def test_layers(
    cpu: str, op: str, direction: str, sizes: tuple[int, int, int, int], given: int,
    symbolic: bool, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    attrs: dict[str, Any] = {"direction": direction, "hidden_size": sizes[3]}
    if op == "GRU":
        attrs["linear_before_reset"] = seed % 2
    if op == "LSTM":
        attrs["input_forget"] = seed % 2
    inputs = layer_inputs(rng, op, 2 if direction == "bidirectional" else 1, sizes, given)
    compare(op, inputs, attrs, symbolic, cpu)


@pytest.mark.parametrize("op", list(GATES))
def test_clip_and_activations_of_each_direction(op: str) -> None:
    rng = np.random.default_rng(len(op))
    names = ("Sigmoid", "Relu", "Tanh", "Softsign", "Tanh", "Sigmoid")
    count = 2 * {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
    attrs = {"direction": "bidirectional", "hidden_size": 20, "clip": 0.3,
             "activations": names[:count]}  # fmt: skip
    compare(op, layer_inputs(rng, op, 2, (5, 3, 6, 20), WITHOUT_PEEPHOLES), attrs)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("op, attrs", [
    ("RNN", {}), ("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}),
])  # fmt: skip
def test_cores_share_the_steps_of_large_layers(
    op: str, attrs: dict[str, Any], batch: int, symbolic: bool
) -> None:
    rng = np.random.default_rng(batch)
    inputs = layer_inputs(rng, op, 1, (4, batch, 3, LARGE), WITHOUT_PEEPHOLES)
    scale = LARGE**-0.5
    inputs[1:3] = [(scale * w).astype(np.float32) for w in inputs[1:3]]
    compare(op, inputs, {**attrs, "hidden_size": LARGE}, symbolic)


@pytest.mark.parametrize("hidden, shared", [(LARGE, True), (32, False)])
def test_only_large_steps_are_shared(hidden: int, shared: bool) -> None:
    inputs = layer_inputs(np.random.default_rng(0), "LSTM", 1, (4, 1, 3, hidden), 0)
    graph, _ = packed("", "LSTM", inputs, {"hidden_size": hidden})
    region, _ = node_region(graph, graph.nodes[-1])
    assert ("T.parallel" in str(parse_target("cpu").kernel(region, "layer"))) == shared


@pytest.mark.parametrize("op", list(GATES))
def test_batch_first(op: str) -> None:
    inputs = layer_inputs(np.random.default_rng(1), op, 2, (3, 2, 5, 18), WITHOUT_PEEPHOLES)
    attrs = {"direction": "bidirectional", "hidden_size": 18}
    y, *states = run_kernels("", *packed("", op, inputs, attrs))
    moved = list(inputs)
    for i in (0, 5, 6)[: 1 + STATES[op]]:
        moved[i] = np.ascontiguousarray(np.swapaxes(inputs[i], 0, 1))
    graph, feeds = packed("", op, moved, {**attrs, "layout": 1})
    y1, *states1 = run_kernels("", graph, feeds)
    assert_close(y1, np.transpose(y, (2, 0, 1, 3)))
    for got, want in zip(states1, states, strict=True):
        assert_close(got, np.swapaxes(want, 0, 1))


@pytest.mark.parametrize("op", list(GATES))
def test_outputs_that_nobody_reads(op: str) -> None:
    inputs = layer_inputs(np.random.default_rng(2), op, 1, (4, 2, 5, 8), 0)
    wants = runtime(op, inputs, {"hidden_size": 8}, num_outputs=1 + STATES[op])
    for i, want in enumerate(wants):
        graph, feeds = packed("", op, inputs, {"hidden_size": 8})
        graph.set_outputs([graph.outputs[i]])
        run(graph, "dce")
        (got,) = run_kernels("", graph, feeds)
        assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_peepholes_and_weights_of_run_time_stay() -> None:
    inputs = layer_inputs(np.random.default_rng(3), "LSTM", 1, (2, 1, 3, 4), 31)
    graph, _ = packed("", "LSTM", inputs, {"hidden_size": 4})
    assert {n.key for n in graph.nodes} == {"LSTM"}
    graph = one_node("GRU", layer_inputs(np.random.default_rng(3), "GRU", 1, (2, 1, 3, 4), 0),
                     {"hidden_size": 4}, "", 2, False, (1,))  # fmt: skip
    run(graph, "layout", cpu_context(""))
    assert {n.key for n in graph.nodes} == {"GRU"}


@pytest.mark.parametrize("op", list(GATES))
def test_packed_layers_export(op: str) -> None:
    inputs = layer_inputs(np.random.default_rng(4), op, 2, (3, 2, 5, 6), WITHOUT_PEEPHOLES)
    attrs: dict[str, Any] = {"direction": "bidirectional", "hidden_size": 6}
    if op == "GRU":
        attrs["linear_before_reset"] = 1
    graph, feeds = packed("", op, inputs, attrs)
    given = dict(zip([v.name for v in graph.inputs], feeds, strict=True))
    again = load_model(to_onnx(graph)).graph
    for got, want in zip(evaluate(again, given), evaluate(graph, given), strict=True):
        assert_close(got, want, rtol=1e-4, atol=1e-5)
