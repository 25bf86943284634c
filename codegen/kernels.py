"""Kernels: the distinct pieces of code a graph needs, each named by what it computes.

Every compiled node becomes a closed region with canonical names and symbols. The region's text
names the kernel, so equal work in different places of a model, or in different models, is built
once, and the text is all that a worker process needs to build it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from ..contract import HOST
from ..ir.clone import clone_body, clone_node
from ..ir.constant_inlining import PARAMETER_LIMIT, is_inlinable
from ..ir.dim_algebra import from_atom, map_atoms
from ..ir.dims import Atom, Dim, Symbol, SymExpr, sym
from ..ir.graph import Attr, Graph, Node, Value
from ..ir.text import print_graph
from ..ir.types import OptionalType, SequenceType, TensorType, Type


@dataclass(frozen=True)
class KernelSpec:
    """One kernel: ``text`` is its canonical region, ``role`` is ``main`` or ``sizes``.

    A ``main`` kernel computes a node's results, a ``sizes`` kernel its data-dependent dims. ``op``
    is a title made of the region's ops. ``arguments`` are the indices of the node's inputs that are
    passed at run time (the others are constants in its code), and ``dims`` the model's dims that it
    takes as int64 scalars behind the tensors. ``node`` is the node that calls it, for messages, and
    ``origins`` are the ONNX nodes that this stands for. It runs on ``device``.
    """

    text: str
    role: str
    op: str
    arguments: tuple[int, ...] = field(compare=False)
    dims: tuple[Dim, ...] = field(compare=False)
    node: str = field(default="", compare=False)
    origins: tuple[str, ...] = field(default=(), compare=False)
    device: str = HOST

    def name(self, target: str, version: str) -> str:
        """A symbol name unique to the kernel's content, the target and the compiler version."""
        content = "\0".join((self.role, target, version, self.text))
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        prefix = "".join(c if c.isalnum() else "_" for c in self.op).lower()
        return f"{prefix}_{digest}"


def inlinable(node: Node, i: int, value: Value) -> bool:
    """Is ``value``, input ``i`` of ``node``, a constant that becomes part of the kernel's code?"""
    array = value.constant
    return array is not None and is_inlinable(array, _uses(node, i))


def _uses(node: Node, i: int) -> list[tuple[Node, int]]:
    """Where input ``i`` of ``node`` is used: in the body of a region."""
    if node.key != "kiln.Region":
        return [(node, i)]
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    return body.uses(body.inputs[i])


def node_region(graph: Graph, node: Node) -> tuple[Graph, tuple[int, ...]]:
    """A closed graph that computes ``node``, and the indices of the inputs that it takes.

    It is the body of a ``kiln.Region``, or a graph of the one op. Inputs that are the same value
    share a parameter; small constants become part of the code. Results that nothing uses are left
    out.
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
        elif inlinable(node, i, v):
            mapped.append(out.add_constant(v.node.attrs["value"], "c"))  # type: ignore[arg-type]
        else:
            arguments.append(i)
            mapped.append(taken.setdefault(v, out.add_input("in", v.type)))
    if node.key == "kiln.Region":
        body = node.attrs["body"]
        assert isinstance(body, Graph)
        results = clone_body(body, out, mapped)
    else:
        results = list(clone_node(node, out, mapped, anonymous=True).values)
    used = [r for r, v in zip(results, node.values, strict=True) if graph.uses(v)]
    out.set_outputs(used, [f"out{i}" for i in range(len(used))])
    return out, tuple(arguments)


class _Renaming:
    """Renames the atoms of dims to ``s0``, ``s1`` ...: symbols, quotients, remainders and extrema.

    A kernel gets the value of ``(N+1)//2`` as one scalar, so that index arithmetic stays linear in
    its scalars: TVM's simplifier is slow on anything else.
    """

    def __init__(self) -> None:
        self.names: dict[Dim, Dim] = {}

    def dim(self, d: Dim) -> Dim:
        return map_atoms(d, self._atom) if isinstance(d, SymExpr) else d

    def _atom(self, atom: Atom) -> Dim:
        return self.names.setdefault(from_atom(atom), sym(f"s{len(self.names)}"))

    def type(self, t: Type) -> Type:
        if isinstance(t, SequenceType):
            return t.with_elem(self.type(t.elem))
        if isinstance(t, OptionalType):
            return OptionalType(self.type(t.elem))
        if t.shape is None:
            return t
        return TensorType(t.dtype, tuple(self.dim(d) for d in t.shape), t.layout)

    def attr(self, value: Attr) -> Attr:
        if isinstance(value, SymExpr):
            return self.dim(value)
        if isinstance(value, tuple):
            return tuple(self.attr(v) for v in value)
        return value

    @property
    def originals(self) -> dict[str, Dim]:
        return {str(new): old for old, new in self.names.items()}


def canonical(region: Graph) -> dict[str, Dim]:
    """Rename the symbols of a region, in place, by order of appearance.

    Returns what each canonical symbol stands for.
    """
    renaming = _Renaming()
    for node in region.topological_all():
        for out in node.outputs:
            if out.type is not None:
                out.type = renaming.type(out.type)
        node.attrs = {k: renaming.attr(v) for k, v in node.attrs.items()}
    return renaming.originals


def kernel_spec(graph: Graph, node: Node, role: str = "main") -> KernelSpec:
    """The kernel of a node (``main``), or of its data-dependent output sizes (``sizes``)."""
    region, arguments = node_region(graph, node)
    originals = canonical(region)
    dims = tuple(originals[s] for s in kernel_symbols(region, role))
    text = print_graph(region, limit=PARAMETER_LIMIT)
    return KernelSpec(
        text, role, _title(region), arguments, dims, node.name, node.origins.names,
        node.device or HOST,
    )  # fmt: skip


def computed_sizes(graph: Graph, node: Node) -> list[Dim]:
    """The dims that a node's ``sizes`` kernel writes, in order.

    They are the symbols that the node introduces. Some may be quotients and the like in the model,
    since the canonical region has a symbol for each of those (:class:`_Renaming`).
    """
    from ..targets.generic.region import fresh_symbols

    region, _ = node_region(graph, node)
    originals = canonical(region)
    (twin,) = region.nodes
    inputs = [None if v is None else v.type for v in region.inputs_of(twin)]
    return [originals[s] for s in fresh_symbols([o.type for o in twin.outputs], inputs)]


def kernel_symbols(region: Graph, role: str) -> list[str]:
    """The symbols whose values a kernel takes as int64 scalars, in order."""
    from ..targets.generic.region import input_symbols, region_symbols

    return input_symbols(region) if role == "sizes" else region_symbols(region)


def dim_atoms(graph: Graph, node: Node) -> set[Dim]:
    """The quotients, remainders and extrema in a node's types, attributes and region."""
    found: set[Dim] = set()

    def visit(value: Any) -> None:
        if isinstance(value, SymExpr):
            for monomial, _ in value.terms:
                found.update(from_atom(a) for a in monomial if not isinstance(a, Symbol))
        elif isinstance(value, tuple):
            for v in value:
                visit(v)
        elif isinstance(value, TensorType):
            visit(value.shape)

    for n in (node, *(node.attrs["body"].nx if node.key == "kiln.Region" else ())):  # type: ignore[union-attr]
        for out in n.outputs:
            visit(out.type)
        for attr in n.attrs.values():
            visit(attr)
    return found


def _title(region: Graph) -> str:
    """A short name: the ops of the region, the first few of them."""
    ops = list(dict.fromkeys(n.op for n in region.topological()))
    return "_".join(ops[:4]) or "copy"
