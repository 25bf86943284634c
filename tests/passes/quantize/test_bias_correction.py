"""Biases make up for what quantization adds to the means of channels."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import Quantize

RNG = np.random.default_rng(3)
# Few weights by channel, all of one sign in the operand: the rounding errors do not cancel.
W = (RNG.standard_normal((8, 1, 3, 3)) * np.geomspace(1, 30, 9).reshape(3, 3)).astype(np.float32)
B = RNG.standard_normal(8).astype(np.float32)


def net(bias: bool = True) -> Graph:
    lines, arrays = constant_lines({"w": W, "b": B})
    given = "%x, %w, %b" if bias else "%x, %w"
    return graph_of(
        f"graph main(%x: float32[1,8,12,12]) -> (o) {{\n{lines}\n"
        f"%y = Conv({given}) {{kernel_shape=[3, 3], group=8}}\nreturn %y\n}}",
        arrays,
    )


def samples(count: int = 6) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [{"x": rng.uniform(0, 2, (1, 8, 12, 12)).astype(np.float32)} for _ in range(count)]


def shift(correct: bool) -> np.ndarray:
    """The mean error of each channel."""
    graph, context = net(), PassContext(data=samples())
    Quantize(bias_correction=correct).run(graph, context)
    errors = []
    for feeds in samples():
        (found,), (wanted,) = evaluate(graph.copy(), feeds), evaluate(net(), feeds)
        errors.append((found - wanted).mean((0, 2, 3)))
    return np.mean(errors, 0)


def test_means_are_right_afterwards() -> None:
    before, after = np.abs(shift(False)), np.abs(shift(True))
    assert before.max() > 0.05
    # What remains is the rounding of the bias to the products' scale.
    assert after.max() < 0.02 * before.max()


def test_what_has_no_bias_stays() -> None:
    graph, context = net(bias=False), PassContext(data=samples())
    result = Quantize(bias_correction=True).run(graph, context)
    assert result.details == {"weights": 1, "activations": 1}


def test_nothing_is_changed_where_nothing_is_lost() -> None:
    """Integers of 8 bits as they are."""
    lines, arrays = constant_lines({
        "w": np.arange(-127, 128, 127, dtype=np.float32).reshape(3, 1),
        "b": np.array([1.0], np.float32),
    })  # fmt: skip
    text = (f"graph main(%x: float32[2,3]) -> (o) {{\n{lines}\n"
            "%y = Gemm(%x, %w, %b)\nreturn %y\n}")  # fmt: skip
    data = [{"x": np.array([[0, 255, 3], [7, 8, 9]], np.float32)}]
    graph = graph_of(text, arrays)
    result = Quantize(bias_correction=True).run(graph, PassContext(data=data))
    assert result.details["means"] == 1
    (found,), (wanted,) = evaluate(graph, data[0]), evaluate(graph_of(text, arrays), data[0])
    assert found == pytest.approx(wanted, abs=1e-3)
