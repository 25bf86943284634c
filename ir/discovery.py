"""Loading the modules of a package by the package's name.

Files of ops, lowerings, upgrade rules and passes register what they define: they import their
registry, and often much that itself looks ops up (the body of a Loop is inferred, and evaluated,
as any graph is). Were the registry to import them in turn, each would depend on the other. It does
not: to a registry the built-in files are what a plugin is, modules that register something, and all
that it knows of them is the package in which they lie. They are loaded at the first lookup, so
that reading a dim or a type does not wait for 200 ops.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def load_modules(package: str) -> None:
    """Import every module that lies directly in the package of this name, in order of names."""
    path = import_module(package).__path__
    for name in sorted(m.name for m in pkgutil.iter_modules(path)):
        import_module(f"{package}.{name}")


__all__ = ["load_modules"]
