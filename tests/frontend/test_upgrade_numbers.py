"""Old nodes compute what their own opset says, after import to the newest one.

Where onnxruntime runs the old node, its result is expected; else the old text's formula is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.build import BOOL, FLOAT, INT64, model, node, refusal, run
from onnx import helper

from graphkiln.frontend import load_model

RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
C = RNG.random(3).astype(np.float32)
M = RNG.standard_normal((2, 3)).astype(np.float32)


@dataclass
class Case:
    """One node at an old opset; ``expected`` None asks onnxruntime."""

    opset: int
    op: str
    inputs: Mapping[str, Any]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    expected: Callable[..., Any] | None = None
    outputs: str = "y"
    weights: Sequence[str] = ()
    domain: str = ""

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        given = {k: v for k, v in self.inputs.items() if k not in self.weights}
        return {k: np.asarray(v) for k, v in given.items() if v is not None}

    def model(self) -> onnx.ModelProto:
        names = " ".join("-" if v is None else k for k, v in self.inputs.items())
        infos = [
            helper.make_tensor_value_info(
                k, helper.np_dtype_to_tensor_dtype(v.dtype) if v.dtype != object else 8, v.shape
            )
            for k, v in self.feeds.items()
        ]
        made = node(self.op, names, self.outputs, domain=self.domain, **self.attrs)
        constants = {k: self.inputs[k] for k in self.weights}
        names_out = [o for o in self.outputs.split() if o != "-"]
        return model([made], infos, names_out, constants, opset=self.opset, ai_onnx_ml=1)


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    flat = x.reshape(int(np.prod(x.shape[:axis])), -1)
    e = np.exp(flat - flat.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True)).reshape(x.shape)


def _hardmax(x: np.ndarray, axis: int) -> np.ndarray:
    flat = x.reshape(int(np.prod(x.shape[:axis])), -1)
    return (np.arange(flat.shape[1]) == flat.argmax(1)[:, None]).reshape(x.shape)


def _batch_norm(x: np.ndarray, s: Any, b: Any, m: Any, v: Any, eps: float = 1e-5) -> np.ndarray:
    s, b, m, v = (a.reshape(1, -1, 1, 1) if a.ndim == 1 else a for a in (s, b, m, v))
    return s * (x - m) / np.sqrt(v + eps) + b


def _nearest(x: np.ndarray, scales: Sequence[float], pick: Callable[..., Any]) -> np.ndarray:
    for axis, s in enumerate(scales):
        size = int(np.floor(x.shape[axis] * s))
        at = pick(np.arange(size) / np.float32(s), s).astype(int)
        x = np.take(x, np.minimum(at, x.shape[axis] - 1), axis)
    return x


def _old_resize(x: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    return _nearest(x, scales, lambda at, s: np.ceil(at) if s < 1 else np.floor(at))


BN = {"x": X, "s": C, "b": C + 1, "m": C - 1, "v": C + 2}
PER_ELEMENT = {k: RNG.random((3, 4, 4)).astype(np.float32) + 1 for k in "sbmv"}
BOOLS = X > 0

CASES: dict[str, Case] = {
    # Explicit broadcasting.
    "add at an axis": Case(
        6, "Add", {"x": X, "c": C}, {"broadcast": 1, "axis": 1},
        lambda x, c: x + c[:, None, None],
    ),
    "sub at a negative axis": Case(
        6, "Sub", {"x": X, "c": C}, {"broadcast": 1, "axis": -3},
        lambda x, c: x - c[:, None, None],
    ),
    "mul from the end": Case(
        6, "Mul", {"x": X, "c": X[0, 0]}, {"broadcast": 1}, lambda x, c: x * c
    ),
    "div of equal shapes": Case(6, "Div", {"x": X, "c": X + 9}, {}, lambda x, c: x / c),
    "and at an axis": Case(
        1, "And", {"x": BOOLS, "c": C > 0.5}, {"broadcast": 1, "axis": 1},
        lambda x, c: x & c[:, None, None],
    ),
    "greater at an axis": Case(
        1, "Greater", {"x": X, "c": C}, {"broadcast": 1, "axis": 1},
        lambda x, c: x > c[:, None, None],
    ),
    "prelu per channel": Case(
        6, "PRelu", {"x": X, "c": C}, {}, lambda x, c: np.where(x < 0, x * c[:, None, None], x)
    ),
    "gemm": Case(
        6, "Gemm", {"a": M, "b": M.T, "c": M[:, 0]}, {"broadcast": 1}, lambda a, b, c: a @ b + c
    ),
    "tile along one axis": Case(
        1, "Tile", {"x": M, "t": np.array(3.0, np.float32), "a": np.array(1.0, np.float32)}, {},
        lambda x, t, a: np.tile(x, (1, 3)), weights="ta",
    ),
    # Attributes that became inputs.
    "clip": Case(6, "Clip", {"x": X}, {"min": -0.5, "max": 0.5}),
    "clip from below": Case(7, "Clip", {"x": X}, {"min": 0.1}),
    "old paddings": Case(
        1, "Pad", {"x": M}, {"paddings": [0, 1, 0, 2], "value": 3.0},
        lambda x: np.pad(x, ((0, 0), (1, 2)), constant_values=3),
    ),
    "pad": Case(10, "Pad", {"x": M}, {"pads": [1, 0, 0, 2], "value": -1.0}),
    "pad by reflection": Case(2, "Pad", {"x": X}, {"pads": [0, 0, 1, 0, 0, 0, 2, 1],
                                                   "mode": "reflect"}),
    "slice": Case(9, "Slice", {"x": X}, {"starts": [1, -3], "ends": [9, -1], "axes": [1, 3]}),
    "slice of all axes": Case(9, "Slice", {"x": M}, {"starts": [1, 0], "ends": [2, 2]}),
    "squeeze": Case(11, "Squeeze", {"x": X[:, :1]}, {"axes": [1]}),
    "unsqueeze": Case(11, "Unsqueeze", {"x": M}, {"axes": [0, 3]}),
    "reshape": Case(1, "Reshape", {"x": X}, {"shape": [0, -1]}, lambda x: x.reshape(2, -1)),
    "split": Case(2, "Split", {"x": X}, {"axis": 3, "split": [1, 3]}, outputs="y z"),
    "equal split": Case(11, "Split", {"x": X}, {"axis": 3}, outputs="y z"),
    "equal split with sizes as input": Case(13, "Split", {"x": X}, {"axis": 3}, outputs="y z"),
    "split by input": Case(
        1, "Split", {"x": M, "s": np.array([1, 2])}, {"axis": 1},
        lambda x, s: np.split(x, [1], 1), outputs="y z", weights="s",
    ),
    "top k": Case(9, "TopK", {"x": M}, {"k": 2}, outputs="y z"),
    "top k by input": Case(10, "TopK", {"x": M, "k": np.array([2])}, {}, None, "y z", "k"),
    "dft": Case(
        17, "DFT", {"x": X[..., :1]}, {},
        lambda x: np.stack([(f := np.fft.fft(x[..., 0], axis=1)).real, f.imag], -1),
    ),
    "concat without an axis": Case(
        1, "Concat", {"a": M, "b": M}, {}, lambda a, b: np.concatenate([a, b], 1)
    ),
    **{
        f"{op} {opset}": Case(opset, op, {"x": np.abs(X)}, {"axes": [1, -1], "keepdims": keep})
        for opset, keep in ((11, 0), (13, 1))
        for op in (
            "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
            "ReduceMin", "ReduceProd", "ReduceSumSquare",
        )
    },
    "reduce sum": Case(11, "ReduceSum", {"x": X}, {"axes": [2], "keepdims": 0}),
    "reduce all": Case(11, "ReduceMean", {"x": X}, {}),
    "log of an integer sum": Case(
        18, "ReduceLogSum", {"x": np.array([[100, 200], [3, 4]])}, {},
        lambda x: np.log(x.sum(keepdims=True)).astype(np.int64),
    ),
    # Normalisation.
    "softmax over rows": Case(11, "Softmax", {"x": X}, {}, lambda x: _softmax(x, 1)),
    "softmax of the last axis": Case(11, "Softmax", {"x": X}, {"axis": 3}),
    "softmax of a negative axis": Case(
        11, "Softmax", {"x": X}, {"axis": -2}, lambda x: _softmax(x, 2)
    ),
    "softmax of everything": Case(9, "Softmax", {"x": X}, {"axis": 0}, lambda x: _softmax(x, 0)),
    "log softmax": Case(
        11, "LogSoftmax", {"x": X}, {"axis": 2}, lambda x: np.log(_softmax(x, 2))
    ),
    "hardmax": Case(11, "Hardmax", {"x": X}, {}, lambda x: _hardmax(x, 1)),
    "batch norm": Case(7, "BatchNormalization", BN, {"epsilon": 0.1},
                       lambda *a: _batch_norm(*a, eps=0.1)),
    "batch norm in test mode": Case(
        6, "BatchNormalization", BN, {"is_test": 1, "spatial": 1}, _batch_norm
    ),
    "batch norm per element": Case(
        7, "BatchNormalization", {"x": X, **PER_ELEMENT}, {"spatial": 0}, _batch_norm
    ),
    "instance norm": Case(
        1, "InstanceNormalization", {"x": X, "s": C, "b": C}, {"consumed_inputs": [0, 0, 0]},
        lambda x, s, b: (x - x.mean((2, 3), keepdims=True))
        / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5) * s[:, None, None] + b[:, None, None],
    ),
    "group norm": Case(
        18, "GroupNormalization", {"x": np.repeat(X, 2, 1), "s": C, "b": C + 1}, {"num_groups": 3},
        lambda x, s, b: (
            (g := x.reshape(2, 3, -1)) - g.mean(2, keepdims=True)
        ).__truediv__(np.sqrt(g.var(2, keepdims=True) + 1e-5)).__mul__(s[:, None])
        .__add__((b)[:, None]).reshape(x.shape),
    ),
    "dropout": Case(7, "Dropout", {"x": X}, {"ratio": 0.9}),
    "dropout with a mask": Case(
        7, "Dropout", {"x": X}, {"ratio": 0.9}, lambda x: [x, np.ones_like(x)], "y z"
    ),
    "dropout with a bool mask": Case(
        10, "Dropout", {"x": X}, {}, lambda x: [x, np.ones_like(x, bool)], "y z"
    ),
    "old dropout": Case(6, "Dropout", {"x": X}, {"is_test": 1}, lambda x: x),
    "selu with rounded constants": Case(
        1, "Selu", {"x": X}, {},
        lambda x: 1.0507 * np.where(x > 0, x, 1.6732 * (np.exp(x) - 1)),
    ),
    # Resampling.
    "upsample by sides": Case(
        1, "Upsample", {"x": X}, {"height_scale": 2.0, "width_scale": 3.0},
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "upsample": Case(7, "Upsample", {"x": X}, {"scales": [1.0, 1.0, 2.0, 2.5]}),
    "upsample linearly": Case(
        7, "Upsample", {"x": X}, {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}
    ),
    "upsample by input": Case(
        9, "Upsample", {"x": X, "s": np.array([1, 1, 2, 3], np.float32)}, weights="s"
    ),
    **{
        f"resize by {a} and {b}": Case(
            10, "Resize", {"x": X, "s": np.array([1, 1, a, b], np.float32)}, {},
            _old_resize, weights="s",
        )
        for a, b in ((2, 2), (0.6, 0.5), (0.6, 1.7), (1.3, 1), (0.3, 1))
    },
    "resize linearly": Case(
        10, "Resize", {"x": X, "s": np.array([1, 1, 0.6, 2], np.float32)}, {"mode": "linear"},
        weights="s",
    ),
    "resize with empty inputs": Case(
        11, "Resize",
        {"x": X, "r": np.zeros(0, np.float32), "s": np.zeros(0, np.float32),
         "n": np.array([2, 3, 7, 5])},
        {"mode": "nearest"}, weights="rsn",
    ),
    "resize like tensorflow": Case(
        11, "Resize", {"x": X, "r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2.5],
                                                                           np.float32)},
        {"mode": "nearest", "nearest_mode": "floor",
         "coordinate_transformation_mode": "tf_half_pixel_for_nn"},
        weights="rs",
    ),
    **{
        f"resize like tensorflow, {mode} {rounding} {given}": Case(
            11, "Resize",
            {"x": X, "r": np.zeros(0, np.float32),
             "s": np.array([1, 1, 2, 0.7] if given == "scales" else [], np.float32),
             **({"n": np.array([2, 3, 7, 3])} if given == "sizes" else {})},
            {"mode": mode, "nearest_mode": rounding,
             "coordinate_transformation_mode": "tf_half_pixel_for_nn"},
            weights="rsn" if given == "sizes" else "rs",
        )
        for mode, rounding, given in (
            ("nearest", "round_prefer_floor", "scales"), ("nearest", "round_prefer_ceil", "sizes"),
            ("nearest", "ceil", "scales"), ("linear", "floor", "scales"),
            ("linear", "floor", "sizes"), ("cubic", "floor", "scales"),
        )
    },
    "grid sample": Case(
        16, "GridSample", {"x": X, "g": RNG.uniform(-1, 1, (2, 3, 2, 2)).astype(np.float32)},
        {"mode": "bicubic"},
    ),
    "roi align": Case(
        10, "RoiAlign",
        {"x": X, "r": np.array([[0, 0, 3, 3]], np.float32), "b": np.array([1])},
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    "stft of a signal without a last axis": Case(
        17, "STFT", {"x": M[:, [0, 1, 2, 0, 1, 2, 1, 0]], "s": np.array(2), "w": None,
                     "n": np.array(4)},
        {"onesided": 1}, weights="sn",
    ),
    # Renamed, respelled, redefined.
    "scatter": Case(
        9, "Scatter", {"x": M, "i": np.array([[1, 0, 1]]), "u": M[:1] + 1}, {"axis": 0}
    ),
    "cast by name": Case(1, "Cast", {"x": X}, {"to": "INT32"}, lambda x: x.astype(np.int32)),
    "one-hot of negative indices": Case(
        9, "OneHot", {"i": np.array([0, -1, 2, 5]), "d": np.array(3),
                      "v": np.array([2.0, 7.0], np.float32)},
        {}, lambda i, d, v: np.where(np.arange(3) == i[:, None], v[1], v[0]), weights="dv",
    ),
    "one-hot": Case(
        11, "OneHot", {"i": np.array([0, -1, 2, 5]), "d": np.array(3),
                       "v": np.array([2.0, 7.0], np.float32)}, weights="dv",
    ),
    "erf of integers": Case(
        9, "Erf", {"x": np.array([-9, 0, 1, 9])}, {}, lambda x: np.sign(x) * (np.abs(x) > 3)
    ),
    "norm of windows": Case(
        1, "LpPool", {"x": X}, {"p": 2.0, "kernel_shape": [4, 4]},
        lambda x: np.sqrt((x * x).sum((2, 3), keepdims=True)),
    ),
    "gru": Case(
        1, "GRU",
        {"x": RNG.random((3, 2, 4), np.float32), "w": RNG.random((1, 6, 4), np.float32),
         "r": RNG.random((1, 6, 2), np.float32)},
        {"hidden_size": 2, "output_sequence": 1}, lambda x, w, r: _gru(x, w[0], r[0]),
        outputs="y h",
    ),
    "labels to text": Case(
        1, "LabelEncoder", {"x": np.array([1, 0, 7])}, {"classes_strings": ["a", "b"]},
        lambda x: np.array(["b", "a", "_Unused"], object), domain="ai.onnx.ml",
    ),
    "text to labels": Case(
        1, "LabelEncoder", {"x": np.array(["b", "z"], object)},
        {"classes_strings": ["a", "b"], "default_int64": -7},
        lambda x: np.array([1, -7]), domain="ai.onnx.ml",
    ),
}  # fmt: skip


def _gru(x: np.ndarray, w: np.ndarray, r: np.ndarray) -> list[np.ndarray]:
    h, out = np.zeros((x.shape[1], r.shape[1])), []
    for step in x:
        (wz, wr, wh), (rz, rr, rh) = (np.split(m, 3) for m in (w, r))
        z, q = (1 / (1 + np.exp(-(step @ a.T + h @ b.T))) for a, b in ((wz, rz), (wr, rr)))
        h = (1 - z) * np.tanh(step @ wh.T + (q * h) @ rh.T) + z * h
        out.append(h)
    return [np.stack(out)[:, None], h[None]]


def _expected(case: Case, proto: onnx.ModelProto) -> list[Any]:
    if case.expected is not None:
        found = case.expected(*case.inputs.values())
        return found if isinstance(found, list) else [found]
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for info in proto.graph.output:
        info.ClearField("type")
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, case.feeds))


@pytest.mark.parametrize("name", CASES)
def test_old_nodes_keep_their_meaning(name: str) -> None:
    case = CASES[name]
    found = run(case.model(), case.feeds)
    expected = _expected(case, case.model())
    assert len(found) == len(expected)
    for have, want in zip(found, expected, strict=True):
        if have.dtype == object or have.dtype.kind in "ib":
            np.testing.assert_array_equal(have, want)
        else:
            np.testing.assert_allclose(have, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_results_keep_their_names(name: str) -> None:
    case = CASES[name]
    names = [v.name for v in load_model(case.model()).graph.outputs]
    assert names == case.outputs.split()


def test_training_outputs_of_batch_norm() -> None:
    proto = Case(9, "BatchNormalization", BN, outputs="y m2 v2").model()
    (made,) = load_model(proto).graph.nodes
    assert made.attrs["training_mode"] == 1 and len(made.outputs) == 3
    saved = Case(9, "BatchNormalization", BN, outputs="y m2 v2 sm sv").model()
    assert "saved_mean" in refusal(saved).reason


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case(6, "Add", {"x": M, "c": X}, {"broadcast": 1, "axis": 1}), "does not fit ranks"),
        (Case(11, "Softmax", {"x": M}, {"axis": 5}), "axis 5 is out of range for rank 2"),
        (Case(1, "Cast", {"x": M}, {"to": "FLOATY"}), "unknown element type 'FLOATY'"),
        (Case(1, "GlobalLpPool", {"x": X}, {"p": 1.5}), "order 1.5"),
        (Case(18, "GroupNormalization", {"x": X, "s": C, "b": C}, {"num_groups": 0}), "is 0"),
        (
            Case(11, "Resize", {"x": X, "r": C[:0], "s": np.ones(4, np.float32)},
                 {"mode": "linear", "coordinate_transformation_mode": "tf_half_pixel_for_nn"}),
            "tf_half_pixel_for_nn needs scales or sizes that are constants",
        ),
    ],
)  # fmt: skip
def test_old_nodes_that_cannot_be_read(case: Case, reason: str) -> None:
    assert reason in refusal(case.model()).reason


def test_ops_that_went_are_read_as_their_last_versions() -> None:
    proto = Case(13, "Scatter", {"x": M, "i": np.array([[1, 0, 1]]), "u": M[:1]}).model()
    assert load_model(proto).graph.nodes[0].op == "ScatterElements"
    weights = np.array([1, 1, 2, 2], np.float32)
    proto = Case(13, "Upsample", {"x": X, "s": weights}, weights="s").model()
    np.testing.assert_array_equal(run(proto, {"x": X})[0], X.repeat(2, 2).repeat(2, 3))


def test_softmax_of_unknown_length_is_reshaped_back() -> None:
    info = helper.make_tensor_value_info("x", FLOAT, ("N", 3, "T"))
    proto = model([node("Softmax", "x", "y")], [info], ["y"], opset=11)
    assert str(load_model(proto).graph.outputs[0].type) == "float32[N,3,T]"
    for n, t in ((2, 5), (1, 1)):
        x = RNG.random((n, 3, t), np.float32)
        np.testing.assert_allclose(run(proto, {"x": x})[0], _softmax(x, 1), rtol=1e-5)


def test_kinds_of_the_helpers() -> None:
    assert (FLOAT, INT64, BOOL) == (1, 7, 9)
