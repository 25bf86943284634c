"""Weights that are quantized so that no pair of products saturates."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import graphkiln
from graphkiln.ir.pairs import pairs_along, saturating
from graphkiln.passes.quantize.gptq import result_errors, with_scales
from graphkiln.passes.quantize.numbers import quantized, restored, weight_parameters
from graphkiln.passes.quantize.pairs import Pairing, RowPairs

TARGET = "cpu:x86-64-v3"

NETS = {
    "filters": ("float[2,12,9,9] x", "Conv<strides=[2,2]>(x, w)", (16, 12, 3, 3), 1),
    "odd": ("float[2,3,9,9] x", "Conv<strides=[2,2]>(x, w)", (16, 3, 3, 3), 1),
    "points": ("float[2,24,6,6] x", "Conv(x, w)", (16, 24, 1, 1), 1),
    "groups": ("float[2,16,9,9] x", "Conv<group=2>(x, w)", (16, 8, 3, 3), 1),
    "line": ("float[2,16,20] x", "Conv(x, w)", (16, 16, 3), 1),
    "rows": ("float[7,50] x", "MatMul(x, w)", (50, 24), 0),
    "transposed": ("float[7,50] x", "Gemm<transB=1>(x, w)", (24, 50), 1),
    "spread": ("float[2,12,5,5] x", "ConvTranspose<strides=[2,2]>(x, w)", (12, 16, 2, 2), 0),
}  # fmt: skip
"""Data, a product, the shape of its weights, and the axis of its pairs."""
UNPAIRED = {
    "depthwise": ("float[2,16,9,9] x", "Conv<group=16>(x, w)", (16, 1, 3, 3), 1),
    "winograd": ("float[2,64,16,16] x", "Conv(x, w)", (64, 64, 3, 3), 1),
}


def net(name: str) -> onnx.ModelProto:
    given, product, shape, _ = (NETS | UNPAIRED)[name]
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g ({given}) => (float y) {{ y = {product} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    weights = np.random.default_rng(8).standard_normal(shape).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model


def samples(model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(9)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(3)]


def codes(model: onnx.ModelProto) -> np.ndarray:
    """The int8 weights of an exported model."""
    (found,) = (
        t for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    )  # fmt: skip
    return onnx.numpy_helper.to_array(found)


@cache
def written(name: str, *options: tuple[str, Any]) -> tuple[onnx.ModelProto, Any, Any]:
    """The quantized net as an ONNX model, and what quantized it, and a sample."""
    model = net(name)
    data = samples(model)
    found = graphkiln.quantize(model, data, TARGET, jobs=1, all_layers=True, **dict(options))
    return found.to_onnx(), found, data[0]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_no_pair_saturates(name: str, rounding: str) -> None:
    axis = NETS[name][3]
    model, found, _ = written(name, ("rounding", rounding))
    sums = np.abs(pairs_along(codes(model), axis).sum(axis=-1, dtype=np.int16))
    assert 126 <= sums.max() <= 128
    split, _, _ = written(name, ("rounding", rounding), ("pairs", "split"))
    assert saturating(pairs_along(codes(split), axis), 128).any()


@pytest.mark.parametrize("name", NETS)
def test_no_product_is_computed_twice(name: str) -> None:
    model, safe, feeds = written(name)
    _, split, _ = written(name, ("pairs", "split"))
    session = safe.session()
    assert "_residual" not in session.ir_text
    # The last layer's Gemm has no quantizer behind it, so its weights are widened to floats.
    assert ("_residual" in split.session().ir_text) == (name != "transposed")
    (wanted,) = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(session.run(None, feeds)[0], wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", UNPAIRED)
def test_products_that_are_not_summed_in_pairs_keep_their_weights(name: str) -> None:
    """Depthwise convolutions sum positions, and Winograd's multiply 16 bits."""
    np.testing.assert_array_equal(
        codes(written(name)[0]), codes(written(name, ("pairs", "split"))[0])
    )


@pytest.mark.parametrize("name", ["filters", "points", "groups", "rows"])
@pytest.mark.parametrize("pairs", ["safe", "split"])
def test_the_same_integers_on_every_target(name: str, pairs: str) -> None:
    model, found, feeds = written(name, ("pairs", pairs))
    (there,) = found.session().run(None, feeds)
    (here,) = graphkiln.compile(model, jobs=1).session().run(None, feeds)
    np.testing.assert_array_equal(here, there)


def test_targets_that_do_not_saturate_keep_their_weights() -> None:
    model = net("points")
    data = samples(model)
    found = [
        codes(graphkiln.quantize(model, data, "cpu:cascadelake", jobs=1, pairs=p).to_onnx())
        for p in ("safe", "split")
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["filters", "rows", "transposed"])
def test_dynamic_ranges(name: str) -> None:
    model = net(name)
    safe = graphkiln.quantize(model, target=TARGET, scheme="int8-dynamic", jobs=1)
    split = graphkiln.quantize(model, target=TARGET, scheme="int8-dynamic", pairs="split", jobs=1)
    axis = 0 if name != "filters" else 1
    assert not saturating(pairs_along(codes(safe.to_onnx()), axis), 128).any()
    assert saturating(pairs_along(codes(split.to_onnx()), axis), 128).any()
    assert "_residual" not in safe.session().ir_text


FLOATS = st.floats(-4, 4, width=32, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([None, 0]), arrays(np.float32, (5, 6, 3), elements=FLOATS))
def test_errors_are_bounded(filters: int | None, weights: np.ndarray) -> None:
    """Half a step; at the limit, where rounding would go beyond, a whole one."""
    pairing = Pairing(1, 128)
    p = weight_parameters(weights, filters, pairing=pairing)
    found = quantized(weights, p, pairing=pairing)
    plain = weight_parameters(weights, filters)
    assert not saturating(pairs_along(found, 1), 128).any()
    scale = np.broadcast_to(p.scale.reshape(-1, 1, 1), weights.shape)
    assert np.all(p.scale >= plain.scale) and np.all(p.scale <= plain.scale * 1.985)
    error = np.abs(restored(found, p) - weights) / scale
    assert error.max() <= 1 + 1e-5
    at_limit = np.abs(pairs_along(found, 1).sum(axis=-1, dtype=np.int16)) == 128
    assert pairs_along(error, 1)[~at_limit].max(initial=0) <= 0.5 + 1e-5


def test_the_nearest_codes_at_the_limit() -> None:
    """100.4 and 28.3 become 100 and 28; 100.6 and 28.6 lose one of 101 + 29."""
    exact = np.array([[100.4, 28.3], [100.6, 28.6], [-100.6, -28.6], [127.0, -60.2], [3.0, 1.0]])
    found = Pairing(1, 128).rounded(exact, 127)
    np.testing.assert_array_equal(found, [[100, 28], [100, 28], [-100, -28], [127, -60], [3, 1]])


def test_rows_that_make_up_for_others_stay_within_the_limit() -> None:
    """Of codes that are chosen one after the other, the second of a pair has what is left."""
    rng = np.random.default_rng(2)
    w = rng.standard_normal((18, 9))
    x = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 18))
    pairs = RowPairs(3, 40)
    pairing = Pairing(0, 40)
    views = w.reshape(6, 27)
    scale = pairing.sums(views).reshape(3, 3, 9).max(axis=(0, 1)) / 40
    scale = np.maximum(scale, np.abs(w).max(axis=0) / 30)
    found = with_scales(w, x.T @ x, scale, 30, pairs)
    assert np.abs(found).max() <= 30
    assert not saturating(pairs_along(found.reshape(6, 27), 0), 40).any()
    nearest = pairs.rounded(w / scale, 30)
    errors = [result_errors(c * scale - w, x.T @ x) for c in (found, nearest)]
    assert np.all(errors[0] <= errors[1]) and errors[0].sum() < 0.5 * errors[1].sum()
