"""Hypothesis strategies: matrix products and attention, with NumPy's results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphkiln.ir.graph import Value
from graphkiln.ir.packing import pack_matmul_weight
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.layouts import CpuLayouts

from .conv_kernels import BYTES, FLOAT
from .cpu_kernels import Kernel, int8_weights, packed_inputs, without_blocks

Array = np.ndarray

EPILOGUES = ("none", "relu", "channels", "residual", "both")
BYTE_EPILOGUES = ("none", "scaled", "requantize", "requantize channels")
ROWS = st.one_of(st.integers(1, 9), st.integers(10, 150))


@dataclass(frozen=True)
class Packed:
    """``[*batch, rows, depth]`` times packed ``[depth, columns]``; without ``rows`` a vector."""

    kind: str
    batch: tuple[int, ...]
    rows: int | None
    depth: int
    columns: int
    vectors: int = 1
    bias: bool = True
    epilogue: str = "none"
    open_dims: bool = False
    seed: int = 0
    weight: int | None = None
    """The weight that all are, for int8; None for random ones."""
    listed: float | None = None
    """The share of steps that are not zero and stand in a list; None if all are multiplied."""


@st.composite
def packed_products(draw: st.DrawFn, kind: str) -> Packed:
    """Any product that the template of packed weights takes."""
    return Packed(
        kind, tuple(draw(st.lists(st.integers(1, 3), max_size=2))), draw(ROWS),
        draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(1, 6)),
        draw(st.booleans()),
        draw(st.sampled_from(BYTE_EPILOGUES if kind == BYTES else EPILOGUES)),
        draw(st.booleans()), draw(st.integers(0, 99)),
    )  # fmt: skip


def packed_kernel(spec: Packed, cpu: str) -> Kernel:
    """The kernel of a product by packed weights on one CPU, with its epilogue."""
    layouts = CpuLayouts(features_of(cpu))
    rng = np.random.default_rng(spec.seed)
    shape = (*spec.batch, *([] if spec.rows is None else [spec.rows]), spec.depth)
    kernel = Kernel()
    x, w, depth = _operands(spec, layouts, rng, shape)
    w = without_blocks(rng, w, (depth, layouts.block), spec.listed)
    wide = np.int64 if spec.kind == BYTES else np.float64
    total = x.astype(wide) @ w.astype(wide)
    if spec.kind != BYTES:  # errors grow with the sums
        kernel.atol = 1e-5 * spec.depth * max(1, np.abs(w).max())
    open_dims = {i: f"R{i}" for i in range(len(shape) - 1)} if spec.open_dims else {}
    weight = pack_matmul_weight(w, layouts.block * spec.vectors, depth)
    inputs: list[Value | None] = [kernel.input(x, open_dims)]
    row = None
    if spec.bias:
        row = _row(rng, spec.columns)
        row = (row * 1000).astype(np.int32) if spec.kind == BYTES else row
        total = total + row
    listed = spec.listed is not None
    inputs += packed_inputs(kernel, weight, row, layouts, depth, tiles=1, listed=listed)
    attrs = {"columns": spec.columns, **({"depth": depth} if depth > 1 else {})}
    y = kernel.node("MatMulPacked", inputs, attrs, "kiln")
    if spec.kind == BYTES:
        return _of_integers(kernel, spec.epilogue, y, total.astype(np.int32), rng)
    return with_epilogue(kernel, spec.epilogue, y, total.astype(np.float32), rng)


def _operands(
    spec: Packed, layouts: CpuLayouts, rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[Array, Array, int]:
    matrix = (spec.depth, spec.columns)
    if spec.kind == FLOAT:
        w = rng.normal(size=matrix).astype(np.float32)
    else:
        w = int8_weights(rng, matrix, spec.weight)
    if spec.kind != BYTES:
        return rng.normal(size=shape).astype(np.float32), w, 1
    x = rng.integers(0, 256, shape).astype(np.uint8)
    return x.view(layouts.activation or "uint8"), w, layouts.dot_depth


def _row(rng: np.random.Generator, size: int) -> Array:
    return rng.normal(size=size).astype(np.float32)


def with_epilogue(
    kernel: Kernel, epilogue: str, y: Value, total: Array, rng: np.random.Generator
) -> Kernel:
    """What follows a product of floats, in the kernel and in NumPy."""
    relu = np.maximum(total, 0)
    if epilogue == "channels":
        scale, shift = _row(rng, total.shape[-1]), _row(rng, total.shape[-1])
        kernel.want, kernel.atol = [total * scale + shift], 4 * kernel.atol
        scaled = kernel.node("Mul", [y, kernel.input(scale)])
        return kernel.finish([kernel.node("Add", [scaled, kernel.input(shift)])])
    if epilogue == "residual":
        other = _row(rng, total.size).reshape(total.shape)
        kernel.want = [np.maximum(other + total, 0)]
        added = kernel.node("Add", [kernel.typed(other, y.tensor_type), y])
        return kernel.finish([kernel.node("Relu", [added])])
    results = {"none": [total], "relu": [relu], "both": [total, relu]}
    kernel.want = results[epilogue]
    values = {"none": [y]} if epilogue == "none" else {}
    if not values:
        positive = kernel.node("Relu", [y])
        values = {"relu": [positive], "both": [y, positive]}
    return kernel.finish(values[epilogue])


def _of_integers(
    kernel: Kernel, epilogue: str, y: Value, total: Array, rng: np.random.Generator
) -> Kernel:
    if epilogue == "none":
        kernel.want = [total]
        return kernel.finish([y])
    columns = 1 if epilogue == "requantize" else total.shape[-1]
    spread = 100 / (1 + np.abs(total).max(initial=0))
    scale = (spread * (0.5 + rng.random(columns))).astype(np.float32)
    exact = total.astype(np.float32) * scale
    if epilogue == "scaled":
        kernel.want = [exact]
        cast = kernel.node("Cast", [y], {"to": 1})
        return kernel.finish([kernel.node("Mul", [cast, kernel.input(scale)])])
    kernel.want = [np.clip(np.rint(exact) + np.float32(-7), -128, 127).astype(np.int8)]
    given = kernel.constant(scale[0]) if epilogue == "requantize" else kernel.input(scale)
    inputs = [y, given, kernel.constant(-7, "int8")]
    return kernel.finish([kernel.node("Requantize", inputs, domain="kiln")])


# ---- products of two run-time operands -----------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """``[*left, rows, depth]`` times ``[*right, depth, columns]``; batches broadcast."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    rows: int
    depth: int
    columns: int
    epilogue: str = "none"
    open_dims: str = ""
    """Of B, M, K, N."""
    seed: int = 0


@st.composite
def products(draw: st.DrawFn) -> Product:
    """Products of matrices and of batches that broadcast."""
    full = draw(st.lists(st.integers(1, 3), max_size=2))

    def part() -> tuple[int, ...]:
        kept = full[draw(st.integers(0, len(full))) :]
        return tuple(1 if draw(st.integers(0, 2)) == 0 else d for d in kept)

    return Product(
        part(), part(), draw(ROWS), draw(st.integers(1, 70)), draw(st.integers(1, 70)),
        draw(st.sampled_from(("none", "relu", "residual", "both"))),
        draw(st.sampled_from(("", "", "M", "MN", "K", "BMKN"))), draw(st.integers(0, 99)),
    )  # fmt: skip


def product_kernel(spec: Product) -> Kernel:
    """The kernel of a product of two run-time operands."""
    rng = np.random.default_rng(spec.seed)
    a = rng.normal(size=(*spec.left, spec.rows, spec.depth)).astype(np.float32)
    b = rng.normal(size=(*spec.right, spec.depth, spec.columns)).astype(np.float32)
    kernel = Kernel(atol=1e-5 * spec.depth)
    values = [
        kernel.input(x, _open(x.shape, spec.open_dims, ends)) for x, ends in ((a, "MK"), (b, "KN"))
    ]
    y = kernel.node("MatMul", values)
    return with_epilogue(kernel, spec.epilogue, y, np.matmul(a, b), rng)


def _open(shape: tuple[int, ...], names: str, ends: str) -> dict[int, str]:
    rank = len(shape)
    found = {rank - 2 + i: name for i, name in enumerate(ends) if name in names}
    if "B" in names:  # an extent of one broadcasts only where it is known
        found |= {i: f"B{rank - i}" for i in range(rank - 2) if shape[i] > 1}
    return found


# ---- attention -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attend:
    """Attention of [batch, heads, rows, depth] over ``keys``; ``mask`` is its shape."""

    batch: int
    heads: int
    rows: int
    keys: int
    depth: int
    width: int
    scale: float | None = 0.3
    mask: tuple[int, ...] | None = None
    epilogue: str = "none"
    open_dims: str = ""
    """Of B, S, T."""
    seed: int = 0


@st.composite
def attentions(draw: st.DrawFn, lanes: int) -> Attend:
    """Attention with any broadcasting mask."""
    batch, heads = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    rows, keys = draw(ROWS), draw(ROWS)
    full = (batch, heads, rows, keys)
    mask = None
    if draw(st.booleans()):
        kept = full[draw(st.integers(0, 3)) :]
        mask = tuple(d if draw(st.booleans()) else 1 for d in kept)
    return Attend(
        *full, draw(st.integers(1, 40)), lanes * draw(st.integers(1, 4)),
        draw(st.sampled_from((0.3, 1.0))), mask,
        draw(st.sampled_from(("none", "relu", "residual"))),
        draw(st.sampled_from(("", "", "S", "T", "BST"))), draw(st.integers(0, 99)),
    )  # fmt: skip


def attention_kernel(spec: Attend) -> Kernel:
    """The kernel of ``kiln.Attention``; a masked key has -inf, but every row sees some key."""
    rng = np.random.default_rng(spec.seed)
    lead = (spec.batch, spec.heads)
    q = rng.normal(size=(*lead, spec.rows, spec.depth)).astype(np.float32)
    k = rng.normal(size=(*lead, spec.keys, spec.depth)).astype(np.float32)
    v = rng.normal(size=(*lead, spec.keys, spec.width)).astype(np.float32)
    kernel = Kernel(atol=1e-4)
    inputs = [kernel.input(x, _attention_dims(x.shape, spec, names)) for x, names in
              ((q, "BHSD"), (k, "BHTD"), (v, "BHTE"))]  # fmt: skip
    mask = None
    if spec.mask is not None:
        mask = rng.normal(size=spec.mask).astype(np.float32)
        mask[rng.random(spec.mask) < 0.3] = -np.inf
        mask[..., 0] = 0.5
        inputs.append(kernel.input(mask, _attention_dims(mask.shape, spec, "BHST"[-mask.ndim :])))
    attrs: dict[str, Any] = {} if spec.scale is None else {"scale": spec.scale}
    y = kernel.node("Attention", inputs, attrs, "kiln")
    return with_epilogue(kernel, spec.epilogue, y, attend(q, k, v, mask, spec.scale), rng)


def attend(q: Array, k: Array, v: Array, mask: Array | None, scale: float | None) -> Array:
    """Attention in float64; rows that see no key are NaN."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    factor = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    scores = factor * q @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = scores + mask
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return ((weights / weights.sum(axis=-1, keepdims=True)) @ v).astype(np.float32)


def _attention_dims(shape: tuple[int, ...], spec: Attend, names: str) -> dict[int, str]:
    return {i: name for i, name in enumerate(names) if name in spec.open_dims and shape[i] > 1}
