"""GroupQueryAttention, expanded at import, against onnxruntime's CPU kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from frontend.build import model, node, refusal

import graphkiln
from graphkiln.frontend import load_model
from graphkiln.ir.interpreter import evaluate

HEADS, GROUPS, WIDTH, LONGEST = 4, 2, 16, 32
INT32, FLOAT = onnx.TensorProto.INT32, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHKILN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def gqa(feeds: dict[str, np.ndarray], inputs: str, **attrs: Any) -> onnx.ModelProto:
    """A model of one node whose feeds have open dims, but for numbers of heads and widths."""
    fixed = {"past_k": (1, 3), "past_v": (1, 3), "q": (2,), "k": (2,), "v": (2,), "sink": (0,),
             "packed": (2,), "cos": (0, 1), "sin": (0, 1)}  # fmt: skip
    infos = []
    for name, array in feeds.items():
        dims = [d if i in fixed.get(name, ()) else f"{name}{i}" for i, d in enumerate(array.shape)]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        infos.append(onnx.helper.make_tensor_value_info(name, kind, dims))
    attrs = {"num_heads": HEADS, "kv_num_heads": GROUPS, **attrs}
    made = node("GroupQueryAttention", inputs, "y pk pv", domain="com.microsoft", **attrs)
    return model([made], infos, ["y", "pk", "pv"], com_microsoft=1)


def operands(
    batch: int, new: int, past: int, lengths: list[int], seed: int = 0
) -> dict[str, np.ndarray]:
    """Feeds of a step; ``lengths`` are the tokens of each row after it."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    angles = rng.uniform(0, 3, (LONGEST, WIDTH // 2)).astype(np.float32)
    return {
        "q": normal(batch, new, HEADS * WIDTH), "k": normal(batch, new, GROUPS * WIDTH),
        "v": normal(batch, new, GROUPS * WIDTH),
        "past_k": normal(batch, GROUPS, past, WIDTH), "past_v": normal(batch, GROUPS, past, WIDTH),
        "lengths": np.array(lengths, np.int32) - 1, "total": np.array(max(lengths), np.int32),
        "cos": np.cos(angles), "sin": np.sin(angles),
        "sink": normal(HEADS), "bias": normal(1, HEADS, new, max(lengths)),
        "packed": normal(batch, new, (HEADS + 2 * GROUPS) * WIDTH),
    }  # fmt: skip


STEPS = {
    "prompt": (2, 5, 0, [5, 5]),
    "padded prompt": (3, 5, 0, [5, 2, 4]),
    "prompt of one": (1, 1, 0, [1]),
    "prompt in a buffer": (2, 4, 12, [4, 3]),
    "decode": (2, 1, 6, [7, 7]),
    "decode of rows of their own": (3, 1, 6, [7, 4, 1]),
    "decode in a buffer": (2, 1, 12, [7, 5]),
    "longer than the cache": (1, 1, 3, [4]),
    "several tokens more": (1, 3, 6, [9]),
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("q k v past_k past_v lengths total", {}),
    "scaled": ("q k v past_k past_v lengths total", {"scale": 0.7, "softcap": 1.5}),
    "rotary": ("q k v past_k past_v lengths total cos sin", {"do_rotary": 1}),
    "interleaved": ("q k v past_k past_v lengths total cos sin",
                    {"do_rotary": 1, "rotary_interleaved": 1}),
    "window": ("q k v past_k past_v lengths total", {"local_window_size": 3}),
    "smooth": ("q k v past_k past_v lengths total", {"smooth_softmax": 1}),
    "sink": ("q k v past_k past_v lengths total - - - - sink", {}),
    "bias": ("q k v past_k past_v lengths total - - - bias", {}),
    "packed": ("packed - - past_k past_v lengths total cos sin", {"do_rotary": 1}),
}  # fmt: skip


def compare(ours: list[np.ndarray], theirs: list[np.ndarray], step: tuple[Any, ...]) -> None:
    """Where something is specified: not for padding, nor for what the cache holds behind."""
    _, new, _, lengths = step
    y, *caches = zip(ours, theirs, strict=True)
    prompt = new == max(lengths)
    for b, length in enumerate(lengths):
        rows = length if prompt else new
        np.testing.assert_allclose(y[0][b, :rows], y[1][b, :rows], rtol=2e-5, atol=2e-6)
        for mine, other in caches:
            assert mine.shape == other.shape
            np.testing.assert_allclose(mine[b, :, :length], other[b, :, :length], rtol=1e-5,
                                       atol=1e-6)  # fmt: skip


def fitting(variant: str, step: tuple[Any, ...]) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    inputs, attrs = VARIANTS[variant]
    names = [n for n in inputs.split() if n != "-"]
    feeds = {n: a for n, a in operands(*step).items() if n in names}
    return gqa(feeds, inputs, **attrs), feeds


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", STEPS)
def test_steps(name: str, variant: str) -> None:
    step = STEPS[name]
    proto, feeds = fitting(variant, step)
    theirs = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    compare(evaluate(load_model(proto).graph, feeds), theirs, step)


@pytest.mark.parametrize("variant", ["rotary", "sink"])
def test_one_artifact_for_every_step(variant: str) -> None:
    """Compiled once with open sizes; a prompt, then tokens one by one on its own cache."""
    proto, _ = fitting(variant, STEPS["prompt"])
    mine = graphkiln.compile(proto, jobs=1).session()
    theirs = onnxruntime.InferenceSession(proto.SerializeToString())
    for step in STEPS.values():
        feeds = fitting(variant, step)[1]
        compare(mine.run(None, feeds), theirs.run(None, feeds), step)
    cache = {}
    for length in range(3, 7):
        step = (1, 3 if length == 3 else 1, 0 if length == 3 else length - 1, [length])
        feeds = {**fitting(variant, step)[1], **cache}
        ours = mine.run(None, feeds)
        compare(ours, theirs.run(None, feeds), step)
        cache = {"past_k": ours[1], "past_v": ours[2]}


def test_a_cache_that_is_too_short() -> None:
    proto, feeds = fitting("plain", (1, 1, 3, [6]))
    with pytest.raises(graphkiln.InputError, match="as many past tokens as its cache may"):
        graphkiln.compile(proto, jobs=1).session().run(None, feeds)


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({"kv_num_heads": 3}, "3 heads of keys do not divide 4"),
        ({"k_quant_type": "PER_TENSOR"}, "k_quant_type=PER_TENSOR is not supported"),
        ({"causal": 0}, "causal=0 is not supported"),
    ],
)
def test_what_is_not_supported(attrs: dict[str, Any], reason: str) -> None:
    feeds = {n: a for n, a in operands(1, 1, 3, [4]).items() if n in VARIANTS["plain"][0].split()}
    assert reason in refusal(gqa(feeds, VARIANTS["plain"][0], **attrs)).reason
