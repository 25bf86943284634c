"""Ranges without samples: what is made up, by what the model tells, and that it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.graph_text import graph_of

import graphkiln
from graphkiln.driver import OptionError
from graphkiln.errors import GraphkilnError
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.ranges import Range, read_ranges
from graphkiln.quantizer.data_free import (
    DataFreeError,
    Statistics,
    SyntheticInputs,
    batch_norms,
    standardized,
)

RNG = np.random.default_rng(0)
BETA = np.array([0.5, -40.0, 3.0, 0.0], np.float32)
GAMMA = np.array([1.0, 20.0, 0.1, 2.0], np.float32)
NET = """<ir_version: 10, opset_import: ["": 21]> g (float[N, 3, 12, 12] x) => (float[N, 5] y) {
    c = Conv<kernel_shape=[3, 3]>(x, w)
    n = BatchNormalization(c, gamma, beta, mean, var)
    r = Relu(n)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    y = MatMul(f, m)
}"""


def net() -> onnx.ModelProto:
    """A batch norm whose statistics of the training are far from those of random inputs."""
    model = onnx.parser.parse_model(NET)
    arrays = {
        "w": RNG.standard_normal((4, 3, 3, 3)), "gamma": GAMMA, "beta": BETA,
        "mean": np.array([100.0, -7.0, 0.0, 30.0]), "var": np.array([900.0, 4.0, 1.0, 25.0]),
        "m": RNG.standard_normal((4, 5)),
    }  # fmt: skip
    for name, array in arrays.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(array, np.float32), name)
        model.graph.initializer.append(tensor)
    return model


def inputs(text: str) -> list[dict[str, np.ndarray]]:
    """What is made up for a graph with these inputs, which uses them as the lines say."""
    return [dict(feeds) for feeds in SyntheticInputs(graph_of(text))]


def test_ranges_go_by_batch_norms() -> None:
    """Each channel reaches about as far as its statistics say, whatever the inputs."""
    found = graphkiln.quantize(net(), data_free=True, jobs=1)
    ranges = found.ranges
    # Most of r is cut off below 0; its channels reach some deviations above their means.
    pooled = next(r for name, r in ranges.items() if name not in ("x", "r"))
    assert ranges["x"].low < -3 and ranges["x"].high > 3
    assert 2.5 < pooled.high < 8 and pooled.low == 0
    blind = graphkiln.quantize(net(), list(SyntheticInputs(graph(net()))), jobs=1)
    assert blind.ranges["x"] == ranges["x"]
    assert next(r for n, r in blind.ranges.items() if n not in ("x", "r")).high > 2 * pooled.high


def graph(model: onnx.ModelProto) -> Any:
    from graphkiln.driver import import_model

    return import_model(model).graph


def test_statistics_are_those_of_the_model() -> None:
    (found,) = batch_norms(graph(net())).values()
    np.testing.assert_array_equal(found.beta, BETA)
    np.testing.assert_array_equal(found.gamma, GAMMA)


def test_runs_have_the_statistics() -> None:
    text = """graph main(%x: float32[N,4,6,6]) -> (y, z) {
        %n = Neg(%x)
        %y = Abs(%n)
        %z = Sub(%n, %y)
        return %y, %z
    }"""
    made = standardized(
        graph_of(text), {"n": Statistics(BETA, GAMMA)}, lambda d: d if isinstance(d, int) else 8
    )
    x = (RNG.standard_normal((8, 4, 6, 6)) * 30 + 7).astype(np.float32)
    y, z = evaluate(made, {"x": x})
    seen = np.where(z == 0, y, -y)
    np.testing.assert_allclose(seen.mean((0, 2, 3)), BETA, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 2, 3)), GAMMA, rtol=1e-4)


@pytest.mark.parametrize("shape", ["1,4,1,1", "2,4,2,2", "8,5,6,6", "4"])
def test_tensors_that_cannot_tell_stay(shape: str) -> None:
    """Too few numbers of a channel, other channels, or none."""
    text = f"graph main(%x: float32[{shape}]) -> (y) {{\n%n = Neg(%x)\n%y = Abs(%n)\nreturn %y\n}}"
    made = standardized(graph_of(text), {"n": Statistics(BETA, GAMMA)}, int)
    assert [n.op for n in made.nodes] == ["Neg", "Abs"]


def test_inputs_are_always_the_same_and_fit() -> None:
    text = """graph main(%x: float32[N,3,T], %i: int64[N,T], %k: int32[N,T], %b: bool[T]) -> (y) {
        %table = constant float32[5,2] [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        %j = Cast(%i) {to=6}
        %y = Gather(%table, %j)
        return %y
    }"""
    first, again = inputs(text), inputs(text)
    for one, other in zip(first, again, strict=True):
        assert one.keys() == other.keys() == {"x", "i", "k", "b"}
        assert all(np.array_equal(one[name], other[name]) for name in one)
    x, i, k, b = (np.stack([feeds[name] for feeds in first]) for name in ("x", "i", "k", "b"))
    assert x.shape[1:] == (8, 3, 64) and x.dtype == np.float32 and abs(x.std() - 1) < 0.02
    assert (i.dtype, set(np.unique(i))) == (np.int64, set(range(5)))
    assert (k.dtype, set(np.unique(k))) == (np.int32, {0, 1})
    assert (b.dtype, set(np.unique(b))) == (np.bool_, {False, True})


def test_inputs_fill_the_range_that_is_given() -> None:
    made = SyntheticInputs(graph(net()), {"x": Range(0.0, 255.0)})
    drawn = np.stack([feeds["x"] for feeds in made])
    assert 0 <= drawn.min() < 5 and 250 < drawn.max() <= 255


def test_other_inputs_are_refused() -> None:
    text = "graph main(%x: string[3]) -> (y) {\n%y = Identity(%x)\nreturn %y\n}"
    with pytest.raises(DataFreeError, match="input 'x' is string.*: give sample data"):
        inputs(text)


def test_it_says_so(tmp_path: Path) -> None:
    found = graphkiln.quantize(net(), data_free=True, ranges={"x": Range(-2.0, 2.0)}, jobs=1)
    assert any("no real input was seen" in warning for warning in found.warnings)
    by = {row["tensor"]: row["by"] for row in found.tensors}
    assert by.pop("x") == "given" and set(by.values()) == {"synthetic inputs"}
    assert found.compile().report["warnings"].count(found.warnings[-1]) == 1
    found.save_ranges(tmp_path / "r.json")
    held = json.loads((tmp_path / "r.json").read_text())["tensors"]
    assert "by" not in held.pop("x") and {e["by"] for e in held.values()} == {"synthetic inputs"}
    again = graphkiln.quantize(net(), ranges=read_ranges(tmp_path / "r.json"), jobs=1)
    assert {r["by"] for r in again.tensors} == {"given", "synthetic inputs"}


def test_nothing_is_made_up_unless_asked() -> None:
    with pytest.raises(GraphkilnError, match="give sample data"):
        graphkiln.quantize(net(), jobs=1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scheme": "int4-weights"}, "data_free does nothing with the scheme int4-weights"),
        ({"data": [{"x": np.zeros((1, 3, 12, 12), np.float32)}]}, "takes the place of samples"),
        ({"max_drop": 0.1}, "max_drop needs samples of real inputs"),
    ],
)
def test_what_makes_no_sense_is_told(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        graphkiln.quantize(net(), data_free=True, **options, jobs=1)
