"""Every subcommand, through the installed command."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from support.command import COMMAND, Run

from graphkiln.cli import COMMANDS


def test_help_lists_the_commands(graphkiln_command: Run) -> None:
    done = graphkiln_command("--help")
    assert done.code == 0
    for name, what in COMMANDS.items():
        assert name in done.out and what in done.out
    assert graphkiln_command("--version").out.startswith("graphkiln, version ")


def test_compile_prints_a_summary(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.kiln"
    done = graphkiln_command("compile", model, "-o", out, "--dump-ir", tmp_path / "dumps")
    assert done.code == 0, done
    assert done.err == ""
    for part in ("fold_affine", "share", "12 before", "kernels", "peak activation memory",
                 "operations per run", str(out)):  # fmt: skip
        assert part in done.out
    dumps = sorted(p.name for p in (tmp_path / "dumps").iterdir())
    assert dumps[0] == "00_import.txt" and dumps[-3].endswith("_dce.txt")
    assert (tmp_path / "dumps" / dumps[-3]).read_text().startswith("graph main(")
    assert dumps[-2].endswith("_program.txt") and dumps[-1] == "kernels"


def test_compile_explains_what_it_did_not_do(
    graphkiln_command: Run, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.kiln"
    assert "Not done" not in graphkiln_command("compile", model, "-o", out).out
    told = graphkiln_command("compile", model, "-o", out, "--explain", "*").out
    assert "Not done" in told


def test_compile_quietly_into_a_folder(graphkiln_command: Run, model: Path, tmp_path: Path) -> None:
    done = graphkiln_command("compile", model, "-o", tmp_path / "m", "--folder", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "manifest.json", "library.so", "weights.bin", "ir.txt", "report.json",
    }  # fmt: skip
    assert graphkiln_command("run", tmp_path / "m").code == 0


def test_the_default_output_stands_beside_the_model(
    graphkiln_command: Run, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "net.onnx"
    copy.write_bytes(model.read_bytes())
    assert graphkiln_command("compile", copy, "--quiet").code == 0
    assert (tmp_path / "net.kiln").is_file()


def test_progress_shows_on_a_terminal(
    command_environment: dict[str, str], model: Path, tmp_path: Path
) -> None:
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "compile", model, "-o", tmp_path / "m.kiln"], stderr=theirs,
        stdout=subprocess.DEVNULL, env={**command_environment, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(mine, 4096):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0
    assert b"import" in shown and b"kernels" in shown


def test_run_takes_and_gives_files(
    graphkiln_command: Run, digits: Path, model: Path, tmp_path: Path
) -> None:
    image = np.random.default_rng(3).random((1, 1, 28, 28), np.float32) * 255
    np.save(tmp_path / "image.npy", image)
    out = tmp_path / "out.npz"
    done = graphkiln_command("run", digits, "-i", f"Input3={tmp_path / 'image.npy'}", "-o", out)
    assert done.code == 0 and done.out.startswith("Plus214_Output_0: float32 [1, 10]")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"Input3": image})
    np.testing.assert_allclose(np.load(out)["Plus214_Output_0"], wanted, rtol=1e-3, atol=0.1)


def test_run_on_random_inputs_repeats_with_its_seed(graphkiln_command: Run, digits: Path) -> None:
    first, again, other = (graphkiln_command("run", digits, "--seed", s).out for s in "112")
    assert first == again != other


def test_inspect_a_model(graphkiln_command: Run, model: Path) -> None:
    done = graphkiln_command("inspect", model)
    assert done.code == 0
    for part in ("ai.onnx 8", "CNTK", "Input3", "float32[1,1,28,28]", "MaxPool", "1.60 M"):
        assert part in done.out
    ir = graphkiln_command("inspect", model, "--ir").out
    assert ir.startswith("graph main(%Input3: float32[1,1,28,28])") and "Conv(" in ir


def test_inspect_an_artifact(graphkiln_command: Run, digits: Path) -> None:
    done = graphkiln_command("inspect", digits, "--verify")
    assert done.code == 0
    for part in ("mnist_cntk.onnx", "hashes", "all are right", "weights.bin", "fuse", "cpu:"):
        assert part in done.out
    assert "kiln.ConvBlocked" in graphkiln_command("inspect", digits, "--ir").out


def test_check_compares_with_the_reference(graphkiln_command: Run, model: Path) -> None:
    done = graphkiln_command("check", model)
    assert done.code == 0 and "right" in done.out
    strict = graphkiln_command("check", model, "--rtol", "0", "--atol", "0", "--bisect")
    assert strict.code == 1 and "values differ" in strict.out
    assert "change" in strict.out.splitlines()[-1]


def test_check_of_random_numbers_in_a_loop(graphkiln_command: Run, tmp_path: Path) -> None:
    """Two runs never give the same: only types can be compared, in bodies as anywhere."""
    helper, kinds = onnx.helper, onnx.TensorProto
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]),
         helper.make_node("RandomNormal", [], ["r"], shape=[3])],
        "body", [info("i", kinds.INT64, []), info("go", kinds.BOOL, [])],
        [info("on", kinds.BOOL, []), info("r", kinds.FLOAT, [3])],
    )  # fmt: skip
    outer = helper.make_graph(
        [helper.make_node("Loop", ["n", "start"], ["y"], body=body)], "g",
        [info("n", kinds.INT64, [])], [info("y", kinds.FLOAT, ["n", 3])],
        [helper.make_tensor("start", kinds.BOOL, [], [True])],
    )  # fmt: skip
    path = tmp_path / "random.onnx"
    onnx.save(helper.make_model(outer, opset_imports=[helper.make_opsetid("", 17)]), path)
    done = graphkiln_command("check", path)
    assert done.code == 0, done
    assert "RandomNormal give random numbers; only types are compared" in done.out


def test_check_lists_every_blocker_and_stops(graphkiln_command: Run, tmp_path: Path) -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="first", domain="shop"),
        helper.make_node("Relu", ["x"], ["b"], name="fine"),
        helper.make_node("Twiddle", ["b"], ["y"], name="second", domain="shop"),
    ]
    values = [helper.make_tensor_value_info(n, 1, [2]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("shop", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "m.onnx")
    done = graphkiln_command("check", tmp_path / "m.onnx")
    assert done.code == 1
    lines = done.out.splitlines()
    assert len(lines) == 2
    assert "'first' (shop.Frobnicate)" in lines[0] and "'second' (shop.Twiddle)" in lines[1]


def test_bench_alone_and_beside_onnxruntime(
    graphkiln_command: Run, digits: Path, model: Path
) -> None:
    alone = graphkiln_command("bench", digits, "--seconds", "0.1")
    assert alone.code == 0 and "median" in alone.out
    both = graphkiln_command("bench", digits, "--onnx", model, "--seconds", "0.1", "--threads", "1")
    assert both.code == 0 and "times as long as onnxruntime" in both.out


def test_targets(graphkiln_command: Run) -> None:
    done = graphkiln_command("targets")
    assert done.code == 0
    assert "cpu:x86-64-v3" in done.out and "cpu (this machine)" in done.out


@pytest.mark.parametrize("domain", ["ai.onnx", "ai.onnx.ml"])
def test_ops(graphkiln_command: Run, domain: str) -> None:
    done = graphkiln_command("ops", "--domain", domain)
    assert done.code == 0
    wanted = {"ai.onnx": ("Conv", "compiled"), "ai.onnx.ml": ("LabelEncoder", "")}[domain]
    assert all(part in done.out for part in wanted)


def test_rewrites(graphkiln_command: Run) -> None:
    done = graphkiln_command("rewrites", "--pass", "cse")
    assert done.code == 0
    assert "exact" in done.out and "simplify" not in done.out


def test_rewrites_page_is_up_to_date(graphkiln_command: Run, tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "REWRITES.md"
    written = tmp_path / "REWRITES.md"
    assert graphkiln_command("rewrites", "--markdown", str(written)).code == 0
    told = "graphkiln rewrites --markdown docs/REWRITES.md writes it again"
    assert page.read_text(encoding="utf-8") == written.read_text(encoding="utf-8"), told


def test_ops_page_is_up_to_date(graphkiln_command: Run, tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "OPS.md"
    # A process of its own: other tests register ops in this one.
    written = tmp_path / "OPS.md"
    assert graphkiln_command("ops", "--markdown", str(written)).code == 0
    told = "graphkiln ops --markdown docs/OPS.md writes it again"
    assert page.read_text(encoding="utf-8") == written.read_text(encoding="utf-8"), told
