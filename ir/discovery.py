"""Discovery: a registry loads the modules of a package, by the package's name.

Files of ops, lowerings, upgrade rules and passes register what they define, so they import their
registry, and often modules that look ops up. If the registry imported these files, there would be
import circles. Instead it knows only the name of their package: it treats built-in files like
plugins, as modules that register something. They are loaded at the first lookup, so that parsing a
dim or a type does not load 200 ops.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def load_modules(package: str) -> None:
    """Import every module directly in the package of this name, in alphabetical order."""
    path = import_module(package).__path__
    for name in sorted(m.name for m in pkgutil.iter_modules(path)):
        import_module(f"{package}.{name}")


__all__ = ["load_modules"]
