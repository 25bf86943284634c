"""Float models quantized end to end: compiled, and written as ONNX for others to run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from support.command import MODELS

import graphkiln
from graphkiln.cli.quantize_command import command
from graphkiln.driver import OptionError
from graphkiln.errors import GraphkilnError
from graphkiln.passes import catalog
from graphkiln.passes.base import Pass, pass_class
from graphkiln.passes.ranges import Range, read_ranges
from graphkiln.quantizer import Quantized
from graphkiln.quantizer.schemes import SCHEMES

DIGITS = MODELS / "mnist_cntk.onnx"


def images(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Bright strokes on black, as the digits model was trained on."""
    rng = np.random.default_rng(seed)
    found = np.zeros((count, 1, 1, 28, 28), np.float32)
    for image in found:
        for _ in range(3):
            y, x = rng.integers(4, 20, 2)
            image[0, 0, y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = 255
    return [{"Input3": image} for image in found]


@pytest.fixture(scope="module")
def quantized() -> Quantized:
    return graphkiln.quantize(DIGITS, images(8), jobs=1)


def answers(session: Any, data: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([session.run(None, feeds)[0] for feeds in data])


def product(weights: np.ndarray) -> onnx.ModelProto:
    """``y = x @ weights`` for any number of rows."""
    inner, columns = weights.shape
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[N, {inner}] x) => '
        f"(float[N, {columns}] y) {{ y = MatMul(x, w) }}"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_it_computes_what_the_float_model_does(quantized: Quantized) -> None:
    data = images(20, seed=1)
    wanted = answers(onnxruntime.InferenceSession(DIGITS), data)
    found = answers(quantized.session(threads=1), data)
    assert cosine(found, wanted) > 0.999
    assert np.mean(found.argmax(1) == wanted.argmax(1)) >= 0.95


def test_the_artifact_holds_integers(quantized: Quantized) -> None:
    artifact = quantized.compile()
    floats = graphkiln.compile(DIGITS, jobs=1)
    small, large = artifact.report["weight_bytes"], floats.report["weight_bytes"]
    assert small < 0.45 * large
    assert [row["scheme"] for row in artifact.report["quantization"]["layers"]] == [
        "static int8"
    ] * 3
    kinds = {array.dtype.name for _, array in artifact.contents.weights if array.size > 500}
    assert kinds == {"int8"}


def test_others_run_what_is_written(quantized: Quantized, tmp_path: Path) -> None:
    path = quantized.save(tmp_path / "q.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    data = images(20, seed=2)
    theirs = answers(onnxruntime.InferenceSession(path), data)
    ours = answers(quantized.session(threads=1), data)
    # A tie that rounds to another step moves what comes out by less than a hundredth.
    assert cosine(theirs, ours) > 0.9999
    again = answers(graphkiln.compile(path, jobs=1).session(threads=1), data)
    np.testing.assert_array_equal(again, ours)


def test_ranges_are_kept_and_used(quantized: Quantized, tmp_path: Path) -> None:
    quantized.save_ranges(tmp_path / "r.json")
    ranges = read_ranges(tmp_path / "r.json")
    assert ranges == quantized.ranges and len(ranges) == len(quantized.tensors)
    again = graphkiln.quantize(DIGITS, ranges=ranges, jobs=1)
    assert again.to_onnx().SerializeToString() == quantized.to_onnx().SerializeToString()
    (name, *_) = ranges
    edited = {**ranges, name: Range(-1000.0, 1000.0)}
    other = graphkiln.quantize(DIGITS, ranges=edited, jobs=1)
    assert other.to_onnx().SerializeToString() != quantized.to_onnx().SerializeToString()
    assert edited[name] == Range(-1000.0, 1000.0)


def test_the_report_is_written(quantized: Quantized, tmp_path: Path) -> None:
    quantized.save_report(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["layers"] == quantized.layers and report["tensors"] == quantized.tensors


def test_samples_may_have_other_sizes() -> None:
    """The dims of the model stay open."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4, 8)).astype(np.float32)
    model = product(weights)
    data = [{"x": rng.standard_normal((n, 4)).astype(np.float32)} for n in (1, 90, 3)]
    session = graphkiln.quantize(model, data, jobs=1).session(threads=1)
    for n in (1, 7):
        x = rng.standard_normal((n, 4)).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        assert found.shape == (n, 8) and cosine(found, x @ weights) > 0.999


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"data": ()}, GraphkilnError, "the range of .* is not known: give sample data"),
        ({"data": iter([])}, OptionError, "data must be a list of samples"),
        ({"data": 3}, OptionError, "not a int"),
        ({"data": [{"x": np.zeros(3)}]}, GraphkilnError, "sample 0 of the data does not fit"),
        ({"data": "none.npz"}, GraphkilnError, "none.npz: there is no such file"),
        ({"method": "best"}, OptionError, "method is one of minmax, .*, not 'best'"),
        ({"method": "percentile", "share": 0.0}, OptionError, "share must be above 0"),
        ({"method": "percentile", "share": True}, OptionError, "share is a number, not 'true'"),
        ({"block": 64}, OptionError, "block does nothing with the scheme int8"),
        ({"rounding": "gptq"}, OptionError, "rounding does nothing with the scheme int8"),
        ({"share": 0.9}, OptionError, "share does nothing with the method minmax"),
        ({"scheme": "int4-weights", "method": "mse"}, OptionError, "method does nothing with the"),
        ({"scheme": "int4-weights", "method": "minmax"}, OptionError, "method does nothing with"),
        ({"scheme": "int3"}, OptionError, "scheme is one of int8, int8-weights, int4-weights, not"),
        ({"scheme": "int4-weights", "block": 20}, OptionError, "block must be a power of two"),
        ({"scheme": "int4-weights", "rounding": "up"}, OptionError, "rounding is one of nearest"),
    ],
)
def test_what_makes_no_sense_is_told(
    options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        graphkiln.quantize(DIGITS, **{"data": images(1), **options}, jobs=1)


@pytest.mark.parametrize(("scheme", "close"), [("int4-weights", 0.98), ("int8-weights", 0.9999)])
def test_weights_only(scheme: str, close: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((96, 40)).astype(np.float32)
    model = product(weights)
    found = graphkiln.quantize(model, scheme=scheme, jobs=1)
    assert [row["scheme"] for row in found.layers] == [f"int{scheme[3]} weights"]
    path = found.save(tmp_path / "w.onnx")
    theirs, ours = onnxruntime.InferenceSession(path), found.session(threads=1)
    for n in (1, 9):
        x = rng.standard_normal((n, 96)).astype(np.float32)
        (a,), (b,) = ours.run(None, {"x": x}), theirs.run(None, {"x": x})
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert cosine(a, x @ weights) > close
    assert graphkiln.quantize(model, scheme=scheme, max_drop=0.5, jobs=1, data=[{"x": x}]).score


def test_a_pipeline_may_quantize() -> None:
    text = "default@before(integers)=quantize{method=mse}"
    artifact = graphkiln.compile(DIGITS, passes=text, data=images(2), jobs=1)
    (record,) = (r for r in artifact.pass_records if r.name == "quantize")
    assert record.details == {
        "weights": 3,
        "biases": 2,
        "activations": len(record.tables["tensors"]),
    }


@pytest.mark.parametrize("name", SCHEMES)
def test_options_of_a_scheme_are_those_of_its_pass_and_of_the_command(name: str) -> None:
    scheme = SCHEMES[name]
    catalog.load()
    found = pass_class(scheme.by)
    assert found is not None and issubclass(found, Pass)
    assert {*scheme.options, *scheme.fixed} <= {f.name for f in fields(found)}
    assert set(scheme.options) <= {p.name for p in command.params}


def test_a_pipeline_refuses_what_its_passes_would_ignore() -> None:
    text = "default@before(integers)=quantize{share=0.9}"
    with pytest.raises(OptionError, match="quantize: share does nothing with the method minmax"):
        graphkiln.compile(DIGITS, passes=text, data=images(1), jobs=1)


@pytest.mark.parametrize(
    "passes", [None, "default@before(integers)=quantize_weights{rounding=mse}"]
)
def test_data_that_no_pass_uses_are_refused(passes: str | None) -> None:
    with pytest.raises(OptionError, match="no pass of the pipeline uses the data"):
        graphkiln.compile(DIGITS, passes=passes, data=images(1), jobs=1)
