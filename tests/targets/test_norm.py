"""Softmax and normalizations against NumPy and ``onnx.reference``, and ONNX's own cases."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from oputil import assert_close, run_case, run_op, sampled_cases

OPS = (
    "Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "InstanceNormalization",
    "GroupNormalization", "BatchNormalization", "LpNormalization", "MeanVarianceNormalization",
    "LRN",
)  # fmt: skip


def normal(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype("float64")


@pytest.mark.parametrize("case", sampled_cases(*OPS))
def test_onnx_case(case):
    run_case(case)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    power = np.exp(wide(x) - wide(x).max(axis=axis, keepdims=True))
    return power / power.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("shape", [(5, 7, 33), (2, 64, 16), (4, 1, 1), (3, 50, 1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("symbolic", [False, True])
def test_softmax(shape, axis, symbolic):
    x = normal(*shape) * 10
    want = softmax(x, axis)
    got = run_op("Softmax", [x], {"axis": axis}, symbolic=symbolic)[0]
    assert_close(got, want.astype("float32"), rtol=1e-5)
    got = run_op("LogSoftmax", [x], {"axis": axis}, symbolic=symbolic)[0]
    assert_close(got, np.log(want).astype("float32"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64"])
def test_softmax_of_other_floats(dtype):
    x = normal(3, 40, dtype=dtype)
    rtol = {"float16": 1e-3, "float64": 1e-14}.get(str(np.dtype(dtype)), 8e-3)
    assert_close(run_op("Softmax", [x], {"axis": 1})[0], softmax(x, 1).astype(dtype), rtol=rtol)


def test_softmax_ignores_masked_elements():
    x = np.array([[0.0, -np.inf, 1.0, -3.4e38]], np.float32)
    assert_close(run_op("Softmax", [x], {"axis": 1})[0], softmax(x, 1).astype("float32"))


def layer_norm(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    mean = wide(x).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(wide(x).var(axis=axes, keepdims=True) + 1e-5)
    return (wide(x) - mean) * inverse, mean, inverse


@pytest.mark.parametrize("axis, scale", [
    (-1, (70,)), (1, (9, 70)), (1, (70,)), (0, (1, 9, 1)), (-2, (9, 1)),
])  # fmt: skip
@pytest.mark.parametrize("symbolic", [False, True])
def test_layer_normalization(axis, scale, symbolic):
    x, s, b = normal(4, 9, 70) + 100, normal(*scale), normal(*scale) * 2
    y, mean, inverse = layer_norm(x, tuple(range(axis % 3, 3)))
    attrs = {"axis": axis, "epsilon": 1e-5}
    got = run_op("LayerNormalization", [x, s, b], attrs, num_outputs=3, symbolic=symbolic)
    for g, w in zip(got, (y * wide(s) + wide(b), mean, inverse), strict=True):
        assert_close(g, w.astype("float32"), rtol=1e-4, atol=1e-4)


def test_layer_normalization_of_half_floats():
    x, s = normal(4, 70, dtype="float16"), normal(70, dtype="float16")
    got = run_op("LayerNormalization", [x, s], num_outputs=2)
    y, mean, _ = layer_norm(x, (1,))
    assert_close(got[0], (y * s).astype("float16"), rtol=2e-3, atol=1e-3)
    assert_close(got[1], mean.astype("float32"))


def test_rms_normalization_takes_the_type_of_its_scale():
    x, s = normal(4, 70, dtype="float16"), normal(70)
    got = run_op("RMSNormalization", [x, s])[0]
    want = wide(x) / np.sqrt((wide(x) ** 2).mean(axis=-1, keepdims=True) + 1e-5) * s
    assert_close(got, want.astype("float32"), rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("spatial", [(), (5, 7), (3, 4, 2)])
def test_group_normalization(groups, spatial):
    x, s, b = normal(2, 6, *spatial), normal(6), normal(6) + 1
    grouped = x.reshape(2, groups, -1)
    y = layer_norm(grouped, (2,))[0].reshape(x.shape)
    per_channel = (6, *(1,) * len(spatial))
    want = (y * s.reshape(per_channel) + b.reshape(per_channel)).astype("float32")
    got = run_op("GroupNormalization", [x, s, b], {"num_groups": groups}, symbolic=True)[0]
    assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5, 9), (8, 33), (1, 6, 3, 3), (3, 1, 40)])
def test_batch_normalization_in_training(shape):
    x, c = normal(*shape), shape[1]
    s, b, old_mean, old_variance = (normal(c) + i for i in range(4))
    axes = (0, *range(2, len(shape)))
    y = layer_norm(x, axes)[0]
    per_channel = (c, *(1,) * (len(shape) - 2))
    want = [
        y * s.reshape(per_channel) + b.reshape(per_channel),
        0.8 * old_mean + 0.2 * wide(x).mean(axis=axes),
        0.8 * old_variance + 0.2 * wide(x).var(axis=axes),
    ]
    attrs = {"training_mode": 1, "momentum": 0.8}
    got = run_op("BatchNormalization", [x, s, b, old_mean, old_variance], attrs, num_outputs=3)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w.astype("float32"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_lp_normalization(p, axis):
    x = normal(20, 33)
    x[:, 3] = 0
    norm = np.linalg.norm(wide(x), p, axis=axis, keepdims=True)
    want = np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype("float32")
    assert_close(run_op("LpNormalization", [x], {"axis": axis, "p": p})[0], want, rtol=1e-5)


@pytest.mark.parametrize("beta, size", [(0.75, 5), (0.5, 4), (0.6, 3)])
def test_lrn(beta, size):
    x = normal(2, 9, 4, 5) * 10
    square = np.zeros(x.shape)
    for c in range(9):
        lo, hi = max(0, c - (size - 1) // 2), min(9, c + size // 2 + 1)
        square[:, c] = (wide(x)[:, lo:hi] ** 2).sum(axis=1)
    want = x / (2.0 + 0.1 / size * square) ** beta
    attrs = {"size": size, "alpha": 0.1, "beta": beta, "bias": 2.0}
    assert_close(run_op("LRN", [x], attrs)[0], want.astype("float32"), rtol=1e-5)
