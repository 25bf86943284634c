"""CUDA kernels give the right numbers: their source runs on the host (`support.emulated_gpu`)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.emulated_gpu import emulated_gpu
from support.onnx_cases import all_cases, assert_same, case_arrays

import graphkiln

MODELS = Path(__file__).parent.parent / "models"
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
CASES = """
test_argmax_keepdims_example test_cast_FLOAT_to_FLOAT16 test_conv_with_strides_padding
test_cumsum_2d_axis_0 test_gru_batchwise test_if test_isinf_float16 test_logsoftmax_axis_1
test_loop11 test_maxpool_2d_pads test_nonzero_example test_quantizelinear
test_reduce_mean_keepdims_random test_resize_upsample_sizes_nearest test_scan_sum test_scatternd
test_slice_neg_steps test_strnormalizer_export_monday_casesensintive_lower test_top_k
""".split()
"""Kernels of many kinds; the host's part in loops, branches, sizes and strings."""

pytestmark = [
    pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is a GPU here"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler"),
]


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with emulated_gpu():
        yield


def run(model: Any, feeds: dict[str, Any]) -> list[Any]:
    artifact = graphkiln.compile(model, target="cuda:sm_90", jobs=1)
    return artifact.session().run(None, feeds)


@pytest.mark.parametrize("name", ["mnist_cntk", "sdp_attention_block"])
def test_whole_models(name: str) -> None:
    rng = np.random.default_rng(5)
    session = graphkiln.compile(MODELS / f"{name}.onnx").session()
    feeds = {}
    for i in session.get_inputs():
        shape = [d if isinstance(d, int) else 2 for d in i.shape]
        feeds[i.name] = rng.standard_normal(shape).astype("f")
    got, want = run(MODELS / f"{name}.onnx", feeds), session.run(None, feeds)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def try_case(case: Any) -> None:
    names = [i.name for i in case.model.graph.input]
    for inputs, wanted in case.data_sets:
        got = run(case.model, dict(zip(names, case_arrays(inputs), strict=True)))
        for a, b in zip(got, case_arrays(wanted), strict=True):
            assert_same(a, b, case.rtol, case.atol)


def test_conformance_cases() -> None:
    found = {case.name: case for case in all_cases()}
    for name in CASES:
        try_case(found[name])


def boxes() -> Any:
    numbers = (
        helper.make_tensor("most", INT, [1], [5]),
        helper.make_tensor("iou", FLOAT, [1], [0.3]),
    )
    node = helper.make_node("NonMaxSuppression", ["b", "s", "most", "iou"], ["y"])
    inputs = [helper.make_tensor_value_info(n, FLOAT, d) for n, d in
              (("b", [1, 40, 4]), ("s", [1, 3, 40]))]  # fmt: skip
    output = helper.make_tensor_value_info("y", INT, ["n", 3])
    return helper.make_model(helper.make_graph([node], "boxes", inputs, [output], numbers))


def few_bits() -> Any:
    rng = np.random.default_rng(1)
    attrs = {"K": 64, "N": 12, "bits": 4, "block_size": 32}
    node = helper.make_node("MatMulNBits", ["x", "w", "t"], ["y"], domain="com.microsoft", **attrs)
    constants = [
        numpy_helper.from_array(rng.integers(0, 256, (12, 2, 16)).astype(np.uint8), "w"),
        numpy_helper.from_array(rng.uniform(0.01, 0.1, 24).astype(np.float32), "t"),
    ]
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["M", 64])]
    output = helper.make_tensor_value_info("y", FLOAT, ["M", 12])
    graph = helper.make_graph([node], "bits", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [(boxes(), {"b": (1, 40, 4), "s": (1, 3, 40)}), (few_bits(), {"x": (5, 64)})],
)
def test_kernels_that_cpus_vectorise_are_scalar_here(model: Any, shapes: Any) -> None:
    rng = np.random.default_rng(2)
    feeds = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    (want,) = graphkiln.compile(model).session().run(None, feeds)
    (got,) = run(model, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert len(want)


@pytest.mark.parametrize("n", [26, 34, 211])
def test_fourier_transforms_by_tables(n: int) -> None:
    """Tables of roots, and for the large primes 17 and 211 of chirps, are kernels of their own."""
    x = np.random.default_rng(n).standard_normal((3, n, 2)).astype(np.float32)
    node = helper.make_node("DFT", ["x", "", "axis"], ["y"])
    graph = helper.make_graph(
        [node], "transform", [helper.make_tensor_value_info("x", FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", FLOAT, x.shape)],
        [numpy_helper.from_array(np.array(1), "axis")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (got,) = run(model, {"x": x})
    want = np.fft.fft(x[..., 0] + 1j * x[..., 1], axis=1)
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], want, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_tenth_of_the_conformance_cases(part: int) -> None:
    """Those whose numbers are not random, a hundredth at a time."""
    cases = [c for c in all_cases() if not re.search("bernoulli|training_dropout|random", c.name)]
    failed = []
    for case in cases[part::100]:
        try:
            try_case(case)
        except Exception as e:
            failed.append(f"{case.name}: {type(e).__name__}: {e}"[:300])
    assert not failed, "\n".join(failed)


def test_the_report_says_where_kernels_run() -> None:
    (loop,) = (case for case in all_cases() if case.name == "test_loop11")
    report = graphkiln.compile(loop.model, target="cuda:sm_90", jobs=1).report
    where = {(*c["ops"], c.get("device")) for c in report["kernel_costs"].values()}
    assert ("Identity", None) in where and ("Add", "cuda") in where
    assert {device for *_, device in where} == {None, "cuda"}


def test_weights_and_open_sizes_cross_over() -> None:
    """Twice with other sizes: weights were moved once, arenas and copies are made anew."""
    weights = np.random.default_rng(7).standard_normal((64, 8)).astype("f")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("NonZero", ["m"], ["i"]),
        helper.make_node("Softmax", ["m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", FLOAT, None),
         helper.make_tensor_value_info("i", INT, None)],
        [helper.make_tensor("w", FLOAT, weights.shape, weights.reshape(-1))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artifact = graphkiln.compile(model, target="cuda:sm_90", jobs=1)
    assert [w.get("space") for w in artifact.session().manifest["weights"]] == ["cuda"]
    session = artifact.session()
    for rows in (3, 300):
        x = np.random.default_rng(rows).standard_normal((rows, 64)).astype("f")
        y, i = session.run(None, {"x": x})
        product = x @ weights
        e = np.exp(product - product.max(1, keepdims=True))
        np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(i, np.array(np.nonzero(product)))
