"""Nets of convolutions: 1 to 3 dims of space, groups, normalisation, pools, activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ..net import MICROSOFT, Net, Unfit, Value
from . import Step, grow
from .weights import dtype_of_layers, scale, sized, weights


def picture(v: Value) -> bool:
    return v.is_float and 3 <= v.rank <= 5 and v.array.size > 0


def windows(net: Net, v: Value, largest: int = 3) -> dict[str, Any]:
    """The kernel of a window over ``v`` and how it moves; the window fits the first feed."""
    space = v.shape[2:]
    kernel = [net.between(1, min(largest, d)) for d in space]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if net.chance(0.45):
        found["strides"] = [net.between(1, 3) for _ in space]
    if net.chance(0.2):
        found["dilations"] = [
            net.between(1, 2) if (k - 1) * 2 < d else 1 for k, d in zip(kernel, space, strict=True)
        ]
    if net.chance(0.25):
        found["auto_pad"] = net.choose(("SAME_UPPER", "SAME_LOWER", "VALID"))
    elif net.chance(0.7):
        same = net.chance(0.6)
        before = [k // 2 if same else net.between(0, k - 1) for k in kernel]
        found["pads"] = before + (before if same else [net.between(0, k - 1) for k in kernel])
    return found


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def at_run_time(net: Net, v: Value, w: Value) -> Value:
    """Mostly ``w`` itself, seldom ``w`` scaled by a number of the run."""
    if net.chance(0.92):
        return w
    return net.op("Mul", w, net.op("ReduceMax", v, keepdims=0))


def conv(net: Net) -> Value:
    v = net.pick(picture)
    groups = net.choose((1, 1, v.shape[1], net.choose(divisors(v.shape[1]))))
    outputs = groups * net.between(1, max(1, 8 // groups))
    window = windows(net, v)
    if "auto_pad" in window and window["auto_pad"] != "VALID":
        window.pop("dilations", None)  # onnxruntime does not take both
    inner = v.shape[1] // groups
    w = weights(net, v.dtype, (outputs, inner, *window["kernel_shape"]),
                inner * int(np.prod(window["kernel_shape"])))  # fmt: skip
    if net.chance(0.3):
        del window["kernel_shape"]
    bias = weights(net, v.dtype, (outputs,)) if net.chance(0.6) else None
    more: dict[str, Any] = {} if groups == 1 and net.chance(0.5) else {"group": groups}
    w = at_run_time(net, v, w)
    if v.dtype == np.float32 and net.chance(0.06):
        more["activation"] = net.choose(("Relu", "Tanh", "Sigmoid"))
        return net.op("FusedConv", v, w, bias, domain=MICROSOFT, **window, **more)
    return net.op("Conv", v, w, bias, **window, **more)


def conv_transpose(net: Net) -> None:
    v = net.pick(lambda v: picture(v) and v.array.size <= 1_024)
    groups = net.choose((1, 1, net.choose(divisors(v.shape[1]))))
    window = windows(net, v)
    if net.chance(0.3) and "auto_pad" not in window:
        strides = window.get("strides", [1] * (v.rank - 2))
        window["output_padding"] = [net.between(0, s - 1) for s in strides]
    inner = net.between(1, 4)
    w = weights(net, v.dtype, (v.shape[1], inner, *window["kernel_shape"]), v.shape[1] // groups)
    bias = weights(net, v.dtype, (inner * groups,)) if net.chance(0.5) else None
    net.op("ConvTranspose", v, at_run_time(net, v, w), bias, group=groups, **window)


def normalise(net: Net, v: Value | None = None) -> Value:
    v = v or net.pick(picture)
    channels = (v.shape[1],)
    kind = net.choose(("batch", "batch", "batch", "instance", "group", "lrn", "lp"))
    factor, offset = scale(net, v.dtype, channels), weights(net, v.dtype, channels)
    epsilon = net.choose((1e-5, 1e-3, 1e-6))
    if kind == "batch":
        mean = weights(net, v.dtype, channels)
        variance = np.abs(net.rng.normal(1, 0.5, channels)) * net.choose((1, 1, 1, 0, 1e4))
        return net.op("BatchNormalization", v, factor, offset, mean,
                      net.constant(variance, v.dtype), epsilon=epsilon)  # fmt: skip
    if kind == "instance":
        return net.op("InstanceNormalization", v, factor, offset, epsilon=epsilon)
    if kind == "group":
        groups = net.choose(divisors(v.shape[1]))
        # Its mean and variance would be of single precision, which ONNX's reference does not know.
        more = {"stash_type": onnx.TensorProto.DOUBLE} if v.dtype == np.float64 else {}
        return net.op("GroupNormalization", v, factor, offset, epsilon=epsilon, num_groups=groups,
                      **more)  # fmt: skip
    if kind == "lrn" and v.rank == 4 and v.dtype == np.float32:
        return net.op("LRN", v, size=net.choose((1, 3, 5)), alpha=net.choose((1e-4, 0.5)),
                      beta=net.choose((0.75, 0.5)), bias=net.choose((1.0, 2.0)))  # fmt: skip
    return net.op("LpNormalization", v, axis=1, p=net.between(1, 2))


def pool(net: Net) -> None:
    v = net.pick(picture)
    window = windows(net, v)
    if net.chance(0.3):
        window["ceil_mode"] = 1
    kind = net.choose(("max", "max", "average", "average", "lp", "indices"))
    if kind == "average":
        window["count_include_pad"] = net.between(0, 1)
        net.op("AveragePool", v, **window)
    elif kind == "lp":
        net.op("LpPool", v, p=net.between(1, 3), **window)
    elif kind == "indices":
        values, places = net.ops("MaxPool", 2, v, **window)
        if net.chance(0.4) and not {"dilations", "auto_pad", "ceil_mode"} & window.keys():
            net.op("MaxUnpool", values, places, **window)
    else:
        net.op("MaxPool", v, **window)


def global_pool(net: Net) -> Value:
    v = net.pick(picture)
    kind = net.choose(("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"))
    if net.chance(0.25):
        axes = net.ints(*range(2, v.rank))
        return net.op("ReduceMean", v, axes, keepdims=net.between(0, 1))
    return net.op(kind, v)


def activate(net: Net, v: Value | None = None) -> Value:
    v = v or net.pick(lambda v: v.is_float)
    kind = net.choose((
        "Relu", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "PRelu", "LeakyRelu", "Elu",
        "Tanh", "Softplus", "Mish", "silu", "hard swish",
    ))  # fmt: skip
    if kind == "Clip":
        return net.op("Clip", v, net.constant(0, v.dtype), net.constant(6, v.dtype))
    if kind == "PRelu":
        channels = (v.shape[1],) + (1,) * (v.rank - 2) if v.rank > 2 else ()
        return net.op("PRelu", v, weights(net, v.dtype, channels))
    if kind == "LeakyRelu":
        return net.op("LeakyRelu", v, alpha=net.choose((0.01, 0.2, -0.5, 0.0)))
    if kind == "silu":
        return net.op("Mul", v, net.op("Sigmoid", v))
    if kind == "hard swish":
        moved = net.op("Add", v, net.constant(3, v.dtype))
        part = net.op("Clip", moved, net.constant(0, v.dtype), net.constant(6, v.dtype))
        return net.op("Div", net.op("Mul", v, part), net.constant(6, v.dtype))
    return net.op(kind, v)


def layer(net: Net) -> None:
    """What exporters write most: a convolution, its normalisation or scale, an activation."""
    v = conv(net)
    if net.chance(0.6):
        v = net.choose((normalise, channelwise))(net, v)
    if net.chance(0.7):
        activate(net, v)


def channelwise(net: Net, v: Value | None = None) -> Value:
    """A constant for each channel, which folds into the weights before it or behind it."""
    v = v or net.pick(picture)
    shape = [v.shape[1], *[1] * (v.rank - 2)]
    c = weights(net, v.dtype, net.choose((shape, shape, [1, *shape], [])))
    pair = (v, c) if net.chance(0.8) else (c, v)
    return net.op(net.choose(("Mul", "Add", "Sub", "Mul", "Add")), *pair)


def excite(net: Net) -> None:
    """Squeeze and excitation."""
    v = net.pick(picture)
    mean = net.op("GlobalAveragePool", v)
    ones = [1] * (v.rank - 2)
    few = net.between(1, 4)
    down = net.op("Conv", mean, weights(net, v.dtype, (few, v.shape[1], *ones), v.shape[1]))
    up = net.op("Conv", net.op("Relu", down), weights(net, v.dtype, (v.shape[1], few, *ones), few))
    net.op("Mul", v, net.op(net.choose(("Sigmoid", "HardSigmoid")), up))


def combine(net: Net) -> None:
    """A residual sum, a product or a Concat of branches."""
    v = net.pick(picture)

    def fits(w: Value) -> bool:
        return picture(w) and w.dtype == v.dtype and w.shape[2:] == v.shape[2:] and w.name != v.name

    kind = net.choose(("Add", "Add", "Mul", "Sub", "Concat", "Concat"))
    if kind == "Concat":
        net.op("Concat", v, *[net.pick(fits) for _ in range(net.between(1, 2))], axis=1)
    else:
        net.op(kind, v, net.pick(lambda w: fits(w) and w.shape == v.shape))


def resize(net: Net) -> None:
    v = net.pick(lambda v: picture(v) and v.array.size <= 1_024)
    mode = net.choose(("nearest", "linear", "linear", "cubic"))
    if mode == "cubic" and v.rank != 4:
        mode = "nearest"
    how = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
    found: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": net.choose(how)}
    if mode == "nearest":
        found["nearest_mode"] = net.choose(
            ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
        )
    if net.chance(0.6):
        factors = [1.0, 1.0, *(net.choose((2.0, 2.0, 0.5, 1.5, 1.0)) for _ in v.shape[2:])]
        net.op("Resize", v, None, net.constant(factors, np.float32), **found)
        return
    sizes = net.ints(*(net.between(1, 2 * d) for d in v.shape[2:]))
    kept = net.op("Slice", net.op("Shape", v), net.ints(0), net.ints(2))
    net.op("Resize", v, None, None, net.op("Concat", kept, sizes, axis=0), **found)


def rearrange(net: Net) -> None:
    v = net.pick(picture)
    channels, space = v.shape[1], v.shape[2:]
    kind = net.choose(("shuffle", "depth", "space", "pad", "split", "transpose"))
    if kind == "shuffle":
        groups = net.choose(divisors(channels))
        grown = net.op("Reshape", v, net.ints(0, groups, channels // groups, *(space[:-1]), -1))
        turned = net.op("Transpose", grown, perm=[0, 2, 1, *range(3, v.rank + 1)])
        net.op("Reshape", turned, net.op("Shape", v))
    elif kind == "depth" and v.rank == 4 and channels % 4 == 0:
        net.op("DepthToSpace", v, blocksize=2, mode=net.choose(("DCR", "CRD")))
    elif kind == "space" and v.rank == 4 and not any(d % 2 for d in space):
        net.op("SpaceToDepth", v, blocksize=2)
    elif kind == "split" and channels > 1:
        at = net.between(1, channels - 1)
        net.ops("Split", 2, v, net.ints(at, channels - at), axis=1)
    elif kind == "transpose":
        last = [0, *range(2, v.rank), 1]
        turned = activate(net, net.op("Transpose", v, perm=last))
        net.op("Transpose", turned, perm=[0, v.rank - 1, *range(1, v.rank - 1)])
    else:
        mode = net.choose(("constant", "reflect", "edge"))
        ends = [[min(net.between(0, 2), d - 1) for d in space] for _ in range(2)]
        net.op("Pad", v, net.ints(0, 0, *ends[0], 0, 0, *ends[1]), mode=mode)


def head(net: Net) -> None:
    """The classifier: Flatten and Gemm, seldom Softmax."""
    v = net.pick(picture)
    if net.chance(0.5):
        v = global_pool(net)
    flat = net.op("Flatten", v) if v.rank != 2 else v
    width, outputs = flat.shape[1], net.between(1, 6)
    if width == 0:
        raise Unfit("empty")
    turned = net.chance(0.6)
    shape = (outputs, width) if turned else (width, outputs)
    w = weights(net, v.dtype, shape, width)
    bias = weights(net, v.dtype, (outputs,)) if net.chance(0.7) else None
    more = {"alpha": net.choose((0.5, 2.0)), "beta": 1.5} if net.chance(0.15) else {}
    out = net.op("Gemm", flat, w, bias, transB=int(turned), **more)
    if net.chance(0.4):
        net.op("Softmax", out, axis=-1)


STEPS: list[Step] = [
    layer, layer, layer, conv, conv, normalise, normalise, pool, pool, activate, activate,
    channelwise, combine, combine, combine, conv_transpose, resize, rearrange, rearrange, excite,
]  # fmt: skip


def convnets(net: Net) -> None:
    """A picture of 1 to 3 dims; its batch and its sizes may be open."""
    space = net.choose((1, 2, 2, 2, 2, 3))
    high = {1: 12, 2: 9, 3: 5}[space]
    dims = [sized(net, "HWD"[a], 3, high, 0.3) for a in range(space)]
    channels = net.choose((1, 2, 3, 4, 4, 6, 8, 16, 17))
    net.input(dtype_of_layers(net), [sized(net, "N", 1, 3, 0.5), channels, *dims])
    grow(net, STEPS, net.between(1, 4))
    if net.chance(0.4):
        grow(net, [head], 1)


FAMILIES = {"convnets": convnets}

__all__ = ["FAMILIES"]
