"""A node with inputs to evaluate it on, and what its makers draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphkiln.ir.dims import Dim
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import array_type

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """An op with its inputs; those in ``constants`` are parameters that no index may change.

    ``shape_at`` is the attribute, or the number of the input, that holds the shape of the result.
    ``resizable``: its axes may change their sizes, all attributes but that and counts staying.
    """

    key: str
    inputs: list[Array | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    constants: tuple[int, ...] = ()
    shape_at: str | int | None = None
    resizable: bool = True

    def build(
        self, inputs: Sequence[Array | None], opened: Callable[[int], Dim] = int
    ) -> tuple[Graph, Node]:
        """A typed graph of the one node on inputs of these types, each size as ``opened`` says."""
        graph, values = Graph(), []
        for i, array in enumerate(inputs):
            if array is None:
                values.append(None)
            elif i in self.constants:
                values.append(graph.add_constant(array))
            else:
                shape = tuple(map(opened, array.shape))
                values.append(graph.add_input(f"x{i}", array_type(array).with_shape(shape)))
        domain, _, op = self.key.rpartition(".")
        node = graph.add_node(op, values, self.attrs, domain=domain, outputs=self.outputs)
        graph.set_outputs(list(node.values))
        infer_types(graph)
        return graph, node


class Draw:
    """What the makers of cases draw."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self._random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def dim(self, low: int = 1, high: int = 4) -> int:
        return self.draw(st.integers(low, high))

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        return tuple(self.dim() for _ in range(self.dim(low, high)))

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def floats(self, *shape: int) -> Array:
        return self._random.uniform(-2, 2, shape).astype(np.float32)

    def positive(self, *shape: int) -> Array:
        return self._random.uniform(0.5, 2, shape).astype(np.float32)

    def ints(self, low: int, high: int, *shape: int, dtype: str = "int64") -> Array:
        """Integers from ``low`` up to ``high``, exclusive."""
        return self._random.integers(low, max(high, low + 1), shape).astype(dtype)

    def bytes(self, *shape: int) -> Array:
        return self.ints(0, 256, *shape, dtype="uint8")

    def bools(self, *shape: int) -> Array:
        return self._random.random(shape) < 0.5

    def some(self, array: Array) -> Array | None:
        """The array, or nothing."""
        return array if self.flag() else None

    def squeezed(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to ``shape``."""
        kept = [1 if self.draw(st.integers(0, 3)) == 0 else d for d in shape]
        return tuple(kept[self.dim(0, len(kept)) if kept and self.flag() else 0 :])

    def permutation(self, count: int) -> list[int]:
        return [int(i) for i in self._random.permutation(count)]


Maker = Callable[[Draw], Case]
CASES: dict[str, Maker] = {}


def case(*keys: str) -> Callable[[Callable[[Draw, str], Case]], Callable[[Draw, str], Case]]:
    """Decorator: how to make cases of these ops."""

    def register(make: Callable[[Draw, str], Case]) -> Callable[[Draw, str], Case]:
        for key in keys:
            CASES[key] = lambda d, key=key: make(d, key)  # type: ignore[misc]
        return make

    return register


@st.composite
def cases(draw: st.DrawFn, key: str) -> Case:
    """A random case of an op."""
    return CASES[key](Draw(draw))


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


MS = "com.microsoft."
