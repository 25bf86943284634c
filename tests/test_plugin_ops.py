"""Ops that only a test registers are treated like built-in ones, trait by trait."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import plugin_ops
from support.graph_text import graph_of
from support.pass_checks import random_feeds, run, same
from support.plugin_ops import DOMAIN
from support.toy_layouts import toy_context

import graphkiln
from graphkiln.cli.coverage import COMPILED, HOST, coverage
from graphkiln.codegen.support import unsupported
from graphkiln.frontend import load_model
from graphkiln.ir.costs import Demand, arithmetic
from graphkiln.ir.flops import graph_flops
from graphkiln.ir.graph import Graph
from graphkiln.ir.hardware import GenericHardware
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.registry import specs
from graphkiln.ir.traits import Trait
from graphkiln.passes.base import PassContext
from graphkiln.targets import parse_target


@pytest.fixture(autouse=True, scope="module")
def ops() -> Iterator[None]:
    with plugin_ops.registered():
        yield


def graph(params: str, lines: str) -> Graph:
    """The graph of ``lines``, where ``@`` stands for the plugin's domain, with the result ``y``."""
    text = f"graph main({params}) -> (y) {{\n{lines}\nreturn %y\n}}"
    return graph_of(text.replace("@", f"{DOMAIN}."))


def after(params: str, lines: str, pipeline: str, context: PassContext | None = None) -> list[str]:
    """The ops that are left, producers first; their numbers are those of before."""
    g = graph(params, lines)
    feeds = random_feeds(g)
    expected = evaluate(g, feeds)
    run(g, pipeline, context)
    same(evaluate(g, feeds), expected)
    return [n.key.removeprefix(f"{DOMAIN}.") for n in g.topological()]


def regions(params: str, lines: str) -> list[list[str]]:
    """The ops of each region that fusion makes, and each op that stays alone."""
    g = graph(params, lines)
    feeds = random_feeds(g)
    expected = evaluate(g, feeds)
    run(g, "fuse")
    same(evaluate(g, feeds), expected)
    found = []
    for node in g.topological():
        inside = [n for _, body in g.bodies(node) for n in body.topological()]
        found.append([n.key.removeprefix(f"{DOMAIN}.") for n in inside or [node]])
    return found


X = "%x: float32[2,3]"


def test_every_trait_and_field_has_an_op_here() -> None:
    own = [s for s in specs() if s.domain == DOMAIN]
    assert set(Trait) == {t for s in own for t in s.traits}
    for field in ("flops", "summed_axes", "zero_points", "result_zero_point", "homogeneous"):
        assert any(getattr(s, field) for s in own), field


# ---- folding and simplification ------------------------------------------------------------------

TWO = "%c = constant float32[2] [2.0, -0.5]\n"


@pytest.mark.parametrize("op", ["Squash", "Square", "Mirror", "Neighbours", "Total", "Same"])
def test_constants_fold(op: str) -> None:
    assert after("%x: float32[2]", f"{TWO}%f = @{op}(%c)\n%y = Add(%x, %f)", "fold,dce") == ["Add"]


@pytest.mark.parametrize(("op", "moved"), [("AddRow", False), ("Plus", True)])
def test_transposes_move_past_what_takes_any_ranks(op: str, moved: bool) -> None:
    lines = (
        "%r = constant float32[2] [2.0, -0.5]\n%t = Transpose(%x) {perm=[1, 0]}\n"
        f"%s = @{op}(%t, %r)\n%y = Transpose(%s) {{perm=[1, 0]}}"
    )
    left = [op] if moved else ["Transpose", op, "Transpose"]
    assert after("%x: float32[2,3]", lines, "simplify,fold,dce") == left


def test_what_draws_numbers_does_not_fold() -> None:
    lines = f"{TWO}%f = @Draw(%c)\n%y = Add(%x, %f)"
    assert after("%x: float32[2]", lines, "fold,dce") == ["Draw", "Add"]


@pytest.mark.parametrize(
    ("op", "folds"),
    [("Squash", True), ("Mirror", True), ("Shape", True), ("Square", False), ("Total", False)],
)
def test_exact_folding_takes_what_has_one_result(op: str, folds: bool) -> None:
    lines = f"{TWO}%f = @{op}(%c)\n%y = Add(%x, %f)"
    kept = [] if folds else [op]
    assert after("%x: float32[2]", lines, "fold{exact=true},dce") == [*kept, "Add"]


@pytest.mark.parametrize(("number", "folds"), [(2.5, True), (3e9, False)])
def test_conversions_fold_exactly_where_the_number_fits(number: float, folds: bool) -> None:
    g = graph("%x: int32[1]", f"%c = constant float32[1] [{number}]\n%f = @Whole(%c)\n"
              "%y = Add(%x, %f)")  # fmt: skip
    run(g, "fold{exact=true},dce")
    assert len(list(g.topological())) == (1 if folds else 2)


def test_equal_nodes_are_merged() -> None:
    lines = "%a = @Plus(%x, %z)\n%b = @Plus(%z, %x)\n%y = Sub(%a, %b)"
    assert after(f"{X}, %z: float32[2,3]", lines, "cse,dce") == ["Plus", "Sub"]
    lines = "%a = @Draw(%x)\n%b = @Draw(%x)\n%y = Sub(%a, %b)"
    assert after(X, lines, "cse,dce") == ["Draw", "Draw", "Sub"]


def test_twice() -> None:
    assert after(X, "%a = @Squash(%x)\n%y = @Squash(%a)", "simplify,dce") == ["Squash"]
    lines = "%a = @Opposite(%x)\n%b = @Opposite(%a)\n%y = Relu(%b)"
    assert after(X, lines, "simplify,dce") == ["Relu"]


def test_broadcasting_needs_no_expand() -> None:
    lines = "%e = kiln.Expand(%s) {shape=[2,3]}\n%y = @Plus(%x, %e)"
    assert after(f"{X}, %s: float32[1,3]", lines, "simplify,dce") == ["Plus"]


def test_views_move_below_elementwise_ops() -> None:
    lines = "%m = MatMul(%x, %w)\n%v = kiln.Reshape(%m) {shape=[6]}\n%y = @Squash(%v)"
    ops = after(f"{X}, %w: float32[3,3]", lines, "simplify,dce")
    assert ops == ["MatMul", "Squash", "kiln.Reshape"]


def test_views_become_reshapes() -> None:
    assert after("%x: float32[2,3,4]", "%y = @Rows(%x)", "shapes,dce") == ["kiln.Reshape"]


ZERO = "%z = constant float32[] 0.0\n"


@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        ("%a = @Square(%x)", True),
        ("%a = @Squash(%x)", False),
        ("%s = @Square(%x)\n%a = @Mirror(%s)", True),
        ("%s = @Square(%x)\n%a = @Total(%s)", True),
        ("%s = Exp(%x)\n%t = @Square(%x)\n%a = @Plus(%s, %t)", True),
    ],
)
def test_zero_is_not_added_to_what_is_not_negative(lines: str, gone: bool) -> None:
    ops = after(X, f"{ZERO}{lines}\n%y = Add(%a, %z)", "simplify{exact=true},dce")
    assert ("Add" not in ops) == gone


def test_zero_is_not_added_where_its_sign_does_not_show() -> None:
    lines = f"{ZERO}%a = Add(%x, %z)\n%y = @Square(%a)"
    assert after(X, lines, "simplify{exact=true},dce") == ["Square"]


@pytest.mark.parametrize(
    "lines", ["%a = @Mix(%x, %x)", "%t = @Mix(%x, %x)\n%u = @Mirror(%t)\n%a = @Plus(%u, %t)"]
)
def test_zero_is_not_added_to_a_sum(lines: str) -> None:
    ops = after(X, f"{ZERO}{lines}\n%y = Add(%a, %z)", "simplify,dce")
    assert "Add" not in ops


@pytest.mark.parametrize(("op", "gone"), [("Hinge", True), ("Square", True), ("Squash", False)])
def test_pads_of_what_is_not_below_zero(op: str, gone: bool) -> None:
    lines = (
        "%p = constant int64[8] [0, 0, 1, 1, 0, 0, 1, 1]\n"
        f"%a = @{op}(%x)\n%b = Pad(%a, %p)\n%y = MaxPool(%b) {{kernel_shape=[3, 3]}}"
    )
    ops = after("%x: float32[1,1,4,4]", lines, "fold_affine,dce")
    assert ops == [op, "MaxPool"] if gone else [op, "Pad", "MaxPool"]


def test_subnormal_factors_that_a_sum_drowns() -> None:
    g = graph(X, "%w = constant float32[2,3] [1.0, 1e-40, 2.0, 1e-40, 1e-41, 1e-40]\n"
              "%y = @Mix(%x, %w)")  # fmt: skip
    run(g, "subnormals,dce")
    (left,) = (n.attrs["value"] for n in g.nx if n.op == "Constant")
    assert np.count_nonzero(left) == 5  # only the first row has a factor that drowns others


# ---- types, signs, layouts -----------------------------------------------------------------------


def test_narrow_floats_are_promoted() -> None:
    g = graph("%x: float16[2,3]", "%a = @Squash(%x)\n%y = @Mix(%a, %x)")
    run(g, "promote,dce", toy_context())
    assert {v.dtype for n in g.nodes if n.domain == DOMAIN for v in n.values} == {"float32"}
    assert g.outputs[0].dtype == "float16"


QUANTIZED = """%s = constant float32[] 0.1
%z = constant uint8[] 128
%w = constant int8[2,3] [1, 2, 3, 4, 5, 6]
%v = constant int8[] 0
%q = QuantizeLinear(%x, %s, %z)
MOVE
%p = QLinearMatMul(%m, %s, %z, %w, %s, %v, %s, %z)
%y = DequantizeLinear(%p, %s, %z)"""


@pytest.mark.parametrize(
    "move", ["%m = @Mirror(%q)", "%m = @Beside(%q, %q)", "%m = @Recentre(%q, %z, %z)"]
)
def test_bytes_change_their_sign_through_it(move: str) -> None:
    params = "%x: float32[2,1]" if "Beside" in move else "%x: float32[2,2]"
    wanted = toy_context().hardware.layouts
    assert wanted is not None and wanted.activation == "uint8"
    text = QUANTIZED.replace("MOVE", move).replace("uint8[] 128", "int8[] 0")
    g = graph(params, text)
    feeds = random_feeds(g)
    expected = evaluate(g, feeds)
    run(g, "signedness,dce", toy_context())
    assert {v.dtype for n in g.nodes if n.domain == DOMAIN for v in n.values} == {"uint8"}
    same(evaluate(g, feeds), expected)


def _between_convolutions(op: str, channels: int) -> list[str]:
    numbers = ", ".join(["0.5"] * 8 * channels)
    lines = (
        f"%w = constant float32[{channels},8,1,1] [{numbers}]\n"
        f"%v = constant float32[8,{channels},1,1] [{numbers}]\n"
        f"%c = Conv(%x, %w)\n%o = @{op}(%c)\n%y = Conv(%o, %v)"
    )
    return after("%x: float32[1,8,2,2]", lines, "layout,dce", toy_context())


def test_it_works_on_blocked_layouts() -> None:
    blocked = ["kiln.PackChannels", "kiln.ConvBlocked", "{}", "kiln.ConvBlocked",
               "kiln.UnpackChannels"]  # fmt: skip
    assert _between_convolutions("Squash", 6) == [o.format("Squash") for o in blocked]
    assert _between_convolutions("Inverse", 8) == [o.format("Inverse") for o in blocked]
    # Where channels fill a block up, an op that may make infinities of them gets the plain form.
    assert _between_convolutions("Inverse", 6).count("kiln.UnpackChannels") == 2


@pytest.mark.parametrize(("channels", "as_it_lies"), [(8, True), (6, False)])
def test_what_needs_no_order_reads_blocks_as_they_lie(channels: int, as_it_lies: bool) -> None:
    """Where channels do not fill a block up, it would see the padding."""
    numbers = ", ".join(["0.5"] * 8 * channels)
    lines = (
        f"%w = constant float32[{channels},8,1,1] [{numbers}]\n%c = Conv(%x, %w)\n"
        "%y = @Everything(%c)"
    )
    found = after("%x: float32[1,8,2,2]", lines, "layout,dce", toy_context())
    unpacked = [] if as_it_lies else ["kiln.UnpackChannels"]
    assert found == ["kiln.PackChannels", "kiln.ConvBlocked", *unpacked, "Everything"]


# ---- fusion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("%a = Exp(%x)\n%y = @Squash(%a)", [["Exp", "Squash"]]),
        ("%a = Exp(%x)\n%b = @Mirror(%a)\n%y = Abs(%b)", [["Exp", "Mirror", "Abs"]]),
        ("%a = Exp(%x)\n%b = @Neighbours(%a)\n%y = Abs(%b)", [["Exp"], ["Neighbours", "Abs"]]),
        ("%a = Exp(%x)\n%b = Abs(%x)\n%y = @Beside(%a, %b)", [["Exp", "Abs", "Beside"]]),
        ("%a = @Mix(%x, %x)\n%b = @Squash(%a)\n%y = Exp(%b)", [["Mix", "Squash", "Exp"]]),
        ("%a = @Squash(%x)\n%y = @Total(%a)", [["Squash", "Total"]]),
        ("%s = constant float32[] 2.0\n%a = Exp(%x)\n%y = @Rescale(%a, %s)", [["Exp", "Rescale"]]),
        ("%a = Exp(%x)\n%b = @Draw(%a)\n%y = Abs(%b)", [["Exp"], ["Draw"], ["Abs"]]),
        ("%a = Exp(%x)\n%b = @Elsewhere(%a)\n%y = Abs(%b)", [["Exp"], ["Elsewhere"], ["Abs"]]),
    ],
)
def test_it_shares_kernels(lines: str, expected: list[list[str]]) -> None:
    assert regions(X, lines) == expected


def test_views_between_what_shares_a_kernel() -> None:
    lines = "%a = Exp(%x)\n%v = @Rows(%a)\n%y = Abs(%v)"
    assert regions("%x: float32[1,2,3]", lines) == [["Exp", "Rows", "Abs"]]


def test_granular_ops_with_several_parameters_stay_alone() -> None:
    lines = "%a = Exp(%x)\n%y = @Rescale(%a, %s)"
    assert regions(f"{X}, %s: float32[3]", lines) == [["Exp"], ["Rescale"]]


def test_floats_of_bytes_are_made_by_the_reduction_that_reads_them() -> None:
    lines = (
        "%s = constant float32[] 0.1\n%z = constant int8[] 0\n%m = MatMulInteger(%x, %x)\n"
        "%c = Cast(%m) {to=1}\n%q = QuantizeLinear(%c, %s, %z)\n"
        "%d = DequantizeLinear(%q, %s, %z)\n%y = @Total(%d)"
    )
    found = regions("%x: int8[3,3]", lines)
    assert found[-1] == ["DequantizeLinear", "Total"]


def test_what_is_cheap_may_be_computed_twice() -> None:
    g = graph(X, "%a = @Squash(%x)\n%b = @Square(%a)\n%y = @Mirror(%b)")
    cheap = [GenericHardware().cheap(n) for n in g.topological()]
    assert cheap == [True, False, True]


# ---- costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "flops"),
    [
        ("%y = @Mix(%x, %x)", 2 * 2 * 2 * 3),
        ("%y = @Total(%x)", 6),
        ("%y = @Squash(%x)", 6),
        ("%s = constant float32[] 2.0\n%y = @Rescale(%x, %s)", 6),
        ("%y = @Mirror(%x)", 0),
    ],
)
def test_operations_are_counted(lines: str, flops: int) -> None:
    assert graph_flops(graph(X, lines)) == flops


def test_what_is_read_is_counted() -> None:
    assert Demand(graph(X, "%y = @Shape(%x)")).moved_bytes() == 4
    lines = "%a = @Mirror(%x)\n%y = kiln.Slice(%a) {starts=[0,0], steps=[1,1], shape=[1,3]}"
    assert Demand(graph(X, lines)).moved_bytes() == 2 * 3 * 4


def test_products_tell_their_arithmetic() -> None:
    assert arithmetic(graph("%x: float64[2,3]", "%p = @Mix(%x, %x)\n%y = Cast(%p) {to=1}")) == (
        "float64"
    )


# ---- compiled, refused, documented ---------------------------------------------------------------


def test_a_model_of_plugin_ops_compiles() -> None:
    """One model with a chain of nearly all: its numbers are those of the reference."""
    chain = ["Square", "Mirror", "Neighbours", "Squash", "Opposite", "Hinge", "Same"]
    names = ["c", *(f"t{i}" for i in range(len(chain)))]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"])]
    for op, source, result in zip(chain, names, names[1:], strict=False):
        nodes.append(helper.make_node(op, [source], [result], domain=DOMAIN))
    nodes += [
        helper.make_node("Plus", [names[-1], "c"], ["plus"], domain=DOMAIN),
        helper.make_node("Beside", ["plus", "c"], ["beside"], domain=DOMAIN),
        helper.make_node("Rows", ["beside"], ["rows"], domain=DOMAIN),
        helper.make_node("Mix", ["rows", "rows"], ["mix"], domain=DOMAIN),
        helper.make_node("Total", ["mix"], ["total"], domain=DOMAIN),
        helper.make_node("Shape", ["x"], ["size"], domain=DOMAIN),
        helper.make_node("Plus", ["total", "size"], ["y"], domain=DOMAIN),
    ]
    w = np.linspace(-1, 1, 6 * 8, dtype=np.float32).reshape(6, 8, 1, 1)
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 4, 4]),
              helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]  # fmt: skip
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(w, "w")]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)],
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 4, 4)).astype(np.float32)
    (actual,) = graphkiln.compile(model).session().run(None, {"x": x})
    (expected,) = evaluate(load_model(model).graph, {"x": x})
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("name", plugin_ops.STRUCTURAL)
def test_names_of_the_graphs_own_nodes_mean_nothing_in_another_domain(name: str) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["before"]),
        helper.make_node(name, ["before"], ["doubled"], domain=DOMAIN),
        helper.make_node("Softmax", ["doubled"], ["y"]),
        helper.make_node(name, ["y"], ["z"], domain=DOMAIN),
    ]
    values = [helper.make_tensor_value_info(v, TensorProto.FLOAT, ["N", 4]) for v in "xyz"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)],
    )
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    y, z = graphkiln.compile(model).session().run(None, {"x": x})
    weights = np.exp(2 * np.exp(x) / np.exp(x).sum(-1, keepdims=True))
    np.testing.assert_allclose(y, weights / weights.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(z, 2 * y)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("%y = @Elsewhere(%x)", "the runtime has no function for this op"),
        ("%y = @Repeat(%x)", "nothing runs its graphs"),
        ("%y = @Draw(%x)", "there is no kernel for this op"),
    ],
)
def test_what_nothing_computes_is_told(lines: str, reason: str) -> None:
    (told,) = unsupported(graph(X, lines), parse_target("cpu"), frozenset({"Elsewhere"}))
    assert reason in told.reason


def test_a_table_joins_a_region_whatever_its_shape() -> None:
    lines = "%c = Cast(%x) {to=2}\n%t = @Translate(%c, %k)\n%y = Cast(%t) {to=1}"
    text = "%x: float32[2,256], %k: int8[256]"
    assert regions(text, lines) == [["Cast", "Translate", "Cast"]]


def test_an_effect_that_nothing_has_is_told() -> None:
    g = graph(X, "%y = Relu(%x)")
    g.add_node("Notice", [g.inputs[0]], domain=DOMAIN, outputs=[])
    (told,) = unsupported(g, parse_target("cpu"), frozenset())
    assert "nothing does what it is there for" in told.reason


def test_it_is_in_the_coverage_table() -> None:
    rows = {r.op: r for r in coverage() if r.domain == DOMAIN}
    assert set(rows) == {s.name for s in specs() if s.domain == DOMAIN}
    assert rows["Squash"].how == COMPILED
    assert rows["Squash"].note == "The input, held between -1 and 1"
    assert rows["Same"].how == rows["Rows"].how == rows["Mix"].how == COMPILED
    assert rows["Everything"].how == COMPILED
    assert rows["Elsewhere"].how == HOST
