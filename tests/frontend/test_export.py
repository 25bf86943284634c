"""Graphs written back as ONNX compute what the interpreter computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from support.graph_text import body_of

from graphkiln.driver import import_model, optimize
from graphkiln.frontend.export import EXPORTERS, ExportError, to_onnx
from graphkiln.frontend.export import model as export_model
from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.packing import pack_channels, pack_conv_weight, pack_depthwise_weight
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.types import TensorType, dtype, tensor

_RNG = np.random.default_rng(7)


def _random(*shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(np.float32)


def _check(graph: Graph, *feeds: Any) -> onnx.ModelProto:
    """Export, let onnx check the model, run it, and compare with the interpreter."""
    named = dict(zip([v.name for v in graph.inputs], feeds, strict=True))
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [o.name for o in model.graph.output] == list(graph.output_names)
    got = ReferenceEvaluator(model).run(None, named)
    for a, b in zip(got, evaluate(graph, named), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return model


def _ops(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


def test_names_types_and_opset() -> None:
    text = """graph main(%x: float32[N,3]) -> (out, "x again", c) {
        %w = constant float32[3] [1.0, 2.0, 3.0]
        %s = Add(%x, %w) : float32[N,3] @/add
        %y = Conv(%s, %s) {group=1} : float32[N,3]
        return %s, %x, %w
    }"""
    graph = parse_graph(text)
    graph.prune()
    model = _check(graph, _random(2, 3))
    assert _ops(model) == ["Add", "Identity", "Identity"]
    assert model.graph.node[0].name == "/add"
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 13)]


def test_the_opset_is_as_low_as_the_ops_allow() -> None:
    text = "graph main(%x: float32[2]) -> (y) { %y = Relu(%x) : float32[2] return %y }"
    assert to_onnx(parse_graph(text)).opset_import[0].version == 13
    newer = text.replace("Relu", "Mish")
    assert to_onnx(parse_graph(newer)).opset_import[0].version == 18


def test_assertions_of_sizes_are_left_to_others() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 4] x, float[M, 4] y) => (float[K, 4] z) { z = Add(x, y) }"""
    graph = import_model(onnx.parser.parse_model(text)).graph
    assert any(n.key == "kiln.Assert" for n in graph.nodes)
    model = to_onnx(graph)
    assert _ops(model) == ["Add"]
    x, y = _random(3, 4), _random(1, 4)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x, "y": y})
    np.testing.assert_allclose(found, x + y)


def test_checks_of_indices_are_left_to_others() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 4] x, int64[K] i) => (float[K, 4] z) { z = Gather(x, i) }"""
    graph = import_model(onnx.parser.parse_model(text)).graph
    assert any(n.key == "kiln.Within" for n in graph.nodes)
    model = to_onnx(graph)
    assert _ops(model) == ["Gather"]
    x, i = _random(3, 4), np.array([2, 0, -1])
    (found,) = ReferenceEvaluator(model).run(None, {"x": x, "i": i})
    np.testing.assert_array_equal(found, x[i])


def _opset(line: str, kind: str = "float32", to: str | None = None) -> int:
    text = f"graph main(%x: {kind}[2]) -> (y) {{ %y = {line} : {to or kind}[2] return %y }}"
    return to_onnx(parse_graph(text)).opset_import[0].version


def test_newer_opsets_are_for_what_older_ones_lack() -> None:
    assert _opset("Identity(%x)") == 13
    assert _opset("Identity(%x)", "int4") == 21
    assert _opset("Cast(%x) {to=10}", to="float16") == 13
    assert _opset("Cast(%x) {saturate=0, to=17}", to="float8e4m3fn") == 19
    assert _opset("ReduceMax(%x) {keepdims=1, noop_with_empty_axes=1}") >= 18


def test_elements_of_other_nodes_do_not_count() -> None:
    """BitShift takes int64 from opset 28 on."""
    text = """graph main(%x: uint8[2], %i: int64[2]) -> (y, j) {
        %y = BitShift(%x, %x) {direction="LEFT"} : uint8[2]
        %j = Neg(%i) : int64[2]
        return %y, %j
    }"""
    assert to_onnx(parse_graph(text)).opset_import[0].version == 13
    shifted = text.replace("BitShift(%x, %x)", "BitShift(%i, %i)").replace(
        ": uint8[2]\n", ": int64[2]\n"
    )
    assert to_onnx(parse_graph(shifted)).opset_import[0].version == 28


def test_elements_of_what_only_nodes_compute_count() -> None:
    """Conv takes bfloat16 from opset 22 on, and no input, weight or result is one."""
    text = """graph main(%x: float32[1,1,3,3]) -> (y) {
        %a = Cast(%x) {to=16} : bfloat16[1,1,3,3]
        %b = Conv(%a, %a) : bfloat16[1,1,1,1]
        %y = Cast(%b) {to=1} : float32[1,1,1,1]
        return %y
    }"""
    assert to_onnx(parse_graph(text)).opset_import[0].version == 22
    assert to_onnx(parse_graph(text.replace("bfloat16", "float16").replace("to=16", "to=10"))
                   ).opset_import[0].version == 13  # fmt: skip


def test_what_values_of_attributes_may_use_keeps_the_newest_version() -> None:
    """Pad knows ``wrap`` since 19, ScatterND ``max`` since 18: their schemas do not tell."""
    text = """graph main(%x: float32[2,2], %i: int64[1,1], %u: float32[1,2]) -> (y) {
        %y = ScatterND(%x, %i, %u) {reduction="none"} : float32[2,2]
        return %y
    }"""
    assert to_onnx(parse_graph(text)).opset_import[0].version == 18


def test_a_region_dissolves() -> None:
    inner = body_of("%p: float32[N]", "%q = Neg(%p) : float32[N]", "%q", "inner")
    outer = body_of(
        "%a: float32[N], %b: float32[N]",
        f"%c = constant float32[] 2.0; %s = Add(%a, %b) : float32[N];"
        f"%m = Mul(%s, %c) : float32[N]; %r = kiln.Region(%m) {{body={inner}}} : float32[N]",
        "%r, %b, %c, %s",
    )
    text = f"""graph main(%x: float32[N], %y: float32[N]) -> (r, y2, c, s, r2) {{
        %r, %t, %c, %s = kiln.Region(%x, %y) {{body={outer}}}
            : float32[N], float32[N], float32[], float32[N]
        %u = kiln.Region(%t, %s) {{body={outer}}}
            : float32[N], float32[N], float32[], float32[N]
        return %r, %t, %c, %s, %u
    }}""".replace("%u = kiln", "%u, %u1, %u2, %u3 = kiln")
    model = _check(parse_graph(text), _random(4), _random(4))
    assert "Region" not in _ops(model) and _ops(model).count("Neg") == 2


def test_if_captures_by_name() -> None:
    then = body_of("%a: float32[N], %b: float32[N]", "%r = Sub(%a, %b) : float32[N]", "%r")
    other = body_of("%a: float32[N], %b: float32[N]", "", "%b")
    text = f"""graph main(%c: bool[], %a: float32[N], %b: float32[N]) -> (y) {{
        %d = Neg(%b) : float32[N]
        %y = If(%c, %a, %d) {{then_branch={then}, else_branch={other}}} : float32[N]
        return %y
    }}"""
    for condition in (True, False):
        model = _check(parse_graph(text), np.array(condition), _random(3), _random(3))
    assert list(model.graph.node[-1].input) == ["c"]
    assert [a.name for a in model.graph.node[-1].attribute] == ["then_branch", "else_branch"]


def test_loops_nest_and_capture_across_levels() -> None:
    deep = body_of(
        "%j: int64[], %d: bool[], %v: float32[2], %far: float32[2]",
        "%w = Add(%v, %far) : float32[2]", "%d, %w, %w",
    )  # fmt: skip
    body = body_of(
        "%i: int64[], %c: bool[], %v: float32[2], %far: float32[2], %n: int64[]",
        f"%w, %all = Loop(%n, _, %v, %far) {{body={deep}, num_carried=1}}"
        " : float32[2], float32[T,2]",
        "%c, %w, %w",
    )
    text = f"""graph main(%n: int64[], %x: float32[2], %far: float32[2]) -> (y, rows) {{
        %yes = constant bool[] true
        %y, %rows = Loop(%n, %yes, %x, %far, %n) {{body={body}, num_carried=1}}
            : float32[2], float32[n,2]
        return %y, %rows
    }}"""
    graph = parse_graph(text)
    model = to_onnx(graph)
    onnx.checker.check_model(model)
    loop = model.graph.node[-1]
    assert len(loop.input) == 3 and len(loop.attribute) == 1
    feeds = [np.array(3), _random(2), _random(2)]
    names = dict(zip(["n", "x", "far"], feeds, strict=True))
    want = evaluate(graph, names)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString())
    for a, b in zip(session.run(None, names), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_scan_keeps_its_axes() -> None:
    body = body_of(
        "%acc: float32[2], %row: float32[2], %k: float32[]",
        "%s = Mul(%row, %k) : float32[2]; %t = Add(%acc, %s) : float32[2]", "%t, %t",
    )  # fmt: skip
    text = f"""graph main(%a: float32[2], %x: float32[2,N], %k: float32[]) -> (last, all) {{
        %last, %all = Scan(%a, %x, %k) {{
            body={body}, num_carried=1, num_scan_inputs=1, scan_input_axes=[1],
            scan_output_directions=[1]
        }} : float32[2], float32[N,2]
        return %last, %all
    }}"""
    graph = parse_graph(text)
    model = to_onnx(graph)
    onnx.checker.check_model(model)
    runtime = pytest.importorskip("onnxruntime")
    feeds = {"a": _random(2), "x": _random(2, 5), "k": np.array(2, np.float32)}
    session = runtime.InferenceSession(model.SerializeToString())
    for a, b in zip(session.run(None, feeds), evaluate(graph, feeds), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_symbolic_sizes_are_computed_from_shapes(n: int) -> None:
    text = """graph main(%x: float32[N,4], %y: float32[M]) -> (a, b, c, d) {
        %a = kiln.Reshape(%x) {shape=[2, <2*N>]} : float32[2,2*N]
        %b = kiln.Reshape(%x) {shape=[<N>, <4-M%4+M%4>, 1]} : float32[N,4,1]
        %one = constant int64[] 1
        %v = kiln.ShapeValue() {dims=[<N//2>, <3*N-1>, <max(N,M)>, <min(N,3)*M>, <(N-M)%3>, 7],
                                shape=[2, 3], dtype="int32"} : int32[2,3]
        %w = kiln.ShapeValue() {dims=[<(M-N)//2>], shape=[], dtype="int64"} : int64[]
        %e = kiln.Expand(%one) {shape=[<M>, <N>]} : int64[M,N]
        return %a, %v, %w, %e
    }"""
    _check(parse_graph(text), _random(n, 4), _random(3))


@pytest.mark.parametrize("n", [3, 6])
def test_slices_go_both_ways(n: int) -> None:
    text = """graph main(%x: float32[N,6]) -> (a, b, c, d, e) {
        %a = kiln.Slice(%x) {starts=[0, 1], steps=[1, 2], shape=[<N>, 3]} : float32[N,3]
        %b = kiln.Slice(%x) {starts=[<N-1>, 5], steps=[-1, -5], shape=[<N>, 2]} : float32[N,2]
        %c = kiln.Slice(%x) {starts=[<N//2>, 0], steps=[1, 1], shape=[1, 6]} : float32[1,6]
        %d = kiln.Slice(%x) {starts=[2, 4], steps=[-1, -2], shape=[0, 3]} : float32[0,3]
        %e = kiln.Slice(%x) {starts=[0, 0], steps=[1, 1], shape=[<N>, 6]} : float32[N,6]
        return %a, %b, %c, %d, %e
    }"""
    model = _check(parse_graph(text), _random(n, 6))
    assert _ops(model).count("Slice") == 4


def test_a_size_that_only_data_shows() -> None:
    text = """graph main(%x: float32[2,3]) -> (y) {
        %i = NonZero(%x) : int64[2,K]
        %y = kiln.Reshape(%i) {shape=[<K>, 1, 2, <1+K-K>]} : int64[K,1,2,1]
        %z = kiln.ShapeValue() {dims=[<K>, <K>], shape=[2]} : int64[2]
        return %z
    }"""
    _check(parse_graph(text), np.eye(2, 3, dtype=np.float32))
    with pytest.raises(ExportError, match=r"node 'z' .*: no value shows the size Q"):
        to_onnx(parse_graph(text.replace("dims=[<K>, <K>]", "dims=[<Q>, <K>]")))


# ---- blocked layouts -----------------------------------------------------------------------------


def _blocked(n: Any, blocks: int, size: int) -> TensorType:
    return TensorType(dtype("float32"), (n, blocks, size, size, 4), "NCHW4c")


def _blocked_graph() -> Graph:
    """Convolutions and a pool on blocks of 4; of six channels, so the last block is padded."""
    graph, n = Graph(), sym("N")
    x = graph.add_input("x", tensor("float32", n, 3, 8, 8))
    packed = graph.add_node("PackChannels", [x], {"block": 4}, domain="kiln")
    packed.outputs[0].type = _blocked(n, 1, 8)
    weight = graph.add_constant(pack_conv_weight(_random(6, 3, 3, 3), 1, 4, 4))
    bias = graph.add_constant(pack_channels(_random(1, 6, 1, 1), 4))
    attrs = {"in_channels": 3, "out_channels": 6, "block": 4, "pads": (1, 1, 1, 1)}
    conv = graph.add_node("ConvBlocked", [packed.out(), weight, bias], attrs, domain="kiln")
    conv.outputs[0].type = _blocked(n, 2, 8)
    scale = graph.add_constant(pack_channels(_random(1, 6, 1, 1), 4))
    value = conv.out()
    for op, extra in (("Relu", []), ("Mul", [scale]), ("Add", [value])):
        node = graph.add_node(op, [value, *extra], types=[_blocked(n, 2, 8)])
        value = node.out()
    attrs = {"mode": "max", "kernel_shape": (2, 2), "strides": (2, 2)}
    pool = graph.add_node("PoolBlocked", [value], attrs, domain="kiln", types=[_blocked(n, 2, 4)])
    depth = graph.add_constant(pack_depthwise_weight(_random(6, 1, 3, 3), 4))
    attrs = {"in_channels": 6, "out_channels": 6, "block": 4}
    deep = graph.add_node("DepthwiseBlocked", [pool.out(), depth], attrs, domain="kiln")
    deep.outputs[0].type = _blocked(n, 2, 2)
    plain = graph.add_node("UnpackChannels", [deep.out()], {"channels": 6}, domain="kiln")
    plain.outputs[0].type = tensor("float32", n, 6, 2, 2)
    graph.set_outputs([plain.out()], ["y"])
    return graph


def test_blocked_layouts_dissolve() -> None:
    model = _check(_blocked_graph(), _random(2, 3, 8, 8))
    assert _ops(model) == ["Conv", "Relu", "Mul", "Add", "MaxPool", "Conv", "Identity"]


def test_quantisation_in_blocks_dissolves() -> None:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 2, 3, 8, 8))
    packed = graph.add_node("PackChannels", [x], {"block": 4}, domain="kiln").out()
    packed.set_type(_blocked(2, 1, 8))
    steps = [graph.add_constant(np.float32(0.1)), graph.add_constant(np.array(7, np.int8))]
    codes = graph.add_node("QuantizeLinear", [packed, *steps]).out()
    codes.set_type(TensorType(dtype("int8"), packed.shape, "NCHW4c"))
    value = graph.add_node("DequantizeLinear", [codes, *steps], types=[packed.type]).out()
    plain = graph.add_node("UnpackChannels", [value], {"channels": 3}, domain="kiln").out()
    plain.set_type(x.type)
    graph.set_outputs([plain], ["y"])
    model = _check(graph, _random(2, 3, 8, 8))
    assert _ops(model) == ["QuantizeLinear", "DequantizeLinear", "Identity"]


def test_a_blocked_value_is_written_where_something_needs_it() -> None:
    graph = _blocked_graph()
    pool = next(n for n in graph.nodes if n.op == "PoolBlocked")
    flat = graph.add_node("ReduceMax", [pool.out()], {"keepdims": 1})
    flat.outputs[0].type = tensor("float32", 1, 1, 1, 1, 1)
    (input_pack,) = (n for n in graph.nodes if n.op == "PackChannels")
    graph.set_outputs([*graph.outputs, pool.out(), input_pack.out()], ["y", "pool", "packed"])
    model = to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    x = _random(1, 3, 8, 8)
    got = ReferenceEvaluator(model).run(None, {"x": x})
    want = evaluate(graph, {"x": x})
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[2], want[2])
    np.testing.assert_allclose(got[1][:, 0], want[1][:, 0], rtol=1e-5, atol=1e-5)


def test_packed_weights_enter_regions_and_flat_results_leave() -> None:
    """Blocks of one channel come in by a Reshape, and one pixel of whole blocks leaves by one."""
    graph, n = Graph(), sym("N")
    x = graph.add_input("x", tensor("float32", n, 3, 4, 4))
    single = graph.add_node("Reshape", [x], {"shape": (*x.shape, 1)}, domain="kiln")
    single.outputs[0].type = _single = TensorType(dtype("float32"), (n, 3, 4, 4, 1))
    weight = graph.add_constant(pack_conv_weight(_random(8, 3, 4, 4), 1, 1, 4))
    body = Graph("body")
    a = body.add_input("a", _single)
    w = body.add_input("w", weight.type)
    attrs = {"in_channels": 3, "out_channels": 8, "block": 4}
    conv = body.add_node("ConvBlocked", [a, w], attrs, domain="kiln", types=[_blocked(n, 2, 1)])
    relu = body.add_node("Relu", [conv.out()], types=[_blocked(n, 2, 1)])
    body.set_outputs([relu.out()])
    region = graph.add_node("Region", [single.out(), weight], {"body": body}, domain="kiln")
    region.outputs[0].type = _blocked(n, 2, 1)
    flat = graph.add_node("Reshape", [region.out()], {"shape": (n, 8)}, domain="kiln")
    flat.outputs[0].type = tensor("float32", n, 8)
    graph.set_outputs([flat.out()], ["y"])
    model = _check(graph, _random(2, 3, 4, 4))
    assert _ops(model) == ["Conv", "Relu", "Reshape"]


# ---- errors and files ----------------------------------------------------------------------------


def test_ops_without_a_form_are_all_named() -> None:
    text = """graph main(%x: float32[2]) -> (y) {
        %a = kiln.Mystery(%x) : float32[2]
        %y = mine.Op(%a) : float32[2]
        return %y
    }"""
    with pytest.raises(ExportError) as caught:
        to_onnx(parse_graph(text))
    assert "kiln.Mystery (node 'a'), mine.Op (node 'y')" in str(caught.value)


def test_a_user_can_add_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(scope: Any, node: Node, inputs: list[Value | None]) -> None:
        (x,) = scope.names(inputs)
        scope.emit("Add", [x, x], outputs=[scope.result(node.out())])

    monkeypatch.setitem(EXPORTERS, "mine.Twice", twice)
    text = "graph main(%x: float32[2]) -> (y) { %y = mine.Twice(%x) : float32[2] return %y }"
    (result,) = ReferenceEvaluator(to_onnx(parse_graph(text))).run(
        None, {"x": np.array([1, 2], np.float32)}
    )
    assert result.tolist() == [2, 4]


def test_a_symbolic_attribute_of_a_standard_op_is_an_error() -> None:
    text = """graph main(%x: float32[N]) -> (y) {
        %y = Concat(%x, %x) {axis=<N>} : float32[M]
        return %y
    }"""
    with pytest.raises(ExportError, match=r"node 'y' \(Concat\): an attribute is symbolic"):
        to_onnx(parse_graph(text))


def _constants_graph() -> Graph:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 400))
    value = x
    for i in range(3):
        node = graph.add_node("Add", [value, graph.add_constant(_random(400), f"w{i}")])
        node.outputs[0].type = x.type
        value = node.out()
    graph.set_outputs([value], ["y"])
    return graph


def test_large_constants_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = _constants_graph(), _random(400)
    plain = tmp_path / "plain.onnx"
    to_onnx(graph, plain)
    monkeypatch.setattr(export_model, "EXTERNAL_BYTES", 4000)
    large = tmp_path / "large.onnx"
    to_onnx(graph, large)
    names = ["large.onnx", "large.onnx.data", "plain.onnx"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert large.stat().st_size < 2000 < plain.stat().st_size
    for path in (plain, large):
        (y,) = ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})
        np.testing.assert_array_equal(y, evaluate(graph, {"x": x})[0])
    with pytest.raises(ExportError, match="needs a path"):
        to_onnx(graph)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_model, "EXTERNAL_BYTES", 4000)
    graph = _constants_graph()
    graph.nodes[-1].attrs["axis"] = sym("N")
    target = tmp_path / "model.onnx"
    target.write_bytes(b"before")
    with pytest.raises(ExportError):
        to_onnx(graph, target)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"before"


def test_guards_become_indices_out_of_range() -> None:
    graph = parse_graph("""graph main(%x: float32[N,3], %c: bool[]) -> (y) {
        %y = kiln.Require(%x, %c) {message="compiled for c"} : float32[N,3]
        return %y
    }""")
    x = _random(2, 3)
    model = _check(graph, x, np.array(True))
    assert model.graph.node[-1].name == "compiled for c"
    with pytest.raises(IndexError):
        ReferenceEvaluator(model).run(None, {"x": x, "c": np.array(False)})


def test_kept_boxes_and_their_rows_are_one_op() -> None:
    text = """graph boxes(
        %b: float32[1,N,4], %s: float32[1,2,N], %m: int64[1], %i: float32[1], %t: float32[1]
    ) -> (y) {
        %k = kiln.KeptBoxes(%b, %s, %m, %i, %t) {center_point_box=1, most=9}
        %y = kiln.BoxRows(%k)
        return %y
    }"""
    boxes, scores = np.abs(_random(1, 7, 4)), np.abs(_random(1, 2, 7))
    thresholds = np.float32([0.4]), np.float32([0.1])
    model = _check(typed(text), boxes, scores, np.array([3]), *thresholds)
    assert _ops(model) == ["NonMaxSuppression", "Identity"]
    with pytest.raises(ExportError):
        to_onnx(typed(text.replace("kiln.BoxRows(%k)", "Add(%k, %k)")))


def typed(text: str) -> Graph:
    graph = parse_graph(text)
    infer_types(graph)
    return graph


def test_ops_on_integers_are_as_they_were() -> None:
    """Mod of floats by floor came with opset 28; sizes are integers."""
    text = """graph main(%x: int64[2]) -> (y) {
        %y = Mod(%x, %x) : int64[2]
        return %y
    }"""
    assert to_onnx(parse_graph(text)).opset_import[0].version == 13
    assert to_onnx(parse_graph(text.replace("int64", "float32"))).opset_import[0].version == 28


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_swish_is_written_for_older_opsets(alpha: float) -> None:
    x = np.linspace(-4, 4, 9, dtype=np.float32)
    text = f"""graph main(%x: float32[9]) -> (y) {{
        %y = Swish(%x) {{alpha={alpha}}} : float32[9]
        return %y
    }}"""
    written = to_onnx(parse_graph(text))
    assert written.opset_import[0].version == 13
    (found,) = ReferenceEvaluator(written).run(None, {"x": x})
    np.testing.assert_allclose(found, x / (1 + np.exp(-alpha * x)), rtol=1e-5)
    again = optimize(written)
    assert [n.key for n in again.nodes if n.key in ("Swish", "Sigmoid")] == ["Swish"] or alpha != 1
