"""The cores that a target is for: more tasks for more of them, the same numbers for any."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import graphkiln
from graphkiln.machine import usable_cores
from graphkiln.targets import parse_target
from graphkiln.targets.base import TargetError
from graphkiln.targets.cpu.row_tiles import RowTiles
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops

MODELS = Path(__file__).parent.parent.parent / "models"


def test_the_default_are_the_cores_of_this_process() -> None:
    assert parse_target("cpu").spec.endswith(f",cores={usable_cores()}")
    assert parse_target("cpu:x86-64-v3") == parse_target(f"cpu:x86-64-v3,cores={usable_cores()}")


def test_the_message_says_how_many_there_may_be() -> None:
    with pytest.raises(TargetError, match="cores=1 to 1024, check=bounds"):
        parse_target("cpu:,cores=4096")


def parallel_loops(threads: int) -> list[int]:
    """The tasks of each parallel loop of ``y = x`` over [16, 64, 1000]."""
    b = Builder(CpuLoops(threads))
    x, y = (b.argument(name, (16, 64, 1000), "float32") for name in "xy")
    b.nest(x.shape, lambda at: y.store(at, x[at]))
    return [int(n) for n in re.findall(r"T\.parallel\(\D*64\((\d+)", b.finish("copy").script())]


def test_more_threads_get_more_tasks() -> None:
    assert parallel_loops(2) == [16]
    assert parallel_loops(64) == [16 * 64]


@pytest.mark.parametrize(("threads", "groups"), [(2, 32), (4, 32), (16, 128), (64, 512)])
def test_more_threads_get_more_groups_of_rows(threads: int, groups: int) -> None:
    assert RowTiles(Builder(CpuLoops(threads)), 80_000, 8, 1).groups == groups


@pytest.mark.parametrize("name", ["mnist_cntk", "sdp_attention_block"])
def test_the_cores_do_not_change_the_numbers(name: str) -> None:
    path, rng = MODELS / f"{name}.onnx", np.random.default_rng(0)
    found = []
    for cores in (1, 2, 48):
        session = graphkiln.compile(path, f"cpu:,cores={cores}").session(threads=3)
        if not found:
            feeds = {
                i.name: rng.normal(size=[d if isinstance(d, int) else 5 for d in i.shape]).astype(
                    np.float32
                )
                for i in session.get_inputs()
            }
        found.append(session.run(None, feeds))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
