"""Parts of transformers: products, normalisation, GELU, attention, embeddings."""

from __future__ import annotations

import numpy as np

from ..net import MICROSOFT, Net, Unfit, Value
from . import Step, grow
from .attention import hidden, linear, microsoft_op, size_of, standard_op, written_out
from .weights import dtype_of_layers, scale, sized, weights


def dense(net: Net) -> Value:
    v = net.pick(lambda v: v.is_float and v.rank >= 2 and v.array.size > 0)
    return linear(net, v, net.choose((1, 3, 4, 8, 16, 17)))


def gemm(net: Net) -> None:
    """Of what is flattened to rows, with constants or with values of the run."""
    v = net.pick(lambda v: v.is_float and v.rank >= 2 and v.array.size > 0)
    rows = net.op("Reshape", v, net.ints(-1, v.shape[-1])) if v.rank > 2 else v
    outputs, width = net.between(1, 9), v.shape[-1]
    turned = net.between(0, 1)
    w = weights(net, v.dtype, (outputs, width) if turned else (width, outputs), width)
    bias = weights(net, v.dtype, net.choose(((outputs,), (1, outputs), (), (1,))))
    more = {"alpha": net.choose((0.5, -1.0)), "beta": net.choose((2.0, 0.0))}
    net.op("Gemm", rows, w, bias if net.chance(0.7) else None, transB=turned,
           **(more if net.chance(0.3) else {}))  # fmt: skip


def product(net: Net) -> None:
    """Of two values of the run, in their several ranks."""
    v = net.pick(lambda v: v.is_float and v.rank >= 2 and 0 < v.array.size <= 512)

    def fits(w: Value) -> bool:
        same = w.dtype == v.dtype and w.rank in (2, v.rank) and 0 < w.array.size <= 512
        return same and w.shape[-1] == v.shape[-1] and (w.rank == 2 or w.shape[:-2] == v.shape[:-2])

    w = net.pick(fits)
    order = [*range(w.rank - 2), w.rank - 1, w.rank - 2]
    scores = net.op("MatMul", v, net.op("Transpose", w, perm=order))
    if net.chance(0.4):
        scores = net.op("Mul", scores, net.constant(net.choose((0.5, 0.125, 0.3)), v.dtype))
    if net.chance(0.4):
        net.op("Softmax", scores, axis=net.choose((-1, -1, -2, 0)))


def normalise(net: Net) -> Value:
    v = net.pick(lambda v: v.is_float and v.rank >= 2 and v.array.size > 0)
    width = (v.shape[-1],)
    factor, offset = scale(net, v.dtype, width), weights(net, v.dtype, width)
    kind = net.choose(("op", "op", "written", "written", "root", "microsoft", "skip"))
    if kind == "op":
        axis = net.choose((-1, -1, v.rank - 1))
        last = offset if net.chance(0.7) else None
        return net.op("LayerNormalization", v, factor, last, axis=axis,
                      epsilon=net.choose((1e-5, 1e-12, 1e-6)))  # fmt: skip
    if kind == "written":
        return written_norm(net, v, factor, offset)
    if kind == "root":
        if net.opset >= 23 and net.chance(0.4):
            return net.op("RMSNormalization", v, factor, axis=-1, epsilon=1e-6)
        return written_root(net, v, factor)
    if v.dtype != np.float32:
        raise Unfit("onnxruntime has no such type")
    if kind == "microsoft":
        return net.op("SimplifiedLayerNormalization", v, factor, axis=-1, epsilon=1e-6)
    other = net.pick(lambda w: hidden(w) and w.shape == v.shape and w.dtype == v.dtype)
    simple = net.chance(0.4)
    rest = [factor] if simple else [factor, offset if net.chance(0.7) else None]
    if net.chance(0.4) and rest[-1] is not None:
        rest.append(weights(net, v.dtype, width))
    name = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    present = [True, False, False, True] if net.chance(0.4) else [True]
    return net.ops(name, present, v, other, *rest, domain=MICROSOFT, epsilon=1e-5)[0]


def written_norm(net: Net, v: Value, factor: Value, offset: Value) -> Value:
    """Mean, squares, root, as torch writes them for old opsets."""
    axes = net.ints(-1)
    mean = net.op("ReduceMean", v, axes)
    away = net.op("Sub", v, mean)
    two = net.constant(2, v.dtype)
    square = net.op("Pow", away, two) if net.chance(0.7) else net.op("Mul", away, away)
    spread = net.op("Add", net.op("ReduceMean", square, axes), net.constant(1e-5, v.dtype))
    unit = net.op("Div", away, net.op("Sqrt", spread))
    out = net.op("Mul", *((unit, factor) if net.chance(0.5) else (factor, unit)))
    return net.op("Add", out, offset) if net.chance(0.8) else out


def written_root(net: Net, v: Value, factor: Value) -> Value:
    """RMSNorm as language models have it, in float32 where they compute in float16."""
    wide = net.op("Cast", v, to=1) if v.dtype == np.float16 else v
    square = net.op("Pow", wide, net.constant(2, wide.dtype))
    mean = net.op("ReduceMean", square, net.ints(-1))
    root = net.op("Sqrt", net.op("Add", mean, net.constant(1e-6, wide.dtype)))
    if net.chance(0.5):
        unit = net.op("Mul", wide, net.op("Reciprocal", root))
    else:
        unit = net.op("Div", wide, root)
    return net.op("Mul", net.op("CastLike", unit, v), factor)


def gelu(net: Net) -> Value:
    v = net.pick(lambda v: v.is_float and v.array.size > 0)

    def number(x: float) -> Value:
        return net.constant(x, v.dtype)

    kind = net.choose(("erf", "erf", "tanh", "tanh", "op", "microsoft", "silu"))
    if kind == "erf":
        how, root = net.choose((("Div", 2**0.5), ("Mul", 0.5**0.5)))
        one = net.op("Add", net.op("Erf", net.op(how, v, number(root))), number(1))
        if net.chance(0.5):
            return net.op("Mul", net.op("Mul", v, one), number(0.5))
        return net.op("Mul", net.op("Mul", v, number(0.5)), one)
    if kind == "tanh":
        if net.chance(0.6):
            cube = net.op("Pow", v, number(3))
        else:
            cube = net.op("Mul", v, net.op("Mul", v, v))
        inner = net.op("Add", v, net.op("Mul", cube, number(0.044715)))
        curve = net.op("Tanh", net.op("Mul", inner, number(0.7978845608028654)))
        return net.op("Mul", net.op("Mul", v, number(0.5)), net.op("Add", curve, number(1)))
    if kind == "op":
        return net.op("Gelu", v, approximate=net.choose(("none", "tanh")))
    if kind == "silu":
        return net.op("Mul", v, net.op("Sigmoid", v))
    if v.dtype != np.float32 or v.rank < 1:
        raise Unfit("onnxruntime has no such type")
    name = net.choose(("Gelu", "BiasGelu", "FastGelu", "QuickGelu"))
    if name == "QuickGelu":
        return net.op(name, v, domain=MICROSOFT, alpha=net.choose((1.702, 1.0)))
    bias = weights(net, v.dtype, v.shape[-1:])
    more = {"BiasGelu": [bias], "FastGelu": [bias] if net.chance(0.5) else []}.get(name, [])
    return net.op(name, v, *more, domain=MICROSOFT)


def residual(net: Net) -> None:
    v = net.pick(hidden)
    w = net.pick(lambda w: w.shape == v.shape and w.dtype == v.dtype and w.name != v.name)
    net.op(net.choose(("Add", "Add", "Add", "Mul")), v, w)


def softmax(net: Net) -> None:
    v = net.pick(lambda v: v.is_float and v.rank > 0 and v.array.size > 0)
    kind = net.choose(("Softmax", "Softmax", "LogSoftmax"))
    net.op(kind, v, axis=net.between(-v.rank, v.rank - 1))


def rows_of(net: Net) -> None:
    """The first or the last token, the mean of tokens, or all of them turned."""
    v = net.pick(hidden)
    kind = net.choose(("Gather", "Slice", "mean", "Transpose", "rows"))
    if kind == "Gather":
        net.op("Gather", v, net.constant(net.choose((0, -1)), np.int64), axis=1)
    elif kind == "Slice":
        net.op("Slice", v, net.ints(-1), net.ints(2**62), net.ints(1))
    elif kind == "mean":
        net.op("ReduceMean", v, net.ints(1), keepdims=net.between(0, 1))
    elif kind == "Transpose":
        net.op("Transpose", v, perm=net.choose(([1, 0, 2], [0, 2, 1])))
    else:
        shape = net.op("Concat", net.ints(-1), size_of(net, v, 2), axis=0)
        net.op("Reshape", v, shape)


def embed(net: Net) -> None:
    """Rows of a table, with positions; some indices count from the end."""
    ids = net.pick(lambda v: v.dtype == np.int64 and v.rank == 2)
    width = net.choose((2, 4, 8))
    dtype = net.inputs[0][0].dtype if net.inputs[0][0].is_float else np.dtype(np.float32)
    rows = net.op("Gather", weights(net, dtype, (net.choose((16, 40)), width)), ids)
    if net.chance(0.5):
        places = net.random(dtype, (64, width))
        end = size_of(net, ids, 1)
        net.op("Add", rows, net.op("Slice", places, net.ints(0), end, net.ints(0)))


STEPS: list[Step] = [
    dense, dense, dense, gemm, product, product, normalise, normalise, normalise, gelu, gelu, gelu,
    residual, residual, softmax, rows_of, embed,
]  # fmt: skip
ATTENTION: list[Step] = [written_out, written_out, written_out, standard_op, microsoft_op]


def transformers(net: Net) -> None:
    """States of open batch and sequence, and a mask or tokens of the same sizes."""
    net.opset = net.choose((21, 23))
    batch, length = sized(net, "B", 1, 3, 0.6), sized(net, "S", 1, 6, 0.6)
    net.input(dtype_of_layers(net), [batch, length, net.choose((2, 4, 4, 8, 16, 17))])
    if net.chance(0.7):
        net.input(np.int64, [batch, length], 0, 1 if net.chance(0.7) else 15)
    if net.chance(0.45):
        grow(net, ATTENTION, 1)
        grow(net, STEPS, net.between(0, 1))
    else:
        grow(net, STEPS, net.between(1, 4))


FAMILIES = {"transformers": transformers}

__all__ = ["FAMILIES"]
