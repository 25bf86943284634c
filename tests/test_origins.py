"""Every operation of a final graph leads to ONNX nodes, and every ONNX node to an operation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from graphkiln.driver import import_model
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.passes.manager import PassManager
from graphkiln.passes.pipeline import default_pipeline
from graphkiln.targets import parse_target

MODELS = sorted((Path(__file__).parent / "models").glob("*.onnx"))

GONE = {"nodes", "values", "captured", "If", "shapes", "constants"}
"""Rules after which an ONNX node was dead, a constant, or a size that inference knows."""


class Removals:
    """A listener: the last removed node that stood for each ONNX node, and the rule.

    ``given`` holds the ONNX nodes that turned out to be an input or a constant: a Reshape of an
    input to its own shape, say.
    """

    def __init__(self) -> None:
        self.last: dict[str, tuple[Node, str]] = {}
        self.given: set[str] = set()

    def inserted(self, node: Node, rule: str) -> None:
        pass

    def removed(self, node: Node, rule: str) -> None:
        self.last.update({name: (node, rule) for name in node.origins})

    def replaced(self, old: Value, new: Value, rule: str) -> None:
        if new.node.op in ("Input", "Constant"):
            self.given.update(old.node.origins)


def optimized(path: Path, removals: Removals) -> tuple[Graph, dict[str, str]]:
    """The final graph, and the op of each ONNX node that the imported graph names."""
    graph = import_model(path).graph
    imported = {name: n.op for g in graph.walk() for n in g.nodes for name in n.origins}
    manager = PassManager(default_pipeline(), hardware=parse_target("cpu").hardware)
    context = manager.context()
    context.listener = removals
    return manager.run(graph, context).graph, imported


def operations(graph: Graph) -> Iterator[Node]:
    for part in graph.walk():
        yield from part.nodes


def onnx_names(graph: onnx.GraphProto) -> set[str]:
    """The nodes of a model and of its bodies; one without a name is called after its output."""
    found = set()
    for node in graph.node:
        found.add(node.name or next(o for o in node.output if o))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= onnx_names(attribute.g)
    return found


@pytest.mark.parametrize("path", MODELS, ids=[p.stem for p in MODELS])
def test_operations_and_onnx_nodes_lead_to_each_other(path: Path) -> None:
    check(path)


@pytest.mark.slow
@pytest.mark.models
def test_real_models_too(models_folder: Path) -> None:
    models = sorted(models_folder.rglob("*.onnx"))
    assert len(models) > 10
    for path in models:
        check(path)


def check(path: Path) -> None:
    removals = Removals()
    graph, imported = optimized(path, removals)
    known = onnx_names(onnx.load(path, load_external_data=False).graph)
    for node in operations(graph):
        assert node.origins, f"{node} of {path.name} leads to no ONNX node"
        assert not set(node.origins) - known, f"{node} of {path.name}"
    named = {name for node in operations(graph) for name in node.origins}
    for name in imported.keys() - named - removals.given:
        node, rule = removals.last[name]
        assert node.op == "Constant" or rule in GONE, f"{name} of {path.name} vanished by {rule}"
