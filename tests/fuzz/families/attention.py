"""Attention: written out as exporters do, and as the operations of ONNX and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from ..net import MICROSOFT, Net, Unfit, Value
from .weights import weights

SMALL = 1_024


def hidden(v: Value) -> bool:
    """[batch, sequence, width] of floats."""
    return v.is_float and v.rank == 3 and v.array.size > 0 and v.shape[2] <= 32


def linear(net: Net, v: Value, outputs: int) -> Value:
    """A product of the last axis by a constant, mostly with a bias."""
    width = v.shape[-1]
    w = weights(net, v.dtype, (width, outputs), width)
    if v.dtype == np.float32 and net.chance(0.08):
        turned = net.constant(np.ascontiguousarray(w.array.T))
        return net.op("FusedMatMul", v, turned, domain=MICROSOFT, transB=1,
                      alpha=net.choose((1.0, 0.5, -2.0)))  # fmt: skip
    out = net.op("MatMul", v, w)
    if net.chance(0.6):
        bias = weights(net, v.dtype, (outputs,))
        out = net.op("Add", *((out, bias) if net.chance(0.5) else (bias, out)))
    return out


def head_counts(width: int) -> list[int]:
    return [n for n in (1, 2, 3, 4, 8) if width % n == 0]


def size_of(net: Net, v: Value, axis: int) -> Value:
    """One size of ``v`` as a list of one number, traced."""
    sizes = net.op("Shape", v)
    if net.chance(0.5):
        return net.op("Slice", sizes, net.ints(axis), net.ints(axis + 1))
    number = net.op("Gather", sizes, net.constant(axis, np.int64))
    return net.op("Unsqueeze", number, net.ints(0))


def split_heads(net: Net, v: Value, heads: int, order: tuple[int, ...] = (0, 2, 1, 3)) -> Value:
    """[batch, sequence, heads * size] as [batch, heads, sequence, size], or in another order."""
    size = v.shape[2] // heads
    if net.chance(0.5):
        shape = net.ints(0, net.choose((0, -1)), heads, size)
    else:
        last = net.ints(heads, net.choose((size, -1)))
        shape = net.op("Concat", size_of(net, v, 0), size_of(net, v, 1), last, axis=0)
    return net.op("Transpose", net.op("Reshape", v, shape), perm=list(order))


def merge_heads(net: Net, v: Value) -> Value:
    turned = net.op("Transpose", v, perm=[0, 2, 1, 3])
    width = turned.shape[2] * turned.shape[3]
    if net.chance(0.5):
        return net.op("Reshape", turned, net.ints(0, 0, net.choose((-1, width))))
    sizes = size_of(net, turned, 0), size_of(net, turned, 1)
    return net.op("Reshape", turned, net.op("Concat", *sizes, net.ints(width), axis=0))


def rotated(net: Net, v: Value) -> Value:
    """Rotary positions of [batch, heads, sequence, size], with tables cut to the sequence."""
    half, length = v.shape[3] // 2, v.shape[2]
    if v.shape[3] % 2 or half == 0:
        return v
    angles = np.arange(64)[:, None] / 10_000 ** (np.arange(half) / half)
    places = [i for i in net.values if i.dtype == np.int64 and i.shape == (v.shape[0], length)]
    if net.opset >= 23 and places and net.chance(0.5):
        caches = [net.constant(f(angles).astype(v.dtype)) for f in (np.cos, np.sin)]
        return net.op("RotaryEmbedding", v, *caches, places[0], interleaved=net.between(0, 1))
    angles = np.concatenate([angles, angles], 1)
    tables = [net.constant(f(angles).astype(v.dtype)) for f in (np.cos, np.sin)]
    if length > 64:
        raise Unfit("longer than the tables")
    end = size_of(net, v, 2)
    cos, sin = (net.op("Slice", t, net.ints(0), end, net.ints(0)) for t in tables)
    if net.chance(0.5):
        first = net.op("Slice", v, net.ints(0), net.ints(half), net.ints(3))
        second = net.op("Slice", v, net.ints(half), net.ints(2**62), net.ints(3))
    else:
        first, second = net.ops("Split", 2, v, net.ints(half, half), axis=3)
    turned = net.op("Concat", net.op("Neg", second), first, axis=3)
    return net.op("Add", net.op("Mul", v, cos), net.op("Mul", turned, sin))


def low(net: Net, dtype: np.dtype[Any]) -> float:
    """What stands for masked: minus infinity, the least number, or a large negative one."""
    least = float(np.finfo(dtype).min)
    return net.choose((-np.inf, -np.inf, least, -1e4, -1e9 if dtype != np.float16 else -6e4))


def masked(net: Net, scores: Value) -> Value:
    """Scores [batch, heads, rows, columns] with some of them masked; rows may be masked wholly."""
    batch, _, rows, columns = scores.shape

    def fits(v: Value) -> bool:
        return v.shape == (batch, columns) and v.dtype in (np.int64, np.bool_)

    kind = net.choose(("none", "where", "add", "causal", "causal"))
    if kind == "none":
        return scores
    if kind == "causal" and rows != columns:
        raise Unfit("not square")
    number = net.constant(low(net, scores.dtype), scores.dtype)
    if kind == "causal":
        return causal(net, scores, number)
    wide = net.op("Unsqueeze", net.pick(fits), net.ints(1, 2))
    if kind == "where":
        keep = wide if wide.dtype == np.bool_ else net.op("Cast", wide, to=9)
        return net.op("Where", keep, scores, number)
    # A product with 0 must not be NaN.
    least = max(low(net, scores.dtype), float(np.finfo(scores.dtype).min))
    number = net.constant(least, scores.dtype)
    kept = net.op("CastLike", wide, scores)
    dropped = net.op("Sub", net.constant(1, scores.dtype), kept)
    return net.op("Add", scores, net.op("Mul", dropped, number))


def causal(net: Net, scores: Value, number: Value) -> Value:
    """By a triangle of the scores' sizes, made at run time or cut out of a constant."""
    if net.chance(0.5):
        sizes = net.op("Slice", net.op("Shape", scores), net.ints(2), net.ints(4))
        one = numpy_helper.from_array(np.ones(1, np.int64))
        ones = net.op("ConstantOfShape", sizes, value=one)
        triangle = net.op("Trilu", ones, upper=0)
    else:
        size = size_of(net, scores, 2)
        full = net.constant(np.tril(np.ones((64, 64), np.int64)))
        starts, axes = net.ints(0, 0), net.ints(0, 1)
        triangle = net.op("Slice", full, starts, net.op("Concat", size, size, axis=0), axes)
    keep = net.op("Cast", triangle, to=9)
    if net.chance(0.3):
        return net.op("Where", net.op("Not", keep), number, scores)
    return net.op("Where", keep, scores, number)


def written_out(net: Net) -> None:
    """Heads, scaled scores, a mask, Softmax, and the heads together again."""
    x = net.pick(lambda v: hidden(v) and v.array.size <= SMALL)
    other = x if net.chance(0.7) else net.pick(lambda v: hidden(v) and v.shape[0] == x.shape[0])
    projected = net.chance(0.4) or other.shape[2] != x.shape[2]
    heads = net.choose((1, 2, 4) if projected else head_counts(x.shape[2]))
    width = heads * net.choose((2, 3, 4, 8)) if projected else x.shape[2]
    scale = (width // heads) ** -0.5

    def part(of: Value) -> Value:
        return linear(net, of, width) if projected else of

    q = split_heads(net, part(x), heads)
    if net.chance(0.3):
        q = rotated(net, q)
    if net.chance(0.3):
        k = split_heads(net, part(other), heads, (0, 2, 3, 1))
    else:
        k = split_heads(net, part(other), heads)
        k = net.op("Transpose", rotated(net, k) if net.chance(0.3) else k, perm=[0, 1, 3, 2])
    v = split_heads(net, part(other), heads)
    how = net.choose(("none", "before", "after", "divide", "both"))
    if how == "both":
        root = net.constant(scale**0.5, x.dtype)
        q, k = net.op("Mul", q, root), net.op("Mul", k, root)
    elif how == "before":
        q = net.op("Mul", q, net.constant(scale, x.dtype))
    scores = net.op("MatMul", q, k)
    if how == "after":
        scores = net.op("Mul", scores, net.constant(scale, x.dtype))
    elif how == "divide":
        scores = net.op("Div", scores, net.constant(1 / scale, x.dtype))
    weighted = net.op("Softmax", masked(net, scores), axis=net.choose((-1, 3)))
    if net.chance(0.15):
        zero = net.constant(0, x.dtype)
        weighted = net.op("Where", net.op("IsNaN", weighted), zero, weighted)
    out = merge_heads(net, net.op("MatMul", weighted, v))
    if net.chance(0.4):
        linear(net, out, x.shape[2])


def standard_op(net: Net) -> None:
    """``Attention`` of opset 23; a net of an older one does not fit."""
    if net.opset < 23:
        raise Unfit("no Attention")
    x = net.pick(lambda v: hidden(v) and v.array.size <= SMALL)
    shared = net.choose((1, 2))
    keys = net.choose((1, 2))
    size = net.choose((2, 4, 8))
    q = linear(net, x, shared * keys * size)
    k, v = linear(net, x, keys * size), linear(net, x, keys * size)
    more: dict[str, Any] = {}
    if net.chance(0.3):
        # ONNX's function takes its root in single precision, whatever the type of the operands.
        more["scale"] = net.choose((0.25, 1.0, 0.0625))
    if net.chance(0.2):
        more["softcap"] = net.choose((2.0, 30.0))
    if net.chance(0.4):
        more["is_causal"] = 1
    mask = None
    if net.chance(0.4):
        rows = x.shape[1]
        keep = net.random(np.bool_, (rows, rows))
        mask = keep if net.chance(0.5) else weights(net, x.dtype, (rows, rows))
    if net.chance(0.6):
        more |= {"q_num_heads": shared * keys, "kv_num_heads": keys}
    else:
        q = split_heads(net, q, shared * keys)
        k, v = split_heads(net, k, keys), split_heads(net, v, keys)
    net.op("Attention", q, k, v, mask, **more)


def microsoft_op(net: Net) -> None:
    """``Attention`` and ``MultiHeadAttention`` of onnxruntime, in float32."""
    x = net.pick(lambda v: hidden(v) and v.array.size <= SMALL and v.dtype == np.float32)
    heads, size = net.choose((1, 2, 4)), net.choose((2, 4, 8))
    width = heads * size
    bias = weights(net, x.dtype, (3 * width,)) if net.chance(0.8) else None
    more: dict[str, Any] = {"scale": 0.3} if net.chance(0.2) else {}
    if net.chance(0.5):
        w = weights(net, x.dtype, (x.shape[2], 3 * width), x.shape[2])
        if net.chance(0.3):
            more["unidirectional"] = 1
        net.op("Attention", x, w, bias or weights(net, x.dtype, (3 * width,)), domain=MICROSOFT,
               num_heads=heads, **more)  # fmt: skip
    else:
        q, k, v = (linear(net, x, width) for _ in range(3))
        net.op("MultiHeadAttention", q, k, v, bias, domain=MICROSOFT, num_heads=heads, **more)


__all__ = ["hidden", "linear", "microsoft_op", "size_of", "standard_op", "written_out"]
