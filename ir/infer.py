"""Type inference over a graph, with symbolic values of small integer tensors.

Shapes are often computed by the model itself (``Shape -> Gather -> Concat -> Reshape``). Next to
each value's type inference therefore tracks the *value* of small tensors: constants as they are,
and integer tensors as object arrays whose entries are dims, so that a ``Reshape`` to a computed
target still gets a symbolic shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ..errors import GraphkilnError, UndeterminedError
from .conditions import Condition
from .dims import Dim, substitute, sym
from .graph import Graph, GraphError, Node, Value
from .registry import InferContext, InferenceError, Needs, spec_of
from .symbols import Renames, kept_names, rename_type
from .types import Type, array_type

KNOWN_LIMIT = 4096
"""Tensors with more elements than this are not tracked by value."""

Known: TypeAlias = "dict[Value, np.ndarray]"


def infer_types(
    graph: Graph, known: Known | None = None, collect: dict[Graph, Needs] | None = None
) -> Known:
    """Infer the type of every value of ``graph`` and of its bodies.

    ``known`` are values of graph inputs that the caller knows; ``collect`` receives the conditions
    of the nodes of each graph. Returns the known values of all tensors. Raises
    :class:`InferenceError`, which names the node, if types do not fit.
    """
    values: Known = dict(known or {})
    needs = None
    if collect is not None:
        # A loop's body is inferred again until its types no longer change; the last time counts.
        needs = collect[graph] = Needs()
    for node in graph.topological_all():
        infer_node(graph, node, values, needs, collect)
    return values


def infer_node(
    graph: Graph, node: Node, values: Known, needs: Needs | None = None,
    collect: dict[Graph, Needs] | None = None,
) -> None:  # fmt: skip
    """Infer one node whose inputs have types, and record known results in ``values``.

    The conditions of the node are added to ``needs``, those of nodes in its bodies to ``collect``.
    """
    if node.key in ("Input", "Output"):
        return
    if node.key == "Constant":
        types = make_known(node, values)
    else:
        types = infer_outputs(graph, node, values, needs=needs, collect=collect)
    for out, t in zip(node.outputs, types, strict=False):
        out.type = t


def make_known(node: Node, values: Known) -> list[Type]:
    """The type of a ``Constant``, whose array is recorded in ``values``."""
    array = node.attrs["value"]
    assert isinstance(array, np.ndarray)
    if array.size <= KNOWN_LIMIT:
        values[node.out()] = array
    return [array_type(array)]


def infer_outputs(
    graph: Graph,
    node: Node,
    values: Known,
    sources: list[Value | None] | None = None,
    needs: Needs | None = None,
    collect: dict[Graph, Needs] | None = None,
) -> list[Type]:
    """The types of an operation's outputs, without changing the node; see :func:`infer_node`.

    ``sources`` are its inputs if ``node`` is not in ``graph``.
    """
    inputs = graph.inputs_of(node) if sources is None else sources
    context = make_context(graph, node, inputs, values)
    if needs is not None:
        context.needs = needs
    context.collect = collect
    spec, stated = spec_of(node), len(context.needs.conditions)
    types = _checked(context, spec.infer, node)
    renames = context.introduced and kept_names(node, [o.type for o in node.outputs], types)
    if renames:
        types = [rename_type(t, renames) for t in types]
        own = context.needs.conditions[stated:]
        context.needs.conditions[stated:] = [_renamed(c, renames) for c in own]
    context.results = types
    if spec.propagate is not None:
        _propagate(context, spec.propagate, node, inputs, values)
    return types


def _renamed(c: Condition, renames: Renames) -> Condition:
    return replace(c, a=substitute(c.a, renames), b=substitute(c.b, renames))


def make_context(
    graph: Graph, node: Node, inputs: list[Value | None], values: Known
) -> InferContext:
    """The context of ``node`` for its inference and propagation rules."""
    prefix = "" if graph.name == "main" else f"{_identifier(graph.name)}_"

    def known(index: int) -> np.ndarray | None:
        v = inputs[index] if index < len(inputs) else None
        return None if v is None else values.get(v)

    introduced: list[Dim] = []

    def fresh(_hint: str) -> Dim:
        introduced.append(sym(f"{prefix}u{node.serial}_{len(introduced)}"))
        return introduced[-1]

    types = [None if v is None else v.type for v in inputs]
    return InferContext(graph, node, types, known, fresh, values, introduced=introduced)


def _identifier(name: str) -> str:
    text = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    return text if text[:1].isalpha() else f"g{text}"


def _checked(
    context: InferContext, infer: Callable[[InferContext], list[Type]], node: Node
) -> list[Type]:
    try:
        types = infer(context)
    except GraphError:
        raise
    except UndeterminedError as e:
        raise context.undetermined(e.reason) from e
    except GraphkilnError as e:
        raise context.error(e.reason) from e
    except (ValueError, TypeError, IndexError, KeyError) as e:  # damaged attributes
        raise context.error(f"{type(e).__name__}: {e}") from e
    if len(types) < len(node.outputs):
        raise context.error(f"has {len(node.outputs)} outputs, its op gives {len(types)}")
    return types


def _propagate(
    context: InferContext,
    rule: Callable[[InferContext, list[np.ndarray | None]], list[np.ndarray | None] | None],
    node: Node,
    inputs: Iterable[Value | None],
    values: Known,
) -> None:
    arrays = [None if v is None else values.get(v) for v in inputs]
    results = rule(context, arrays)
    for i, array in enumerate(results or []):
        if array is not None and array.size <= KNOWN_LIMIT and i < len(node.outputs):
            values[node.out(i)] = as_dims(array)


def as_dims(array: Any) -> np.ndarray:
    """An int64 array where every entry is an int, else an object array of dims."""
    array = np.asarray(array)
    if array.dtype != object:
        return array
    if all(isinstance(v, int | np.integer) for v in array.ravel()):
        return array.astype(np.int64)
    return array


__all__ = [
    "InferenceError", "Known", "as_dims", "infer_node", "infer_outputs", "infer_types",
    "make_context", "make_known",
]  # fmt: skip
