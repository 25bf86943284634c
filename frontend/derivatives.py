"""Derivatives of ops: those of a node's inputs, given that of its result.

A rule gets a :class:`Local` and returns, for each input, a function that builds its derivative, or
None if there is none. Derivatives may have the shape of the result: they are summed over broadcast
axes afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..ir.graph import Node, Value
from ..ir.onnx_types import element_code
from ..ir.registry import attribute
from ..ir.shapes import normalize_axis
from .emit import Emit
from .errors import ImportFault
from .term import Term

Part: TypeAlias = "Callable[[], Term] | None"
Rule: TypeAlias = "Callable[[Local], Sequence[Part]]"


@dataclass(frozen=True)
class Local:
    """A node: its inputs, its result, and ``grad``, the derivative with respect to the result."""

    node: Node
    inputs: Sequence[Value | None]
    output: Value
    total: Value
    emit: Emit

    @property
    def grad(self) -> Term:
        return Term(self.total, self.emit)

    @property
    def result(self) -> Term:
        return Term(self.output, self.emit)

    def x(self, index: int = 0) -> Term:
        value = self.inputs[index]
        assert value is not None
        return Term(value, self.emit)

    def attr(self, name: str) -> Any:
        return attribute(self.node, name)

    def op(self, name: str, *operands: Term, **attrs: Any) -> Term:
        return Term(self.emit(name, *(t.value for t in operands), **attrs), self.emit)

    @property
    def zero(self) -> Term:
        """The number 0 in the type of the derivative."""
        return Term(self.emit.scalar(0, self.total), self.emit)


def unbroadcast(part: Value, like: Value, emit: Emit) -> Value:
    """``part`` summed over the axes along which ``like`` was broadcast to its shape.

    Raises :class:`ImportFault` if these depend on sizes that are only known at run time.
    """
    have, want = emit.dims(part), emit.dims(like)
    extra = len(have) - len(want)
    if extra > 0:
        part = emit("ReduceSum", part, emit.ints(range(extra)), keepdims=0)
    pairs = list(zip(have[extra:], want, strict=True))
    if any(h != w and w != 1 for h, w in pairs):
        raise ImportFault(f"whether {like.name!r} is broadcast must be known to differentiate it")
    axes = [i for i, (h, w) in enumerate(pairs) if h != w]
    return emit("ReduceSum", part, emit.ints(axes), keepdims=1) if axes else part


# ---- elementwise ops -----------------------------------------------------------------------------


def _unary(rule: Callable[[Local], Term]) -> Rule:
    return lambda at: [lambda: rule(at)]


def _pow(at: Local) -> Sequence[Part]:
    base, exponent = at.x(0), at.x(1)
    return [
        lambda: at.grad * exponent.like(base) * base ** (exponent - 1.0),
        lambda: (at.grad * at.result * base.apply("Log")).like(exponent),
    ]


def _prelu(at: Local) -> Sequence[Part]:
    grad = at.grad
    return [
        lambda: at.x().where_positive(grad, grad * at.x(1)),
        lambda: at.x().where_positive(at.zero, grad * at.x()),
    ]


def _where(at: Local) -> Sequence[Part]:
    return [
        None,
        lambda: at.op("Where", at.x(), at.grad, at.zero),
        lambda: at.op("Where", at.x(), at.zero, at.grad),
    ]


def _cast(at: Local) -> Term:
    return at.op("Cast", at.grad, to=element_code(at.x().value.dtype))


def _elu(at: Local) -> Term:
    return at.x().where_positive(at.grad, at.grad * (at.result + float(at.attr("alpha"))))


# ---- products ------------------------------------------------------------------------------------


def _matmul(at: Local) -> Sequence[Part]:
    if min(at.emit.rank(at.x(i).value) for i in (0, 1)) < 2:
        raise ImportFault("cannot differentiate products with vectors")
    return [
        lambda: at.op("MatMul", at.grad, _with_swapped_axes(at, at.x(1))),
        lambda: at.op("MatMul", _with_swapped_axes(at, at.x(0)), at.grad),
    ]


def _with_swapped_axes(at: Local, x: Term) -> Term:
    """``x`` with its last two axes swapped."""
    rank = at.emit.rank(x.value)
    return at.op("Transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))


def _gemm(at: Local) -> Sequence[Part]:
    alpha, beta = float(at.attr("alpha")), float(at.attr("beta"))
    turn_a, turn_b = int(at.attr("transA")), int(at.attr("transB"))
    grad = at.grad

    def product(a: Term, b: Term, **transposed: int) -> Term:
        return at.op("Gemm", a, b, alpha=alpha, **transposed)

    def left() -> Term:
        if turn_a:
            return product(at.x(1), grad, transA=turn_b, transB=1)
        return product(grad, at.x(1), transB=1 - turn_b)

    def right() -> Term:
        if turn_b:
            return product(grad, at.x(0), transA=1, transB=turn_a)
        return product(at.x(0), grad, transA=1 - turn_a)

    return [left, right, lambda: grad * beta]


# ---- shapes and reductions -----------------------------------------------------------------------


def _reshaped(at: Local) -> Term:
    return at.op("Reshape", at.grad, at.op("Shape", at.x()))


def _transposed(at: Local) -> Term:
    perm = at.attr("perm")
    if perm is None:
        return at.op("Transpose", at.grad)
    return at.op("Transpose", at.grad, perm=tuple(int(i) for i in np.argsort(perm)))


def _spread(at: Local) -> Term:
    """The derivative of a sum over axes: the same number for all terms."""
    grad, axes = at.grad, _axes(at)
    if not at.attr("keepdims") and axes:
        grad = at.op("Unsqueeze", grad, Term(at.emit.ints(axes), at.emit))
    return at.op("Expand", grad, at.op("Shape", at.x()))


def _axes(at: Local) -> list[int]:
    rank = at.emit.rank(at.x().value)
    given = at.inputs[1] if len(at.inputs) > 1 else None
    if given is None:
        return [] if at.attr("noop_with_empty_axes") else list(range(rank))
    known = at.emit.known(given)
    if known is None:
        raise ImportFault("the axes of a reduction must be known to differentiate it")
    found = [normalize_axis(int(a), rank) for a in known.reshape(-1)]
    if not found and not at.attr("noop_with_empty_axes"):
        return list(range(rank))
    return sorted(found)


def _mean(at: Local) -> Term:
    total = _spread(at)
    return total * (at.op("Size", at.result).like(total) / at.op("Size", at.x()).like(total))


def _softmax(at: Local) -> Term:
    axis = at.emit.ints([int(at.attr("axis"))])
    weighed = at.grad * at.result
    total = at.op("ReduceSum", weighed, Term(axis, at.emit), keepdims=1)
    return weighed - at.result * total


DERIVATIVES: Mapping[str, Rule] = {
    "Abs": _unary(lambda at: at.grad * at.x().apply("Sign")),
    "Add": lambda at: [lambda: at.grad, lambda: at.grad],
    "Cast": _unary(_cast),
    "Cos": _unary(lambda at: -(at.grad * at.x().apply("Sin"))),
    "Div": lambda at: [
        lambda: at.grad / at.x(1),
        lambda: -(at.grad * at.result / at.x(1)),
    ],
    "Elu": _unary(_elu),
    "Exp": _unary(lambda at: at.grad * at.result),
    "Flatten": _unary(_reshaped),
    "Gemm": _gemm,
    "Identity": _unary(lambda at: at.grad),
    "LeakyRelu": _unary(
        lambda at: at.x().where_positive(at.grad, at.grad * float(at.attr("alpha")))
    ),
    "Log": _unary(lambda at: at.grad / at.x()),
    "MatMul": _matmul,
    "Mul": lambda at: [lambda: at.grad * at.x(1), lambda: at.grad * at.x(0)],
    "Neg": _unary(lambda at: -at.grad),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _unary(lambda at: -(at.grad * at.result * at.result)),
    "ReduceMean": _unary(_mean),
    "ReduceSum": _unary(_spread),
    "Relu": _unary(lambda at: at.x().where_positive(at.grad, at.zero)),
    "Reshape": _unary(_reshaped),
    "Sigmoid": _unary(lambda at: at.grad * at.result * (1.0 - at.result)),
    "Sin": _unary(lambda at: at.grad * at.x().apply("Cos")),
    "Softmax": _unary(_softmax),
    "Softplus": _unary(lambda at: at.grad * at.x().apply("Sigmoid")),
    "Sqrt": _unary(lambda at: at.grad / (at.result + at.result)),
    "Squeeze": _unary(_reshaped),
    "Sub": lambda at: [lambda: at.grad, lambda: -at.grad],
    "Sum": lambda at: [lambda: at.grad] * len(at.inputs),
    "Tanh": _unary(lambda at: at.grad * (1.0 - at.result * at.result)),
    "Transpose": _unary(_transposed),
    "Unsqueeze": _unary(_reshaped),
    "Where": _where,
}
"""The rule of each op, by its key."""
