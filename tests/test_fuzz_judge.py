"""The judge of random graphs: what rounding may do is free, and nothing else."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fuzz.evaluate import element
from fuzz.hunt import Item, _whole
from fuzz.judge import Finding
from fuzz.make import make
from fuzz.rounding import Noise, noisy, plain
from fuzz.tolerance import MORE, SAMPLES, difference, samples
from fuzz.unneeded import unneeded_failure
from onnx import ModelProto, helper
from onnx.parser import parse_model

from graphkiln.driver import import_model
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate

ALL = range(SAMPLES + MORE)
HEAD = '<ir_version: 10, opset_import: ["": 21]>'


def _graph(text: str) -> Graph:
    return import_model(parse_model(HEAD + text)).graph


def _one(op: str, inputs: list[np.ndarray], domain: str = "", **attrs: Any) -> Graph:
    names = [f"x{i}" for i in range(len(inputs))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **attrs)], "g",
        [helper.make_tensor_value_info(n, element(x.dtype), x.shape)
         for n, x in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info("y", element(inputs[0].dtype), None)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return import_model(model).graph


def _judged(graph: Graph, feeds: dict[str, Any], got: np.ndarray) -> str | None:
    wrong = samples(graph, feeds, ALL)
    return difference(got, evaluate(graph.copy(), feeds)[0], [w[0] for w in wrong])


@pytest.mark.parametrize(
    ("family", "share"),
    [("elementwise", 0.9), ("convnets", 0.9), ("transformers", 0.9), ("recurrent", 0.85),
     ("reductions", 0.9)],
)  # fmt: skip
def test_a_thousandth_is_found(family: str, share: float) -> None:
    """Some numbers of random graphs are ill-conditioned, so a few errors are within rounding."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(9_000, 9_010):
        subject = make(family, seed)
        feeds = dict(subject.feeds[0])
        right = evaluate(subject.graph.copy(), feeds)
        wrong = samples(subject.graph, feeds, ALL)
        for i, base in enumerate(right):
            assert difference(base, base, [w[i] for w in wrong]) is None
            if base.dtype != np.float32:
                continue
            places = np.flatnonzero(np.isfinite(base) & (base != 0))
            for place in rng.choice(places, min(3, places.size), replace=False):
                got = base.copy()
                got.flat[place] *= np.float32(1.001)
                found.append(difference(got, base, [w[i] for w in wrong]) is not None)
    assert len(found) > 20
    assert np.mean(found) >= share


def test_every_other_integer_is_found() -> None:
    subject = make("integer", 9_001)
    feeds = dict(subject.feeds[0])
    wrong = samples(subject.graph, feeds, ALL)
    for i, base in enumerate(evaluate(subject.graph.copy(), feeds)):
        for place in range(base.size):
            got = base.copy()
            got.flat[place] = not got.flat[place] if got.dtype == bool else got.flat[place] + 1
            assert difference(got, base, [w[i] for w in wrong]) is not None


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One head, every step in the type of the operands."""
    scores = (q @ np.swapaxes(k, 1, 2) / np.sqrt(q.dtype.type(q.shape[-1]))).astype(q.dtype)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    result: np.ndarray = weights @ v
    return result


def test_sums_inside_of_an_operation_may_round() -> None:
    """Scores of 1e12 are wrong by 1e5 in float32, which decides the keys; others decide nothing."""
    rng = np.random.default_rng(0)
    for size, is_free in ((1e6, True), (1.0, False)):
        q, k, v = (rng.standard_normal((1, 4, 8)).astype(np.float32) for _ in range(3))
        bias = np.repeat(rng.standard_normal(3) * size, 8).astype(np.float32)
        graph = _one("MultiHeadAttention", [q, k, v, bias], "com.microsoft", num_heads=1)
        feeds = {"x0": q, "x1": k, "x2": v, "x3": bias}
        parts = [x + b for x, b in zip((q, k, v), np.split(bias, 3), strict=True)]
        assert _judged(graph, feeds, _attention(*parts)) is None
        other = _attention(parts[0], parts[1][:, ::-1], parts[2])
        assert (_judged(graph, feeds, other) is None) == is_free


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_functions_that_cancel_may_be_wrong_by_their_terms(shape: tuple[int, ...]) -> None:
    x = np.full(shape, -2.677909, np.float32)
    graph = _one("Gelu", [x])
    (right,) = evaluate(graph.copy(), {"x0": x})
    for error, is_free in ((1.2e-7, True), (1.2e-5, False)):
        got = np.asarray(right + np.float32(error))
        assert (_judged(graph, {"x0": x}, got) is None) == is_free


@pytest.mark.parametrize(("op", "x"), [("Gelu", -6.9), ("Softplus", -17.5), ("Elu", -2e-8)])
def test_terms_that_cancel_may_leave_nothing(op: str, x: float) -> None:
    graph = _graph("g (float x) => (bool y) { r = OP (x) y = Cast <to = 9> (r) }".replace("OP", op))
    for number, is_free in ((x, True), (1.0, False)):
        feeds = {"x": np.array(number, np.float32)}
        assert evaluate(graph.copy(), feeds)[0]
        assert (_judged(graph, feeds, np.array(False)) is None) == is_free


def test_powers_below_the_normal_numbers_may_be_nothing() -> None:
    for low, is_free in ((-92.0, True), (-80.0, False)):
        x = np.array([[low, 0]], np.float32)
        graph = _one("Softmax", [x])
        assert 0 < evaluate(graph.copy(), {"x0": x})[0][0, 0] < 1e-30
        assert (_judged(graph, {"x0": x}, np.array([[0, 1]], np.float32)) is None) == is_free


def test_what_is_between_may_overflow_or_not() -> None:
    """A fused multiply-add of a product beyond float32 is finite, infinite or of another sign."""
    x = np.full((1, 1, 1), 1.0, np.float32)
    w, r = np.full((1, 4, 1), 1e30, np.float32), np.zeros((1, 4, 1), np.float32)
    feeds = {"x0": x, "x1": w, "x2": r}
    graph = _one("LSTM", [x, w, r], hidden_size=1, activations=["Relu", "Affine", "Affine"])
    (base,) = evaluate(graph.copy(), feeds)
    assert np.isinf(base).all()
    assert _judged(graph, feeds, base) is None
    small = {**feeds, "x1": np.full((1, 4, 1), 1.5, np.float32)}
    (base,) = evaluate(graph.copy(), small)
    assert _judged(graph, small, np.full_like(base, np.nan)) is not None
    assert _judged(graph, small, np.zeros_like(base)) is not None


_SUM = """g (float[1,1,1] x, float[1,8,1] w, float[1,8,2] r, float[1,1,2] c) => (float[1,1] y) {
    s, h = LSTM <hidden_size = 2, activations = ["Affine", "Affine", "Affine"]>
        (x, w, r, "", "", "", c)
    last = Constant <value = int64[1] {2}> ()
    sum = ReduceSum <keepdims = 0> (h, last)
    y = Sign (sum)
}"""


def test_a_fused_multiply_add_rounds_one_of_two_products() -> None:
    """f C + i g is 1e60 - 3e60: -inf, or NaN where float32 holds both products, or inf where it
    holds the first alone. Only that can be added to another inf.
    """
    graph = _graph(_SUM)
    gates = [[1e30, 0], [1, 1], [1e30, 1e30], [-3e30, 0]]  # i, o, f, g
    w = np.array(gates, np.float32).reshape(1, 8, 1)
    feeds = {"x": np.ones((1, 1, 1), np.float32), "w": w, "r": np.zeros((1, 8, 2), np.float32),
             "c": np.full((1, 1, 2), 1e30, np.float32)}  # fmt: skip
    assert np.isnan(evaluate(graph.copy(), feeds)[0]).all()
    assert _judged(graph, feeds, np.ones((1, 1), np.float32)) is None
    small = {**feeds, "w": np.array(gates, np.float32).reshape(1, 8, 1).clip(-3, 1)}
    assert _judged(graph, small, -np.ones((1, 1), np.float32)) is not None


def test_narrow_floats_may_be_wide_between_operations() -> None:
    """Multiples of 64 alone are bfloat16 above 8192, so the remainder depends on a rounding."""
    dtype = np.dtype(ml_dtypes.bfloat16)
    graph = _graph("""g (bfloat16[N] x, bfloat16[N] a, bfloat16[N] m) => (bfloat16[N] y) {
        s = Mul (x, a)
        y = Mod <fmod: int = 1> (s, m)
    }""")
    x, a, m = (np.array([v], dtype) for v in (43, 255, 2))
    feeds = {"x": x, "a": a, "m": m}
    assert evaluate(graph.copy(), feeds)[0] == 0
    assert _judged(graph, feeds, np.array([1], dtype)) is None
    large = {**feeds, "m": np.array([2**15], dtype)}
    assert _judged(graph, large, np.array([1], dtype)) is not None


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scales_of_images_are_exact(mode: str) -> None:
    """Twice 3 is 6, whatever rounds; coordinates round, so a result is wrong by some slopes."""
    x = np.random.default_rng(0).uniform(-2, 2, (1, 2, 3, 5)).astype(np.float32)
    text = """g (float[1,2,H,W] x) => (float[A,B,C,D] y) {
        s = Constant <value = float[4] {1, 1, 2, 1.5}> ()
        y = Resize <mode = "MODE"> (x, "", s)
    }"""
    graph, feeds = _graph(text.replace("MODE", mode)), {"x": x}
    (base,) = evaluate(graph.copy(), feeds)
    assert base.shape == (1, 2, 6, 7)
    wrong = [w[0] for w in samples(graph, feeds, ALL)]
    assert all(w.shape == base.shape for w in wrong)
    for error, is_free in ((1e-6, mode != "nearest"), (1e-3, False)):
        got = base.copy()
        got[0, 0, 3, 3] += np.float32(error)
        assert (difference(got, base, wrong) is None) == is_free


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_weights_of_cubic_blends_are_of_32_bits(mode: str) -> None:
    x = np.random.default_rng(0).uniform(-2, 2, (1, 2, 3, 5))
    text = """g (double[1,2,H,W] x) => (double[A,B,C,D] y) {
        s = Constant <value = float[4] {1, 1, 2, 1.5}> ()
        y = Resize <mode = "MODE"> (x, "", s)
    }"""
    graph = _graph(text.replace("MODE", mode))
    (base,) = evaluate(graph.copy(), {"x": x})
    for error, is_free in ((1e-7, mode == "cubic"), (1e-3, False)):
        assert (_judged(graph, {"x": x}, base + error) is None) == is_free


_UNUSED = """g (int64[N] i, float[4] x) => (float[4] y) {
    z = Gather (x, i)
    y = Neg (%s)
}"""


def test_what_no_result_needs_may_fail() -> None:
    feeds = {"i": np.array([7]), "x": np.arange(4, dtype=np.float32)}
    found = unneeded_failure(_graph(_UNUSED % "x"), feeds)
    assert found is not None
    np.testing.assert_array_equal(found[0][0], -feeds["x"])
    assert unneeded_failure(_graph(_UNUSED % "z"), feeds) is None


_TURNS = """g (int64 n, float[2] x) => (float[A,B] y) {
    t = Constant <value = bool {1}> ()
    y = Loop (n, t) <body = b (int64 i, bool c) => (bool d, float[C] z) {
        d = Identity (c)
        k = NonZero (x)
        f = Cast <to = 1> (k)
        m = Constant <value = int64[1] {-1}> ()
        z = Reshape (f, m)
    }>
}"""


def test_sizes_of_no_turns_are_any() -> None:
    graph, x = _graph(_TURNS), np.ones(2, np.float32)
    none = {"n": np.array(0), "x": x}
    assert _judged(graph, none, np.zeros((0, 4), np.float32)) is None
    assert _judged(graph, none, np.zeros((1, 4), np.float32)) is not None
    assert _judged(graph, {"n": np.array(1), "x": x}, np.zeros((1, 4), np.float32)) is not None


_MISFITS = """g (int64 n, float[A] x, float[B] z) => (float[T,C] y) {
    t = Constant <value = bool {1}> ()
    y = Loop (n, t) <body = b (int64 i, bool c) => (bool d, float[D] s) {
        d = Identity (c)
        s = Add (x, z)
    }>
}"""


def test_sizes_of_turns_that_could_not_be_are_any() -> None:
    graph = _graph(_MISFITS)
    feeds = {"n": np.array(0), "x": np.ones(2, np.float32), "z": np.ones(6, np.float32)}
    for size in (2, 6):
        assert _judged(graph, feeds, np.zeros((0, size), np.float32)) is None
    assert _judged(graph, feeds, np.zeros((1, 2), np.float32)) is not None
    fitting = {**feeds, "x": feeds["z"]}
    assert _judged(graph, fitting, np.zeros((0, 2), np.float32)) is not None


def test_every_step_makes_noise() -> None:
    x = np.linspace(1, 2, 12).reshape(3, 4)
    array = noisy(x, Noise(np.random.default_rng(0), 1e-6))
    steps = {
        "sum": lambda a: a.sum(-1), "mean": lambda a: np.mean(a, 0), "exp": np.exp,
        "matmul": lambda a: a @ x.T, "right": lambda a: x.T @ a, "less": lambda a: 1 - a,
        "einsum": lambda a: np.einsum("ij,ik->jk", a, x), "dot": lambda a: np.dot(a, x.T),
        "where": lambda a: np.where(a > 1.5, a, 0) + x, "split": lambda a: np.split(a, 2, 1)[0] * 3,
        "method": lambda a: a.dot(x.T), "cumsum": lambda a: np.cumsum(a, 0),
        "stack": lambda a: np.stack([a, a]).sum(), "softmax": lambda a: np.exp(a) / np.exp(a).sum(),
    }  # fmt: skip
    for name, step in steps.items():
        got, want = plain(step(array)), step(x)
        assert type(got) is not type(array)
        assert np.abs(got - want).max() > 1e-8, name
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=name)
    for exact in (np.negative, np.abs, np.max, np.floor, lambda a: a.reshape(2, 6), np.transpose):
        np.testing.assert_array_equal(plain(exact(array)), exact(x))


def test_a_graph_that_is_kept_whole_has_the_feeds_that_failed() -> None:
    made = make("sizes", 17)
    assert len(made.feeds) > 1
    kept = _whole(Item("sizes", 17), Finding("wrong", 1, "", "fold,dce"), 60, "cpu")
    assert kept is not None and kept.pipelines == ["fold,dce"]
    assert len(kept.feeds) == 1
    for name, array in made.feeds[1].items():
        np.testing.assert_array_equal(kept.feeds[0][name], array)


def test_a_pipeline_fuses_what_has_no_dead_nodes() -> None:
    found = [p.split(",") for n in range(9_000, 9_060) for p in make("sizes", n).pipelines]
    places = [(names, i) for names in found for i, n in enumerate(names) if n == "fuse"]
    assert len(places) > 3
    assert all(names[i - 1] == "dce" for names, i in places)
