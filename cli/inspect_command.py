"""``graphkiln inspect``: what is in a model or an artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .compile_command import operations
from .options import parse_shapes
from .tables import facts, harmless, number, show, size, table

if TYPE_CHECKING:
    from ..ir.graph import Graph

_ZIP = b"PK\x03\x04"


@click.command("inspect")
@click.argument("path", type=click.Path())
@click.option("--ir", is_flag=True, help="Print the IR text: as imported, or as compiled.")
@click.option("--verify", is_flag=True, help="Check all hashes of an artifact.")
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224", help="Pin a model's input."
)
def command(path: str, ir: bool, verify: bool, shapes: tuple[str, ...]) -> None:
    """Show what is in PATH, a model or an artifact."""
    if is_artifact(path):
        if shapes:
            raise click.UsageError("--shape is for models: an artifact's shapes are settled")
        _artifact(path, ir, verify)
    elif verify:
        raise click.UsageError("--verify is for artifacts")
    else:
        _model(path, ir, parse_shapes(shapes))


def is_artifact(path: str) -> bool:
    """Is this a ``.kiln`` file or folder, rather than an ONNX model?"""
    place = Path(path)
    if place.is_dir() or place.suffix == ".kiln":
        return True
    try:
        with open(place, "rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError:
        return False


def _model(path: str, ir: bool, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
    from ..driver import import_model
    from ..ir.flops import graph_flops
    from ..ir.text import print_graph

    imported = import_model(path, shapes or None)
    graph = imported.graph
    if ir:
        click.echo(harmless(print_graph(graph)), nl=False)
        return
    constants = [n.attrs["value"] for g in graph.walk() for n in g.nx if n.key == "Constant"]
    arrays: list[Any] = [a for a in constants if hasattr(a, "nbytes")]
    show(
        facts(
            f"Model {path}",
            {
                **imported.header,
                "nodes": graph.count_nodes(),
                "parameters": f"{number(sum(a.size for a in arrays))}"
                f" ({size(sum(a.nbytes for a in arrays))})",
                "operations per run": operations(graph_flops(graph)),
            },
        )
    )
    values = [("input", v.name, v.type) for v in graph.inputs]
    named = zip(graph.output_names, graph.outputs, strict=True)
    values += [("output", name, v.type) for name, v in named]
    show(table("Inputs and outputs", ["", "name", "type"], values), _histogram(graph))
    for warning in imported.warnings:
        click.echo(f"note: {harmless(str(warning))}")


def _histogram(graph: Graph) -> Any:
    counts = Counter(n.key for part in graph.walk() for n in part.nodes)
    return table("Ops", ["op", ">nodes"], sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])))


def _artifact(path: str, ir: bool, verify: bool) -> None:
    from ..runtime import read_artifact
    from ..runtime import verify as check
    from ..runtime.session import parse_report

    if verify:
        check(path)
    artifact = read_artifact(path)
    if ir:
        click.echo(harmless(artifact.ir_text), nl=False)
        return
    manifest, report = artifact.manifest, parse_report(path, artifact.report)
    raw, target = manifest.raw, manifest.target
    show(
        facts(
            f"Artifact {path}",
            {
                "compiled from": raw["provenance"].get("source", "?"),
                "model's SHA-256": raw["provenance"].get("sha256", "?"),
                "compiled by": ", ".join(f"{k} {v}" for k, v in sorted(raw["producer"].items())),
                "target": f"{target.name} ({target.triple})",
                "needs": " ".join(target.features) or "nothing special",
                **({"devices": ", ".join(manifest.devices)} if manifest.devices else {}),
                "nodes": _nodes(report),
                "kernels": report.get("kernels", "?"),
                "runs": report.get("runs", "?"),
                "operations per run": operations(report.get("flops", 0)),
                "peak activation memory": size(report.get("arena_bytes", 0)),
                "host functions": ", ".join(manifest.host_functions) or "none",
                "hashes": "all are right" if verify else "checked (--verify: the weights' too)",
            },
        )
    )
    values = [("input", s.name, s.ort_type, _shape(s.shape)) for s in manifest.inputs]
    values += [("output", s.name, s.ort_type, _shape(s.shape)) for s in manifest.outputs]
    members = {**manifest.files, **{name: m.file for name, m in manifest.members.items()}}
    files = [(name, size(f.size), f.sha256) for name, f in sorted(members.items())]
    passes = [(p["pass"], p["nodes"], p["changes"]) for p in report.get("passes", ())]
    show(
        table("Inputs and outputs", ["", "name", "type", "shape"], values),
        table("Files", ["file", ">size", "SHA-256"], files),
        table("Passes", ["pass", ">nodes after", ">changes"], passes),
    )
    for warning in report.get("warnings", ()):
        click.echo(f"note: {harmless(str(warning))}")


def _nodes(report: Mapping[str, Any]) -> str:
    counts = report.get("nodes", {})
    return f"{counts.get('imported', '?')} before, {counts.get('optimised', '?')} after"


def _shape(shape: tuple[Any, ...] | None) -> str:
    if shape is None:
        return "any"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
