"""Proofs of rules that move elements: every element of a result comes from where it did.

Open dims are any integers from 0 on, and elementwise ops are functions of which nothing is known.
"""

from __future__ import annotations

import re
from itertools import permutations

import pytest
from support.smt import prove, unproved

from graphkiln.passes.base import pass_names
from graphkiln.passes.claims import Family


def graph(shape: str, lines: str, more: str = "", kind: str = "float32") -> str:
    """A graph of ``x`` and ``more``; attributes in ``lines`` may be written ``shape=(N,4)``."""
    listed = re.sub(r"=\(([^)]*)\)", lambda found: f"=[{_dims(found[1])}]", lines)
    return f"graph main(%x: {kind}[{shape}]{more}) -> (y) {{\n{listed}\nreturn %y\n}}"


def _dims(text: str) -> str:
    parts = [d.strip() for d in text.split(",")]
    return ", ".join(d if d.lstrip("-").isdigit() else f"<{d}>" for d in parts)


def moves(name: str, text: str, pass_name: str = "simplify") -> None:
    prove(name, text, moving=True, pass_name=pass_name)


def cut(starts: str, steps: str, shape: str, source: str = "x") -> str:
    return f"kiln.Slice(%{source}) {{shape=({shape}), starts=({starts}), steps=({steps})}}"


# ---- shapes --------------------------------------------------------------------------------------

VIEWS = (
    ("N,4,M", "%s = constant int64[3] [0, 2, -1]\n%y = Reshape(%x, %s)"),
    ("2,3,N", "%s = constant int64[2] [6, -1]\n%y = Reshape(%x, %s)"),
    ("2,N,3", "%s = constant int64[1] [-1]\n%y = Reshape(%x, %s)"),
    ("N,M,3,K", "%y = Flatten(%x) {axis=2}"),
    ("N,M,3", "%y = Flatten(%x) {axis=0}"),
    ("1,N,1,M", "%a = constant int64[2] [0, -2]\n%y = Squeeze(%x, %a)"),
    ("N,M", "%a = constant int64[2] [0, -1]\n%y = Unsqueeze(%x, %a)"),
)


@pytest.mark.parametrize("shape, lines", VIEWS)
def test_views(shape: str, lines: str) -> None:
    moves("reshape", graph(shape, lines), "shapes")


def test_expansions() -> None:
    for shape, target in (("N,1", "[3, 1, 5]"), ("1,M", "[4, 1]"), ("M", "[2, 3, 1]")):
        size = target.count(",") + 1
        lines = f"%s = constant int64[{size}] {target}\n%y = Expand(%x, %s)"
        moves("expand", graph(shape, lines), "shapes")
    lines = "%s = Shape(%x)\n%y = ConstantOfShape(%s)"
    moves("expand", graph("N,M", lines), "shapes")


@pytest.mark.parametrize("size", ["N", "7", "1", "2*N + 1"])
@pytest.mark.parametrize("start, end, step", [
    (0, 3, 1), (1, 2**31, 2), (-3, -1, 1), (-1, -(2**31), -1), (5, 0, -2), (-2, -9, -3),
    (2, -1, 1), (3, 1, 1), (-9, 2, 1), (-9, -20, -1),
])  # fmt: skip
def test_slices(size: str, start: int, end: int, step: int) -> None:
    numbers = {"s": start, "e": end, "a": 1, "t": step}
    constants = "".join(f"%{k} = constant int64[1] [{v}]\n" for k, v in numbers.items())
    lines = f"{constants}%y = Slice(%x, %s, %e, %a, %t)"
    moves("slice", graph(f"M,{size},3", lines), "shapes")


def test_slices_of_several_axes() -> None:
    lines = """
    %s = constant int64[2] [1, -2]
    %e = constant int64[2] [-1, 9]
    %y = Slice(%x, %s, %e)"""
    moves("slice", graph("N,M,3", lines), "shapes")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_parts_are_slices(axis: int) -> None:
    shape = ["N", "M", "K"]
    shape[axis] = "9"
    lines = f"%s = constant int64[3] [2, 3, 4]\n%a, %b, %c = Split(%x, %s) {{axis={axis}}}"
    text = f"graph main(%x: float32[{','.join(shape)}]) -> (a, b, c) {{\n{lines}\nreturn %a, %b, %c"
    moves("split", f"{text}\n}}", "decompose")


# ---- nothing moves -------------------------------------------------------------------------------

NOTHING = {
    "reshape-same": "%y = kiln.Reshape(%x) {shape=(N,4,M)}",
    "slice-all": f"%y = {cut('0,0,0', '1,1,1', 'N,4,M')}",
    "expand-same": "%y = kiln.Expand(%x) {shape=(N,4,M)}",
    "concat-one": "%y = Concat(%x) {axis=1}",
    "split-one": "%y = Split(%x) {axis=1, num_outputs=1}",
    "pad-none": "%p = constant int64[6] [0, 0, 0, 0, 0, 0]\n%y = Pad(%x, %p)",
    "tile-once": "%r = constant int64[3] [1, 1, 1]\n%y = Tile(%x, %r)",
    "transpose-none": "%y = Transpose(%x) {perm=(0,1,2)}",
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_moves_nothing(name: str) -> None:
    moves(name, graph("N,4,M", NOTHING[name]))


def test_empty_parts() -> None:
    more = ", %z: float32[N,0,M], %w: float32[N,K,M]"
    moves("concat-empty", graph("N,4,M", "%y = Concat(%x, %z, %w) {axis=1}", more))
    moves("concat-empty", graph("N,4,M", "%y = Concat(%z, %x) {axis=1}", more))


# ---- two movements -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, middle, last", [
    ("N,12,M", "N,3,4,M", "N,4,3*M"), ("N,12,M", "12*N,M", "N,4,3,M"), ("24,M", "2,12,M", "8,3*M"),
    ("N,M", "N*M", "1,N,1,M"),
])  # fmt: skip
def test_views_of_views(shape: str, middle: str, last: str) -> None:
    lines = f"""
    %a = kiln.Reshape(%x) {{shape=({middle})}}
    %y = kiln.Reshape(%a) {{shape=({last})}}"""
    moves("reshape-reshape", graph(shape, lines))


@pytest.mark.parametrize("inner, outer", [
    ((1, 2, "N"), (0, 1, "N")), ((0, 3, "N"), (1, 2, "2")), ((4, -1, "3"), (2, -1, "3")),
    ((7, -2, "4"), (1, 1, "2")),
])  # fmt: skip
def test_slices_of_slices(inner: tuple[int, int, str], outer: tuple[int, int, str]) -> None:
    lines = f"""
    %a = {cut(f"0,{inner[0]}", f"1,{inner[1]}", f"M,{inner[2]}")}
    %y = {cut(f"1,{outer[0]}", f"2,{outer[1]}", f"3,{outer[2]}", "a")}"""
    moves("slice-slice", graph("M,3*N + 9", lines))


def test_expansions_of_expansions() -> None:
    lines = """
    %a = kiln.Expand(%x) {shape=(3,N,1)}
    %b = kiln.Expand(%a) {shape=(2,3,N,M)}
    %y = Concat(%b, %z) {axis=0}"""
    moves("expand-expand", graph("N,1", lines, ", %z: float32[K,3,N,M]"))
    moves("expand-view", graph("N,M", "%y = kiln.Expand(%x) {shape=(1,1,N,M)}"))


@pytest.mark.parametrize("shape, given", [("1,M", "N,M"), ("M", "N,M"), ("N,1", "N,M"), ("1", "N")])
def test_expansions_that_ops_do_by_themselves(shape: str, given: str) -> None:
    for op in ("Add(%a, %z)", "Sub(%z, %a)", "Max(%a, %z, %a)"):
        lines = f"%a = kiln.Expand(%x) {{shape=({given})}}\n%y = {op}"
        moves("broadcast-expand", graph(shape, lines, f", %z: float32[{given}]"))


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_transposes_of_transposes(rank: int) -> None:
    shape = ",".join("NMKL"[:rank])
    orders = list(permutations(range(rank)))
    for p in orders:
        for q in orders[:: 1 if rank < 4 else 5]:
            perms = [f"{{perm=({','.join(map(str, o))})}}" for o in (p, q)]
            lines = f"%a = Transpose(%x) {perms[0]}\n%y = Transpose(%a) {perms[1]}"
            moves("transpose-transpose", graph(shape, lines))


@pytest.mark.parametrize("shape, perm", [
    ("N,1,M", "1,0,2"), ("1,N,1,M", "1,3,0,2"), ("N,1", "1,0"), ("1,1,N", "2,1,0"),
])  # fmt: skip
def test_transposes_that_are_views(shape: str, perm: str) -> None:
    moves("transpose-view", graph(shape, f"%y = Transpose(%x) {{perm=({perm})}}"))


@pytest.mark.parametrize("indices, size", [
    ("[0, 1, 2]", "N"), ("[5, 3, 1]", "N"), ("[-1, -2, -3]", "N"), ("[-3, -2]", "7"), ("[2]", "N"),
])  # fmt: skip
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_evenly_spaced_indices(indices: str, size: str, axis: int) -> None:
    shape = ["M", "K", "L"]
    shape[axis] = size
    count = indices.count(",") + 1
    lines = f"%i = constant int64[{count}] {indices}\n%y = Gather(%x, %i) {{axis={axis}}}"
    moves("gather", graph(",".join(shape), lines))


def test_indices_of_several_axes_and_of_none() -> None:
    lines = "%i = constant int64[2,2] [0, 2, 4, 6]\n%y = Gather(%x, %i) {axis=1}"
    moves("gather", graph("N,M,K", lines))
    moves("gather", graph("N,M,K", "%i = constant int64[] -1\n%y = Gather(%x, %i) {axis=1}"))


# ---- transposes and views ------------------------------------------------------------------------


@pytest.mark.parametrize("shape, view, perm, last", [
    ("N,M,K,8", "N*M,K,8", "0,2,1", "N,M,8,K"),
    ("12,K,8", "3,4,K,8", "0,1,3,2", "12,8,K"),
    ("2,3,N,M", "6,N,M", "0,2,1", "2,3,M,N"),
])  # fmt: skip
def test_transposes_between_views(shape: str, view: str, perm: str, last: str) -> None:
    lines = f"""
    %a = kiln.Reshape(%x) {{shape=({view})}}
    %t = Transpose(%a) {{perm=({perm})}}
    %y = kiln.Reshape(%t) {{shape=({last})}}"""
    moves("transpose-between-views", graph(shape, lines))


@pytest.mark.parametrize("shape, first, view, last", [
    ("N,M,1,K", "0,3,1,2", "N,1,K,M", "3,0,1,2"),
    ("N,M,K", "2,0,1", "K,1,N,M,1", "4,3,2,1,0"),
    ("1,N,M", "2,0,1", "M,N", "1,0"),
])  # fmt: skip
def test_transposes_around_dims_of_one(shape: str, first: str, view: str, last: str) -> None:
    lines = f"""
    %a = Transpose(%x) {{perm=({first})}}
    %v = kiln.Reshape(%a) {{shape=({view})}}
    %y = Transpose(%v) {{perm=({last})}}"""
    moves("transpose-around-ones", graph(shape, lines))


@pytest.mark.parametrize("lines", [
    "%b = Relu(%a)",
    "%c = constant float32[3] [1.0, 2.0, 3.0]\n%d = Mul(%a, %c)\n%b = Clip(%d, _, %k)",
    "%d = Add(%a, %k)\n%e = Exp(%d)\n%b = Sub(%e, %w)",
    "%d = Exp(%a)\n%b = Mul(%d, %d)",
])  # fmt: skip
def test_transposes_across_elementwise_ops(lines: str) -> None:
    text = f"""
    %k = constant float32[] 4.0
    %w = Transpose(%z) {{perm=(2,0,1)}}
    %a = Transpose(%x) {{perm=(0,2,1)}}
    {lines}
    %y = Transpose(%b) {{perm=(0,2,1)}}"""
    moves("transpose-across", graph("N,3,M", text, ", %z: float32[M,3,N]"))


# ---- views and elementwise ops -------------------------------------------------------------------


@pytest.mark.parametrize("shape, view", [("N,12,M", "N,3,4,M"), ("N,M,K", "N*M,K"), ("6,M", "M*6")])
@pytest.mark.parametrize("last", ["Relu(%v)", "Add(%v, %k)", "Sub(%z, %v)", "Clip(%v, _, %k)"])
def test_views_below_elementwise_ops(shape: str, view: str, last: str) -> None:
    lines = f"""
    %k = constant float32[] 4.0
    %a = Exp(%x)
    %v = kiln.Reshape(%a) {{shape=({view})}}
    %y = {last}"""
    moves("view-below", graph(shape, lines, f", %z: float32[{view}]"))


def test_rows_beside_views() -> None:
    lines = """
    %a = Exp(%x)
    %v = kiln.Reshape(%a) {shape=(N,2,3,M)}
    %y = Mul(%v, %z)"""
    moves("view-below", graph("N,6,M", lines, ", %z: float32[M]"))


@pytest.mark.parametrize("start, size, last", [
    (0, 8, "N,2,4,3"), (4, 8, "N,2,4,3"), (8, 4, "N,1,12"), (6, 6, "N,3,6"),
])  # fmt: skip
def test_views_of_slices(start: int, size: int, last: str) -> None:
    lines = f"""
    %s = {cut(f"0,{start},0", "1,1,1", f"N,{size},3")}
    %y = kiln.Reshape(%s) {{shape=({last})}}"""
    moves("view-slice", graph("N,24,3", lines))


def test_slices_of_transposes() -> None:
    for perm in ("2,0,1", "0,2,1", "2,1,0"):
        dims = ",".join("NMK"[int(p)] for p in perm.split(","))
        first = dims.split(",")[0]
        lines = f"""
        %t = Transpose(%x) {{perm=({perm})}}
        %y = {cut("0,1,3", "1,2,-1", f"{first},2,4", "t")}"""
        moves("slice-transpose", graph("N,M,K", lines))


def test_slices_and_dims_of_one() -> None:
    for shape, view in (("N,M,K", "K,1,N,M"), ("N,1,K", "K,N")):
        perm = "2,0,1"
        starts = ",".join("0" if d == "1" else "1" for d in view.split(","))
        steps = ",".join("1" if d == "1" else "2" for d in view.split(","))
        sizes = ",".join("1" if d == "1" else "3" for d in view.split(","))
        lines = f"""
        %t = Transpose(%x) {{perm=({perm})}}
        %v = kiln.Reshape(%t) {{shape=({view})}}
        %y = {cut(starts, steps, sizes, "v")}"""
        moves("slice-ones", graph(shape, lines))


# ---- reductions and quantisation -----------------------------------------------------------------


@pytest.mark.parametrize("op", ["Max", "Min", "Prod"])
def test_reductions_of_one_element(op: str) -> None:
    lines = f"%axes = constant int64[1] [1]\n%y = Reduce{op}(%x, %axes)"
    moves("reduce-ones", graph("N,1,M", lines))


@pytest.mark.parametrize("op", ["Max", "Sum", "Mean", "L2"])
@pytest.mark.parametrize("axes, kept", [("[1]", "N,1,K"), ("[0, -1]", "1,M,1"), ("[2]", "N,M,1")])
def test_reductions_that_keep_dims(op: str, axes: str, kept: str) -> None:
    count = axes.count(",") + 1
    lines = f"""
    %axes = constant int64[{count}] {axes}
    %r = Reduce{op}(%x, %axes) {{keepdims=0}}
    %y = kiln.Reshape(%r) {{shape=({kept})}}"""
    moves("reduce-keeping", graph("N,M,K", lines))


QUANTIZED = """
    %s = constant float32[] 0.1
    %t = constant float32[] 0.3
    %z = constant uint8[] 3
    %n = constant int8[] -7
    %f = DequantizeLinear(%x, %s, %z)
    {}
    %y = QuantizeLinear(%m, %t, %n)"""


@pytest.mark.parametrize("move", [
    "kiln.Reshape(%f) {shape=(N*8,M,K)}", cut("0,3,1,0", "1,2,1,1", "N,2,3,K", "f"),
    "Transpose(%f) {perm=(0,2,3,1)}", "DepthToSpace(%f) {blocksize=2}",
    "SpaceToDepth(%f) {blocksize=2}",
])  # fmt: skip
def test_movements_of_quantized_tensors(move: str) -> None:
    shape = "N,8,2*M,2*K" if "Depth" in move else "N,8,M,K"
    moves("move-quantized", graph(shape, QUANTIZED.format(f"%m = {move}"), kind="uint8"))


def test_resized_quantized_tensors() -> None:
    lines = """%c = constant float32[4] [1.0, 1.0, 2.0, 2.0]
    %m = Resize(%f, _, %c) {mode="nearest"}"""
    moves("move-quantized", graph("N,8,M,K", QUANTIZED.format(lines), kind="uint8"))


DEQUANTIZED = QUANTIZED.replace("%y = QuantizeLinear(%m, %t, %n)", "%y = Neg(%m)")


@pytest.mark.parametrize("move", [
    "kiln.Reshape(%f) {shape=(N*8,M,K)}", cut("0,3,1,0", "1,2,1,1", "N,2,3,K", "f"),
    "Transpose(%f) {perm=(0,2,3,1)}", "DepthToSpace(%f) {blocksize=2}",
])  # fmt: skip
def test_movements_of_dequantized_tensors(move: str) -> None:
    shape = "N,8,2*M,2*K" if "Depth" in move else "N,8,M,K"
    moves("move-dequantized", graph(shape, DEQUANTIZED.format(f"%m = {move}"), kind="uint8"))


def test_concatenated_dequantized_tensors() -> None:
    lines = "%g = DequantizeLinear(%z2, %s, %z)\n%m = Concat(%f, %g) {axis=1}"
    text = DEQUANTIZED.format(lines)
    moves("concat-dequantized", graph("N,8,K", text, ", %z2: uint8[N,M,K]", kind="uint8"))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantized_parts(axis: int) -> None:
    dims = ["N", "8", "K"]
    dims[axis] = "M"
    lines = f"""
    %s = constant float32[] 0.1
    %n = constant int8[1] [-7]
    %c = Concat(%x, %z, %x) {{axis={axis}}}
    %y = QuantizeLinear(%c, %s, %n)"""
    moves("quantize-parts", graph("N,8,K", lines, f", %z: float32[{','.join(dims)}]"))


# ---- blocks of channels --------------------------------------------------------------------------


def blocked(channels: int, lines: str, kind: str, shape: str = "N,8,H,W") -> None:
    """``lines`` make %y of the convolutions %a and %b; blocks have four channels."""
    ones = ", ".join(["1.0"] * (channels * 8))
    text = f"""
    %w = constant float32[{channels},8,1,1] [{ones}]
    %a = Conv(%x, %w)
    %b = Conv(%z, %w)
    {lines}"""
    moves(kind, graph(shape, text, f", %z: float32[{shape}]"), "layout")


@pytest.mark.parametrize("channels", [8, 6])
@pytest.mark.parametrize("lines", [
    "%y = Relu(%a)", "%c = Add(%a, %b)\n%y = Tanh(%c)", "%y = Mul(%a, %k)", "%y = Sub(%k, %b)",
])  # fmt: skip
def test_elementwise_ops_on_blocks(channels: int, lines: str) -> None:
    row = ", ".join(str(float(c)) for c in range(channels))
    for k in (f"constant float32[1,{channels},1,1] [{row}]", "constant float32[] 3.0"):
        blocked(channels, f"%k = {k}\n{lines}", "elementwise")


def test_what_is_packed_and_unpacked() -> None:
    for op in ("Add(%a, %x)", "Sub(%x, %b)"):
        blocked(8, f"%y = {op}", "packs")


def test_concatenated_blocks() -> None:
    blocked(8, "%y = Concat(%a, %b, %a) {axis=1}", "concats")
    blocked(6, "%y = Concat(%a, %b) {axis=1}", "selections")


@pytest.mark.parametrize("channels", [8, 6])
def test_slices_of_blocks(channels: int) -> None:
    kept = "{shape=(N,3,H,W), starts=(0,1,0,0), steps=(1,2,1,1)}"
    if channels == 8:
        blocked(channels, f"%y = kiln.Slice(%a) {kept}", "selections")
    part = f"{{shape=(N,{channels},2,W), starts=(0,0,1,0), steps=(1,1,3,1)}}"
    blocked(channels, f"%y = kiln.Slice(%a) {part}", "slices")


def test_shuffled_channels() -> None:
    lines = """
    %s = kiln.Reshape(%a) {shape=(N,2,4,H,W)}
    %t = Transpose(%s) {perm=(0,2,1,3,4)}
    %y = kiln.Reshape(%t) {shape=(N,8,H,W)}"""
    blocked(8, lines, "selections")


def test_flattened_positions() -> None:
    blocked(8, "%y = kiln.Reshape(%a) {shape=(N,8)}", "reshapes", "N,8,1,1")


def test_every_movement_that_is_called_proved_has_a_proof() -> None:
    """The last test of this file: it asks what those before it proved."""
    assert not unproved(pass_names(), Family.MOVEMENT)
