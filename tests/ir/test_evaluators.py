"""NumPy evaluation of convolutions, pools, matrix products, recurrences and sequences."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support.onnx_cases import assert_same, case_arrays, case_graph, one_node_cases

from graphkiln.ir.evaluators import EVALUATORS, conv
from graphkiln.ir.evaluators.activation import erf_array
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import EvaluationError, evaluate, run_node
from graphkiln.ir.reference import reference_runner
from graphkiln.ir.types import to_numpy_dtype

_RNG = np.random.default_rng(0)


def _node(op: str, outputs: int = 1, **attrs: Any) -> Node:
    return Graph().add_node(op, [], attrs, outputs=outputs)


def _random(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


def test_onnx_cases_of_every_op_with_an_evaluator() -> None:
    cases = one_node_cases(*EVALUATORS)
    assert len(cases) > 120
    for case in cases:
        names = [i.name for i in case.model.graph.input]
        for inputs, outputs in case.data_sets:
            results = evaluate(case_graph(case), dict(zip(names, case_arrays(inputs), strict=True)))
            for got, want in zip(results, case_arrays(outputs), strict=True):
                assert_same(got, want, case.rtol, case.atol)


def _plain_conv(
    x: np.ndarray, w: np.ndarray, group: int, stride: int, dilation: int, pad: int
) -> np.ndarray:
    """The definition of a two-dimensional convolution, one output element at a time."""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    span = [(k - 1) * dilation + 1 for k in w.shape[2:]]
    size = [(n - s) // stride + 1 for n, s in zip(x.shape[2:], span, strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *size))
    for n, m, i, j in np.ndindex(*out.shape):
        first = m // (w.shape[0] // group) * w.shape[1]
        a, b = i * stride, j * stride
        window = x[
            n, first : first + w.shape[1], a : a + span[0] : dilation, b : b + span[1] : dilation
        ]
        out[n, m, i, j] = np.sum(window * w[m])
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("group", "per_group"), [(1, 3), (2, 2), (4, 1)])
def test_conv_is_its_definition(group: int, per_group: int, stride: int, dilation: int) -> None:
    x, w = _random(2, group * per_group, 9, 8), _random(2 * group, per_group, 3, 2)
    attrs = {"strides": (stride,) * 2, "dilations": (dilation,) * 2, "pads": (1, 1, 1, 1)}
    (got,) = run_node(_node("Conv", group=group, **attrs), [x, w])
    want = _plain_conv(x, w, group, stride, dilation, 1)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_conv_in_blocks_of_rows_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = _random(1, 3, 17, 11), _random(4, 3, 3, 3)
    node = _node("Conv", strides=(2, 1))
    (whole,) = run_node(node, [x, w])
    monkeypatch.setattr(conv, "_COLUMN_BYTES", 1)
    (blocks,) = run_node(node, [x, w])
    np.testing.assert_allclose(blocks, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_of_other_ranks_agrees_with_onnx(rank: int) -> None:
    x, w, b = _random(2, 4, *(7,) * rank), _random(6, 2, *(3,) * rank), _random(6)
    node = _node("Conv", group=2, strides=(2,) * rank, auto_pad="SAME_LOWER")
    (want,) = reference_runner(node, [True] * 3)([x, w, b])
    np.testing.assert_allclose(run_node(node, [x, w, b])[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "shape"),
    [("Conv", (0, 4, 3, 3)), *(("ConvTranspose", s) for s in ((0, 4, 3, 3), (2, 4, 0, 3)))],
)
def test_convolutions_of_nothing(op: str, shape: tuple[int, ...]) -> None:
    node = _node(op, kernel_shape=[1, 1], group=2)
    (y,) = run_node(node, [np.zeros(shape, np.float32), _random(4, 2, 1, 1)])
    assert y.shape == shape


def test_half_precision_accumulates_in_single() -> None:
    ones = np.full((1, 3000, 1, 1), 1.0, ml_dtypes.bfloat16)
    (out,) = run_node(_node("Conv"), [ones, ones])
    assert out.dtype == ones.dtype and float(out.reshape(())) == 3008  # 3000 rounded to 8 bits
    (product,) = run_node(_node("MatMul"), [ones.reshape(1, -1), ones.reshape(-1, 1)])
    assert product.dtype == ones.dtype and float(product.reshape(())) == 3008


@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose_undoes_conv_indexing(group: int) -> None:
    """<conv(x), y> == <x, conv_transpose(y)>: they are adjoint linear maps."""
    attrs = {"group": group, "strides": (2, 1), "pads": (1, 0, 1, 1), "dilations": (1, 2)}
    x, w = _random(2, 4, 9, 8), _random(6, 4 // group, 3, 2)
    (y,) = run_node(_node("Conv", **attrs), [x, w])
    direction = _random(*y.shape)
    (back,) = run_node(_node("ConvTranspose", **attrs), [direction, w])
    assert back.shape == x.shape
    assert np.sum(y * direction) == pytest.approx(np.sum(x * back), rel=1e-4)


def test_channels_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"node 'conv' \(Conv\): 3 channels do not fit"):
        run_node(_node("Conv"), [_random(1, 3, 4, 4), _random(2, 4, 1, 1)])
    with pytest.raises(EvaluationError, match="a window of 5 does not fit spatial dim 0 of 4"):
        run_node(_node("Conv"), [_random(1, 3, 4, 4), _random(2, 3, 5, 5)])


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("order", [0, 1])
def test_max_pool_indices_point_at_the_maxima(ceil: int, order: int) -> None:
    x = _random(2, 3, 7, 6)
    node = _node(
        "MaxPool", outputs=2, kernel_shape=(3, 2), strides=(2, 2), pads=(1, 0, 1, 0),
        ceil_mode=ceil, storage_order=order,
    )  # fmt: skip
    best, index = run_node(node, [x])
    planes = x if order == 0 else x.swapaxes(2, 3)
    np.testing.assert_array_equal(planes.reshape(-1)[index], best)
    (alone,) = run_node(
        _node("MaxPool", **{k: v for k, v in node.attrs.items() if k != "storage_order"}), [x]
    )
    np.testing.assert_array_equal(alone, best)


def test_average_pool_counts_padding_when_asked() -> None:
    x = np.ones((1, 1, 4), np.float32)
    attrs = {"kernel_shape": (2,), "strides": (2,), "pads": (1, 0), "ceil_mode": 1}
    (without,) = run_node(_node("AveragePool", **attrs), [x])
    (with_pads,) = run_node(_node("AveragePool", count_include_pad=1, **attrs), [x])
    np.testing.assert_array_equal(without, [[[1, 1, 1]]])
    np.testing.assert_array_equal(with_pads, [[[0.5, 1, 1]]])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pools_of_every_rank(rank: int) -> None:
    x = _random(2, 3, *(4,) * rank)
    flat = x.reshape(2, 3, -1)
    for op, want in [
        ("GlobalMaxPool", flat.max(axis=2)),
        ("GlobalAveragePool", flat.mean(axis=2)),
        ("GlobalLpPool", np.sqrt((flat**2).sum(axis=2))),
    ]:
        (got,) = run_node(_node(op), [x])
        assert got.shape == (2, 3, *(1,) * rank)
        np.testing.assert_allclose(got.reshape(2, 3), want, rtol=1e-5, atol=1e-6)


def test_integer_products_are_exact() -> None:
    a = _RNG.integers(0, 256, (3, 5, 4000)).astype(np.uint8)
    b = _RNG.integers(-128, 128, (4000, 6)).astype(np.int8)
    zero = np.array([1, 2, 3, 4, 5, 250], np.uint8).view(np.int8)
    (got,) = run_node(_node("MatMulInteger"), [a, b, np.uint8(7), zero])
    want = (a.astype(np.int64) - 7) @ (b.astype(np.int64) - zero)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want)


def test_a_batch_times_a_matrix_is_numpy_matmul() -> None:
    for shape in [(2, 3, 4), (0, 3, 4), (5, 1, 4)]:
        a, b = _random(*shape), _random(4, 6)
        (got,) = run_node(_node("MatMul"), [a, b])
        np.testing.assert_allclose(got, np.matmul(a, b), rtol=1e-5, atol=1e-6)
    (empty,) = run_node(_node("MatMul"), [_random(2, 3, 0), _random(0, 6)])
    np.testing.assert_array_equal(empty, np.zeros((2, 3, 6), np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_sums_of_operands_that_broadcast(dtype: str) -> None:
    a, b, c = (_random(*s).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
               for s in ((1, 3), (2, 1), ()))  # fmt: skip
    work = np.float64 if dtype == "float64" else np.float32
    total = a.astype(work) + b.astype(work) + c.astype(work)
    (y,) = run_node(_node("Sum"), [a, b, c])
    (z,) = run_node(_node("Mean"), [a, b, c])
    assert y.dtype == z.dtype == a.dtype and y.shape == z.shape == (2, 3)
    np.testing.assert_array_equal(y, total.astype(a.dtype))
    np.testing.assert_array_equal(z, (total / work(3)).astype(a.dtype))


def test_erf_is_correct_to_the_last_places() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20_001), [1e-300, -0.0, np.inf, -np.inf]])
    want = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf_array(x), want, rtol=4e-16, atol=0)
    assert np.isnan(erf_array(np.array([np.nan]))[0])


# ---- recurrences ---------------------------------------------------------------------------------

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_FINALS = {"LSTM": 2, "GRU": 1, "RNN": 1}


def _weights(op: str, directions: int = 1, hidden: int = 3, size: int = 2) -> list[np.ndarray]:
    rows = _GATES[op] * hidden
    return [
        _random(directions, rows, size), _random(directions, rows, hidden),
        _random(directions, 2 * rows),
    ]  # fmt: skip


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_short_sequence_is_computed_alone(op: str, direction: str) -> None:
    x, weights = _random(5, 2, 2), _weights(op)
    node = _node(op, 1 + _FINALS[op], hidden_size=3, direction=direction)
    y, *finals = run_node(node, [x, *weights, np.array([5, 3], np.int32)])
    alone, *alone_finals = run_node(node, [x[:3, 1:], *weights, None])
    np.testing.assert_allclose(y[:3, :, 1:], alone, rtol=1e-5, atol=1e-6)
    assert not y[3:, :, 1].any()
    for a, b in zip(finals, alone_finals, strict=True):
        np.testing.assert_allclose(a[:, 1:], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_bidirectional_is_both_directions(op: str) -> None:
    x, weights = _random(4, 2, 2), _weights(op, directions=2)
    (both,) = run_node(_node(op, hidden_size=3, direction="bidirectional"), [x, *weights])
    for i, direction in enumerate(["forward", "reverse"]):
        own = [w[i : i + 1] for w in weights]
        (y,) = run_node(_node(op, hidden_size=3, direction=direction), [x, *own])
        np.testing.assert_allclose(both[:, i : i + 1], y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_batch_first_only_moves_axes(op: str) -> None:
    x, weights = _random(4, 2, 2), _weights(op)
    plain = run_node(_node(op, 1 + _FINALS[op], hidden_size=3), [x, *weights])
    moved = run_node(
        _node(op, 1 + _FINALS[op], hidden_size=3, layout=1), [x.swapaxes(0, 1), *weights]
    )
    np.testing.assert_allclose(moved[0], plain[0].transpose(2, 0, 1, 3), rtol=1e-6)
    for a, b in zip(moved[1:], plain[1:], strict=True):
        np.testing.assert_allclose(a, b.swapaxes(0, 1), rtol=1e-6)


def test_activations_take_their_parameters_in_order() -> None:
    """With affine activations an LSTM step is arithmetic one can do by hand."""
    x = np.ones((1, 1, 1), np.float32)
    w = np.array([[[1], [2], [3], [4]]], np.float32)  # i, o, f, c
    node = _node(
        "LSTM", 3, hidden_size=1, activations=("Affine", "LeakyRelu", "Affine"),
        activation_alpha=(2.0, 0.1, 3.0), activation_beta=(1.0, -1.0),
    )  # fmt: skip
    y, _, cell = run_node(node, [x, w, np.zeros((1, 4, 1), np.float32)])
    assert cell.item() == (2 * 1 + 1) * 4
    assert y.item() == (2 * 2 + 1) * (3 * 12 - 1)


def test_clip_and_coupled_gates() -> None:
    x, weights = 9 * _random(2, 1, 2), _weights("LSTM")
    h0, c0 = _random(1, 1, 3), _random(1, 1, 3)
    node = _node("LSTM", 3, hidden_size=3, clip=0.5, activations=("Relu", "Relu", "Relu"))
    y, _, _ = run_node(node, [x, *weights, None, h0, c0])
    assert y.max() <= 0.5 * 0.5
    coupled = _node("LSTM", 3, hidden_size=3, input_forget=1)
    _, _, cell = run_node(coupled, [x[:1], *weights, None, h0, c0])
    gates = x[0] @ weights[0][0].T + h0[0] @ weights[1][0].T + weights[2][0].reshape(2, -1).sum(0)
    i, _, _, c = np.split(gates, 4, axis=1)
    i = 1 / (1 + np.exp(-i))
    np.testing.assert_allclose(cell[0], (1 - i) * c0[0] + i * np.tanh(c), rtol=1e-5)


def test_an_unknown_activation_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="unknown activation 'Swirl'"):
        run_node(_node("RNN", activations=("Swirl",)), [_random(1, 1, 2), *_weights("RNN")])


# ---- sequences -----------------------------------------------------------------------------------


def test_positions_in_sequences_count_from_both_ends() -> None:
    a, b, c = (np.array([i]) for i in range(3))
    insert = _node("SequenceInsert")
    assert run_node(insert, [[a, b], c])[0][2] is c
    assert run_node(insert, [[a, b], c, np.array(-1)])[0][1] is c
    assert run_node(insert, [[a, b], c, np.array(2)])[0][2] is c
    assert run_node(_node("SequenceErase"), [[a, b]])[0] == [a]
    with pytest.raises(EvaluationError, match="position 2 is outside of a sequence of 2"):
        run_node(_node("SequenceAt"), [[a, b], np.array(2)])


def test_an_empty_optional_is_none() -> None:
    assert run_node(_node("Optional"), [])[0] is None
    assert not run_node(_node("OptionalHasElement"), [None])[0]
    with pytest.raises(EvaluationError, match="holds no value"):
        run_node(_node("OptionalGetElement"), [None])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("shape", [(1, 6, 3), (4, 3, 2, 2), (2, 1)])
def test_lrn_is_its_definition(size: int, shape: tuple[int, ...]) -> None:
    x = _random(*shape)
    attrs = {"size": size, "alpha": 0.7, "beta": 0.6, "bias": 1.5}
    (got,) = run_node(_node("LRN", **attrs), [x])
    want = np.empty(shape)
    for c in range(shape[1]):
        # Every channel i with c - floor((size-1)/2) <= i <= c + ceil((size-1)/2).
        low, high = max(0, c - (size - 1) // 2), min(shape[1] - 1, c + size // 2)
        squares = (x[:, low : high + 1].astype(np.float64) ** 2).sum(axis=1)
        want[:, c] = x[:, c] / (1.5 + 0.7 / size * squares) ** 0.6
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_norms_add_magnitudes(p: int) -> None:
    x = np.array([[1, -2, 0.5], [0, 0, 0], [-3, 3, 0]], np.float32)
    (got,) = run_node(_node("LpNormalization", axis=-1, p=p), [x])
    norms = np.array([3.5, 1, 6]) if p == 1 else np.sqrt([5.25, 1, 18])
    np.testing.assert_allclose(got, x / norms[:, None], rtol=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "int4", "uint4"])
@pytest.mark.parametrize("scales", [(), (2,)])
def test_quantized_numbers_beyond_int32_saturate(kind: str, scales: tuple[int, ...]) -> None:
    target = to_numpy_dtype(kind)
    info = ml_dtypes.iinfo(target)
    x = np.array([[3e9, 1], [-3e9, 2], [np.inf, -np.inf]], np.float32)
    zero = np.full(scales, 1, target)
    node = _node("QuantizeLinear", axis=1)
    (got,) = run_node(node, [x, np.full(scales, 0.5, np.float32), zero])
    want = [[info.max, 3], [info.min, 5], [info.max, info.min]]
    assert got.dtype == target
    np.testing.assert_array_equal(got.astype(np.int64), want)


def test_an_infinite_memory_without_peepholes() -> None:
    """What is left out is not zero, whose product with infinity is NaN."""
    x, w, r = np.zeros((1, 1, 1), np.float32), np.zeros((1, 4, 1), np.float32), _random(1, 4, 1)
    start, memory = np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), np.inf, np.float32)
    node = _node("LSTM", 3, hidden_size=1)
    _, last, cell = run_node(node, [x, w, r, None, None, start, memory])
    assert cell.item() == np.inf and last.item() == 0.5


def test_log_softmax_far_below_the_maximum() -> None:
    """Where the softmax is denormal or 0 its logarithm is still a number."""
    x = np.array([[0, -100, -120, -1e4], [7, 7, -np.inf, 7]], np.float32)
    (got,) = run_node(_node("LogSoftmax", axis=1), [x])
    third = -np.log(np.float32(3))
    want = np.array([[0, -100, -120, -1e4], [third, third, -np.inf, third]], np.float32)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_norms_of_numbers_whose_squares_have_no_type(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    for x in (np.full(4, 300, dtype), np.full(4, 2.0**-14, dtype)):
        axes = np.array([0], np.int64)
        (got,) = run_node(_node("ReduceL2", keepdims=0), [x, axes])
        assert got == 2 * x[0] and got.dtype == dtype


@pytest.mark.parametrize("slope", [0.25, np.inf, np.nan])
def test_prelu_keeps_zeros(slope: float) -> None:
    x = np.array([0.0, -0.0, 2.0, -2.0, np.nan], np.float32)
    (got,) = run_node(_node("PRelu"), [x, np.float32([slope])])
    np.testing.assert_array_equal(got, np.float32([0, 0, 2, -2 * slope, np.nan]))
    assert np.signbit(got[:2]).tolist() == [False, True]


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_the_average_of_nothing_is_the_least_number(name: str) -> None:
    """As QuantizeLinear makes it of NaN: a window that lies in the padding holds no elements."""
    one, zero = np.float32(1), np.array(3, name)
    node = Graph().add_node(
        "QLinearAveragePool", [], {"kernel_shape": (2,), "pads": (1, 1)}, domain="com.microsoft"
    )
    (got,) = run_node(node, [np.zeros((1, 1, 0), name), one, zero, one, zero])
    assert got.tolist() == [[[np.iinfo(name).min]]]
    (plain,) = run_node(_node("QuantizeLinear"), [np.float32([np.nan]), one, zero])
    assert plain == np.iinfo(name).min
