"""Kernels: the distinct pieces of code a graph needs, each named by what it computes.

Every compiled node becomes a closed region with canonical names and symbols. The region's text
names the kernel, so equal work in different places of a model, or in different models, is built
once, and the text is all that a worker process needs to build it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir.dims import Dim, SymExpr, substitute, sym
from ..ir.graph import Attr, Graph, Node, Value
from ..ir.text import print_graph
from ..ir.types import OptionalType, SequenceType, TensorType, Type

EMBED_LIMIT = 64
"""Constants of at most this many elements become part of a kernel's code."""


@dataclass(frozen=True)
class KernelSpec:
    """One kernel: ``text`` is its canonical region, ``role`` is ``main`` or ``sizes``.

    ``arguments`` index the node's inputs that are passed at run time (the rest are embedded);
    ``symbols`` are the model's symbols that the kernel takes as int64 scalars, in order. ``node``
    is the first node that wants it, for messages.
    """

    text: str
    role: str
    op: str
    arguments: tuple[int, ...] = field(compare=False)
    symbols: tuple[str, ...] = field(compare=False)
    node: str = field(default="", compare=False)

    def name(self, target: str, version: str) -> str:
        """A symbol name unique to the kernel's content, the target and the compiler version."""
        content = "\0".join((self.role, target, version, self.text))
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        prefix = "".join(c if c.isalnum() else "_" for c in self.op).lower()
        return f"{prefix}_{digest}"


def embeddable(value: Value) -> bool:
    """May this input become part of the kernel's code?"""
    array = value.constant
    return array is not None and array.size <= EMBED_LIMIT and array.dtype != object


def node_region(graph: Graph, node: Node) -> tuple[Graph, tuple[int, ...]]:
    """A closed graph that computes ``node``, and the indices of the inputs it takes.

    For a ``kiln.Region`` this is its body; for a single op a graph of that op. Inputs that are
    equal values share one parameter; small constants are embedded.
    """
    inputs = graph.inputs_of(node)
    out = Graph("kernel")
    arguments: list[int] = []
    taken: dict[Value, Value] = {}
    mapped: list[Value | None] = []
    for i, v in enumerate(inputs):
        if v is None:
            mapped.append(None)
        elif v in taken:
            mapped.append(taken[v])
        elif embeddable(v):
            mapped.append(out.add_constant(v.node.attrs["value"], "c"))  # type: ignore[arg-type]
        else:
            arguments.append(i)
            mapped.append(taken.setdefault(v, out.add_input("in", v.type)))
    if node.key == "kiln.Region":
        body = node.attrs["body"]
        assert isinstance(body, Graph)
        results = inline(body, out, mapped)
    else:
        twin = out.add_node(
            node.op, mapped, node.attrs, outputs=["v"] * len(node.outputs),
            types=[o.type for o in node.outputs], domain=node.domain,
        )  # fmt: skip
        results = list(twin.values)
    used = [r for r, v in zip(results, node.values, strict=True) if graph.uses(v)]
    out.set_outputs(used, [f"out{i}" for i in range(len(used))])
    return out, tuple(arguments)


def inline(body: Graph, into: Graph, inputs: list[Value | None]) -> list[Value]:
    """Copy a closed body into ``into``, its inputs replaced; returns the body's outputs there."""
    mapping: dict[Value, Value | None] = dict(zip(body.inputs, inputs, strict=True))
    for node in body.topological_all():
        if node.op == "Constant":
            mapping[node.out()] = into.add_constant(node.attrs["value"], "c")  # type: ignore[arg-type]
        elif node.op not in ("Input", "Output"):
            twin = into.add_node(
                node.op,
                [None if v is None else mapping[v] for v in body.inputs_of(node)],
                node.attrs,
                outputs=["v"] * len(node.outputs),
                types=[o.type for o in node.outputs],
                domain=node.domain,
            )
            mapping.update(zip(node.values, twin.values, strict=True))
    return [v for o in body.outputs if (v := mapping[o]) is not None]


def canonical(region: Graph, order: list[str]) -> tuple[Graph, dict[str, str]]:
    """Rename the symbols of a region to ``s0``, ``s1`` ... in the given order.

    Returns the region (changed in place) and the map from canonical to original names.
    """
    rename: dict[str, Dim] = {s: sym(f"s{i}") for i, s in enumerate(order)}
    for node in region.nx:
        for out in node.outputs:
            if out.type is not None:
                out.type = _rename_type(out.type, rename)
        node.attrs = {k: _rename_attr(v, rename) for k, v in node.attrs.items()}
    return region, {f"s{i}": s for i, s in enumerate(order)}


def _rename_type(t: Type, rename: dict[str, Dim]) -> Type:
    if isinstance(t, SequenceType):
        return SequenceType(_rename_type(t.elem, rename))
    if isinstance(t, OptionalType):
        return OptionalType(_rename_type(t.elem, rename))
    if t.shape is None:
        return t
    return TensorType(t.dtype, tuple(substitute(d, rename) for d in t.shape), t.layout)


def _rename_attr(value: Attr, rename: dict[str, Dim]) -> Attr:
    if isinstance(value, SymExpr):
        return substitute(value, rename)
    if isinstance(value, tuple):
        return tuple(_rename_attr(v, rename) for v in value)
    return value


def region_symbols(region: Graph) -> list[str]:
    """The symbols that a kernel of this region takes, in order of appearance."""
    from ..targets.generic.region import region_symbols as symbols_of

    return symbols_of(region)


def kernel_spec(graph: Graph, node: Node, role: str = "main") -> KernelSpec:
    """The kernel of a node (``main``), or of its data-dependent output sizes (``sizes``)."""
    from ..targets.generic.region import input_symbols

    region, arguments = node_region(graph, node)
    inner = region_symbols(region)
    region, original = canonical(region, inner)
    taken = input_symbols(region) if role == "sizes" else region_symbols(region)
    text = print_graph(region, limit=EMBED_LIMIT)
    symbols = tuple(original[s] for s in taken)
    return KernelSpec(text, role, _title(region), arguments, symbols, node.name)


def _title(region: Graph) -> str:
    """A short name: the ops of the region, the first few of them."""
    ops = list(dict.fromkeys(n.op for n in region.topological()))
    return "_".join(ops[:4]) or "copy"


def storage_array(array: np.ndarray) -> np.ndarray:
    """A constant as kernels see it in memory (see ``targets.tir.numeric``)."""
    name = array.dtype.name
    if name == "bfloat16":
        return array.view(np.uint16)
    if name.startswith(("float8", "float4")):
        return array.view(np.uint8)
    if name in ("int4", "int2"):
        return array.astype(np.int8)
    if name in ("uint4", "uint2"):
        return array.astype(np.uint8)
    return array


Arguments = list[Any]
