"""What nodes of a net give for its first feed, by runtimes that are not the project's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

IR_VERSION = 10
MICROSOFT = "com.microsoft"

PEER = frozenset(
    "Conv ConvTranspose MaxPool AveragePool LpPool GlobalLpPool MaxUnpool LRN Resize "
    "GroupNormalization BatchNormalization InstanceNormalization LayerNormalization Attention "
    "RotaryEmbedding RMSNormalization SimplifiedLayerNormalization LSTM GRU RNN If Loop Scan "
    "QLinearConv QLinearMatMul ConvInteger MatMulInteger SplitToSequence SequenceInsert "
    "SequenceErase SequenceConstruct SequenceAt SequenceEmpty ConcatFromSequence "
    "OptionalHasElement OptionalGetElement Optional".split()
)
"""Operations that onnxruntime is asked first, since ONNX's reference lacks parts of them."""


class Unfit(Exception):
    """An operation does not fit its operands; the net stays as it was."""


def evaluate_nodes(
    nodes: Sequence[onnx.NodeProto],
    given: Mapping[str, np.ndarray],
    ends: Sequence[str],
    opset: int,
) -> list[Any]:
    """The values named ``ends``; raises :class:`Unfit` where no runtime has them."""
    model = _model(nodes, given, ends, opset)
    peer = any(n.domain == MICROSOFT or n.op_type in PEER for n in nodes)
    attempts = [_by_onnxruntime, _by_reference] if peer else [_by_reference]
    reasons = []
    for attempt in attempts:
        try:
            results = attempt(model, given)
        except Exception as e:  # whatever NumPy, the reference or onnxruntime raise
            reasons.append(f"{type(e).__name__}: {e}")
            continue
        return [np.asarray(r) if isinstance(r, np.generic) else r for r in results]
    raise Unfit(f"{nodes[-1].op_type}: {'; '.join(reasons)}")


def _model(
    nodes: Sequence[onnx.NodeProto],
    given: Mapping[str, np.ndarray],
    ends: Sequence[str],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes), "nodes",
        [helper.make_tensor_value_info(n, element(a.dtype), a.shape) for n, a in given.items()],
        [onnx.ValueInfoProto(name=n) for n in ends],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=opsets(nodes, opset), ir_version=IR_VERSION)


def opsets(nodes: Sequence[onnx.NodeProto], opset: int) -> list[onnx.OperatorSetIdProto]:
    """What a model of these nodes imports."""
    domains = sorted({n.domain for n in nodes} | {""})
    return [helper.make_opsetid(d, opset if not d else 1) for d in domains]


def _by_reference(model: onnx.ModelProto, given: Mapping[str, np.ndarray]) -> list[Any]:
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(model).run(None, dict(given)))


def _by_onnxruntime(model: onnx.ModelProto, given: Mapping[str, np.ndarray]) -> list[Any]:
    from .judge import onnxruntime_session

    return list(onnxruntime_session(model).run(None, dict(given)))


def element(dtype: Any) -> int:
    """ONNX's number of a NumPy type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
