"""Products of two run-time operands, and attention, on this machine's CPUs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cpu_kernels import Kernel, cpus, run
from support.product_kernels import (
    Attend,
    Product,
    attend,
    attention_kernel,
    attentions,
    product_kernel,
    products,
)

from graphkiln.targets import parse_target
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.generic.choice import choose_template

ALL = ("", "x86-64-v3", "x86-64-v2")


def agrees(kernel: Kernel, cpu: str) -> None:
    """The template runs, and computes what NumPy does."""
    target = parse_target(f"cpu:{cpu}")
    assert choose_template(kernel.graph, target._templates, target.hardware).anchor is not None
    kernel.check(run(kernel, cpu))


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=8)
@given(data=st.data())
def test_products(cpu: str, data: st.DataObject) -> None:
    agrees(product_kernel(data.draw(products())), cpu)


PRODUCTS = {
    "rows": Product((), (), 1, 64, 100),
    "many rows": Product((), (), 500, 20, 35, "residual"),
    "heads": Product((2, 3), (2, 3), 33, 16, 40, "relu"),
    "all open": Product((2, 3), (2, 3), 33, 17, 40, "both", "BMKN"),
    "one matrix for a batch": Product((2, 3), (), 7, 16, 40, "residual", "BM"),
    "one row for a batch": Product((), (4,), 7, 16, 40),
    "batches that broadcast": Product((4, 1), (1, 3), 7, 5, 9),
    "a longer right operand": Product((3,), (1, 1), 7, 5, 9),
    "no open rows": Product((), (), 0, 5, 9, open_dims="M"),
    "no open columns": Product((), (), 7, 5, 0, open_dims="N"),
    "no rows": Product((), (), 0, 5, 9),
    "no open depth": Product((), (), 7, 0, 9, open_dims="K"),
}


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("case", PRODUCTS.values(), ids=PRODUCTS)
def test_products_that_have_code_of_their_own(case: Product, cpu: str) -> None:
    agrees(product_kernel(case), cpu)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@settings(max_examples=6)
@given(data=st.data())
def test_attention(cpu: str, data: st.DataObject) -> None:
    agrees(attention_kernel(data.draw(attentions(features_of(cpu).lanes))), cpu)


ATTENTION = {
    "one row": Attend(1, 4, 1, 77, 32, 32),
    "one key": Attend(1, 2, 9, 1, 16, 16),
    "default scale": Attend(1, 2, 20, 20, 16, 16, scale=None),
    "open": Attend(2, 2, 50, 50, 24, 48, mask=(2, 1, 1, 50), open_dims="BST"),
    "mask of pairs": Attend(2, 2, 37, 50, 24, 16, mask=(37, 50), epilogue="residual"),
    "mask of rows": Attend(2, 2, 37, 50, 24, 16, mask=(37, 1)),
}


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("case", ATTENTION.values(), ids=ATTENTION)
def test_attention_that_has_code_of_its_own(case: Attend, cpu: str) -> None:
    agrees(attention_kernel(case), cpu)


def fused_heads(length: str | None) -> Kernel:
    """Attention whose operands are slices of one [B,S,3*H,D], to a [B,S,H,D]."""
    x = np.random.default_rng(4).standard_normal((2, 21, 9, 32)).astype(np.float32)
    kernel = Kernel()
    source = kernel.input(x, {1: length} if length else None)
    operands = []
    for i in range(3):
        cut = {"starts": (0, 0, 3 * i, 0), "steps": (1, 1, 1, 1),
               "shape": (2, source.shape[1], 3, 32)}  # fmt: skip
        part = kernel.node("Slice", [source], cut, "kiln")
        operands.append(kernel.node("Transpose", [part], {"perm": (0, 2, 1, 3)}))
    result = kernel.node("Attention", operands, {"scale": 0.2}, "kiln")
    result = kernel.node("Neg", [result])
    kernel.finish([kernel.node("Transpose", [result], {"perm": (0, 2, 1, 3)})])
    q, k, v = (x[:, :, 3 * i : 3 * i + 3].swapaxes(1, 2) for i in range(3))
    kernel.want = [-attend(q, k, v, None, 0.2).swapaxes(1, 2)]
    return kernel


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("length", [None, "S"])
def test_attention_reads_and_writes_rows_of_any_strides(cpu: str, length: str | None) -> None:
    agrees(fused_heads(length), cpu)


ODD_NAN = np.array(0x7FC00001, np.uint32).view(np.float32)


@pytest.mark.parametrize("cpu", cpus("", "x86-64-v3"))
@pytest.mark.parametrize("guarded", [0, 1])
@pytest.mark.parametrize("keys", [13, 32])
def test_rows_whose_softmax_is_undefined(cpu: str, keys: int, guarded: int) -> None:
    """Rows of -inf, and rows with an infinity or a NaN: NaN, or 0 behind a guard."""
    kernel = attention_kernel(Attend(1, 2, 9, keys, 16, 16, mask=(9, keys)))
    (node,) = [n for n in kernel.graph.nodes if n.op == "Attention"]
    node.attrs["guarded"] = guarded
    kernel.feeds[3][4] = -np.inf
    for row, score in ((1, np.inf), (6, np.nan), (7, ODD_NAN)):
        kernel.feeds[3][row, 3] = score
    kernel.want[0][:, :, [1, 4, 6, 7]] = 0 if guarded else np.nan
    agrees(kernel, cpu)


def test_rows_of_the_lowest_number_are_means() -> None:
    kernel = attention_kernel(Attend(1, 2, 9, 13, 16, 16, mask=(9, 13)))
    kernel.feeds[3][4] = np.finfo(np.float32).min
    kernel.want[0][:, :, 4] = kernel.feeds[2].mean(axis=2)
    agrees(kernel, "")


def test_large_scores_do_not_overflow() -> None:
    kernel = attention_kernel(Attend(1, 1, 3, 20, 16, 16))
    kernel.feeds[0][:] *= 1e4
    (result,) = run(kernel, "")
    assert np.isfinite(result).all()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*ALL))
@settings(max_examples=100)
@given(data=st.data())
def test_many_products(cpu: str, data: st.DataObject) -> None:
    agrees(product_kernel(data.draw(products())), cpu)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus(*ALL))
@settings(max_examples=60)
@given(data=st.data())
def test_many_attentions(cpu: str, data: st.DataObject) -> None:
    agrees(attention_kernel(data.draw(attentions(features_of(cpu).lanes))), cpu)
