"""Type inference of quantization: (de)quantizing, and integer matrix products."""

from __future__ import annotations

from math import prod

from ..axes.product import dynamic_quantized_product, product, product_of_few_bits
from ..axes.quantize import dynamic_quantize, quantize
from ..onnx_types import element_type
from ..registry import InferContext, op
from ..traits import Trait
from ..types import DType, TensorType, Type, dtype, tensor
from . import flops
from . import quant_evaluate as evaluate
from .linalg import matmul_shape
from .quant_conditions import require_granularity, require_lines, require_single

_MS = "com.microsoft"


_GRANULAR = (Trait.GRANULAR, Trait.FINITE, Trait.PARAMETRIC)
_DEQUANTIZES = (*_GRANULAR, Trait.CHEAP)
_HEAVY = (Trait.ANCHOR, Trait.CONTRACTION)


@op(
    "QuantizeLinear", traits=_GRANULAR, result_zero_point=2,
    axes=quantize,
)  # fmt: skip
@op(
    "QuantizeLinear",
    domain=_MS,
    traits=_GRANULAR,
    result_zero_point=2,
    arity=(2, 3),
    evaluate=evaluate.quantize_linear,
    doc="ONNX's QuantizeLinear with an optional axis.",
    axes=quantize,
)  # fmt: skip
def infer_quantize(c: InferContext) -> list[Type]:
    require_granularity(c)
    return [c.tensor(0).with_dtype(_quantized_type(c))]


def _quantized_type(c: InferContext) -> DType:
    if c.has(2):
        return c.tensor(2).dtype
    return element_type(c.attr("output_dtype")) if c.attr("output_dtype") else dtype("uint8")


@op(
    "DequantizeLinear", traits=_DEQUANTIZES, zero_points={2: 0},
    axes=quantize,
)  # fmt: skip
@op(
    "DequantizeLinear",
    domain=_MS,
    traits=_DEQUANTIZES,
    zero_points={2: 0},
    arity=(2, 3),
    evaluate=evaluate.dequantize_linear,
    doc="ONNX's DequantizeLinear with an optional axis.",
    axes=quantize,
)  # fmt: skip
def infer_dequantize(c: InferContext) -> list[Type]:
    require_granularity(c)
    code = c.attr("output_dtype")
    return [c.tensor(0).with_dtype(element_type(code) if code else c.tensor(1).dtype)]


@op(
    "DynamicQuantizeLinear",
    axes=dynamic_quantize,
)  # fmt: skip
def infer_dynamic_quantize(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    return [x.with_dtype("uint8"), tensor(x.dtype), tensor("uint8")]


def _product(c: InferContext, a: int, b: int, result: DType | str) -> TensorType:
    left, right = c.tensor(a), c.tensor(b)
    if left.dtype.is_float or right.dtype.is_float:
        raise c.error(f"products of {left.dtype} and {right.dtype} are not supported")
    return left.with_dtype(result).with_shape(matmul_shape(c, left.dims, right.dims))


@op(
    "MatMulInteger", traits=_HEAVY, zero_points={2: 0, 3: 1}, flops=flops.matmul,
    axes=product(rows=(2,), columns=(3,)),
)  # fmt: skip
def infer_matmul_integer(c: InferContext) -> list[Type]:
    require_lines(c, 2, c.tensor(0), -2, "row")
    require_lines(c, 3, c.tensor(1), -1, "column")
    return [_product(c, 0, 1, "int32")]


@op(
    "QLinearMatMul", traits=_HEAVY, zero_points={2: 0, 5: 3}, result_zero_point=7,
    flops=flops.matmul,
    axes=product(0, 3, combine=None, rows=(1, 2, 6, 7), columns=(4, 5)),
)  # fmt: skip
def infer_qlinear_matmul(c: InferContext) -> list[Type]:
    for i in (1, 2):
        require_lines(c, i, c.tensor(0), -2, "row")
    for i in (4, 5):
        require_lines(c, i, c.tensor(3), -1, "column")
    result = _product(c, 0, 3, c.tensor(7).dtype)
    for i in (6, 7):
        require_lines(c, i, result, -2, "row")
    return [result]


@op(
    "MatMulIntegerToFloat", domain=_MS, arity=(4, 7), evaluate=evaluate.matmul_integer_to_float,
    traits=(Trait.CONTRACTION,), flops=flops.matmul,
    axes=product(columns=(3, 5), addend=6),
)  # fmt: skip
def infer_matmul_integer_to_float(c: InferContext) -> list[Type]:
    require_single(c, 2, 4)
    for i in (3, 5):
        require_lines(c, i, c.tensor(1), -1, "column")
    if c.has(6):
        c.require_same_shape(c.tensor(6).dims, c.tensor(1).dims[-1:], "a bias for each column")
    return [_product(c, 0, 1, c.tensor(2).dtype)]


@op(
    "DynamicQuantizeMatMul", domain=_MS, arity=(3, 5), evaluate=evaluate.dynamic_quantize_matmul,
    traits=(Trait.CONTRACTION,), flops=flops.matmul,
    axes=dynamic_quantized_product,
)  # fmt: skip
def infer_dynamic_quantize_matmul(c: InferContext) -> list[Type]:
    a, b = c.tensor(0), c.tensor(1)
    for i in (2, 3):
        require_lines(c, i, b, -1, "column")
    if c.has(4):
        c.require_same_shape(c.tensor(4).dims, b.dims[-1:], "a bias for each column")
    return [a.with_shape(matmul_shape(c, a.dims, b.dims))]


@op(
    "QGemm",
    domain=_MS,
    traits=_HEAVY,
    zero_points={2: 0, 5: 3},
    result_zero_point=8,
    flops=flops.matmul,
    arity=(6, 9),
    evaluate=evaluate.qgemm,
    defaults={"alpha": 1.0, "transA": 0, "transB": 0},
    axes=product(0, 3, combine=None, columns=(4, 5), addend=6),
)  # fmt: skip
def infer_qgemm(c: InferContext) -> list[Type]:
    result = c.tensor(8).dtype if c.has(8) else c.tensor(1).dtype
    product = _gemm(c, 0, 3, 6)
    require_single(c, 1, 2, 7, 8)
    for i in (4, 5):
        require_lines(c, i, product, -1, "column")
    return [product.with_dtype(result)]


@op(
    "FusedGemm",
    domain=_MS,
    traits=_HEAVY,
    flops=flops.matmul,
    arity=(2, 3),
    evaluate=evaluate.fused_gemm,
    defaults={"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    axes=product(addend=2),
)  # fmt: skip
def infer_fused_gemm(c: InferContext) -> list[Type]:
    return [_gemm(c, 0, 1, 2)]


def _gemm(c: InferContext, a: int, b: int, bias: int) -> TensorType:
    left, right = c.tensor(a), c.tensor(b)
    if left.rank != 2 or right.rank != 2:
        raise c.error(f"multiplies matrices, not {left} and {right}")
    rows = left.dims[::-1] if c.attr("transA") else left.dims
    columns = right.dims[::-1] if c.attr("transB") else right.dims
    shape = matmul_shape(c, rows, columns)
    if c.has(bias):
        c.broadcast_to(c.tensor(bias).dims, shape, "a bias")
    return left.with_shape(shape)


@op(
    "MatMulNBits",
    domain=_MS,
    traits=(Trait.CONTRACTION,),
    flops=flops.matmul,
    arity=(3, 6),
    evaluate=evaluate.matmul_nbits,
    defaults={"bits": 4, "accuracy_level": 0, "weight_prepacked": 0},
    axes=product_of_few_bits,
)  # fmt: skip
def infer_matmul_nbits(c: InferContext) -> list[Type]:
    a = c.tensor(0)
    if c.attr("bits") not in (2, 4, 8) or c.attr("weight_prepacked") or c.has(4):
        raise c.error("takes weights of 2, 4 or 8 bits, not prepacked and without g_idx")
    inner, columns = _positive(c, "K"), _positive(c, "N")
    _check_blocks(c, inner, columns)
    return [a.with_shape(matmul_shape(c, a.dims, (inner, columns)))]


def _positive(c: InferContext, name: str) -> int:
    """An attribute that is a count, so it must be positive."""
    value = c.attr(name)
    if not isinstance(value, int) or value < 1:
        raise c.error(f"{name} must be a whole number from 1 on, not {value!r}")
    return value


def _check_blocks(c: InferContext, inner: int, columns: int) -> None:
    """Record that weights, scales and zero points are as many as the blocks of all columns."""
    bits, size = int(c.attr("bits")), _positive(c, "block_size")
    blocks = -(-inner // size)
    packed = c.has(3) and c.tensor(3).dtype.name == "uint8"
    counts = {
        1: columns * blocks * (size * bits // 8),
        2: columns * blocks,
        3: columns * (-(-blocks * bits // 8) if packed else blocks),
        5: columns,
    }
    for i, count in counts.items():
        if c.has(i):
            c.require_equal(prod(c.tensor(i).dims), count, f"input {i} of {count} elements")
