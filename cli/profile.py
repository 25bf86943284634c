"""What a profile says of each kernel: times joined with the artifact's report and the machine's
peaks, as a table or a trace."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..ir.dims import evaluate, parse_dim
from .tables import facts, milliseconds, number, size, table

if TYPE_CHECKING:
    from ..runtime.profile import KernelCall, Profiler

UNKNOWN = "-"
_MOST = 1 << 62
_TOLD = 10
"""Kernels whose ONNX nodes are listed."""


@dataclass(frozen=True)
class Cost:
    """What a call computes and moves; None where the report does not say."""

    flops: int | None = None
    bytes: int | None = None
    arithmetic: str = "float32"
    ops: tuple[str, ...] = ()
    node: str | None = None
    origins: tuple[str, ...] = ()
    template: str | None = None
    algorithm: str | None = None
    tile: str | None = None
    generic: str = ""

    @property
    def way(self) -> str:
        """How it is computed: the template, its algorithm and register tile, or why by none."""
        told = (self.template, self.algorithm, self.tile)
        return " ".join(t for t in told if t) or self.generic


@dataclass
class Row:
    """One kernel's calls in a run; ``bound`` is the least time that the machine allows for them."""

    name: str
    calls: int
    seconds: float
    costs: list[Cost]
    bound: float | None = None
    limit: str = ""

    @property
    def flops(self) -> int | None:
        return _sum([c.flops for c in self.costs])

    @property
    def bytes(self) -> int | None:
        return _sum([c.bytes for c in self.costs])

    @property
    def arithmetic(self) -> str:
        return self.costs[0].arithmetic


def _sum(values: Sequence[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None


class Machine:
    """The peaks that kernels are held against, for so many threads."""

    def __init__(self, threads: int, working_set: int) -> None:
        from ..runtime.peak import copied_bytes, copy_bandwidth

        self.threads = threads
        self.copied = copied_bytes(working_set)
        self.bandwidth = copy_bandwidth(self.copied, threads)

    def peak(self, arithmetic: str) -> float | None:
        """Operations a second of all threads."""
        from ..runtime.peak import ARITHMETIC, peak_operations

        one = peak_operations(arithmetic) if arithmetic in ARITHMETIC else None
        return None if one is None else one * self.threads

    def bound(self, cost: Cost) -> tuple[float, str] | None:
        """Seconds that a call takes at least, and what bounds it."""
        if cost.flops is None or cost.bytes is None:
            return None
        moving, peak = cost.bytes / self.bandwidth, self.peak(cost.arithmetic)
        if cost.flops and peak is None:
            return None
        computing = cost.flops / peak if peak else 0.0
        return (computing, "compute") if computing > moving else (moving, "memory")


def call_costs(calls: Sequence[KernelCall], report: Mapping[str, Any]) -> list[Cost]:
    """The cost of each call of a run, from the artifact's report."""
    entries = report.get("kernel_costs")
    entries = entries if isinstance(entries, dict) else {}
    total: dict[str, int] = {}
    for call in calls:
        total[call.name] = total.get(call.name, 0) + 1
    seen: dict[str, int] = {}
    out = []
    for call in calls:
        turn = seen[call.name] = seen.get(call.name, -1) + 1
        out.append(_cost(entries.get(call.name), call.sizes, turn, total[call.name]))
    return out


def _cost(entry: Any, sizes: tuple[int, ...], turn: int, calls: int) -> Cost:
    if not isinstance(entry, dict):
        return Cost()
    symbols = dict(zip(_strings(entry, "symbols"), sizes, strict=False))
    nodes = _strings(entry, "nodes")
    return Cost(
        _value(entry.get("flops"), symbols),
        _value(entry.get("bytes"), symbols),
        str(entry.get("arithmetic")),
        tuple(_strings(entry, "ops")),
        # Loops and branches call a kernel as often as they please.
        (nodes[turn] or None) if len(nodes) == calls else None,
        _origins(entry, turn) if len(nodes) == calls else (),
        _word(entry.get("template")),
        _word(entry.get("algorithm")),
        _word(entry.get("tile")),
        _word(entry.get("generic")) or "",
    )


def _word(given: Any) -> str | None:
    return given if isinstance(given, str) else None


def _origins(entry: Mapping[str, Any], turn: int) -> tuple[str, ...]:
    """The ONNX nodes behind one call."""
    given = entry.get("origins")
    names = given[turn] if isinstance(given, list) and turn < len(given) else None
    return tuple(n for n in names if isinstance(n, str)) if isinstance(names, list) else ()


def _strings(entry: Mapping[str, Any], key: str) -> list[str]:
    given = entry.get(key)
    return [s for s in given if isinstance(s, str)] if isinstance(given, list) else []


def _value(given: Any, symbols: Mapping[str, int]) -> int | None:
    """A report's number, or its expression for these sizes; None for what is neither."""
    try:
        count = evaluate(parse_dim(given), symbols) if isinstance(given, str) else given
    except ValueError:
        return None
    return count if type(count) is int and 0 <= count <= _MOST else None


def working_set(costs: Sequence[Cost], report: Mapping[str, Any]) -> int:
    """Bytes that a run works on: weights and activations, or all it moves if that is less."""
    moved = sum(c.bytes or 0 for c in costs)
    parts = [report.get(key) for key in ("weight_bytes", "arena_bytes")]
    held = [p for p in parts if isinstance(p, int) and p > 0]
    return min(moved, sum(held)) if len(held) == len(parts) else moved


def kernel_rows(
    calls: Sequence[KernelCall], seconds: np.ndarray, costs: Sequence[Cost], machine: Machine
) -> list[Row]:
    """A row for each kernel, the slowest first; ``seconds`` is float64[runs, calls]."""
    places: dict[str, list[int]] = {}
    for i, call in enumerate(calls):
        places.setdefault(call.name, []).append(i)
    rows = []
    for name, at in places.items():
        row = Row(
            name, len(at), float(np.median(seconds[:, at].sum(axis=1))), [costs[i] for i in at]
        )
        bounds = [b for c in row.costs if (b := machine.bound(c)) is not None]
        if len(bounds) == len(at):
            row.bound = sum(b for b, _ in bounds)
            row.limit = max(bounds)[1]
        rows.append(row)
    return sorted(rows, key=lambda row: -row.seconds)


_COLUMNS = ["kernel", ">calls", ">time", ">share", ">GFLOP/s", ">of peak", ">moved", ">bound", "by",
            ">of bound"]  # fmt: skip


def profile_table(rows: Sequence[Row], machine: Machine, overhead: float) -> Any:
    """The kernels, the ``overhead`` of a run, which is time outside of kernels, and the sums."""
    whole = sum(row.seconds for row in rows) + overhead or 1.0
    names = short_names([row.name for row in rows])
    lines = [
        (name, row.calls, *_cells(row, whole, machine.peak(row.arithmetic)))
        for name, row in zip(names, rows, strict=True)
    ]
    blank = [""] * (len(_COLUMNS) - 4)
    lines.append(("overhead", "", duration(overhead), f"{overhead / whole:.1%}", *blank))
    lines.append(_total(rows, whole, machine))
    return table("Kernels", _COLUMNS, lines)


def _total(rows: Sequence[Row], whole: float, machine: Machine) -> tuple[Any, ...]:
    """Sums over what is known of the kernels."""
    costs = [c for row in rows for c in row.costs if c.flops is not None]
    bounds = [row.bound for row in rows if row.bound is not None]
    total = Row("total", sum(row.calls for row in rows), whole, costs, sum(bounds) or None)
    kinds = {row.arithmetic for row in rows if row.flops}
    peak = machine.peak(kinds.pop()) if len(kinds) == 1 else None
    return ("total", total.calls, *_cells(total, whole, peak))


def _cells(row: Row, whole: float, peak: float | None) -> tuple[str, ...]:
    rate = row.flops / row.seconds if row.flops and row.seconds else None
    return (
        duration(row.seconds),
        f"{row.seconds / whole:.1%}",
        UNKNOWN if rate is None else f"{rate / 1e9:.1f}",
        UNKNOWN if rate is None or peak is None else f"{rate / peak:.0%}",
        UNKNOWN if row.bytes is None else size(row.bytes),
        UNKNOWN if row.bound is None else duration(row.bound),
        row.limit,
        UNKNOWN if row.bound is None or not row.seconds else f"{row.bound / row.seconds:.0%}",
    )


def origins_table(rows: Sequence[Row]) -> Any:
    """The ONNX nodes that the slowest kernels stand for: those of one call, and of how many more.

    None where the artifact does not tell.
    """
    names = short_names([row.name for row in rows])
    lines = [
        (name, _onnx_nodes(row), row.costs[0].way)
        for name, row in zip(names, rows, strict=True)
        if any(cost.origins for cost in row.costs)
    ]
    columns = ["kernel", "computes", "template, algorithm and register tile, or why none"]
    title = "ONNX nodes" if len(lines) <= _TOLD else f"ONNX nodes of the {_TOLD} slowest kernels"
    return table(title, columns, lines[:_TOLD]) if lines else None


def _onnx_nodes(row: Row) -> str:
    first = row.costs[0].origins
    more = len({n for cost in row.costs for n in cost.origins} - set(first))
    return f"{', '.join(first)}, and {more} more" if more else ", ".join(first)


def duration(seconds: float) -> str:
    """A time that may be far below a millisecond."""
    return f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else milliseconds(seconds)


def short_names(names: Sequence[str]) -> list[str]:
    """Kernels' names with as much of the digest at their end as tells them apart."""
    shortened = [[_shortened(name, digits) for name in names] for digits in (0, 4, 8, 16)]
    counts = [Counter(short) for short in shortened]
    return [
        next(short for short, count in zip(forms, counts, strict=True) if count[short] == 1)
        for forms in zip(*shortened, strict=True)
    ]


def _shortened(name: str, digits: int) -> str:
    """A kernel's name with so many digits; other names are as they are."""
    stem, digest = name[:-17], name[-16:]
    if name[-17:-16] != "_" or not digits < len(digest):
        return name
    return f"{stem}_{digest[:digits]}" if digits else stem


def profile_facts(profiler: Profiler, machine: Machine, rows: Sequence[Row]) -> str:
    """What the figures of the table rest on."""
    kinds = list(dict.fromkeys(row.arithmetic for row in rows if row.flops))
    peaks = [
        f"{number(peak)}FLOP/s {kind}" for kind in kinds if (peak := machine.peak(kind)) is not None
    ]
    return facts(
        "Measured",
        {
            "threads": machine.threads,
            "profiled runs": profiler.runs,
            "peak": ", ".join(peaks) or "unknown",
            "bandwidth": f"{number(machine.bandwidth)}B/s, copying {size(machine.copied)}",
            "timing a call": f"{duration(profiler.hook_seconds)}, subtracted",
        },
    )


def trace(profiler: Profiler, costs: Sequence[Cost], title: str) -> dict[str, Any]:
    """The fastest profiled run in the Trace Event Format: one complete event a kernel call."""
    place = {"pid": 1, "tid": 1}
    names = [("process_name", f"graphkiln {title}"), ("thread_name", "kernels")]
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": name, "args": {"name": value}, **place} for name, value in names
    ]
    for timed, cost in zip(profiler.fastest(), costs, strict=True):
        details = {"flops": cost.flops, "bytes": cost.bytes, "ops": list(cost.ops),
                   "node": cost.node, "onnx": list(cost.origins), "template": cost.template,
                   "algorithm": cost.algorithm, "tile": cost.tile, "generic": cost.generic or None,
                   "sizes": list(timed.call.sizes)}  # fmt: skip
        events.append(
            {
                "ph": "X", "cat": "kernel", "name": timed.call.name, **place,
                "ts": round(timed.start * 1e6, 3), "dur": round(timed.seconds * 1e6, 3),
                "args": {k: v for k, v in details.items() if v is not None},
            }
        )  # fmt: skip
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def write_trace(path: str, content: Mapping[str, Any]) -> None:
    """Write a trace, complete or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        Path(temporary).write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as e:
        raise click.ClickException(f"cannot write {path}: {e.strerror}") from e
    finally:
        Path(temporary).unlink(missing_ok=True)
