"""Inlining of control flow: a question that is asked before a body takes the place of its node."""

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
    """Are the sizes that nodes of a body use also known to them once it is inlined into ``graph``?

    A body runs after all of its inputs are computed, and the sizes in their types are known in all
    of it. After inlining, a node only waits for its own inputs, so sizes must be in the types of
    these. ``results`` are what the body returns for its next iteration.
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
