"""Evaluation of graphs: feeds, control flow, symbols, hooks and errors."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from support.graph_text import body_of

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import EvaluationError, Interpreter, evaluate, run_node
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.registry import OpSpec, register
from graphkiln.ir.types import tensor


def _filled(node: Node, _inputs: list[Any]) -> list[Any]:
    return [np.full(node.attrs["shape"], 1.0, np.float32)]  # type: ignore[arg-type]


register(
    OpSpec("Filled", "test", lambda ctx: [tensor("float32", *ctx.attr("shape"))], _filled),
    override=True,
)  # fmt: skip


def _run(text: str, *inputs: Any, **options: Any) -> list[Any]:
    graph = parse_graph(text)
    names = [v.name for v in graph.inputs]
    return evaluate(graph, dict(zip(names, inputs, strict=True)), **options)


def _floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_straight_graph() -> None:
    text = """graph main(%x: float32[N], %y: float32[N]) -> (sum, x) {
        %s = Add(%x, %y)
        %half = constant float32[] 0.5
        %m = Mul(%s, %half)
        return %m, %x
    }"""
    total, same = _run(text, _floats(1, 2), _floats(3, 5))
    np.testing.assert_array_equal(total, _floats(2, 3.5))
    np.testing.assert_array_equal(same, _floats(1, 2))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": _floats(1)}, r"missing inputs: \['y'\]; unknown inputs: \[\]"),
        ({"x": _floats(1), "y": _floats(1), "z": 1}, r"unknown inputs: \['z'\]"),
        ({"x": _floats(1), "y": np.array([1.0])}, "input 'y': expected element type float32"),
        ({"x": _floats(1), "y": _floats(1, 2)}, r"input 'y': expected .* \[2\] where N is 1"),
        ({"x": _floats(1), "y": np.float32(1)}, r"'y': expected float32\[N\], got shape \[\]"),
        ({"x": _floats(1), "y": [_floats(1)]}, "input 'y': expected .* got a list"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, Any], message: str) -> None:
    text = """graph main(%x: float32[N], %y: float32[N]) -> (z) {
        %z = Add(%x, %y)
        return %z
    }"""
    with pytest.raises(EvaluationError, match=message):
        evaluate(parse_graph(text), feeds)


def test_if_hands_its_captured_values_to_both_branches() -> None:
    then = body_of("%a: float32[N], %b: float32[N]", "%r = Sub(%a, %b)", "%r")
    other = body_of("%a: float32[N], %b: float32[N]", "%r = Mul(%a, %b)", "%r")
    text = f"""graph main(%c: bool[*], %a: float32[N], %b: float32[N]) -> (y) {{
        %y = If(%c, %a, %b) {{then_branch = {then}, else_branch = {other}}}
        return %y
    }}"""
    assert _run(text, np.array(True), _floats(5), _floats(2))[0] == 3
    assert _run(text, np.array([False]), _floats(5), _floats(2))[0] == 10


_SUM_BODY = body_of(
    "%i: int64[], %c: bool[], %acc: float32[1], %limit: float32[1]",
    "%next = Add(%acc, %acc); %go = Less(%next, %limit); %j = Cast(%i) {to=1}",
    "%go, %next, %j",
)
_LOOP = f"""graph main(%m: int64[], %c: bool[], %x: float32[1], %limit: float32[1]) -> (a, s) {{
    %a, %s = Loop(%m, %c, %x, %limit) {{body = {_SUM_BODY}, num_carried=1}} : float32[1], float32[T]
    return %a, %s
}}"""


def test_loop_stops_at_its_count_or_its_condition() -> None:
    carried, scanned = _run(_LOOP, np.array(3), np.array(True), _floats(1), _floats(1000))
    assert carried == 8
    np.testing.assert_array_equal(scanned, _floats(0, 1, 2))
    carried, scanned = _run(_LOOP, np.array(99), np.array(True), _floats(1), _floats(30))
    assert carried == 32 and len(scanned) == 5


def test_loop_without_turns_gives_what_it_got_and_empty_rows() -> None:
    text = _LOOP.replace("%j = Cast(%i) {to=1}", "%j = Cast(%i) {to=1} : float32[]")
    for count, condition in [(0, True), (5, False)]:
        carried, scanned = _run(
            text, np.array(count), np.array(condition), _floats(7), _floats(1000)
        )
        assert carried == 7 and scanned.shape == (0,) and scanned.dtype == np.float32


def test_loop_may_omit_count_and_condition_and_change_sizes() -> None:
    body = body_of(
        "%i: int64[], %c: bool[], %x: float32[K]",
        "%y = Concat(%x, %x) {axis=0}; %n = Size(%y);"
        "%seven = constant int64[] 7; %go = Less(%n, %seven)",
        "%go, %y",
    )
    text = f"""graph main(%x: float32[N]) -> (y) {{
        %y = Loop(_, _, %x) {{body = {body}, num_carried=1}} : float32[L]
        %z = test.Filled() {{shape=[<L+1>]}}
        return %z
    }}"""
    assert _run(text, _floats(1, 2), check_types=True)[0].shape == (9,)


@pytest.mark.parametrize(("backward_in", "backward_out"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_scan_over_axes_and_directions(backward_in: int, backward_out: int) -> None:
    body = body_of(
        "%acc: float32[2], %row: float32[2], %k: float32[]",
        "%scaled = Mul(%row, %k); %next = Add(%acc, %scaled)",
        "%next, %next",
    )
    text = f"""graph main(%a: float32[2], %x: float32[2,N], %k: float32[]) -> (last, all) {{
        %last, %all = Scan(%a, %x, %k) {{
            body = {body}, num_carried=1, num_scan_inputs=1,
            scan_input_axes=[-1], scan_input_directions=[{backward_in}],
            scan_output_axes=[1], scan_output_directions=[{backward_out}]
        }}
        return %last, %all
    }}"""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    last, rows = _run(text, _floats(1, 1), x, np.float32(2))
    steps = x[:, ::-1] if backward_in else x
    want = 1 + 2 * np.cumsum(steps, axis=1)
    np.testing.assert_array_equal(last, want[:, -1])
    np.testing.assert_array_equal(rows, want[:, ::-1] if backward_out else want)


def test_sequence_map_zips_sequences_and_repeats_tensors() -> None:
    body = body_of(
        "%a: float32[N], %b: float32[N], %k: float32[], %c: float32[]",
        "%s = Add(%a, %b); %t = Mul(%s, %k); %u = Add(%t, %c)", "%u",
    )  # fmt: skip
    text = f"""graph main(%p: seq<float32[*]>, %q: seq<float32[*]>, %k: float32[], %c: float32[])
        -> (r) {{
        %r = SequenceMap(%p, %q, %k, %c) {{body = {body}, num_captured=1}}
        return %r
    }}"""
    first, second = _run(
        text, [_floats(1), _floats(2, 3)], [_floats(4), _floats(5, 6)], np.float32(2), np.float32(1)
    )[0]
    np.testing.assert_array_equal(first, _floats(11))
    np.testing.assert_array_equal(second, _floats(15, 19))


def test_a_region_runs_its_body() -> None:
    body = body_of("%a: float32[N], %b: float32[N]", "%s = Add(%a, %b); %r = Relu(%s)", "%r, %s")
    text = f"""graph main(%x: float32[N], %y: float32[N]) -> (r, s) {{
        %r, %s = kiln.Region(%x, %y) {{body = {body}}}
        return %r, %s
    }}"""
    positive, total = _run(text, _floats(1, -3), _floats(1, 1))
    np.testing.assert_array_equal(positive, _floats(2, 0))
    np.testing.assert_array_equal(total, _floats(2, -2))


def test_symbols_in_attributes_come_from_input_and_result_shapes() -> None:
    text = """graph main(%x: float32[2*N,3]) -> (y, z) {
        %i = NonZero(%x) : int64[2,K]
        %y = test.Filled() {shape=[<N>, 4, <K//2>]}
        %z = test.Filled() {shape=[<max(N,K)>]}
        return %y, %z
    }"""
    y, z = _run(text, np.eye(4, 3, dtype=np.float32))
    assert y.shape == (2, 4, 1) and z.shape == (3,)


def test_a_symbol_without_a_value_is_an_error() -> None:
    text = "graph main() -> (y) { %y = test.Filled() {shape=[<Q>]} return %y }"
    with pytest.raises(EvaluationError, match=r"node 'y' \(test.Filled\): symbol Q has no value"):
        _run(text)


def test_results_are_checked_against_types_on_request() -> None:
    text = """graph main(%x: float32[N]) -> (y) {
        %y = Concat(%x, %x) {axis=0} : float32[N]
        return %y
    }"""
    assert len(_run(text, _floats(1, 2))[0]) == 4
    with pytest.raises(EvaluationError, match=r"node 'y' \(Concat\), output 'y': .* where N is 2"):
        _run(text, _floats(1, 2), check_types=True)


def test_values_are_freed_after_their_last_use() -> None:
    graph = Graph()
    value = graph.add_input("x", tensor("float32", sym("N")))
    for _ in range(6):
        value = graph.add_node("Neg", [value]).out()
    graph.set_outputs([value])
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def watch(_value: Value, array: np.ndarray) -> None:
        nonlocal most
        alive.append(weakref.ref(array))
        gc.collect()
        most = max(most, sum(r() is not None for r in alive[1:]))

    evaluate(graph, {"x": _floats(1, 2)}, on_value=watch)
    assert len(alive) == 7 and most <= 2


def test_the_hook_hears_of_values_in_bodies() -> None:
    names: list[str] = []
    graph = parse_graph(_LOOP)
    feeds = [np.array(2), np.array(True), _floats(1), _floats(99)]
    evaluate(
        graph, dict(zip("mcx", feeds, strict=False)) | {"limit": feeds[3]},
        on_value=lambda v, _: names.append(v.name),
    )  # fmt: skip
    assert names[:4] == ["m", "c", "x", "limit"] and names.count("next") == 2 and "a" in names


def test_an_interpreter_can_run_again() -> None:
    interpreter = Interpreter(parse_graph(_LOOP))
    for count, want in [(1, 2), (4, 16)]:
        feeds = {"m": np.array(count), "c": np.array(True), "x": _floats(1), "limit": _floats(99)}
        assert interpreter.run(feeds)[0] == want


def test_a_failing_node_is_named() -> None:
    text = """graph main(%x: float32[2], %y: float32[3]) -> (z) {
        %z = Add(%x, %y) @/layer/Add
        return %z
    }"""
    with pytest.raises(EvaluationError, match=r"node '/layer/Add' \(Add\): "):
        _run(text, _floats(1, 2), _floats(1, 2, 3))


def test_an_op_nobody_evaluates_is_named() -> None:
    node = Graph().add_node("Nothing", [], domain="nowhere")
    with pytest.raises(Exception, match="no reference evaluation of nowhere.Nothing"):
        run_node(node, [])


def test_ops_defined_by_functions_of_their_types() -> None:
    node = Graph().add_node("GroupNormalization", [], {"num_groups": 2, "epsilon": 0.0})
    x = np.array([[[1.0, 3.0], [10.0, 30.0]]], np.float32)
    (y,) = run_node(node, [x, _floats(1, 1), _floats(0, 1)])
    np.testing.assert_allclose(y, [[[-1, 1], [0, 2]]], rtol=1e-5)


def test_results_without_elements() -> None:
    """ONNX's own implementation cannot split heads of an empty batch."""
    graph = parse_graph("""graph main(%x: float32[N, 2, 8]) -> (y) {
        %y = Attention(%x, %x, %x) {q_num_heads=2, kv_num_heads=2}
        return %y
    }""")
    infer_types(graph)
    (got,) = evaluate(graph, {"x": np.zeros((0, 2, 8), np.float32)})
    assert got.shape == (0, 2, 8) and got.dtype == np.float32
    with pytest.raises(EvaluationError, match="expected"):
        evaluate(graph, {"x": np.zeros((0, 2, 7), np.float32)})
