"""graphkiln: an ahead-of-time compiler for ONNX models.

The public names resolve lazily, so that ``import graphkiln.runtime`` loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ArtifactError, Blocker, ExecutionError, GraphkilnError, InputError
from .version import __version__

_PUBLIC = {
    "compile": "driver",
    "optimize": "driver",
    "check": "driver",
    "prune": "pruner",
    "Pruned": "pruner",
    "quantize": "quantizer",
    "Quantized": "quantizer",
    "distill": "distiller",
    "Distilled": "distiller",
    "Artifact": "driver",
    "CompileOptions": "driver",
    "load": "runtime",
    "Session": "runtime",
    "Graph": "ir.graph",
}

__all__ = [  # noqa: PLE0604
    "ArtifactError", "Blocker", "ExecutionError", "GraphkilnError", "InputError", "__version__",
    "torch", *sorted(_PUBLIC),
]  # fmt: skip

if TYPE_CHECKING:
    from . import training as torch
    from .distiller import Distilled as Distilled
    from .distiller import distill as distill
    from .driver import Artifact as Artifact
    from .driver import CompileOptions as CompileOptions
    from .driver import check as check
    from .driver import compile as compile
    from .driver import optimize as optimize
    from .ir.graph import Graph as Graph
    from .pruner import Pruned as Pruned
    from .pruner import prune as prune
    from .quantizer import Quantized as Quantized
    from .quantizer import quantize as quantize
    from .runtime import Session as Session
    from .runtime import load as load


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "torch":
        # Not a folder of this name: it would hide PyTorch from programs started beside it.
        return import_module(".training", __name__)
    home = _PUBLIC.get(name)
    if home is None:
        raise AttributeError(f"module 'graphkiln' has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
