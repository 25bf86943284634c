"""The bridge to ``onnx.reference``: one node of the IR, run by ONNX's own implementation.

The only file of the IR that builds protobuf messages; onnx is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .graph import Graph, GraphError, Node
from .literals import raw_bytes
from .onnx_types import element_code
from .registry import ML_OPSET, OPSET
from .types import (
    DType,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    array_type,
    from_numpy_dtype,
)

if TYPE_CHECKING:
    from onnx import AttributeProto, NodeProto, TensorProto, TypeProto

Runner = Callable[[list[Any]], list[Any]]

DOMAIN_VERSIONS = {
    "": OPSET, "ai.onnx.ml": ML_OPSET, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1,
}  # fmt: skip
"""The domains ONNX defines and the opset the IR holds each of them at."""


def reference_runner(node: Node, present: Sequence[bool]) -> Runner:
    """A function from inputs to outputs of ``node``; ``present`` says which inputs it will get.

    Raises :class:`GraphError` where ONNX has no implementation of the op.
    """
    if node.domain not in DOMAIN_VERSIONS:
        raise GraphError(f"there is no reference evaluation of {node.key}", node=node.name)
    names = [f"x{i}" if there else "" for i, there in enumerate(present)]
    if _function_needs_types(node):
        return lambda inputs: _run(_evaluator(node, names, inputs), names, inputs)
    evaluator = _evaluator(node, names, None)
    return lambda inputs: _run(evaluator, names, inputs)


def _run(evaluator: Any, names: Sequence[str], inputs: list[Any]) -> list[Any]:
    return list(evaluator.run(None, {n: v for n, v in zip(names, inputs, strict=True) if n}))


def _function_needs_types(node: Node) -> bool:
    """True for ops that ONNX defines by a function which depends on the inputs' types."""
    import onnx.defs

    version = DOMAIN_VERSIONS[node.domain]
    if not onnx.defs.has(node.op, version, node.domain):
        return False
    schema: Any = onnx.defs.get_schema(node.op, version, node.domain)
    return bool(schema.has_context_dependent_function)


def _evaluator(node: Node, names: Sequence[str], inputs: list[Any] | None) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    info = onnx.ValueInfoProto
    values = [None] * len(names) if inputs is None else inputs
    outputs = [f"y{i}" for i in range(len(node.outputs))]
    graph = onnx.GraphProto(
        name="node",
        node=[node_proto(node, names, outputs)],
        input=[
            info(name=n, type=type_proto(array_type(v)) if isinstance(v, np.ndarray) else None)
            for n, v in zip(names, values, strict=True)
            if n
        ],
        output=[info(name=n) for n in outputs],
    )
    opsets = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in DOMAIN_VERSIONS.items()]
    try:
        return ReferenceEvaluator(onnx.ModelProto(graph=graph, opset_import=opsets, ir_version=10))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as e:
        raise GraphError(f"onnx.reference does not evaluate {node.key}: {e}", node=node.name) from e


def node_proto(node: Node, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
    """A ``NodeProto`` of ``node``'s op and attributes (no graphs); None attributes are left out."""
    import onnx

    kinds = attribute_kinds(node)
    attributes = [
        attribute_proto(name, value, kinds.get(name))
        for name, value in sorted(node.attrs.items())
        if value is not None
    ]
    return onnx.NodeProto(
        name=node.name, op_type=node.op, domain=node.domain,
        input=inputs, output=outputs, attribute=attributes,
    )  # fmt: skip


def attribute_kinds(node: Node) -> dict[str, int]:
    """The ``AttributeProto`` type number of each attribute in the op's schema."""
    import onnx.defs

    version = DOMAIN_VERSIONS.get(node.domain, 1)
    if not onnx.defs.has(node.op, version, node.domain):
        return {}
    schema = onnx.defs.get_schema(node.op, version, node.domain)
    kinds: dict[str, Any] = {name: a.type for name, a in schema.attributes.items()}
    return {name: int(kind.value) for name, kind in kinds.items()}


def attribute_proto(name: str, value: Any, kind: int | None = None) -> AttributeProto:
    """An ``AttributeProto``; ``kind`` is the type its schema asks for, None guesses from the value.

    Raises :class:`GraphError` for values ONNX has no attribute for.
    """
    import onnx

    kind = _guess_kind(name, value) if kind is None else kind
    proto = onnx.AttributeProto(name=name, type=kind)  # type: ignore[arg-type]
    types = onnx.AttributeProto
    if kind == types.FLOAT:
        proto.f = float(value)
    elif kind == types.INT:
        proto.i = element_code(value) if isinstance(value, DType) else int(value)
    elif kind == types.STRING:
        proto.s = _encoded(value)
    elif kind == types.FLOATS:
        proto.floats.extend(float(v) for v in value)
    elif kind == types.INTS:
        proto.ints.extend(int(v) for v in value)
    elif kind == types.STRINGS:
        proto.strings.extend(_encoded(v) for v in value)
    elif kind == types.TENSOR:
        proto.t.CopyFrom(tensor_proto(value))
    elif kind == types.TYPE_PROTO:
        proto.tp.CopyFrom(type_proto(value))
    else:
        raise GraphError(f"attribute {name!r} has no ONNX form")
    return proto


def _guess_kind(name: str, value: Any) -> int:
    from onnx import AttributeProto as A

    if isinstance(value, tuple | list):
        kinds = frozenset(_guess_kind(name, v) for v in value)
        numbers = frozenset({int(A.INT), int(A.FLOAT)})
        if kinds <= {int(A.INT)}:
            return int(A.INTS)
        if kinds <= numbers:
            return int(A.FLOATS)
        if kinds == {int(A.STRING)}:
            return int(A.STRINGS)
        raise GraphError(f"attribute {name!r} has no ONNX form")
    if isinstance(value, bool | int | np.integer | DType):
        return int(A.INT)
    if isinstance(value, float | np.floating):
        return int(A.FLOAT)
    if isinstance(value, str | bytes):
        return int(A.STRING)
    if isinstance(value, np.ndarray):
        return int(A.TENSOR)
    if isinstance(value, TensorType | SequenceType | OptionalType):
        return int(A.TYPE_PROTO)
    what = "a graph" if isinstance(value, Graph) else f"a {type(value).__name__}"
    raise GraphError(f"attribute {name!r} is {what}, which has no ONNX form here")


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def tensor_proto(array: np.ndarray, name: str = "") -> TensorProto:
    """A ``TensorProto`` of any element type."""
    from onnx import numpy_helper

    if from_numpy_dtype(array.dtype).kind == "s":
        array = array.astype(object)
    return numpy_helper.from_array(array, name)


def fill_tensor(proto: TensorProto, array: np.ndarray) -> None:
    """Put ``array`` into an empty ``TensorProto``, copying its bytes only once."""
    element = from_numpy_dtype(array.dtype)
    if element.kind == "s" or (element.kind != "b" and element.bits < 8):
        proto.MergeFrom(tensor_proto(array))
        return
    proto.data_type = element_code(element)
    proto.dims.extend(array.shape)
    proto.raw_data = bytes(raw_bytes(array))


def type_proto(t: Type) -> TypeProto:
    """A ``TypeProto``; symbolic dims become parameters spelled as they print."""
    from onnx import TypeProto

    if isinstance(t, SequenceType):
        return TypeProto(sequence_type=TypeProto.Sequence(elem_type=type_proto(t.elem)))
    if isinstance(t, OptionalType):
        return TypeProto(optional_type=TypeProto.Optional(elem_type=type_proto(t.elem)))
    proto = TypeProto(tensor_type=TypeProto.Tensor(elem_type=element_code(t.dtype)))
    if t.shape is not None:
        shape = proto.tensor_type.shape
        shape.SetInParent()
        for d in t.shape:
            if isinstance(d, int):
                shape.dim.add(dim_value=d)
            else:
                shape.dim.add(dim_param=str(d))
    return proto
