"""Plots of the report, as SVG images in the page itself: ``data:image/svg+xml;base64,...``."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..passes.base import Row

_INK, _SEEN, _CUT, _ALONE = "#445", "#6c8ebf", "#c0392b", "#2a7f62"
_LOW = 20.0
"""Decibels below which a layer deserves a look."""
_STYLE: Any = {
    "svg.fonttype": "none",  # Text stays text, in the font of whoever reads it.
    "svg.hashsalt": "graphkiln",  # The same plot gives the same bytes.
    "font.size": 7.0,
    "text.parse_math": False,  # Names of layers may hold dollars.
}


def histogram(row: Row) -> str | None:
    """What was seen of a tensor, on a logarithmic scale, with the ends of its range.

    None for a tensor of which nothing was seen.
    """
    if not row["histogram"]:
        return None
    low, high = row["seen"]
    counts = np.asarray(row["histogram"])
    edges = np.linspace(low, high if high > low else low + 1, len(counts) + 1)
    with _axes(2.6, 0.8) as axes:
        axes.stairs(counts, edges, fill=True, color=_SEEN)
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        for end in (row["low"], row["high"]):
            axes.axvline(end, color=_CUT, linewidth=0.9)
        return _image(axes)


def sensitivity(rows: Sequence[Row]) -> str | None:
    """The ratios of the weights of layers and, where known, of each layer alone, in decibels.

    ``rows`` are from top to bottom. None where no ratio is known.
    """
    if all(r["decibels"] is None and r["alone"] is None for r in rows):
        return None
    places = np.arange(len(rows))
    with _axes(7.0, 0.5 + 0.14 * len(rows)) as axes:
        for key, label, color in (
            ("decibels", "weights", _SEEN),
            ("alone", "layer alone", _ALONE),
        ):
            known = [(i, r[key]) for i, r in enumerate(rows) if r[key] is not None]
            if known:
                at, ratios = zip(*known, strict=True)
                axes.scatter(ratios, at, s=9, color=color, label=label)
        axes.axvline(_LOW, color=_CUT, linewidth=0.6, linestyle=":")
        axes.set_yticks(places, [_short(r["layer"]) for r in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", linewidth=0.3)
        axes.set_xlabel("signal to quantization noise, dB")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
        return _image(axes)


def _short(name: str) -> str:
    return name if len(name) <= 56 else f"{name[:16]}…{name[-39:]}"


@contextmanager
def _axes(width: float, height: float) -> Iterator[Axes]:
    """Axes of a figure of so many inches."""
    with matplotlib.rc_context(_STYLE):
        axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, length=2)
        yield axes


def _image(axes: Axes) -> str:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


__all__ = ["histogram", "sensitivity"]
