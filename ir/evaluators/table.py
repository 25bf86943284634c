"""Which function evaluates which op."""

from __future__ import annotations

from ..registry import Evaluate
from .activation import erf, gelu, prelu, sigmoid
from .conv import conv, conv_integer, conv_transpose, qlinear_conv
from .matmul import gemm, matmul, matmul_integer, qlinear_matmul
from .norm import lp_normalization, lrn
from .pool import (
    average_pool,
    global_average_pool,
    global_lp_pool,
    global_max_pool,
    lp_pool,
    max_pool,
)
from .quantize import quantize_linear
from .recurrent import dynamic_quantize_lstm, gru, lstm, rnn
from .reduce import log_softmax, reduce_l2
from .sums import mean, sums
from .values import VALUE_EVALUATORS

EVALUATORS: dict[str, Evaluate] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "Erf": erf,
    "GRU": gru,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "LRN": lrn,
    "LSTM": lstm,
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_normalization,
    "LpPool": lp_pool,
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
    "MaxPool": max_pool,
    "Mean": mean,
    "PRelu": prelu,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize_linear,
    "RNN": rnn,
    "ReduceL2": reduce_l2,
    "Sigmoid": sigmoid,
    "Sum": sums,
    "com.microsoft.DynamicQuantizeLSTM": dynamic_quantize_lstm,
    **VALUE_EVALUATORS,
}
"""Op key -> evaluation, consulted after ``OpSpec.evaluate`` and before ``onnx.reference``.

Each takes the node and its inputs (None where omitted) and returns the outputs.
"""

__all__ = ["EVALUATORS"]
