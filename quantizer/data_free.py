"""Data in the place of samples, where there are none: made up by what the model tells.

    y' = beta + gamma (y - E[y]) / sqrt(Var[y])        E, Var over the batch and places of a channel

Inputs are random numbers, and behind each batch norm of the model the runs put the mean ``beta``
and the deviation ``gamma`` of each channel in the place of their own, which are those that the
model was trained with. (M. Nagel and others, *Data-Free Quantization Through Weight Equalization
and Bias Correction*, 2019, go by these numbers alone; runs carry them on through sums, pools and
activations.) Where a model has no batch norms, its inputs are all that there is to go by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..ir.dims import Dim, evaluate, free_symbols
from ..ir.edit import Editor
from ..ir.graph import Graph, Value
from ..ir.infer import infer_types
from ..ir.registry import attribute, has_trait
from ..ir.shapes import normalize_axis
from ..ir.traits import Trait
from ..ir.types import TensorType, to_numpy_dtype
from ..passes.ranges import Range
from ..passes.services import Feeds

if TYPE_CHECKING:
    from ..passes.base import PassContext

SYNTHETIC = "synthetic inputs"
"""What ranges say that they were found by."""
WARNING = (
    "the ranges are data-free: no real input was seen, so nobody knows how accurate the model is;"
    " check it on samples"
)

_RUNS, _SEED = 16, 0
_BATCH, _EXTENT = 8, 64
"""The sizes of open dims: of the first axis, and of others."""
_FEWEST = 16
"""Numbers of a channel from which a mean and a deviation can be told."""
_CHANNELS = 1
_EPSILON = 1e-5


class DataFreeError(UsageError):
    """Inputs of a model cannot be made up."""


@dataclass(frozen=True)
class Statistics:
    """The mean ``beta`` and the deviation ``gamma`` of the channels of a tensor, ``[C]`` each."""

    beta: np.ndarray
    gamma: np.ndarray


def batch_norms(graph: Graph) -> dict[str, Statistics]:
    """The statistics of each batch norm's result, by its name, in a graph as it was imported."""
    found = {}
    for node in graph.nodes:
        if node.key == "BatchNormalization" and not attribute(node, "training_mode"):
            gamma, beta = (v.constant for v in graph.required_inputs(node)[1:3])
            if gamma is not None and beta is not None:
                found[node.out().name] = Statistics(beta, np.abs(gamma))
    return found


@dataclass
class SyntheticInputs:
    """Feeds for the inputs of ``graph``, always the same.

    Floats are standard normal, or even over the input's range in ``ranges``; integers that look up
    rows of a table are any of them, others 0 or 1. Raises :class:`DataFreeError` for inputs of
    other kinds.
    """

    graph: Graph
    ranges: Mapping[str, Range] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in self.graph.inputs:
            for axis, dim in enumerate(_tensor(value).dims):
                for symbol in sorted(free_symbols(dim)):
                    self.sizes.setdefault(symbol, _EXTENT if axis else _BATCH)

    def __iter__(self) -> Iterator[Feeds]:
        rng = np.random.default_rng(_SEED)
        for _ in range(_RUNS):
            yield {v.name: self._drawn(v, rng) for v in self.graph.inputs}

    def extent(self, dim: Dim) -> int:
        """The size of a dim, where its symbols are those of the inputs."""
        return dim if isinstance(dim, int) else evaluate(dim, self.sizes)

    def _drawn(self, value: Value, rng: np.random.Generator) -> np.ndarray:
        kind = _tensor(value)
        shape = tuple(map(self.extent, kind.dims))
        if kind.dtype.is_float:
            given = self.ranges.get(value.name)
            drawn = rng.standard_normal(shape) if given is None else rng.uniform(
                given.low, given.high, shape
            )  # fmt: skip
            return drawn.astype(to_numpy_dtype(kind.dtype))
        return rng.integers(0, _rows(self.graph, value), shape).astype(to_numpy_dtype(kind.dtype))


def _tensor(value: Value) -> TensorType:
    """The type of an input; raises :class:`DataFreeError` for what has no numbers or no rank."""
    kind = value.type
    if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype.kind not in "iufb":
        raise DataFreeError(f"input {value.name!r} is {kind}, which nothing is made up for: give"
                            " sample data")  # fmt: skip
    return kind


def _rows(graph: Graph, value: Value) -> int:
    """How many numbers an integer input may be, from 0 on: the rows of the smallest table that it
    looks up, as it is or converted, or else 2.
    """
    sizes, waiting = [], [value]
    while waiting:
        for node, index in graph.uses(waiting.pop()):
            if index == 0 and (has_trait(node, Trait.PICKS) or has_trait(node, Trait.CONVERTS)):
                waiting += node.values
            elif index == 1 and node.key == "Gather":
                table = graph.required_inputs(node)[0]
                axis = normalize_axis(int(attribute(node, "axis")), table.rank)
                sizes += [n for n in [table.shape[axis]] if isinstance(n, int)]
    return min(sizes, default=2)


@dataclass(frozen=True)
class MadeUp:
    """What takes the place of samples: inputs, and what is known of tensors behind them."""

    inputs: SyntheticInputs
    statistics: Mapping[str, Statistics]

    @classmethod
    def of(cls, graph: Graph, ranges: Mapping[str, Range]) -> MadeUp:
        """By what a graph tells as it was imported, before its batch norms become weights."""
        return cls(SyntheticInputs(graph.copy(), ranges), batch_norms(graph))

    def replace_data(self, context: PassContext) -> None:
        """Let a context's passes run on made-up inputs, and say so."""
        runner = context.runner

        def run(graph: Graph) -> Callable[[Feeds], list[Any]]:
            return runner(standardized(graph, self.statistics, self.inputs.extent))

        context.data, context.data_from, context.runner = self.inputs, SYNTHETIC, run


def standardized(
    graph: Graph, statistics: Mapping[str, Statistics], extent: Callable[[Dim], int]
) -> Graph:
    """A copy of a graph in which the tensors named have the statistics given, in each run.

    Tensors with too few numbers for each channel to tell their own stay as they are.
    """
    copy = graph.copy()
    editor = Editor(copy, infer_types(copy))
    for value in [v for node in list(copy.nodes) for v in node.values]:
        wanted = statistics.get(value.name)
        if wanted is not None and _tells(value, wanted, extent):
            _standardize(editor, value, wanted)
    return copy


def _tells(value: Value, wanted: Statistics, extent: Callable[[Dim], int]) -> bool:
    kind = value.type
    if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype.name != "float32":
        return False
    if kind.rank <= _CHANNELS or kind.dims[_CHANNELS] != wanted.beta.size:
        return False
    return prod(extent(d) for i, d in enumerate(kind.dims) if i != _CHANNELS) >= _FEWEST


def _standardize(editor: Editor, value: Value, wanted: Statistics) -> None:
    users = {node for node, _ in editor.graph.uses(value)}
    editor.begin("standardize", value.node, hint=value.name)
    axes = editor.constant(np.array([i for i in range(value.rank) if i != _CHANNELS], np.int64))
    shape = tuple(-1 if i == _CHANNELS else 1 for i in range(value.rank))

    def by_channel(numbers: np.ndarray) -> Value:
        return editor.constant(numbers.astype(np.float32).reshape(shape))

    centred = editor.op("Sub", value, editor.op("ReduceMean", value, axes))
    square = editor.op("ReduceMean", editor.op("Mul", centred, centred), axes)
    spread = editor.op("Sqrt", editor.op("Add", square, editor.scalar(_EPSILON, square)))
    scaled = editor.op("Mul", editor.op("Div", centred, spread), by_channel(wanted.gamma))
    editor.replace_uses(value, editor.op("Add", scaled, by_channel(wanted.beta)), only=users)


__all__ = [
    "SYNTHETIC", "WARNING", "DataFreeError", "MadeUp", "Statistics", "SyntheticInputs",
    "batch_norms", "standardized",
]  # fmt: skip
