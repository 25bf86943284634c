"""The report as an HTML page that needs no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import UsageError

if TYPE_CHECKING:
    from ..driver import CompileOptions, Source
    from ..passes.base import Row

_LIBRARIES = ("jinja2", "matplotlib")
_TEMPLATE = "report.html"
_MOST_LAYERS = 60
"""Most layers of a plot, the worst of all."""


class ReportError(UsageError):
    """A page cannot be made, as libraries for it are missing."""


class Reported(Protocol):
    """What a page is about: see :class:`.Quantized`."""

    source: Source
    options: CompileOptions
    layers: Sequence[Row]
    tensors: Sequence[Row]
    warnings: list[str]
    score: float | None
    float_score: float | None
    islands: Sequence[Row] | None


def require_libraries() -> None:
    """Raise :class:`ReportError` where a page could not be made."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise ReportError(
            f"an HTML report needs {' and '.join(missing)}: pip install 'graphkiln[report]'"
        )


def page(found: Reported) -> str:
    """The report on a quantized model; raises :class:`ReportError`."""
    require_libraries()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from . import plots

    # Names in models may hold anything, so everything is escaped.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["figures"] = figures
    worst = worst_first(found.layers)
    return environment.get_template(_TEMPLATE).render(
        name=found.source.name,
        facts=summary(found),
        warnings=list(dict.fromkeys(found.warnings)),
        layers=found.layers,
        shown=min(len(worst), _MOST_LAYERS),
        sensitivity=plots.sensitivity(worst[:_MOST_LAYERS]),
        islands=found.islands or (),
        tensors=[(row, plots.histogram(row)) for row in found.tensors],
    )


def summary(found: Reported) -> list[tuple[str, str]]:
    """What the page begins with: names and what there is to say."""
    schemes = Counter(row["scheme"] for row in found.layers)
    told = [
        ("model", found.source.name),
        ("SHA-256", found.source.sha256),
        ("target", found.options.target),
        ("layers", ", ".join(f"{count} {scheme}" for scheme, count in schemes.most_common())),
    ]
    if found.score is not None and found.float_score is not None:
        told.append(("score", f"{found.score:.6g}, in floats {found.float_score:.6g}"))
    return told


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Layers with a ratio, by that of the layer alone where it is known, else of its weights."""

    def ratio(row: Row) -> float | None:
        return row["decibels"] if row["alone"] is None else row["alone"]

    return sorted((r for r in rows if ratio(r) is not None), key=lambda r: ratio(r) or 0.0)


def figures(value: float | None, form: str = ".1f") -> str:
    """A number as text, nothing for None."""
    return "" if value is None else format(value, form)


__all__ = ["ReportError", "figures", "page", "require_libraries", "summary", "worst_first"]
