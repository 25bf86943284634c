"""``graphkiln quantize`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support.command import Run

from graphkiln.cli.quantize_command import shades


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).integers(0, 2, (6, 1, 28, 28)) * np.float32(255)
    np.savez(tmp_path / "calib.npz", Input3=x.astype(np.float32))
    return tmp_path / "calib.npz"


def test_an_artifact(graphkiln_command: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.kiln"
    done = graphkiln_command(
        "quantize", model, "--data", data, "-o", out, "--save-ranges", tmp_path / "r.json",
        "--report", tmp_path / "report.json",
    )  # fmt: skip
    assert (done.code, done.err) == (0, ""), done
    for part in ("Layers", "static int8", "Tensors", "3 of 3 quantized", str(out)):
        assert part in done.out
    assert graphkiln_command("run", out).code == 0
    assert len(json.loads((tmp_path / "report.json").read_text())["layers"]) == 3
    again = graphkiln_command(
        "quantize", model, "--ranges", tmp_path / "r.json", "-o", tmp_path / "again.kiln", "--quiet"
    )
    assert (again.code, again.out, again.err) == (0, "", "")


def test_a_model(graphkiln_command: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    done = graphkiln_command(
        "quantize", model, "--data", data, "-o", out, "--exclude", "MatMul", "--method", "mse"
    )
    assert done.code == 0, done
    assert "excluded by 'MatMul'" in done.out and "2 of 3 quantized" in done.out
    assert {n.op_type for n in onnx.load(out).graph.node} >= {"QuantizeLinear"}
    assert onnxruntime.InferenceSession(out).get_inputs()[0].name == "Input3"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ((), 1, "give sample data"),
        (("--data", "none.npz"), 2, "none.npz: there is no such file"),
        (("--ranges", "none.json"), 2, "none.json: cannot be read"),
        (("--save-ranges", "no/where.json"), 1, "no such folder"),
        (("--method", "best"), 2, "'best' is not one of"),
        (("-o", "no/where.onnx"), 1, "there is no folder no"),
    ],
)
def test_faults_are_one_line(
    graphkiln_command: Run, model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int,
    reason: str,
) -> None:  # fmt: skip
    given = ("-o", tmp_path / "m.kiln") if "-o" not in arguments else ()
    done = graphkiln_command("quantize", model, *given, *arguments, cwd=tmp_path)
    assert done.code == code and reason in done.err, done
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_integers(
    graphkiln_command: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "q.onnx"
    given = ("quantize", model, "--data", data, "--format", "qoperator", "-o")
    done = graphkiln_command(*given, out, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", ""), done
    assert "QLinearConv" in {n.op_type for n in onnx.load(out).graph.node}
    refused = graphkiln_command(*given, tmp_path / "q.kiln")
    assert refused.code == 1 and "--format qoperator is for ONNX models" in refused.err, refused


def test_without_samples(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.kiln"
    done = graphkiln_command("quantize", model, "--data-free", "-o", out)
    assert done.code == 0 and out.exists(), done
    assert "note: the ranges are data-free: no real input was seen" in done.out


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_of_16_bits(graphkiln_command: Run, model: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "w.onnx"
    done = graphkiln_command("quantize", model, "--scheme", f"{kind}-weights", "-o", out)
    assert done.code == 0 and f"{kind} weights" in done.out, done
    assert out.stat().st_size < 0.55 * model.stat().st_size


def test_weights_only(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.onnx"
    done = graphkiln_command("quantize", model, "--scheme", "int4-weights", "-o", out)
    assert done.code == 0 and "1 of 3 quantized" in done.out, done
    assert "it is no product of matrices" in done.out and "Tensors" not in done.out
    assert "MatMulNBits" in {n.op_type for n in onnx.load(out).graph.node}


def test_accuracy_recovery(graphkiln_command: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "q.onnx", tmp_path / "report.json"
    done = graphkiln_command(
        "quantize", model, "--data", data, "-o", out, "--equalize", "--smooth",
        "--rounding", "gptq", "--bias-correction", "--report", report,
    )  # fmt: skip
    assert (done.code, done.err) == (0, ""), done
    assert "Smoothed" in done.out and "'Input3' is an input of the model" in done.out
    told = json.loads(report.read_text())
    assert [row["scheme"] for row in told["layers"]] == ["static int8"] * 3
    assert len(told["equalized"]) == 2 and len(told["smoothed"]) == 3


def test_bars_of_histograms() -> None:
    assert shades([0, 1, 100, 50]) == " ▁█▄"
    assert shades([]) == "" and shades([0, 0]) == "  "
