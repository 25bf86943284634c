"""Type inference of quantization: (de)quantizing, and integer matrix products."""

from __future__ import annotations

from ..onnx_types import element_type
from ..registry import InferContext, op
from ..types import DType, TensorType, Type, dtype, tensor
from . import quant_evaluate as evaluate
from .linalg import matmul_shape

_MS = "com.microsoft"


@op("QuantizeLinear")
@op(
    "QuantizeLinear",
    domain=_MS,
    arity=(2, 3),
    evaluate=evaluate.quantize_linear,
    doc="ONNX's QuantizeLinear with an optional axis.",
)
def infer_quantize(c: InferContext) -> list[Type]:
    _check_granularity(c)
    return [c.tensor(0).with_dtype(_quantized_type(c))]


def _quantized_type(c: InferContext) -> DType:
    if c.has(2):
        return c.tensor(2).dtype
    return element_type(c.attr("output_dtype")) if c.attr("output_dtype") else dtype("uint8")


@op("DequantizeLinear")
@op(
    "DequantizeLinear",
    domain=_MS,
    arity=(2, 3),
    evaluate=evaluate.dequantize_linear,
    doc="ONNX's DequantizeLinear with an optional axis.",
)
def infer_dequantize(c: InferContext) -> list[Type]:
    _check_granularity(c)
    code = c.attr("output_dtype")
    return [c.tensor(0).with_dtype(element_type(code) if code else c.tensor(1).dtype)]


def _check_granularity(c: InferContext) -> None:
    x, scale = c.tensor(0), c.tensor(1)
    if c.attr("block_size"):
        if scale.rank != x.rank:
            raise c.error(f"a scale {scale} cannot quantize blocks of {x}")
    elif scale.rank > 1 and scale.numel != 1:
        raise c.error(f"a scale {scale} needs a block_size")


@op("DynamicQuantizeLinear")
def infer_dynamic_quantize(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    return [x.with_dtype("uint8"), tensor(x.dtype), tensor("uint8")]


def _product(c: InferContext, a: int, b: int, result: DType | str) -> list[Type]:
    left, right = c.tensor(a), c.tensor(b)
    if left.dtype.is_float or right.dtype.is_float:
        raise c.error(f"products of {left.dtype} and {right.dtype} are not supported")
    return [left.with_dtype(result).with_shape(matmul_shape(c, left.dims, right.dims))]


@op("MatMulInteger")
def infer_matmul_integer(c: InferContext) -> list[Type]:
    return _product(c, 0, 1, "int32")


@op("QLinearMatMul")
def infer_qlinear_matmul(c: InferContext) -> list[Type]:
    return _product(c, 0, 3, c.tensor(7).dtype)


@op("MatMulIntegerToFloat", domain=_MS, arity=(4, 7), evaluate=evaluate.matmul_integer_to_float)
def infer_matmul_integer_to_float(c: InferContext) -> list[Type]:
    return _product(c, 0, 1, c.tensor(2).dtype)


@op("DynamicQuantizeMatMul", domain=_MS, arity=(3, 5), evaluate=evaluate.dynamic_quantize_matmul)
def infer_dynamic_quantize_matmul(c: InferContext) -> list[Type]:
    a = c.tensor(0)
    return [a.with_shape(matmul_shape(c, a.dims, c.tensor(1).dims))]


@op(
    "QGemm",
    domain=_MS,
    arity=(6, 9),
    evaluate=evaluate.qgemm,
    defaults={"alpha": 1.0, "transA": 0, "transB": 0},
)
def infer_qgemm(c: InferContext) -> list[Type]:
    result = c.tensor(8).dtype if c.has(8) else c.tensor(1).dtype
    return [_gemm(c, 0, 3).with_dtype(result)]


@op(
    "FusedGemm",
    domain=_MS,
    arity=(2, 3),
    evaluate=evaluate.fused_gemm,
    defaults={"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
)
def infer_fused_gemm(c: InferContext) -> list[Type]:
    return [_gemm(c, 0, 1)]


def _gemm(c: InferContext, a: int, b: int) -> TensorType:
    left, right = c.tensor(a), c.tensor(b)
    if left.rank != 2 or right.rank != 2:
        raise c.error(f"multiplies matrices, not {left} and {right}")
    rows = left.dims[::-1] if c.attr("transA") else left.dims
    columns = right.dims[::-1] if c.attr("transB") else right.dims
    return left.with_shape(matmul_shape(c, rows, columns))


@op(
    "MatMulNBits",
    domain=_MS,
    arity=(3, 6),
    evaluate=evaluate.matmul_nbits,
    defaults={"bits": 4, "accuracy_level": 0, "weight_prepacked": 0},
)
def infer_matmul_nbits(c: InferContext) -> list[Type]:
    a = c.tensor(0)
    if c.attr("bits") not in (2, 4, 8) or c.attr("weight_prepacked") or c.has(4):
        raise c.error("takes weights of 2, 4 or 8 bits, not prepacked and without g_idx")
    return [a.with_shape(matmul_shape(c, a.dims, (int(c.attr("K")), int(c.attr("N")))))]
