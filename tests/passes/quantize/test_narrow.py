"""Weights in floats of 16 bits: which are rounded, how far they move, and what is told."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.types import to_numpy_dtype
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import NarrowFloat, NarrowWeights

RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((30, 16)).astype(np.float32)
A = RNG.standard_normal((16, 24)).astype(np.float32)
LARGE = np.where(np.arange(24 * 8).reshape(24, 8) == 5, np.float32(70000), np.float32(0.25))
STEPS = RNG.standard_normal((1, 16, 16)).astype(np.float32)
LINES, ARRAYS = constant_lines(
    {"table": TABLE, "a": A, "large": LARGE, "steps": STEPS, "small": A[:8, :1].copy()}
)
NET = f"""graph main(%i: int64[5]) -> (z, s) {{
{LINES}
%x = Gather(%table, %i)
%p = MatMul(%x, %a)
%q = MatMul(%p, %large)
%z = MatMul(%q, %small)
%u = kiln.Reshape(%x) {{shape=[5,1,16]}}
%s = RNN(%u, %steps, %steps) {{hidden_size=16}}
return %z, %s
}}"""


def narrowed(step: NarrowWeights) -> tuple[Graph, dict[str, dict[str, object]]]:
    graph, context = graph_of(NET, ARRAYS), PassContext()
    step.run(graph, context)
    context.refresh(graph)
    verify(graph)
    return graph, {row["layer"]: row for row in context.tables["layers"]}


def stored(graph: Graph) -> list[np.ndarray]:
    arrays = [n.out().constant for n in graph.nx if n.outputs]
    return [a for a in arrays if a is not None and a.dtype.itemsize == 2]


@pytest.mark.parametrize(("kind", "relative"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_weights_are_the_nearest(kind: str, relative: float) -> None:
    graph, rows = narrowed(NarrowWeights(NarrowFloat(kind), exclude=("q",)))
    found = {a.shape: a for a in stored(graph)}
    assert found.keys() == {TABLE.shape, A.shape}
    for weights in (TABLE, A):
        held = found[weights.shape]
        np.testing.assert_array_equal(held, weights.astype(to_numpy_dtype(kind)))
        off = np.abs(held.astype(np.float64) - weights)
        assert off.max() > 0 and np.all(off <= relative * np.abs(weights) + 2.0**-25)
    assert rows["p"]["scheme"] == f"{kind} weights"
    assert rows["q"]["scheme"] == "float"


def test_weights_beyond_float16_stay() -> None:
    _, rows = narrowed(NarrowWeights())
    assert rows["q"]["scheme"] == "float"
    assert rows["q"]["reason"] == "its largest weight, 70000, is beyond those of float16"
    _, rows = narrowed(NarrowWeights(NarrowFloat.BFLOAT16))
    assert rows["q"]["scheme"] == "bfloat16 weights"


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_weights_that_are_no_numbers_stay(bad: float) -> None:
    weights = A.copy()
    weights[3, 4] = bad
    line, arrays = constant_lines({"a": weights})
    graph, context = (
        graph_of(
            f"graph main(%x: float32[2,16]) -> (y) {{\n{line}\n%y = MatMul(%x, %a)\nreturn %y\n}}",
            arrays,
        ),
        PassContext(),
    )
    NarrowWeights().run(graph, context)
    (row,) = context.tables["layers"]
    assert row["reason"] == "its weights hold infinity or NaN" and not stored(graph)


def test_what_stays_says_why() -> None:
    _, rows = narrowed(NarrowWeights(exclude=("p",)))
    assert rows["p"]["reason"] == "excluded by 'p'"
    assert rows["z"]["reason"] == "it has fewer than 16 weights"
    assert rows["s"]["reason"] == "no kernel widens its weights"


def test_results_are_those_of_rounded_weights() -> None:
    graph, _ = narrowed(NarrowWeights())
    feeds = {"i": np.array([0, 29, -1, 4, 7])}
    wanted = TABLE.astype(np.float16)[feeds["i"]].astype(np.float32) @ A.astype(np.float16).astype(
        np.float32
    )
    found = evaluate(graph, feeds)[0]
    np.testing.assert_allclose(found, wanted @ LARGE @ A[:8, :1], rtol=1e-5)


def test_weights_that_two_layers_read_are_stored_once() -> None:
    line, arrays = constant_lines({"a": A[:, :16].copy()})
    graph = graph_of(
        f"graph main(%x: float32[2,16]) -> (y) {{\n{line}\n%h = MatMul(%x, %a)\n"
        "%y = MatMul(%h, %a)\nreturn %y\n}",
        arrays,
    )
    counts = NarrowWeights().run(graph, PassContext()).details
    assert counts == {"narrow": 2} and len(stored(graph)) == 1
