"""All passes, and the pipelines that run by default."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

LEVELS = {
    0: "shapes,fold,dce",
    # Shapes and folding run again after what settles branches, loops, sequences and their sizes;
    # recognition before simplification, which combines constants that patterns look for.
    1: "shapes,fold,dce,sequences,unroll,sequences,shapes,fold,decompose,"
    "recognize{attention=false},simplify,recognize,fold_affine,simplify,qdq_fuse,signs,subnormals,"
    "cse,dce,widen,layout,fuse,dce",
}
"""The text of each optimisation level's pipeline."""

PIPELINES = {
    "exact": "shapes,fold{exact=true},dce,sequences,unroll,sequences,shapes,fold{exact=true},"
    "decompose{exact=true},simplify{exact=true},cse,dce",
}
"""Further pipelines by name.

``exact`` changes no bit: its passes run exact rewrites only. What regroups sums is left out, such
as packed layouts and Winograd's convolutions, and so is fusion, since a product and a sum in one
kernel become a fused multiply-add that rounds once.
"""


@cache
def load() -> None:
    """Import every file of this folder; each registers its passes (once)."""
    package = importlib.import_module(__package__ or "")
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")


__all__ = ["LEVELS", "PIPELINES", "load"]
