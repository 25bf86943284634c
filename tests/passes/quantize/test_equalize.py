"""Channels between two products get alike ranges, and the function stays."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of
from support.pass_checks import random_feeds, same

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import Equalize, Quantize

RNG = np.random.default_rng(5)
UNEVEN = np.geomspace(1, 400, 8).astype(np.float32)


def normal(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


W1 = normal(8, 3, 3, 3) * UNEVEN.reshape(-1, 1, 1, 1)
B1 = normal(8, 1).reshape(-1) * UNEVEN
W2 = normal(6, 8, 3, 3) / UNEVEN.reshape(1, -1, 1, 1)
DEPTHWISE = normal(8, 1, 3, 3)
PLAIN1, PLAIN2 = normal(12, 8) * UNEVEN, normal(8, 5) / UNEVEN.reshape(-1, 1)
PLAIN_BIAS = normal(8, 1).reshape(-1) * UNEVEN
DENSE = np.repeat(normal(8, 5) / UNEVEN.reshape(-1, 1), 9, axis=0)
ARRAYS = {
    "w1": W1, "b1": B1, "w2": W2, "d": DEPTHWISE, "slope": np.array([[[0.2]]], np.float32),
    "m1": PLAIN1, "m2": PLAIN2, "mb": PLAIN_BIAS, "dense": DENSE,
    "zero": np.array(0, np.float32), "six": np.array(6, np.float32), "shape": np.array([0, -1]),
    "m7": normal(7, 5),
}  # fmt: skip
LINES, HELD = constant_lines(ARRAYS)
CONV = "%c = Conv(%x, %w1, %b1) {kernel_shape=[3, 3]}"


def net(lines: str, x: str = "float32[2,3,9,9]") -> Graph:
    *body, result = lines.split("; ")
    text = "\n".join(body)
    return graph_of(f"graph main(%x: {x}) -> (o) {{\n{LINES}\n{text}\nreturn {result}\n}}", HELD)


def equalized(graph: Graph) -> tuple[int, PassContext]:
    context = PassContext()
    result = Equalize().run(graph, context)
    context.refresh(graph)
    verify(graph)
    return result.changes, context


def out_peaks(graph: Graph, node: str, index: int = 1) -> np.ndarray:
    """The largest weight of each filter of a convolution."""
    (found,) = (n for n in graph.nodes if n.outputs[0].name == node)
    weights = graph.required_inputs(found)[index].constant
    assert weights is not None
    return np.abs(weights).reshape(len(weights), -1).max(1)


PAIRS = {
    "relu": f"{CONV}; %r = Relu(%c); %y = Conv(%r, %w2) {{kernel_shape=[3, 3]}}; %y",
    "nothing": f"{CONV}; %y = Conv(%c, %w2) {{kernel_shape=[3, 3]}}; %y",
    "leaky": f"{CONV}; %r = LeakyRelu(%c) {{alpha=0.1}}; "
             "%y = Conv(%r, %w2) {kernel_shape=[3, 3]}; %y",
    "slope": f"{CONV}; %r = PRelu(%c, %slope); %y = Conv(%r, %w2) {{kernel_shape=[3, 3]}}; %y",
    "pools": f"{CONV}; %r = Relu(%c); %p = MaxPool(%r) {{kernel_shape=[2, 2]}}; "
             "%q = AveragePool(%p) {kernel_shape=[2, 2]}; "
             "%y = Conv(%q, %w2) {kernel_shape=[3, 3]}; %y",
    "moves": f"{CONV}; %t = Transpose(%c) {{perm=[0, 1, 3, 2]}}; %r = Relu(%t); "
             "%y = Conv(%r, %w2) {kernel_shape=[3, 3]}; %y",
    "view": f"{CONV}; %p = MaxPool(%c) {{kernel_shape=[3, 3], strides=[2, 2]}}; "
            "%v = Reshape(%p, %shape); %y = MatMul(%v, %dense); %y",
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_the_function_stays_and_ranges_are_alike(name: str) -> None:
    graph = net(PAIRS[name])
    feeds = random_feeds(graph)
    wanted, before = evaluate(graph.copy(), feeds), out_peaks(graph, "c")
    changes, context = equalized(graph)
    assert changes == 1 and len(context.tables["equalized"]) == 1
    same(evaluate(graph, feeds), wanted, 1e-4)
    after = out_peaks(graph, "c")
    assert before.max() / before.min() > 100 and after.max() / after.min() < 10


def test_rows_of_matrices_and_what_is_added_behind_them() -> None:
    graph = net(
        "%p = MatMul(%x, %m1); %b = Add(%mb, %p); %r = Relu(%b); %y = MatMul(%r, %m2); %y",
        "float32[N,4,12]",
    )
    feeds = random_feeds(graph)
    wanted = evaluate(graph.copy(), feeds)
    assert equalized(graph)[0] == 1
    same(evaluate(graph, feeds), wanted, 1e-4)


def test_depthwise_convolutions_stand_in_two_pairs() -> None:
    graph = net(
        f"{CONV}; %r = Relu(%c); %d1 = Conv(%r, %d) {{kernel_shape=[3, 3], group=8}}; "
        "%s = Relu(%d1); %y = Conv(%s, %w2) {kernel_shape=[3, 3]}; %y"
    )
    feeds = random_feeds(graph)
    wanted = evaluate(graph.copy(), feeds)
    assert equalized(graph)[0] == 2
    same(evaluate(graph, feeds), wanted, 1e-4)
    # All three ranges of a channel are the same then, up to the biases.
    assert equalized(graph)[0] == 0


OTHERS = {
    "another reader": f"{CONV}; %r = Relu(%c); %y = Conv(%r, %w2) {{kernel_shape=[3, 3]}}; %y, %r",
    "another result": f"{CONV}; %r = Relu(%c); %y = Conv(%r, %w2) {{kernel_shape=[3, 3]}}; %y, %c",
    "no factor passes": f"{CONV}; %r = Sigmoid(%c); "
                        "%y = Conv(%r, %w2) {kernel_shape=[3, 3]}; %y",
    "bounds": f"{CONV}; %r = Clip(%c, %zero, %six); "
              "%y = Conv(%r, %w2) {kernel_shape=[3, 3]}; %y",
    "a residual sum": f"{CONV}; %z = Relu(%c); %a = Add(%z, %c); "
                      "%y = Conv(%a, %w2) {kernel_shape=[3, 3]}; %y",
    "an input": "%y = Conv(%x, %w1) {kernel_shape=[3, 3]}; %y",
    "another axis": "%c = Conv(%x, %w1, %b1) {kernel_shape=[3, 3]}; %y = MatMul(%c, %m7); %y",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_others_stay(name: str) -> None:
    text = OTHERS[name]
    results = text.rpartition("; ")[2].count(",") + 1
    body = text.replace("; ", "\n").rpartition("\n")[0]
    names = ", ".join(f"o{i}" for i in range(results))
    graph = graph_of(
        f"graph main(%x: float32[2,3,9,9]) -> ({names}) {{\n{LINES}\n{body}\n"
        f"return {text.rpartition('; ')[2]}\n}}",
        HELD,
    )
    feeds = random_feeds(graph)
    wanted = evaluate(graph.copy(), feeds)
    assert equalized(graph)[0] == 0
    for found, array in zip(evaluate(graph, feeds), wanted, strict=True):
        np.testing.assert_array_equal(found, array)


def test_a_channel_that_is_next_to_nothing_but_its_bias_stays_small() -> None:
    w1, b1 = W1.copy(), np.abs(B1) / UNEVEN + np.float32(0.5)
    w1[0] = 1e-12
    lines, held = constant_lines({**ARRAYS, "w1": w1, "b1": b1})
    body = PAIRS["relu"].replace("; ", "\n").rpartition("\n")[0]
    graph = graph_of(f"graph main(%x: float32[2,3,9,9]) -> (o) {{\n{lines}\n{body}\nreturn %y\n}}",
                     held)  # fmt: skip
    equalized(graph)
    (conv,) = (n for n in graph.nodes if n.outputs[0].name == "c")
    bias = graph.required_inputs(conv)[2].constant
    assert bias is not None and np.abs(bias).max() < 100


def test_weights_that_others_share_stay_theirs() -> None:
    lines = (
        f"{CONV}; %r = Relu(%c); %y = Conv(%r, %w2) {{kernel_shape=[3, 3]}}; "
        "%t = Tanh(%x); %z = Conv(%t, %w1, %b1) {kernel_shape=[3, 3]}; %s = Sigmoid(%z); "
        "%v = Conv(%s, %w2) {kernel_shape=[3, 3]}; %o = Add(%y, %v); %o"
    )
    graph = net(lines)
    feeds = random_feeds(graph)
    wanted = evaluate(graph.copy(), feeds)
    before = out_peaks(graph, "z")
    assert equalized(graph)[0] == 1
    np.testing.assert_array_equal(out_peaks(graph, "z"), before)
    same(evaluate(graph, feeds), wanted, 1e-4)


def test_weights_that_would_vanish_stay() -> None:
    w2 = W2 * np.float32(1e-30)
    w2[:, :, 0, 0] = 1e30
    lines, held = constant_lines({**ARRAYS, "w1": W1 * np.float32(1e-35), "w2": w2})
    body = PAIRS["nothing"].replace("; ", "\n").rpartition("\n")[0].replace(", %b1", "")
    graph = graph_of(f"graph main(%x: float32[2,3,9,9]) -> (o) {{\n{lines}\n{body}\nreturn %y\n}}",
                     held)  # fmt: skip
    assert equalized(graph)[0] == 0


def noise(graph: Graph, data: list[dict[str, np.ndarray]]) -> float:
    """Signal to noise of the quantized graph's result, in decibels."""
    exact = graph.copy()
    Quantize().run(graph, PassContext(data=data))
    power = error = 0.0
    for feeds in data:
        (wanted,), (found,) = evaluate(exact.copy(), feeds), evaluate(graph.copy(), feeds)
        power, error = power + np.sum(wanted**2), error + np.sum((found - wanted) ** 2)
    return 10 * np.log10(power / error)


def test_quantized_models_are_closer() -> None:
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((2, 3, 9, 9)).astype(np.float32)} for _ in range(4)]
    plain, better = net(PAIRS["relu"]), net(PAIRS["relu"])
    equalized(better)
    assert noise(better, data) > noise(plain, data) + 10
