"""Weights that become zero: which, how many, and what the others make up for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.prune import Compared, Criterion, Sparsify

RNG = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


ARRAYS = {
    "m": normal(48, 32), "t": normal(32, 48), "f": normal(16, 6, 3, 3), "g": normal(8, 4, 3, 2),
    "d": normal(12, 1, 3, 3), "u": normal(6, 5, 3, 3), "small": normal(48, 32) / 100,
}  # fmt: skip
LINES, HELD = constant_lines(ARRAYS)
MIX = RNG.standard_normal((5, 48))
"""Rows are mixtures of few, so that some of their elements can stand for others."""

NETS = {
    "rows": ("MatMul(%x, %m)", "[N,7,48]", "m", (1, 0)),
    "transposed weights": ("Gemm(%x, %t) {transB=1}", "[9,48]", "t", (0, 1)),
    "filters": ("Conv(%x, %f) {kernel_shape=[3, 3]}", "[N,6,11,11]", "f", (0, 1)),
    "groups": ("Conv(%x, %g) {kernel_shape=[3, 2], group=2}", "[2,8,11,11]", "g", (0, 1)),
    "spread": ("ConvTranspose(%x, %u) {kernel_shape=[3, 3]}", "[2,6,7,7]", "u", (1, 0)),
}


def net(body: str, x: str = "[N,7,48]", results: str = "%y") -> Graph:
    text = f"graph main(%x: float32{x}) -> (o) {{\n{LINES}\n{body}\nreturn {results}\n}}"
    return graph_of(text, HELD)


def rows(*lead: int, count: int = 3, seed: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.1, 2, 48)
    return [
        {"x": ((rng.standard_normal((*lead, 5)) @ MIX + 0.3 * rng.standard_normal((*lead, 48)))
               * scale).astype(np.float32)}
        for _ in range(count)
    ]  # fmt: skip


def sparse(graph: Graph, data: Any = (), **options: Any) -> tuple[list[np.ndarray], PassContext]:
    """The weights of the products, in order."""
    context = PassContext(data=data)
    Sparsify(**options).run(graph, context)
    context.refresh(graph)
    verify(graph)
    found = []
    for node in graph.topological():
        if node.op in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            array = graph.required_inputs(node)[1].constant
            found += [] if array is None else [array]
    return found, context


@pytest.mark.parametrize(("line", "x", "name", "axes"), NETS.values(), ids=NETS)
def test_the_smallest_weights_go(line: str, x: str, name: str, axes: tuple[int, int]) -> None:
    (found,), context = sparse(net(f"%y = {line}", x), zeros=0.25)
    w = ARRAYS[name]
    gone = found == 0
    assert not np.signbit(found[gone]).any()
    assert gone.sum() == round(0.25 * w.size)
    np.testing.assert_array_equal(found[~gone], w[~gone])
    assert np.abs(w[gone]).max() <= np.abs(w[~gone]).min()
    (row,) = context.tables["sparse"]
    assert row["zeros"] == pytest.approx(gone.mean(), abs=1e-4)
    assert row["reason"] == "" and row["decibels"] is None


@pytest.mark.parametrize(("line", "x", "name", "axes"), NETS.values(), ids=NETS)
def test_of_each_four_inputs_two_stay(line: str, x: str, name: str, axes: tuple[int, int]) -> None:
    (found,), _ = sparse(net(f"%y = {line}", x), pattern="2:4")
    inputs = np.moveaxis(found, axes[1], 0)
    for start in range(0, len(inputs), 4):
        part = inputs[start : start + 4]
        assert ((part != 0).sum(axis=0) == min(2, len(part))).all()


@pytest.mark.parametrize(("line", "x", "name", "axes"), NETS.values(), ids=NETS)
def test_blocks_of_outputs_go_together(line: str, x: str, name: str, axes: tuple[int, int]) -> None:
    (found,), _ = sparse(net(f"%y = {line}", x), pattern="4x1", zeros=0.75)
    # Outputs of the second group follow those of the first.
    outputs = np.moveaxis(found != 0, axes[0], 0)
    for start in range(0, len(outputs), 4 if name != "u" else 5):
        part = outputs[start : start + 4]
        assert (part == part[0]).all()
    assert (found == 0).mean() == pytest.approx(0.75, abs=0.07)


def test_outputs_are_compared_by_themselves() -> None:
    m = ARRAYS["m"] * np.linspace(0.01, 1, 32, dtype=np.float32)
    graph = net("%w = Identity(%m)\n%y = MatMul(%x, %m)")
    node = next(n for n in graph.nodes if n.op == "MatMul")
    graph.set_input(node, 1, graph.add_constant(m))
    (found,), _ = sparse(graph, zeros=0.5, compared=Compared.OUTPUT)
    assert ((found == 0).sum(axis=0) == 24).all()


def test_layers_are_compared_overall() -> None:
    body = "%a = MatMul(%x, %m)\n%b = MatMul(%x, %small)\n%y = Add(%a, %b)"
    (large, small), _ = sparse(net(body), zeros=0.5, compared=Compared.OVERALL)
    assert (large == 0).mean() < 0.05 and (small == 0).mean() > 0.95
    assert (large == 0).sum() + (small == 0).sum() == 48 * 32


def test_wanda_goes_by_what_weights_multiply() -> None:
    data = rows(2, 7)
    (found,), context = sparse(
        net("%y = MatMul(%x, %m)"), data, zeros=0.5, criterion=Criterion.WANDA
    )
    x = np.concatenate([d["x"].reshape(-1, 48) for d in data]).astype(np.float64)
    scores = np.abs(ARRAYS["m"]) * np.sqrt((x**2).sum(0))[:, None]
    want = np.sort(scores.reshape(-1))[48 * 16]
    np.testing.assert_array_equal(found != 0, scores >= want)
    (row,) = context.tables["sparse"]
    y, z = x @ ARRAYS["m"], x @ found
    ratio = 10 * np.log10((y**2).sum() / ((y - z) ** 2).sum())
    assert row["decibels"] == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize("pattern", ["1x1", "2:4", "16x1"])
def test_those_that_stay_make_up_for_the_others(pattern: str) -> None:
    """On samples that nobody saw, too."""
    errors = {}
    for adjust in (False, True):
        graph = net("%y = MatMul(%x, %m)")
        (found,), _ = sparse(graph, rows(30, 7), pattern=pattern, zeros=0.5, adjust=adjust)
        new = np.concatenate([d["x"].reshape(-1, 48) for d in rows(30, 7, seed=9)])
        errors[adjust] = ((new @ found - new @ ARRAYS["m"]) ** 2).sum()
        assert (found == 0).sum() >= 48 * 16
    assert errors[True] < 0.65 * errors[False]


def test_convolutions_are_adjusted_too() -> None:
    waves = np.sin(np.arange(11) / 3) + np.cos(np.arange(11) / 4)[:, None]
    rng = np.random.default_rng(2)
    data = [{"x": (waves * rng.uniform(0.5, 1, (2, 6, 1, 1)) + rng.normal(0, 0.05, (2, 6, 11, 11)))
             .astype(np.float32)} for _ in range(3)]  # fmt: skip
    errors = {}
    for adjust in (False, True):
        graph = net("%y = Conv(%x, %f) {kernel_shape=[3, 3]}", "[N,6,11,11]")
        exact = graph.copy()
        sparse(graph, data, zeros=0.5, adjust=adjust)
        pairs = [(evaluate(graph, d)[0], evaluate(exact.copy(), d)[0]) for d in data]
        errors[adjust] = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
    assert errors[True] < 0.65 * errors[False]


def test_what_cannot_become_sparse_says_why() -> None:
    graph = net("%a = Conv(%x, %d) {kernel_shape=[3, 3], group=12}\n%y = MatMul(%a, %a)",
                "[1,12,9,9]")  # fmt: skip
    _, context = sparse(graph)
    first, second = (row["reason"] for row in context.tables["sparse"])
    assert "single input channel" in first and "no constant" in second


def test_weights_that_something_else_reads_stay() -> None:
    graph = net("%a = MatMul(%x, %m)\n%b = MatMul(%x, %m)\n%y = Add(%a, %b)")
    _, context = sparse(graph)
    assert all("used elsewhere" in row["reason"] for row in context.tables["sparse"])


def test_layers_are_selected() -> None:
    body = "%a = MatMul(%x, %m)\n%b = MatMul(%x, %small)\n%y = Add(%a, %b)"
    graph = net(body)
    for node, name in zip(list(graph.topological()), "xyz", strict=False):
        node.name = f"{name}{node.op}"
    (a, b), context = sparse(graph, exclude=("*:none", "nothing"), only=("MatMul",))
    assert (a == 0).any() and (b == 0).any()
    assert len(context.tables["sparse"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "3"}, "is no pattern"), ({"zeros": 1.0}, "less than 1"),
        ({"pattern": "2:4", "compared": Compared.OVERALL}, "neighbours"),
        ({"pattern": "16x1", "compared": Compared.OUTPUT}, "several outputs"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sparsify(**options)


def test_samples_are_asked_for() -> None:
    with pytest.raises(GraphError, match="give sample data"):
        sparse(net("%y = MatMul(%x, %m)"), adjust=True)
