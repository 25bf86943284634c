"""A student that learns from a teacher: distillation, and fine-tuning of quantized models."""

from .distill import distill
from .result import Distilled

__all__ = ["Distilled", "distill"]
