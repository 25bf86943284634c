"""RNN, GRU and LSTM against onnxruntime and onnx.reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, backend_cases, run_case, run_op
from reference import runtime
from support.integer_products import dynamic_lstm

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import run_node

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
ACTIVATIONS = [
    "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh",
    "HardSigmoid", "Elu", "Softsign", "Softplus",
]  # fmt: skip


@pytest.mark.parametrize("case", backend_cases("RNN", "GRU", "LSTM"), ids=lambda c: c.name)
def test_onnx_case(case: Any) -> None:
    run_case(case)


def layer_inputs(
    rng: np.random.Generator, op: str, directions: int, sizes: tuple[int, int, int, int],
    given: int, dtype: str = "float32",
) -> list[Any]:  # fmt: skip
    """Inputs of a layer; bit i of ``given`` says whether optional input i is there."""
    steps, batch, width, hidden = sizes
    gates = GATES[op]

    def array(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.4).astype(dtype)

    optional = [
        array(directions, 2 * gates * hidden),
        rng.integers(1, steps + 1, batch).astype(np.int32),
        *(array(directions, batch, hidden) for _ in range(STATES[op])),
    ]
    if op == "LSTM":
        optional.append(array(directions, 3 * hidden))
    x = array(steps, batch, width)
    w, r = array(directions, gates * hidden, width), array(directions, gates * hidden, hidden)
    return [x, w, r, *(a if given >> i & 1 else None for i, a in enumerate(optional))]


def compare(op: str, inputs: list[Any], attrs: dict[str, Any], symbolic: Any = False) -> None:
    outputs = 1 + STATES[op]
    wants = runtime(op, inputs, attrs, num_outputs=outputs)
    gots = run_op(op, inputs, attrs, num_outputs=outputs, symbolic=symbolic)
    for got, want in zip(gots, wants, strict=True):
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@settings(max_examples=12)
@given(st.sampled_from(list(GATES)), st.sampled_from(["forward", "reverse", "bidirectional"]),
       st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 20)),
       st.integers(0, 31), st.booleans(), st.integers(0, 2**16))  # fmt: skip
def test_layers(op: str, direction: str, sizes: tuple[int, int, int, int], given: int,
                symbolic: bool, seed: int) -> None:  # fmt: skip
    directions = 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(seed)
    attrs: dict[str, Any] = {"direction": direction, "hidden_size": sizes[3]}
    if op == "GRU":
        attrs["linear_before_reset"] = seed % 2
    if op == "LSTM":
        attrs["input_forget"] = seed % 2
    compare(op, layer_inputs(rng, op, directions, sizes, given), attrs, symbolic)


@pytest.mark.parametrize(
    ("op", "name"),
    [("RNN", "Affine"), ("GRU", "HardSigmoid"), *(("LSTM", name) for name in ACTIVATIONS)],
)
def test_activations(op: str, name: str) -> None:
    rng = np.random.default_rng(len(name))
    defaults = ("Sigmoid", "Tanh", "Tanh")[-FUNCTIONS[op] :]
    names = (*defaults[:-1], name, name, *defaults[1:])
    alphas = {"Affine": 0.7, "LeakyRelu": 0.2, "ThresholdedRelu": 0.3, "ScaledTanh": 0.8,
              "HardSigmoid": 0.25, "Elu": 0.6}  # fmt: skip
    betas = {"Affine": 0.1, "ScaledTanh": 1.2, "HardSigmoid": 0.4}
    attrs: dict[str, Any] = {
        "direction": "bidirectional", "hidden_size": 4, "activations": names,
        "activation_alpha": tuple(alphas[n] for n in names if n in alphas),
        "activation_beta": tuple(betas[n] for n in names if n in betas),
    }  # fmt: skip
    attrs = {k: v for k, v in attrs.items() if v != ()}
    compare(op, layer_inputs(rng, op, 2, (3, 1, 5, 4), 1), attrs)


@pytest.mark.parametrize("op", list(GATES))
def test_clip_bounds_what_gates_get_but_not_the_memory(op: str) -> None:
    x, w, *rest = layer_inputs(np.random.default_rng(0), op, 1, (14, 2, 5, 8), 1)
    inputs, attrs = [np.full_like(x, 5), np.abs(w) + 0.3, *rest], {"hidden_size": 8, "clip": 0.3}
    compare(op, inputs, attrs)
    node = Graph().add_node(op, [], attrs, outputs=1 + STATES[op])
    wants = runtime(op, inputs, attrs, num_outputs=1 + STATES[op])
    for got, want in zip(run_node(node, inputs), wants, strict=True):
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", list(GATES))
def test_batch_first_is_the_other_layout_transposed(op: str) -> None:
    inputs = layer_inputs(np.random.default_rng(1), op, 2, (3, 2, 5, 6), 31)
    attrs = {"direction": "bidirectional", "hidden_size": 6}
    count = 1 + STATES[op]
    y, *states = run_op(op, inputs, attrs, num_outputs=count)
    moved = list(inputs)
    for i in (0, 5, 6)[: 1 + STATES[op]]:
        moved[i] = np.ascontiguousarray(np.swapaxes(inputs[i], 0, 1))
    y1, *states1 = run_op(op, moved, {**attrs, "layout": 1}, num_outputs=count)
    assert_close(y1, np.transpose(y, (2, 0, 1, 3)))
    for got, want in zip(states1, states, strict=True):
        assert_close(got, np.swapaxes(want, 0, 1))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(dtype: str) -> None:
    inputs = layer_inputs(np.random.default_rng(2), "LSTM", 1, (3, 2, 5, 6), 1, dtype)
    single = [None if a is None else a.astype(np.float32) for a in inputs]
    wants = runtime("LSTM", single, {"hidden_size": 6}, num_outputs=3)
    gots = run_op("LSTM", inputs, {"hidden_size": 6}, num_outputs=3)
    for got, want in zip(gots, wants, strict=True):
        assert_close(got, want.astype(dtype), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_column", [False, True])
def test_dynamic_quantize_lstm(direction: str, per_column: bool) -> None:
    rng = np.random.default_rng(3)
    count = 2 if direction == "bidirectional" else 1
    x, w, r, *rest = layer_inputs(rng, "LSTM", count, (4, 1, 5, 6), 0b11101)
    shape = (count, 24) if per_column else (count,)

    def parameters() -> list[np.ndarray]:
        scale = rng.uniform(0.003, 0.02, shape).astype(np.float32)
        zeros = np.zeros(shape) if per_column else rng.integers(-5, 6, shape)
        return [scale, zeros.astype(np.int8)]

    weights = [rng.integers(-127, 128, (count, n, 24)).astype(np.int8) for n in (5, 6)]
    inputs = [x, *weights, *rest, *parameters(), *parameters()]
    attrs = {"direction": direction, "hidden_size": 6}
    wants = dynamic_lstm(*inputs, direction)
    node = Graph().add_node("DynamicQuantizeLSTM", [], attrs, domain="com.microsoft", outputs=3)
    compiled = run_op("DynamicQuantizeLSTM", inputs, attrs, "com.microsoft", num_outputs=3)
    for gots in (compiled, run_node(node, inputs)):
        for got, want in zip(gots, wants, strict=True):
            assert_close(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("sizes", [(1, 1, 0, 8), (3, 2, 0, 4), (2, 3, 5, 6)])
def test_half_floats(op: str, sizes: tuple[int, int, int, int]) -> None:
    """Also with inputs as wide as the gates (0), whose copy is as large as its products."""
    steps, batch, width, hidden = sizes
    rng = np.random.default_rng(7)
    shape = steps, batch, width or GATES[op] * hidden, hidden
    inputs = layer_inputs(rng, op, 1, shape, 1, "float16")
    attrs, count = {"hidden_size": hidden}, 1 + STATES[op]
    wants = run_node(Graph().add_node(op, [], attrs, outputs=count), inputs[:4])
    for got, want in zip(run_op(op, inputs[:4], attrs, num_outputs=count), wants, strict=True):
        assert_close(got, want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clip_keeps_nan(op: str, dtype: str) -> None:
    inputs = layer_inputs(np.random.default_rng(3), op, 1, (2, 2, 3, 5), 1, dtype)
    inputs[0][0, 1, 2] = np.nan
    attrs, count = {"hidden_size": 5, "clip": 0.3}, 1 + STATES[op]
    wants = run_node(Graph().add_node(op, [], attrs, outputs=count), inputs[:4])
    assert np.isnan(wants[0][:, :, 1]).all() and not np.isnan(wants[0][:, :, 0]).any()
    for got, want in zip(run_op(op, inputs[:4], attrs, num_outputs=count), wants, strict=True):
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "ThresholdedRelu"])
@pytest.mark.parametrize("hidden", [3, 16])
def test_activations_keep_nan(name: str, hidden: int) -> None:
    """``x >= alpha`` is false for NaN, so ThresholdedRelu alone gives 0."""
    inputs = layer_inputs(np.random.default_rng(4), "RNN", 1, (2, 2, 3, hidden), 1)
    inputs[0][0, 1, 2] = np.nan
    attrs = {"hidden_size": hidden, "activations": (name,)}
    y, _ = run_op("RNN", inputs[:4], attrs, num_outputs=2)
    assert np.isnan(y[:, :, 1]).all() and not np.isnan(y[:, :, 0]).any()
