"""Constant folding: what is evaluated, what the size limit keeps, constant branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of
from support.pass_checks import Golden, check, random_feeds, run, same

from graphkiln.ir.graph import Graph, GraphError, Node
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate, run_node
from graphkiln.ir.types import tensor, to_numpy_dtype
from graphkiln.passes.base import PassContext
from graphkiln.passes.fold import Fold

ARITHMETIC = """
graph main(%x: float32[2,2]) -> (y) {
  %a = constant float32[2] [1.0, 2.0]
  %b = constant float32[2] [3.0, 5.0]
  %sum = Add(%a, %b)
  %root = Sqrt(%sum)
  %y = Mul(%x, %root)
  return %y
}
"""

BRANCHES = """
graph main(%x: float32[N]) -> (y) {
  %yes = constant bool[] true
  %two = constant float32[] 2.0
  %y = If(%yes, %x, %two) {
    else_branch = graph no(%x: float32[N], %c: float32[]) -> (o) {
      %o = Neg(%x)
      return %o
    },
    then_branch = graph yes(%x: float32[N], %c: float32[]) -> (o) {
      %m = Mul(%x, %c)
      %o = Exp(%m)
      return %o
    }
  }
  return %y
}
"""

SUNK = """
graph main(%go: bool[], %x: float32[3]) -> (y) {
  %two = constant float32[] 2.0
  %three = constant float32[] 3.0
  %six = Mul(%two, %three)
  %y = If(%go, %x, %six) {
    else_branch = graph no(%x: float32[3], %c: float32[]) -> (o) {
      %o = Neg(%x)
      return %o
    },
    then_branch = graph yes(%x: float32[3], %c: float32[]) -> (o) {
      %c2 = Mul(%c, %c)
      %o = Mul(%x, %c2)
      return %o
    }
  }
  return %y
}
"""

SETTLED = """
graph main(%x: float32[N,4]) -> (y) {
  %data = constant float32[2,3] [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
  %where = NonZero(%data)
  %shape = Shape(%where)
  %float = Cast(%where) {to=1}
  %axis = constant int64[1] [0]
  %flat = Reshape(%float, %back)
  %y = Add(%flat, %flat)
  return %y
}
""".replace("  %axis = constant int64[1] [0]\n", "  %back = constant int64[1] [-1]\n")


@pytest.mark.parametrize(
    ("name", "text", "pipeline"),
    [
        ("fold_arithmetic", ARITHMETIC, "fold,dce"),
        ("fold_branches", BRANCHES, "fold,dce"),
        ("fold_sunk", SUNK, "fold,dce"),
        ("fold_settled", SETTLED, "shapes,fold,dce"),
    ],
)
def test_golden(golden: Golden, name: str, text: str, pipeline: str) -> None:
    check(golden, name, text, pipeline)


def test_captured_constants_leave_the_node() -> None:
    graph = graph_of(SUNK)
    assert run(graph, "fold").records[0].details["captured"] == 1
    (branch,) = (n for n in graph.nodes if n.op == "If")
    assert [v.name for v in graph.required_inputs(branch)] == ["go", "x"]


def _weights(count: int, kind: type) -> np.ndarray:
    return (np.arange(count) % 7).astype(kind)


def _one_op(op: str, *arrays: np.ndarray, uses: int = 1, **attrs: object) -> Graph:
    """``op`` on constants; ``uses - 1`` further uses of the first constant."""
    graph = Graph()
    values = [graph.add_constant(a) for a in arrays]
    results = [graph.add_node(op, values, attrs).out()]  # type: ignore[arg-type]
    results += [graph.add_node("Relu", values[:1]).out() for _ in range(uses - 1)]
    graph.set_outputs(results)
    infer_types(graph)
    return graph


def test_a_weight_used_once_may_change_whatever_its_size() -> None:
    graph = _one_op("Transpose", _weights(60_000, np.float32).reshape(200, 300))
    run(graph, "fold{max-bytes=0}")
    assert graph.outputs[0].constant is not None


def test_a_weight_used_elsewhere_is_not_doubled() -> None:
    graph = _one_op("Transpose", _weights(60_000, np.float32).reshape(200, 300), uses=2)
    reasons: list[str] = []
    context = PassContext(explain=lambda rule, node, reason: reasons.append(reason))
    run(graph, "fold{max-bytes=1000}", context)
    assert graph.outputs[0].constant is None
    assert "would add 240000 bytes, 1000 are left" in reasons


def test_the_limit_counts_for_the_whole_model() -> None:
    graph = Graph()
    weight = graph.add_constant(_weights(1000, np.float32))
    results = [graph.add_node("Neg", [weight]).out() for _ in range(3)]
    graph.set_outputs([weight, *results])
    infer_types(graph)
    run(graph, "fold{max-bytes=9000}")
    assert sum(v.constant is None for v in graph.outputs) == 1


def test_weights_in_the_form_of_constant_of_shape_are_folded() -> None:
    graph = _one_op(
        "ConstantOfShape", np.array([512, 1024], np.int64), value=np.array([0.5], np.float32)
    )
    run(graph, "shapes,fold{max-bytes=0}")
    assert graph.outputs[0].constant is not None
    assert graph.outputs[0].shape == (512, 1024)


@pytest.mark.parametrize("op", ["DequantizeLinear", "Cast"])
def test_int8_weights_stay_int8(op: str) -> None:
    weights = _weights(1000, np.int8)
    if op == "Cast":
        graph = _one_op(op, weights, to=1)
    else:
        graph = _one_op(op, weights, np.array(0.5, np.float32))
    run(graph, "fold")
    assert [n.op for n in graph.nodes] == [op]
    run(graph, "fold{max-widened=1000}")
    assert not graph.nodes


PRODUCT, SUM = "MatMul(%x, %w)", "Add(%x, %w)"
STEPS = "RNN(%x, %w, %w) {hidden_size=10}"


@pytest.mark.parametrize(
    ("kind", "uses", "stays"),
    [
        ("float16", [PRODUCT], True),
        ("bfloat16", [PRODUCT, "MatMul(%w, %w)"], True),
        ("float16", [SUM], False),
        ("float16", [PRODUCT, SUM], False),
        ("float16", [STEPS], False),
        ("int16", [PRODUCT], False),
    ],
)
def test_weights_of_products_stay_in_16_bits(kind: str, uses: list[str], stays: bool) -> None:
    """Kernels of products widen them in registers; everything else takes float32."""
    weights = _weights(100, np.int8).reshape(1, 10, 10).astype(to_numpy_dtype(kind))
    constant, arrays = constant_lines({"held": weights})
    lines = "\n".join(f"%r{i} = {use}" for i, use in enumerate(uses))
    names = [f"r{i}" for i, _ in enumerate(uses)]
    graph = graph_of(
        f"graph main(%x: float32[10,10,10]) -> ({', '.join(names)}) {{\n{constant}\n"
        f"%w = Cast(%held) {{to=1}}\n{lines}\nreturn {', '.join('%' + n for n in names)}\n}}",
        arrays,
    )
    run(graph, "fold")
    assert ("Cast" in {n.op for n in graph.nodes}) == stays


@pytest.mark.parametrize("shape, nodes", [((1000,), 0), ((10, 100), 1)])
def test_vectors_of_few_bits_may_become_floats(shape: tuple[int, ...], nodes: int) -> None:
    weights = _weights(1000, np.int8).reshape(shape)
    graph = _one_op("DequantizeLinear", weights, np.array(0.5, np.float32))
    run(graph, "fold{widen-vectors=true}")
    assert len(list(graph.nodes)) == nodes


def test_random_numbers_are_drawn_at_run_time() -> None:
    graph = _one_op("RandomNormalLike", _weights(4, np.float32))
    run(graph, "fold")
    assert len(graph) == 1


def test_a_node_that_cannot_be_evaluated_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise GraphError("no evaluation")

    monkeypatch.setattr("graphkiln.passes.fold.run_node", fail)
    graph = _one_op("Neg", _weights(4, np.float32))
    reasons: list[str] = []
    run(graph, "fold", PassContext(explain=lambda _r, _n, reason: reasons.append(reason)))
    assert len(graph) == 1
    assert reasons == ["cannot be evaluated: no evaluation"]


def test_a_node_without_inputs_may_stay() -> None:
    graph = graph_of("""
    graph main(%x: float32[4]) -> (y) {
      %s = SequenceEmpty()
      %y = SequenceInsert(%s, %x)
      return %y
    }
    """)
    reasons: list[str] = []
    run(graph, "fold", PassContext(explain=lambda _r, _n, reason: reasons.append(reason)))
    assert reasons == ["a result is not a tensor"]


def test_a_branch_with_a_size_of_its_own() -> None:
    """Symbols of data-dependent sizes follow when a branch takes the place of its If."""
    text = """
    graph main(%x: float32[N]) -> (y) {
      %yes = constant bool[] true
      %i = If(%yes, %x) {
        else_branch = graph no(%x: float32[N]) -> (o) {
          %c = Cast(%x) {to=7}
          %w = NonZero(%c)
          return %w
        },
        then_branch = graph yes(%x: float32[N]) -> (o) {
          %w = NonZero(%x)
          %back = constant int64[1] [-1]
          %flat = Reshape(%w, %back)
          %two = constant int64[2] [1, -1]
          %rows = Reshape(%flat, %two)
          return %rows
        }
      }
      %y = Add(%i, %i)
      return %y
    }
    """
    graph = graph_of(text)
    feeds = {"x": np.array([1, 0, 2], np.float32)}
    expected = evaluate(graph, feeds)
    run(graph, "shapes,fold,dce,shapes,dce")
    assert "If" not in {n.op for n in graph.nodes}
    same(evaluate(graph, feeds), expected)


def test_string_constants() -> None:
    graph = Graph()
    words = graph.add_constant(np.array(["a", "b"], object))
    x = graph.add_input("x", tensor("float32", 2))
    joined = graph.add_node("Concat", [words, words], {"axis": 0})
    relu = graph.add_node("Relu", [x])
    graph.set_outputs([joined.out(), relu.out()])
    infer_types(graph)
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "fold")
    same(evaluate(graph, feeds), expected)


def _filled(op: str) -> str:
    return f"""
graph main(%x: float32[4]) -> (y) {{
  %zero = constant int64[] 0
  %one = constant int64[] 1
  %many = constant int64[] 268435456
  %shape = constant int64[1] [268435456]
  %pads = constant int64[2] [0, 268435455]
  %number = constant float32[1] [1.0]
  %ends = constant float32[2] [0.0, 1.0]
  %wide = {op}
  %y = ReduceMax(%wide) {{keepdims = 0}}
  return %y
}}
"""


@pytest.mark.parametrize("op", [
    "Range(%zero, %many, %one)", "Expand(%number, %shape)", "Tile(%number, %shape)",
    "ConstantOfShape(%shape)", "OneHot(%one, %many, %ends)", "Pad(%number, %pads)",
])  # fmt: skip
def test_nothing_large_is_built_to_see_its_size(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(node: Node, inputs: list[Any]) -> list[Any]:
        results = run_node(node, inputs)
        sizes.extend(r.nbytes for r in results)
        return results

    graph = graph_of(_filled(op))
    infer_types(graph)
    monkeypatch.setattr("graphkiln.passes.fold.run_node", watched)
    Fold().run(graph, PassContext())
    assert max(sizes, default=0) <= 1 << 20


@pytest.mark.parametrize(
    ("line", "folded"),
    [
        ("%y = Transpose(%f)", True),
        ("%y = Shape(%f)", True),
        ("%y = Sqrt(%f)", True),
        ("%y = Add(%f, %f)", True),
        ("%y = Exp(%f)", False),
        ("%y = ReduceSum(%f)", False),
        ("%y = Add(%i, %i)", True),
        ("%y = ReduceSum(%i)", True),
        ("%y = ReduceL1(%i)", False),
        ("%y = Cast(%f) {to=3}", True),
        ("%y = Cast(%f) {to=2}", False),
        ("%y = Cast(%f) {to=10}", True),
        ("%y = Cast(%i) {to=2}", True),
        ("%y = Cast(%large) {to=3}", False),
        ("%y = Cast(%edge) {to=3}", True),
        ("%y = Cast(%edge) {to=2}", False),
    ],
)
def test_what_has_one_right_result_is_folded_exactly(line: str, folded: bool) -> None:
    """Numbers that the integer type does not hold are undefined, those between two are not."""
    graph = graph_of(f"""
    graph main() -> (y) {{
      %f = constant float32[2] [1.5, -2.25]
      %i = constant int32[2] [7, -3]
      %large = constant float32[2] [128.0, 1.0]
      %edge = constant float32[2] [127.75, -128.75]
      {line}
      return %y
    }}
    """)
    with np.errstate(all="ignore"):
        expected = evaluate(graph, {})
        run(graph, "fold{exact=true}")
        assert graph.outputs[0].is_constant is folded
        same(evaluate(graph, {}), expected)
