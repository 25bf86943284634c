"""Checks the shapes of feeds against declared ones, with symbols shared between inputs.

A symbolic dimension is a name or an expression over names in Python's spelling (``N``,
``2*N+1``, ``max(N,3)//2``). A name stands for one size in all inputs of a run; an expression is
checked where the inputs fix all its names.
"""

from __future__ import annotations

from collections.abc import Sequence

from .arithmetic import Expression, parse
from .errors import InputError
from .manifest import Dim, ValueSpec


def check_shape(shape: tuple[int, ...], spec: ValueSpec) -> None:
    """Check rank and static dims. Raises InputError naming the input."""
    if spec.shape is None:
        return
    if len(shape) != len(spec.shape):
        raise InputError(
            f"input {spec.name!r} has rank {len(shape)} (shape {_text(shape)}), the model takes "
            f"rank {len(spec.shape)} ({_text(spec.shape)})"
        )
    for axis, (found, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if type(wanted) is int and found != wanted:
            raise InputError(
                f"input {spec.name!r} has {found} in dimension {axis} (shape {_text(shape)}), the "
                f"model takes {wanted} ({_text(spec.shape)})"
            )


class SymbolCheck:
    """The symbolic dimensions of a set of tensor inputs."""

    def __init__(self, specs: Sequence[ValueSpec]) -> None:
        self._names: list[tuple[int, int, str]] = []
        self._expressions: list[tuple[int, int, str, Expression]] = []
        texts = [
            (index, axis, dim)
            for index, spec in enumerate(specs)
            for axis, dim in enumerate(spec.shape or ())
            if type(dim) is str
        ]
        bound = {dim for _, _, dim in texts if dim.isidentifier()}
        self._specs = specs
        for index, axis, dim in texts:
            expression = None if dim.isidentifier() else parse(dim, bound)
            if expression is None:
                self._names.append((index, axis, dim))
            else:
                self._expressions.append((index, axis, dim, expression))

    def check(self, shapes: Sequence[tuple[int, ...] | None]) -> None:
        """Raises InputError where two inputs disagree. A shape of None is an absent input."""
        sizes: dict[str, int] = {}
        homes: dict[str, str] = {}
        for index, axis, name in self._names:
            shape = shapes[index]
            if shape is None:
                continue
            if sizes.setdefault(name, shape[axis]) != shape[axis]:
                raise InputError(
                    f"input {self._specs[index].name!r} has {shape[axis]} in dimension {axis} "
                    f"({name}), but {name} is {sizes[name]} in input {homes[name]!r}"
                )
            homes.setdefault(name, self._specs[index].name)
        for index, axis, text, expression in self._expressions:
            self._check_expression(index, axis, text, expression, shapes[index], sizes)

    def _check_expression(
        self,
        index: int,
        axis: int,
        text: str,
        expression: Expression,
        shape: tuple[int, ...] | None,
        sizes: dict[str, int],
    ) -> None:
        if shape is None:
            return
        try:
            wanted = expression.evaluate(sizes)
        except (KeyError, ZeroDivisionError):
            return
        if shape[axis] != wanted:
            given = ", ".join(f"{name} is {size}" for name, size in sorted(sizes.items()))
            raise InputError(
                f"input {self._specs[index].name!r} has {shape[axis]} in dimension {axis} "
                f"({text}), it must be {wanted} where {given}"
            )


def _text(shape: Sequence[Dim]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
