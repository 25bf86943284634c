"""``graphkiln.distill`` and ``graphkiln distill``, from files to compiled students."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator
from training.nets import SIZES, bars, digits_model, weights, write_files

import graphkiln
from graphkiln.cli import group
from graphkiln.errors import UsageError
from graphkiln.training import CheckpointError, TrainingError


def test_from_files_to_a_compiled_student(tmp_path: Path) -> None:
    student, teacher, data = write_files(tmp_path)
    found = graphkiln.distill(
        str(student), str(teacher), str(data), labels="label", start="teacher", epochs=4, lr=0.01,
        batch=16, jobs=1,
    )  # fmt: skip
    assert [row["teacher"] for row in found.transferred] == list(weights(**SIZES))
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    x = bars()["x"]
    model = ReferenceEvaluator(found.to_onnx())
    (want,) = model.run(None, {"x": x})
    (got,) = found.session(threads=1).run(None, {"x": x})
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    assert found.compile().report["distillation"] == found.report


def test_a_teacher_of_one_image_at_a_time(tmp_path: Path) -> None:
    model = digits_model(weights(**SIZES), batch=1)
    found = graphkiln.distill(
        digits_model(weights(3, 4, 6)), model, [{"x": x[None]} for x in bars(8)["x"]],
        epochs=1, batch=4, validation=0.0,
    )  # fmt: skip
    assert len(found.history) == 1 and not found.transferred


def test_quantized_students_are_fine_tuned(tmp_path: Path) -> None:
    """Codes of weights change, stay codes, and the loss falls."""
    held = weights(**SIZES)
    teacher = digits_model(held)
    samples = [{"x": x[None]} for x in bars(64)["x"]]
    quantized = graphkiln.quantize(teacher, samples, all_layers=True, jobs=1).to_onnx()
    found = graphkiln.distill(
        quantized, teacher, samples, epochs=4, batch=16, lr=3e-3, validation=0.0, jobs=1
    )
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    before = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.graph.initializer}
    after = {t.name: onnx.numpy_helper.to_array(t) for t in found.to_onnx().graph.initializer}
    codes = [n for n, a in before.items() if a.dtype == np.int8 and a.ndim > 1]
    assert len(codes) == 4
    for name in codes:
        assert after[name].dtype == np.int8 and not np.array_equal(after[name], before[name])
    x = bars()["x"]
    assert found.session(threads=1).run(None, {"x": x})[0].shape == (96, 3)


def test_what_makes_no_sense(tmp_path: Path) -> None:
    student, teacher, data = map(str, write_files(tmp_path))
    with pytest.raises(UsageError, match="resume needs a checkpoint"):
        graphkiln.distill(student, teacher, data, resume=True)
    with pytest.raises(UsageError, match="epochs must be 1 or more"):
        graphkiln.distill(student, teacher, data, epochs=0)
    with pytest.raises(TrainingError, match="no value 'zz'"):
        from graphkiln.training.recipe import Match

        graphkiln.distill(student, teacher, data, match=(Match("zz", "a"),))
    with pytest.raises(UsageError, match="no array 'wrong'"):
        graphkiln.distill(student, teacher, data, labels="wrong")


def test_without_pytorch_one_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\nimport graphkiln\n"
        "try:\n    graphkiln.torch\nexcept graphkiln.GraphkilnError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "training needs PyTorch: pip install 'graphkiln[distill]'"


def test_the_command(tmp_path: Path) -> None:
    student, teacher, data = map(str, write_files(tmp_path))
    output, report, kept = (str(tmp_path / n) for n in ("out.onnx", "r.json", "kept"))
    arguments = [
        "distill", student, "--teacher", teacher, "--data", data, "--labels", "label", "--start",
        "teacher", "--epochs", "2", "--batch", "16", "--augment", "shift=1", "--match", "f=f",
        "--attention", "e", "--checkpoint", kept, "--report", report, "-o", output,
    ]  # fmt: skip
    done = CliRunner().invoke(group, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "epoch 2: loss" in done.output and "c1.weight" in done.output
    assert "best epoch" in done.output
    onnx.checker.check_model(output)
    told = json.loads(Path(report).read_text())
    assert [row["epoch"] for row in told["epochs"]] == [0, 1]
    before = Path(output).read_bytes()
    again = CliRunner().invoke(group, [*arguments, "--resume"], catch_exceptions=False)
    assert again.exit_code == 0 and Path(output).read_bytes() == before
    with pytest.raises(CheckpointError, match="another training"):
        other = [*arguments, "--resume", "--seed", "1"]
        CliRunner().invoke(group, other, catch_exceptions=False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "{student}"], "it is the model"),
        (["--report", "/nowhere/r.json"], "no such folder"),
    ],
)
def test_usage_errors_of_the_command(tmp_path: Path, more: list[str], message: str) -> None:
    student, teacher, data = map(str, write_files(tmp_path))
    more = [part.format(student=student) for part in more]
    base = ["distill", student, "--teacher", teacher, "--data", data, "--epochs", "1"]
    done = CliRunner().invoke(group, [*base, *more])
    assert done.exit_code != 0 and message in done.output
