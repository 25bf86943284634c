"""All passes, and the pipelines that run by default."""

from __future__ import annotations

from functools import cache

from ..ir.discovery import load_modules

LEVELS = {0: "shapes,fold,dce", 1: "default"}
"""The text of each optimisation level's pipeline."""

PIPELINES = {
    "default": "settle,rewrite,integers,clean,lower",
    # Shapes and folding run again, since resolved branches, loops and sequences make sizes known.
    "settle": "shapes,fold,dce,sequences,unroll,sequences,shapes,fold",
    # Recognition runs before simplification, which would combine constants that patterns look for.
    "rewrite": "decompose,recognize{attention=false},simplify,recognize,fold_affine,simplify,idle",
    "integers": "qdq_fuse,signedness",
    # Quantized biases and scales that no integer op has taken become floats.
    "clean": "fold{widen-vectors=true},subnormals,cse,dce",
    "lower": "promote,layout,tabulate,fuse,dce",
    "exact": "shapes,fold{exact=true},dce,sequences,unroll,sequences,shapes,fold{exact=true},"
    "decompose{exact=true},simplify{exact=true},cse,dce",
}
"""Pipelines by name: the default one, the phases that it consists of, and others.

``exact`` changes no bit: its passes run exact rewrites only. Passes that regroup sums are left out,
such as layout (packed operands, Winograd convolutions). So is fusion, since a product and a sum in
one kernel become a fused multiply-add, which rounds once.
"""


@cache
def load() -> None:
    """Load every file of this folder; each registers its passes (once)."""
    load_modules(__package__ or "")


__all__ = ["LEVELS", "PIPELINES", "load"]
