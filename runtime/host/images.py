"""ImageDecoder (ONNX, opset 20), by Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from . import Attrs, host_function

_MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}


@host_function("ImageDecoder")
def image_decoder(attrs: Attrs, encoded: np.ndarray) -> tuple[np.ndarray, ...]:
    """The pixels, [height, width, channels] uint8, of a file's bytes, [n] uint8."""
    pixel_format = attrs.get("pixel_format", "RGB")
    if pixel_format not in _MODES:
        raise ValueError(f"unknown pixel_format {pixel_format!r}")
    pixels = np.asarray(_open(encoded.tobytes()).convert(_MODES[pixel_format]))
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return (np.ascontiguousarray(pixels[:, :, ::-1] if pixel_format == "BGR" else pixels),)


def _open(data: bytes) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise RuntimeError("decoding images needs the package Pillow: install it") from None
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("the bytes are no image in a known format") from None
