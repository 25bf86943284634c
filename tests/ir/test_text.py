"""The text format: what is printed reads back, and text that is no graph is refused."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cost import growth
from support.random_graphs import arrays, graphs
from support.work import calls_of

from graphkiln.ir.compare import structurally_equal
from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.literals import constant_hash, same_constant
from graphkiln.ir.origins import Origins
from graphkiln.ir.parser import ParseError, parse_graph
from graphkiln.ir.text import large_constants, print_graph
from graphkiln.ir.types import DTYPES, SequenceType, TensorType, dtype, tensor, to_numpy_dtype


def _example() -> Graph:
    n = sym("N")
    graph = Graph()
    x = graph.add_input("x", tensor("float32", n, 3, 224, 224))
    weight = graph.add_constant(np.ones((64, 3, 7, 7), np.float32), "w")
    sizes = graph.add_constant(np.array([32, 32]), "onnx::sizes")
    conv = graph.add_node(
        "Conv", [x, weight], {"strides": (2, 2), "pads": (3, 3, 3, 3), "group": 1},
        outputs=["/conv/out"], types=[tensor("float32", n, 64, 112, 112)], name="/conv/Conv",
    )  # fmt: skip
    body = Graph("halve")
    inner = body.add_input("a", tensor("float32", n))
    body.set_outputs([body.add_node("Neg", [inner], types=[inner.type]).out()], ["b"])
    split = graph.add_node(
        "Split", [conv.out(), None, sizes],
        {"axis": 1, "shape": (n, n // 2), "to": dtype("int8"), "value": np.array([0.5, 2.0]),
         "mode": 'say "hi"', "alpha": 1e-5, "skip": None, "on": True, "body": body,
         "seq": SequenceType(TensorType(dtype("bfloat16"), None, "NCHW16c"))},
        outputs=["left", "right"], domain="com.microsoft", origins=Origins(["/conv/Conv", "a b"]),
    )  # fmt: skip
    graph.set_outputs([split.out(1), x], ["logits", "the input"])
    return graph


def test_the_format_is_what_the_golden_file_shows(golden) -> None:
    golden("format", print_graph(_example()))


@pytest.mark.parametrize(
    ("suffix", "name", "origins"),
    [
        ("", "y", ()),
        ("@own", "own", ()),
        ("@[conv, norm]", "norm", ("conv", "norm")),
        ("@y @[conv]", "y", ("conv",)),
        ('@own @["odd name"]', "own", ("odd name",)),
    ],
)
def test_names_and_origins_stand_after_an_operation(
    suffix: str, name: str, origins: tuple[str, ...]
) -> None:
    text = f"graph g(%x: float32[2]) -> (y) {{\n  %y = Neg(%x) {suffix}".rstrip()
    graph = parse_graph(f"{text}\n  return %y\n}}\n")
    (node,) = graph.nodes
    assert (node.name, node.origins.names) == (name, origins)
    assert f"Neg(%x) {suffix}".rstrip() in print_graph(graph)


@pytest.mark.parametrize("suffix", ["@[]", "@[a", "@[a] @b", "@a @b", "@[a] @[b]"])
def test_other_suffixes_are_refused(suffix: str) -> None:
    with pytest.raises(ParseError):
        parse_graph(f"graph g(%x: float32[2]) -> (y) {{ %y = Neg(%x) {suffix} return %y }}")


def test_round_trip_keeps_everything() -> None:
    graph = _example()
    text = print_graph(graph)
    again = parse_graph(text, large_constants(graph))
    assert structurally_equal(graph, again) is None
    assert print_graph(again) == text


@settings(max_examples=80)
@given(graphs())
def test_random_graphs_round_trip(graph: Graph) -> None:
    text = print_graph(graph, limit=100)
    again = parse_graph(text)
    assert structurally_equal(graph, again) is None
    assert print_graph(again, limit=100) == text


@settings(max_examples=150)
@given(arrays())
def test_arrays_keep_every_bit(array: np.ndarray) -> None:
    graph = Graph()
    graph.set_outputs([graph.add_constant(array)])
    again = parse_graph(print_graph(graph, limit=100)).outputs[0].constant
    assert again is not None and same_constant(array, again)


def test_every_float8_value_keeps_its_bits() -> None:
    for name in sorted(DTYPES):
        if DTYPES[name].is_float and DTYPES[name].bits == 8:
            array = np.arange(256, dtype=np.uint8).view(to_numpy_dtype(name))
            graph = Graph()
            graph.set_outputs([graph.add_constant(array)])
            again = parse_graph(print_graph(graph, limit=256)).outputs[0].constant
            assert again is not None and again.tobytes() == array.tobytes(), name


def test_floats_print_short() -> None:
    graph = Graph()
    values = np.array([0.1, 1e-5, 3, -0.0, np.inf, np.nan], ml_dtypes.bfloat16)
    graph.set_outputs([graph.add_constant(values.astype(np.float32)), graph.add_constant(values)])
    text = print_graph(graph)
    assert "bfloat16[6] [0.1, 1e-05, 3.0, -0.0, inf, nan]" in text


def test_a_large_constant_needs_its_data() -> None:
    graph = _example()
    text = print_graph(graph)
    with pytest.raises(ParseError, match="data of constant sha256:[0-9a-f]{16} was not given"):
        parse_graph(text)
    zeros = parse_graph(text, placeholders=True)
    weight = next(n for n in zeros.nx if n.name == "w").attrs["value"]
    assert isinstance(weight, np.ndarray) and weight.strides == (0, 0, 0, 0) and not weight.any()
    key = next(iter(large_constants(graph)))
    with pytest.raises(ParseError, match=r"is a int8\[3\]"):
        parse_graph(text, {key: np.zeros(3, np.int8)})


def test_hash_covers_type_shape_and_data() -> None:
    a = np.zeros((2, 3), np.float32)
    others = [a.reshape(3, 2), a.astype(np.int32), a + 1, np.array([["", "", ""]] * 2, object)]
    assert len({constant_hash(v) for v in [a, *others]}) == 5
    assert constant_hash(a) == constant_hash(np.zeros((3, 2), np.float32).T)
    big = np.zeros((1 << 20,), np.int8)
    assert constant_hash(big) == constant_hash(big.copy())


def test_inferring_a_parsed_graph_makes_no_symbol_that_stands_there() -> None:
    text = "graph main(%x: float32[u7_0]) -> (y) {\n  %y = Neg(%x)\n  return %y\n}\n"
    node = parse_graph(text).nodes[0]
    assert node.serial > 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected 'graph'"),
        ("graph g() -> () {", "expected an operation"),
        ("graph g() -> () {\n  return\n} x", "line 3, column 3: text after the end"),
        ("graph g() -> (a) {\n  return %a\n}", "line 2, column 10: unknown value 'a'"),
        ("graph g(%a: float32[2]) -> () {\n  return %a\n}", "0 results are declared, 1 returned"),
        ("graph g(%a: float32[2], %a: int8[2]) -> () { return }", "the name 'a' is taken"),
        ("graph g(%a: float33[2]) -> () { return }", "unknown element type 'float33'"),
        ("graph g(%a: float32[N+]) -> () { return }", "expected a dimension"),
        ("graph g(%a: float32[-2]) -> () { return }", "a dimension is -2"),
        ("graph g() -> () { %a, %a = Relu() return }", "two results have one name"),
        ("graph g() -> () { %a = Relu(%b) return }", "unknown value 'b'"),
        ("graph g() -> () { %a = Relu(){x=1, x=2} return }", "stands there twice"),
        ("graph g() -> () { %a = Relu(){x=maybe} return }", "'maybe' is not an attribute value"),
        ("graph g() -> () { %a = Relu() : int8[], int8[] return }", "2 types for 1 results"),
        ("graph g() -> () { %a = constant int8[2] [1] return }", "1 elements where the shape"),
        ("graph g() -> () { %a = constant int8[1] [200] return }", "200 does not fit int8"),
        ("graph g() -> () { %a = constant int8[N] [1] return }", "needs a static shape"),
        ("graph g() -> () { %a = constant bool[] maybe return }", "expected an element"),
        ("graph g() -> () { %a, %b = constant int8[] 1 return }", "a constant has one result"),
        ('graph g() -> () { %"" = Relu() return }', "a value needs a name"),
        ("graph g() -> () { Relu() return }", "an operation without results needs a name"),
        ("graph g() -> () { %a = Output() return }", "Output is not an operation"),
        ('graph g() -> () { %a = Relu(){x="\\q"} return }', "is not a string"),
    ],
)  # fmt: skip
def test_bad_text_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"line {caught.value.line}, column {caught.value.column}")


@pytest.mark.parametrize(
    "text",
    [
        "graph g() -> () { %a = Relu(){x=" + "[" * 100_000,
        "graph g(%a: " + "seq<" * 100_000,
        "graph g() -> () { %a = Relu(){x=graph g() -> () { " * 5_000,
        "graph g() -> () { %a = constant complex64[] " + "(" * 100_000,
        "graph g(%a: float32[" + "(" * 100_000,
        "graph g() -> () { %a = Relu(){x=" + "9" * 10_000,
        "graph g() -> () { %a = constant int8[" + ",".join(["9" * 30] * 4) + "] sha256:0 return }",
        "graph g() -> () { %a = constant int8[" + ",".join(["1"] * 99) + "] sha256:0 return }",
        "graph g() -> () { %a = constant int8[" + ",".join(["1"] * 99) + "] [1] return }",
        "graph g() -> () { %a = constant float4e2m1[1] [0xfffff] return }",
    ],
)
def test_hostile_text_is_refused_quickly(text: str) -> None:
    def parse() -> None:
        with pytest.raises(ParseError):
            parse_graph(text, placeholders=True)

    assert calls_of(parse) < len(text) + 10_000


@settings(max_examples=300)
@given(st.data())
def test_damaged_text_parses_or_is_refused(data: st.DataObject) -> None:
    text = print_graph(_example())
    at = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 5))
    noise = data.draw(st.one_of(st.text(max_size=5), st.sampled_from(list('%"[]<>{}()=,:@#_'))))
    try:
        parse_graph(text[:at] + noise + text[at + length :], placeholders=True)
    except ParseError as e:
        assert e.line >= 1 and e.column >= 1


def test_a_cycle_cannot_be_printed() -> None:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 1))
    first = graph.add_node("Add", [x])
    second = graph.add_node("Neg", [first.out()])
    graph.set_input(first, 1, second.out())
    with pytest.raises(GraphError, match="cycle"):
        print_graph(graph)


def test_an_attribute_without_text_form_is_an_error() -> None:
    graph = Graph()
    graph.add_node("Neg", [], {"bad": object()})  # type: ignore[dict-item]
    with pytest.raises(GraphError, match="object has no text form"):
        print_graph(graph)


def _chain(length: int) -> Graph:
    graph = Graph()
    value = graph.add_input("x", tensor("float32", sym("N"), 8))
    for i in range(length):
        value = graph.add_node("Add", [value, value], {"k": i}, types=[value.type]).out()
    graph.set_outputs([value])
    return graph


def test_cost_grows_linearly() -> None:
    def make(length: int) -> Callable[[], object]:
        graph = _chain(length)
        return lambda: parse_graph(print_graph(graph))

    assert growth(make) < 8  # 16 where quadratic
