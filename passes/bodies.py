"""Bodies of control flow that take the place of their node."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.dims import free_symbols, sym
from ..ir.graph import Graph, Value
from ..ir.symbols import (
    Renames,
    carried_symbols,
    collect_arguments,
    loose_symbols,
)
from .queries import input_symbols


def sizes_known(
    graph: Graph, body: Graph, inputs: Sequence[Value | None], results: Sequence[Value] = ()
) -> bool:
    """Are the sizes that a body mentions known at once where it is inlined into ``graph``?

    A body runs when its inputs are there, whose types tell their sizes. Nodes of ``graph`` do not
    wait for sizes that none of their inputs carries. ``results`` are what the body returns for
    its next iteration.
    """
    loose = loose_symbols(body, checks=False)
    if not loose:
        return True
    known = input_symbols(graph)
    later = known | carried_symbols(body.inputs)
    iterations = [(p, a, known) for p, a in zip(body.inputs, inputs, strict=True) if a is not None]
    iterations += [(p, r, later) for p, r in zip(body.inputs[2:], results, strict=False)]
    return all(_sizes(p, a, loose) <= bound for p, a, bound in iterations)


def _sizes(parameter: Value, argument: Value, loose: frozenset[str]) -> frozenset[str]:
    """The symbols that stand for ``loose`` ones of a body's input where it is inlined."""
    renames: Renames = {}
    collect_arguments(parameter.type, argument.type, renames)
    carried = carried_symbols([parameter]) & loose
    return frozenset().union(*(free_symbols(renames.get(s, sym(s))) for s in carried))


__all__ = ["sizes_known"]
