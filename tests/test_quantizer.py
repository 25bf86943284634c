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


def residual() -> onnx.ModelProto:
    """Three convolutions, two of whose results are added, pooled and multiplied by a matrix."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21]>
        g (float[N, 3, 10, 10] x) => (float[N, 5] y) {
            z = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w0)
            i = Relu(z)
            a = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(i, w1, b1)
            r = Relu(a)
            c = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(r, w2, b2)
            s = Add(c, r)
            t = Relu(s)
            p = GlobalAveragePool(t)
            f = Flatten(p)
            y = MatMul(f, m)
        }
    """)
    rng = np.random.default_rng(5)
    shapes = {
        "w0": (3, 3, 3, 3), "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,),
        "m": (8, 5),
    }  # fmt: skip
    for name, shape in shapes.items():
        array = (rng.standard_normal(shape) / 5).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def test_integers_are_written_as_ops(tmp_path: Path) -> None:
    """A step of a result's scale is all that the two forms may differ by."""
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((2, 3, 10, 10)).astype(np.float32)} for _ in range(4)]
    found = graphkiln.quantize(residual(), data, jobs=1)
    path = found.save(tmp_path / "q.onnx", form="qoperator")
    ops = [n.op_type for n in onnx.load(path).graph.node]
    assert {"QLinearConv", "ConvInteger", "MatMulInteger"} <= set(ops) and "Conv" not in ops
    pairs = answers(onnxruntime.InferenceSession(found.save(tmp_path / "p.onnx")), data)
    theirs = answers(onnxruntime.InferenceSession(path), data)
    np.testing.assert_allclose(theirs, pairs, rtol=0, atol=last_step(found))
    again = answers(graphkiln.compile(path, jobs=1).session(threads=1), data)
    np.testing.assert_array_equal(again, answers(found.session(threads=1), data))


def last_step(found: Quantized) -> float:
    """What a step of what the last product reads is at most to its result."""
    scales = {row["tensor"]: (row["high"] - row["low"]) / 255 for row in found.tensors}
    weights = np.abs(onnx.numpy_helper.to_array(residual().graph.initializer[-1]))
    return float(scales[found.tensors[-1]["tensor"]] * weights.sum(0).max())


def test_other_forms_are_refused(quantized: Quantized, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="form is one of qdq, qoperator, not 'qop'"):
        quantized.to_onnx(form="qop")  # type: ignore[arg-type]


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
        ({"rounding": "mse"}, OptionError, "rounding is one of nearest, gptq, not 'mse'"),
        ({"share": 0.9}, OptionError, "share does nothing with the method minmax"),
        ({"scheme": "int4-weights", "method": "mse"}, OptionError, "method does nothing with the"),
        ({"scheme": "int8-weights", "smooth": True}, OptionError, "smooth does nothing with the"),
        ({"scheme": "int8-weights", "equalize": True}, OptionError, "equalize does nothing with"),
        (
            {"data": (), "smooth": True, "scheme": "int8-dynamic"},
            GraphkilnError,
            "give sample data",
        ),
        ({"data": (), "smooth": True}, GraphkilnError, "smoothing goes by what layers read"),
        ({"scheme": "float16-weights", "block": 64}, OptionError, "block does nothing with the"),
        ({"scheme": "bfloat16-weights", "method": "mse"}, OptionError, "method does nothing with"),
        ({"scheme": "int4-weights", "method": "minmax"}, OptionError, "method does nothing with"),
        ({"scheme": "int3"}, OptionError, "scheme is one of int8, int16, .*, not"),
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


def test_ranges_may_be_found_in_the_run(tmp_path: Path) -> None:
    found = graphkiln.quantize(DIGITS, scheme="int8-dynamic", jobs=1)
    assert [row["scheme"] for row in found.layers] == ["dynamic int8"] * 3
    path = found.save(tmp_path / "d.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    data = images(20, seed=2)
    wanted = answers(onnxruntime.InferenceSession(DIGITS), data)
    theirs = answers(onnxruntime.InferenceSession(path), data)
    ours = answers(found.session(threads=1), data)
    assert cosine(ours, wanted) > 0.999 and cosine(theirs, ours) > 0.9999
    again = answers(graphkiln.compile(path, jobs=1).session(threads=1), data)
    np.testing.assert_array_equal(again, ours)


@pytest.mark.parametrize(("kind", "close"), [("float16", 0.9999999), ("bfloat16", 0.99999)])
def test_weights_of_16_bits(kind: str, close: float, tmp_path: Path) -> None:
    """Half as large, in memory and as a model, which compiles to the same bits again."""
    found = graphkiln.quantize(DIGITS, scheme=f"{kind}-weights", jobs=1)
    assert {row["scheme"] for row in found.layers} == {f"{kind} weights"}
    artifact, floats = found.compile(), graphkiln.compile(DIGITS, jobs=1)
    assert artifact.report["weight_bytes"] < 0.52 * floats.report["weight_bytes"]
    data = images(8, seed=4)
    ours = answers(artifact.session(threads=1), data)
    assert close < cosine(ours, answers(floats.session(threads=1), data)) < 1
    path = found.save(tmp_path / "w.onnx")
    assert path.stat().st_size < 0.55 * DIGITS.stat().st_size
    theirs = answers(onnxruntime.InferenceSession(path), data)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)
    again = graphkiln.compile(path, jobs=1)
    assert again.report["weight_bytes"] == artifact.report["weight_bytes"]
    np.testing.assert_array_equal(answers(again.session(threads=1), data), ours)


UNEVEN = np.geomspace(1, 200, 16).astype(np.float32)


def uneven_net() -> onnx.ModelProto:
    """A convolution, and one that reads its channels, some of which are much larger."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N, 3, 12, 12] x) => '
        "(float[N, 4, 8, 8] y) { c = Conv(x, v, b) r = Relu(c) y = Conv(r, w) }"
    )
    v = rng.standard_normal((16, 3, 3, 3)) * UNEVEN.reshape(-1, 1, 1, 1)
    w = rng.standard_normal((4, 16, 3, 3)) / UNEVEN.reshape(1, -1, 1, 1)
    for name, array in {"v": v, "b": rng.standard_normal(16) * UNEVEN, "w": w}.items():
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("way", [{"equalize": True}, {"smooth": True}])
def test_accuracy_comes_back(way: dict[str, Any]) -> None:
    """End to end: at least 6 dB, by scaling channels against each other."""
    rng = np.random.default_rng(1)
    data = [{"x": rng.standard_normal((2, 3, 12, 12)).astype(np.float32)} for _ in range(4)]
    (wanted,) = graphkiln.compile(uneven_net(), jobs=1).session(threads=1).run(None, data[0])
    errors = []
    for options in ({}, way):
        found = graphkiln.quantize(uneven_net(), data, jobs=1, **options)
        (y,) = found.session(threads=1).run(None, data[0])
        errors.append(np.sum((y - wanted) ** 2))
    assert errors[1] < errors[0] / 4
    (table,) = (found.report[name] for name in ("equalized", "smoothed") if name in found.report)
    assert len(table) == 1 if "equalize" in way else [r["strength"] is None for r in table] == [
        True, False,
    ]  # fmt: skip


def test_weights_are_rounded_by_what_layers_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights, mix = rng.standard_normal((96, 40)), rng.standard_normal((6, 96))
    model = product(weights.astype(np.float32))
    data = [{"x": (rng.standard_normal((50, 6)) @ mix).astype(np.float32)} for _ in range(3)]
    x = data[0]["x"]
    errors = []
    for rounding in ("nearest", "gptq"):
        session = graphkiln.quantize(model, data, rounding=rounding, jobs=1).session(threads=1)
        errors.append(np.sum((session.run(None, {"x": x})[0] - x @ weights) ** 2))
    assert errors[1] < 0.9 * errors[0]


def test_codes_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that leave other layers in floats share them."""
    from graphkiln.passes.quantize import rounding

    calls: list[int] = []
    codes = rounding._codes
    monkeypatch.setattr(rounding, "_codes", lambda *given: (calls.append(1), codes(*given))[1])
    found = graphkiln.quantize(
        DIGITS, images(3), rounding="gptq", max_drop=1.0, exclude_worst=1, jobs=1
    )
    assert len(calls) == 3 and found.score is not None


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


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weights", "int4-weights"])
def test_others_look_up_rows_of_few_bits(scheme: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30, 64)).astype(np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (int64[A, B] i) => (float[A, B, 64] y)'
        " { y = Gather(t, i) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "t"))
    found = graphkiln.quantize(model, scheme=scheme, jobs=1)
    path = found.save(tmp_path / "t.onnx")
    feeds = {"i": rng.integers(-30, 30, (3, 4))}
    (ours,) = found.session(threads=1).run(None, feeds)
    (theirs,) = onnxruntime.InferenceSession(path).run(None, feeds)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert 0.99 < cosine(ours, table[feeds["i"]]) < 1
    again = graphkiln.compile(path, jobs=1)
    assert again.report["weight_bytes"] == found.compile().report["weight_bytes"] < 0.3 * 4 * 1920


def test_activations_of_16_bits_lose_what_the_weights_lose() -> None:
    """The formula with the codes of the weights and floats for activations, but for 1 in 65,536."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 32)).astype(np.float32)
    made = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N, 64] x) => (float[N, 32] y)'
        " { y = MatMul(x, w) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    feeds = {"x": rng.standard_normal((40, 64)).astype(np.float32)}
    found = graphkiln.quantize(made, [feeds], scheme="int16", jobs=1, all_layers=True)
    (layer,), (tensor,) = found.layers, found.tensors
    assert layer["scheme"] == "static int16" and tensor["bits"] == 16
    assert tensor["decibels"] > 85
    scale = np.abs(w).max(axis=0) / 127
    codes = np.round(w / scale) * scale
    (actual,) = found.session().run(None, feeds)
    assert np.abs(actual - feeds["x"] @ codes).max() < 2e-3
    result = found.to_onnx()
    types = {i.data_type for i in result.graph.initializer}
    assert onnx.TensorProto.UINT16 in types and result.opset_import[0].version >= 21
    # By default onnxruntime rounds what such a product reads to 8 bits.
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    run = onnxruntime.InferenceSession(result.SerializeToString(), options).run
    assert np.abs(run(None, feeds)[0] - actual).max() < 1e-4
