"""A subject from its number: a net, feeds of several sizes, and pipelines."""

from __future__ import annotations

from graphkiln.passes.pipeline import default_pipeline, print_pipeline

from .families import build
from .judge import Feeds, Subject
from .net import Net, random_array


def make(family: str, seed: int) -> Subject:
    """The graph of a number, always the same."""
    net = build(family, seed)
    feeds: list[Feeds] = [net.feeds()]
    if net.sizes:
        feeds.append(net.resized({s: net.between(1, 9) for s in net.sizes}))
        if net.chance(0.4):
            feeds.append(net.resized({s: net.choose((1, 1, 0, 2, 17)) for s in net.sizes}))
        if net.chance(0.3):
            feeds.append(misfit(net))
    pipelines = [pipeline(net)] if net.chance(0.25) else []
    return Subject(net.model(), feeds, pipelines)


def misfit(net: Net) -> Feeds:
    """Every open dim has a size of its own, so names that repeat do not agree."""
    out = {}
    for v, dims in net.inputs:
        shape = [d if isinstance(d, int) else net.between(0, 4) for d in dims]
        out[v.name] = random_array(net.rng, v.dtype, shape, *net.ranges[v.name])
    return out


def pipeline(net: Net) -> str:
    """Some of the default passes, in order or not, after what code generation needs."""
    names = [print_pipeline([p]) for p in default_pipeline()]
    kept = [n for n in names if net.chance(0.6)]
    if net.chance(0.4):
        kept = [kept[i] for i in net.rng.permutation(len(kept))] if kept else kept
        # What cuts the graph into kernels for the hardware comes last.
        late = [n for n in kept if n.split("{")[0] in ("layout", "fuse")]
        kept = [n for n in kept if n not in late] + sorted(late, key=("layout", "fuse").index)
    # Fusion takes no dead nodes, which any of the others may leave.
    kept = [m for n in kept for m in (("dce", n) if n == "fuse" else (n,))]
    return ",".join(("shapes", "fold", "dce", *kept))


__all__ = ["make"]
