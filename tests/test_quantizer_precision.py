"""Schemes for each layer: entries in order, in a file or in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from support.breaking_model import accuracy, model, samples, schemes

import graphkiln
from graphkiln.driver import OptionError
from graphkiln.passes.ranges import Range
from graphkiln.quantizer.precision import Entry, PrecisionError, read_precision

FILE = """
[[layers]]
match = ["node0", "no*where"]
scheme = "float"

[[layers]]
match = "node2"
scheme = "int4-weights"
block = 16

[[layers]]
match = "MatMul"
scheme = "int8"
method = "mse"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "p.toml").write_text(FILE)
    return tmp_path / "p.toml"


def chain(widths: list[int]) -> onnx.ModelProto:
    """Products with a Relu behind each: ``node0``, ``node1`` ... are MatMul, Relu, MatMul ..."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i, (inner, columns) in enumerate(zip(widths, widths[1:], strict=False)):
        array = rng.standard_normal((inner, columns)).astype(np.float32) / np.sqrt(inner)
        weights.append(onnx.numpy_helper.from_array(array.astype(np.float32), f"w{i}"))
        nodes.append(onnx.helper.make_node("MatMul", [x, f"w{i}"], [f"p{i}"], f"layer{i}"))
        x = "y" if i == len(widths) - 2 else f"r{i}"
        nodes.append(onnx.helper.make_node("Relu", [f"p{i}"], [x]))
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width])
        for name, width in (("x", widths[0]), ("y", widths[-1]))
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 21)]
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets)


def feeds(count: int = 4, width: int = 32) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((3, width)).astype(np.float32)} for _ in range(count)]


def told(found: graphkiln.Quantized) -> dict[str, str]:
    """The scheme of each layer by its ONNX name."""
    return {row["onnx"][0]: row["scheme"] for row in found.layers}


def test_the_first_entry_that_matches_counts() -> None:
    entries = [
        Entry(("layer0",), "float"),
        Entry(("layer1", "layer0"), "int4-weights", {"block": 16}),
        Entry(("layer2",), "int8", {"method": "mse"}),
    ]
    data = feeds()
    net = chain([32, 48, 48, 48, 8])
    found = graphkiln.quantize(net, data, scheme="int8-weights", precision=entries, jobs=1)
    assert told(found) == {
        "layer0": "float", "layer1": "int4 weights", "layer2": "static int8",
        "layer3": "int8 weights",
    }  # fmt: skip
    assert [row["reason"] for row in found.layers] == ["excluded by 'layer0'", "", "", ""]
    kinds = [node.op_type for node in found.to_onnx().graph.node]
    assert kinds.count("MatMulNBits") == 2 and kinds.count("QuantizeLinear") == 1
    wanted = graphkiln.compile(net, jobs=1).session(threads=1).run(None, data[0])[0]
    (y,) = found.session(threads=1).run(None, data[0])
    assert np.linalg.norm(y - wanted) < 0.15 * np.linalg.norm(wanted)


def test_two_ways_to_pick_ranges_in_one_model() -> None:
    """Each layer is as in a model that is all quantized that way."""
    net, data = chain([32, 48, 48, 8]), feeds()
    entries = [Entry(("layer1",), "int8", {"method": "percentile", "share": 0.8})]
    mixed = graphkiln.quantize(net, data, precision=entries, jobs=1)
    assert set(told(mixed).values()) == {"static int8"}
    narrow = graphkiln.quantize(net, data, method="percentile", share=0.8, jobs=1).ranges
    wide = graphkiln.quantize(net, data, jobs=1).ranges
    assert len(wide) == 3 and not any(narrow[name] == wide[name] for name in wide)
    assert sum(r == narrow[name] for name, r in mixed.ranges.items()) == 1
    assert sum(r == wide[name] for name, r in mixed.ranges.items()) == 2
    assert all(row["by"] == "sample data" for row in mixed.tensors)


def test_selections_beside_entries() -> None:
    net, data = chain([32, 48, 48, 48, 8]), feeds()
    found = graphkiln.quantize(
        net, data, exclude=["layer0"], only=["layer2"], jobs=1,
        precision=[Entry(("layer0", "layer1"), "int8-weights")],
    )  # fmt: skip
    assert told(found) == {
        "layer0": "float", "layer1": "int8 weights", "layer2": "static int8", "layer3": "float",
    }  # fmt: skip


def test_control_goes_over_all_schemes() -> None:
    """The guilty layer is quantized by an entry, and found all the same."""
    data = samples()
    entries = [Entry(("node0",), "int8", {"method": "mse"})]
    found = graphkiln.quantize(
        model(), data, precision=entries, metric=accuracy, max_drop=0.05, jobs=1
    )
    assert schemes(found) == {"node0": "float", "node2": "static int8", "node4": "static int8"}
    assert all(row["alone"] is not None for row in found.layers)


def test_ranges_count_for_all_schemes_and_misspelt_patterns_are_told() -> None:
    net, data = chain([32, 48, 8]), feeds()
    entries = [Entry(("layer0",), "int8", {"method": "mse"}), Entry(("leyer*",), "float")]
    given = {"x": Range(-9.0, 9.0), "no": Range(0.0, 1.0)}
    found = graphkiln.quantize(net, data, precision=entries, ranges=given, jobs=1)
    assert found.ranges["x"] == Range(-9.0, 9.0)
    assert found.warnings == [
        "no tensor 'no' is quantized, but has a range",
        "no layer matches 'leyer*' of the precision entries",
    ]


def test_a_file(file: Path) -> None:
    assert read_precision(file) == [
        Entry(("node0", "no*where"), "float"),
        Entry(("node2",), "int4-weights", {"block": 16}),
        Entry(("MatMul",), "int8", {"method": "mse"}),
    ]
    found = graphkiln.quantize(model(), samples(2), precision=file, jobs=1)
    assert list(schemes(found).values()) == ["float", "int4 weights", "static int8"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[layers]", "is no TOML: "),
        ("", r"must hold entries \[\[layers\]\] and nothing else"),
        ("layers = 3", "must hold entries"),
        (FILE + "[other]", "must hold entries"),
        ("layers = [3]", "entry 1: it is no table with match and scheme"),
        ('[[layers]]\nscheme = "int8"', "entry 1: match must be a pattern"),
        (FILE + '[[layers]]\nmatch = [3]\nscheme = "int8"', "entry 4: match must be"),
        ('[[layers]]\nmatch = "*"', "entry 1: scheme must be one of float, int8"),
        ('[[layers]]\nmatch = "*"\nscheme = "int3"', "entry 1: scheme is one of float, .*'int3'"),
        ('[[layers]]\nmatch = "*"\nscheme = "int8"\nblock = 16', "entry 1: block does nothing"),
        ('[[layers]]\nmatch = "*"\nscheme = "float"\nblock = 16', "entry 1: block does nothing"),
        ('[[layers]]\nmatch = "*"\nscheme = "int8"\nmethod = "up"', "entry 1: method is one of"),
    ],
)
def test_faults_of_a_file_name_the_entry(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(PrecisionError, match=reason) as caught:
        read_precision(path)
    assert caught.value.file == str(path) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"precision": "none.toml"}, PrecisionError, "none.toml: cannot be read: No such file"),
        ({"precision": [Entry(("*",), "float")], "scheme": "float"}, OptionError, "nothing is"),
        ({"precision": [Entry(("*",), "int3")]}, OptionError, "scheme is one of float, "),
        ({"precision": [Entry(("*",), "float")], "block": 16}, OptionError, "block does nothing"),
        ({"scheme": "float"}, OptionError, "scheme is one of int8"),
    ],
)
def test_what_makes_no_sense_is_told(
    options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        graphkiln.quantize(model(), samples(1), jobs=1, **options)


def test_tables_that_are_looked_up_are_layers_too() -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (int64[N] i) => (float[N, 8] y)'
        " { a = Gather(t, i) y = MatMul(a, w) }"
    )
    for name, shape in {"t": (30, 32), "w": (32, 8)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    entry = Entry(("Gather",), "int4-weights", {"block": 32})
    found = graphkiln.quantize(model, scheme="int8-dynamic", precision=[entry], jobs=1)
    assert [row["scheme"] for row in found.layers] == ["int4 weights", "dynamic int8"]
    assert not found.warnings
