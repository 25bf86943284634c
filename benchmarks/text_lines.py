"""Lines of known text as images, for a recogniser of PP-OCR's form.

    TEXT_LINES_CHARSET=charset.json python benchmarks/quantize.py RECOGNISER.onnx \\
        --samples text_lines:calibration --test text_lines:test --metric text_lines:is_read

Words of Python's own documentation, in the fonts found under TEXT_LINES_FONTS (default:
/usr/share/fonts/truetype; Debian: fonts-dejavu-core, fonts-liberation, fonts-freefont-ttf), in
sizes, colours, blur and noise drawn at random from fixed seeds. The charset is a JSON list of the
classes in order, the first the blank.
"""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HEIGHT = 48
_LATIN = ("DejaVu", "Liberation", "FreeSans", "FreeSerif", "FreeMono")
"""Fonts that have Latin letters."""


def words() -> list[str]:
    """Words of Python's documentation, in order, some with the punctuation that follows."""
    text = " ".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    return [w for w in text.split() if re.fullmatch(r"[A-Za-z0-9-]{2,13}[.,:;!?]?", w)]


def lines(fonts: Path, count: int, seed: int) -> Iterator[tuple[np.ndarray, str]]:
    """Images float32 ``[3, 48, W]`` from -1 to 1, and what is written there."""
    rng, known = np.random.default_rng(seed), words()
    files = sorted(p for p in fonts.rglob("*.ttf") if p.name.startswith(_LATIN))
    for _ in range(count):
        first = int(rng.integers(len(known) - 4))
        text = " ".join(known[first : first + int(rng.integers(1, 5))])
        font = ImageFont.truetype(str(files[rng.integers(len(files))]), int(rng.integers(18, 40)))
        yield rendered(text, font, rng), text


def rendered(text: str, font: Any, rng: np.random.Generator) -> np.ndarray:
    """A line of text, dark on light or light on dark, with some blur and noise."""
    left, top, right, bottom = font.getbbox(text)
    pad = [int(n) for n in rng.integers(2, 8, 4)]
    size = (right - left + pad[0] + pad[1], bottom - top + pad[2] + pad[3])
    paper, ink = rng.integers(170, 256, 3), rng.integers(0, 90, 3)
    if rng.random() < 0.3:
        paper, ink = ink, paper
    image = Image.new("RGB", size, tuple(int(c) for c in paper))
    ImageDraw.Draw(image).text(
        (pad[0] - left, pad[2] - top), text, fill=tuple(int(c) for c in ink), font=font
    )
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.8))))
    width = max(16, round(size[0] * HEIGHT / size[1]))
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    noisy = pixels + rng.normal(0, rng.uniform(0, 8), pixels.shape)
    return (np.clip(noisy, 0, 255) / 127.5 - 1).transpose(2, 0, 1).astype(np.float32)


def decoded(scores: np.ndarray, charset: list[str]) -> str:
    """The text of scores ``[steps, classes]``: the likeliest ones without repeats and blanks."""
    best = scores.argmax(-1)
    kept = best[(best != 0) & (best != np.concatenate([[-1], best[:-1]]))]
    return "".join(charset[i] for i in kept)


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """Lines to calibrate on."""
    yield from _samples(1)


def test() -> Iterator[dict[str, np.ndarray]]:
    """500 other lines, with their texts."""
    yield from _samples(2, 500)


def _samples(seed: int, count: int = 200) -> Iterator[dict[str, np.ndarray]]:
    fonts = Path(os.environ.get("TEXT_LINES_FONTS", "/usr/share/fonts/truetype"))
    for image, text in lines(fonts, count, seed):
        yield {"x": image[None], "text": np.array(text)}


@cache
def _charset() -> list[str]:
    found: list[str] = json.loads(Path(os.environ["TEXT_LINES_CHARSET"]).read_text("utf-8"))
    return found


def is_read(results: Mapping[str, Any], sample: Mapping[str, Any]) -> float:
    """Is a line read without a fault? Spaces, which images hardly show, do not count."""
    (scores,) = results.values()
    found, wanted = decoded(scores[0], _charset()), str(sample["text"])
    return float(found.replace(" ", "") == wanted.replace(" ", ""))
