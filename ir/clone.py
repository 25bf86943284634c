"""Copies of nodes and of whole bodies, in any graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .graph import Attr, Graph, GraphError, Node, Value
from .origins import NONE


def clone_node(
    node: Node, into: Graph, inputs: Sequence[Value | None], *, anonymous: bool = False
) -> Node:
    """A copy of ``node`` in ``into`` on other ``inputs``, with the same types.

    ``anonymous`` copies are named ``v`` and have no origins and no device, so that equal
    computations are equal graphs, whatever model they come from.
    """
    copy = into.add_node(
        node.op, inputs, clone_attrs(node),
        outputs=["v" if anonymous else o.name for o in node.outputs],
        types=[o.type for o in node.outputs], domain=node.domain,
        name="" if anonymous else node.name, origins=NONE if anonymous else node.origins,
    )  # fmt: skip
    copy.device = "" if anonymous else node.device
    return copy


def clone_attrs(node: Node) -> dict[str, Any]:
    """The attributes of a copy of ``node``: bodies are copied, arrays are shared."""
    return {k: v.copy() if isinstance(v, Graph) else v for k, v in node.attrs.items()}


def clone_body(body: Graph, into: Graph, inputs: Sequence[Value | None]) -> list[Value]:
    """Anonymous copies of the nodes of a closed graph; returns the copies of its results.

    ``inputs`` are used in place of the body's inputs.
    """
    mapping: dict[Value, Value | None] = dict(zip(body.inputs, inputs, strict=True))
    for node in body.topological_all():
        if node.key == "Constant":
            mapping[node.out()] = into.add_constant(constant_of(node), "c")
        elif node.key not in ("Input", "Output"):
            mapped = [None if v is None else mapping[v] for v in body.inputs_of(node)]
            copy = clone_node(node, into, mapped, anonymous=True)
            mapping.update(zip(node.values, copy.values, strict=True))
    return mapped_outputs(body, mapping)


def mapped_outputs(body: Graph, mapping: dict[Value, Value | None]) -> list[Value]:
    """The values that a body's results were copied to.

    Raises :class:`GraphError` if a result is an input that is omitted.
    """
    results = [mapping[v] for v in body.outputs]
    found = [v for v in results if v is not None]
    if len(found) < len(results):
        raise GraphError(f"body {body.name!r} returns an input that is omitted")
    return found


def constant_of(node: Node) -> Any:
    """The array of a ``Constant`` node."""
    value: Attr = node.attrs["value"]
    return value


__all__ = ["clone_attrs", "clone_body", "clone_node", "constant_of", "mapped_outputs"]
