"""Int8 weights whose codes make up for the errors of others."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.fold_affine.linear import linear_form
from graphkiln.passes.quantize import Quantize, WeightRounding
from graphkiln.passes.quantize.gptq import result_errors, with_scales
from graphkiln.passes.quantize.patches import grams
from graphkiln.passes.ranges import Range

RNG = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


ARRAYS = {
    "m": normal(48, 20), "t": normal(20, 48), "f": normal(10, 6, 3, 3), "g": normal(10, 3, 3, 2),
    "d": normal(12, 1, 3, 3), "u": normal(6, 5, 3, 3), "b": normal(10),
}  # fmt: skip
LINES, HELD = constant_lines(ARRAYS)
MIX = RNG.standard_normal((5, 48))
"""Rows are mixtures of few: their elements depend on each other, as those of images do."""


def net(line: str, x: str) -> Graph:
    return graph_of(
        f"graph main(%x: float32{x}) -> (o) {{\n{LINES}\n%y = {line}\nreturn %y\n}}", HELD
    )


def rows(*lead: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": (rng.standard_normal((*lead, 5)) @ MIX).astype(np.float32)} for _ in range(3)]


def images(*shape: int) -> list[dict[str, np.ndarray]]:
    """Smooth ones, whose channels are alike."""
    rng = np.random.default_rng(1)
    waves = np.sin(np.arange(shape[-1]) / 3) + np.cos(np.arange(shape[-2]) / 4)[:, None]
    return [
        {"x": (waves * rng.uniform(0.5, 1, (*shape[:2], 1, 1)) + rng.normal(0, 0.05, shape))
              .astype(np.float32)}
        for _ in range(3)
    ]  # fmt: skip


NETS = {
    "rows": ("MatMul(%x, %m)", "[N,7,48]", rows(2, 7)),
    "transposed weights": ("Gemm(%x, %t) {transB=1}", "[9,48]", rows(9)),
    "filters": (
        "Conv(%x, %f, %b) {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]}", "[N,6,11,11]",
        images(2, 6, 11, 11),
    ),
    "groups": (
        "Conv(%x, %g) {kernel_shape=[3, 2], group=2, dilations=[2, 1]}", "[2,6,11,11]",
        images(2, 6, 11, 11),
    ),
    "depthwise": ("Conv(%x, %d) {kernel_shape=[3, 3], group=6}", "[2,6,9,9]", images(2, 6, 9, 9)),
    "spread": (
        "ConvTranspose(%x, %u) {kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]}",
        "[2,6,7,7]", images(2, 6, 7, 7),
    ),
}  # fmt: skip


def quantized(
    graph: Graph, rounding: WeightRounding, data: list[dict[str, np.ndarray]]
) -> tuple[Graph, PassContext]:
    context = PassContext(data=data)
    Quantize(rounding=rounding).run(graph, context)
    context.refresh(graph)
    verify(graph)
    return graph, context


def weights(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """The codes and the scales of the product's weights."""
    (node,) = (n for n in graph.nodes if n.outputs[0].name == "y")
    value = graph.required_inputs(node)[1]
    codes, scale, _ = (v.constant for v in graph.required_inputs(value.node))
    assert codes is not None and scale is not None
    return codes, scale


def weight_error(graph: Graph, exact: Graph, data: list[dict[str, np.ndarray]]) -> float:
    """The sum of squares that the errors of the weights alone make in the result."""
    other = exact.copy()
    (node,) = other.nodes
    (value,) = (v for v in graph.nodes if v.key == "DequantizeLinear" and len(v.out().shape) > 1
                and graph.required_inputs(v)[0].is_constant)  # fmt: skip
    (restored,) = evaluate_one(graph, value.out().name)
    other.set_input(node, 1, other.add_constant(restored))
    total = 0.0
    for feeds in data:
        (a,), (b,) = evaluate(exact.copy(), feeds), evaluate(other.copy(), feeds)
        total += float(np.sum((a.astype(np.float64) - b) ** 2))
    return total


def evaluate_one(graph: Graph, name: str) -> list[np.ndarray]:
    copy = graph.copy()
    (value,) = (v for n in copy.nx for v in n.values if v.name == name)
    copy.set_outputs([value])
    feeds = {v.name: np.zeros([d if isinstance(d, int) else 1 for d in v.shape], np.float32)
             for v in copy.inputs}  # fmt: skip
    return list(evaluate(copy, feeds))


@pytest.mark.parametrize("name", NETS)
def test_results_are_closer(name: str) -> None:
    line, x, data = NETS[name]
    exact = net(line, x)
    errors, scales = {}, {}
    for rounding in WeightRounding:
        graph, context = quantized(net(line, x), rounding, data)
        assert not context.warnings
        errors[rounding] = weight_error(graph, exact, data)
        codes, scales[rounding] = weights(graph)
        assert codes.dtype == np.int8 and np.abs(codes).max() <= 127
    np.testing.assert_array_equal(*scales.values())
    # At least 3 dB.
    assert errors[WeightRounding.GPTQ] < 0.5 * errors[WeightRounding.NEAREST]


@pytest.mark.parametrize("name", NETS)
def test_gram_matrices_give_the_errors_of_results(name: str) -> None:
    """The power of a result is that of its weights by the Gram matrix."""
    line, x, data = NETS[name]
    graph = net(line.replace(", %b", ""), x)
    (node,) = graph.nodes
    product, value = linear_form(graph, node), graph.input(node, 1)
    assert product is not None and value is not None and value.constant is not None
    (gram,) = grams(graph, [product], PassContext(data=data))
    groups, inputs, outputs, positions = product.counts
    matrices = product.unpacked(value.constant).transpose(0, 1, 3, 2)
    matrices = matrices.reshape(groups, inputs * positions, outputs).astype(np.float64)
    found = sum(float(result_errors(w, g).sum()) for w, g in zip(matrices, gram, strict=True))
    wanted = sum(float(np.sum(evaluate(graph.copy(), f)[0].astype(np.float64) ** 2)) for f in data)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_no_column_gets_worse() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.standard_normal((6, 12)) @ rng.standard_normal((12, 12))
        w = rng.standard_normal((12, 9))
        gram, scale = x.T @ x, np.abs(w).max(0) / 7
        codes = with_scales(w, gram, scale, 7)
        nearest = np.clip(np.round(w / scale), -7, 7)
        mine, theirs = (result_errors(c * scale - w, gram) for c in (codes, nearest))
        assert np.all(mine <= theirs) and mine.sum() < theirs.sum()


def test_what_no_sample_shows_is_nearest() -> None:
    w, gram = normal(6, 4), np.zeros((6, 6))
    scale = np.abs(w).max(0) / 127
    np.testing.assert_array_equal(with_scales(w, gram, scale), np.round(w / scale))


def test_biases_are_corrected_for_the_same_codes() -> None:
    line, x, data = NETS["filters"]
    graph = net(line, x)
    step = Quantize(rounding=WeightRounding.GPTQ, bias_correction=True)
    step.run(graph, PassContext(data=data))
    total = np.zeros(10)
    for feeds in data:
        (a,), (b,) = evaluate(graph.copy(), feeds), evaluate(net(line, x), feeds)
        total += (a - b).mean((0, 2, 3)) / len(data)
    assert np.abs(total).max() < 1e-3


def test_samples_must_be_given() -> None:
    line, x, _ = NETS["rows"]
    context = PassContext(ranges={"x": Range(-1.0, 1.0)})
    with pytest.raises(GraphError, match="gptq rounds by what layers read: give sample data"):
        Quantize(rounding=WeightRounding.GPTQ).run(net(line, x), context)


def test_long_sums_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphkiln.passes.quantize.rounding._LONGEST", 40)
    line, x, data = NETS["rows"]
    graph, context = quantized(net(line, x), WeightRounding.GPTQ, data)
    told = "the weights of 'y' are rounded to the nearest: its sums of 48 products are too long"
    assert context.warnings == [told]
    np.testing.assert_array_equal(
        weights(graph)[0], weights(quantized(net(line, x), WeightRounding.NEAREST, data)[0])[0]
    )
