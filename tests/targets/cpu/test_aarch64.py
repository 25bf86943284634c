"""Kernel templates for aarch64 with and without dot products, run by qemu."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.aarch64 import needs_aarch64, run_all
from support.conv_kernels import BYTES, FLOAT, STORED, kernel_of, specs
from support.cpu_kernels import Kernel
from support.product_kernels import (
    attention_kernel,
    attentions,
    packed_kernel,
    packed_products,
    product_kernel,
    products,
)

pytestmark = needs_aarch64()

PLAIN, DOTS = "aarch64", "aarch64-dotprod"
LANES = 4

Make = Callable[[Any, str], Kernel]

FAMILIES: dict[str, tuple[st.SearchStrategy[Any], Make]] = {
    "convolutions": (specs(FLOAT, LANES), kernel_of),
    "convolutions by stored bytes": (specs(STORED, LANES), kernel_of),
    "convolutions of bytes": (specs(BYTES, LANES), kernel_of),
    "convolutions of volumes": (specs(FLOAT, LANES, ranks=(3,)), kernel_of),
    "depthwise": (specs(FLOAT, LANES, depthwise=True), kernel_of),
    "depthwise of bytes": (specs(BYTES, LANES, depthwise=True), kernel_of),
    "packed products": (packed_products(FLOAT), packed_kernel),
    "packed products by stored bytes": (packed_products(STORED), packed_kernel),
    "packed products of bytes": (packed_products(BYTES), packed_kernel),
    "products": (products(), lambda spec, _cpu: product_kernel(spec)),
    "attention": (attentions(LANES), lambda spec, _cpu: attention_kernel(spec)),
}
ON_DOTS = [name for name in FAMILIES if name.endswith("of bytes")]


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Examples of a strategy past the simplest one, as a list: one program holds them all."""
    found: list[Any] = []

    @settings(max_examples=count + 1)
    @given(strategy)
    def add(spec: Any) -> None:
        found.append(spec)

    add()
    return found[1:]


def agree(name: str, cpu: str, count: int, folder: Path) -> None:
    strategy, make = FAMILIES[name]
    drawn = examples(strategy, count)
    kernels = [make(spec, cpu) for spec in drawn]
    for spec, kernel, results in zip(drawn, kernels, run_all(kernels, cpu, folder), strict=True):
        try:
            kernel.check(results)
        except AssertionError as e:
            raise AssertionError(f"{spec}: {e}") from e


@pytest.mark.parametrize("name", FAMILIES)
def test_with_dot_products(name: str, tmp_path: Path) -> None:
    agree(name, DOTS, 2, tmp_path)


@pytest.mark.parametrize("name", ["convolutions", "depthwise", "packed products"])
def test_without_dot_products(name: str, tmp_path: Path) -> None:
    agree(name, PLAIN, 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [PLAIN, DOTS])
@pytest.mark.parametrize("name", FAMILIES)
def test_many(name: str, cpu: str, tmp_path: Path) -> None:
    if cpu == PLAIN and name in ON_DOTS:
        pytest.skip("the layout pass makes such kernels for CPUs with dot products only")
    agree(name, cpu, 50, tmp_path)


def few_bits(rows: int, level: int) -> Kernel:
    """A product by weights of 4 bits, whose activations may be rounded to bytes at level 4."""
    rng = np.random.default_rng(rows)
    kernel = Kernel(atol=0.5 if level == 4 else 1e-4)
    x = rng.standard_normal((rows, 64)).astype(np.float32)
    packed = rng.integers(0, 256, (6, 2, 16)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (6, 2)).astype(np.float32)
    attrs = {"K": 64, "N": 6, "bits": 4, "block_size": 32, "accuracy_level": level}
    values = [kernel.input(a) for a in (x, packed, scales)]
    y = kernel.node("MatMulNBits", values, attrs, "com.microsoft")
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(6, 2, 32) - 8.0
    kernel.want = [x @ (codes * scales[..., None]).reshape(6, 64).T]
    return kernel.finish([y])


@pytest.mark.parametrize("cpu", [PLAIN, DOTS])
def test_products_of_few_bits(cpu: str, tmp_path: Path) -> None:
    kernels = [few_bits(rows, level) for rows in (1, 3) for level in (0, 4)]
    for kernel, results in zip(kernels, run_all(kernels, cpu, tmp_path), strict=True):
        kernel.check(results)
