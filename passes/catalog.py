"""All passes, and the pipelines that run by default."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from .base import Pass, pass_class

_LEVELS = {
    0: "shapes,fold,dce",
    # Shapes and folding run again after what settles branches, sequences and their sizes.
    1: "shapes,fold,sequences,shapes,fold,decompose,simplify,recognize,fold_affine,simplify,cse,"
    "dce,layout,fuse,dce",
}

MAX_LEVEL = max(_LEVELS)


@cache
def load() -> None:
    """Import every file of this folder; each registers its passes (once)."""
    package = importlib.import_module(__package__ or "")
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")


def default_pipeline(level: int = MAX_LEVEL) -> list[Pass]:
    """Fresh passes of an optimisation level: 0 does what code generation needs, 1 everything.

    Raises ``ValueError`` for a level that does not exist.
    """
    if level not in _LEVELS:
        raise ValueError(f"there is no level {level}: the levels are 0 to {MAX_LEVEL}")
    load()
    passes = []
    for name in _LEVELS[level].split(","):
        cls = pass_class(name)
        assert cls is not None, name
        passes.append(cls())
    return passes


__all__ = ["MAX_LEVEL", "default_pipeline", "load"]
