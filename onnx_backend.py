"""graphkiln as a backend of the ONNX project's own test-suite (``onnx.backend.base``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx.backend.base import Backend, BackendRep

from .driver import compile as compile_model


class CompiledModel(BackendRep):
    """A compiled model; ``run`` takes inputs in the graph's order."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [i.name for i in session.get_inputs()]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in the graph's order; ``inputs`` is a sequence of arrays, or one array."""
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(values) > len(self._names):
            raise ValueError(f"{len(values)} inputs given, the model takes {len(self._names)}")
        feeds = dict(zip(self._names, values, strict=False))
        return tuple(self._session.run(None, feeds))


class GraphkilnBackend(Backend):
    """Compiles for the CPU (or, with ``device="CUDA"``, for an NVIDIA GPU)."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> CompiledModel:
        kwargs.setdefault("target", "cuda" if device.startswith("CUDA") else "cpu")
        artifact = compile_model(model, jobs=1, **kwargs)
        return CompiledModel(artifact.session())

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU",
        outputs_info: Sequence[Any] | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        raise TypeError("graphkiln compiles whole models: use run_model")

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] in ("CPU", "CUDA")


prepare = GraphkilnBackend.prepare
run_model = GraphkilnBackend.run_model
run_node = GraphkilnBackend.run_node
supports_device = GraphkilnBackend.supports_device


def warmup() -> None:
    """Import what compiling needs, before a test harness forks."""
    import tvm  # noqa: F401

    from .codegen import build, link, lower, vm  # noqa: F401
    from .codegen.build import compiler_version
    from .ir.registry import specs
    from .targets.generic.registry import lowered_keys

    compiler_version()
    list(specs())
    lowered_keys()
