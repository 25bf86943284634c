"""Lowering of ``Einsum``: operands are contracted two at a time, from the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ....ir.ops.linalg_einsum import parse_einsum
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.contract import At, Contraction, contract
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ...tir.reduce import SUM, Group, for_groups
from ..registry import LowerContext, lowering

Labels = tuple[str, ...]


@dataclass(frozen=True)
class _Term:
    """A tensor whose axes have distinct labels."""

    labels: Labels
    tensor: TensorExpr

    def at(self, where: Mapping[str, Expr]) -> Expr:
        return self.tensor[tuple(where[label] for label in self.labels)]


class _Space:
    """The builder, the extent of each label, and the type that sums are kept in."""

    def __init__(self, b: Builder, extents: Mapping[str, Any], dtype: str) -> None:
        self.b = b
        self.extents = extents
        self.dtype = dtype

    def shape(self, labels: Labels) -> tuple[Any, ...]:
        return tuple(self.extents[label] for label in labels)

    def workspace(self, labels: Labels) -> BufferTensor:
        return self.b.workspace(self.shape(labels), self.dtype)


@lowering("Einsum")
def _lower_einsum(ctx: LowerContext) -> TensorExpr:
    inputs = [ctx.input(i) for i in range(len(ctx.inputs))]
    einsum = parse_einsum(ctx.attr("equation"), [x.rank for x in inputs])
    types = [t.dims for t in ctx.input_types if t is not None]
    extents = {label: ctx.b.dim(d) for label, d in einsum.extents(types).items()}
    space = _Space(ctx.b, extents, ctx.input(0).compute_dtype)
    terms = [_term(space, x, labels) for x, labels in zip(inputs, einsum.operands, strict=True)]
    result = terms[0]
    for i, term in enumerate(terms[1:], 1):
        later = {label for t in terms[i + 1 :] for label in t.labels}
        keep = later | set(einsum.output)
        out = ctx.result() if i == len(terms) - 1 else None
        result = _combine(space, result, term, keep, einsum.output if out else None, out)
    result = _sum_out(space, result, set(einsum.output))
    if result.labels == einsum.output and isinstance(result.tensor, BufferTensor):
        return result.tensor
    return ctx.lazy(
        lambda at: result.at(dict(zip(einsum.output, at, strict=True))), cost=1 + result.tensor.cost
    )


def _term(space: _Space, x: TensorExpr, labels: Labels) -> _Term:
    """An operand as a term: repeated labels read the diagonal, axes of extent 1 are broadcast."""
    unique = tuple(dict.fromkeys(labels))
    shape = space.shape(unique)
    if unique == labels and str(shape) == str(tuple(x.shape)):
        return _Term(labels, x)

    def load(at: At) -> Expr:
        where = dict(zip(unique, at, strict=True))
        return x[tuple(_clamped(where[n], e) for n, e in zip(labels, x.shape, strict=True))]

    return _Term(unique, TensorExpr(x.dtype, shape, load, x.cost + 1))


def _clamped(i: Expr, extent: Any) -> Expr:
    if as_int(extent) == 1:
        return index(0)
    return i if as_int(extent) is not None else tirx.min(i, index(extent) - 1)


def _sum_out(space: _Space, term: _Term, keep: set[str]) -> _Term:
    """``term`` summed over the labels that are not in ``keep``."""
    axes = [i for i, label in enumerate(term.labels) if label not in keep]
    if not axes:
        return term
    labels = tuple(label for label in term.labels if label in keep)
    out = space.workspace(labels)

    def program(g: Group) -> None:
        total = g.fold(lambda at: cast(term.tensor[at], space.dtype), SUM, space.dtype)
        g.once(lambda at: out.store(at, total()))

    for_groups(space.b, term.tensor.shape, axes, program, space.dtype)
    return _Term(labels, out)


def _combine(
    space: _Space, a: _Term, b: _Term, keep: set[str], order: Labels | None,
    out: BufferTensor | None,
) -> _Term:  # fmt: skip
    """The product of two terms, summed over the labels that are not in ``keep``.

    For the last product, ``order`` is the order of the result's labels, and ``out`` the memory for
    it.
    """
    a = _sum_out(space, a, keep | set(b.labels))
    b = _sum_out(space, b, keep | set(a.labels))
    inner = [label for label in a.labels if label in b.labels and label not in keep]
    if not inner:
        return _outer(space, a, b)
    if _last(b) not in (*_only(b, a), *inner) or (_last(b) in inner and _last(a) in _only(a, b)):
        a, b = b, a
    labels = order or tuple(dict.fromkeys(n for n in (*a.labels, *b.labels) if n in keep))
    target = out or space.workspace(labels)
    _contract(space, _in_memory(space, a), _in_memory(space, b), inner, labels, target)
    return _Term(labels, target)


def _last(term: _Term) -> str:
    return term.labels[-1] if term.labels else ""


def _only(term: _Term, other: _Term) -> list[str]:
    return [label for label in term.labels if label not in other.labels]


def _in_memory(space: _Space, term: _Term) -> _Term:
    return _Term(term.labels, space.b.materialize(term.tensor))


def _outer(space: _Space, a: _Term, b: _Term) -> _Term:
    labels = tuple(dict.fromkeys((*a.labels, *b.labels)))

    def load(at: At) -> Expr:
        where = dict(zip(labels, at, strict=True))
        return cast(a.at(where), space.dtype) * cast(b.at(where), space.dtype)

    cost = 1 + a.tensor.cost + b.tensor.cost
    return _Term(labels, TensorExpr(space.dtype, space.shape(labels), load, cost))


def _contract(
    space: _Space, a: _Term, b: _Term, inner: Sequence[str], labels: Labels, out: BufferTensor
) -> None:
    """Sum ``a * b`` over ``inner`` into ``out``; lanes run along the last axis of ``b``."""
    *rows, row = _only(a, b) or [""]
    columns = [label for label in _only(b, a) if label != _last(b)]
    column = _last(b) if _last(b) in _only(b, a) else (columns.pop() if columns else "")
    shared = [label for label in a.labels if label in b.labels and label not in inner]
    batch = (*shared, *rows, *columns)
    terms = tuple(sorted(inner, key=lambda label: b.labels.index(label)))

    def where(at: At, k: At | None, i: Expr | None, j: Expr | None) -> dict[str, Any]:
        place = dict(zip(batch, at, strict=True))
        return place | dict(zip(terms, k or (), strict=False)) | {row: i, column: j}

    contract(
        space.b,
        Contraction(
            space.shape(batch),
            space.extents.get(row, 1),
            space.extents.get(column, 1),
            space.shape(terms),
            lambda at, i, k: cast(a.at(where(at, k, i, None)), space.dtype),
            lambda at, k, j: cast(b.at(where(at, k, None, j)), space.dtype),
            lambda at, i, j, value: out.store(
                [where(at, None, i, j)[label] for label in labels], value
            ),
            space.dtype,
        ),
        "inner" if _last(b) in inner else "columns",
    )
