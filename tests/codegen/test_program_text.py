"""Dumps of what comes after the last pass: the program, and each kernel's region and TensorIR."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

import graphkiln
from graphkiln.codegen.lower import Lowered, lower_graph
from graphkiln.codegen.program import (
    CallLoop,
    Copy,
    If,
    Instruction,
    Kill,
    Loop,
    Program,
    Reg,
    SignalWord,
    StepLoop,
)
from graphkiln.codegen.program_text import program_text
from graphkiln.driver import CompileOptions, optimize_graph
from graphkiln.frontend import load_model
from graphkiln.ir.parser import parse_graph
from graphkiln.targets import parse_target

MODELS = Path(__file__).parent.parent / "models"


def dumped(model: object, folder: Path) -> list[str]:
    """The lines of a model's program."""
    graphkiln.compile(model, dump_ir=folder)
    (path,) = folder.glob("*_program.txt")
    return path.read_text("utf-8").splitlines()


def test_a_program_calls_the_kernels_that_were_dumped(tmp_path: Path) -> None:
    lines = dumped(MODELS / "mnist_cntk.onnx", tmp_path)
    assert lines[0].startswith("program(1 inputs, 0 sizes, ") and lines[-1] == "}"
    called = re.findall(r"^  (\w+_[0-9a-f]{16})\(.*\)  # (.+)$", "\n".join(lines), re.M)
    assert [origins for _, origins in called][:3] == [
        "Convolution28, Plus30, ReLU32", "Pooling66", "Convolution110, Plus112, ReLU114",
    ]  # fmt: skip
    files = {p.stem: p.read_text("utf-8") for p in (tmp_path / "kernels").iterdir()}
    assert files.keys() == {name for name, _ in called}
    for name, text in files.items():
        region, _, tensor_ir = text.partition("\n# from tvm")
        assert parse_graph(region).nodes and f"def {name}(" in tensor_ir
    # Registers are written before they are read.
    made: set[str] = set()
    for line in lines[1:-1]:
        left, equals, right = line.partition(" = ")
        read = re.findall(r"\br\d+\b", right if equals else line)
        out = re.findall(r"\br\d+\b", left) if equals else []
        assert made >= set(read), line
        made.update(out)


def test_equal_layers_share_a_kernel() -> None:
    """Two that differ in their weights alone, and one with another activation."""
    nodes, inputs, outputs, weights = [], [], [], []
    for i, op in enumerate(("Relu", "Relu", "Tanh")):
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"]))
        nodes.append(helper.make_node(op, [f"c{i}"], [f"y{i}"]))
        inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1, 16, 8, 8]))
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None))
        weights.append(from_array(np.full((16, 16, 3, 3), i + 1, np.float32), f"w{i}"))
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    target = parse_target("cpu:x86-64-v3")
    lowered = lower_graph(graphkiln.optimize(model, target.spec), target, "")
    calls = {name: len(c) for name, c in lowered.calls.items() if name.startswith("convblocked")}
    assert sorted(calls.values()) == [1, 2]


def test_sizes_checks_and_branches_can_be_read(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "i"], ["g"], name="pick"),
         helper.make_node("Concat", ["g", "g"], ["y"], axis=0, name="twice")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
         helper.make_tensor_value_info("i", TensorProto.INT64, ["K"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    text = "\n".join(dumped(model, tmp_path))
    assert re.search(r"^  bind r\d+ \[s\d+,_\]  # 'x'$", text, re.M)
    assert re.search(r"^  dims_\d+: .*s\d+ = 2\*K.* where .*K=s\d+", text, re.M)
    refusal = r"^  if r\d+ \{\n  \} else \{\n    r\d+ = host Refuse\(\) \{.*pick"
    assert re.search(refusal, text, re.M)
    assert re.search(r"^    free r\d+$", text, re.M) and re.search(r"# pick", text)


def test_loops_have_a_test_and_a_body() -> None:
    body: list[Instruction] = [
        Loop((Copy(Reg(1), Reg(2)),), Reg(1), (If(Reg(3), (Kill(Reg(4)),), ()),))
    ]
    text = program_text(Lowered(Program(body=body, result=Reg(5)), {}, [], []))
    assert text.splitlines()[1:-2] == [
        "  loop {", "    r1 = r2", "    while r1", "    if r3 {", "      free r4", "    } else {",
        "    }", "  }",
    ]  # fmt: skip


def test_a_loop_with_a_function_has_a_call_and_what_runs_otherwise() -> None:
    body: list[Instruction] = [CallLoop("loop_0", (Reg(1), SignalWord()), Reg(2), (Kill(Reg(4)),))]
    text = program_text(Lowered(Program(body=body, result=Reg(5)), {}, [], []))
    assert text.splitlines()[1:-2] == [
        "  loop_0(r1, signal)", "  unless r2 {", "    free r4", "  }",
    ]  # fmt: skip


def test_a_step_says_what_it_tests() -> None:
    body: list[Instruction] = [StepLoop(Reg(1), Reg(2), Reg(3), Reg(4))]
    text = program_text(Lowered(Program(body=body, result=Reg(5)), {}, [], []))
    assert text.splitlines()[1] == "  r1 += 1; r4 = r1 < r2 and r3"


def test_programs_of_all_kinds_of_models_have_a_text(tmp_path: Path) -> None:
    for i, path in enumerate(sorted(MODELS.glob("*.onnx"))):
        lines = dumped(path, tmp_path / str(i))
        assert len(lines) > 5, path.name


def test_dumps_stay_without_a_program_where_only_the_graph_is_wanted(tmp_path: Path) -> None:
    options = CompileOptions(dump_ir=tmp_path)
    optimize_graph(load_model(MODELS / "mnist_cntk.onnx").graph, options)
    assert not list(tmp_path.glob("*program*")) and list(tmp_path.glob("*_fuse.txt"))


def test_weights_are_told_by_name_and_shape(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "bias"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("bias", TensorProto.FLOAT, [16, 3], np.arange(48.0))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert "  r2 = weight 0 float32[16, 3]  # bias" in dumped(model, tmp_path)
