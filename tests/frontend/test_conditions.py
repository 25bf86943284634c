"""What a model assumes of sizes and values: runs that break it are refused, with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, graph, model, node, value
from onnx import TensorProto

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.ir.interpreter import EvaluationError, evaluate
from graphkiln.runtime import InputError

INT64, STRING, UINT8 = TensorProto.INT64, TensorProto.STRING, TensorProto.UINT8


def f(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).random(shape, np.float32)


def u(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 9, shape, np.uint8)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def strings(letters: str) -> np.ndarray:
    return np.array(list(letters), object)


Feeds = Mapping[str, np.ndarray]

_CODES = [value(n, (n,)) for n in ("as", "bs", "ys")] + [value(n, (n,), UINT8) for n in "abc"]


def codes(feeds: Feeds, **others: np.ndarray) -> Feeds:
    """``feeds`` with scales and zero points of one number each, but for ``others``."""
    single = {**dict.fromkeys(("as", "bs", "ys"), f(1)), **dict.fromkeys("abc", u(1))}
    return {**feeds, **single, **others}


_SIGNS = [graph([node(op, "x", op)], [], [op]) for op in ("Neg", "Abs")]


def _doubling(condition: str) -> onnx.GraphProto:
    """A loop's body that adds its value to itself and returns a condition."""
    inputs = [value("n", (), INT64), value("go", (), BOOL), value("v", ("V",))]
    return graph([node("Add", "v v", "w"), node("Identity", condition, "again")],
                 inputs, ["again", "w"])  # fmt: skip


_OPEN: dict[str, tuple[list[onnx.NodeProto], list[Any], list[str], list[Feeds], list[Feeds]]] = {
    # name: nodes, inputs, parts of the message, feeds that fit, feeds that do not
    "add": (
        [node("Add", "x z", "y", name="Add_45")], [value("x", ("N",)), value("z", ("M",))],
        ["node 'Add_45' (Add)", "broadcast", "N is 4", "M is 9"],
        [{"x": f(4), "z": f(4)}, {"x": f(4), "z": f(1)}, {"x": f(0), "z": f(1)}],
        [{"x": f(4), "z": f(9)}],
    ),
    "where": (
        [node("Where", "c x z", "y")],
        [value("c", ("A",), BOOL), value("x", ("B",)), value("z", ("C",))], ["broadcast"],
        [{"c": np.ones(1, bool), "x": f(5), "z": f(1)}],
        [{"c": np.ones(3, bool), "x": f(1), "z": f(5)}],
    ),
    "matmul": (
        [node("MatMul", "x z", "y")], [value("x", ("B", 2, 3)), value("z", ("C", 3, 2))],
        ["B is 2", "C is 5"],
        [{"x": f(5, 2, 3), "z": f(1, 3, 2)}, {"x": f(1, 2, 3), "z": f(5, 3, 2)}],
        [{"x": f(2, 2, 3), "z": f(5, 3, 2)}],
    ),
    "resize to a size": (
        [node("Resize", "x - - s", "y", mode="nearest")],
        [value("x", ("N", "M")), value("s", (2,), INT64)], ["an element to spread", "N is 0"],
        [{"x": f(2, 3), "s": i(4, 4)}, {"x": f(0, 3), "s": i(0, 4)}, {"x": f(0, 0), "s": i(0, 0)}],
        [{"x": f(0, 3), "s": i(4, 4)}, {"x": f(0, 3), "s": i(1, 0)}],
    ),
    "resize by one scale": (
        [node("Resize", "x - - s", "y", keep_aspect_ratio_policy="not_larger")],
        [value("x", ("N", "M")), value("s", (2,), INT64)], ["an element on each axis", "M is 0"],
        [{"x": f(2, 3), "s": i(4, 4)}],
        [{"x": f(2, 0), "s": i(4, 4)}, {"x": f(2, 0), "s": i(4, 0)}],
    ),
    "resize a part": (
        [node("Resize", "x r - s", "y", mode="linear",
              coordinate_transformation_mode="tf_crop_and_resize")],
        [value("x", ("N", "M")), value("r", ("R",)), value("s", (2,), INT64)],
        ["'r'"],
        [{"x": f(2, 3), "r": f(4), "s": i(4, 4)}],
        [{"x": f(2, 3), "r": f(3), "s": i(4, 4)}, {"x": f(2, 3), "r": f(5), "s": i(4, 4)}],
    ),
    "reshape": (
        [node("Reshape", "x t", "y")], [value("x", ("N", "M")), value("t", (2,), INT64)],
        ["as many elements"],
        [{"x": f(4, 3), "t": i(6, 2)}, {"x": f(4, 3), "t": i(-1, 6)}, {"x": f(4, 3), "t": i(0, 3)}],
        [{"x": f(4, 3), "t": i(6, 3)}, {"x": f(4, 3), "t": i(-1, 5)}, {"x": f(4, 3), "t": i(-2, 6)},
         {"x": f(4, 3), "t": i(2**62, 4)}],
    ),
    # In a target, 0 stands for the size of the data at its place.
    "reshape by a size of 0": (
        [node("Shape", "z", "s"), node("Constant", "", "rest", value_ints=[6]),
         node("Concat", "s rest", "t", axis=0), node("Reshape", "x t", "y")],
        [value("x", ("M", 6)), value("z", ("N",))], ["of no 0 at 0", "N is 0"],
        [{"x": f(4, 6), "z": f(4)}, {"x": f(0, 6), "z": f(0)}],
        [{"x": f(4, 6), "z": f(0)}, {"x": f(4, 6), "z": f(3)}],
    ),
    "range-by-a-size": (
        [node("Shape", "x", "s"), node("Squeeze", "s", "n"), node("Range", "a b n", "y")],
        [value("x", ("N",)), value("a", (), INT64), value("b", (), INT64)],
        ["a delta other than 0", "N is 0"],
        [{"x": f(3), "a": np.array(0), "b": np.array(10)}],
        [{"x": f(0), "a": np.array(0), "b": np.array(10)}],
    ),
    "gather": (
        [node("Gather", "x j", "y")], [value("x", ("N", 2)), value("j", ("K",), INT64)],
        ["indices within an axis of N"],
        [{"x": f(4, 2), "j": i(3, -4, 0)}, {"x": f(0, 2), "j": i()}],
        [{"x": f(4, 2), "j": i(4)}, {"x": f(4, 2), "j": i(0, -5)}, {"x": f(0, 2), "j": i(0)},
         {"x": f(4, 2), "j": i(2**62)}],
    ),
    "gather_nd": (
        [node("GatherND", "x j", "y")], [value("x", ("N", "M")), value("j", ("K", 2), INT64)],
        ["indices within axis"],
        [{"x": f(4, 2), "j": i(3, 1).reshape(1, 2)}, {"x": f(4, 2), "j": i(-4, -2).reshape(1, 2)}],
        [{"x": f(4, 2), "j": i(1, 3).reshape(1, 2)}, {"x": f(4, 2), "j": i(4, 0).reshape(1, 2)}],
    ),
    "scatter": (
        [node("ScatterElements", "x j u", "y")],
        [value("x", ("N",)), value("j", ("K",), INT64), value("u", ("K",))], ["indices within"],
        [{"x": f(4), "j": i(3, -4), "u": f(2)}], [{"x": f(4), "j": i(3, 4), "u": f(2)}],
    ),
    "roi_align": (
        [node("RoiAlign", "x r i", "y", output_height=2, output_width=2)],
        [value("x", ("N", 2, "H", "W")), value("r", ("R", 4)), value("i", ("R",), INT64)],
        ["pixels to sample"],
        [{"x": f(1, 2, 3, 3), "r": f(1, 4), "i": i(0)},
         {"x": f(1, 2, 0, 3), "r": f(0, 4), "i": i()}],
        [{"x": f(1, 2, 0, 3), "r": f(1, 4), "i": i(0)},
         {"x": f(1, 2, 3, 0), "r": f(1, 4), "i": i(0)}],
    ),
    "top_k": (
        [node("TopK", "x k", "y w")], [value("x", ("N",)), value("k", (1,), INT64)],
        ["elements of axis 0"],
        [{"x": f(4), "k": i(4)}, {"x": f(4), "k": i(1)}],
        [{"x": f(4), "k": i(5)}, {"x": f(4), "k": i(-1)}, {"x": f(4), "k": i(2**62)}],
    ),
    "split": (
        [node("Split", "x s", "y w")], [value("x", ("N",)), value("s", (2,), INT64)], ["add up"],
        [{"x": f(4), "s": i(1, 3)}, {"x": f(4), "s": i(4, 0)}],
        [{"x": f(4), "s": i(1, 2)}, {"x": f(4), "s": i(5, -1)},
         {"x": f(4), "s": i(2**63 - 1, -(2**63) + 5)}],
    ),
    "zero_points_by_axis": (
        [node("DequantizeLinear", "a s z", "y", axis=0)],
        [value("a", ("N", 2), UINT8), value("s", ("S",)), value("z", ("Z",), UINT8)],
        ["input 'z' has 1 in dimension 0"],
        [{"a": u(3, 2), "s": f(3), "z": u(3)}, {"a": u(3, 2), "s": f(1), "z": u(1)}],
        [{"a": u(3, 2), "s": f(3), "z": u(1)}, {"a": u(3, 2), "s": f(1), "z": u(3)}],
    ),
    "expand": (
        [node("Expand", "x s", "y")], [value("x", ("N", 1, 3)), value("s", (3,), INT64)],
        ["broadcast"],
        [{"x": f(2, 1, 3), "s": i(*s)} for s in ((2, 5, 3), (1, 0, 1), (1, 1, 3))]
        + [{"x": f(1, 1, 3), "s": i(4, 2, 1)}, {"x": f(0, 1, 3), "s": i(1, 2, 1)}],
        [{"x": f(2, 1, 3), "s": i(*s)} for s in ((4, 5, 3), (0, 5, 3), (2, 5, 6), (2, 5, 0),
                                                 (2, -1, 3), (2, 5, -3))],
    ),
    "expand_by_few": (
        [node("Expand", "x s", "y")], [value("x", (2, 3)), value("s", (1,), INT64)],
        ["broadcasts with 3 elements of axis 1"],
        [{"x": f(2, 3), "s": i(3)}, {"x": f(2, 3), "s": i(1)}],
        [{"x": f(2, 3), "s": i(2)}, {"x": f(2, 3), "s": i(6)}, {"x": f(2, 3), "s": i(0)}],
    ),
    "pad_with_edges": (
        [node("Pad", "x p", "y", mode="edge")], [value("x", ("N",)), value("p", (2,), INT64)],
        ["not negative"],
        [{"x": f(4), "p": i(2, 1)}, {"x": f(4), "p": i(-4, 0)}, {"x": f(4), "p": i(-3, 5)},
         {"x": f(0), "p": i(0, 0)}],
        [{"x": f(4), "p": i(-4, 5)}, {"x": f(4), "p": i(9, -4)}, {"x": f(0), "p": i(1, 0)},
         {"x": f(4), "p": i(-2, -3)}],
    ),
    "pad_by_reflection": (
        [node("Pad", "x p", "y", mode="reflect")], [value("x", ("N",)), value("p", (2,), INT64)],
        ["not negative"],
        [{"x": f(4), "p": i(3, 2)}, {"x": f(4), "p": i(-1, 2)}, {"x": f(1), "p": i(0, 0)}],
        [{"x": f(4), "p": i(4, 0)}, {"x": f(4), "p": i(-2, 2)}, {"x": f(4), "p": i(3, -1)},
         {"x": f(1), "p": i(1, 0)}],
    ),
    "pad_with_constant_edges": (
        [node("Pad", "x p", "y", mode="edge")], [value("x", ("N",))],
        ["elements to fill its pads with"],
        [{"x": f(4)}, {"x": f(3)}], [{"x": f(2)}, {"x": f(0)}, {"x": f(1)}],
    ),
    "split_evenly": (
        [node("Split", "x", "y w", axis=1)], [value("x", ("N", "M"))],
        ["an axis that splits into 2 equal parts", "'M' of input 'x' should be a multiple of 2"],
        [{"x": f(3, 4)}, {"x": f(3, 0)}], [{"x": f(3, 5)}, {"x": f(3, 1)}],
    ),
    "split_strings_evenly": (
        [node("Split", "x", "y w")], [value("x", ("N",), STRING)], ["2 equal parts"],
        [{"x": strings("abcd")}], [{"x": strings("abc")}],
    ),
    "slice": (
        [node("Slice", "x a b ax st", "y")],
        [value("x", ("N",)), *(value(n, (1,), INT64) for n in ("a", "b", "ax", "st"))], ["Slice"],
        [{"x": f(4), "a": i(0), "b": i(4), "ax": i(0), "st": i(-1)}],
        [{"x": f(4), "a": i(0), "b": i(4), "ax": i(0), "st": i(0)},
         {"x": f(4), "a": i(0), "b": i(4), "ax": i(1), "st": i(1)}],
    ),
    "conv": (
        [node("Conv", "x w", "y")], [value("x", (1, 2, "H", "W")), value("w", ("F", 2, 3, 3))],
        ["a window that fits"],
        [{"x": f(1, 2, 3, 4), "w": f(4, 2, 3, 3)}], [{"x": f(1, 2, 2, 4), "w": f(4, 2, 3, 3)}],
    ),
    "space_to_depth": (
        [node("SpaceToDepth", "x", "y", blocksize=4)], [value("x", (1, 1, "H", "W"))],
        ["'H' of input 'x' should be a multiple of 4"],
        [{"x": f(1, 1, 8, 4)}], [{"x": f(1, 1, 6, 4)}],
    ),
    "slices-of-any-number": (
        [node("Slice", "x a b ax st", "y")],
        [value("x", ("N", "M")), *(value(n, (n,), INT64) for n in ("a", "b", "ax", "st"))],
        ["b", "a is 2"],
        [{"x": f(4, 5), "a": i(1), "b": i(5), "ax": i(-1), "st": i(2)},
         {"x": f(4, 5), "a": i(4, 1), "b": i(-9, 3), "ax": i(1, 0), "st": i(-1, 1)},
         {"x": f(4, 5), "a": i(), "b": i(), "ax": i(), "st": i()}],
        [{"x": f(4, 5), "a": i(4, 1), "b": i(3), "ax": i(1, 0), "st": i(1, 1)},
         {"x": f(4, 5), "a": i(0, 1), "b": i(3, 3), "ax": i(1, 0), "st": i(1)},
         {"x": f(4, 5), "a": i(0, 1, 0), "b": i(3, 3, 3), "ax": i(1, 0, 0), "st": i(1, 1, 1)}],
    ),
    "pads-of-any-axes": (
        [node("Pad", "x p - ax", "y")],
        [value("x", ("N", "M")), value("p", ("P",), INT64), value("ax", ("A",), INT64)],
        ["pads before and after each axis"],
        [{"x": f(4, 5), "p": i(1, 2), "ax": i(-1)},
         {"x": f(4, 5), "p": i(1, -2, 0, 1), "ax": i(1, 0)},
         {"x": f(4, 5), "p": i(), "ax": i()}],
        [{"x": f(4, 5), "p": i(1, 2, 3), "ax": i(-1)}, {"x": f(4, 5), "p": i(1, 2), "ax": i(2)}],
    ),
    "matmul_integer": (
        [node("MatMulInteger", "x z a b", "y")],
        [value("x", ("N", "K"), UINT8), value("z", ("L", "M"), UINT8), value("a", ("P",), UINT8),
         value("b", ("Q",), UINT8)],
        ["one number, or one for each row", "P is 3", "N is 2"],
        [{"x": u(2, 3), "z": u(3, 4), "a": u(1), "b": u(1)},
         {"x": u(2, 3), "z": u(3, 4), "a": u(2), "b": u(4)}],
        [{"x": u(2, 3), "z": u(3, 4), "a": u(3), "b": u(1)},
         {"x": u(2, 3), "z": u(3, 4), "a": u(1), "b": u(0)}],
    ),
    "qlinear_matmul": (
        [node("QLinearMatMul", "x as a z bs b ys c", "y")],
        [value("x", ("N", "K"), UINT8), value("z", ("L", "M"), UINT8), *_CODES], ["ys"],
        [codes({"x": u(2, 3), "z": u(3, 4)}),
         codes({"x": u(2, 3), "z": u(3, 4)}, **{"as": f(2), "a": u(2), "bs": f(4), "b": u(4)})],
        [codes({"x": u(2, 3), "z": u(3, 4)}, ys=f(4)),
         codes({"x": u(2, 3), "z": u(3, 4)}, bs=f(3))],
    ),
    "dequantize": (
        [node("DequantizeLinear", "x s z", "y", axis=0)],
        [value("x", ("N", "M"), UINT8), value("s", ("S",)), value("z", ("Z",), UINT8)],
        ["one for each index of axis 0", "S is 2"],
        [{"x": u(3, 2), "s": f(1), "z": u(1)}, {"x": u(3, 2), "s": f(3), "z": u(3)}],
        [{"x": u(3, 2), "s": f(2), "z": u(2)}, {"x": u(3, 2), "s": f(0), "z": u(0)}],
    ),
    "qlinear_conv": (
        [node("QLinearConv", "x as a w bs b ys c", "y", kernel_shape=[2])],
        [value("x", ("N", "C", "H"), UINT8), value("w", ("F", "G", "K"), UINT8), *_CODES], ["w"],
        [codes({"x": u(1, 2, 5), "w": u(3, 2, 2)}),
         codes({"x": u(1, 2, 5), "w": u(3, 2, 2)}, bs=f(3), b=u(3))],
        [codes({"x": u(1, 2, 5), "w": u(3, 2, 3)}),
         codes({"x": u(1, 2, 5), "w": u(3, 2, 2)}, bs=f(2))],
    ),
    "sequence": (
        [node("SequenceConstruct", "x z", "q"), node("ConcatFromSequence", "q", "y", axis=1)],
        [value("x", ("N", "A")), value("z", ("M", "B"))], ["ConcatFromSequence"],
        [{"x": f(2, 3), "z": f(2, 1)}],
        [{"x": f(2, 3), "z": f(3, 3)}, {"x": f(3, 3), "z": f(2, 3)}],
    ),
    "stack": (
        [node("SequenceConstruct", "x z", "q"),
         node("ConcatFromSequence", "q", "y", axis=0, new_axis=1)],
        [value("x", ("N",)), value("z", ("M",))], ["ConcatFromSequence"],
        [{"x": f(2), "z": f(2)}], [{"x": f(2), "z": f(3)}],
    ),
    "parts": (
        [node("SplitToSequence", "x s", "q"), node("ConcatFromSequence", "q", "y", axis=0)],
        [value("x", ("N",))], ["x"], [{"x": f(3)}], [{"x": f(4)}, {"x": f(2)}],
    ),
    "arg_max": (
        [node("ArgMax", "x", "y", axis=1)], [value("x", ("N", "M"))], ["elements to choose from"],
        [{"x": f(2, 3)}, {"x": f(0, 3)}], [{"x": f(2, 0)}],
    ),
    "max_unpool": (
        [node("MaxUnpool", "x j", "y", kernel_shape=[2], strides=[2])],
        [value("x", (1, 1, "N")), value("j", (1, 1, "M"), INT64)], ["j"],
        [{"x": f(1, 1, 2), "j": i(1, 2).reshape(1, 1, 2)}],
        [{"x": f(1, 1, 3), "j": i(1, 2).reshape(1, 1, 2)},
         {"x": f(1, 1, 2), "j": i(1, 4).reshape(1, 1, 2)},
         {"x": f(1, 1, 2), "j": i(-1, 2).reshape(1, 1, 2)}],
    ),
    "suppression": (
        [node("NonMaxSuppression", "x s m t c", "y")],
        [value("x", ("B", "N", 4)), value("s", ("C", 1, "M")), value("m", (1,), INT64),
         value("t", (1,)), value("c", (1,))],
        ["s"],
        [{"x": f(1, 3, 4), "s": f(1, 1, 3), "m": i(2), "t": f(1), "c": f(1)}],
        [{"x": f(1, 3, 4), "s": f(1, 1, n), "m": i(2), "t": np.float32([t]), "c": f(1)}
         for n, t in ((4, 0.5), (3, 1.5), (3, -0.5), (3, np.nan))],
    ),
    "one_hot": (
        [node("OneHot", "j d v", "y")],
        [value("j", ("N",), INT64), value("d", ("D",), INT64), value("v", ("V",))], ["v"],
        [{"j": i(0, 2), "d": i(3), "v": f(2)}],
        [{"j": i(0, 2), "d": i(3), "v": f(1)}, {"j": i(0, 2), "d": i(-3), "v": f(2)},
         {"j": i(0, 2), "d": i(3, 4), "v": f(2)}],
    ),
    "one_hot_of_a_float_depth": (
        [node("OneHot", "j d v", "y")],
        [value("j", ("N",), INT64), value("d", ()), value("v", ("V",))], ["not negative"],
        [{"j": i(0, 2), "d": np.float32(3.5), "v": f(2)}],
        [{"j": i(0, 2), "d": np.float32(d), "v": f(2)} for d in (-1, -np.inf, np.nan)],
    ),
    "one_hot_of_fractions": (
        [node("OneHot", "j d v", "y")],
        [value("j", ("N",)), value("d", (), INT64), value("v", ("V",))], ["v"],
        [{"j": np.array([-1.45, 1.14, -0.9, 2.99, -3.5, 9.1, np.nan], np.float32),
          "d": np.array(3), "v": f(2)}],
        [{"j": f(2), "d": np.array(3), "v": f(3)}],
    ),
    "diagonal": (
        [node("Einsum", "x", "y", equation="ii->i")], [value("x", ("N", "M"))], ["x"],
        [{"x": f(3, 3)}], [{"x": f(1, 3)}, {"x": f(3, 1)}],
    ),
    "resize": (
        [node("Resize", "x - s", "y")], [value("x", ("N", "M")), value("s", ("S",))], ["s"],
        [{"x": f(2, 3), "s": np.array([1, 2], np.float32)}],
        [{"x": f(2, 3), "s": np.array([2], np.float32)}, {"x": f(2, 3), "s": f(3)},
         *({"x": f(2, 3), "s": np.float32([1, s])} for s in (0, -0.0, -1, np.nan))],
    ),
    "dropout": (
        [node("Dropout", "x r t", "y w")],
        [value("x", ("N",)), value("r", ()), value("t", (), BOOL)], ["at least 0 and below 1"],
        [{"x": f(3), "r": np.float32(r), "t": np.bool_(False)} for r in (0, 0.5, 0.99999994)],
        [{"x": f(3), "r": np.float32(r), "t": np.bool_(t)}
         for r in (1, -0.5, np.inf, np.nan) for t in (False, True)],
    ),
    "scan": (
        [node("Scan", "x z", "y", num_scan_inputs=2, body=graph(
            [node("Add", "p q", "r")], [value("p", (2,)), value("q", (2,))], ["r"]))],
        [value("x", ("N", 2)), value("z", ("M", 2))], ["z"],
        [{"x": f(3, 2), "z": f(3, 2)}, {"x": f(0, 2), "z": f(0, 2)}],
        [{"x": f(3, 2), "z": f(1, 2)}, {"x": f(300, 2), "z": f(1_000, 2)}],
    ),
    "scan_of_a_state": (
        [node("Scan", "s x", "y z", num_scan_inputs=1, body=graph(
            [node("Add", "p q", "r"), node("Identity", "r", "o")],
            [value("p", ("K",)), value("q", ("L",))], ["r", "o"]))],
        [value("s", ("S",)), value("x", ("N", "M"))], ["states that keep their shape"],
        [{"s": f(2), "x": f(3, 2)}, {"s": f(2), "x": f(3, 1)}, {"s": f(2), "x": f(0, 2)}],
        [{"s": f(1), "x": f(3, 2)}, {"s": f(1), "x": f(1, 2)}],
    ),
    "if": (
        [node("If", "c", "y", then_branch=_SIGNS[0], else_branch=_SIGNS[1])],
        [value("c", ("C", "D"), BOOL), value("x", ("N",))],
        ["node 'If_y' (If)", "a condition of one element"],
        [{"c": np.full((1, 1), c), "x": f(3)} for c in (True, False)],
        [{"c": np.ones(s, bool), "x": f(3)} for s in ((1, 2), (2, 1), (2, 2), (0, 1))],
    ),
    "if_of_as_many_as_are_true": (
        [node("Compress", "b b", "c", axis=0),
         node("If", "c", "y", then_branch=_SIGNS[0], else_branch=_SIGNS[1])],
        [value("b", ("B",), BOOL), value("x", ("N",))], ["a condition of one element"],
        [{"b": np.array([False, True]), "x": f(3)}],
        [{"b": np.ones(2, bool), "x": f(3)}, {"b": np.zeros(2, bool), "x": f(3)}],
    ),
    "loop_count": (
        [node("Loop", "m - x", "y", body=_doubling("go"))],
        [value("m", ("M",), INT64), value("x", ("N",))], ["'m'"],
        [{"m": i(2), "x": f(3)}], [{"m": i(2, 2), "x": f(3)}, {"m": i(), "x": f(3)}],
    ),
    "loop_condition": (
        [node("Loop", "m c x", "y", body=_doubling("go"))],
        [value("m", (), INT64), value("c", ("C",), BOOL), value("x", ("N",))], ["'c'"],
        [{"m": np.int64(2), "c": np.ones(1, bool), "x": f(3)}],
        [{"m": np.int64(2), "c": np.ones(n, bool), "x": f(3)} for n in (2, 0)],
    ),
    "condition_after_a_turn": (
        [node("Loop", "m - x", "y", body=_doubling("c"))],
        [value("m", (), INT64), value("c", ("C",), BOOL), value("x", ("N",))],
        ["one element after each iteration"],
        [{"m": np.int64(2), "c": np.ones(1, bool), "x": f(3)},
         {"m": np.int64(0), "c": np.ones(2, bool), "x": f(3)}],
        [{"m": np.int64(2), "c": np.ones(n, bool), "x": f(3)} for n in (2, 0)],
    ),
    "reduce_axes": (
        [node("ReduceL1", "x a", "y", keepdims=0)],
        [value("x", ("N", 2, 3)), value("a", ("A",), INT64)], ["none of them twice"],
        [{"x": f(2, 2, 3), "a": i(0, -1)}, {"x": f(2, 2, 3), "a": i(0, 1, 2)}],
        [{"x": f(2, 2, 3), "a": i(*a)} for a in ((1, 1), (2, -1), (0, 1, 0), (0, 3), (-4, 0))],
    ),
    "squeeze_axes": (
        [node("Squeeze", "x a", "y")],
        [value("x", ("N", "M", "K")), value("a", ("A",), INT64)], ["none of them twice"],
        [{"x": f(1, 2, 1), "a": i(0, -1)}, {"x": f(1, 0, 3), "a": i(0)}],
        [{"x": f(1, 2, 1), "a": i(0, 0)}, {"x": f(1, 2, 1), "a": i(1)},
         {"x": f(0, 2, 1), "a": i(0)}, {"x": f(0, 5, 1), "a": i(2, 1)}],
    ),
    "unsqueeze_axes": (
        [node("Unsqueeze", "x a", "y")],
        [value("x", ("N", 1)), value("a", ("A",), INT64)], ["none of them twice"],
        [{"x": f(1, 1), "a": i(0, -1)}, {"x": f(2, 1), "a": i(1)}],
        [{"x": f(1, 1), "a": i(0, 0)}, {"x": f(1, 1), "a": i(-1, 3)}],
    ),
    "reshape_to_unknown": (
        [node("Reshape", "x a", "y", allowzero=1)],
        [value("x", ("N", "M")), value("a", (3,), INT64)], ["Reshape"],
        [{"x": f(2, 6), "a": i(3, -1, 2)}, {"x": f(0, 6), "a": i(0, 3, 2)}],
        [{"x": f(2, 6), "a": i(3, -1, -1)}, {"x": f(0, 6), "a": i(-1, -1, 2)}],
    ),
    "recurrent_directions": (
        [node("RNN", "x w r", "y h", hidden_size=4, direction="reverse")],
        [value("x", ("N", 1, 2)), value("w", ("D", 4, 2)), value("r", (1, 4, 4))], ["w"],
        [{"x": f(3, 1, 2), "w": f(1, 4, 2), "r": f(1, 4, 4)}],
        [{"x": f(3, 1, 2), "w": f(2, 4, 2), "r": f(1, 4, 4)}],
    ),
    "scatter_nd": (
        [node("ScatterND", "x j u", "y")],
        [value("x", ("N", "M", "K")), value("j", ("P", "D"), INT64), value("u", ("P", "M", "K"))],
        ["as many elements"],
        [{"x": f(3, 2, 2), "j": i(0, 2).reshape(2, 1), "u": f(2, 2, 2)}],
        [{"x": f(3, 2, 2), "j": i(0, 1).reshape(1, 2), "u": f(1, 2, 2)}],
    ),
    "range": (
        [node("Range", "a b d", "y")], [value(n, (), INT64) for n in "abd"], ["delta"],
        [{"a": np.int64(0), "b": np.int64(4), "d": np.int64(2)}],
        [{"a": np.int64(0), "b": np.int64(4), "d": np.int64(0)}],
    ),
    "range_of_floats": (
        [node("Range", "a b d", "y")], [value(n, ()) for n in "abd"], ["not negative"],
        [{"a": np.float32(a), "b": np.float32(4), "d": np.float32(d)}
         for a, d in ((0.5, 1), (4, 1), (9, 1), (9, -2))],
        [{"a": np.float32(a), "b": np.float32(b), "d": np.float32(d)}
         for a, b, d in ((0, 4, 0), (4, 0, 0), (np.nan, 4, 1), (np.inf, 4, 1), (-np.inf, 4, 1),
                         (0, np.nan, 1), (0, np.inf, 1), (0, 4, np.nan))],
    ),
}  # fmt: skip


def _model(nodes: Sequence[onnx.NodeProto], inputs: Sequence[Any]) -> onnx.ModelProto:
    weights = {"SplitToSequence": {"s": i(1, 2)}, "Pad": {"p": i(-2, 3)}}.get(nodes[0].op_type)
    weights = {k: v for k, v in (weights or {}).items() if k not in {v.name for v in inputs}}
    return model(nodes, inputs, list(nodes[-1].output), weights, opset=18)


@pytest.fixture(scope="module", params=sorted(_OPEN))
def case(request: pytest.FixtureRequest) -> tuple[str, onnx.ModelProto]:
    nodes, inputs, *_ = _OPEN[request.param]
    return request.param, _model(nodes, inputs)


def test_compiled_code_refuses_what_does_not_fit(case: tuple[str, onnx.ModelProto]) -> None:
    name, proto = case
    _, _, parts, fitting, others = _OPEN[name]
    plain = load_model(proto).graph
    session = graphkiln.compile(proto).session()
    for n, feeds in enumerate([*others, *fitting, *others]):
        feeds = {k: np.asarray(v) for k, v in feeds.items()}
        if n in range(len(others), len(others) + len(fitting)):
            wanted = evaluate(plain, feeds)
            for a, b in zip(session.run(None, feeds), wanted, strict=True):
                if a.dtype == object:
                    np.testing.assert_array_equal(a, b)
                else:
                    np.testing.assert_allclose(a, b, rtol=1e-5)
            continue
        with pytest.raises(InputError) as error:
            session.run(None, feeds)
        if n == 0:
            assert all(part in str(error.value) for part in parts), str(error.value)


def test_the_interpreter_refuses_what_does_not_fit(case: tuple[str, onnx.ModelProto]) -> None:
    name, proto = case
    plain = load_model(proto).graph
    for feeds in _OPEN[name][4]:
        with pytest.raises(EvaluationError):
            evaluate(plain, {k: np.asarray(v) for k, v in feeds.items()})


@pytest.mark.parametrize("nested", [False, True])
def test_what_a_function_body_stands_for_is_checked(nested: bool) -> None:
    """The body in the schema of FlexAttention would broadcast keys and values."""
    nodes = [node("FlexAttention", "q k v", "y", name="flex", domain="ai.onnx.preview")]
    inputs = [value(n, tuple(f"{n}{i}" for i in range(4))) for n in "qkv"]
    if nested:
        other = graph([node("Identity", "q", "e")], [], ["e"])
        nodes = [node("If", "c", "z", then_branch=graph(nodes, [], ["y"]), else_branch=other)]
        inputs.append(value("c", (), BOOL))
    proto = model(nodes, inputs, list(nodes[-1].output), opset=24, ai_onnx_preview=1)
    session = graphkiln.compile(proto).session()

    def run(*shapes: tuple[int, ...]) -> tuple[int, ...]:
        feeds = {n: f(*s) for n, s in zip("qkv", shapes, strict=True)}
        feeds |= {"c": np.array(True)} if nested else {}
        return session.run(None, feeds)[0].shape

    assert run((2, 4, 3, 5), (2, 2, 6, 5), (2, 2, 6, 7)) == (2, 4, 3, 7)
    others = [((1, 2, 6, 5), (1, 2, 6, 7)), ((2, 2, 6, 5), (2, 1, 6, 7)),
              ((2, 2, 6, 1), (2, 2, 6, 7)), ((2, 2, 6, 5), (2, 2, 1, 7)),
              ((2, 3, 6, 5), (2, 3, 6, 7))]  # fmt: skip
    for k, v in others:
        with pytest.raises(InputError):
            run((2, 4, 3, 5), k, v)


def test_sums_before_opset_8_do_not_broadcast() -> None:
    inputs = [value("x", ("N", "M")), value("z", ("K", "L"))]
    proto = model([node("Sum", "x z", "y")], inputs, ["y"], opset=7)
    session = graphkiln.compile(proto).session()
    assert session.run(None, {"x": f(2, 3), "z": f(2, 3)})[0].shape == (2, 3)
    with pytest.raises(InputError, match="'z' has 1 in dimension 0"):
        session.run(None, {"x": f(2, 3), "z": f(1, 3)})


def test_a_branch_is_only_checked_where_it_runs() -> None:
    then = graph([node("Add", "x z", "s", name="inner")], [], ["s"])
    other = graph([node("Identity", "x", "e")], [], ["e"])
    nodes = [node("If", "c", "y", then_branch=then, else_branch=other)]
    inputs = [value("c", (), BOOL), value("x", ("N",)), value("z", ("M",))]
    session = graphkiln.compile(_model(nodes, inputs)).session()
    yes, no = np.array(True), np.array(False)
    assert session.run(None, {"c": no, "x": f(3), "z": f(5)})[0].shape == (3,)
    assert session.run(None, {"c": yes, "x": f(3), "z": f(1)})[0].shape == (3,)
    with pytest.raises(InputError, match="node 'inner' .Add.* N is 3 and M is 5"):
        session.run(None, {"c": yes, "x": f(3), "z": f(5)})
    assert session.run(None, {"c": yes, "x": f(5), "z": f(5)})[0].shape == (5,)


def test_each_turn_of_a_loop_is_checked() -> None:
    body = graph(
        [node("Concat", "v one", "longer", axis=0), node("Add", "longer x", "s", name="inner"),
         node("Identity", "go", "again")],
        [value("n", (), INT64), value("go", (), BOOL), value("v", ("L",))],
        ["again", "longer", "s"],
        {"one": np.ones(1, np.float32)},
    )  # fmt: skip
    nodes = [node("Loop", "times - v0", "last all", body=body)]
    inputs = [value("times", (), INT64), value("v0", ("A",)), value("x", ("N",))]
    proto = _model(nodes, inputs)
    session = graphkiln.compile(proto).session()
    fits = {"times": np.int64(1), "v0": f(2), "x": f(3)}
    assert session.run(None, {k: np.asarray(v) for k, v in fits.items()})[1].shape == (1, 3)
    with pytest.raises(InputError, match="node 'inner'"):
        session.run(None, {**{k: np.asarray(v) for k, v in fits.items()}, "times": np.array(2)})


def test_conditions_that_sizes_decide_leave_nothing_to_check() -> None:
    nodes = [node("MatMul", "x w", "h"), node("Add", "h b", "y")]
    weights = {"w": f(3, 4), "b": f(4)}
    found = load_model(model(nodes, [value("x", ("N", 3))], ["y"], weights)).graph
    assert [n.op for n in found.nodes] == ["MatMul", "Add"]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_a_condition_behind_other_values_in_memory(axis: int) -> None:
    """The machine reads conditions from the start of their storage, which no other value shares."""
    nodes = [node("Abs", "x", "a"), node("ReduceSum", "a axes", "y", keepdims=0)]
    session = graphkiln.compile(
        _model(nodes, [value("x", (3, 2, 2)), value("axes", (1,), INT64)])
    ).session()
    x = f(3, 2, 2) - 0.5
    (y,) = session.run(None, {"x": x, "axes": i(axis)})
    np.testing.assert_allclose(y, np.abs(x).sum(axis=axis), rtol=1e-5)
    # What lies at the front of the memory must not pass for a condition that holds, either.
    for far in (3, -4, 2**62):
        with pytest.raises(InputError, match="axes of its input"):
            session.run(None, {"x": np.frombuffer(b"\1" * 48, np.float32).reshape(3, 2, 2),
                               "axes": i(far)})  # fmt: skip


@pytest.mark.parametrize("turns", [2, 3])
def test_checks_of_an_unrolled_loop_are_of_its_own_sizes(turns: int) -> None:
    body = graph(
        [node("Add", "v x", "s", name="inner"), node("Identity", "go", "again")],
        [value("n", (), INT64), value("go", (), BOOL), value("v", ("L",))], ["again", "s"],
    )  # fmt: skip
    nodes = [node("Loop", "times - v0", "last", body=body)]
    inputs = [value("v0", ("A",)), value("x", ("N",))]
    proto = model(nodes, inputs, ["last"], {"times": np.int64(turns)})
    session = graphkiln.compile(proto).session()
    (y,) = session.run(None, {"v0": f(3), "x": f(1)})
    np.testing.assert_allclose(y, f(3) + turns * f(1), rtol=1e-5)
    with pytest.raises(InputError, match="node 'inner'.*broadcast"):
        session.run(None, {"v0": f(3), "x": f(5)})


@pytest.mark.parametrize(
    ("nodes", "rank"),
    [
        (("SequenceConstruct x x s", "ConcatFromSequence s y axis"), 2),
        (("SequenceConstruct x x s", "ConcatFromSequence s y axis new_axis"), 3),
        (("SplitToSequence x s axis",), 2),
    ],
)
def test_axes_of_sequences_are_in_range(nodes: Sequence[str], rank: int) -> None:
    def importing(axis: int) -> None:
        made = []
        for text in nodes:
            op, *names = (w for w in text.split() if "axis" not in w)
            attrs = {w: axis if w == "axis" else 1 for w in text.split() if "axis" in w}
            made.append(node(op, " ".join(names[:-1]), names[-1], **attrs))
        load_model(model(made, [value("x", (4, 2))], [names[-1]]))

    importing(rank - 1)
    importing(-rank)
    for axis in (rank, -rank - 1, 2**40):
        with pytest.raises(graphkiln.GraphkilnError, match=f"axis {axis} is out of range"):
            importing(axis)


TEXTS = value("x", ("N",), TensorProto.STRING)
GRAMS = {"max_gram_length": 1, "max_skip_count": 0, "min_gram_length": 1, "ngram_counts": [0],
         "ngram_indexes": [0], "pool_strings": ["a"]}  # fmt: skip
PLACES = [value("i", ("N",), INT64), value("u", ("N",), TensorProto.STRING)]


@pytest.mark.parametrize(
    ("op", "good", "bad", "inputs", "reason"),
    [
        ("RegexFullMatch", {"pattern": "a+"}, {"pattern": "(a"}, [TEXTS], "no regular expression"),
        ("RegexFullMatch", {"pattern": "a+"}, {"pattern": "(?=a)"}, [TEXTS], "of RE2"),
        ("RegexFullMatch", {"pattern": "a+"}, {}, [TEXTS], "has no pattern"),
        ("StringNormalizer", {"case_change_action": "LOWER"}, {"case_change_action": "lower"},
         [TEXTS], "case_change_action 'lower' is not known"),
        ("TfIdfVectorizer", {"mode": "TF", **GRAMS}, {"mode": "tf", **GRAMS}, [TEXTS],
         "mode 'tf' is not known"),
        ("ImageDecoder", {"pixel_format": "BGR"}, {"pixel_format": "CMYK"},
         [value("x", ("N",), UINT8)], "pixel_format 'CMYK' is not known"),
        ("ScatterElements", {}, {"reduction": "add"}, [TEXTS, *PLACES], "not defined for strings"),
    ],
)  # fmt: skip
def test_attributes_that_no_run_could_use(
    op: str, good: dict[str, Any], bad: dict[str, Any], inputs: list[Any], reason: str
) -> None:
    def importing(attrs: dict[str, Any]) -> None:
        names = " ".join(v.name for v in inputs)
        load_model(model([node(op, names, "y", **attrs)], inputs, ["y"], opset=20))

    importing(good)
    with pytest.raises(graphkiln.GraphkilnError, match=reason):
        importing(bad)


@pytest.mark.parametrize("shape", [(2, 3), (), (1, 1, 2)])
def test_a_string_normalizer_takes_one_row(shape: tuple[int, ...]) -> None:
    texts = value("x", shape, TensorProto.STRING)
    with pytest.raises(graphkiln.GraphkilnError, match="one row of strings"):
        load_model(model([node("StringNormalizer", "x", "y")], [texts], ["y"]))


@pytest.mark.parametrize(
    ("op", "attrs", "weights"),
    [
        ("BatchNormalization", {}, {n: np.ones(4, np.float32) for n in "abcd"}),
        ("InstanceNormalization", {}, {n: np.ones(4, np.float32) for n in "ab"}),
        ("Conv", {}, {"w": np.ones((4, 4, 3, 3), np.float32)}),
        ("AveragePool", {"kernel_shape": (2, 2)}, {}),
        ("LRN", {"size": 3}, {}),
    ],
)
def test_elements_that_an_op_does_not_take(
    op: str, attrs: dict[str, Any], weights: dict[str, np.ndarray]
) -> None:
    def importing(kind: int) -> None:
        made = node(op, " ".join(["x", *weights]), "y", **attrs)
        load_model(model([made], [value("x", (1, 4, 6, 6), kind)], ["y"], weights))

    importing(TensorProto.FLOAT)
    for name in ("uint8", "uint2", "bool", "string", "complex64"):
        kind = TensorProto.DataType.Value(name.upper())
        with pytest.raises(graphkiln.GraphkilnError, match=f"input 0 holds {name}, the op takes"):
            importing(kind)
