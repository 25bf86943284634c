"""Look-ups by permutations of registers: the code for AVX512_VBMI, and what is left as it is."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
from tvm import tirx

from graphkiln.targets.tir.byte_tables import (
    BYTE_TABLES,
    PERMUTED,
    SHUFFLED,
    SINGLE,
    replace_look_ups,
)
from graphkiln.targets.tir.extents import index


def function(size: int, lanes: int, way: str = PERMUTED, dtype: str = "uint8") -> Any:
    """``y[i] = table[x[i]]`` in vectors of ``lanes``."""
    x = tirx.decl_buffer((256,), "uint8", name="x")
    y = tirx.decl_buffer((256,), dtype, name="y")
    table = tirx.decl_buffer((size,), dtype, name="table")
    ramp = tirx.Ramp(index(0), index(1), lanes)
    place = tirx.Cast(f"int32x{lanes}", tirx.BufferLoad(x, [ramp]))
    store = tirx.BufferStore(y, tirx.BufferLoad(table, [place]), [ramp])
    made = tirx.PrimFunc([x, y, table], store)
    return made.with_attr(BYTE_TABLES, way) if way else made


def text(made: Any) -> str:
    return str(replace_look_ups(tvm.IRModule({"f": made}))["f"])


@pytest.mark.parametrize("lanes", [2, 8, 16, 48, 64])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_vectors_of_bytes(lanes: int, dtype: str) -> None:
    assert text(function(256, lanes, dtype=dtype)).count("vpermi2var") == 2


@pytest.mark.parametrize("lanes", [2, 3, 8, 12, 16])
def test_bytes_one_by_one(lanes: int) -> None:
    code = text(function(256, lanes, SINGLE))
    assert code.count("table[") == lanes and "vpermi2var" not in code


@pytest.mark.parametrize(
    "lanes, shuffles", [(8, 0), (16, 0), (24, 16), (32, 16), (48, 0), (64, 32)]
)
def test_bytes_by_shuffles_where_they_are_many(lanes: int, shuffles: int) -> None:
    code = text(function(256, lanes, SHUFFLED))
    assert code.count("pshuf.b") == shuffles
    assert code.count("table[") == (2 * shuffles or lanes)


@pytest.mark.parametrize(
    "made",
    [
        function(256, 16, ""), function(128, 16), function(256, 128),
        function(256, 16, dtype="int32"),
    ],
)  # fmt: skip
def test_other_loads_stay(made: Any) -> None:
    assert "vpermi2var" not in text(made)
