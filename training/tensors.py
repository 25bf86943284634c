"""Arrays of the IR as tensors of PyTorch, and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch

from ..ir.types import DType, from_numpy_dtype, to_numpy_dtype
from .errors import TrainingError

_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
        "uint16", "uint32", "uint64", "bool", "complex64", "complex128",
    )
}  # fmt: skip
_DTYPES |= {"int2": torch.int8, "int4": torch.int8, "uint2": torch.uint8, "uint4": torch.uint8}


def torch_dtype(t: DType) -> torch.dtype:
    """What holds an element type in PyTorch; raises :class:`TrainingError` where nothing does.

    Integers of 2 and 4 bits are held in 8.
    """
    found = _DTYPES.get(t.name)
    if found is None:
        raise TrainingError(f"tensors of {t} do not run in PyTorch")
    return found


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of the elements, of any shape."""
    t = from_numpy_dtype(array.dtype)
    target = torch_dtype(t)
    if t.is_integer and t.bits < 8:
        return torch.from_numpy(array.astype(np.int8 if t.kind == "i" else np.uint8))
    # PyTorch reads no foreign element types from NumPy: the bits go through integers.
    if target is torch.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(target)
    return torch.from_numpy(np.array(array, order="C"))


def to_array(tensor: torch.Tensor, t: DType | None = None) -> np.ndarray:
    """The elements as an array of type ``t`` (default: the tensor's own)."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        own: np.ndarray = tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    else:
        own = tensor.numpy()
    return own if t is None else own.astype(to_numpy_dtype(t))


__all__ = ["to_array", "to_tensor", "torch_dtype"]
