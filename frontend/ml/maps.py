"""Lists of maps, as outputs of a model: matrices with a name for each column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...ir.graph import Graph, Node, Value
from ..emit import Emit
from ..errors import Blocker, ImportFault
from ..node import OnnxNode
from .common import examples

_ONLY_OUTPUTS = (
    "gives a list of maps, which only an output of the model can be; export the model without "
    "this step (skl2onnx: options={'zipmap': False})"
)


def zip_map(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """ZipMap-1: a list of a map from class labels to scores for each row [N, C] (or one [C])."""
    given = [k for n in ("strings", "int64s") if (k := node.attrs.get(f"classlabels_{n}"))]
    if len(given) != 1:
        raise ImportFault("needs either classlabels_int64s or classlabels_strings")
    return [emit("kiln.ZipMap", examples(node, emit), keys=given[0])]


def no_maps(_node: OnnxNode, _emit: Emit) -> Sequence[Value]:
    """CastMap and DictVectorizer, which take maps."""
    raise ImportFault("takes maps, which are not supported, only tensors")


def misplaced_maps(graph: Graph) -> Iterator[Blocker]:
    """Lists of maps that are something else than an output of the model."""
    for current in graph.walk():
        for node in current.nodes:
            if node.key == "kiln.ZipMap" and not _only_goes_to(current, node, graph.sink):
                yield Blocker(_ONLY_OUTPUTS, node.name, "ai.onnx.ml.ZipMap")


def _only_goes_to(graph: Graph, node: Node, end: Node) -> bool:
    return all(user is end for user, _ in graph.uses(node.out()))
