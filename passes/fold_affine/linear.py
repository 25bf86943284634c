"""Linear ops with constant weights in one form: y[o] = sum over i of x[i] * W[i, o] + b[o].

The op's axis map says which axes are channels. A factor of the weights that both data and result
have is groups; one that only the data have is input channels; one that only the result has is
output channels; the others are positions of a window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ...ir.axes.map import Axes, AxisMap
from ...ir.axes.query import axes_of, factors_of
from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute, spec_of
from ..precision import DROWNING, least_normal, narrowed
from ..queries import single_use

OPS = "Conv|ConvTranspose|Gemm|MatMul"

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Channels:
    """The channels of a linear op with constant weights.

    ``sizes`` are the factors of the weights in their order in memory, of which ``filters`` is the
    place of the outputs of a group. ``order`` is the permutation to groups, inputs of a group,
    outputs of a group, and positions of the window; ``counts`` are the sizes of these four.
    """

    node: Node
    input_axis: int
    output_axis: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    counts: tuple[int, int, int, int]
    filters: int

    @property
    def groups(self) -> int:
        return self.counts[0]

    @property
    def inputs(self) -> int:
        return self.counts[0] * self.counts[1]

    @property
    def outputs(self) -> int:
        return self.counts[0] * self.counts[2]

    @property
    def takes_bias(self) -> bool:
        return spec_of(self.node).max_inputs > 2

    def over_inputs(self, array: np.ndarray, rank: int) -> np.ndarray | None:
        """``array``, broadcast against the op's input of ``rank``, as one number for each input
        channel; None where it varies along another axis."""
        return _spread(array, rank, self.input_axis, self.inputs)

    def over_outputs(self, array: np.ndarray, rank: int) -> np.ndarray | None:
        """:meth:`over_inputs` for the result and output channels."""
        return _spread(array, rank, self.output_axis, self.outputs)

    def unpacked(self, weights: np.ndarray) -> np.ndarray:
        """Weights as (groups, inputs of a group, outputs of a group, positions)."""
        return weights.reshape(self.sizes).transpose(self.order).reshape(self.counts)

    def with_outputs(self, count: int) -> Channels:
        """The channels of such an op with ``count`` outputs in each group."""
        sizes = tuple(count if i == self.filters else d for i, d in enumerate(self.sizes))
        groups, inputs, _, positions = self.counts
        return replace(self, sizes=sizes, counts=(groups, inputs, count, positions))

    def packed(self, weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of :meth:`unpacked`."""
        split = weights.reshape([self.sizes[i] for i in self.order])
        return split.transpose(np.argsort(self.order)).reshape(shape)


def _spread(array: np.ndarray, rank: int, axis: int, count: int) -> np.ndarray | None:
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for a, d in enumerate(shape) if a != axis) or shape[axis] not in (1, count):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (count,))


def channels_of(graph: Graph, node: Node) -> Channels | str:
    """The channels of ``node``, or why its weights cannot be changed."""
    inputs = [*graph.inputs_of(node), None]
    w, bias = inputs[1], inputs[2]
    array = None if w is None else w.constant
    if w is None or array is None or w.dtype not in _FLOATS:
        return "its weights are not floating-point constants"
    if not single_use(graph, w):
        return "its weights are used elsewhere too"
    if bias is not None and bias.constant is None:
        return "its bias is not constant"
    found = linear_form(graph, node)
    if found is None:
        return "its weights are not a matrix"
    if bias is not None and _bias(bias, found.outputs) is None:
        return "its bias varies along another axis"
    return found


def linear_form(graph: Graph, node: Node) -> Channels | None:
    """The channels by the axis map; None if the weights are several matrices, or none."""
    axes = axes_of(graph, node)
    return None if axes is None or len(axes.operands) < 2 else _channels(node, axes)


def _channels(node: Node, axes: AxisMap) -> Channels | None:
    data, weights, (result, *_) = axes.operands[0] or (), axes.operands[1] or (), axes.results
    given, made = _places(data), _places(result or ())
    factors = list(_places(weights))
    groups, inputs, outputs, window = (
        [f for f in factors if (f in given, f in made) == role]
        for role in ((True, True), (True, False), (False, True), (False, False))
    )
    if len(inputs) != 1 or len(outputs) != 1:
        return None
    if any(given[g] != given[inputs[0]] for g in groups):
        return None  # a matrix for each entry of a batch
    sizes = {f: axes.factors[f].size for f in factors}
    known = {f: d for f, d in sizes.items() if isinstance(d, int)}
    if len(known) != len(sizes):
        return None
    parts = (groups, inputs, outputs, window)
    counts = tuple(prod(known[f] for f in part) for part in parts)
    order = tuple(factors.index(f) for part in parts for f in part)
    ends = given[inputs[0]], made[outputs[0]]
    filters = factors.index(outputs[0])
    return Channels(node, *ends, tuple(known.values()), order, counts, filters)  # type: ignore[arg-type]


def _places(tensor: Axes) -> dict[int, int]:
    """The axis that has a factor, for each factor of a tensor."""
    return {f: a for a, axis in enumerate(tensor) for f in factors_of(axis)}


class Linear:
    """A linear op with constant weights, which are changed in float64.

    ``weights`` has the axes (groups, inputs of a group, outputs of a group, positions); ``bias``
    has one element for each output, or is None.
    """

    def __init__(self, graph: Graph, channels: Channels) -> None:
        self.node = channels.node
        self._channels = channels
        self._groups = channels.groups
        inputs = [*graph.inputs_of(self.node), None]
        w, bias = inputs[1], inputs[2]
        assert w is not None and w.constant is not None
        self._original = w.constant
        self._names = w.name, (bias or w).name
        self.weights = channels.unpacked(w.constant.astype(np.float64))
        self._subnormal = np.abs(self.weights) < least_normal(w.constant.dtype)
        self._vanished = np.zeros(self.weights.shape, bool)
        self.bias = None if bias is None else _bias(bias, channels.outputs)
        if self.node.op == "Gemm":
            self.weights = self._product(self.weights, np.float64(attribute(self.node, "alpha")))
            if self.bias is not None:
                self.bias = self.bias * float(attribute(self.node, "beta"))

    def scale_outputs(self, s: np.ndarray) -> None:
        """y -> s*y."""
        self.weights = self._product(self.weights, s.reshape(self._groups, 1, -1, 1))
        if self.bias is not None:
            with np.errstate(all="ignore"):
                self.bias = self.bias * s

    def _product(self, a: np.ndarray, b: np.ndarray | np.float64) -> np.ndarray:
        """``a * b``; remembers whether an element is 0 although neither factor is."""
        with np.errstate(all="ignore"):
            product: np.ndarray = a * b
        self._vanished |= (product == 0) & (a != 0) & (b != 0)
        return product

    def _drowned(self) -> np.ndarray:
        """The weights that may become subnormal.

        They are those that were before, and those of an output that has another weight, or a bias,
        so large that their products vanish in the sum.
        """
        large = np.abs(self.weights).max(axis=(1, 3), keepdims=True, initial=0) >= DROWNING
        if self.bias is not None:
            large |= (np.abs(self.bias) >= DROWNING).reshape(large.shape)
        subnormal: np.ndarray = self._subnormal | large
        return subnormal

    def shift_outputs(self, t: np.ndarray) -> None:
        """y -> y + t."""
        self.bias = t.copy() if self.bias is None else self.bias + t

    def scale_inputs(self, s: np.ndarray) -> None:
        """x -> s*x."""
        self.weights = self._product(self.weights, s.reshape(self._groups, -1, 1, 1))

    def shift_inputs(self, t: np.ndarray) -> None:
        """x -> x + t, for an op that pads nothing."""
        with np.errstate(all="ignore"):
            per_input = self.weights.sum(axis=3) * t.reshape(self._groups, -1, 1)
            self.shift_outputs(per_input.sum(axis=1).reshape(-1))

    def build(self, r: Editor, x: Value) -> Value | None:
        """The op with the new weights, applied to ``x``.

        None if a weight overflowed, became 0, or became subnormal.
        """
        kind = self._original.dtype
        drowned = self._drowned()
        weights = narrowed(self.weights, kind, drowned)
        bias = None if self.bias is None else narrowed(self.bias, kind, True)
        lost = weights is None or self.bias is not None and bias is None
        if weights is None or lost or np.any(self._vanished & ~drowned):
            return None
        packed = self._channels.packed(weights, self._original.shape)
        inputs = [x, r.constant(np.ascontiguousarray(packed), self._names[0])]
        if bias is not None:
            inputs.append(r.constant(bias, self._names[1]))
        attrs = {k: v for k, v in self.node.attrs.items() if k not in ("alpha", "beta")}
        return r.node(self.node.op, inputs, attrs).out()


def _bias(value: Value, count: int) -> np.ndarray | None:
    array = value.constant
    assert array is not None
    if array.size not in (1, count) or array.ndim and array.shape[-1] != array.size:
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (count,))


__all__ = ["OPS", "Channels", "Linear", "channels_of", "linear_form"]
