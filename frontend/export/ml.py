"""Dialect ops of classical models, written as ops of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ...ir.graph import Node, Value
from ...ir.onnx_types import element_code
from ...ir.types import DTYPES, TensorType
from .scope import Exporter, ExportError, Scope

_DOMAIN = "ai.onnx.ml"
_LEQ = 0
_AGGREGATES = {"sum": 1, "min": 2, "max": 3}
_BOOL, _INT32, _INT64 = (element_code(DTYPES[n]) for n in ("bool", "int32", "int64"))


def _constant(scope: Scope, node: Node, value: Value | None) -> np.ndarray:
    array = None if value is None else scope.find(value).constant
    if array is None:
        raise ExportError("its tables must be constant", at=node)
    return array


# ---- kiln.Lookup ---------------------------------------------------------------------------------


def _lookup(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x, *tables = inputs
    keys, values, default = (_constant(scope, node, v) for v in tables)
    attrs: dict[str, Any] = {
        "keys_tensor": keys, "values_tensor": values, "default_tensor": default.reshape(1),
    }  # fmt: skip
    if {keys.dtype.name, values.dtype.name} <= {"int64", "float32"}:  # more runtimes have these
        names = {"int64": "int64", "float32": "float"}
        of_keys, of_values = names[keys.dtype.name], names[values.dtype.name]
        attrs = {
            f"keys_{of_keys}s": _entries(keys), f"values_{of_values}s": _entries(values),
            f"default_{of_values}": default.item(),
        }  # fmt: skip
    result = [scope.result(node.out())]
    scope.emit(
        "LabelEncoder", scope.names([x]), attrs, outputs=result, domain=_DOMAIN, name=node.name
    )


def _entries(array: np.ndarray) -> tuple[Any, ...]:
    return tuple(array.tolist())


# ---- kiln.ZipMap ---------------------------------------------------------------------------------


def _zip_map(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    labels = {f"classlabels_{_key_type(node)}s": node.attrs["keys"]}
    scope.emit(
        "ZipMap", scope.names(inputs), labels, outputs=[scope.result(node.out())],
        domain=_DOMAIN, name=node.name,
    )  # fmt: skip


def _key_type(node: Node) -> str:
    keys = node.attrs["keys"]
    assert isinstance(keys, tuple)
    return "string" if isinstance(keys[0], str) else "int64"


def maps_info(node: Node, name: str) -> onnx.ValueInfoProto:
    """The typed name of the result of ``kiln.ZipMap``."""
    info = onnx.ValueInfoProto(name=name)
    of = info.type.sequence_type.elem_type.map_type
    of.key_type = element_code(DTYPES[_key_type(node)])
    of.value_type.tensor_type.elem_type = element_code(DTYPES["float32"])
    return info


# ---- kiln.TreeEnsemble ---------------------------------------------------------------------------


def _tree_ensemble(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    x, *rest = inputs
    features, thresholds, children, roots, weights = (
        _constant(scope, node, v) for v in rest[:5]
    )  # fmt: skip
    starts, targets, missing = (
        None if v is None else _constant(scope, node, v) for v in (*rest[5:], None, None, None)[:3]
    )
    alone = roots[roots >= len(features)] - len(features)
    attrs = _nodes(features, thresholds, children, roots, missing, _leaf_count(weights, starts))
    name, result = scope.names([x])[0], scope.result(node.out())
    count, aggregate = int(node.attrs["targets"]), str(node.attrs.get("aggregate", "sum"))  # type: ignore[arg-type]
    single = starts is None and count == 1
    if starts is not None and (np.diff(starts) == 1).all():
        single = aggregate == "sum"
    if single:
        leaves = np.zeros(len(weights), np.int64) if targets is None else targets
        attrs |= _leaves(leaves, weights.reshape(-1), count, _AGGREGATES[aggregate], alone)
        scope.emit("TreeEnsemble", [name], attrs, outputs=[result], domain=_DOMAIN, name=node.name)
        return
    start = {"sum": 0.0, "min": np.inf, "max": -np.inf}[aggregate]
    table = _dense(weights, starts, targets, count, start, aggregate)
    _by_leaf(scope, node, attrs, table, alone, aggregate, name, result)


def _nodes(
    features: np.ndarray, thresholds: np.ndarray, children: np.ndarray, roots: np.ndarray,
    missing: np.ndarray | None, leaves: int,
) -> dict[str, Any]:  # fmt: skip
    """Attributes of the inner nodes.

    A root that is a leaf becomes a node whose branches lead to the leaf and to a copy of it, which
    is listed after all other leaves: onnx.reference takes a wrong leaf if both branches lead to the
    same one.
    """
    count = len(features)
    alone = roots[roots >= count]
    copies = count + leaves + np.arange(len(alone))
    children = np.concatenate([children, np.stack([alone, copies], 1)]).astype(np.int64)
    is_leaf = children >= count
    ids = np.where(is_leaf, children - count, children)
    at = roots.astype(np.int64)
    at[roots >= count] = count + np.arange(len(alone))
    padding = np.zeros(len(alone), thresholds.dtype)
    attrs: dict[str, Any] = {
        "tree_roots": _entries(at),
        "nodes_featureids": (*_entries(features), *[0] * len(alone)),
        "nodes_modes": np.full(len(children), _LEQ, np.uint8),
        "nodes_splits": np.concatenate([thresholds, padding]),
    }
    for column, kind in enumerate(("true", "false")):
        attrs[f"nodes_{kind}nodeids"] = _entries(ids[:, column])
        attrs[f"nodes_{kind}leafs"] = _entries(is_leaf[:, column].astype(np.int64))
    if missing is not None:
        tracks = (*_entries(missing.astype(np.int64)), *[0] * len(alone))
        attrs["nodes_missing_value_tracks_true"] = tracks
    return attrs


def _leaf_count(weights: np.ndarray, starts: np.ndarray | None) -> int:
    return len(weights) if starts is None else len(starts) - 1


def _leaves(
    targets: np.ndarray, weights: np.ndarray, count: int, aggregate: int, copied: np.ndarray
) -> dict[str, Any]:
    """Attributes of the leaves, the ``copied`` ones once more at the end."""
    return {
        "leaf_targetids": _entries(np.concatenate([targets, targets[copied]])),
        "leaf_weights": np.concatenate([weights, weights[copied]]),
        "n_targets": count,
        "aggregate_function": aggregate,
    }


def _dense(
    weights: np.ndarray, starts: np.ndarray | None, targets: np.ndarray | None, count: int,
    start: float, aggregate: str,
) -> np.ndarray:  # fmt: skip
    """The value of each leaf for each target; ``start`` for targets without one."""
    if starts is None or targets is None:
        return weights
    table = np.full((len(starts) - 1, count), start, weights.dtype)
    leaf = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    step = {"sum": np.add, "min": np.minimum, "max": np.maximum}[aggregate]
    step.at(table, (leaf, targets), weights)
    return table


def _by_leaf(
    scope: Scope, node: Node, attrs: dict[str, Any], table: np.ndarray, alone: np.ndarray,
    aggregate: str, x: str, result: str,
) -> None:  # fmt: skip
    """Leaves of several targets, which ONNX lacks: trees return leaf numbers, then a Gather."""
    if len(table) >= 2**24:
        raise ExportError("has too many leaves for float32", at=node)
    owners = _owners(attrs, len(table) + len(alone))[: len(table)]
    numbers = np.arange(len(table), dtype=table.dtype)
    attrs |= _leaves(owners, numbers, len(attrs["tree_roots"]), _AGGREGATES["sum"], alone)
    found = scope.emit("TreeEnsemble", [x], attrs, domain=_DOMAIN, name=node.name)
    number = scope.emit("Cast", [found], {"to": _INT64})
    held = scope.emit("Gather", [scope.tensor(table, "leaves"), number], {"axis": 0})
    reduce = {"sum": "ReduceSum", "min": "ReduceMin", "max": "ReduceMax"}[aggregate]
    last = {"keepdims": 0}
    if aggregate == "sum":
        scope.emit(reduce, [held, scope.ints([1])], last, outputs=[result])
        return
    total = scope.emit(reduce, [held, scope.ints([1])], last)
    none = scope.emit("IsInf", [total])
    zero = scope.tensor(np.zeros((), table.dtype), "zero")
    scope.emit("Where", [none, zero, total], outputs=[result])


def _owners(attrs: dict[str, Any], leaves: int) -> np.ndarray:
    """The tree that each leaf belongs to."""
    owner = np.zeros(leaves, np.int64)
    frontier = np.array(attrs["tree_roots"])
    trees = np.arange(len(frontier))
    branches = [
        (np.array(attrs[f"nodes_{k}nodeids"]), np.array(attrs[f"nodes_{k}leafs"]) != 0)
        for k in ("true", "false")
    ]
    while frontier.size:
        following = []
        for ids, is_leaf in branches:
            ended = is_leaf[frontier]
            owner[ids[frontier[ended]]] = trees[ended]
            following.append((ids[frontier[~ended]], trees[~ended]))
        pairs = np.unique(np.concatenate([np.stack(p, 1) for p in following]), axis=0)
        frontier, trees = pairs[:, 0], pairs[:, 1]
    return owner


# ---- kiln.CoupledProbabilities -------------------------------------------------------------------


def _coupled(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    """A ``Loop`` of iterations over all examples; those that have converged stay as they are."""
    pairs, classes = scope.names(inputs)[0], int(node.attrs["classes"])  # type: ignore[arg-type]
    out = node.out().type
    assert isinstance(out, TensorType)
    writer = _Coupling(scope, classes, np.dtype(out.dtype.name))
    q, first = writer.problem(pairs)
    body = writer.body(q)
    limit = scope.tensor(np.array(max(100, classes), np.int64), "sweeps")
    go, found = scope.tensor(np.array(True), "go"), scope.shared.names.unique(node.name)
    scope.append(
        onnx.helper.make_node("Loop", [limit, go, first], [found], name=node.name, body=body)
    )
    shaped = scope.result(node.out())
    scope.emit("Squeeze", [found, scope.ints([2])], outputs=[shaped])


class _Coupling:
    """Writes the arithmetic of one op with ``classes`` classes; values are [N, classes, 1]."""

    def __init__(self, scope: Scope, classes: int, dtype: np.dtype[Any]) -> None:
        self.scope = scope
        self.classes = classes
        self.dtype = dtype

    def number(self, value: float) -> str:
        return self.scope.tensor(np.array(value, self.dtype), "number")

    def problem(self, pairs: str) -> tuple[str, str]:
        """The matrices Q [N, classes, classes], and equal initial probabilities."""
        emit, n = self.scope.emit, self.classes
        lost = emit("Sub", [self.number(1), pairs])
        places = np.zeros((n, n), np.int64)
        upper = np.triu_indices(n, 1)
        places[upper] = np.arange(len(upper[0]))
        places.T[upper] = len(upper[0]) + np.arange(len(upper[0]))
        both = emit("Concat", [pairs, lost], {"axis": 1})
        index = self.scope.tensor(places, "places")
        eye = np.eye(n, dtype=self.dtype)
        others = self.scope.tensor(1 - eye, "others")
        ratio = emit("Mul", [emit("Gather", [both, index], {"axis": 1}), others])
        turned = emit("Transpose", [ratio], {"perm": (0, 2, 1)})
        squares = emit("ReduceSumSquare", [ratio, self.scope.ints([1])], {"keepdims": 0})
        column = emit("Unsqueeze", [squares, self.scope.ints([2])])
        diagonal = emit("Mul", [column, self.scope.tensor(eye, "eye")])
        q = emit("Sub", [diagonal, emit("Mul", [ratio, turned])])
        zero = emit("Mul", [column, self.number(0)])
        return q, emit("Add", [zero, self.number(1 / n)])

    def body(self, q: str) -> onnx.GraphProto:
        inner = Scope(self.scope.shared, onnx.GraphProto(name="sweep"), self.scope)
        kind = TensorType(DTYPES[self.dtype.name], None)
        unique = inner.shared.names.unique
        turn, on, p = unique("turn"), unique("on"), unique("p")
        for name, t in ((turn, "int64"), (on, "bool"), (p, "")):
            info = kind if not t else TensorType(DTYPES[t], ())
            inner.proto.input.append(inner.info(info, name))
        again, following = _Sweep(inner, self, q).run(p)
        inner.proto.output.append(inner.info(TensorType(DTYPES["bool"], ()), again))
        inner.proto.output.append(inner.info(kind, following))
        return inner.proto


class _Sweep:
    """One iteration of the loop; see the documentation of the op."""

    def __init__(self, scope: Scope, whole: _Coupling, q: str) -> None:
        self.scope = scope
        self.emit = scope.emit
        self.whole = whole
        self.q = q

    def run(self, p: str) -> tuple[str, str]:
        """Whether any example has not converged, and the new probabilities."""
        emit, n = self.emit, self.whole.classes
        one = self.scope.tensor(np.array(1, self.whole.dtype), "one")
        qp = emit("MatMul", [self.q, p])
        turned = emit("Transpose", [p], {"perm": (0, 2, 1)})
        total = emit("MatMul", [turned, qp])
        off = emit("Abs", [emit("Sub", [qp, total])])
        worst = emit("ReduceMax", [off, self.scope.ints([1])], {"keepdims": 1})
        tolerance = self.scope.tensor(np.array(0.005 / n, self.whole.dtype), "tolerance")
        moving = emit("GreaterOrEqual", [worst, tolerance])
        new = p
        for t in range(n):
            unit = self.scope.tensor(np.eye(n, dtype=self.whole.dtype)[:, t : t + 1], "unit")
            column = self._at(self.q, t, 2)
            own = self._at(column, t, 1)
            slope = self._at(qp, t, 1)
            step = emit("Div", [emit("Sub", [total, slope]), own])
            scale = emit("Add", [step, one])
            new = emit("Div", [emit("Add", [new, emit("Mul", [unit, step])]), scale])
            twice = emit("Add", [slope, slope])
            gain = emit("Mul", [step, emit("Add", [emit("Mul", [step, own]), twice])])
            total = emit("Div", [emit("Add", [total, gain]), emit("Mul", [scale, scale])])
            qp = emit("Div", [emit("Add", [qp, emit("Mul", [column, step])]), scale])
        flags = emit("ReduceMax", [emit("Cast", [moving], {"to": _INT32})], {"keepdims": 0})
        again = emit("Cast", [flags], {"to": _BOOL})
        return again, emit("Where", [moving, new, p])

    def _at(self, x: str, t: int, axis: int) -> str:
        return self.emit("Gather", [x, self.scope.ints([t])], {"axis": axis})


ML_EXPORTERS: dict[str, Exporter] = {
    "kiln.CoupledProbabilities": _coupled,
    "kiln.Lookup": _lookup,
    "kiln.TreeEnsemble": _tree_ensemble,
    "kiln.ZipMap": _zip_map,
}
