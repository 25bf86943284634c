"""A student's first weights: by name, by place, the most important channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graph_text import constant_lines, graph_of
from training.nets import SIZES, digits_graph, weights

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.training import TrainingError
from graphkiln.training.channels import Channels
from graphkiln.training.transfer import transfer
from graphkiln.training.weights import array_of, weights_of


def _arrays(graph: Graph) -> dict[str, np.ndarray]:
    return {w.name: array_of(w.node) for w in weights_of(graph)}


def test_channels_through_pools_and_flattening() -> None:
    graph = digits_graph(weights(**SIZES))
    channels = Channels(graph)
    values = {n.outputs[0].name: n.out() for n in graph.nx if n.outputs}
    filters = channels.of(values["c1.weight"], 0)
    assert len(filters) == 1 and channels.of(values["c2.weight"], 1) == filters
    columns = channels.of(values["f1.weight"], 1)
    assert [channels.size(i) for i in columns] == [8, 2, 2]
    assert columns[:1] == channels.of(values["c2.weight"], 0) == channels.of(values["c2.bias"], 0)
    taps = channels.of(values["c1.weight"], 2)
    assert not channels.computed.intersection(taps)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 8), st.integers(1, 10))
def test_channels_without_weight_are_the_ones_to_go(seed: int, c1: int, c2: int, f1: int) -> None:
    """Where all other channels count for nothing, the student computes the same."""
    held = weights(**SIZES, seed=seed)
    random = np.random.default_rng(seed)
    for make, read, width, size in (("c1", "c2", SIZES["c1"], c1), ("c2", "f1", SIZES["c2"], c2),
                                    ("f1", "f2", SIZES["f1"], f1)):  # fmt: skip
        gone = random.permutation(width)[: width - size]
        held[f"{make}.weight"][gone], held[f"{make}.bias"][gone] = 0, 0
        reader = held[f"{read}.weight"].reshape(len(held[f"{read}.weight"]), width, -1)
        reader[:, gone] = 0
        held[f"{read}.weight"] = reader.reshape(held[f"{read}.weight"].shape)
    teacher, student = digits_graph(held), digits_graph(weights(c1, c2, f1, seed=1))
    rows = transfer(teacher, student)
    assert all(row["teacher"] == row["weight"] for row in rows)
    x = random.normal(size=(3, 1, 8, 8)).astype(np.float32)
    (want,), (got,) = (evaluate(g, {"x": x}) for g in (teacher, student))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_residual_sums_keep_the_same_channels() -> None:
    def net(width: int, seed: int) -> Graph:
        random = np.random.default_rng(seed)
        shapes = {"a": (width, 2, 1, 1), "b": (width, width, 1, 1), "c": (2, width, 1, 1)}
        lines, constants = constant_lines(
            {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        )
        return graph_of(
            f"graph main(%x: float32[N,2,3,3]) -> (y) {{\n{lines}\n%p = Conv(%x, %a)\n"
            "%q = Conv(%p, %b)\n%r = Add(%p, %q)\n%y = Conv(%r, %c)\nreturn %y\n}",
            constants,
        )

    teacher, student = net(6, 0), net(4, 1)
    transfer(teacher, student)
    old, new = _arrays(teacher), _arrays(student)
    kept = [next(i for i in range(6) if np.array_equal(old["a"][i], row)) for row in new["a"]]
    np.testing.assert_array_equal(new["b"], old["b"][kept][:, kept])
    np.testing.assert_array_equal(new["c"], old["c"][:, kept])


def test_by_place_where_no_name_is_the_same() -> None:
    held = weights(**SIZES)
    student = digits_graph(weights(**SIZES, seed=2))
    for weight in weights_of(student):
        student.rename(weight.node.out(), f"my_{weight.name}")
    rows = transfer(digits_graph(held), student)
    assert {r["weight"]: r["teacher"] for r in rows} == {f"my_{n}": n for n in held}
    np.testing.assert_array_equal(_arrays(student)["my_c2.weight"], held["c2.weight"])


def test_what_does_not_fit_says_why() -> None:
    larger = weights(**{**SIZES, "f1": 12}, seed=1)
    student = digits_graph({n: a.copy() for n, a in larger.items()})
    rows = {r["weight"]: r["reason"] for r in transfer(digits_graph(weights(**SIZES)), student)}
    assert rows["c1.weight"] == "" and "no part of" in rows["f1.weight"]
    np.testing.assert_array_equal(_arrays(student)["f1.weight"], larger["f1.weight"])
    other = graph_of(
        "graph main(%x: float32[N,2]) -> (y) {\n%w = constant float32[2,1] [1, 2]\n"
        "%y = MatMul(%x, %w)\nreturn %y\n}"
    )
    with pytest.raises(TrainingError, match="no weight of the teacher fits"):
        transfer(digits_graph(weights(**SIZES)), other)
