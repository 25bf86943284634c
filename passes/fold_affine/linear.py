"""Linear ops with constant weights, seen alike: y[o] = sum over i of x[i] * W[i, o] + b[o].

========================  ======================================  ==============  ============
op                        weights                                 input channel   output channel
========================  ======================================  ==============  ============
Conv, ``group`` g         [O, I/g, kernel...]                     axis 1          axis 1
ConvTranspose, group g    [I, O/g, kernel...]                     axis 1          axis 1
Gemm                      [K, N], or [N, K] with ``transB``       last axis       last axis
MatMul                    [K, N]                                  last axis       last axis
========================  ======================================  ==============  ============
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute
from ..precision import DROWNING, least_normal, narrowed
from ..queries import single_use

OPS = "Conv|ConvTranspose|Gemm|MatMul"

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Channels:
    """How many channels a linear op with constant weights has, and along which axis."""

    node: Node
    groups: int
    inputs: int
    outputs: int

    @property
    def takes_bias(self) -> bool:
        return self.node.op != "MatMul"

    def spread(self, array: np.ndarray, rank: int, count: int) -> np.ndarray | None:
        """``array``, broadcast against the op's input or output of ``rank``, as one number for
        each of ``count`` channels; None where it varies along another axis."""
        axis = 1 if _is_convolution(self.node) else rank - 1
        if array.ndim > rank:
            return None
        shape = (1,) * (rank - array.ndim) + array.shape
        if any(d != 1 for a, d in enumerate(shape) if a != axis) or shape[axis] not in (1, count):
            return None
        return np.broadcast_to(array.astype(np.float64).reshape(-1), (count,))


def _is_convolution(node: Node) -> bool:
    """Is this linear op one whose weights have a group, channels and a kernel?"""
    return node.op.startswith("Conv")


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
    if not _is_convolution(node):
        if array.ndim != 2:
            return "its weights are not a matrix"
        k, n = array.shape[::-1] if node.op == "Gemm" and attribute(node, "transB") else array.shape
        found = Channels(node, 1, k, n)
    else:
        g = int(attribute(node, "group"))
        first, second = array.shape[0], array.shape[1] * g
        found = Channels(node, g, *((second, first) if node.op == "Conv" else (first, second)))
    if bias is not None and _bias(bias, found.outputs) is None:
        return "its bias varies along another axis"
    return found


class Linear:
    """A linear op whose weights are constants, taken apart in float64.

    ``weights`` has the axes (groups, inputs of a group, outputs of a group, kernel); ``bias`` one
    element for each output, or is None.
    """

    def __init__(self, graph: Graph, channels: Channels) -> None:
        self.node = channels.node
        self._groups = channels.groups
        inputs = [*graph.inputs_of(self.node), None]
        w, bias = inputs[1], inputs[2]
        assert w is not None and w.constant is not None
        self._original = w.constant
        self._names = w.name, (bias or w).name
        self.weights = _unpacked(self.node, w.constant.astype(np.float64))
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
        """``a * b``; remembers where that is 0 although neither is."""
        with np.errstate(all="ignore"):
            product: np.ndarray = a * b
        self._vanished |= (product == 0) & (a != 0) & (b != 0)
        return product

    def _drowned(self) -> np.ndarray:
        """The weights that may lose digits.

        Those below the normal numbers that were so before, or whose output has another weight or
        a bias so large that it drowns them.
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

        None where a weight overflowed, vanished, or became too small for all of its digits.
        """
        kind = self._original.dtype
        drowned = self._drowned()
        weights = narrowed(self.weights, kind, drowned)
        bias = None if self.bias is None else narrowed(self.bias, kind, True)
        lost = weights is None or self.bias is not None and bias is None
        if weights is None or lost or np.any(self._vanished & ~drowned):
            return None
        packed = _packed(self.node, weights, self._original.shape)
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


def _unpacked(node: Node, w: np.ndarray) -> np.ndarray:
    if node.op == "MatMul":
        return w[None, :, :, None]
    if node.op == "Gemm":
        kn = w.T if attribute(node, "transB") else w
        return kn[None, :, :, None]
    g = int(attribute(node, "group"))
    flat = w.reshape(g, w.shape[0] // g, w.shape[1], -1)
    return flat.swapaxes(1, 2) if node.op == "Conv" else flat


def _packed(node: Node, w: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weights in the layout of the op; those of Gemm hold alpha already."""
    if not _is_convolution(node):
        kn = w[0, :, :, 0]
        return kn.T if node.op == "Gemm" and attribute(node, "transB") else kn
    return (w.swapaxes(1, 2) if node.op == "Conv" else w).reshape(shape)


__all__ = ["OPS", "Channels", "Linear", "channels_of"]
