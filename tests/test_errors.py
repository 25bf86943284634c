"""Every error of graphkiln says in fields what is wrong, and ``compile`` says which it raises."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from frontend.build import model, node, value

import graphkiln
from graphkiln import GraphkilnError
from graphkiln.errors import Blocker, InputError
from graphkiln.ir import registry
from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.registry import InferContext, OpSpec
from graphkiln.passes import base

ROOT = Path(graphkiln.__file__).parent
LAYERS = (
    "cli", "codegen", "distiller", "frontend", "ir", "passes", "pruner", "quantizer", "runtime",
    "targets", "training",
)  # fmt: skip
MODULES = [*ROOT.glob("*.py"), *(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))]

# ---- fields --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocker", "text"),
    [
        (Blocker("why"), "why"),
        (Blocker("why", "n"), "node 'n': why"),
        (Blocker("why", "n", "Add"), "node 'n' (Add): why"),
        (Blocker("why", "", "Add"), "node '' (Add): why"),
        (Blocker("why", "n", "Add", "m.onnx"), "m.onnx: node 'n' (Add): why"),
        (Blocker("why", file="m.onnx"), "m.onnx: why"),
        (Blocker("why", "n", "Add", graph="main"), "graph 'main': node 'n' (Add): why"),
        (Blocker("why", "n", "Add", output="y"), "node 'n' (Add), output 'y': why"),
        (Blocker("why", "n", "Add_Mul", kernel=True), "node 'n' (kernel Add_Mul): why"),
        (Blocker("why", "n\x1b[2J", "Add"), "node 'n\N{REPLACEMENT CHARACTER}[2J' (Add): why"),
    ],
)
def test_the_text_is_made_of_the_fields(blocker: Blocker, text: str) -> None:
    assert str(blocker) == text
    assert str(GraphkilnError(blocker, Blocker("more"))) == f"{text}\nmore"


def test_fields_of_an_error() -> None:
    graph = Graph()
    made = graph.add_node("Gelu", [], domain="com.microsoft", name="n")
    error = GraphError("why", at=made)
    assert (error.node, error.op, error.reason) == ("n", "com.microsoft.Gelu", "why")
    assert InputError("why", file="m").file == "m"
    assert GraphkilnError().reason == ""


def test_what_has_no_node_yet_gets_one() -> None:
    graph = Graph()
    made = graph.add_node("Add", [], name="outer")
    error = GraphkilnError("a", Blocker("b", "inner", "Mul"))
    error.locate(made)
    assert str(error) == "node 'outer' (Add): a\nnode 'inner' (Mul): b"


def test_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(GraphError("why", node="n", op="Add")))
    assert isinstance(error, GraphError) and str(error) == "node 'n' (Add): why"


# ---- one base ------------------------------------------------------------------------------------

SIGNALS = {"HandedOver", "ChildLost", "Foreign"}
"""Exceptions that never leave the layer that raises them; those with a leading _ are as well."""


def exception_classes() -> dict[str, type[BaseException]]:
    """Every exception class of the package, by its full name."""
    found = {}
    for path in MODULES:
        names = [n.name for n in ast.parse(path.read_text(encoding="utf-8")).body
                 if isinstance(n, ast.ClassDef)]  # fmt: skip
        if path.name in ("setup.py", "__main__.py") or not names:
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(["graphkiln", *parts]).removesuffix(".__init__"))
        for name in names:
            kind = getattr(module, name)
            if issubclass(kind, BaseException):
                found[f"{module.__name__}.{name}"] = kind
    return found


def test_all_errors_have_one_base() -> None:
    found = exception_classes()
    public = {k: c for k, c in found.items() if not c.__name__.startswith("_")}
    others = {c.__name__ for c in public.values() if not issubclass(c, GraphkilnError)}
    assert others == SIGNALS and len(public) > 25


def test_nobody_decides_by_the_text_of_an_error() -> None:
    """No text of a caught error is compared or taken apart, but to show a part of it."""
    wrong = []
    for path in MODULES:
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(handler, ast.ExceptHandler) and handler.name:
                text = rf"str\({handler.name}\)"
                tests = [n for n in ast.walk(handler) if isinstance(n, ast.Compare)]
                calls = [n for n in ast.walk(handler) if isinstance(n, ast.Call)]
                parts = rf"{text}\.(removeprefix|removesuffix|partition|startswith|endswith)\("
                wrong += [f"{path}:{n.lineno}" for n in tests if re.search(text, ast.unparse(n))]
                wrong += [f"{path}:{n.lineno}" for n in calls if re.search(parts, ast.unparse(n))]
    assert not wrong


# ---- what compile raises -------------------------------------------------------------------------

Patch: TypeAlias = pytest.MonkeyPatch
RELU = model([node("Relu", "x", "y")], [value("x", (2, 3))], ["y"])


def no_kernel(monkeypatch: Patch, folder: Path) -> None:
    """An op that somebody registered without a lowering."""

    def infer(ctx: InferContext) -> list[Any]:
        return [ctx.inputs[0]]

    registry.spec("Relu")
    spec = OpSpec("Odd", "test", infer, max_inputs=1, max_outputs=1)
    monkeypatch.setitem(registry._REGISTRY, "test.Odd", spec)
    odd = node("Odd", "x", "y", domain="test")
    graphkiln.compile(model([odd], [value("x")], ["y"], test=1))


def failing_pass(monkeypatch: Patch, folder: Path) -> None:
    class Failing(base.Pass):
        name = "failing"

        def apply(self, graph: Graph, context: base.PassContext) -> dict[str, int]:
            raise GraphError("why", node="n", op="Relu")

    monkeypatch.setitem(base._PASSES, "failing", Failing)
    graphkiln.compile(RELU, passes="dce,failing")


def no_object(monkeypatch: Patch, folder: Path) -> None:
    """A mode that no kernel knows."""
    resize = node("Resize", "x - s", "y", coordinate_transformation_mode="diagonal")
    scales = {"s": np.array([1, 2], np.float32)}
    graphkiln.compile(model([resize], [value("x")], ["y"], scales), jobs=1)


def no_pool(monkeypatch: Patch, folder: Path) -> None:
    """A C compiler that says what it is, and compiles nothing."""
    script = folder / "cc"
    machine = os.uname().machine
    script.write_text(f'#!/bin/sh\n[ "$1" = -dumpmachine ] && echo {machine}-linux-gnu\n')
    script.write_text(script.read_text() + '[ "$1" = -dumpmachine ]\n')
    script.chmod(0o755)
    graphkiln.compile(RELU, linker=str(script))


def damaged_database(monkeypatch: Patch, folder: Path) -> None:
    (folder / "tuned.sqlite").write_bytes(b"no database" * 99)
    graphkiln.compile(RELU, tuned=True)


def nowhere_to_tune(monkeypatch: Patch, folder: Path) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", "")
    graphkiln.compile(RELU, tune=0.1)


def dump_into_a_file(monkeypatch: Patch, folder: Path) -> None:
    (folder / "file").touch()
    graphkiln.compile(RELU, dump_ir=folder / "file")


Scenario: TypeAlias = Callable[[Patch, Path], object]
SCENARIOS: dict[str, Scenario] = {
    "graphkiln.driver.OptionError": lambda m, f: graphkiln.compile(RELU, passes="nonsense"),
    "graphkiln.targets.TargetError": lambda m, f: graphkiln.compile(RELU, "abacus"),
    "graphkiln.InputError": lambda m, f: graphkiln.compile(3),
    "graphkiln.frontend.FrontendError": lambda m, f: graphkiln.compile(b""),
    "graphkiln.passes.base.PassError": failing_pass,
    "graphkiln.codegen.errors.CodegenError": no_kernel,
    "graphkiln.codegen.build.BuildError": no_object,
    "graphkiln.codegen.link.LinkError":
        lambda m, f: graphkiln.compile(RELU, linker="no-such-program"),
    "graphkiln.codegen.pool.PoolError": no_pool,
    "graphkiln.codegen.tune.TuningError": nowhere_to_tune,
    "graphkiln.targets.cpu.database.DatabaseError": damaged_database,
    "graphkiln.samples.SamplesError": lambda m, f: graphkiln.compile(
        RELU, data="nowhere", passes="default@before(integers)=quantize"
    ),
    "OSError": dump_into_a_file,
}  # fmt: skip
"""How to make ``compile`` raise each error that its documentation lists."""

ELSEWHERE = {
    "ArtifactError": "loading", "ExecutionError": "running", "ArtifactWriteError": "saving",
    "ExportError": "export to ONNX", "ParseError": "reading text", "LiteralError": "reading text",
    "EvaluationError": "the interpreter", "PipelineError": "an OptionError of compile",
    "ImportFault": "a FrontendError's blocker", "Fatal": "a FrontendError's blocker",
    "WireError": "a FrontendError's blocker", "InferenceError": "a FrontendError or PassError",
    "UndeterminedTypeError": "as InferenceError", "UndeterminedError": "as InferenceError",
    "SymbolicError": "as InferenceError", "OperandError": "as InferenceError",
    "DimError": "as InferenceError",
    "GraphError": "a FrontendError or PassError", "VerifyError": "a PassError",
    "ChoiceError": "a PassError", "LoweringError": "a BuildError's blocker",
    "DeviceCodeError": "a BuildError's blocker", "RangesError": "reading ranges",
    "BudgetError": "quantizing", "JournalError": "quantizing", "ScoreError": "quantizing",
    "PrecisionError": "reading a precision file", "ReportError": "writing a report",
    "DataFreeError": "quantizing",
    "MissingTorchError": "distilling", "TrainingError": "distilling", "BatchError": "distilling",
    "CheckpointError": "distilling", "RecipeError": "distilling", "AugmentError": "distilling",
    "UsageError": "base of OptionError and TargetError", "GraphkilnError": "base of all",
}  # fmt: skip
"""The other errors, and where they are raised or what they become."""


def listed() -> list[str]:
    names = re.findall(r":class:`([\w.]+)`|``(OSError)``", graphkiln.compile.__doc__ or "")
    others = ("CompileOptions", "graphkiln.GraphkilnError")
    return [a or b for a, b in names if a not in others]


def test_every_listed_error_has_a_case() -> None:
    assert sorted(listed()) == sorted(SCENARIOS)


def test_the_page_lists_the_same() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(graphkiln\.[\w.]*Error)`", page))
    others = {"graphkiln.GraphkilnError", "graphkiln.ArtifactError", "graphkiln.ExecutionError",
              "graphkiln.codegen.artifact.ArtifactWriteError"}  # fmt: skip
    assert told - others == set(SCENARIOS) - {"OSError"} and told > others
    known = exception_classes()
    for name in told:
        module, _, short = name.rpartition(".")
        assert getattr(importlib.import_module(module), short) in known.values(), name


def test_no_other_error_is_left() -> None:
    """A new class is listed by ``compile``, or says here where else it is raised."""
    public = {c.__name__ for c in exception_classes().values() if not c.__name__.startswith("_")}
    told = {name.rpartition(".")[2] for name in SCENARIOS} - {"OSError"}
    assert public == told | ELSEWHERE.keys() | SIGNALS and not told & ELSEWHERE.keys()


@pytest.mark.parametrize("name", SCENARIOS)
def test_compile_raises_what_it_lists(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAPHKILN_CACHE", str(tmp_path))
    module, _, short = name.rpartition(".")
    kind = getattr(importlib.import_module(module), short) if module else OSError
    with pytest.raises((GraphkilnError, OSError)) as raised:
        SCENARIOS[name](monkeypatch, tmp_path)
    assert type(raised.value) is kind or (kind is OSError and isinstance(raised.value, OSError))
    if isinstance(raised.value, GraphkilnError):
        assert all(b.reason for b in raised.value.blockers)


def test_a_failed_pass_leads_to_the_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(base.PassError) as raised:
        failing_pass(monkeypatch, tmp_path)
    assert (raised.value.node, raised.value.op, raised.value.reason) == ("n", "Relu", "why")
    assert str(raised.value) == (
        "pass failing failed: node 'n' (Relu): why (passes run before: dce)"
    )
