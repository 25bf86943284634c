"""Ops that users register, from a file or in the process that compiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from support.command import Run

PLUGIN = """
from graphkiln.ir.registry import op
from graphkiln.targets.generic.registry import lowering

@op("Scaled", domain="my.domain", evaluate=lambda node, inputs: [inputs[0] * {factor}])
def infer(ctx):
    return [ctx.tensor(0)]

@lowering("my.domain.Scaled")
def lower(ctx):
    x = ctx.input(0)
    return ctx.lazy(lambda at: x[at] * {factor})
"""


def model(path: Path, softmaxes: int = 1) -> Path:
    """Scaled(x), and as many kernels after it as asked for."""
    nodes = [helper.make_node("Scaled", ["x"], ["s0"], domain="my.domain")]
    for i in range(softmaxes):
        nodes.append(helper.make_node("Softmax", [f"s{i}"], [f"t{i}"], axis=i % 2))
        nodes.append(helper.make_node("Pad", [f"t{i}", "pads"], [f"s{i + 1}"]))
    pads = helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, 1, 0])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
              for n, s in (("x", [3, 4]), (f"s{softmaxes}", None))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [pads])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


def test_ops_of_a_plugin(graphkiln_command: Run, tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx", softmaxes=5)
    graphkiln_command("compile", path).fails("my.domain.Scaled")
    plugin = tmp_path / "plugin.py"
    for factor in ("2.0", "3.0"):
        # The kernel cache must not take the second plugin's kernel for the first one's.
        plugin.write_text(PLUGIN.format(factor=factor))
        done = graphkiln_command("check", path, "--plugin", plugin)
        assert done.code == 0, done


def test_ops_of_a_plugin_are_listed(graphkiln_command: Run, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN.format(factor="2.0"))
    graphkiln_command("ops", "--domain", "my.domain").fails("my.domain", code=2)
    done = graphkiln_command("ops", "--domain", "my.domain", "--plugin", plugin)
    assert done.code == 0 and "Scaled" in done.out and "compiled" in done.out


def test_a_plugin_that_fails(graphkiln_command: Run, tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx")
    (tmp_path / "plugin.py").write_text("import no_such_module")
    graphkiln_command("compile", path, "--plugin", tmp_path / "plugin.py").fails("no_such_module")
    graphkiln_command("compile", path, "--plugin", tmp_path / "no.py").fails("no.py", code=2)


def test_registered_in_this_process(tmp_path: Path) -> None:
    import graphkiln

    namespace: dict[str, object] = {"__name__": "my_module"}
    exec(compile(PLUGIN.format(factor="5.0"), "<plugin>", "exec"), namespace)
    path = model(tmp_path / "m.onnx", softmaxes=0)
    session = graphkiln.compile(path).session()
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], 5 * x)
