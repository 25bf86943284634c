"""A whole compilation, top to bottom: import, optimise, lower, build, link, pack."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .contract import HOST
from .errors import Blocker, GraphkilnError, UsageError
from .ir.choices import KernelShape
from .ir.graph import Graph

if TYPE_CHECKING:
    from .codegen.artifact import ArtifactContents
    from .codegen.link import Tools
    from .codegen.lower import Lowered
    from .codegen.native import Native
    from .codegen.tune import Tuner, TuningReport
    from .codegen.workers import Workers
    from .frontend import Defaults, Imported
    from .ir.hardware import Hardware, Layouts
    from .passes.base import Pass
    from .passes.bisect import Culprit
    from .passes.manager import PassManager, PassRecord
    from .passes.near_misses import NearMiss
    from .passes.ranges import Range
    from .passes.services import Feeds
    from .runtime import Session
    from .targets.base import Parts, Target

Shapes = Mapping[str, Sequence[int | str]]
Data: TypeAlias = "Iterable[Feeds]"
"""Sample feeds of a model, which may be gone through several times."""
Listener = Callable[[str, int, int], None]
"""Told of progress: stage, units done, units in all."""


@dataclass(frozen=True)
class CompileOptions:
    """How to compile; the command line spells the fields the same way.

    ``passes`` is a pipeline such as ``fold{max-bytes=1048576},cse`` (None: the default one),
    ``dump_ir`` a folder for the numbered text after each pass, the program and its kernels,
    ``stop_after`` the name or number of the last pass to run, ``jobs`` the number of compiler
    processes (0: one a core), ``linker`` the C compiler driver to link with. ``tune`` are the
    seconds to spend on timing kernels; ``tuned`` uses what was timed before and kept in the user's
    database. ``input_defaults`` says what initializers among the model's inputs are: ``open``
    inputs that may be left out, ``constant``, or (``auto``) open unless the model lists its
    weights there. ``explain`` is a pattern of names of rules or nodes (``layout``, ``*/attn/*``)
    whose rewrites that were not made are kept with the reasons, as ``near_misses`` of the
    artifact.
    """

    target: str = "cpu"
    shapes: Shapes | None = None
    passes: str | None = None
    dump_ir: str | os.PathLike[str] | None = None
    stop_after: str | None = None
    jobs: int = 0
    linker: str | None = None
    tune: float = 0.0
    tuned: bool = False
    input_defaults: Defaults = "auto"
    explain: str | None = None

    def __post_init__(self) -> None:
        """Raises :class:`OptionError` for values of the wrong types."""
        for name, (kinds, words) in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise OptionError(f"{name} must be {words}, not a {type(value).__name__}")
        if self.jobs < 0:
            raise OptionError(f"jobs must be 0 or more, not {self.jobs}")
        for name, shape in (self.shapes or {}).items():
            if isinstance(shape, str) or not isinstance(shape, Sequence):
                raise OptionError(
                    f"the shape of {name!r} must be a list of dims, not a {type(shape).__name__}"
                )


class OptionError(UsageError):
    """An option of a compilation makes no sense."""


_NONE = type(None)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "target": ((str,), "a name"),
    "shapes": ((Mapping, _NONE), "a dict of input name to shape"),
    "passes": ((str, _NONE), "a text"),
    "dump_ir": ((str, os.PathLike, _NONE), "a path"),
    "stop_after": ((str, int, _NONE), "a pass's name or number"),
    "jobs": ((int,), "a number of processes"),
    "linker": ((str, _NONE), "a program's name"),
    "tune": ((int, float), "a number of seconds"),
    "tuned": ((bool,), "a bool"),
    "explain": ((str, _NONE), "a pattern of names"),
}
"""The types of options, and how to say them."""


@dataclass
class Artifact:
    """A compiled model, not yet on disk."""

    contents: ArtifactContents
    graph: Graph = field(repr=False)
    pass_records: list[PassRecord] = field(repr=False, default_factory=list)
    seconds: dict[str, float] = field(repr=False, default_factory=dict)
    tuning: TuningReport | None = field(repr=False, default=None)
    near_misses: list[NearMiss] = field(repr=False, default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        """What the compiler did: passes, kernels, memory, times."""
        return self.contents.report

    def save(self, path: str | os.PathLike[str], *, folder: bool = False) -> Path:
        """Write the artifact; nothing half-written is left behind on failure."""
        from .codegen.artifact import write_artifact

        write_artifact(self.contents, path, folder=folder)
        return Path(os.fsdecode(path))

    def session(self, *, threads: int | None = None) -> Session:
        """Load the artifact in this process."""
        from .runtime import load

        with tempfile.TemporaryDirectory(prefix="graphkiln-") as place:
            return load(self.save(Path(place) / "model.kiln"), threads=threads)


def import_model(
    model: Any, shapes: Shapes | None = None, input_defaults: Defaults = "auto"
) -> Imported:
    """The frontend's step: a path, bytes or ``ModelProto`` to a typed graph."""
    from .frontend import DEFAULTS, load_model

    if input_defaults not in DEFAULTS:
        raise OptionError(f"input_defaults is one of {', '.join(DEFAULTS)}, not {input_defaults!r}")
    return load_model(model, shapes=shapes, input_defaults=input_defaults)


def compile(
    model: Any,
    target: str = "cpu",
    shapes: Shapes | None = None,
    *,
    options: CompileOptions | None = None,
    listener: Listener | None = None,
    data: str | os.PathLike[str] | Data = (),
    ranges: dict[str, Range] | None = None,
    **fields: Any,
) -> Artifact:
    """Compile an ONNX model ahead of time.

    ``model`` is a path, bytes or an ``onnx.ModelProto``; further keywords are fields of
    :class:`CompileOptions`. ``data`` are samples for passes that measure on them, feeds or where
    they are (:func:`.samples.samples_of`), and ``ranges`` those of tensors by name, to which
    passes add what they find. What it raises on
    purpose is a :class:`graphkiln.GraphkilnError`:

    - :class:`graphkiln.driver.OptionError` and :class:`graphkiln.targets.TargetError` for options
      and targets that make no sense, :class:`graphkiln.InputError` for what is no model at all;
    - :class:`graphkiln.frontend.FrontendError` for a model that cannot be imported;
    - :class:`graphkiln.passes.base.PassError` where a pass fails;
    - :class:`graphkiln.codegen.errors.CodegenError` for nodes that nothing can compute, and
      :class:`graphkiln.codegen.build.BuildError` for kernels that cannot be built;
    - :class:`graphkiln.codegen.link.LinkError` and :class:`graphkiln.codegen.pool.PoolError` where
      the C compiler is missing or fails;
    - :class:`graphkiln.codegen.tune.TuningError` and
      :class:`graphkiln.targets.cpu.database.DatabaseError` where kernels cannot be tuned, or what
      was tuned cannot be read;
    - :class:`graphkiln.samples.SamplesError` for sample data that cannot be read.

    ``OSError`` where ``dump_ir`` cannot be written.
    """
    from .codegen.collector import rare_collections

    chosen = options or CompileOptions(target=target, shapes=shapes, **fields)
    with rare_collections():
        return Compilation(chosen, listener or silent, data, ranges).run(model)


def optimize(
    model: Any,
    target: str = "cpu",
    shapes: Shapes | None = None,
    *,
    options: CompileOptions | None = None,
    **fields: Any,
) -> Graph:
    """The graph of a model after all passes, as the code generator would get it."""
    chosen = options or CompileOptions(target=target, shapes=shapes, **fields)
    return optimize_graph(import_model(model, chosen.shapes, chosen.input_defaults).graph, chosen)


def check(
    model: Any,
    target: str = "cpu",
    shapes: Shapes | None = None,
    *,
    options: CompileOptions | None = None,
    **fields: Any,
) -> list[Blocker]:
    """Every reason why a model cannot be compiled: file, node, op and why; none where it can be.

    Everything is done that compiling does but for machine code. The text of a blocker is one line.
    """
    from .codegen.build import lowering_failures

    chosen = options or CompileOptions(target=target, shapes=shapes, **fields)
    compilation = Compilation(chosen, silent)
    try:
        imported = import_model(model, chosen.shapes, chosen.input_defaults)
        lowered = compilation.lowered(compilation.optimize(imported.graph))
    except GraphkilnError as e:
        return list(e.blockers)
    return lowering_failures(lowered.kernels, compilation.target)


def bisect(
    model: Any,
    feeds: Mapping[str, Any],
    options: CompileOptions,
    *,
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> Culprit | None:
    """The first pass after which a model computes other numbers for ``feeds``, or None.

    Everything is evaluated by the reference, so the code generator takes no part.
    """
    from .passes.bisect import bisect as search

    manager = Compilation(options, silent).manager()
    graph = import_model(model, options.shapes, options.input_defaults).graph
    return search(graph, manager.passes, feeds, rtol=rtol, atol=atol, manager=manager)


def require_support(graph: Graph, target: Target) -> None:
    """Raise ``CodegenError`` listing every node that nothing can compute."""
    from .codegen.errors import CodegenError
    from .codegen.support import unsupported
    from .runtime.host import supported

    blockers = unsupported(graph, target, supported())
    if blockers:
        raise CodegenError(*blockers)


def optimize_graph(graph: Graph, options: CompileOptions) -> Graph:
    """An imported graph after all passes (changed in place)."""
    return Compilation(options, silent).optimize(graph)


def silent(_stage: str, _done: int, _total: int) -> None:
    """The listener that does nothing."""


def samples(data: str | os.PathLike[str] | Data, graph: Graph) -> Data:
    """Samples for the inputs of a graph: ``data``, or what it names."""
    from .ir.types import TensorType
    from .samples import samples_of

    if isinstance(data, (str, os.PathLike)):
        types = {v.name: v.type for v in graph.inputs}
        tensors = {n: t for n, t in types.items() if isinstance(t, TensorType)}
        ranks = {name: t.rank for name, t in tensors.items() if t.shape is not None}
        return samples_of(os.fspath(data), ranks)
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        kind = type(data).__name__
        raise OptionError(f"data must be a list of samples, or where they are, not a {kind}")
    return data


@dataclass(frozen=True)
class Source:
    """Where a graph comes from: the name and SHA-256 of the model's file, and remarks on it."""

    name: str
    sha256: str
    warnings: tuple[str, ...]


class Compilation:
    """The steps of one compilation, each timed."""

    def __init__(
        self,
        options: CompileOptions,
        listener: Listener,
        data: str | os.PathLike[str] | Data = (),
        ranges: dict[str, Range] | None = None,
    ) -> None:
        self.options = options
        self.listener = listener
        self.given_data = data
        self.data: Data = ()
        self.ranges: dict[str, Range] = {} if ranges is None else ranges
        self.seconds: dict[str, float] = {}
        self.report: dict[str, Any] = {}
        self.records: list[PassRecord] = []
        self.tuning: TuningReport | None = None
        self.near_misses: list[NearMiss] = []
        self.workers: Workers | None = None

    @cached_property
    def target(self) -> Target:
        # Not at once: it loads TVM, and a damaged model should be told of quickly.
        from .targets import parse_target

        return parse_target(self.options.target)

    def run(self, model: Any) -> Artifact:
        """Compile a model; raises :class:`OptionError` for data that no pass uses."""
        given = not isinstance(self.given_data, tuple) or self.given_data
        if given and not any(p.uses_samples for p in self.manager().passes):
            raise OptionError(
                "no pass of the pipeline uses the data: name one that does, such as quantize, in"
                " passes, or leave the data out"
            )
        return self.run_graph(*self.imported(model))

    def imported(self, model: Any) -> tuple[Graph, Source]:
        """The graph of a model, and where it comes from; the data are those for its inputs."""
        found = self.timed(
            "import",
            lambda: import_model(model, self.options.shapes, self.options.input_defaults),
        )
        self.data = samples(self.given_data, found.graph)
        name = Path(found.source).name
        return found.graph, Source(name, found.digest, tuple(found.warnings))

    def run_graph(self, imported: Graph, source: Source) -> Artifact:
        """Compile an imported graph, which is changed in place."""
        before = imported.count_nodes()
        with self.compilers(before):
            tools = self.timed("load compiler", self.tools)
            graph = self.timed("passes", lambda: self.optimize(imported))
            contents = self.generate(graph, source, before, tools)
        return Artifact(contents, graph, self.records, self.seconds, self.tuning, self.near_misses)

    @contextmanager
    def compilers(self, nodes: int) -> Iterator[None]:
        """A context with processes to compile the kernels of a model of so many nodes.

        They start at once and load the compiler while this process loads it and runs the passes.
        """
        from .codegen.workers import IN_PROCESS_LIMIT, Workers

        count = self.options.jobs or os.cpu_count() or 1
        if count == 1:
            yield
            return
        with Workers(count) as self.workers:
            if nodes > IN_PROCESS_LIMIT:
                self.workers.start()
            yield

    def runner(self, graph: Graph) -> Callable[[Mapping[str, Any]], list[Any]]:
        """A function that runs ``graph``, compiled for this machine's CPU whatever the target.

        What passes ask to measure with; the graph stays as it is.
        """
        options = CompileOptions(jobs=self.options.jobs, linker=self.options.linker)
        artifact = Compilation(options, silent).run_graph(graph.copy(), Source("a graph", "", ()))
        session = artifact.session()
        return lambda feeds: session.run(None, feeds)

    def tools(self) -> Tools:
        """What to link with: known before the work, as it may be missing."""
        from .codegen.link import find_tools

        self.target.require_tools()
        return find_tools(self.options.linker, self.target.host.info.arch)

    def timed(self, stage: str, step: Callable[[], Any]) -> Any:
        self.listener(stage, 0, 1)
        start = time.perf_counter()
        result = step()
        self.seconds[stage] = time.perf_counter() - start
        self.listener(stage, 1, 1)
        return result

    def manager(self, tuner: Tuner | None = None) -> PassManager:
        """The passes that the options ask for; raises :class:`OptionError`.

        With a ``tuner``, the layout pass goes by what it knows, or times before that pass.
        """
        from .passes.manager import PassManager
        from .passes.pipeline import PipelineError, parse_pipeline

        try:
            return PassManager(
                parse_pipeline(self.options.passes),
                dump_dir=self.options.dump_ir,
                stop_after=self.options.stop_after,
                hardware=self.hardware(tuner.layouts if tuner else None),
                data=self.data,
                ranges=self.ranges,
                runner=self.runner,
                before=partial(self.tune, tuner) if tuner and self.options.tune else None,
                on_pass=lambda name, done, total: self.listener(f"pass {name}", done, total),
            )
        except PipelineError as e:
            raise OptionError(e.reason) from e

    def hardware(self, layouts: Layouts | None = None) -> Hardware:
        """What the target answers to passes, perhaps with other ``layouts``."""
        own = self.target.hardware
        return own if layouts is None else own.with_layouts(layouts)

    def tuner(self) -> Tuner | None:
        """The choices of the user's own database, where the options ask for them."""
        if not self.options.tune and not self.options.tuned:
            return None
        if not 0 <= self.options.tune < float("inf"):
            raise OptionError(f"tune is a number of seconds, not {self.options.tune}")
        from .codegen.tune import Tuner

        return Tuner(self.target, create=self.options.tune > 0)

    def tune(self, tuner: Tuner, p: Pass, graph: Graph) -> None:
        """Before the layout pass: time the kernels that it would make."""
        if p.name != "layout" or self.tuning is not None:
            return
        from .passes.base import PassContext

        counts: Counter[KernelShape] = Counter()
        p.run(graph.copy(), PassContext(self.hardware(tuner.recorder(counts))))
        start = time.perf_counter()
        self.tuning = tuner.tune(
            counts, self.options.tune, lambda done, total: self.listener("tune", done, total)
        )
        self.seconds["tune"] = time.perf_counter() - start

    def optimize(self, graph: Graph) -> Graph:
        from .passes.near_misses import NearMisses

        with self.tuner() or nullcontext() as tuner:
            manager = self.manager(tuner)
            context = manager.context()
            misses = NearMisses(self.options.explain or "")
            context.explain = None if self.options.explain is None else misses
            result = manager.run(graph, context)
        self.near_misses = list(misses)
        self.records = result.records
        self.report["passes"] = [
            {
                "pass": r.text,
                "nodes": r.nodes_after,
                "changes": r.changes,
                "details": dict(r.details),
                "numbers": dict(r.numbers),
                "tables": dict(r.tables),
            }
            for r in result.records
        ]
        self.report["warnings"] = result.warnings
        return result.graph

    def generate(self, graph: Graph, source: Source, before: int, tools: Tools) -> ArtifactContents:
        """The members of the artifact, and the rest of the report."""
        from .codegen.artifact import ArtifactContents
        from .codegen.link import link
        from .codegen.signals import polling
        from .codegen.signature import add_defaults
        from .ir.text import print_graph

        lowered = self.timed("lower", lambda: self.lowered(graph))
        self.dump(lowered)
        parts = self.timed("kernels", lambda: self.build(lowered))
        native = self.timed("native", lambda: self.native(graph, lowered))
        loops = self.timed("loops", lambda: self.loops(lowered)) if lowered.loops else {}
        code = None if isinstance(native, str) else native
        library = self.timed(
            "link",
            lambda: link(
                lowered.program, parts.objects, lowered.dim_kernels, self.target, tools, code, loops
            ),
        )  # fmt: skip
        manifest = self.manifest(graph, source, sorted(lowered.program.host_functions))
        weights = list(lowered.weights)
        weights += add_defaults(manifest["inputs"], graph.inputs, len(weights))
        if (polls := polling(lowered.program)) is not None:
            manifest["polls"] = polls
        if self.target.host is not self.target:
            manifest |= {"devices": lowered.devices, "spaces": lowered.program.spaces}
        if code is not None:
            manifest["native"] = {
                "words": len(weights), "fixups": len(weights) + 1, "stop": code.stop
            }  # fmt: skip
            weights += [("native words", code.words), ("native fixups", code.fixups)]
        ways = "as native code" if code else f"in the virtual machine, because of {native}"
        self.describe(graph, lowered, source)
        self.report["nodes"] = {"imported": before, "optimised": graph.count_nodes()}
        self.report["runs"] = ways
        return ArtifactContents(
            manifest, library, weights, print_graph(graph), self.report, parts.members,
            lowered.weight_spaces,
        )  # fmt: skip

    def describe(self, graph: Graph, lowered: Lowered, source: Source) -> None:
        """Report what was generated: kernels and their costs, memory, what is slow and why."""
        from .codegen.costs import kernel_costs, slow_warnings
        from .ir.flops import graph_flops
        from .targets.base import targets_of

        costs: dict[str, dict[str, Any]] = {}
        slow: list[str] = []
        for device, target in targets_of(self.target).items():
            own = lowered.kernels_of(device)
            costs |= kernel_costs(own, lowered.calls, target)
            slow += slow_warnings(own, costs, target)
            if device != HOST:
                for name in own:
                    costs[name]["device"] = device
        self.report.update(
            {
                "kernels": len(lowered.kernels),
                "kernel_costs": costs,
                "flops": graph_flops(graph),
                "weight_bytes": sum(a.nbytes for _, a in lowered.weights),
                "arena_bytes": lowered.program.arena_bytes,
                "host_functions": sorted(lowered.program.host_functions),
                "warnings": [*source.warnings, *self.report.get("warnings", ()), *slow],
            }
        )

    def lowered(self, graph: Graph) -> Lowered:
        """The program and its kernels; raises ``CodegenError``. The nodes get their devices."""
        from .codegen.build import kernel_version
        from .codegen.lower import lower_graph
        from .codegen.placement import place

        place(graph, self.target)
        require_support(graph, self.target)
        return lower_graph(graph, self.target, kernel_version(self.target))

    def dump(self, lowered: Lowered) -> None:
        """The program and its kernels as text, where the options ask for dumps."""
        from .codegen.program_text import dump_program

        if self.options.dump_ir is not None:
            dump_program(self.options.dump_ir, len(self.records) + 1, lowered, self.target)

    def build(self, lowered: Lowered) -> Parts:
        """What the target and its host make of the kernels."""
        from .codegen.build import BuildServices
        from .targets.base import merge_parts, targets_of

        def progress(done: int, total: int) -> None:
            self.listener("kernels", done, total)

        services = BuildServices(self.workers, progress)
        targets = targets_of(self.target).items()
        return merge_parts(
            target.build(lowered.kernels_of(device), services) for device, target in targets
        )

    def native(self, graph: Graph, lowered: Lowered) -> Native | str:
        """Code that runs the kernels without the virtual machine, or why there can be none."""
        from .codegen.native import native_of

        return native_of(graph, lowered, self.target)

    def loops(self, lowered: Lowered) -> dict[str, bytes]:
        """The object files of loops' functions."""
        from .codegen.loop_code import loop_object

        return {name: loop_object(code, self.target) for name, code in lowered.loops.items()}

    def manifest(self, graph: Graph, source: Source, hosts: list[str]) -> dict[str, Any]:
        import tvm

        from .codegen.signature import value_specs
        from .version import __version__

        return {
            "producer": {"graphkiln": __version__, "tvm": str(tvm.__version__)},
            "target": self.target.info.to_manifest(),
            "inputs": value_specs(graph.inputs, [v.name for v in graph.inputs]),
            "outputs": value_specs(graph.outputs, graph.output_names),
            "host_functions": hosts,
            "provenance": {
                "source": source.name,
                "sha256": source.sha256,
                "built_on": platform.machine(),
            },
        }
