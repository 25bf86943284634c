"""Generated code gives the same bits however many threads there are, in whatever order they run.

The pool may run a loop on its caller alone where the machine is busy, so loops are also cut here by
a launcher of the tests', which leaves nothing to chance.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import graphkiln
from graphkiln.contract import POOL
from graphkiln.ir.choices import Choice
from graphkiln.runtime import library, load
from graphkiln.runtime import threads as pool
from graphkiln.targets.cpu.layouts import CpuLayouts

MODELS = Path(__file__).parents[1] / "models"
THREADS = (2, 3, 4, 7)

CASES = {
    "winograd": (
        "float[1,32,40,40] x", "float[1,32,40,40] y",
        "y = Conv<pads=[1,1,1,1]>(x, w)", {"w": (32, 32, 3, 3)},
    ),
    "convolutions": (
        "float[N,24,30,31] x", "float[N,12,15,16] y",
        """a = Conv<pads=[1,1,1,1], group=24>(x, depth)
           r = Relu(a)
           b = Conv<group=2>(r, pairs)
           y = Conv<pads=[1,1,1,1], strides=[2,2]>(b, wide)""",
        {"depth": (24, 1, 3, 3), "pairs": (36, 12, 1, 1), "wide": (12, 36, 3, 3)},
    ),
    "transposed": (
        "float[2,32,40,41] x", "float[2,24,80,82] y",
        "y = ConvTranspose<strides=[2,2]>(x, w)", {"w": (32, 24, 2, 2)},
    ),
    "products": (
        "float[M,96] x", "float[M,50] y",
        "a = MatMul(x, w)\nb = Sigmoid(a)\ny = Gemm(b, v, c)",
        {"w": (96, 130), "v": (130, 50), "c": (50,)},
    ),
    "attention": (
        "float[2,4,60,32] q, float[2,4,32,60] k, float[2,4,60,32] v", "float[2,4,60,32] y",
        "s = MatMul(q, k)\nh = Constant<value_float=0.18>()\nt = Mul(s, h)\n"
        "p = Softmax<axis=-1>(t)\ny = MatMul(p, v)", {},
    ),
    "recurrent": (
        "float[15,9,24] x", "float[15,2,9,40] y, float[2,9,40] h",
        'y, h = GRU<direction="bidirectional", hidden_size=40>(x, w, r)',
        {"w": (2, 120, 24), "r": (2, 120, 40)},
    ),
    "long_memory": (
        "float[11,13,24] x", "float[11,1,13,33] y",
        "y = LSTM<hidden_size=33>(x, w, r, b)",
        {"w": (1, 132, 24), "r": (1, 132, 33), "b": (1, 264)},
    ),
    "reductions": (
        "float[33,50,41] x", "float[33,50,1] a, float[50,41] b, float c, float[33,50,41] d, "
        "int64[33,1,41] e, float[33,50,41] f, float[33,50,3] g",
        """last = Constant<value_ints=[2]>()
           first = Constant<value_ints=[0]>()
           a = ReduceSum(x, last)
           b = ReduceMean<keepdims=0>(x, first)
           c = ReduceMax<keepdims=0>(x)
           d = Softmax<axis=1>(x)
           e = ArgMax<axis=1>(x)
           one = Constant<value_int=1>()
           f = CumSum(x, one)
           k = Constant<value_ints=[3]>()
           g, places = TopK(x, k)""", {},
    ),
    "normalizations": (
        "float[3,24,20,20] x", "float[3,24,20,20] a, float[3,24,20,20] b",
        "a = LayerNormalization<axis=-1>(x, s)\nb = InstanceNormalization(x, c, c)",
        {"s": (20,), "c": (24,)},
    ),
    "movements": (
        "float[4,16,30,30] x, int64[500] i",
        "float[4,30,30,16] a, float[500,16,30,30] b, float[4,16,60,60] c, float[4,16,15,15] d, "
        "float[8,16,30,30] e, float[4,16,30,30] f",
        """a = Transpose<perm=[0,2,3,1]>(x)
           b = Gather<axis=0>(x, i)
           k = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>()
           c = Resize<mode="linear">(x, , k)
           d = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
           e = Concat<axis=0>(x, x)
           at = Unsqueeze(i, axis)
           updates = Gather<axis=0>(x, i)
           f = ScatterND<reduction="max">(x, at, updates)""",
        {"axis": np.array([1])},
    ),
    "bytes": (
        "float[1,16,24,24] x, uint8[70,64] m", "float[1,16,24,24] y, int32[70,90] z",
        """s = Constant<value_float=0.03>()
           t = Constant<value_float=0.002>()
           q = QuantizeLinear(x, s, zero)
           d = DequantizeLinear(q, s, zero)
           f = DequantizeLinear(w, t, still)
           c = Conv<pads=[1,1,1,1]>(d, f)
           o = QuantizeLinear(c, s, zero)
           y = DequantizeLinear(o, s, zero)
           z = MatMulInteger(m, v)""",
        {"w": np.arange(2304).reshape(16, 16, 3, 3).astype(np.int8), "still": np.array(0, np.int8),
         "zero": np.array(128, np.uint8), "v": np.arange(5760).reshape(64, 90).astype(np.int8)},
    ),
}  # fmt: skip


def model_of(name: str) -> onnx.ModelProto:
    inputs, outputs, body, weights = CASES[name]
    text = f'<ir_version: 9, opset_import: ["" : 18]>\ng ({inputs}) => ({outputs}) {{\n{body}\n}}'
    model = parser.parse_model(text)
    for key, given in weights.items():
        array = given if isinstance(given, np.ndarray) else _floats(*given)
        model.graph.initializer.append(numpy_helper.from_array(array, key))
    return model


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.2, shape).astype(np.float32)


def feeds_of(session: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    feeds = {}
    for value in session.get_inputs():
        shape = [d if isinstance(d, int) else 3 for d in value.shape]
        if "int64" in value.type:
            feeds[value.name] = rng.integers(0, 4, shape)
        elif "uint8" in value.type:
            feeds[value.name] = rng.integers(0, 256, shape).astype(np.uint8)
        else:
            feeds[value.name] = rng.normal(size=shape).astype(np.float32)
    return feeds


def turned(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Other feeds of the same shapes."""
    return {k: np.ascontiguousarray(v[..., ::-1]) for k, v in feeds.items()}


def by_winograd(layouts: CpuLayouts, _shape: Any) -> Choice:
    """Dense convolutions by Winograd, whatever the cost model says."""
    return Choice(layouts.cpu.lanes, "winograd_4x4")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``saved(name)``: the file of a compiled model, made once."""
    folder = tmp_path_factory.mktemp("threads")

    def path_of(name: str) -> Path:
        path: Path = folder / f"{name}.kiln"
        if not path.exists():
            source = MODELS / f"{name}.onnx"
            with pytest.MonkeyPatch.context() as patch:
                if name.startswith("winograd"):
                    patch.setattr(CpuLayouts, "choose", by_winograd)
                artifact = graphkiln.compile(source if source.exists() else model_of(name))
            artifact.save(path)
        return path

    return path_of


def assert_same_bits(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


SMALL = sorted([*CASES, "mnist_cntk", "sdp_attention_block", "espcn_subpixel_qcdq"])


@pytest.mark.parametrize("name", SMALL)
def test_any_number_of_threads_gives_the_same_bits(saved: Any, name: str) -> None:
    path = saved(name)
    alone = load(path, threads=1)
    feeds = feeds_of(alone)
    expected = alone.run(None, feeds)
    for threads in THREADS:
        session = load(path, threads=threads)
        for _ in range(5):
            session.run(None, turned(feeds))
            assert_same_bits(session.run(None, feeds), expected)


# ---- loops that are surely cut -------------------------------------------------------------------


class Environment(ctypes.Structure):
    _fields_ = [("sync_handle", ctypes.c_void_p), ("num_task", ctypes.c_int32)]


_TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(Environment), ctypes.c_void_p)
_LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


class Launcher:
    """Cuts every loop into ``parts``; the last parts run first, on ``threads`` threads at once."""

    def __init__(self) -> None:
        self.parts, self.threads, self.loops = 1, 1, 0
        self._function = _LAUNCH(self._launch)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value

    def _launch(self, task: int, data: int, _parts: int) -> int:
        self.loops += 1
        body, environment = _TASK(task), Environment(None, self.parts)
        statuses: list[int] = []

        def work(first: int) -> None:
            for part in reversed(range(first, self.parts, self.threads)):
                statuses.append(body(part, ctypes.byref(environment), data))

        others = [threading.Thread(target=work, args=(t,)) for t in range(1, self.threads)]
        for other in others:
            other.start()
        work(0)
        for other in others:
            other.join()
        return max(statuses, key=abs, default=0)


@pytest.fixture
def launcher(saved: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """What the libraries of a test call for their loops."""
    load(saved("products"), threads=1)  # the process has a pool
    found, modules = Launcher(), {}
    usual = pool._pool
    monkeypatch.setattr(library, "_modules", modules)
    monkeypatch.setattr(pool, "_pool", found.address)
    yield found
    for module in modules.values():
        module.get_function(POOL, True)(usual)


@pytest.mark.parametrize("name", SMALL)
def test_loops_may_be_cut_into_any_parts(saved: Any, launcher: Launcher, name: str) -> None:
    session = load(saved(name), threads=2)
    feeds = feeds_of(session)
    expected = session.run(None, feeds)
    whole, launcher.loops = launcher.loops, 0
    assert whole, "none of its kernels is parallel"
    others = turned(feeds)
    for parts, threads in ((2, 1), (3, 1), (7, 1), (16, 1), (112, 1), (3, 3), (64, 4)):
        launcher.parts, launcher.threads = 1, 1
        session.run(None, others)  # else a part that is left out finds its result in memory
        launcher.parts, launcher.threads = parts, threads
        assert_same_bits(session.run(None, feeds), expected)
    assert launcher.loops >= 14 * whole


# ---- several callers -----------------------------------------------------------------------------


def together(works: Sequence[Any]) -> None:
    """Run all at once; raises what one of them raised."""
    errors: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    callers = [threading.Thread(target=guarded, args=(w,)) for w in works]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("name", ["winograd", "recurrent", "bytes", "reductions"])
def test_two_callers_share_a_session(saved: Any, name: str) -> None:
    session = load(saved(name), threads=3)
    one = feeds_of(session)
    two = turned(one)
    expected = {id(f): load(saved(name), threads=1).run(None, f) for f in (one, two)}

    def caller(feeds: dict[str, np.ndarray]) -> None:
        for _ in range(20):
            assert_same_bits(session.run(None, feeds), expected[id(feeds)])

    together([lambda: caller(one), lambda: caller(two)])


def test_sessions_of_several_models_run_at_once(saved: Any) -> None:
    def caller(name: str, threads: int) -> None:
        session = load(saved(name), threads=threads)
        feeds = feeds_of(session)
        expected = load(saved(name), threads=1).run(None, feeds)
        for _ in range(10):
            assert_same_bits(session.run(None, feeds), expected)

    names = ("convolutions", "products", "long_memory", "attention")
    together([lambda n=n, t=t: caller(n, t) for n, t in zip(names, (2, 3, 4, 7), strict=True)])
