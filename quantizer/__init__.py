"""A float model in, a quantized one out, as accurate as asked."""

from .quantize import quantize
from .result import Quantized
from .scores import Metric

__all__ = ["Metric", "Quantized", "quantize"]
