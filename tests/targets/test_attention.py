"""Attention and its relatives against NumPy and onnxruntime, and ONNX's own cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oputil import assert_close, one_node, run_case, run_op, sampled_cases
from reference import reference, runtime

from graphkiln.ir.interpreter import run_node

OPS = ("Attention", "RotaryEmbedding", "LinearAttention", "CausalConvWithState")
MICROSOFT = "com.microsoft"
HEADS, WIDTH = 4, 8
HIDDEN = HEADS * WIDTH


def normal(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def flags(*shape: int) -> np.ndarray:
    out = (np.random.default_rng(5).random(shape) > 0.3).astype("int32")
    out[..., 0] = 1
    return out


@pytest.mark.parametrize("case", sampled_cases(*OPS))
def test_onnx_case(case):
    run_case(case)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("symbolic", [False, "distinct"])
def test_attention_of_many_rows(causal, symbolic):
    q, k, v = normal(2, 6, 37, 16), normal(2, 3, 37, 16), normal(2, 3, 37, 24)
    attrs = {"is_causal": causal}
    want = reference("Attention", [q, k, v], attrs)[0]
    got = run_op("Attention", [q, k, v], attrs, symbolic=symbolic)[0]
    assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_attention_with_a_growing_cache():
    q, k, v = normal(2, 1, HIDDEN), normal(2, 1, HIDDEN), normal(2, 1, HIDDEN)
    past = [normal(2, HEADS, 9, WIDTH), normal(2, HEADS, 9, WIDTH) + 1]
    attrs = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
    want = reference("Attention", [q, k, v, None, *past], attrs, num_outputs=3)
    got = run_op("Attention", [q, k, v, None, *past], attrs, num_outputs=3, symbolic=True)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=1e-4, atol=1e-5)


def test_attention_in_double_precision():
    q, k, v = (normal(1, 2, 5, 8, dtype="float64") + i for i in range(3))
    got = run_op("Attention", [q, k, v])[0]
    assert_close(got, reference("Attention", [q, k, v])[0], rtol=1e-10)


@pytest.mark.parametrize("mask", [None, (2, 3, 33, 40), (1, 1, 1, 40), (33, 40), (2, 1, 1, 1)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_dialect_attention(mask, symbolic):
    inputs = [normal(2, 3, 33, 16), normal(2, 3, 40, 16), normal(2, 3, 40, 20)]
    if mask is not None:
        inputs.append(normal(*mask))
    attrs = {"scale": 0.3}
    node = one_node("Attention", inputs, attrs, "kiln").nodes[0]
    got = run_op("Attention", inputs, attrs, "kiln", symbolic=symbolic)[0]
    assert_close(got, run_node(node, inputs)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guarded", [0, 1])
def test_dialect_attention_of_rows_without_a_softmax(guarded):
    inputs = [normal(1, 1, 5, 4), normal(1, 1, 3, 4), normal(1, 1, 3, 4)]
    undefined = [[-np.inf] * 3, [0, np.inf, 0], [0, np.nan, 0], [np.inf, 0, np.inf]]
    mask = np.array([[0, 0, -np.inf], *undefined], np.float32)
    attrs = {"guarded": guarded}
    got = run_op("Attention", [*inputs, mask], attrs, "kiln")[0]
    node = one_node("Attention", [*inputs, mask], attrs, "kiln").nodes[0]
    assert_close(got, run_node(node, [*inputs, mask])[0], rtol=1e-5)
    assert (got[0, 0, 1:] == 0).all() if guarded else np.isnan(got[0, 0, 1:]).all()


def agree(op: str, inputs: list[Any], attrs: dict[str, Any], outputs: int = 1) -> None:
    """Compiled code (static and symbolic) and the reference evaluation match onnxruntime."""
    want = runtime(op, inputs, attrs, MICROSOFT, outputs)
    node = one_node(op, inputs, attrs, MICROSOFT, outputs).nodes[0]
    results = [
        run_op(op, inputs, attrs, MICROSOFT, outputs),
        run_op(op, inputs, attrs, MICROSOFT, outputs, symbolic=True),
        run_node(node, inputs)[:outputs],
    ]
    for result in results:
        for g, w in zip(result, want, strict=True):
            assert_close(np.asarray(g), w, rtol=1e-4, atol=1e-5)


MULTI_HEAD = {
    "plain": [None, None],
    "bias": [normal(3 * HIDDEN)],
    "key flags": [None, flags(2, 7)],
    "key lengths": [None, np.array([3, 7], np.int32)],
    "pair flags and bias": [None, flags(2, 5, 7), normal(2, HEADS, 5, 7)],
    "broadcast bias": [None, None, normal(1, 1, 5, 7)],
}


@pytest.mark.parametrize("rest", MULTI_HEAD.values(), ids=MULTI_HEAD)
def test_multi_head_attention(rest):
    q, k, v = normal(2, 5, HIDDEN), normal(2, 7, HIDDEN), normal(2, 7, HIDDEN) + 1
    agree("MultiHeadAttention", [q, k, v, *rest], {"num_heads": HEADS})


def test_multi_head_attention_with_past():
    q, k, v = (normal(2, 5, HIDDEN) + i for i in range(3))
    past = [normal(2, HEADS, 3, WIDTH), normal(2, HEADS, 3, WIDTH) + 1]
    attrs = {"num_heads": HEADS, "unidirectional": 1}
    agree("MultiHeadAttention", [q, k, v, None, None, None, *past], attrs, 3)


def test_multi_head_attention_of_split_heads():
    k = normal(2, HEADS, 7, WIDTH)
    agree("MultiHeadAttention", [normal(2, 5, HIDDEN), k, k + 1], {"num_heads": HEADS})


def test_packed_operands_are_rejected():
    packed = normal(2, 5, HEADS, 3, WIDTH)
    with pytest.raises(Exception, match="packed"):
        run_op("MultiHeadAttention", [packed], {"num_heads": HEADS}, MICROSOFT)


PROJECTED = {
    "plain": ([], {}),
    "flags": ([flags(2, 5)], {}),
    "lengths": ([np.array([3, 5], np.int32)], {}),
    "pairs": ([flags(2, 5, 5)], {}),
    "causal": ([], {"unidirectional": 1}),
}


@pytest.mark.parametrize("rest, attrs", PROJECTED.values(), ids=PROJECTED)
def test_attention_with_projection(rest, attrs):
    inputs = [normal(2, 5, 24), normal(24, 3 * HIDDEN), normal(3 * HIDDEN), *rest]
    agree("Attention", inputs, {"num_heads": HEADS, **attrs})


def test_attention_with_projection_and_past():
    past = normal(2, 2, HEADS, 3, WIDTH)
    inputs = [normal(2, 5, 24), normal(24, 3 * HIDDEN), normal(3 * HIDDEN), None, past]
    agree("Attention", inputs, {"num_heads": HEADS, "unidirectional": 1}, 2)


def test_attention_with_narrow_values():
    sizes = [HIDDEN, HIDDEN, 16]
    inputs = [normal(2, 5, 24), normal(24, sum(sizes)), normal(sum(sizes))]
    agree("Attention", inputs, {"num_heads": HEADS, "qkv_hidden_sizes": sizes})


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("kind", ["start", "positions", "partial"])
def test_microsoft_rotary_embedding(interleaved, kind):
    pairs = WIDTH // 4 if kind == "partial" else WIDTH // 2
    cosines, sines = normal(20, pairs), normal(20, pairs) + 1
    x = normal(2, HEADS, 5, WIDTH) if kind == "positions" else normal(2, 5, HIDDEN)
    positions = np.array([3]) if kind == "start" else np.arange(10).reshape(2, 5)
    attrs = {"interleaved": interleaved}
    if kind == "partial":
        attrs |= {"num_heads": HEADS, "rotary_embedding_dim": 2 * pairs}
    agree("RotaryEmbedding", [x, positions, cosines, sines], attrs)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention(rule):
    q, k, v = normal(2, 6, 4 * 5), normal(2, 6, 2 * 5), normal(2, 6, 2 * 7)
    decay = -np.abs(normal(2, 6, 2 * 5)) if "gated" in rule else None
    beta = np.abs(normal(2, 6, 1)) if "delta" in rule else None
    inputs = [q, k, v, normal(2, 2, 5, 7), decay, beta]
    while inputs[-1] is None:
        inputs.pop()
    attrs = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule}
    want = reference("LinearAttention", inputs, attrs, num_outputs=2)
    for g, w in zip(run_op("LinearAttention", inputs, attrs, num_outputs=2), want, strict=True):
        assert_close(g, w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("length", [0, 1, 6])
@pytest.mark.parametrize("state", [False, True])
def test_causal_conv_of_open_sizes(taps, length, state):
    """Also where the kernel is longer than the row, and where there is no past or no row."""
    past = normal(2, 3, taps - 1) if state else None
    inputs = [normal(2, 3, length), normal(3, 1, taps), normal(3), past][: 4 if state else 3]
    attrs = {"activation": "silu"}
    padded = np.concatenate([np.zeros((2, 3, taps - 1), np.float32) if past is None else past,
                             inputs[0]], 2)  # fmt: skip
    total = np.zeros((2, 3, length), np.float32) + inputs[2][:, None]
    for i in range(length):
        total[..., i] += (padded[..., i : i + taps] * inputs[1][:, 0]).sum(-1)
    want = [total / (1 + np.exp(-total)), padded[..., length:]]
    got = run_op("CausalConvWithState", inputs, attrs, num_outputs=2, symbolic=True)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, rtol=1e-5, atol=1e-6)
