"""Models under construction: every value is known for one feed, so that what is added fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from .evaluate import IR_VERSION, MICROSOFT, Unfit, element, evaluate_nodes, opsets

OPSET = 21

SIZE_LIMIT = 4_096
"""Elements of a result at most: small graphs show the same faults, sooner."""

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, and what it holds for the net's first feed."""

    name: str
    array: np.ndarray
    constant: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim

    @property
    def is_float(self) -> bool:
        return is_float(self.dtype)

    @property
    def is_integer(self) -> bool:
        return self.dtype.kind in "iu"

    @property
    def largest(self) -> float:
        """The largest finite magnitude, 0 where there is none."""
        if self.dtype.kind not in "iuf" and not self.is_float:
            return 0.0
        wide = np.abs(self.array.astype(np.float64))
        return float(wide[np.isfinite(wide)].max(initial=0.0))


def is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype == ml_dtypes.bfloat16


@dataclass
class Net:
    """A graph that grows by :meth:`op`; ``rng`` decides everything about it.

    An input's dims are ints or names; ``sizes`` says how large the named ones are in the first
    feed. The net of a body names what it makes with a ``prefix`` of its own.
    """

    rng: np.random.Generator
    inputs: list[tuple[Value, tuple[int | str, ...]]] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    count: int = 0
    opset: int = OPSET
    prefix: str = ""

    # ---- chance ------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def between(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, fits: Any = None) -> Value:
        """One of the later values that fit; raises :class:`Unfit` where none does."""
        found = [v for v in self.values if fits is None or fits(v)]
        if not found:
            raise Unfit("nothing fits")
        return self.choose(found[-6:])

    # ---- what it is made of ------------------------------------------------------------------

    def input(
        self, dtype: Any, dims: Sequence[int | str], low: float = -2.0, high: float = 2.0
    ) -> Value:
        """An input of random numbers; named dims take their size from :attr:`sizes`."""
        name = f"x{len(self.inputs)}"
        shape = tuple(d if isinstance(d, int) else self.size(d) for d in dims)
        value = Value(name, random_array(self.rng, dtype, shape, low, high))
        self.ranges[name] = low, high
        self.inputs.append((value, tuple(dims)))
        self.values.append(value)
        return value

    def size(self, symbol: str) -> int:
        return self.sizes.setdefault(symbol, self.between(1, 6))

    def constant(self, array: Any, dtype: Any = None) -> Value:
        name = f"{self.prefix}c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        return Value(name, self.constants[name], constant=True)

    def ints(self, *numbers: int) -> Value:
        return self.constant(np.array(numbers, np.int64))

    def random(
        self, dtype: Any, shape: Sequence[int], low: float = -2.0, high: float = 2.0
    ) -> Value:
        return self.constant(random_array(self.rng, dtype, tuple(shape), low, high))

    def op(self, kind: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Add an operation with one result; raises :class:`Unfit` where it does not fit."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(
        self, kind: str, outputs: int | Sequence[bool], *inputs: Value | None, domain: str = "",
        **attributes: Any,
    ) -> list[Value]:  # fmt: skip
        """Add an operation with several results, all of which may be used later.

        ``outputs`` is how many there are, or which of them the node has.
        """
        present = [True] * outputs if isinstance(outputs, int) else outputs
        names = [self.name(i) if there else "" for i, there in enumerate(present)]
        node = helper.make_node(
            kind, ["" if v is None else v.name for v in inputs], names,
            name=f"{self.prefix}n{self.count}", domain=domain, **attributes,
        )  # fmt: skip
        return self.add([node], [n for n in names if n])

    def name(self, offset: int = 0) -> str:
        """The name of the next result, or of one after it."""
        return f"{self.prefix}v{self.count + offset}"

    def add(self, nodes: Sequence[onnx.NodeProto], ends: Sequence[str]) -> list[Value]:
        """Add nodes of which the results ``ends`` may be used later.

        Names of results come from :meth:`name`. Raises :class:`Unfit` where they do not fit.
        """
        used = {n for node in nodes for n in node.input} | inner_names(nodes)
        known = {v.name: v.array for v in self.values} | self.constants
        given = {n: known[n] for n in sorted(used & known.keys())}
        # Inputs of the graph may be larger: then so may what has no more elements than they.
        limit = max([SIZE_LIMIT, *(a.size for a in given.values())])
        results = evaluate_nodes(nodes, given, ends, self.opset)
        for array in results:
            if not isinstance(array, np.ndarray) or array.size > limit:
                raise Unfit(f"{nodes[-1].op_type}: a result that no test wants")
        self.count += sum(len(n.output) for n in nodes)
        self.nodes.extend(nodes)
        found = [Value(n, a) for n, a in zip(ends, results, strict=True)]
        self.values.extend(found)
        return found

    # ---- the model ---------------------------------------------------------------------------

    def feeds(self) -> Feeds:
        return {v.name: v.array for v, _ in self.inputs}

    def resized(self, sizes: Mapping[str, int]) -> Feeds:
        """Random feeds for other sizes of the named dims."""
        out = {}
        for v, dims in self.inputs:
            shape = tuple(d if isinstance(d, int) else sizes[d] for d in dims)
            out[v.name] = random_array(self.rng, v.dtype, shape, *self.ranges[v.name])
        return out

    def model(self, most_outputs: int = 4) -> onnx.ModelProto:
        """The model whose outputs are what nothing uses, the last few of them."""
        used = {name for n in self.nodes for name in n.input} | inner_names(self.nodes)
        made = {name for n in self.nodes for name in n.output}
        ends = [v for v in self.values if v.name in made and v.name not in used]
        return make_model(
            self.nodes,
            [(v.name, v.dtype, dims) for v, dims in self.inputs],
            [(v.name, v.dtype, v.rank) for v in ends[-most_outputs:]],
            self.constants,
            self.opset,
        )


def inner_names(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that bodies of nodes use."""
    found: set[str] = set()
    for node in nodes:
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                inner = a.g.node
                found |= {n for x in inner for n in x.input} | inner_names(inner)
                found |= {o.name for o in a.g.output}
    return found


def needed_nodes(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes on which the values ``wanted`` depend, in their order."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= {n for n in node.input if n} | inner_names([node])
    return kept[::-1]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, Any, Sequence[int | str]]],
    outputs: Sequence[tuple[str, Any, int | None]],
    constants: Mapping[str, np.ndarray],
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model of what its outputs need; an output's rank may be unknown, its dims always are."""
    kept = needed_nodes(nodes, {name for name, _, _ in outputs})
    needed = {n for node in kept for n in node.input} | inner_names(kept)
    graph = helper.make_graph(
        kept, "random",
        [helper.make_tensor_value_info(n, element(t), list(d)) for n, t, d in inputs],
        [helper.make_tensor_value_info(n, element(t), None if r is None else [None] * r)
         for n, t, r in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items() if n in needed],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=opsets(kept, opset), ir_version=IR_VERSION)


def random_array(
    rng: np.random.Generator, dtype: Any, shape: Sequence[int], low: float, high: float
) -> np.ndarray:
    """Random numbers from ``low`` to ``high``, of which some are whole and some are halves."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.asarray(rng.integers(0, 2, shape), bool)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        lowest, highest = max(int(low), limits.min), min(int(high), limits.max)
        return np.asarray(rng.integers(lowest, highest, shape, endpoint=True, dtype=kind))
    wide = np.asarray(rng.uniform(low, high, shape))
    halves = np.clip(np.round(wide * 2) / 2, low, high)
    return np.asarray(np.where(rng.random(shape) < 0.3, halves, wide)).astype(kind)


__all__ = ["MICROSOFT", "Net", "Unfit", "Value", "element", "make_model", "random_array"]
