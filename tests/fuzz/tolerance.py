"""How far results may lie apart: from the rounding errors that each operation may make.

A graph is evaluated by the reference several times, each time with every inexact operation wrong
by as much as its class allows (:data:`UNITS`, in units of its type's precision): all up, all down,
and at random. An output may differ from the plain evaluation by :data:`SAFETY` times what these
evaluations differ, and by two units in the last place. So the bound grows with depth and
cancellation, is none for integers and movement, and where a rounding decides (Floor, ArgMax, a
quantisation step), only those elements are free whose value lies within rounding of the border.

Some evaluations are more exact than the types between, as fused kernels are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from graphkiln.ir.bindings import Bindings, known_extent
from graphkiln.ir.conditions import asserted
from graphkiln.ir.evaluators.arithmetic import compute_dtype
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import Interpreter
from graphkiln.ir.registry import attribute

from .excess import keep_excess, stored
from .rounding import Noise, noisy, plain

SAFETY = 4.0
SAMPLES = 9
MORE = 64

UNITS = {
    1.0: "Add Sub Mul Div Sqrt Reciprocal Cast CastLike",
    4.0: "Exp Log Pow PRelu LeakyRelu HardSigmoid HardSwish ThresholdedRelu Shrink Mod "
         "DequantizeLinear Softplus Sin Cos Tan Atan Asin Acos Sinh Cosh Asinh Acosh Atanh",
    8.0: "Tanh Sigmoid Erf Gelu Elu Selu Celu Mish Softsign QuickGelu BiasGelu FastGelu Swish",
}  # fmt: skip
"""Relative errors of a result, in units of precision, by kind of operation."""

_UNITS = {name: units for units, names in UNITS.items() for name in names.split()}

VARIADIC = frozenset({"Sum", "Mean"})
"""Sums of a few operands, rounded to their type after each."""

NEAR_ONE = frozenset({"Elu", "Selu", "Celu", "Softplus"})
"""Functions whose formula may pass by 1, however little is left: ``exp(x) - 1`` near 0,
``log(1 + exp(x))`` far below it."""

FLUSHED = frozenset(
    "Softmax Sigmoid Softplus Mish Swish QuickGelu Elu Celu Selu ReduceLogSumExp LSTM GRU RNN "
    "Attention MultiHeadAttention GroupQueryAttention".split()
)
"""Formulas with powers of e in which those below the least normal number may be 0."""

BLENDS = frozenset({"LSTM", "GRU", "RNN"})
"""States that are sums of terms as large as the largest state, which may cancel to little."""

COMPOSITE = frozenset(
    "Attention MultiHeadAttention GroupQueryAttention LSTM GRU RNN Softmax LogSoftmax "
    "ReduceLogSumExp ReduceL2 LpNormalization LayerNormalization SkipLayerNormalization "
    "RMSNormalization SimplifiedLayerNormalization SkipSimplifiedLayerNormalization "
    "GroupNormalization InstanceNormalization BatchNormalization Gelu BiasGelu FastGelu "
    "RotaryEmbedding".split()
)
"""Formulas with sums inside, whose every step is wrong (:mod:`.rounding`)."""

REPEATED = frozenset({"Loop", "Scan"})
"""What stacks results of a body: without a turn, not all sizes of what it stacks are known."""

# Results that are one of the operands, or that no rounding touches.
EXACT = frozenset(
    "Identity Neg Abs Relu Max Min Clip Sign Floor Ceil Round Where Equal Greater Less "
    "GreaterOrEqual LessOrEqual Not And Or Xor IsNaN IsInf Reshape Transpose Concat Split Slice "
    "Gather GatherElements GatherND ScatterElements ScatterND Scatter Squeeze Unsqueeze Flatten "
    "Expand Tile Pad DepthToSpace SpaceToDepth Shape Size ConstantOfShape Constant Range Trilu "
    "EyeLike OneHot NonZero Compress TopK ArgMax ArgMin ReduceMax ReduceMin MaxPool "
    "GlobalMaxPool ReverseSequence BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot "
    "QuantizeLinear Dropout If Loop Scan SequenceAt SequenceConstruct ConcatFromSequence "
    "SplitToSequence SequenceInsert SequenceErase SequenceLength CenterCropPad MaxUnpool "
    "MaxRoiPool".split()
)


def _is_exact(node: Node) -> bool:
    moves = node.op == "Resize" and attribute(node, "mode") == "nearest"
    return moves or node.op in EXACT


def precision(dtype: np.dtype[Any]) -> float:
    """The relative distance of neighbours; 0 for what is no float."""
    if dtype == ml_dtypes.bfloat16:
        return 2.0**-7
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


class Perturbed(Interpreter):
    """The reference, with each operation wrong by what it may be; ``sign`` is 1, -1 or 0 (random).

    ``factor`` scales the errors. With ``wide``, what is between may be more exact than its type:
    float32 inside of an operation does not overflow, as in a fused multiply-add, and narrower
    floats are float32 between operations. Small powers of e are 0 there (:data:`FLUSHED`). With
    ``fused`` as well, some products inside of an operation overflow and others do not.
    """

    def __init__(
        self, graph: Graph, sign: int, seed: int, factor: float = 1.0, wide: bool = False,
        fused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(graph)
        self._sign = sign
        self._wide = wide
        self._fused = fused
        self._factor = factor
        self._rng = np.random.default_rng(seed)
        engine = self._engine
        exactly = engine.run_node

        def run_node(
            node: Node, inputs: list[Any], bindings: Bindings, *, symbolic: bool | None = None
        ) -> list[Any]:
            inputs = self._inputs(node, inputs)
            if node.op in REPEATED:
                guesses = _Guesses(bindings if _has_turns(node, bindings) else {}, seed)
                outputs = exactly(node, inputs, guesses, symbolic=symbolic)
                bindings.update({**guesses, **bindings})
            elif node.op not in COMPOSITE:
                outputs = exactly(node, inputs, bindings, symbolic=symbolic)
            else:
                outputs = exactly(node, self._noisy(inputs), bindings, symbolic=symbolic)
                outputs = [self._plain(y, inputs) for y in outputs]
            return self._outputs(node, inputs, outputs)

        engine.run_node = run_node  # type: ignore[method-assign]
        if wide:
            keep_excess(self)

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        return [stored(x) for x in super().run(feeds)]

    def _noisy(self, inputs: list[Any]) -> list[Any]:
        """Operands whose arithmetic rounds as a runtime that computes in their type may."""
        floats = [x for x in inputs if isinstance(x, np.ndarray) and precision(x.dtype)]
        unit = max((precision(compute_dtype(x.dtype)) for x in floats), default=0.0)
        single = any(compute_dtype(x.dtype) == np.float32 for x in floats)
        grid = np.dtype(np.float32) if single and not self._wide else None
        products = np.dtype(np.float32) if single and self._fused else None
        noise = Noise(self._rng, unit * self._factor, self._sign, grid, products)
        if self._wide:
            inputs = [x.astype(np.float64) if _is_single(x) else x for x in inputs]
        return [noisy(x, noise) if isinstance(x, np.ndarray) else x for x in inputs]

    def _plain(self, output: Any, inputs: list[Any]) -> Any:
        """A result of :meth:`_noisy` operands as one of the operands themselves."""
        narrow = self._wide and any(_is_single(x) for x in inputs)
        if narrow and isinstance(output, np.ndarray) and output.dtype == np.float64:
            with np.errstate(over="ignore"):
                output = output.astype(np.float32)
        return plain(output)

    def _inputs(self, node: Node, inputs: list[Any]) -> list[Any]:
        """Operands of sums are wrong: their error counts where large terms cancel."""
        if _is_exact(node) or node.op in _UNITS:
            return inputs
        if node.op in VARIADIC:
            return [self._wrong(x, 1.0) for x in inputs]
        if node.op == "Resize":  # its scales are what they are
            return [self._wrong(inputs[0], 4.0), *inputs[1:]]
        steps = terms(inputs)
        return [self._wrong(x, 2.0 * steps**0.5) for x in inputs]

    def _outputs(self, node: Node, inputs: list[Any], outputs: list[Any]) -> list[Any]:
        if _is_exact(node):
            return outputs
        wrong = [self._wrong(x, _UNITS.get(node.op, 4.0)) for x in outputs]
        if node.op in FLUSHED and self._wide:
            wrong = [_flushed(y) for y in wrong]
        if node.op in BLENDS:
            return [self._blended(y) for y in wrong]
        if node.op == "Resize":
            return [self._moved(inputs[0], wrong[0], attribute(node, "mode") == "cubic")]
        return [self._by_one(y) for y in wrong] if node.op in NEAR_ONE else wrong

    def _by_one(self, result: np.ndarray) -> np.ndarray:
        """A result after 1 was added to it, in its type, and taken away."""
        signs = self._sign or self._rng.choice((-1.0, 0.0, 1.0), result.shape)
        one = 1 + precision(result.dtype) * self._factor * np.asarray(signs)
        with np.errstate(all="ignore"):
            sums = np.asarray(result.astype(np.float64) + one).astype(result.dtype)
            return np.asarray(sums - np.ones_like(sums))

    def _blended(self, state: Any) -> Any:
        """A state wrong by half a unit of the largest."""
        if not isinstance(state, np.ndarray):
            return state
        largest = np.abs(state[np.isfinite(state)]).max(initial=0)
        terms = np.full_like(state, largest)
        return np.asarray(state + (self._wrong(terms, 0.5) - terms))

    def _moved(self, image: np.ndarray, result: np.ndarray, cubic: bool) -> np.ndarray:
        """A result whose coordinates are wrong by two units of the extents: that times slopes.

        ONNX's reference has the weights of a ``cubic`` blend in float32, whatever the image is.
        """
        error = 0.0
        for axis, extent in enumerate(image.shape):
            slopes = np.abs(np.diff(image.astype(np.float64), axis=axis))
            error += extent * float(slopes[np.isfinite(slopes)].max(initial=0.0))
        dtype = np.dtype(np.float32) if cubic else compute_dtype(image.dtype)
        unit = precision(dtype) * self._factor
        signs = self._sign or self._rng.choice((-1.0, 1.0), result.shape)
        return np.asarray(result + 2 * unit * error * signs).astype(result.dtype)

    def _wrong(self, value: Any, units: float) -> Any:
        if not isinstance(value, np.ndarray) or not precision(value.dtype):
            return value
        by = units * self._factor * precision(value.dtype)
        signs = self._sign or self._rng.choice((-1.0, 1.0), value.shape)
        with np.errstate(all="ignore"):
            return np.asarray(value.astype(np.float64) * (1 + by * signs)).astype(value.dtype)


def _has_turns(node: Node, bindings: Mapping[str, int]) -> bool:
    """Do the sizes fit a body? Else no turn can tell what an operand that broadcasts becomes."""
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    conditions = [asserted(n.attrs) for n in body.nx if n.key == "kiln.Assert"]
    sizes = [(c, known_extent(c.a, bindings), known_extent(c.b, bindings)) for c in conditions]
    return all(a is None or b is None or c.relation.holds(a, b) for c, a, b in sizes)


class _Guesses(dict[str, int]):
    """Values of symbols, of which those that have none are any number."""

    def __init__(self, known: Mapping[str, int], guess: int) -> None:
        super().__init__(known)
        self._guess = guess

    def __missing__(self, _symbol: str) -> int:
        return self._guess


def _is_single(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32


def _flushed(value: Any) -> Any:
    """0 for what lies below the normal numbers of its type."""
    if not isinstance(value, np.ndarray) or not precision(value.dtype):
        return value
    least = float(ml_dtypes.finfo(value.dtype).smallest_normal)
    return np.where(np.abs(value.astype(np.float64)) < least, np.zeros_like(value), value)


def terms(inputs: list[Any]) -> int:
    """About how many terms a result has: no more than the smallest large operand's elements."""
    sizes = sorted(x.size for x in inputs if isinstance(x, np.ndarray) and x.ndim > 0)
    large = [s for s in sizes if s > 1]
    return max(1, min(large[0], 4_096)) if large else 1


def perturbed(graph: Graph, number: int) -> Perturbed:
    """One of many evaluations: the first is wrong upwards, the second downwards."""
    sign = (1, -1, 0)[min(number, 2)]
    wide = number > 1 and number % 2 == 1
    return Perturbed(graph, sign, number, wide=wide, fused=wide and number % 4 == 1)


def samples(
    graph: Graph, feeds: Mapping[str, Any], numbers: Sequence[int] = range(SAMPLES)
) -> list[list[Any]]:
    """The outputs of evaluations whose operations are wrong by what they may be.

    Those that fail, because rounding decided something about shapes, are left out.
    """
    found = []
    for n in numbers:
        try:
            found.append(perturbed(graph, n).run(feeds))
        except Exception:
            continue
    return found


def difference(got: Any, base: Any, wrong: list[Any]) -> str | None:
    """Why ``got`` is not ``base`` up to the bound; None where it is.

    ``wrong`` are the perturbed evaluations of the same output.
    """
    if isinstance(base, list):
        return _difference_of_lists(got, base, wrong)
    if base is None or got is None:
        return None if got is base else "an empty optional on one side"
    if not isinstance(got, np.ndarray):
        return f"a {type(got).__name__} instead of an array"
    if got.dtype != base.dtype:
        return f"{got.dtype} instead of {base.dtype}"
    if any(w.shape != base.shape for w in wrong):
        return _difference_of_shapes(got, [base, *wrong])
    if got.shape != base.shape:
        return f"shape {got.shape} instead of {base.shape}"
    if base.dtype == object:
        return None if (got == base).all() else "texts differ"
    return _difference_of_arrays(got, base, wrong)


def _difference_of_shapes(got: np.ndarray, free: list[np.ndarray]) -> str | None:
    """Where rounding decides the shape: it is another one in an axis on which all agree."""
    shapes = [x.shape for x in free]
    if len({len(s) for s in shapes}) > 1:
        return None
    fixed = len(got.shape) == len(shapes[0]) and all(
        len(set(sizes)) > 1 or size == sizes[0]
        for size, *sizes in zip(got.shape, *shapes, strict=True)
    )
    return None if fixed else f"shape {got.shape} instead of {shapes[0]}"


def _difference_of_lists(got: Any, base: list[Any], wrong: list[Any]) -> str | None:
    if any(len(w) != len(base) for w in wrong):
        return None
    if not isinstance(got, list) or len(got) != len(base):
        return "sequences of other lengths"
    for i, b in enumerate(base):
        found = difference(got[i], b, [w[i] for w in wrong])
        if found is not None:
            return f"item {i}: {found}"
    return None


def _difference_of_arrays(got: np.ndarray, base: np.ndarray, wrong: list[np.ndarray]) -> str | None:
    if not precision(base.dtype):
        return _difference_of_integers(got, base, wrong)
    # In 80 bits, where the platform has them, so that float64 is compared without error.
    g, b = got.astype(np.longdouble), base.astype(np.longdouble)
    stack = np.stack([w.astype(np.longdouble) for w in wrong] or [b])
    with np.errstate(all="ignore"):
        spread = np.abs(stack - b).max(axis=0)
        units = 2 * np.maximum(np.abs(b) * precision(base.dtype), smallest(base.dtype))
        bad = ~(np.abs(g - b) <= SAFETY * spread + units)
        # Equal infinities have no difference, NaN must be NaN; rounding may decide between them.
        odd = ~np.isfinite(g) | ~np.isfinite(b) | ~np.isfinite(stack).all(axis=0)
        same = (g == b) | (np.isnan(g) & np.isnan(b))
        for w in stack:
            same |= (g == w) | (np.isnan(g) & np.isnan(w))
        undecided = (_kind(stack) != _kind(b)).any(axis=0)
        near = np.abs(b) > float(largest(base.dtype)) / 8
        bad = np.where(odd, ~same & ~undecided & ~near, bad)
    if not bad.any():
        return None
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    allowed = float((SAFETY * spread + units)[where])
    return (
        f"{int(bad.sum())} of {bad.size} differ, at {where} {got[where]!s} instead of "
        f"{base[where]!s}, allowed {allowed:.3g}"
    )


def _kind(value: np.ndarray) -> Any:
    """0 for finite numbers, 1 and -1 for the infinities, 2 for NaN."""
    return np.where(np.isnan(value), 2, np.where(np.isinf(value), np.sign(value), 0))


def _difference_of_integers(
    got: np.ndarray, base: np.ndarray, wrong: list[np.ndarray]
) -> str | None:
    bad = got != base
    if base.dtype.kind in "iu":
        low = np.minimum.reduce([base, *wrong]).astype(object)
        high = np.maximum.reduce([base, *wrong]).astype(object)
        free = low != high
        slack = high - low
        wide = got.astype(object)
        bad &= ~np.asarray(free & (wide >= low - slack) & (wide <= high + slack), bool)
    else:
        for w in wrong:
            bad &= w == base
    if not bad.any():
        return None
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{int(bad.sum())} of {bad.size} differ, at {where} {got[where]} not {base[where]}"


def smallest(dtype: np.dtype[Any]) -> float:
    """The least normal number's last place: below it, precision is absolute."""
    info = ml_dtypes.finfo(dtype)
    return float(info.smallest_normal) * precision(dtype)


def largest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)
