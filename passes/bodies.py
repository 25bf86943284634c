"""Bodies of control flow that take the place of their node."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.dims import free_symbols, sym
from ..ir.graph import Graph, GraphError, Value
from .rewriter import Rewriter, input_symbols
from .symbols import (
    Renames,
    carried_symbols,
    collect_arguments,
    collect_renames,
    loose_symbols,
    rename_attrs,
)


def sizes_known(
    graph: Graph, body: Graph, inputs: Sequence[Value | None], results: Sequence[Value] = ()
) -> bool:
    """Are the sizes that a body mentions known at once where it is inlined into ``graph``?

    A body runs when its inputs are there, whose types tell their sizes. Nodes of ``graph`` do not
    wait for sizes that none of their inputs carries. ``results`` are what the body returns for
    its next turn.
    """
    loose = loose_symbols(body, checks=False)
    if not loose:
        return True
    known = input_symbols(graph)
    later = known | carried_symbols(body.inputs)
    turns = [(p, a, known) for p, a in zip(body.inputs, inputs, strict=True) if a is not None]
    turns += [(p, r, later) for p, r in zip(body.inputs[2:], results, strict=False)]
    return all(_sizes(p, a, loose) <= bound for p, a, bound in turns)


def _sizes(parameter: Value, argument: Value, loose: frozenset[str]) -> frozenset[str]:
    """The symbols that stand for ``loose`` ones of a body's input where it is inlined."""
    renames: Renames = {}
    collect_arguments(parameter.type, argument.type, renames)
    carried = carried_symbols([parameter]) & loose
    return frozenset().union(*(free_symbols(renames.get(s, sym(s))) for s in carried))


def inline(rewriter: Rewriter, body: Graph, inputs: Sequence[Value | None]) -> list[Value]:
    """Copy a closed body to where ``rewriter`` works; returns what its outputs are there.

    Symbols of the body's inputs become the dims that its arguments have, and symbols of
    data-dependent sizes get the names of the copied nodes.
    """
    rewriter.start()
    mapping: dict[Value, Value | None] = dict(zip(body.inputs, inputs, strict=True))
    renames: Renames = {}
    for parameter, argument in mapping.items():
        if argument is not None:
            collect_arguments(parameter.type, argument.type, renames)
    # Checks last: they take no inputs, but may speak of sizes that other nodes introduce.
    for node in sorted(body.topological_all(), key=lambda n: not n.outputs):
        if node.op == "Constant":
            mapping[node.out()] = rewriter.constant(node.attrs["value"], node.outputs[0].name)  # type: ignore[arg-type]
        elif node.op not in ("Input", "Output"):
            attrs = {k: v.copy() if isinstance(v, Graph) else v for k, v in node.attrs.items()}
            rename_attrs(attrs, renames)
            copy = rewriter.node(
                node.op, [None if v is None else mapping[v] for v in body.inputs_of(node)], attrs,
                domain=node.domain, outputs=[o.name for o in node.outputs],
            )  # fmt: skip
            for old, new in zip(node.values, copy.values, strict=True):
                collect_renames(node, old.node.outputs[old.index].type, new.type, renames)
                mapping[old] = new
    results = [mapping[v] for v in body.outputs]
    if any(v is None for v in results):
        raise GraphError(f"body {body.name!r} returns an input that is omitted")
    return results  # type: ignore[return-value]


__all__ = ["inline", "sizes_known"]
