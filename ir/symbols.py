"""Symbols of data-dependent sizes, and their substitution.

Inference names a size that only the run of a node determines after the node: ``u17_0`` is the first
such size of node 17. Types and dim attributes of later nodes contain such symbols. If the node is
replaced, or the size becomes known, the symbol is substituted in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, zip_longest
from typing import Any

from .bindings import attribute_symbols
from .dims import Dim, SymExpr, free_symbols, substitute, sym, symbol_name
from .graph import Attr, Graph, Node, Value
from .registry import has_trait
from .traits import Trait
from .types import OptionalType, SequenceType, TensorType, Type, type_symbols

Renames = dict[str, Dim]

_FRESH = re.compile(r"(?:^|_)u([0-9]+)_[0-9]+$")


def own_symbol(dim: Dim, node: Node) -> str | None:
    """The name of ``dim`` if it is a symbol that ``node`` itself introduced, else None."""
    if not isinstance(dim, SymExpr):
        return None
    text = str(dim)
    found = _FRESH.search(text)
    return text if found is not None and int(found[1]) == node.serial else None


def collect_renames(node: Node, old: Type | None, new: Type | None, renames: Renames) -> None:
    """Map the symbols that ``node`` introduced in type ``old`` to the dims in type ``new``."""
    nested = SequenceType | OptionalType
    if isinstance(old, nested) and isinstance(new, nested):
        collect_renames(node, old.elem, new.elem, renames)
    if not isinstance(old, TensorType) or not isinstance(new, TensorType):
        return
    if old.shape is None or new.shape is None or len(old.shape) != len(new.shape):
        return
    for a, b in zip(old.shape, new.shape, strict=True):
        symbol = own_symbol(a, node)
        if symbol is not None and a != b and symbol not in free_symbols(b):
            renames[symbol] = b


def kept_names(node: Node, old: Sequence[Type | None], new: Sequence[Type]) -> Renames:
    """What to call the symbols that ``node`` introduced in its ``new`` types.

    A dim that was a symbol of the node in its ``old`` types, and is one again, keeps its name, even
    if another dim is known by now and inference counts from an earlier one. Else a name would mean
    one size in what was made before, and another from now on.
    """
    renames: Renames = {}
    taken: set[str] = set()
    fresh: list[str] = []
    for a, b in _dim_pairs(old, new):
        name = own_symbol(b, node)
        if name is None or name in renames:
            continue
        before = own_symbol(a, node) if a is not None else None
        if before is None or before in taken:
            fresh.append(name)
        else:
            renames[name] = sym(before)
            taken.add(before)
    renames |= _other_names([n for n in fresh if n not in renames and n in taken], renames)
    return {name: d for name, d in renames.items() if d != sym(name)}


def _other_names(names: Iterable[str], renames: Renames) -> Renames:
    """Names that nothing has for symbols whose own are taken."""
    used = {*names, *renames, *map(str, renames.values())}
    found: Renames = {}
    for name in dict.fromkeys(names):
        stem = name.rpartition("_")[0]
        free = next(f"{stem}_{i}" for i in count() if f"{stem}_{i}" not in used)
        used.add(free)
        found[name] = sym(free)
    return found


def _dim_pairs(old: Sequence[Type | None], new: Sequence[Type]) -> Iterator[tuple[Dim | None, Dim]]:
    """The dims of the new types, each with the one in its place in the old types, if any."""
    nested = SequenceType | OptionalType
    for a, b in zip_longest(old[: len(new)], new):
        if isinstance(b, nested):
            yield from _dim_pairs([a.elem if isinstance(a, nested) else None], [b.elem])
        elif b.shape is not None:
            before: Sequence[Dim | None] = (None,) * len(b.shape)
            if isinstance(a, TensorType) and a.shape is not None and len(a.shape) == len(b.shape):
                before = a.shape
            yield from zip(before, b.shape, strict=True)


def rename_type(t: Type, renames: Mapping[str, Dim]) -> Type:
    """``t`` with its symbols substituted, all at once."""
    return _type(t, renames)


def collect_arguments(parameter: Type | None, argument: Type | None, renames: Renames) -> None:
    """Map the symbols in the type of a body's input to the dims of its argument."""
    nested = SequenceType | OptionalType
    if isinstance(parameter, nested) and isinstance(argument, nested):
        collect_arguments(parameter.elem, argument.elem, renames)
    if not isinstance(parameter, TensorType) or not isinstance(argument, TensorType):
        return
    if parameter.shape is None or argument.shape is None:
        return
    if len(parameter.shape) != len(argument.shape):
        return
    for old, new in zip(parameter.shape, argument.shape, strict=True):
        symbol = symbol_name(old)
        if symbol is not None and old != new:
            renames.setdefault(symbol, new)


def loose_symbols(graph: Graph, checks: bool = True) -> frozenset[str]:
    """The symbols that some node of a graph uses, but that are in no type of its inputs.

    They must have values before the graph runs, since no edge orders the node after the one that
    determines them. Without ``checks``, check nodes are left out: they wait for their symbols
    wherever they are.
    """
    found: set[str] = set()
    for node in graph.nodes:
        if not checks and has_trait(node, Trait.EFFECT):
            continue
        mentioned = attribute_symbols(node).union(
            *(loose_symbols(body, checks) for _, body in graph.bodies(node))
        )
        found |= mentioned - carried_symbols(graph.inputs_of(node)) if mentioned else set()
    return frozenset(found)


def carried_symbols(values: Iterable[Value | None]) -> frozenset[str]:
    """The symbols in the types of values."""
    types = [v.type for v in values if v is not None]
    return frozenset().union(*(type_symbols(t) for t in types if t is not None))


def rename_symbols(graph: Graph, renames: Mapping[str, Dim]) -> None:
    """Substitute in all types and attributes of ``graph`` and of the graphs inside it."""
    closed = _closed(renames)
    for node in graph.nx:
        for out in node.outputs:
            if out.type is not None:
                out.type = _type(out.type, closed)
        rename_attrs(node.attrs, closed)


def rename_attrs(attrs: dict[str, Attr], renames: Mapping[str, Dim]) -> None:
    """Substitute in the attributes of one node, in place."""
    if not renames:
        return
    for key, value in attrs.items():
        if isinstance(value, Graph):
            rename_symbols(value, renames)
        elif isinstance(value, SymExpr | tuple):
            attrs[key] = _attr(value, renames)


def _closed(renames: Mapping[str, Dim]) -> Renames:
    """``renames`` with its own right-hand sides substituted, so that it is applied only once."""
    done: Renames = dict(renames)
    for _ in range(8):
        again = {s: substitute(d, done) for s, d in done.items()}
        if again == done:
            break
        done = again
    return done


def _type(t: Type, renames: Mapping[str, Dim]) -> Type:
    if isinstance(t, SequenceType | OptionalType):
        return type(t)(_type(t.elem, renames))
    if t.shape is None or not any(isinstance(d, SymExpr) for d in t.shape):
        return t
    return t.with_shape(tuple(substitute(d, renames) for d in t.shape))


def _attr(value: Any, renames: Mapping[str, Dim]) -> Any:
    if isinstance(value, SymExpr):
        return substitute(value, renames)
    if isinstance(value, tuple):
        return tuple(_attr(v, renames) for v in value)
    return value


__all__ = [
    "Renames", "carried_symbols", "collect_arguments", "collect_renames", "kept_names",
    "loose_symbols", "own_symbol", "rename_attrs", "rename_symbols", "rename_type",
]  # fmt: skip
