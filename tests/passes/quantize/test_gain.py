"""Layers that 8 bits would slow down stay floats, by the target's estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

import graphkiln
from graphkiln.driver import import_model
from graphkiln.ir.hardware import GenericHardware
from graphkiln.passes.quantize.gain import gains, slowdown
from graphkiln.passes.quantize.places import places_of
from graphkiln.targets import parse_target

SAMPLES = [{"x": np.random.default_rng(0).standard_normal((1, 96, 14, 14)).astype(np.float32)}]


def convolutions(readers: int = 1) -> onnx.ModelProto:
    """``wide`` mixes channels, and so many depthwise ones read its result."""
    rng = np.random.default_rng(1)
    text = "wide = Conv(x, w)\n" + "\n".join(
        f"y{i} = Conv<group = 96, pads = [1, 1, 1, 1]>(wide, d{i})" for i in range(readers)
    )
    results = ", ".join(f"float[1, 96, 14, 14] y{i}" for i in range(readers))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[1, 96, 14, 14] x) =>'
        f" ({results}) {{ {text} }}"
    )
    shapes = {"w": (96, 96, 1, 1), **{f"d{i}": (96, 1, 3, 3) for i in range(readers)}}
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def told(**options: Any) -> dict[str, Any]:
    found = graphkiln.quantize(convolutions(), SAMPLES, jobs=1, **options)
    return {row["onnx"][0]: row for row in found.layers}


def test_depthwise_convolutions_stay_floats_without_dot_products_of_four() -> None:
    target = "cpu:x86-64-v3"
    rows = told(target=target)
    wide, depthwise = rows["wide"], rows["y0"]
    assert wide["scheme"] == "static int8" and wide["gain"] > 1.1
    assert depthwise["scheme"] == "float" and depthwise["gain"] < 0.9
    slower = 1 / depthwise["gain"]
    assert depthwise["reason"] == f"8 bits would take {slower:.1f} times as long"
    rows = told(target=target, all_layers=True)
    assert {row["scheme"] for row in rows.values()} == {"static int8"}
    assert rows["y0"]["gain"] == depthwise["gain"]


def test_depthwise_convolutions_are_quantized_where_four_products_are_one_step() -> None:
    rows = told(target="cpu:cascadelake")
    assert {row["scheme"] for row in rows.values()} == {"static int8"}
    assert rows["wide"]["gain"] > 1.1 and rows["y0"]["gain"] > 0.9


def test_targets_that_do_not_know_quantize_all() -> None:
    """This CPU has no dot products of bytes."""
    rows = told(target="cpu:aarch64")
    assert {row["scheme"] for row in rows.values()} == {"static int8"}
    assert {row["gain"] for row in rows.values()} == {None}
    places = places_of(import_model(convolutions()).graph)
    assert gains(places, GenericHardware()) == {}


def test_rounding_is_shared_by_readers() -> None:
    hardware = parse_target("cpu:cascadelake").hardware
    found = []
    for readers in (1, 4):
        places = places_of(import_model(convolutions(readers)).graph)
        by_name = {n.origins.names[0]: g for n, g in gains(places, hardware).items()}
        assert len(by_name) == 1 + readers
        found.append(by_name["y0"])
    assert found[1] > 1.1 * found[0]


def test_small_losses_are_no_reason() -> None:
    assert slowdown(None) is None and slowdown(0.95) is None and slowdown(3.0) is None
    assert slowdown(0.5) == "8 bits would take 2.0 times as long"
