"""Decoders of language models with random weights, one token at a time, with weights of few bits.

    python benchmarks/decoders.py [gpt2] [llama] [--target cpu] [--threads 1]

``gpt2`` has the sizes of GPT-2 small, ``llama`` is a smaller Llama: RMS norms, rotary positions,
grouped queries, gated MLPs. Each reads the id of a token and the keys and values of the 64 tokens
before it. Prints the milliseconds for a token and the size of the weights in floats and by the
schemes of ``graphkiln.quantize``, and the same for onnxruntime and what is exported, all in turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx_net import Net

import graphkiln

PAST = 64
SCHEMES = ("int8-weights", "int4-weights")
_RANDOM = np.random.default_rng(0)


def _matrix(net: Net, rows: int, columns: int) -> str:
    drawn = _RANDOM.standard_normal((rows, columns), np.float32)
    return net.constant(drawn / np.float32(rows**0.5))


def _attention(net: Net, q: str, k: str, v: str, layer: int, sizes: tuple[int, int, int]) -> str:
    """The mixed values ``[1, 1, heads * size]`` of a token and those before it."""
    heads, kept, size = sizes
    split = net.ints(0, 0, kept, size)
    keys, values = (
        net.op(f"Concat<axis: int = 2>({past}{layer}, "
               + net.op("Transpose<perm: ints = [0, 2, 1, 3]>("
                        + net.op(f"Reshape({x}, {split})") + ")") + ")", f"{name}{layer}")
        for x, past, name in ((k, "k_in", "k_out"), (v, "v_in", "v_out"))
    )  # fmt: skip
    # Queries that share keys are rows of one product.
    queries = net.op(f"Reshape({q}, {net.ints(1, kept, heads // kept, size)})")
    turned = net.op(f"Transpose<perm: ints = [0, 1, 3, 2]>({keys})")
    root = net.constant(np.float32([size**0.5]))
    scores = net.op(f"Div({net.op(f'MatMul({queries}, {turned})')}, {root})")
    shares = net.op(f"Softmax<axis: int = -1>({scores})")
    mixed = net.op(f"MatMul({shares}, {values})")
    return net.op(f"Reshape({mixed}, {net.ints(1, 1, heads * size)})")


def _model(net: Net, layers: int, kept: int, size: int, vocabulary: int) -> onnx.ModelProto:
    past = f"float[1, {kept}, {PAST}, {size}]"
    new = f"float[1, {kept}, {PAST + 1}, {size}]"
    inputs = [f"{past} {name}_in{i}" for i in range(layers) for name in "kv"]
    outputs = [f"{new} {name}_out{i}" for i in range(layers) for name in "kv"]
    return net.model(", ".join(["int64[1, 1] id", *inputs]),
                     ", ".join([f"float[1, 1, {vocabulary}] scores", *outputs]))  # fmt: skip


def gpt2(
    layers: int = 12, width: int = 768, heads: int = 12, words: int = 50257
) -> onnx.ModelProto:
    """GPT-2 small, by default."""
    net, size = Net(), width // heads

    def norm(x: str) -> str:
        scale, bias = (net.constant(np.full(width, n, np.float32)) for n in (1, 0))
        return net.op(f"LayerNormalization<axis: int = -1>({x}, {scale}, {bias})")

    def dense(x: str, rows: int, columns: int) -> str:
        bias = net.constant(_RANDOM.standard_normal(columns).astype(np.float32))
        return net.op(f"Add({net.op(f'MatMul({x}, {_matrix(net, rows, columns)})')}, {bias})")

    places = net.constant(_RANDOM.standard_normal((1024, width)).astype(np.float32))
    place = net.op(f"Gather({places}, {net.constant(np.array([[PAST]]))})")
    x = net.op(f"Add({net.op(f'Gather({_matrix(net, words, width)}, id)')}, {place})")
    for i in range(layers):
        read = norm(x)
        q, k, v = (dense(read, width, width) for _ in range(3))
        mixed = _attention(net, q, k, v, i, (heads, heads, size))
        x = net.op(f"Add({dense(mixed, width, width)}, {x})")
        inner = net.op(f'Gelu<approximate: string = "tanh">({dense(norm(x), width, 4 * width)})')
        x = net.op(f"Add({dense(inner, 4 * width, width)}, {x})")
    net.op(f"MatMul({norm(x)}, {_matrix(net, width, words)})", "scores")
    return _model(net, layers, heads, size, words)


def llama(
    layers: int = 8, width: int = 1024, heads: int = 16, kept: int = 4, inner: int = 2816,
    words: int = 32000,
) -> onnx.ModelProto:  # fmt: skip
    """A Llama with a quarter of the keys and values that it has queries."""
    net, size = Net(), width // heads

    def norm(x: str) -> str:
        square = net.op(f"ReduceMean({net.op(f'Mul({x}, {x})')}, {net.ints(-1)})")
        lifted = net.op(f"Add({square}, {net.constant(np.float32(1e-5))})")
        even = net.op(f"Div({x}, {net.op(f'Sqrt({lifted})')})")
        return net.op(f"Mul({even}, {net.constant(np.ones(width, np.float32))})")

    def dense(x: str, rows: int, columns: int) -> str:
        return net.op(f"MatMul({x}, {_matrix(net, rows, columns)})")

    angles = PAST / 10000 ** (np.arange(size // 2) / (size // 2))
    cosine, sine = (
        net.constant(np.tile(f(angles), 2).astype(np.float32)) for f in (np.cos, np.sin)
    )
    half = net.ints(size // 2, size // 2)

    def turned(x: str, count: int) -> str:
        rows = net.op(f"Reshape({x}, {net.ints(1, 1, count, size)})")
        name = f"h{len(net.lines)}"
        net.lines.append(f"{name}a, {name}b = Split<axis: int = 3>({rows}, {half})")
        crossed = net.op(f"Concat<axis: int = 3>({net.op(f'Neg({name}b)')}, {name}a)")
        straight = net.op(f"Mul({rows}, {cosine})")
        both = net.op(f"Add({straight}, {net.op(f'Mul({crossed}, {sine})')})")
        return net.op(f"Reshape({both}, {net.ints(1, 1, count * size)})")

    x = net.op(f"Gather({_matrix(net, words, width)}, id)")
    for i in range(layers):
        read = norm(x)
        q = turned(dense(read, width, width), heads)
        k = turned(dense(read, width, kept * size), kept)
        v = dense(read, width, kept * size)
        mixed = _attention(net, q, k, v, i, (heads, kept, size))
        x = net.op(f"Add({dense(mixed, width, width)}, {x})")
        read = norm(x)
        gate = dense(read, width, inner)
        gate = net.op(f"Mul({gate}, {net.op(f'Sigmoid({gate})')})")
        gated = net.op(f"Mul({gate}, {dense(read, width, inner)})")
        x = net.op(f"Add({dense(gated, inner, width)}, {x})")
    net.op(f"MatMul({norm(x)}, {_matrix(net, width, words)})", "scores")
    return _model(net, layers, kept, size, words)


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """A token, and keys and values as those before it might have."""
    found: dict[str, np.ndarray] = {"id": np.array([[17]])}
    for value in model.graph.input[1:]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        found[value.name] = _RANDOM.standard_normal(shape).astype(np.float32)
    return found


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(["gpt2", "llama"]))
@click.option("--target", default="cpu")
@click.option("--threads", default=1)
@click.option("--rounds", default=20)
def main(names: tuple[str, ...], target: str, threads: int, rounds: int) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for name in names or ("gpt2", "llama"):
        model = {"gpt2": gpt2, "llama": llama}[name]()
        given = feeds(model)
        runs: dict[str, tuple[Callable[[], Any], float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "floats.onnx")
            onnx.save(model, path)
            artifacts = {"floats": (graphkiln.compile(path, target=target), path)}
            for scheme in SCHEMES:
                found = graphkiln.quantize(path, scheme=scheme, target=target, rounding="nearest")
                written = found.save(Path(folder, f"{scheme}.onnx"))
                artifacts[scheme] = (found.compile(), written)
            for what, (artifact, file) in artifacts.items():
                mine = artifact.session(threads=threads)
                theirs = onnxruntime.InferenceSession(file, options)
                size = artifact.report["weight_bytes"] / 1e6
                runs[what] = (partial(mine.run, None, given), size)
                written_size = file.stat().st_size / 1e6
                runs[f"{what}, onnxruntime"] = (partial(theirs.run, None, given), written_size)
            times: dict[str, list[float]] = {what: [] for what in runs}
            for _ in range(rounds):
                for what, (run, _) in runs.items():
                    run()
                    started = time.perf_counter()
                    run()
                    times[what].append(1e3 * (time.perf_counter() - started))
        for what, (_, size) in runs.items():
            ms, base = float(np.median(times[what])), float(np.median(times["floats"]))
            click.echo(f"{name:6} {what:28} {ms:8.2f} ms {base / ms:6.2f} {size:8.1f} MB "
                       f"{size / runs['floats'][1]:6.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
