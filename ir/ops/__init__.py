"""Type inference of the built-in ops, one file per family."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every file of this folder; each registers its ops."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
