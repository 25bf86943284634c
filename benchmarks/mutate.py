"""Damaged models: each must compile, or give one clear error, quickly.

    python benchmarks/mutate.py                      4,000 of them through import and passes
    python benchmarks/mutate.py --count 200 --compile-every 20
    python benchmarks/mutate.py --only 17 --save m.onnx    one of them, to look at

Damage is bytes that are cut, flipped or moved, fields with odd values, and graphs bent on purpose:
cycles, renamed ops, shapes and types that do not fit. Each model has a process of its own, with
10 seconds of processor time and 2 GB of memory: of address space, because Linux limits no resident
memory, beyond what the imports have reserved, which is no model's doing. Where one still compiles,
its machine code may take as long as the sound model's. The exit code is 1 where one crashes, hangs,
takes more, or raises anything but an error that the compiler means, of one line for each reason.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import onnx
import onnx.backend.test
from pool import Ended, mapped, run_all

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from frontend.mutate import mutate_bytes, mutate_fields  # noqa: E402

DATA = Path(onnx.backend.test.__file__).parent / "data"
MEMORY = 2 << 30
CLOCK = 4
"""Seconds of the clock for each of the processor: other work on the machine is no fault."""

PATIENCE = 6
"""Times the limit after which a process is ended; what ends between the two is only late."""

SLOWER = 1.5
"""Times the sound model's processor time that a damaged one may take to become machine code."""

Bend = Callable[[onnx.ModelProto, random.Random], None]


@dataclass(frozen=True)
class Mutant:
    """A damaged model, made again from its number; ``full`` ones go on to machine code."""

    seed: int
    full: bool


@cache
def bases() -> list[bytes]:
    """Sound models to damage: real ones, and ONNX's own small ones."""
    found = sorted((TESTS / "models").glob("*.onnx"))
    for kind in ("simple", "pytorch-operator", "pytorch-converted"):
        found += sorted((DATA / kind).glob("*/model.onnx"))
    return [path.read_bytes() for path in found]


def make(mutant: Mutant) -> bytes:
    """The damaged model of a number."""
    rng, base = drawn(mutant)
    return (mutate_bytes, mutate_fields, bend)[mutant.seed % 3](base, rng)


def drawn(mutant: Mutant) -> tuple[random.Random, bytes]:
    """The sound model that a number's is made of, and what draws its damage."""
    rng = random.Random(mutant.seed)
    return rng, rng.choice(bases())


def bend(data: bytes, rng: random.Random) -> bytes:
    """A copy whose graph is wrong in one or two ways, though every field is readable."""
    proto = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(BENDS)(proto, rng)
    return proto.SerializeToString()


def _cycle(proto: onnx.ModelProto, rng: random.Random) -> None:
    """An input of a node becomes the result of a later one."""
    nodes = proto.graph.node
    with_inputs = [i for i, n in enumerate(nodes) if n.input]
    if with_inputs:
        first = rng.choice(with_inputs)
        last = rng.randrange(first, len(nodes))
        node = nodes[first]
        if nodes[last].output:
            node.input[rng.randrange(len(node.input))] = rng.choice(nodes[last].output)


def _rename(proto: onnx.ModelProto, rng: random.Random) -> None:
    """A node becomes one of another op, known or not."""
    names = [n.op_type for n in proto.graph.node] + ["Frobnicate", "Conv", "Loop", "Gather", "LSTM"]
    if proto.graph.node:
        node = rng.choice(proto.graph.node)
        node.op_type = rng.choice(names)
        node.domain = rng.choice(("", "", "", "com.microsoft", "ai.onnx.ml", "shop"))


def _reshape_input(proto: onnx.ModelProto, rng: random.Random) -> None:
    infos = [*proto.graph.input, *proto.graph.value_info]
    if infos:
        shape = rng.choice(infos).type.tensor_type.shape
        if shape.dim and rng.random() < 0.7:
            shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice((0, 1, 3, -1, 1 << 40))
        elif rng.random() < 0.5:
            shape.dim.add(dim_value=2)
        else:
            shape.Clear()


def _reshape_weight(proto: onnx.ModelProto, rng: random.Random) -> None:
    """A weight of other dims: as many elements, or not."""
    if proto.graph.initializer:
        dims = rng.choice(proto.graph.initializer).dims
        if len(dims) > 1 and rng.random() < 0.5:
            dims[:] = dims[::-1]
        elif dims:
            dims[rng.randrange(len(dims))] = rng.choice((0, 1, 2, -1, 1 << 40))


def _retype(proto: onnx.ModelProto, rng: random.Random) -> None:
    if proto.graph.input:
        rng.choice(proto.graph.input).type.tensor_type.elem_type = rng.randrange(1, 26)


def _lose(proto: onnx.ModelProto, rng: random.Random) -> None:
    """A node disappears, and its results with it."""
    if proto.graph.node:
        del proto.graph.node[rng.randrange(len(proto.graph.node))]


def _reopset(proto: onnx.ModelProto, rng: random.Random) -> None:
    if proto.opset_import:
        rng.choice(proto.opset_import).version = rng.choice((-1, 0, 1, 5, 7, 11, 17, 24, 99))


BENDS: tuple[Bend, ...] = (
    _cycle, _rename, _reshape_input, _reshape_weight, _retype, _lose, _reopset,
)  # fmt: skip


def attempt(mutant: Mutant) -> tuple[str, str]:
    """What the compiler makes of a mutant: ``compiled``, ``refused`` or ``raised``, and why."""
    return outcome(make(mutant), mutant.full)


def outcome(data: bytes, full: bool) -> tuple[str, str]:
    """What the compiler makes of a model; ``full`` goes on to machine code, all of it fresh."""
    import graphkiln

    os.environ["GRAPHKILN_CACHE"] = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if full:
                graphkiln.compile(data, jobs=1)
            else:
                graphkiln.optimize(data)
    except Exception as e:
        return "refused" if clear(e) else "raised", f"{type(e).__name__}: {e}"
    return "compiled", ""


def clear(error: Exception) -> bool:
    """Is this an error that the compiler means, in printable words, a line for each reason?"""
    from graphkiln import GraphkilnError

    lines = str(error).split("\n")
    reasons = len(getattr(error, "blockers", [error]))
    told = all(line.strip() and line.isprintable() for line in lines)
    return isinstance(error, GraphkilnError) and told and len(lines) == reasons


def judge(ended: Ended[Mutant], limit: float) -> tuple[str, str]:
    """How a mutant ended, and why; a good end that took too much is ``slow`` or ``large``."""
    if ended.status != "done":
        return ended.status, f"exit code {ended.answer}"
    status, message = ended.answer
    if ended.processor > limit and (status != "compiled" or not as_long_as_sound(ended)):
        return "slow", message
    if ended.resident > MEMORY:
        return "large", message
    return status, message


def as_long_as_sound(ended: Ended[Mutant]) -> bool:
    """Does the time go into machine code, of which the sound model has as much?"""
    return ended.item.full and ended.processor < SLOWER * sound_seconds(drawn(ended.item)[1])


@cache
def sound_seconds(base: bytes) -> float:
    """Processor time that a sound model takes to become machine code."""
    (ended,) = run_all([base], partial(outcome, full=True), jobs=1, limit=600)
    return ended.processor


def show(results: list[Ended[Mutant]], limit: float, verbose: bool) -> int:
    """Totals, and every mutant that ended badly; returns how many did."""
    statuses = []
    for r in sorted(results, key=lambda r: r.item.seed):
        status, message = judge(r, limit)
        statuses.append(status)
        bad = status not in ("compiled", "refused")
        if bad or verbose:
            reason = " ".join(message.split())[:240]
            print(
                f"{r.item.seed:6} {status:8} {r.processor:6.2f} s "
                f"{r.resident >> 20:5} MiB  {reason}"
            )
    counts = Counter(statuses)
    print(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    longest = max((r.processor for r in results), default=0)
    largest = max((r.resident for r in results), default=0)
    print(f"the longest took {longest:.1f} s of processor time, the largest {largest >> 20} MiB")
    return len(results) - counts["compiled"] - counts["refused"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--only", type=int, help="just this one")
    parser.add_argument("--save", type=Path, help="write the model of --only here, run nothing")
    parser.add_argument("--compile-every", type=int, default=50, help="one in so many goes on")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=int, default=10, help="seconds of processor for one")
    parser.add_argument("-v", "--verbose", action="store_true", help="print those that end well")
    options = parser.parse_args()

    first, count = (options.first, options.count) if options.only is None else (options.only, 1)
    mutants = [Mutant(s, s % options.compile_every == 0) for s in range(first, first + count)]
    if options.save:
        options.save.write_bytes(make(mutants[0]))
        return 0

    from graphkiln import onnx_backend

    onnx_backend.warmup()
    bases()
    ended = run_all(
        mutants, attempt, jobs=options.jobs, limit=CLOCK * PATIENCE * options.limit,
        memory=mapped() + MEMORY, processor=PATIENCE * options.limit,
    )  # fmt: skip
    verbose = options.verbose or options.only is not None
    return 1 if show(list(ended), options.limit, verbose) else 0


if __name__ == "__main__":
    sys.exit(main())
