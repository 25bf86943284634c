"""What is told of the way a kernel is computed: by a template, or generically and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

import graphkiln
from graphkiln.codegen.build import kernel_function
from graphkiln.codegen.lower import lower_graph
from graphkiln.ir.parser import parse_graph
from graphkiln.targets import parse_target
from graphkiln.targets.cpu.microkernel import RegisterTile
from graphkiln.targets.generic.choice import choose_template

MODELS = Path(__file__).parent.parent / "models"
FLOAT, DOUBLE, HALF = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16


def product(kind: int, rows: int, depth: int = 512, columns: int = 512) -> Any:
    """x[rows, depth] times a constant matrix, in one type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="multiply")], "g",
        [helper.make_tensor_value_info("x", kind, [rows, depth])],
        [helper.make_tensor_value_info("y", kind, [rows, columns])],
        [from_array(np.ones((depth, columns), dtype), "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_product_of_doubles_is_told_to_be_slow() -> None:
    report = graphkiln.compile(product(DOUBLE, 64)).report
    (cost,) = report["kernel_costs"].values()
    assert cost["template"] is None
    assert cost["generic"] == "the template of MatMul takes float32, not float64"
    (warning,) = report["warnings"]
    assert warning.startswith("node 'multiply' (kernel MatMul): runs by the generic schedule")
    assert warning.endswith(cost["generic"])


@pytest.mark.parametrize(("kind", "rows"), [(FLOAT, 64), (DOUBLE, 1), (HALF, 64)])
def test_fast_and_small_products_bring_no_warning(kind: int, rows: int) -> None:
    assert graphkiln.compile(product(kind, rows)).report["warnings"] == []


def test_every_convolution_of_the_sample_model_has_its_template() -> None:
    costs = graphkiln.compile(MODELS / "mnist_cntk.onnx").report["kernel_costs"].values()
    heavy = [c for c in costs if {"ConvBlocked", "MatMulPacked"} & set(c["ops"])]
    assert [c["template"] for c in heavy] == [f"kiln.{c['ops'][0]}" for c in heavy]
    assert len(heavy) == 3 and not any(c["generic"] for c in costs)


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:cascadelake"])
@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda p: p.stem)
def test_kernels_of_the_models_use_templates_or_were_left_plain(path: Path, target: str) -> None:
    machine = parse_target(target)
    lowered = lower_graph(graphkiln.optimize(path, target), machine, "")
    for spec in lowered.kernels.values():
        if spec.role == "main":
            plan = machine.plan(parse_graph(spec.text))
            assert not plan.reason or "the layout pass left" in plan.reason, spec.node


TILED = {"kiln.ConvBlocked", "kiln.MatMulPacked", "MatMul", "kiln.Attention", "kiln.LSTMPacked"}
"""Templates all of whose sums are in register tiles of the class that the test watches."""


def lstm(batch: int, initial: bool = False) -> Any:
    """An LSTM of ``batch`` sequences, perhaps with an initial state behind inputs left out."""
    size, rng = {"W": (1, 96, 16), "R": (1, 96, 24)}, np.random.default_rng(0)
    weights = [from_array(rng.normal(size=s).astype(np.float32), n) for n, s in size.items()]
    states = ["", "", "h"] if initial else []
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R", *states], ["y"], hidden_size=24)], "g",
        [helper.make_tensor_value_info("x", FLOAT, [5, batch, 16]),
         *(helper.make_tensor_value_info(n, FLOAT, [1, batch, 24]) for n in states if n)],
        [helper.make_tensor_value_info("y", FLOAT, [5, 1, batch, 24])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def run_time_product() -> Any:
    """A product of two inputs."""
    shapes = {"a": [40, 16], "b": [16, 48], "y": [40, 48]}
    a, b, y = (helper.make_tensor_value_info(n, FLOAT, s) for n, s in shapes.items())
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "g", [a, b], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cpu:cascadelake"])
def test_the_tile_that_is_told_is_the_tile_that_is_built(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: set[tuple[int, int]] = set()
    build = RegisterTile.__init__

    def watched(self: RegisterTile, b: Any, rows: int, vectors: int, dot: Any) -> None:
        built.add((rows, vectors * dot.lanes))
        build(self, b, rows, vectors, dot)

    monkeypatch.setattr(RegisterTile, "__init__", watched)
    machine, reached, full = parse_target(target), set(), set()
    models = [*sorted(MODELS.glob("*.onnx")), lstm(2), lstm(3, initial=True), run_time_product()]
    for number, model in enumerate(models):
        lowered = lower_graph(graphkiln.optimize(model, target), machine, "")
        for name, spec in lowered.kernels.items():
            plan = machine.plan(parse_graph(spec.text))
            if spec.role != "main" or plan.template not in TILED:
                continue
            built.clear()
            kernel_function(spec, name, machine)
            rows, columns = map(int, plan.tile.split("x"))
            told = f"{number} {spec.node}: {plan.template} {plan.tile}, built {built}"
            assert {c for _, c in built} == {columns} and max(built)[0] <= rows, told
            reached.add((plan.template, plan.algorithm))
            full |= {plan.template for r, _ in built if r == rows}
    forms = {("kiln.ConvBlocked", form) for form in ("direct", "winograd_4x4")}
    assert forms <= reached and {t for t, _ in reached} == full == TILED


def region(lines: str, results: str = "y") -> Any:
    return parse_graph(f"""
    graph kernel(%a: float32[8,16], %b: float32[16,24], %v: float32[16]) -> (y) {{
      {lines}
      return %{results}
    }}
    """)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("%m = MatMul(%a, %b) : float32[8,24]\n%y = Relu(%m) : float32[8,24]", ""),
        ("%y = MatMul(%a, %v) : float32[8]", "the template of MatMul takes matrices, not vectors"),
        (
            "%m = MatMul(%a, %b) : float32[8,24]\n%y = Softmax(%m) : float32[8,24]",
            "Softmax does not join MatMul: not elementwise, and not a move that this kernel does "
            "where it stores",
        ),
        (
            "%m = MatMul(%a, %b) : float32[8,24]\n%n = MatMul(%a, %b) : float32[8,24]\n"
            "%y = Add(%m, %n) : float32[8,24]",
            "it holds several: MatMul, MatMul",
        ),
        (
            "%y = Gemm(%a, %b) : float32[8,24]",
            "there is no template for Gemm of float32",
        ),
        ("%y = Relu(%a) : float32[8,16]", ""),
    ],
)
def test_why_a_region_has_no_template(lines: str, reason: str) -> None:
    target = parse_target("cpu:x86-64-v3")
    assert choose_template(region(lines), target._templates, target.hardware).reason == reason


def looping(grows: bool) -> Any:
    """x added to itself, or joined with itself, as often as n says."""
    step = (
        helper.make_node("Concat", ["v", "v"], ["w"], axis=0) if grows
        else helper.make_node("Add", ["v", "v"], ["w"])
    )  # fmt: skip
    body = helper.make_graph(
        [step, helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w", FLOAT, None)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], "g",
        [helper.make_tensor_value_info("n", TensorProto.INT64, []),
         helper.make_tensor_value_info("x", FLOAT, [2])],
        [helper.make_tensor_value_info("y", FLOAT, ["M"])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def one(op: str, kind: int, **attributes: Any) -> Any:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", kind, [4])],
        [helper.make_tensor_value_info("y", kind if op == "Neg" else TensorProto.INT64, None)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("model", "target", "told"),
    [
        (one("Neg", FLOAT), "cpu", "as native code"),
        (looping(grows=False), "cpu", "as native code"),
        (looping(grows=True), "cpu", "in the virtual machine, because of a loop"),
        (one("NonZero", FLOAT), "cpu", "in the virtual machine, because of sizes that data tell"),
        (
            one("Neg", FLOAT), "cpu,memory=apart",
            "in the virtual machine, because of temporaries that are kept apart",
        ),
        (
            one("Neg", TensorProto.BFLOAT16), "cpu",
            "in the virtual machine, because of the type of 'x', bfloat16[4]",
        ),
    ],
    ids=["plain", "loop", "growth", "sizes", "apart", "type"],
)  # fmt: skip
def test_native_code_or_why_not(model: Any, target: str, told: str) -> None:
    artifact = graphkiln.compile(model, target)
    assert artifact.report["runs"] == told
    manifest = artifact.contents.manifest
    assert ("native" in manifest) == (told == "as native code")
