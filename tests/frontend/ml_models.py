"""One-node models of ai.onnx.ml, random trees, and what other implementations make of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from frontend.build import model, node, run, value
from onnx.helper import np_dtype_to_tensor_dtype
from onnx.reference import ReferenceEvaluator

DOMAIN = "ai.onnx.ml"
Array = np.ndarray
Runs = list[Any]


def ml_model(
    op: str, inputs: Sequence[Array], attrs: Mapping[str, Any], outputs: int = 1, version: int = 3
) -> onnx.ModelProto:
    """A model of one op; its inputs are called x0, x1 ..., its outputs y0, y1 ..."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    made = node(op, " ".join(names), " ".join(results), domain=DOMAIN, **attrs)
    infos = [
        value(n, a.shape, onnx.TensorProto.STRING if a.dtype == object else
              np_dtype_to_tensor_dtype(a.dtype))
        for n, a in zip(names, inputs, strict=True)
    ]  # fmt: skip
    return model([made], infos, results, ai_onnx_ml=version)


def ours(op: str, inputs: Sequence[Array], attrs: Mapping[str, Any], outputs: int = 1,
         version: int = 3) -> Runs:  # fmt: skip
    """The results of the imported model, evaluated op by op."""
    feeds = {f"x{i}": a for i, a in enumerate(inputs)}
    return run(ml_model(op, inputs, attrs, outputs, version), feeds)


def reference(op: str, inputs: Sequence[Array], attrs: Mapping[str, Any], outputs: int = 1,
              version: int = 3) -> Runs:  # fmt: skip
    """The results of onnx.reference."""
    feeds = {f"x{i}": a for i, a in enumerate(inputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        evaluator = ReferenceEvaluator(ml_model(op, inputs, attrs, outputs, version))
        return list(evaluator.run(None, feeds))


def runtime(op: str, inputs: Sequence[Array], attrs: Mapping[str, Any], outputs: int = 1,
            version: int = 3) -> Runs:  # fmt: skip
    """The results of onnxruntime."""
    proto = ml_model(op, inputs, attrs, outputs, version)
    return session(proto).run(None, {f"x{i}": a for i, a in enumerate(inputs)})


def session(proto: onnx.ModelProto) -> Any:
    """An onnxruntime session of a model, whose outputs need no types."""
    import onnxruntime

    typed = onnx.ModelProto()
    typed.CopyFrom(proto)
    for out in typed.graph.output:
        out.type.CopyFrom(onnx.TypeProto())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        typed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def same(got: Runs, want: Runs, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Equal types, shapes and close numbers."""
    for a, b in zip(got, want, strict=True):
        b = np.asarray(b)
        assert a.dtype == b.dtype, f"{a.dtype}, wanted {b.dtype}"
        assert a.shape == b.shape
        if b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
        else:
            assert a.tolist() == b.tolist()


# ---- trees ---------------------------------------------------------------------------------------

NODES = (
    "treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
    "missing_value_tracks_true",
)  # fmt: skip


def random_trees(
    seed: int, trees: int, depth: int, features: int, modes: Sequence[str] = ("LEQ",),
    prefix: str = "target", ids: Sequence[int] = (0,), votes: int = 1, positive: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Attributes of trees whose leaves have ``votes`` votes for distinct ones of ``ids``.

    Thresholds are whole numbers, so that whole features hit them.
    """
    rng = np.random.default_rng(seed)
    out: dict[str, list[Any]] = {f"nodes_{n}": [] for n in NODES}
    out |= {f"{prefix}_{n}": [] for n in ("treeids", "nodeids", "ids", "weights")}

    def add(tree: int, left: int, count: list[int]) -> int:
        number, at = count[0], len(out["nodes_modes"])
        count[0] += 1
        leaf = left == 0 or (left < depth and rng.random() < 0.25)
        row = [tree, number, int(rng.integers(features)), float(rng.integers(-3, 4)),
               "LEAF" if leaf else f"BRANCH_{rng.choice(modes)}", 0, 0,
               int(rng.integers(2))]  # fmt: skip
        for name, entry in zip(NODES, row, strict=True):
            out[f"nodes_{name}"].append(entry)
        if leaf:
            for i in sorted(rng.permutation(list(ids))[:votes].tolist()):
                weight = float(np.float32(rng.standard_normal()))
                entries = (tree, number, i, abs(weight) if positive else weight)
                for name, entry in zip(("treeids", "nodeids", "ids", "weights"), entries,
                                       strict=True):  # fmt: skip
                    out[f"{prefix}_{name}"].append(entry)
        else:
            out["nodes_truenodeids"][at] = add(tree, left - 1, count)
            out["nodes_falsenodeids"][at] = add(tree, left - 1, count)
        return number

    for tree in range(trees):
        add(tree, depth, [0])
    return out


def examples(rows: int, features: int, dtype: str = "float32", seed: int = 1) -> Array:
    """Whole numbers; floats have a NaN in every third row."""
    found = np.random.default_rng(seed).integers(-4, 5, (rows, features)).astype(dtype)
    if dtype.startswith("float"):
        found[::3, 1] = np.nan
    return found
