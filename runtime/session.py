"""The public face of the runtime: a loaded model that runs as an onnxruntime session does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import threads as thread_pool
from .artifact import LoadedArtifact, load_artifact, read_artifact
from .direct import Direct, HandedOver
from .dtypes import from_storage, is_exotic
from .errors import ArtifactError, ExecutionError, InputError, first_line, reason
from .exit import Pool
from .instance import Instance
from .manifest import Dim, ValueSpec
from .model import Model

if TYPE_CHECKING:
    from .profile import Profiler


class NodeArg(NamedTuple):
    """An input or output, described as onnxruntime's ``NodeArg`` does.

    ``shape`` holds ints and, for dynamic dimensions, strings; ``type`` reads ``tensor(float)``,
    ``seq(tensor(int64))``, ``optional(tensor(float))``.
    """

    name: str
    type: str
    shape: list[Dim]


class Session:
    """A loaded model. Several threads may call `run` at the same time.

    Every concurrent call has buffers of its own, and a virtual machine where the model or its feeds
    need one; the weights are shared. Made by `load`.
    """

    def __init__(self, artifact: LoadedArtifact, threads: int | None = None) -> None:
        manifest = artifact.manifest
        self._path = artifact.path
        self._raw, self._ir_text, self._report = manifest.raw, artifact.ir_text, artifact.report
        self._inputs, self._outputs = manifest.inputs, manifest.outputs
        self._output_index = {spec.name: i for i, spec in enumerate(self._outputs)}
        self._every_output = range(len(self._outputs))
        self._threads = thread_pool.resolve(threads)
        self._defaults = {
            spec.name: _default(artifact, spec) for spec in self._inputs if spec.default is not None
        }
        self._model: Model | None = Model(artifact)
        # What runs takes from and gives back to the pools that it found, which `close` replaces.
        self._instances, self._machines = Pool(), Pool()
        self._instances.idle.append(self._instances.make(self._model.instance))

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        """Computes outputs from a dict of input name to value, as onnxruntime's ``run`` does.

        ``output_names`` picks and orders the outputs; None or an empty list means all of them.
        Tensors come as NumPy arrays that no later run touches, strings as object arrays,
        sequences as lists, maps as dicts, an empty optional as None.

        Raises InputError for feeds or names that do not fit, ExecutionError if the model fails.
        """
        wanted = self._every_output if output_names is None else self._select(output_names)
        if self._defaults and isinstance(feeds, Mapping):
            feeds = {**self._defaults, **feeds}
        thread_pool.use(self._threads)
        idle = self._instances.idle
        try:
            instance: Direct | Instance = idle.pop()
        except IndexError:
            instance = self._instances.make(self._opened().instance)
        try:
            try:
                return instance.run(feeds, wanted)
            except HandedOver:
                return self._run_machine(feeds, wanted)
        except (InputError, ExecutionError):
            raise
        except Exception as error:
            raise ExecutionError(reason(error), file=self._path) from error
        finally:
            idle.append(instance)

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a run must be given, and optional ones, in order."""
        return [_node_arg(spec) for spec in self._inputs if spec.default is None]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The inputs that have a default, in order."""
        return [_node_arg(spec) for spec in self._inputs if spec.default is not None]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in order."""
        return [_node_arg(spec) for spec in self._outputs]

    @property
    def manifest(self) -> dict[str, Any]:
        """The artifact's manifest, as parsed JSON."""
        return self._raw

    @property
    def report(self) -> dict[str, Any]:
        """The compile report, as parsed JSON."""
        return parse_report(self._path, self._report)

    @property
    def ir_text(self) -> str:
        """The optimised IR that the code was generated from."""
        return self._ir_text

    @property
    def threads(self) -> int:
        """Threads that a run may use."""
        return self._threads

    def profiler(self, feeds: Mapping[str, Any]) -> Profiler:
        """What runs the model on ``feeds`` and times its kernels; it needs a CPU's artifact.

        Raises InputError for feeds that do not fit, ArtifactError where other devices take part.
        """
        from .profile import Profiler

        model = self._opened()
        if model.devices.names:
            raise ArtifactError("only kernels that run on the CPU can be timed", file=self._path)
        return Profiler(*model.machine(), {**self._defaults, **feeds}, self._threads)

    def close(self) -> None:
        """Lets go of the weights and machines; a later `run` raises ExecutionError.

        Runs of other threads come to their end, and let go then.
        """
        self._model = None
        self._instances, self._machines = Pool(), Pool()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _select(self, names: Sequence[str]) -> Sequence[int]:
        if isinstance(names, (str, bytes)):
            raise InputError(f"output_names must be a list of names, not one {_kind(names)}")
        try:
            listed = list(names)
        except TypeError:
            raise InputError(
                f"output_names must be a list of names, not a {_kind(names)}"
            ) from None
        try:
            return [self._output_index[name] for name in listed] or self._every_output
        except (KeyError, TypeError):
            pass
        gives = ", ".join(map(repr, self._output_index))
        wrong = next(n for n in listed if not isinstance(n, str) or n not in self._output_index)
        raise InputError(f"there is no output {wrong!r:.200}: the model gives {gives}")

    def _opened(self) -> Model:
        model = self._model
        if model is None:
            raise ExecutionError("the session is closed", file=self._path)
        return model

    def _run_machine(self, feeds: Mapping[str, Any], wanted: Sequence[int]) -> list[Any]:
        """What only the virtual machine can run."""
        model, idle = self._opened(), self._machines.idle
        try:
            machine: Instance = idle.pop()
        except IndexError:
            machine = self._machines.make(lambda: model.machine()[1])
        try:
            return machine.run(feeds, wanted)
        finally:
            idle.append(machine)


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> Session:
    """Loads a ``.kiln`` file or folder.

    ``threads`` is the number of threads a run may use, by default ``GRAPHKILN_NUM_THREADS``, else
    the physical cores that the process may use. All sessions of a process share one pool of
    threads, and each has its own number (`graphkiln.runtime.threads`). The weights stay mapped from
    the file, which may be removed or replaced while the session lives, but not changed in place.

    Raises ArtifactError if the artifact is damaged or does not fit this machine, InputError for a
    wrong number of threads.
    """
    return Session(load_artifact(path), threads)


def verify(path: str | os.PathLike[str]) -> None:
    """Checks all hashes, also the weights' SHA-256. Raises ArtifactError for the first mismatch."""
    artifact = read_artifact(path, full=True)
    parse_report(artifact.path, artifact.report)


def parse_report(path: str, report: bytes) -> dict[str, Any]:
    """``report.json`` as a dict."""
    try:
        parsed = json.loads(report)
    except (ValueError, RecursionError) as error:
        why = f"report.json is not JSON ({first_line(error)})"
        raise ArtifactError(why, file=path) from None
    if not isinstance(parsed, dict):
        raise ArtifactError("report.json is not a JSON object", file=path)
    return parsed


def _default(artifact: LoadedArtifact, spec: ValueSpec) -> np.ndarray:
    """The default of an input in public dtype."""
    assert spec.default is not None
    array = artifact.weight(artifact.manifest.weights[spec.default])
    return from_storage(array, spec.dtype) if is_exotic(spec.dtype) else array


def _kind(value: object) -> str:
    return type(value).__name__


def _node_arg(spec: ValueSpec) -> NodeArg:
    return NodeArg(spec.name, spec.ort_type, [] if spec.keys else list(spec.shape or ()))
