"""The dialect ops of classical models, compiled, against their reference evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from oputil import Array, assert_close, one_node, run_graph

from graphkiln.ir.interpreter import evaluate


def check(op: str, inputs: Sequence[Array | None], attrs: dict[str, Any] | None = None,
          constants: Sequence[int] = ()) -> Array:  # fmt: skip
    """Compare one op, whose inputs ``constants`` the compiler knows."""
    graph = one_node(op, inputs, attrs, "kiln", 1, False, constants)
    feeds = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    (want,) = evaluate(graph, {v.name: a for v, a in zip(graph.inputs, feeds, strict=True)})
    (got,) = run_graph(graph, feeds)
    assert_close(got, want)
    return got


# ---- kiln.Lookup ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int64", "int16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 60, 100])
def test_lookup(kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    keys = np.sort(rng.permutation(300)[:count] - 150).astype(kind)
    values = rng.standard_normal(count).astype(np.float32)
    x = np.concatenate([keys, keys + 1, [-151, 151]]).astype(kind).reshape(2, -1)
    default = np.array(-7, np.float32)
    got = check("Lookup", [x, keys, values, default])
    assert (got == -7).any() and got.reshape(-1)[:count].tolist() == values.tolist()
    if count <= 64:
        check("Lookup", [x, keys, values, default], constants=(1, 2, 3))


def test_lookup_of_nan_and_from_int_to_int() -> None:
    x, keys = np.array([np.nan, -0.0, np.inf], np.float32), np.array([0, np.inf], np.float32)
    for constants in ((), (1, 2, 3)):
        values = np.array([5, -6], np.int32)
        got = check("Lookup", [x, keys, values, np.array(1, np.int32)], constants=constants)
        assert got.tolist() == [1, 5, -6]


# ---- kiln.TreeEnsemble ---------------------------------------------------------------------------


def forest(seed: int, trees: int, depth: int, features: int, dtype: str, targets: int = 1,
           sparse: bool = False, missing: bool = False) -> list[Array | None]:  # fmt: skip
    """Tables of random trees of different depths."""
    rng = np.random.default_rng(seed)
    nodes: list[list[int]] = []
    leaves = 0

    def add(left: int) -> int:
        """A node's number, or the complement of a leaf's."""
        nonlocal leaves
        if left == 0 or (left < depth and rng.random() < 0.3):
            leaves += 1
            return -leaves
        at = len(nodes)
        nodes.append([])
        nodes[at] = [add(left - 1), add(left - 1)]
        return at

    roots = np.array([add(depth if i % 3 else 0) for i in range(trees)])
    children = np.array(nodes or [[-1, -1]]).reshape(-1, 2)
    count = len(children)
    shape: Any = (leaves, targets)
    tables: list[Array | None] = [
        rng.integers(0, features, count).astype(np.int32),
        rng.integers(-3, 4, count).astype(dtype),
        np.where(children < 0, count + ~children, children).astype(np.int32),
        np.where(roots < 0, count + ~roots, roots).astype(np.int32),
    ]
    votes: list[Array | None] = [rng.standard_normal(shape).astype(dtype), None, None]
    if sparse:
        held = rng.integers(0, 3, leaves)
        starts = np.concatenate([[0], np.cumsum(held)]).astype(np.int32)
        chosen = rng.integers(0, targets, starts[-1]).astype(np.int32)
        votes = [rng.standard_normal(starts[-1]).astype(dtype), starts, chosen]
    return [*tables, *votes, rng.integers(0, 2, count).astype(bool) if missing else None]


def examples(rows: int, features: int, dtype: str) -> Array:
    x = np.random.default_rng(0).integers(-4, 5, (rows, features)).astype(dtype)
    x[::3, 1] = np.nan
    return x


@pytest.mark.parametrize("aggregate", ["sum", "min", "max"])
@pytest.mark.parametrize(("targets", "sparse"), [(1, False), (3, False), (3, True)])
def test_trees(aggregate: str, targets: int, sparse: bool) -> None:
    tables = forest(3, 19, 4, 5, "float32", targets, sparse, missing=True)
    attrs = {"targets": targets, "aggregate": aggregate}
    check("TreeEnsemble", [examples(21, 5, "float32"), *tables], attrs)


@pytest.mark.parametrize("trees", [1, 8, 17])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_trees(trees: int, dtype: str) -> None:
    tables = forest(trees, trees, 5, 5, dtype, missing=trees == 8)
    check("TreeEnsemble", [examples(3, 5, dtype), *tables], {"targets": 1})


@pytest.mark.parametrize("rows", [1, 16, 50])
def test_any_number_of_rows(rows: int) -> None:
    tables = forest(3, 9, 3, 5, "float32")
    graph = one_node("TreeEnsemble", [examples(rows, 5, "float32"), *tables],
                     {"targets": 1}, "kiln", 1, "distinct", range(1, 9))  # fmt: skip
    x = examples(rows, 5, "float32")
    (got,) = run_graph(graph, [x])
    assert_close(got, evaluate(graph, {"x0": x})[0])


def test_small_tables_inside_the_code() -> None:
    tables = forest(3, 4, 2, 5, "float32", 2, sparse=True)
    check("TreeEnsemble", [examples(9, 5, "float32"), *tables], {"targets": 2}, range(1, 9))


# ---- kiln.CoupledProbabilities -------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_coupled_probabilities(classes: int) -> None:
    count = classes * (classes - 1) // 2
    pairs = np.random.default_rng(classes).uniform(0.01, 0.99, (9, count))
    pairs[0], pairs[1] = 1e-7, 1 - 1e-7
    got = check("CoupledProbabilities", [pairs], {"classes": classes})
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-6)
    if classes == 2:
        np.testing.assert_allclose(got[:, 0], pairs[:, 0], atol=5e-3)
