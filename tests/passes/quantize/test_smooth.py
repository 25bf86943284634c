"""Large channels of activations move into weights, where that helps; the function stays."""

from __future__ import annotations

import numpy as np
import pytest
from support.command import MODELS
from support.graph_text import constant_lines, graph_of
from support.pass_checks import same

import graphkiln
from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import Quantize, QuantizeDynamic, Smooth
from graphkiln.passes.quantize.channel_ranges import STRENGTHS, ChannelRanges
from graphkiln.passes.ranges import Range

RNG = np.random.default_rng(2)


def normal(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


OUTLIERS = np.ones(32, np.float32)
OUTLIERS[[3, 17]] = 80
ARRAYS = {
    "scale": OUTLIERS, "bias": normal(32), "q": normal(32, 24), "k": normal(32, 24),
    "v": normal(32, 16), "w": normal(40, 32) * OUTLIERS, "wb": normal(32), "shift": normal(32),
    "f": normal(32, 6, 3, 3) * OUTLIERS.reshape(-1, 1, 1, 1),
    "g": normal(5, 32, 3, 3), "one": np.array(0.5, np.float32),
}  # fmt: skip
LINES, HELD = constant_lines(ARRAYS)


def net(lines: str, x: str = "float32[N,7,32]", results: str = "%y") -> Graph:
    body, names = lines.replace("; ", "\n"), ", ".join(f"o{i}" for i in range(results.count("%")))
    return graph_of(
        f"graph main(%x: {x}) -> ({names}) {{\n{LINES}\n{body}\nreturn {results}\n}}", HELD
    )


def samples(*shape: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(8)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(4)]


ROWS, IMAGES = samples(3, 7, 32), samples(2, 6, 9, 9)
NORM = "%n = LayerNormalization(%x, %scale, %bias) {axis=-1}"
ATTENTION = (
    f"{NORM}; %a = MatMul(%n, %q); %b = MatMul(%n, %k); %c = MatMul(%n, %v)", "float32[N,7,32]",
    "%a, %b, %c",
)  # fmt: skip
NETS = {
    "normalization": (ATTENTION, ROWS),
    "factors": (("%n = Mul(%scale, %x); %y = MatMul(%n, %q)", "float32[N,7,32]", "%y"), ROWS),
    "sum": (
        ("%m = Mul(%x, %scale); %n = Add(%m, %shift); %y = MatMul(%n, %q)", "float32[N,7,32]",
         "%y"),
        ROWS,
    ),
    "number": (
        ("%m = Mul(%x, %scale); %n = Add(%m, %one); %y = MatMul(%n, %q)", "float32[N,7,32]",
         "%y"),
        ROWS,
    ),
    "product": (
        ("%p = Gemm(%x, %w, %wb); %r = Relu(%p); %y = Gemm(%r, %q)", "float32[N,40]", "%y"),
        samples(9, 40),
    ),
    "filters": (
        ("%p = Conv(%x, %f) {kernel_shape=[3, 3]}; %r = Relu(%p); "
         "%y = Conv(%r, %g) {kernel_shape=[3, 3]}", "float32[N,6,9,9]", "%y"),
        IMAGES,
    ),
    "gate": (
        ("%s = Sigmoid(%x); %m = Mul(%x, %scale); %n = Mul(%s, %m); %y = MatMul(%n, %q)",
         "float32[N,7,32]", "%y"),
        ROWS,
    ),
}  # fmt: skip


def smoothed(graph: Graph, data: list[dict[str, np.ndarray]]) -> PassContext:
    context = PassContext(data=data)
    Smooth().run(graph, context)
    context.refresh(graph)
    verify(graph)
    return context


def noise(graph: Graph, data: list[dict[str, np.ndarray]]) -> float:
    """Signal to noise of the quantized graph's results, in decibels."""
    exact, power, error = graph.copy(), 0.0, 0.0
    Quantize().run(graph, PassContext(data=data))
    for feeds in data:
        for a, b in zip(evaluate(exact, feeds), evaluate(graph, feeds), strict=True):
            power, error = power + np.sum(a**2), error + np.sum((a - b) ** 2)
    return float(10 * np.log10(power / error))


@pytest.mark.parametrize("name", NETS)
def test_outliers_move_into_weights(name: str) -> None:
    (lines, x, results), data = NETS[name]
    graph = net(lines, x, results)
    plain = noise(graph.copy(), data)
    wanted = [evaluate(graph.copy(), feeds) for feeds in data]
    context = smoothed(graph, data)
    rows = {row["tensor"]: row for row in context.tables["smoothed"]}
    row = rows["r" if "r" in rows else "n"]
    assert row["strength"] is not None and row["after"] > row["before"] + 3
    for feeds, results_of in zip(data, wanted, strict=True):
        same(evaluate(graph.copy(), feeds), results_of, 1e-3)
    # A product in front has noise of its own.
    assert noise(graph, data) > plain + 1.5


@pytest.mark.parametrize("name", ["normalization", "factors", "sum"])
def test_outliers_of_rows_move_into_weights(name: str) -> None:
    """Where each row has its own range, which its largest channels decide."""
    (lines, x, results), data = NETS[name]
    graph = net(lines, x, results)
    wanted = [evaluate(graph.copy(), feeds) for feeds in data]
    plain, context = graph.copy(), PassContext(data=data)
    Smooth(dynamic=True).run(graph, context)
    verify(graph)
    (row,) = context.tables["smoothed"]
    assert row["strength"] is not None and row["after"] > row["before"] + 3
    errors = []
    for each in (plain, graph):
        QuantizeDynamic().run(each, PassContext())
        found = [evaluate(each, feeds) for feeds in data]
        pairs = [
            (a, b) for f, w in zip(found, wanted, strict=True) for a, b in zip(f, w, strict=True)
        ]
        errors.append(sum(float(np.sum((a - b) ** 2)) for a, b in pairs))
    before = row["before"] - row["after"]
    assert 10 * np.log10(errors[1] / errors[0]) == pytest.approx(before, abs=0.5)


def test_products_of_one_tensor_are_smoothed_together() -> None:
    context = smoothed(net(*ATTENTION), ROWS)
    (row,) = context.tables["smoothed"]
    assert len(row["layers"]) == 3


OTHERS = {
    "not only products read it": (f"{NORM}; %y = MatMul(%n, %q)", "%y, %n"),
    "'x' is an input of the model": ("%y = MatMul(%x, %q)", "%y"),
    "'s' (Sigmoid) does not scale with what it reads": (
        "%s = Sigmoid(%x); %y = MatMul(%s, %q)", "%y"
    ),
    "'m' has other readers": (
        "%m = Mul(%x, %scale); %n = Relu(%m); %z = Sigmoid(%m); %y = MatMul(%n, %q)", "%y, %z"
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", OTHERS)
def test_others_stay_and_it_is_told_why(reason: str) -> None:
    lines, results = OTHERS[reason]
    graph = net(lines, results=results)
    wanted = [evaluate(graph.copy(), feeds) for feeds in ROWS]
    context = smoothed(graph, ROWS)
    (row,) = context.tables["smoothed"]
    assert row["strength"] is None and row["reason"] == reason
    for feeds, results_of in zip(ROWS, wanted, strict=True):
        for a, b in zip(evaluate(graph, feeds), results_of, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_best_as_it_is_stays() -> None:
    """Integers of 8 bits lose nothing, and would with any other factors."""
    lines, held = constant_lines({
        "scale": np.array([1, 1, 2, 1], np.float32),
        "w": np.array([[127, -127], [-127, 64], [5, -6], [90, 127]], np.float32),
    })  # fmt: skip
    graph = graph_of(
        f"graph main(%x: float32[N,4]) -> (o) {{\n{lines}\n%n = Mul(%x, %scale)\n"
        "%y = MatMul(%n, %w)\nreturn %y\n}",
        held,
    )
    data = [{"x": np.array([[0, 255, 3, 8], [7, 8, 100, 1]], np.float32)}]
    context = smoothed(graph, data)
    (row,) = context.tables["smoothed"]
    assert row["strength"] is None and row["reason"] == "no strength is better by 3 dB"


def test_small_gains_are_not_taken() -> None:
    """All channels would fill the range, and be cut off in other data."""
    rng = np.random.default_rng(0)
    lines, held = constant_lines({
        "scale": np.linspace(1, 2, 32).astype(np.float32),
        "w": rng.standard_normal((32, 16)).astype(np.float32),
    })  # fmt: skip
    graph = graph_of(
        f"graph main(%x: float32[N,7,32]) -> (o) {{\n{lines}\n%n = Mul(%x, %scale)\n"
        "%y = MatMul(%n, %w)\nreturn %y\n}",
        held,
    )
    (row,) = smoothed(graph, ROWS).tables["smoothed"]
    assert row["strength"] is None and row["after"] == row["before"] > 20


def test_what_samples_show_little_of_is_not_scaled_up() -> None:
    ranges = ChannelRanges(5)
    ranges.see(np.arange(5), np.array([-1.0, 0, 0, 0, -30]), np.array([2.0, 0, 1e-6, 4, 10]))
    ranges.see(np.array([0, 0, 1, 2, 3]), np.zeros(5), np.array([1.0, 3, 0, 0, 0]))
    np.testing.assert_array_equal(ranges.low, [-1, 0, 0, 0, -30])
    np.testing.assert_array_equal(ranges.high, [3, 0, 1e-6, 4, 10])
    ones, *tried = ranges.factors(np.ones(5))
    assert np.all(ones == 1) and ranges.divided(ones) == Range(-30.0, 10.0)
    for s, strength in zip(tried, STRENGTHS, strict=True):
        # The middle one of those that are not 0 is 3.5.
        np.testing.assert_allclose(s, np.array([3.5, 3.5, 3.5, 4, 30]) ** strength)


def test_samples_must_be_given() -> None:
    with pytest.raises(GraphError, match="smoothing goes by what layers read: give sample data"):
        Smooth().run(net(*ATTENTION), PassContext())


def test_data_are_for_it() -> None:
    """It may be the only pass of a pipeline that takes samples."""
    data = [{"Input3": np.full((1, 1, 28, 28), 9, np.float32)}]
    done = graphkiln.compile(
        MODELS / "mnist_cntk.onnx", passes="default@before(integers)=smooth", data=data, jobs=1
    )
    (record,) = (r for r in done.pass_records if r.name == "smooth")
    assert len(record.tables["smoothed"]) == 3
