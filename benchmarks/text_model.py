"""A small language model, trained here, and how often weights of few bits keep its next token.

    python benchmarks/text_model.py [--steps 600] [--keep FILE.onnx]

Trains a decoder on bytes of the sources of Python's standard library for some minutes (needs
PyTorch), or takes the one that ``--keep`` has kept. For each scheme of weights it prints in how
many places of files that were held back the likeliest next byte is that of the float model, and the
loss in nats for a byte. ``gptq`` reads ``--count`` windows of the files that were trained on.
"""

from __future__ import annotations

import random
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx_net import Net

import graphkiln

WINDOW, WIDTH, LAYERS, HEADS, BYTES = 128, 192, 4, 6, 256
BATCH, RATE = 16, 2e-3
WAYS: tuple[tuple[str, str | None], ...] = (
    ("int8-weights", "nearest"), ("int8-weights", "mse"), ("int8-weights", "gptq"),
    ("int4-weights", "nearest"), ("int4-weights", "mse"), ("int4-weights", "gptq"),
    ("int8-dynamic", None),
)  # fmt: skip


def texts() -> tuple[bytes, bytes]:
    """What to train on, and a tenth of the files, which is held back."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    random.Random(0).shuffle(files)
    kept = len(files) // 10
    train, test = (b"".join(f.read_bytes() for f in some) for some in (files[kept:], files[:kept]))
    return train, test


def windows(text: bytes, count: int) -> Iterator[np.ndarray]:
    """Windows of a text with the byte after each, int64 ``[1, WINDOW + 1]``, evenly over it."""
    data = np.frombuffer(text, np.uint8).astype(np.int64)
    for start in np.linspace(0, len(data) - WINDOW - 1, count).astype(int):
        yield data[None, start : start + WINDOW + 1]


def trained(text: bytes, steps: int) -> dict[str, np.ndarray]:
    """The weights of the decoder after so many steps of Adam, by name."""
    import torch
    from torch.nn import functional as f

    torch.manual_seed(0)
    shapes = {"embed": (BYTES, WIDTH), "place": (WINDOW, WIDTH), "head": (WIDTH, BYTES)}
    for i in range(LAYERS):
        shapes |= {f"qkv{i}": (WIDTH, 3 * WIDTH), f"mix{i}": (WIDTH, WIDTH)}
        shapes |= {f"up{i}": (WIDTH, 4 * WIDTH), f"down{i}": (4 * WIDTH, WIDTH)}
    weights = {n: torch.randn(s) / s[0] ** 0.5 for n, s in shapes.items()}
    for name in ("embed", "place"):
        weights[name] = torch.randn(shapes[name]) * 0.1
    for w in weights.values():
        w.requires_grad_()

    def norm(x: Any) -> Any:
        return f.layer_norm(x, (WIDTH,))

    def scores(ids: Any) -> Any:
        x = weights["embed"][ids] + weights["place"]
        for i in range(LAYERS):
            parts = (norm(x) @ weights[f"qkv{i}"]).split(WIDTH, dim=-1)
            q, k, v = (p.view(*ids.shape, HEADS, -1).transpose(1, 2) for p in parts)
            mixed = f.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(x.shape) @ weights[f"mix{i}"]
            x = x + f.gelu(norm(x) @ weights[f"up{i}"], approximate="tanh") @ weights[f"down{i}"]
        return norm(x) @ weights["head"]

    data = torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))
    adam = torch.optim.AdamW(weights.values(), lr=RATE, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps)
    started = time.perf_counter()
    for step in range(steps):
        starts = torch.randint(len(data) - WINDOW - 1, (BATCH,))
        chosen = torch.stack([data[s : s + WINDOW + 1] for s in starts])
        loss = f.cross_entropy(scores(chosen[:, :-1]).flatten(0, 1), chosen[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
        plan.step()
        if step % 50 == 49:
            seconds = time.perf_counter() - started
            click.echo(f"step {step + 1}: {loss.item():.3f} nats, {seconds:.0f} s", err=True)
    return {name: w.detach().numpy() for name, w in weights.items()}


def decoder(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The decoder as ONNX: ``ids [1, WINDOW]`` to ``scores [1, WINDOW, BYTES]``."""
    net, size = Net(), WIDTH // HEADS

    def product(x: str, name: str, result: str = "") -> str:
        return net.op(f"MatMul({x}, {net.constant(weights[name])})", result)

    def norm(x: str) -> str:
        scale, bias = (net.constant(np.full(WIDTH, n, np.float32)) for n in (1, 0))
        return net.op(f"LayerNormalization<axis: int = -1>({x}, {scale}, {bias})")

    def heads(x: str, perm: str) -> str:
        split = net.op(f"Reshape({x}, {net.ints(1, WINDOW, HEADS, size)})")
        return net.op(f"Transpose<perm: ints = [{perm}]>({split})")

    later = np.triu(np.full((WINDOW, WINDOW), -1e9, np.float32), 1)
    mask, root = net.constant(later), net.constant(np.float32(size**-0.5))
    embedded = net.op(f"Gather({net.constant(weights['embed'])}, ids)")
    x = net.op(f"Add({embedded}, {net.constant(weights['place'])})")
    for i in range(LAYERS):
        net.lines.append(
            f"q{i}, k{i}, v{i} = Split<axis: int = -1>({product(norm(x), f'qkv{i}')}, "
            f"{net.ints(WIDTH, WIDTH, WIDTH)})"
        )
        queries, keys = heads(f"q{i}", "0, 2, 1, 3"), heads(f"k{i}", "0, 2, 3, 1")
        found = net.op(f"Mul({net.op(f'MatMul({queries}, {keys})')}, {root})")
        shares = net.op(f"Softmax<axis: int = -1>({net.op(f'Add({found}, {mask})')})")
        mixed = net.op(f"MatMul({shares}, {heads(f'v{i}', '0, 2, 1, 3')})")
        turned = net.op(f"Transpose<perm: ints = [0, 2, 1, 3]>({mixed})")
        flat = net.op(f"Reshape({turned}, {net.ints(1, WINDOW, WIDTH)})")
        x = net.op(f"Add({x}, {product(flat, f'mix{i}')})")
        inner = net.op(f'Gelu<approximate: string = "tanh">({product(norm(x), f"up{i}")})')
        x = net.op(f"Add({x}, {product(inner, f'down{i}')})")
    product(norm(x), "head", "scores")
    return net.model(f"int64[1, {WINDOW}] ids", f"float[1, {WINDOW}, {BYTES}] scores")


def losses(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """What each next byte costs in nats."""
    shifted = scores.astype(np.float64) - scores.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, wanted[..., None], -1)[..., 0]
    return np.log(np.exp(shifted).sum(axis=-1)) - chosen


def measured(
    run: Callable[[np.ndarray], np.ndarray], tests: list[np.ndarray], right: list[np.ndarray]
) -> tuple[float, float]:
    """The share of places with the byte of ``right``, in percent, and the mean loss."""
    same, cost = [], []
    for window, expected in zip(tests, right, strict=True):
        found = run(window[:, :-1])
        same.append(np.mean(found.argmax(-1) == expected))
        cost.append(losses(found, window[:, 1:]).mean())
    return 100 * float(np.mean(same)), float(np.mean(cost))


@click.command(help=__doc__)
@click.option("--steps", default=600)
@click.option("--keep", type=click.Path(path_type=Path))
@click.option("--count", default=64, help="Windows for gptq.")
@click.option("--places", default=100, help="Windows to test on.")
def main(steps: int, keep: Path | None, count: int, places: int) -> None:
    train, held = texts()
    if keep is not None and keep.exists():
        model = onnx.load(keep)
    else:
        model = decoder(trained(train, steps))
        if keep is not None:
            onnx.save(model, keep)
    data = [{"ids": window[:, :-1]} for window in windows(train, count)]
    tests = list(windows(held, places))

    def runner(session: Any) -> Callable[[np.ndarray], np.ndarray]:
        return lambda ids: session.run(None, {"ids": ids})[0]

    floats = runner(graphkiln.compile(model).session())
    right = [floats(window[:, :-1]).argmax(-1) for window in tests]
    click.echo(f"{'scheme':14s} {'rounding':9s} {'same, %':>8s} {'loss':>7s} {'KiB':>7s}")
    click.echo(f"{'floats':14s} {'':9s} {100.0:8.2f} {measured(floats, tests, right)[1]:7.4f} "
               f"{model.ByteSize() / 1024:7.0f}")  # fmt: skip
    for scheme, rounding in WAYS:
        options = {} if rounding is None else {"rounding": rounding}
        found = graphkiln.quantize(
            model, data if rounding == "gptq" else (), scheme=scheme, **options
        )
        share, loss = measured(runner(found.session()), tests, right)
        size = found.to_onnx().ByteSize() / 1024
        click.echo(f"{scheme:14s} {rounding or '':9s} {share:8.2f} {loss:7.4f} {size:7.0f}")


if __name__ == "__main__":
    main()
