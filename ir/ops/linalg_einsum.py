"""``Einsum``: its equation, and type inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import OperandError
from ..axes.build import Builder, rule
from ..axes.map import AxisMap, Combine, whole
from ..conditions import Relation
from ..dims import Dim
from ..graph import Node, Value
from ..registry import InferContext, attribute, op
from ..shapes import broadcast_dim
from ..traits import Trait
from ..types import Shape, Type
from .shape_values import numel

_ELLIPSIS = "..."


@dataclass(frozen=True)
class Einsum:
    """A parsed equation: the labels of each operand's axes, and those of the result's.

    A label is a letter, or ``.0``, ``.1`` ... for the axes of an ellipsis counted from its end.
    """

    operands: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]

    def extents(self, shapes: Sequence[Shape]) -> dict[str, Dim]:
        """The dim of every label; raises ``ValueError`` where operands disagree."""
        found: dict[str, Dim] = {}
        for labels, shape in zip(self.operands, shapes, strict=True):
            for label, d in zip(labels, shape, strict=True):
                found[label] = broadcast_dim(found.get(label, 1), d)
        return found


def parse_einsum(equation: str, ranks: Sequence[int]) -> Einsum:
    """The equation for operands of these ranks; raises ``ValueError`` where it does not fit."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise OperandError(f"equation {equation!r} has {len(terms)} terms for {len(ranks)} inputs")
    operands = tuple(_labels(t, rank) for t, rank in zip(terms, ranks, strict=True))
    dots = max((sum(map(_is_dot, labels)) for labels in operands), default=0)
    if arrow:
        output = _term_labels(right, dots)
    else:
        counts = Counter(label for labels in operands for label in labels)
        once = sorted(c for c, n in counts.items() if n == 1 and not _is_dot(c))
        output = (*_dots(dots), *once)
    known = {label for labels in operands for label in labels}
    if not known.issuperset(output) or len(set(output)) != len(output):
        raise OperandError(f"the result of equation {equation!r} repeats an index or invents one")
    return Einsum(operands, output)


def _labels(term: str, rank: int) -> tuple[str, ...]:
    letters = len(term.replace(_ELLIPSIS, ""))
    labels = _term_labels(term, rank - letters)
    if len(labels) != rank:
        raise OperandError(f"term {term!r} does not fit an input of rank {rank}")
    return labels


def _term_labels(term: str, dots: int) -> tuple[str, ...]:
    before, ellipsis, after = term.partition(_ELLIPSIS)
    if not f"{before}{after}".isalpha() and before + after:
        raise OperandError(f"term {term!r} holds more than letters and one ellipsis")
    return (*before, *(_dots(dots) if ellipsis else ()), *after)


def _dots(count: int) -> list[str]:
    return [f".{i}" for i in reversed(range(count))]


def _is_dot(label: str) -> bool:
    return label.startswith(".")


def _flops(node: Node, inputs: Sequence[Value | None]) -> Dim:
    shapes = [v.shape for v in inputs if v is not None]
    einsum = parse_einsum(attribute(node, "equation"), [len(s) for s in shapes])
    return 2 * numel(tuple(einsum.extents(shapes).values()))


@rule
def einsum_axes(b: Builder) -> AxisMap | None:
    """Each label is a factor, which is summed if the result does not have it."""
    shapes = [b.shape(i) for i in range(len(b.inputs))]
    einsum = parse_einsum(b.attr("equation"), [len(shape) for shape in shapes])
    sizes = einsum.extents(shapes)
    axes = {
        label: whole(b.factor(d) if label in einsum.output else b.reduced(d, Combine.SUM))
        for label, d in sizes.items()
    }
    for i, labels in enumerate(einsum.operands):
        b.broadcast(i, [axes[c] for c in labels], [sizes[c] for c in labels])
    b.give([axes[c] for c in einsum.output])
    return b.build()


@op(
    "Einsum", traits=(Trait.ANCHOR, Trait.CONTRACTION), flops=_flops,
    axes=einsum_axes,
)  # fmt: skip
def _infer_einsum(ctx: InferContext) -> list[Type]:
    types = [ctx.tensor(i) for i in range(len(ctx.inputs))]
    einsum = parse_einsum(ctx.attr("equation"), [t.rank for t in types])
    extents = einsum.extents([t.dims for t in types])
    for labels, t in zip(einsum.operands, types, strict=True):
        for label, d in zip(labels, t.dims, strict=True):
            why = f"one size of index {label!r}"
            ctx.require(Relation.BROADCAST_TO, d, extents[label], why)
        _require_diagonals(ctx, labels, t.dims)
    return [types[0].with_shape(tuple(extents[label] for label in einsum.output))]


def _require_diagonals(ctx: InferContext, labels: Sequence[str], dims: Shape) -> None:
    """Record that axes with the same label have equal sizes: a diagonal does not broadcast."""
    first: dict[str, Dim] = {}
    for label, d in zip(labels, dims, strict=True):
        ctx.require_equal(first.setdefault(label, d), d, f"one size of index {label!r}")
