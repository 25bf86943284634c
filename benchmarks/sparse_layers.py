"""Times single layers with block-sparse weights beside the same layers with dense ones.

Each line is a layer on one thread: the share of blocks that are zero, the times of both in turns,
and how the sparse one was computed. A block is one vector of output channels by one input (four
inputs in 8-bit layers).

    python benchmarks/sparse_layers.py [--target TARGET] [--zeros 0.75] [--rounds 15]
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
import onnx
from onnx import helper, numpy_helper

import graphkiln

LAYERS = {
    # name: (input shape, weight shape, strides)
    "bert up, 128 rows": ((128, 768), (768, 3072), 1),
    "bert down, 128 rows": ((128, 3072), (3072, 768), 1),
    "decoder up, 1 row": ((1, 768), (768, 3072), 1),
    "decoder down, 1 row": ((1, 3072), (3072, 768), 1),
    "mlp, 16 rows": ((16, 1024), (1024, 1024), 1),
    "conv 1x1, 56x56": ((1, 64, 56, 56), (256, 64, 1, 1), 1),
    "conv 1x1, 14x14": ((1, 1024, 14, 14), (256, 1024, 1, 1), 1),
    "conv 1x1, 7x7": ((1, 512, 7, 7), (2048, 512, 1, 1), 1),
    "conv 3x3, 56x56": ((1, 64, 56, 56), (64, 64, 3, 3), 1),
    "conv 3x3, 14x14": ((1, 256, 14, 14), (256, 256, 3, 3), 1),
    "conv 3x3 by 2, 28x28": ((1, 128, 28, 28), (256, 128, 3, 3), 2),
    "conv 5x5, 14x14": ((1, 64, 14, 14), (64, 64, 5, 5), 1),
}


def block_sparse(shape: tuple[int, ...], zeros: float, lanes: int) -> np.ndarray:
    """Weights with a share of ``zeros`` blocks of ``lanes`` outputs by one input that are zero."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=shape, scale=1 / np.prod(shape[1:]) ** 0.5).astype(np.float32)
    outputs = 1 if len(shape) == 2 else 0
    grid = [*shape]
    grid[outputs] //= lanes
    kept = np.repeat(rng.random(grid) >= zeros, lanes, axis=outputs)
    return w * kept


def model(shape: tuple[int, ...], weight: np.ndarray, stride: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    w = numpy_helper.from_array(weight, "w")
    if weight.ndim == 2:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    else:
        k = weight.shape[2]
        node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride] * 2, pads=[k // 2] * 4)
    graph = helper.make_graph([node], "layer", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def time_in_turns(sessions: list[Any], x: np.ndarray, rounds: int) -> list[float]:
    """Median seconds of a run of each session."""
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, found in zip(sessions, times, strict=True):
            for _ in range(2):
                start = time.perf_counter()
                session.run(None, {"x": x})
                found.append(time.perf_counter() - start)
    return [float(np.median(t)) for t in times]


@click.command()
@click.option("--target", default="cpu", show_default=True)
@click.option("--zeros", default=0.75, show_default=True, help="Share of blocks that are zero.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--only", default="", help="Part of the layers' names.")
def main(target: str, zeros: float, rounds: int, only: str) -> None:
    """Layers with block-sparse weights beside dense ones, one thread."""
    lanes = 8 if "v3" in target else 16
    gains = []
    for name, (shape, weight, stride) in LAYERS.items():
        if only not in name:
            continue
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        made = [
            graphkiln.compile(
                model(shape, block_sparse(weight, share, lanes), stride), target=target
            )
            for share in (0.0, zeros)
        ]
        dense, sparse = time_in_turns([m.session(threads=1) for m in made], x, rounds)
        gains.append(dense / sparse)
        costs = made[1].report["kernel_costs"].values()
        how = next(c["algorithm"] for c in costs if c["template"])
        print(f"{name:24} dense {1e6 * dense:8.1f} us, sparse {1e6 * sparse:8.1f} us, "
              f"{dense / sparse:.2f} times as fast, {how}", flush=True)  # fmt: skip
    print(f"geometric mean {np.exp(np.mean(np.log(gains))):.2f}, least {min(gains):.2f}")


if __name__ == "__main__":
    main()
