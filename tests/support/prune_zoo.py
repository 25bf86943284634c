"""Nets with every way in which axes couple."""

from __future__ import annotations

import numpy as np

from .pruning import Net

C3 = "{kernel_shape=[3, 3], pads=[1, 1, 1, 1]}"
C1 = "{kernel_shape=[1, 1]}"


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def scalar(number: int) -> np.ndarray:
    return np.array(number, np.int64)


ZOO = {
    "a chain": Net(
        f"""%c = Conv(%x, %w1, %b1) {C3}
        %r = Relu(%c)
        %y = Conv(%r, %w2) {C3}
        %y""",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (5, 8, 3, 3)},
        {"c": 8},
    ),
    "batch norm": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %n = BatchNormalization(%c, %scale, %shift, %mean, %var)
        %r = Sigmoid(%n)
        %y = Conv(%r, %w2) {C3}
        %y""",
        {"w1": (8, 3, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "w2": (5, 8, 3, 3)},
        {"c": 8},
        arrays={"var": np.linspace(0.5, 2, 8, dtype=np.float32)},
    ),
    "a residual": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %d = Conv(%c, %w2) {C3}
        %r = Relu(%d)
        %e = Conv(%r, %w3) {C3}
        %s = Add(%c, %e)
        %y = Conv(%s, %w4) {C1}
        %y""",
        {"w1": (8, 3, 3, 3), "w2": (6, 8, 3, 3), "w3": (8, 6, 3, 3), "w4": (2, 8, 1, 1)},
        {"c": 8, "d": 6},
    ),
    "a concatenation": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %d = Conv(%c, %w2) {C3}
        %s = Concat(%c, %d) {{axis=1}}
        %e = Conv(%s, %w3) {C3}
        %t = Concat(%s, %e, %x) {{axis=1}}
        %y = Conv(%t, %w4) {C1}
        %y""",
        {"w1": (8, 3, 3, 3), "w2": (6, 8, 3, 3), "w3": (4, 14, 3, 3), "w4": (2, 21, 1, 1)},
        {"c": 8, "d": 6, "e": 4},
    ),
    "a split": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %a, %b = Split(%c, %sizes) {{axis=1}}
        %g = Sigmoid(%b)
        %d = Conv(%a, %w2) {C3}
        %e = Conv(%g, %w3) {C3}
        %y = Add(%d, %e)
        %y""",
        {"w1": (8, 3, 3, 3), "w2": (4, 5, 3, 3), "w3": (4, 3, 3, 3)},
        {"c": 8},
        arrays={"sizes": ints(5, 3)},
    ),
    "equal halves": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %a, %b = Split(%c) {{axis=1, num_outputs=2}}
        %g = Sigmoid(%b)
        %m = Mul(%a, %g)
        %y = Conv(%m, %w2) {C3}
        %y""",
        {"w1": (8, 3, 3, 3), "w2": (4, 4, 3, 3)},
        {"c": 4},
    ),
    "slices": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %a = Slice(%c, %one, %five, %one)
        %b = Slice(%c, %five, %nine, %one)
        %d = Conv(%a, %w2) {C3}
        %e = Conv(%b, %w3) {C3}
        %y = Add(%d, %e)
        %y""",
        {"w1": (9, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 4, 3, 3)},
        {"c": 9},
        arrays={"one": ints(1), "five": ints(5), "nine": ints(9)},
    ),
    "channels that nobody reads": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %a = Slice(%c, %five, %nine, %one)
        %y = Conv(%a, %w2) {C3}
        %y""",
        {"w1": (9, 3, 3, 3), "w2": (4, 4, 3, 3)},
        {"c": 9},
        arrays={"one": ints(1), "five": ints(5), "nine": ints(9)},
    ),
    "a flattened image": Net(
        f"""%c = Conv(%x, %w1) {C3}
        %p = MaxPool(%c) {{kernel_shape=[2, 2], strides=[2, 2]}}
        %f = Flatten(%p)
        %h = Gemm(%f, %w2, %b2) {{transB=1}}
        %r = Relu(%h)
        %y = Gemm(%r, %w3)
        %y""",
        {"w1": (8, 3, 3, 3), "w2": (10, 72), "b2": (10,), "w3": (10, 4)},
        {"c": 8, "h": 10},
    ),
    "a depthwise convolution": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %d = Conv(%c, %w2, %b2) {{kernel_shape=[3, 3], group=8}}
        %r = Clip(%d, %low, %high)
        %y = Conv(%r, %w3) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (4, 8, 1, 1)},
        {"c": 8},
        arrays={"low": np.float32(0).reshape(()), "high": np.float32(6).reshape(())},
    ),
    "a depthwise convolution with a multiplier": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %d = Conv(%c, %w2) {{kernel_shape=[3, 3], group=8}}
        %y = Conv(%d, %w3) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (16, 1, 3, 3), "w3": (4, 16, 1, 1)},
        {"c": 8},
    ),
    "many groups": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %d = Conv(%c, %w2) {{kernel_shape=[3, 3], group=4}}
        %y = Conv(%d, %w3) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (12, 2, 3, 3), "w3": (4, 12, 1, 1)},
        {"c": 4},
    ),
    "two groups": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %d = Conv(%c, %w2) {{kernel_shape=[3, 3], group=2}}
        %y = Conv(%d, %w3) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (12, 4, 3, 3), "w3": (4, 12, 1, 1)},
        {"c": 4, "d": 6},
    ),
    "shuffled channels": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %v = Reshape(%c, %apart)
        %t = Transpose(%v) {{perm=[0, 2, 1, 3, 4]}}
        %s = Reshape(%t, %joined)
        %a, %b = Split(%s) {{axis=1, num_outputs=2}}
        %d = Conv(%b, %w2) {C3}
        %j = Concat(%a, %d) {{axis=1}}
        %y = Conv(%j, %w3) {C1}
        %y""",
        {"w1": (16, 3, 1, 1), "w2": (8, 8, 3, 3), "w3": (4, 16, 1, 1)},
        {"c": 8, "d": 8},
        arrays={"apart": ints(2, 2, 8, 6, 6), "joined": ints(2, 16, 6, 6)},
    ),
    "squeeze and excitation": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %p = GlobalAveragePool(%c)
        %q = Conv(%p, %w2, %b2) {C1}
        %r = Relu(%q)
        %e = Conv(%r, %w3, %b3) {C1}
        %g = HardSigmoid(%e)
        %m = Mul(%c, %g)
        %y = Conv(%m, %w4) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1), "b2": (4,), "w3": (8, 4, 1, 1), "b3": (8,),
         "w4": (3, 8, 1, 1)},
        {"c": 8, "q": 4},
    ),
    "an enlarged image": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %u = Resize(%c, _, %scales)
        %v = Resize(%c, _, _, %sizes) {{mode="linear"}}
        %t = ConvTranspose(%c, %w2) {{kernel_shape=[2, 2], strides=[2, 2]}}
        %s = Concat(%u, %t, %v) {{axis=1}}
        %y = Conv(%s, %w3) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (8, 5, 2, 2), "w3": (3, 21, 1, 1)},
        {"c": 8, "t": 5},
        arrays={"scales": np.array([1, 1, 2, 2], np.float32), "sizes": ints(2, 8, 12, 12)},
    ),
    "zeros for more channels": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %p = Pad(%c, %pads, %zero)
        %d = Conv(%x, %w2) {C1}
        %s = Add(%p, %d)
        %y = Conv(%s, %w3) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "w2": (16, 3, 1, 1), "w3": (3, 16, 1, 1)},
        {"c": 8, "d": 8},
        arrays={"pads": ints(0, 4, 0, 0, 0, 4, 0, 0), "zero": np.float32(0).reshape(())},
    ),
    "depth to space": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %s = DepthToSpace(%c) {{blocksize=2, mode="CRD"}}
        %y = Conv(%s, %w2) {C1}
        %y""",
        {"w1": (32, 3, 1, 1), "w2": (3, 8, 1, 1)},
        {"c": 8},
    ),
    "a group norm": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %n = GroupNormalization(%c, %scale, %shift) {{num_groups=4}}
        %y = Conv(%n, %w2) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "scale": (8,), "shift": (8,), "w2": (3, 8, 1, 1)},
        {"c": 4},
    ),
    "an instance norm": Net(
        f"""%c = Conv(%x, %w1) {C1}
        %n = InstanceNormalization(%c, %scale, %shift)
        %y = Conv(%n, %w2) {C1}
        %y""",
        {"w1": (8, 3, 1, 1), "scale": (8,), "shift": (8,), "w2": (3, 8, 1, 1)},
        {"c": 8},
    ),
    "a layer norm": Net(
        """%h = MatMul(%x, %w1)
        %n = LayerNormalization(%h, %scale, %shift)
        %y = MatMul(%n, %w2)
        %y""",
        {"w1": (6, 8), "scale": (8,), "shift": (8,), "w2": (8, 3)},
        {},
        x="%x: float32[2,5,6]",
    ),
    "heads": Net(
        """%n = LayerNormalization(%x, %scale)
        %q = MatMul(%n, %wq)
        %k = MatMul(%n, %wk)
        %v = MatMul(%n, %wv)
        %vb = Add(%v, %bv)
        %q4 = Reshape(%q, %apart)
        %k4 = Reshape(%k, %apart)
        %v4 = Reshape(%vb, %apart)
        %qt = Transpose(%q4) {perm=[0, 2, 1, 3]}
        %kt = Transpose(%k4) {perm=[0, 2, 3, 1]}
        %vt = Transpose(%v4) {perm=[0, 2, 1, 3]}
        %s = MatMul(%qt, %kt)
        %z = Mul(%s, %half)
        %b = Add(%z, %table)
        %p = Softmax(%b)
        %o = MatMul(%p, %vt)
        %t = Transpose(%o) {perm=[0, 2, 1, 3]}
        %m = Reshape(%t, %joined)
        %w = MatMul(%m, %wo)
        %y = Add(%w, %x)
        %y""",
        {"scale": (16,), "wq": (16, 24), "wk": (16, 24), "wv": (16, 24), "bv": (24,),
         "wo": (24, 16), "table": (6, 5, 5)},
        {"q": 6},
        x="%x: float32[2,5,16]",
        arrays={"apart": ints(2, 5, 6, 4), "joined": ints(2, 5, 24),
                "half": np.float32(0.5).reshape(())},
    ),
    "queries, keys and values of one product": Net(
        """%q = MatMul(%x, %w1)
        %v = Reshape(%q, %apart)
        %t = Transpose(%v) {perm=[2, 0, 3, 1, 4]}
        %a = Gather(%t, %i0)
        %b = Gather(%t, %i1)
        %c = Gather(%t, %i2)
        %bt = Transpose(%b) {perm=[0, 1, 3, 2]}
        %s = MatMul(%a, %bt)
        %p = Softmax(%s)
        %o = MatMul(%p, %c)
        %ot = Transpose(%o) {perm=[0, 2, 1, 3]}
        %m = Reshape(%ot, %joined)
        %y = MatMul(%m, %wo)
        %y""",
        {"w1": (16, 72), "wo": (24, 16)},
        {"q": 6},
        x="%x: float32[2,5,16]",
        arrays={"apart": ints(2, 5, 3, 6, 4), "joined": ints(2, 5, 24),
                "i0": scalar(0), "i1": scalar(1), "i2": scalar(2)},
    ),
    "an open batch": Net(
        """%h = MatMul(%x, %w1)
        %r = Gelu(%h)
        %d = Shape(%x) {end=2}
        %s = Concat(%d, %apart) {axis=0}
        %v = Reshape(%r, %s)
        %t = Transpose(%v) {perm=[0, 2, 1, 3]}
        %u = Transpose(%t) {perm=[0, 2, 1, 3]}
        %e = Concat(%d, %joined) {axis=0}
        %m = Reshape(%u, %e)
        %y = MatMul(%m, %w2)
        %y""",
        {"w1": (6, 12), "w2": (12, 3)},
        {"h": 4},
        x="%x: float32[N,S,6]",
        arrays={"apart": ints(4, 3), "joined": ints(12)},
    ),
    "a gated MLP": Net(
        """%g = MatMul(%x, %w1)
        %s = Sigmoid(%g)
        %a = Mul(%g, %s)
        %u = MatMul(%x, %w2)
        %m = Mul(%a, %u)
        %d = MatMul(%m, %w3)
        %y = Add(%d, %x)
        %y""",
        {"w1": (6, 12), "w2": (6, 12), "w3": (12, 6)},
        {"g": 12},
        x="%x: float32[2,5,6]",
    ),
    "a table tied to the head": Net(
        """%e = Gather(%table, %x)
        %u = MatMul(%e, %w1)
        %r = Relu(%u)
        %d = MatMul(%r, %w2)
        %s = Add(%e, %d)
        %t = Transpose(%table) {perm=[1, 0]}
        %y = MatMul(%s, %t)
        %y""",
        {"table": (11, 8), "w1": (8, 10), "w2": (10, 8)},
        {"e": 8, "u": 10},
        x="%x: int64[2,5]",
    ),
    "an LSTM": Net(
        """%h = MatMul(%x, %w0)
        %s, %l, %c = LSTM(%h, %w, %r, %b) {hidden_size=8}
        %q = Squeeze(%s, %one)
        %y = MatMul(%q, %w2)
        %y""",
        {"w0": (6, 7), "w": (1, 32, 7), "r": (1, 32, 8), "b": (1, 64), "w2": (8, 3)},
        {"h": 7, "s": 8},
        x="%x: float32[5,2,6]",
        arrays={"one": ints(1)},
    ),
    "a GRU of both directions": Net(
        """%s, %l = GRU(%x, %w, %r, %b) {direction="bidirectional", linear_before_reset=1}
        %t = Transpose(%s) {perm=[0, 2, 1, 3]}
        %q = Reshape(%t, %joined)
        %y = MatMul(%q, %w2)
        %y""",
        {"w": (2, 24, 6), "r": (2, 24, 8), "b": (2, 48), "w2": (16, 3)},
        {"s": 8},
        x="%x: float32[5,2,6]",
        arrays={"joined": ints(5, 2, 16)},
    ),
}  # fmt: skip


def _grouped(kv: int, heads: int) -> Net:
    """Attention by ``heads`` query heads, which share ``kv`` heads of keys and values."""
    group = heads // kv
    return Net(
        """%q = MatMul(%x, %wq)
        %k = MatMul(%x, %wk)
        %v = MatMul(%x, %wv)
        %q4 = Reshape(%q, %queries)
        %qt = Transpose(%q4) {perm=[0, 2, 1, 3]}
        %k4 = Reshape(%k, %keys)
        %kt = Transpose(%k4) {perm=[0, 2, 1, 3]}
        %k5 = Unsqueeze(%kt, %two)
        %ke = Expand(%k5, %wide)
        %kr = Reshape(%ke, %repeated)
        %kk = Transpose(%kr) {perm=[0, 1, 3, 2]}
        %v4 = Reshape(%v, %keys)
        %vt = Transpose(%v4) {perm=[0, 2, 1, 3]}
        %v5 = Unsqueeze(%vt, %two)
        %ve = Expand(%v5, %wide)
        %vr = Reshape(%ve, %repeated)
        %s = MatMul(%qt, %kk)
        %p = Softmax(%s)
        %o = MatMul(%p, %vr)
        %t = Transpose(%o) {perm=[0, 2, 1, 3]}
        %m = Reshape(%t, %joined)
        %y = MatMul(%m, %wo)
        %y""",
        {"wq": (16, heads * 4), "wk": (16, kv * 4), "wv": (16, kv * 4), "wo": (heads * 4, 16)},
        {"q": kv if kv >= 4 else group},
        x="%x: float32[2,5,16]",
        arrays={
            "queries": ints(2, 5, heads, 4), "keys": ints(2, 5, kv, 4), "two": ints(2),
            "wide": ints(2, kv, group, 5, 4), "repeated": ints(2, heads, 5, 4),
            "joined": ints(2, 5, heads * 4),
        },
    )  # fmt: skip


ZOO["grouped queries, by heads of keys"] = _grouped(4, 8)
ZOO["grouped queries, of each group"] = _grouped(2, 8)
