"""Fills the database of choices that ships with the package, for this machine's kind of CPU.

    python benchmarks/tune_common.py [--seconds 600] [--margin 1.15]

Times the kernels of ResNet-18 to 50, VGG, MobileNetV2 and BERT at their usual sizes. What wins over
the cost model's own choice by the margin, each of several times, is kept beside what shipped
before: where its pages happen to lie, a kernel is up to a tenth slower in one process than in the
next. What was timed is in the user's database as well, so a run that was stopped goes on where it
was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from graphkiln.codegen.tune import Timing, Tuner
from graphkiln.ir.choices import Choice, KernelShape, ProductShape, shape_key
from graphkiln.ir.windows import ConvShape
from graphkiln.targets import parse_target
from graphkiln.targets.cpu.database import SHIPPED, Database, Entry, write_shipped

STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))
"""Channels and extents of the stages of a ResNet."""
VGG = ((3, 64, 224), (64, 64, 224), (64, 128, 112), (128, 128, 112), (128, 256, 56),
       (256, 256, 56), (256, 512, 28), (512, 512, 28), (512, 512, 14))  # fmt: skip
"""Channels, filters and extent of each layer of 3x3 windows."""
MOBILE = ((32, 16, 112), (16, 96, 112), (96, 24, 56), (24, 144, 56), (144, 24, 56), (144, 32, 28),
          (32, 192, 28), (192, 32, 28), (192, 64, 14), (64, 384, 14), (384, 64, 14), (384, 96, 14),
          (96, 576, 14), (576, 96, 14), (576, 160, 7), (160, 960, 7), (960, 160, 7), (960, 320, 7),
          (320, 1280, 7))  # fmt: skip
"""The same for MobileNetV2's pointwise layers."""
REPEATS = 3
"""How often what wins is timed again."""
SEQUENCES = (1, 64, 128, 256, 384, 512)
HIDDEN = (384, 768, 1024)


def conv(channels: int, filters: int, image: int, kernel: int, stride: int = 1) -> ConvShape:
    """A square convolution of floats."""
    steps = (stride, stride), (1, 1), (image, image)
    return ConvShape(channels, filters, 1, (kernel, kernel), *steps, False)


def common_shapes() -> list[KernelShape]:
    """The shapes to time, each once."""
    found: list[KernelShape] = [conv(3, 64, 112, 7, 2), conv(3, 32, 112, 3, 2)]
    for i, (width, image) in enumerate(STAGES):
        wide, before = 4 * width, 64 if i == 0 else 2 * width
        found += [conv(width, width, image, 3), conv(before, width, image, 1)]
        found += [conv(width, wide, image, 1), conv(wide, width, image, 1)]
        if i:
            half = width // 2
            found += [conv(half, width, image, 3, 2), conv(half, width, image, 1, 2)]
            found += [conv(width, width, image, 3, 2), conv(before, width, 2 * image, 1)]
            found += [conv(before, wide, image, 1, 2)]
    found += [conv(c, f, image, 3) for c, f, image in VGG]
    found += [conv(c, f, image, 1) for c, f, image in MOBILE]
    for rows in SEQUENCES:
        for width in HIDDEN:
            for columns, inner in ((width, width), (4 * width, width), (width, 4 * width)):
                found.append(ProductShape(rows, columns, inner))
    found += [ProductShape(1, 1000, inner) for inner in (512, 1280, 2048, 4096)]
    return list(dict.fromkeys(found))


def winners(tuner: Tuner, margin: float) -> dict[str, Entry]:
    """The entries for common shapes whose choice is faster than the model's own by ``margin``.

    They are timed again, and must be the fastest by that margin each time.
    """
    entries = tuner.database.entries(tuner.cpu.target)
    found = {s: entries[shape_key(s)] for s in common_shapes() if shape_key(s) in entries}
    for _ in range(REPEATS):
        found = {s: e for s, e in found.items() if wins(e.choice, e.timings, margin)}
        for shape, timings in zip(list(found), tuner.measure(list(found)), strict=True):
            found[shape] = Entry(found[shape].choice, tuple(timings), found[shape].tvm)
    return {shape_key(s): e for s, e in found.items() if wins(e.choice, e.timings, margin)}


def wins(choice: Choice, timings: Sequence[Timing], margin: float) -> bool:
    """Is ``choice`` faster than the first by ``margin``?"""
    seconds = {t.choice: t.seconds for t in timings if t.seconds is not None}
    return seconds[timings[0].choice] > margin * seconds[choice]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--margin", type=float, default=1.15)
    given = parser.parse_args()
    target = parse_target("cpu")

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} kernels", end="", flush=True)

    with Database(SHIPPED, fixed=True) as shipped:
        entries = {name: shipped.entries(name) for name in shipped.targets()}
    with Tuner(target, create=True) as tuner:
        report = tuner.tune(dict.fromkeys(common_shapes(), 1), given.seconds, progress)
        found = winners(tuner, given.margin)
    entries[tuner.cpu.target] = {**entries.get(tuner.cpu.target, {}), **found}
    write_shipped(SHIPPED, entries)
    print(f"\n{report}\n{len(found)} of them are faster than the cost model's choice:")
    for key, entry in found.items():
        print(f"  {key}: {entry.choice}")


if __name__ == "__main__":
    main()
