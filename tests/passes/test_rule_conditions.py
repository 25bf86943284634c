"""What rules ask for: a graph that each rewrites, and the nearest that it must leave.

Found by making faults in the rules (``python -m tests.mutation``): each line here fails with one
that no other test noticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import random_feeds, run, same

from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.pipeline import parse_pipeline

X = "%x: float32[2,4]"
X3 = "%x: float32[N,3,4]"

IMAGE = "%x: float32[1,2,4,4]"
PADS = """
  %w = constant float32[1,2,1,1] [1.0, 2.0]
  %two = constant int64[4] [1, 0, 0, 2]
  %all = constant int64[8] [0, 0, 1, 0, 0, 0, 1, 2]
  %low = constant float32[] -inf
"""
MATRIX = """
  %w = constant float32[2,3] [1.0, 2.0, 3.0, -1.0, 0.5, 4.0]
  %row = constant float32[3] [0.5, 2.0, -1.0]
"""
CHANNELS = "%x: float32[2,4,3]"
NORM = """
  %ones = constant float32[2] [1.0, 1.0]
  %zeros = constant float32[2] [0.0, 0.0]
  %n = InstanceNormalization(%s, %ones, %zeros) {epsilon=0.25}
"""
GROUPS = "%s = kiln.Reshape(%x) {shape=[2, 2, 6]}\n" + NORM

REWRITTEN = [
    # ---- reductions ----
    ("mean", X3, "%a = constant int64[1] [2]\n%c = constant float32[] 0.25\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("mean", "%x: float64[3,2,4]", "%a = constant int64[2] [2, -2]\n%c = constant float64[] 0.125\n"
     "%s = ReduceSum(%x, %a) {keepdims=0}\n%y = Mul(%c, %s)"),
    ("mean", X, "%c = constant float32[] 0.125\n%s = ReduceSum(%x)\n%y = Mul(%s, %c)"),
    ("reduce-ones", "%x: int32[2,1,3]", "%a = constant int64[1] [1]\n%y = ReduceSum(%x, %a)"),
    ("reduce-ones", "%x: float32[2,1,1]", "%a = constant int64[2] [1, 2]\n%y = ReduceMax(%x, %a)"),
    ("reduce-ones", X, "%y = ReduceMax(%x) {noop_with_empty_axes=1}"),
    ("sum-ones", "%x: float32[2,1,3]", "%a = constant int64[1] [1]\n%y = ReduceMean(%x, %a)"),
    ("reduce-keeping", X, "%a = constant int64[1] [0]\n%r = ReduceMax(%x, %a) {keepdims=0}\n"
     "%y = kiln.Reshape(%r) {shape=[1, 4]}"),
    # ---- casts ----
    ("dropout", X, "%y = Dropout(%x)"),
    ("dropout", X, "%r = constant float32[] 0.5\n%t = constant bool[] false\n"
     "%y, %mask = Dropout(%x, %r, %t)"),
    ("cast-cast", "%x: float16[4]", "%w = Cast(%x) {to=1}\n%y = Cast(%w) {to=11}"),
    ("cast-cast", "%x: int8[4]", "%w = Cast(%x) {to=6}\n%y = Cast(%w) {to=2}"),
    ("cast-cast", "%x: int8[4]", "%w = Cast(%x) {to=1}\n%y = Cast(%w) {to=11}"),
    ("cast-same", X, "%y = CastLike(%x, %x)"),
    # ---- arithmetic ----
    ("add-zero", "%x: int32[4]", "%c = constant int32[] 0\n%y = Add(%x, %c)"),
    ("add-zero", X, "%c = constant float32[] -0.0\n%y = Add(%x, %c)"),
    ("sub-zero", X, "%c = constant float32[] 0.0\n%y = Sub(%x, %c)"),
    ("sum-zero", X3, "%a = constant int64[1] [2]\n%c = constant float32[] 0.0\n"
     "%s = ReduceSum(%x, %a)\n%y = Add(%s, %c)"),
    ("div-constant", X, "%c = constant float32[4] [2.0, 4.0, -0.5, 1.0]\n%y = Div(%x, %c)"),
    ("pow-two", "%x: int32[4]", "%c = constant int32[] 2\n%y = Pow(%x, %c)"),
    ("twice", X, "%r = Ceil(%x)\n%y = Ceil(%r)"),
    # ---- quantized ----
    ("quantize-again", "%x: uint8[4]", "%s = constant float32[] 0.1\n%z = constant uint8[] 0\n"
     "%f = DequantizeLinear(%x, %s)\n%y = QuantizeLinear(%f, %s, %z)"),
    ("quantize-again", "%x: int8[4,2]", "%s = constant float32[2] [0.1, 0.2]\n"
     "%z = constant int8[2] [1, -1]\n%f = DequantizeLinear(%x, %s, %z)\n"
     "%y = QuantizeLinear(%f, %s, %z)"),
    ("quantize-again", "%x: uint8[4]", "%s = constant float32[] 0.1\n"
     "%f = DequantizeLinear(%x, %s)\n%y = QuantizeLinear(%f, %s)"),
    ("move-quantized", "%x: uint8[4,2]", "%s = constant float32[] 0.1\n"
     "%f = DequantizeLinear(%x, %s)\n%t = Transpose(%f) {perm=[1, 0]}\n"
     "%y = QuantizeLinear(%t, %s)"),
    # ---- attributes of what moves ----
    ("transpose-transpose", "%x: float32[2,3,4]", "%t = Transpose(%x) {perm=[1, 2, 0]}\n"
     "%y = Transpose(%t) {perm=[1, 2, 0]}"),
    ("broadcast-expand", "%x: float32[3], %b: float32[2,3]", "%e = kiln.Expand(%x) {shape=[2, 3]}\n"
     "%y = Mod(%e, %b) {fmod=1}"),
    ("broadcast-expand", "%x: float32[1,3], %b: float32[2,1]",
     "%e = kiln.Expand(%x) {shape=[2, 3]}\n%y = Sub(%b, %e)"),
    ("expand-same", X3, "%y = kiln.Expand(%x) {shape=[<N>, 3, 4]}"),
    ("concat-empty", "%x: float32[2,3], %b: float32[2,1]", "%n = constant float32[2,0] []\n"
     "%y = Concat(%b, %n, %x) {axis=1}"),
    ("gather", "%x: float32[3,5]", "%i = constant int64[2,2] [-1, -2, -3, -4]\n"
     "%y = Gather(%x, %i) {axis=1}"),
    # ---- bounds ----
    ("clip-none", "%x: int8[4]", "%l = constant int8[] -128\n%h = constant int8[] 127\n"
     "%y = Clip(%x, %l, %h)"),
    ("clip-none", "%x: uint8[4]", "%l = constant uint8[] 0\n%y = Clip(%x, %l)"),
    ("clip-clip", X, "%l = constant float32[] -0.5\n%h = constant float32[] 0.5\n"
     "%c = Clip(%x, %l)\n%y = Clip(%c, _, %h)"),
    ("clip-clip", X, "%h = constant float32[] -0.5\n%r = Relu(%x)\n%y = Clip(%r, _, %h)"),
    # ---- pads ----
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all)\n"
     "%y = Conv(%p, %w) {pads=[0, 2, 0, 1], dilations=[1, 1], strides=[1, 2]}"),
    ("fold_affine/pad", IMAGE, PADS + "%a = constant int64[2] [2, -1]\n"
     "%p = Pad(%x, %two, _, %a)\n%y = Conv(%p, %w)"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all)\n%y = Conv(%p, %w) {auto_pad=\"VALID\"}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all)\n"
     "%y = AveragePool(%p) {kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all, %low)\n"
     "%y = MaxPool(%p) {kernel_shape=[3, 3]}"),
    ("fold_affine/pad", IMAGE, PADS + "%r = Relu(%x)\n%p = Pad(%r, %all)\n"
     "%y = MaxPool(%p) {kernel_shape=[2, 3]}"),
    # ---- constants around linear ops ----
    ("fold_affine/affine-after", "%x: float32[2,2]", "%w = constant float32[2,1] [1e-25, 2e-25]\n"
     "%c = constant float32[] 1e-05\n%m = MatMul(%x, %w)\n%y = Mul(%m, %c)"),
    ("fold_affine/negative", IMAGE, PADS + "%c = Conv(%x, %w)\n%y = Neg(%c)"),
    ("fold_affine/scale-bias", "%x: float32[3,2]", MATRIX + "%m = MatMul(%x, %w)\n"
     "%b = Add(%m, %row)\n%y = Mul(%b, %row)"),
    ("fold_affine/affine-before", "%x: float32[3,2]",
     MATRIX + "%b = constant float32[2] [2.0, -1.0]\n"
     "%s = Sub(%x, %b)\n%y = Gemm(%s, %w, %row)"),
    # ---- norms and activations ----
    ("recognize/layer-norm-scale", "%x: float32[2,3,4]", "%s = constant float32[3,4] [1.0, 1.0, "
     "1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]\n%c = constant float32[4] [1.0, 2.0, 3.0, "
     "4.0]\n%n = LayerNormalization(%x, %s) {axis=1}\n%y = Mul(%n, %c)"),
    # ---- decomposition ----
    ("decompose/gelu", "%x: float32[3,4], %b: float32[4]", "%y = com.microsoft.BiasGelu(%x, %b)"),
    ("decompose/gelu", "%x: float32[3,4], %b: float32[4]", "%y = com.microsoft.FastGelu(%x, %b)"),
    ("decompose/gelu", "%x: float32[3,4]", "%y = com.microsoft.Gelu(%x)"),
    ("decompose/quick-gelu", "%x: float32[3,4]", "%y = com.microsoft.QuickGelu(%x) {alpha=2.5}"),
    ("decompose/fused-conv", IMAGE + ", %z: float32[1,1,4,4]", PADS +
     "%b = constant float32[1] [0.5]\n"
     "%y = com.microsoft.FusedConv(%x, %w, %b, %z) {activation=\"Relu\"}"),
    ("decompose/fused-conv", IMAGE, PADS + "%y = com.microsoft.FusedConv(%x, %w) "
     "{activation=\"Clip\", activation_params=[-0.25, 0.5], strides=[2, 1]}"),
    ("decompose/fused-gemm", "%x: float32[2,3]",
     MATRIX + "%y = com.microsoft.FusedGemm(%x, %w, %row) "
     "{activation=\"HardSigmoid\", activation_alpha=0.5, activation_beta=0.25, "
     "transA=1, alpha=0.5, beta=2.0}"),
    ("decompose/fused-gemm", "%x: float32[3,2]",
     MATRIX + "%y = com.microsoft.FusedGemm(%x, %w, %row) "
     "{activation=\"LeakyRelu\", activation_alpha=0.75}"),
    ("decompose/chain", "%x: float32[3,2], %b: float32[2]", "%y = Mean(%x, %b, %x)"),
    ("decompose/chain-narrow", "%x: float16[3], %b: float16[3]", "%y = Mean(%x, %b, %x)"),
    ("decompose/batch-norm", "%x: float16[2,3], %s: float32[3]",
     "%v = Mul(%s, %s)\n%y = BatchNormalization(%x, %s, %s, %s, %v) {epsilon=0.5}"),
    ("decompose/batch-norm", "%x: float32[2,3], %s: float32[3]", "%b = constant float32[3] "
     "[1.0, 2.0, 3.0]\n%y = BatchNormalization(%x, %s, %b, %b, %b)"),
    # ---- group norm ----
    ("recognize/group-norm", CHANNELS, GROUPS + "%y = kiln.Reshape(%n) {shape=[2, 4, 3]}"),
    ("recognize/group-norm-affine", CHANNELS, GROUPS + "%g = kiln.Reshape(%n) {shape=[2, 4, 3]}\n"
     "%c = constant float32[4,1] [1.5, 2.0, -3.0, 0.5]\n%y = Mul(%g, %c)"),
    ("recognize/group-norm-affine", CHANNELS, GROUPS + "%g = kiln.Reshape(%n) {shape=[2, 4, 3]}\n"
     "%c = constant float32[1,1,1] [2.0]\n%y = Add(%g, %c)"),
    ("recognize/group-norm-affine", CHANNELS, GROUPS + "%g = kiln.Reshape(%n) {shape=[2, 4, 3]}\n"
     "%c = constant float32[4,1] [1.5, 2.0, -3.0, 0.5]\n%b = Add(%g, %c)\n%y = Mul(%b, %c)"),
    ("recognize/group-norm-affine", CHANNELS, GROUPS + "%g = kiln.Reshape(%n) {shape=[2, 4, 3]}\n"
     "%c = constant float32[4,1] [1.5, 2.0, -3.0, 0.5]\n%b = Mul(%g, %c)\n%y = Mul(%b, %c)"),
]  # fmt: skip

LEFT = [
    # ---- reductions ----
    ("mean", X3, "%a = constant int64[1] [1]\n%c = constant float32[] 0.33333334\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("mean", X3, "%a = constant int64[1] [2]\n%c = constant float32[] 4.0\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("mean", X3, "%a = constant int64[1] [2]\n%c = constant float32[4] [0.25, 0.25, 0.25, 0.5]\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("mean", X3, "%a = constant int64[2] [0, 2]\n%c = constant float32[] 0.25\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("mean", "%x: float16[3,4]", "%a = constant int64[1] [1]\n%c = constant float16[] 0.25\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("mean", X, "%c = constant float32[] 1.0\n%s = ReduceSum(%x) {noop_with_empty_axes=1}\n"
     "%y = Mul(%s, %c)"),
    ("mean", "%x: float32[0,4]", "%a = constant int64[1] [0]\n%c = constant float32[] inf\n"
     "%s = ReduceSum(%x, %a)\n%y = Mul(%s, %c)"),
    ("reduce-ones", "%x: float32[2,1,3]", "%a = constant int64[1] [1]\n%y = ReduceSum(%x, %a)"),
    ("reduce-ones", "%x: float32[2,1,3]", "%a = constant int64[2] [1, 2]\n%y = ReduceMax(%x, %a)"),
    ("reduce-ones", "%x: float32[2,1,3]",
     "%a = constant int64[1] [1]\n%y = ReduceMax(%x, %a) {keepdims=0}"),
    ("reduce-ones", "%x: float32[1,1], %i: int64[1]", "%y = ReduceMax(%x, %i)"),
    ("sum-ones", "%x: float32[2,1,3]", "%a = constant int64[1] [1]\n%y = ReduceMax(%x, %a)"),
    ("sum-ones", "%x: int32[2,1,3]", "%a = constant int64[1] [1]\n%y = ReduceSum(%x, %a)"),
    ("reduce-keeping", X, "%a = constant int64[1] [0]\n%r = ReduceMax(%x, %a) {keepdims=0}\n"
     "%y = kiln.Reshape(%r) {shape=[4, 1]}"),
    ("reduce-keeping", X, "%a = constant int64[1] [0]\n%r = ReduceMax(%x, %a)\n"
     "%y = kiln.Reshape(%r) {shape=[1, 4, 1]}"),
    ("reduce-keeping", "%x: float32[K,M,N]", "%a = constant int64[1] [0]\n"
     "%r = ReduceMax(%x, %a) {keepdims=0}\n%y = kiln.Reshape(%r) {shape=[1, <N>, <M>]}"),
    ("reduce-keeping", "%x: float32[2,1,3], %i: int64[1]",
     "%r = ReduceMax(%x, %i) {keepdims=0}\n%y = kiln.Reshape(%r) {shape=[2, 1, 3]}"),
    # ---- casts ----
    ("dropout", "%x: float32[4], %t: bool[]", "%r = constant float32[] 0.5\n"
     "%d, %mask = Dropout(%x, %r, %t)\n%y = Mul(%d, %d)"),
    ("cast-cast", "%x: int8[4]", "%w = Cast(%x) {to=1}\n%y = Cast(%w) {to=2}"),
    ("cast-cast", "%x: int8[4]", "%w = Cast(%x) {to=6}\n%y = Cast(%w) {to=8}"),
    ("cast-cast", "%x: int32[4]", "%w = Cast(%x) {to=3}\n%y = Cast(%w) {to=7}"),
    # ---- arithmetic ----
    ("add-zero", X, "%c = constant float32[] 0.0\n%y = Add(%x, %c)"),
    ("add-zero", X, "%c = constant float32[4] [-0.0, -0.0, 1.0, -0.0]\n%y = Add(%x, %c)"),
    ("sub-zero", X, "%c = constant float32[] -0.0\n%y = Sub(%x, %c)"),
    ("sum-zero", X, "%c = constant float32[] 0.0\n%y = Add(%x, %c)"),
    ("sum-zero", X, "%a = constant int64[1] [1]\n%c = constant float32[3,1] [0.0, 0.0, 0.0]\n"
     "%s = ReduceSum(%x, %a) {keepdims=0}\n%y = Add(%s, %c)"),
    ("div-constant", "%x: int32[4]", "%c = constant int32[] 2\n%y = Div(%x, %c)"),
    ("div-constant", X, "%c = constant float32[] 3.0\n%y = Div(%x, %c)"),
    ("div-constant", X, "%c = constant float32[] 0.0\n%y = Div(%x, %c)"),
    ("div-constant", "%x: float32[4]", "%c = constant float32[2,1] [2.0, 4.0]\n%y = Div(%x, %c)"),
    ("pow-two", "%x: int32[4]", "%c = constant float32[] 2.0\n%y = Pow(%x, %c)"),
    ("pow-two", "%x: float32[4]", "%c = constant float32[2,1] [2.0, 2.0]\n%y = Pow(%x, %c)"),
    ("pow-half", "%x: float32[4]", "%c = constant float32[] 0.5\n%y = Pow(%x, %c)"),
    ("pow-half", "%x: float16[4]", "%c = constant float16[] 0.5\n%p = Abs(%x)\n%y = Pow(%p, %c)"),
    ("twice", X, "%r = Floor(%x)\n%y = Ceil(%r)"),
    # ---- quantized ----
    ("quantize-again", "%x: uint8[4]", "%s = constant float32[] 0.1\n%z = constant uint8[] 3\n"
     "%f = DequantizeLinear(%x, %s)\n%y = QuantizeLinear(%f, %s, %z)"),
    ("quantize-again", "%x: uint8[4]", "%s = constant float32[] 0.1\n%z = constant uint8[] 3\n"
     "%f = DequantizeLinear(%x, %s, %z)\n%y = QuantizeLinear(%f, %s)"),
    ("quantize-again", "%x: int8[2,2]", "%s = constant float32[2] [0.1, 0.2]\n"
     "%z = constant int8[2] [1, -1]\n%f = DequantizeLinear(%x, %s, %z) {axis=0}\n"
     "%y = QuantizeLinear(%f, %s, %z) {axis=1}"),
    ("quantize-again", "%x: uint8[4]", "%s = constant float32[] 0.1\n%t = constant float32[] 0.2\n"
     "%f = DequantizeLinear(%x, %s)\n%y = QuantizeLinear(%f, %t)"),
    ("quantize-again", "%x: uint8[4]", "%s = constant float16[] 0.1\n"
     "%z = constant int8[] 0\n%f = DequantizeLinear(%x, %s)\n%y = QuantizeLinear(%f, %s, %z)"),
    ("quantize-again", "%x: uint16[4]", "%s = constant float16[] 0.1\n"
     "%z = constant uint16[] 3\n%f = DequantizeLinear(%x, %s, %z)\n"
     "%y = QuantizeLinear(%f, %s, %z)"),
    ("move-quantized", "%x: uint8[2,2]", "%s = constant float32[2] [0.1, 0.3]\n"
     "%z = constant uint8[2] [0, 9]\n%k = constant float32[] 0.2\n"
     "%f = DequantizeLinear(%x, %s, %z)\n%t = Transpose(%f) {perm=[1, 0]}\n"
     "%y = QuantizeLinear(%t, %k)"),
    ("move-quantized", "%x: uint8[2,2]", "%s = constant float32[2] [0.1, 0.3]\n"
     "%z = constant uint8[2] [0, 9]\n%k = constant float32[] 0.2\n"
     "%f = DequantizeLinear(%x, %k)\n%t = Transpose(%f) {perm=[1, 0]}\n"
     "%y = QuantizeLinear(%t, %s, %z)"),
    ("move-quantized", "%x: uint16[2,2]", "%k = constant float32[] 0.2\n%z = constant uint16[] 5\n"
     "%f = DequantizeLinear(%x, %k, %z)\n%t = Transpose(%f) {perm=[1, 0]}\n"
     "%h = constant float32[] 0.4\n%y = QuantizeLinear(%t, %h, %z)"),
    ("pool-quantized", "%x: uint8[1,1,4,4]", "%k = constant float32[] 0.2\n"
     "%f = DequantizeLinear(%x, %k)\n%m, %at = MaxPool(%f) {kernel_shape=[2, 2]}\n"
     "%q = QuantizeLinear(%m, %k)\n%c = Cast(%at) {to=1}\n%d = Cast(%q) {to=1}\n"
     "%y = Add(%c, %d)"),
    ("pool-quantized", "%x: uint8[1,1,4,4]", "%k = constant float32[] 0.2\n"
     "%f = DequantizeLinear(%x, %k)\n%m, %at = MaxPool(%f) {kernel_shape=[2, 2]}\n"
     "%y = QuantizeLinear(%m, %k)"),
    # ---- movement ----
    ("reshape-same", "%x: float32[M,N]", "%y = kiln.Reshape(%x) {shape=[<N>, <M>]}"),
    ("broadcast-expand", "%x: float32[3], %b: float32[3]", "%e = kiln.Expand(%x) {shape=[2, 3]}\n"
     "%y = Add(%e, %b)"),
    ("expand-view", "%x: float32[3]", "%y = kiln.Expand(%x) {shape=[2, 3]}"),
    ("expand-view", "%x: float32[1,3]", "%y = kiln.Expand(%x) {shape=[2, 3]}"),
    ("gather", "%x: float32[3,5]", "%i = constant int64[3] [2, 2, 2]\n"
     "%y = Gather(%x, %i) {axis=1}"),
    ("gather", "%x: float32[3,5]", "%i = constant int64[3] [1, 0, -1]\n"
     "%y = Gather(%x, %i) {axis=1}"),
    ("gather", "%x: float32[3,5]", "%i = constant int64[0] []\n%y = Gather(%x, %i) {axis=1}"),
    ("pad-none", "%x: float32[3]", "%p = constant int64[2] [1, -1]\n%y = Pad(%x, %p)"),
    ("tile-once", "%x: float32[3]", "%p = constant int64[1] [2]\n%y = Tile(%x, %p)"),
    ("tile-once", "%x: float32[N]", "%p = constant int64[1] [2]\n%y = Tile(%x, %p)"),
    # ---- bounds ----
    ("clip-none", "%x: int8[4]", "%l = constant int8[] -127\n%y = Clip(%x, %l)"),
    ("clip-none", "%x: int8[4]", "%l = constant int8[] -128\n%h = constant int8[] 126\n"
     "%y = Clip(%x, %l, %h)"),
    ("clip-none", "%x: uint8[4]", "%l = constant uint8[] 1\n%y = Clip(%x, %l)"),
    ("clip-none", X + ", %l: float32[]", "%y = Clip(%x, %l)"),
    ("clip-clip", X + ", %l: float32[]", "%h = constant float32[] 0.5\n%c = Clip(%x, %l)\n"
     "%y = Clip(%c, _, %h)"),
    ("clip-clip", "%x: float16[4]", "%h = constant float16[] 0.5\n%r = Relu(%x)\n"
     "%y = Clip(%r, _, %h)"),
    ("clip-clip", X, "%h = constant float32[] nan\n%r = Relu(%x)\n%y = Clip(%r, _, %h)"),
    ("clip-clip", X, "%l = constant float32[] -0.0\n%c = Clip(%x, %l)\n%y = Relu(%c)"),
    ("where-constant", X + ", %b: float32[1,4]", "%c = constant bool[1,1] [false]\n"
     "%y = Where(%c, %x, %b)"),
    ("where-constant", X, "%c = constant bool[4] [true, true, false, true]\n%n = Neg(%x)\n"
     "%y = Where(%c, %x, %n)"),
    # ---- pads ----
    ("fold_affine/pad", IMAGE, PADS + "%one = constant float32[] 1.0\n"
     "%p = Pad(%x, %all, %one)\n%y = Conv(%p, %w)"),
    ("fold_affine/pad", IMAGE, PADS + "%one = constant float32[] 1.0\n"
     "%p = Pad(%x, %all, %one)\n%y = AveragePool(%p) {kernel_shape=[2, 2]}"),
    ("fold_affine/pad", IMAGE, PADS + "%one = constant float32[] 0.5\n%r = Relu(%x)\n"
     "%p = Pad(%r, %all, %one)\n%y = MaxPool(%p) {kernel_shape=[3, 3]}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all)\n%y = MaxPool(%p) {kernel_shape=[3, 3]}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all, %low)\n"
     "%y = MaxPool(%p) {kernel_shape=[2, 2], dilations=[2, 2]}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all, %low)\n"
     "%y = MaxPool(%p) {kernel_shape=[1, 1], strides=[5, 5]}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all, %low)\n"
     "%y = MaxPool(%p) {kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1}"),
    ("fold_affine/pad", IMAGE, PADS + "%p = Pad(%x, %all) {mode=\"reflect\"}\n%y = Conv(%p, %w)"),
    ("fold_affine/pad", IMAGE, PADS + "%crop = constant int64[8] [0, 0, 1, 1, 0, 0, -1, 0]\n"
     "%p = Pad(%x, %crop)\n%y = Conv(%p, %w)"),
    ("fold_affine/pad", IMAGE + ", %p: int64[4]", PADS + "%a = constant int64[2] [2, 3]\n"
     "%b = Pad(%x, %p, _, %a)\n%y = Conv(%b, %w)"),
    ("fold_affine/pad", IMAGE + ", %v: float32[]", PADS + "%p = Pad(%x, %all, %v)\n"
     "%y = Conv(%p, %w)"),
    ("fold_affine/pad", IMAGE + ", %j: int64[2]", PADS + "%p = Pad(%x, %two, _, %j)\n"
     "%y = Conv(%p, %w)"),
    ("fold_affine/pad", IMAGE + ", %i: int64[1]", PADS + "%one = constant int64[2] [1, 1]\n"
     "%h = Pad(%x, %one, _, %i)\n%v = constant float32[1,4,1,1] [1.0, 2.0, 3.0, 4.0]\n"
     "%p = kiln.Reshape(%h) {shape=[1, 4, 4, 4]}\n%y = Conv(%p, %v)"),
    # ---- constants around linear ops ----
    ("fold_affine/affine-after", "%x: float64[2,2]", "%w = constant float64[2,1] [1e-200, 2e-200]\n"
     "%c = constant float64[] 1e-200\n%m = MatMul(%x, %w)\n%y = Mul(%m, %c)"),
    ("fold_affine/affine-after", "%x: float32[2,2]", "%w = constant float32[2,1] [1e-25, 2e-25]\n"
     "%c = constant float32[] 1e-15\n%m = MatMul(%x, %w)\n%y = Mul(%m, %c)"),
    ("fold_affine/negative", "%x: float32[3,2], %w: float32[2,3]",
     "%c = MatMul(%x, %w)\n%y = Neg(%c)"),
    ("fold_affine/scale-bias", "%x: float32[3,2]", MATRIX + "%m = MatMul(%x, %w)\n"
     "%b = Add(%m, %row)\n%k = constant float32[3,1] [1.0, 2.0, 3.0]\n%y = Mul(%b, %k)"),
    ("fold_affine/scale-bias", "%x: float32[3,2]", MATRIX + "%m = MatMul(%x, %w)\n"
     "%b = Add(%m, %row)\n%k = constant float32[2,1,3] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]\n"
     "%y = Mul(%b, %k)"),
    ("fold_affine/affine-before", "%x: float32[2,3]",
     MATRIX + "%b = constant float32[3] [2.0, -1.0, 3.0]\n"
     "%s = Mul(%x, %b)\n%y = Gemm(%s, %w) {transA=1}"),
    ("fold_affine/affine-before", "%x: float32[1,2]", MATRIX + "%b = constant float32[3,2] "
     "[2.0, -1.0, 3.0, 4.0, 5.0, 6.0]\n%s = Mul(%x, %b)\n%y = Gemm(%s, %w)"),
    ("fold_affine/affine-before", "%x: float32[N,K]", MATRIX + "%b = constant float32[2] "
     "[2.0, -1.0]\n%s = Mul(%x, %b)\n%y = Gemm(%s, %w)"),
    ("fold_affine/affine-before", IMAGE, PADS + "%c = constant float32[] 2.0\n%s = Add(%x, %c)\n"
     "%y = Conv(%s, %w) {auto_pad=\"SAME_LOWER\", strides=[3, 3]}"),
    ("fold_affine/affine-before", IMAGE, PADS + "%c = constant float32[] 2.0\n%s = Add(%x, %c)\n"
     "%y = Conv(%s, %w) {pads=[0, 0, 0, 1]}"),
    # ---- decomposition ----
    ("decompose/chain", "%x: float16[3], %b: float16[3]", "%y = Sum(%x, %b, %x)"),
    ("decompose/chain", "%x: float16[3], %b: float16[3]", "%y = Max(%x, %b)"),
    ("decompose/chain-narrow", "%x: float16[3], %b: float16[3]", "%y = Min(%x, %b, %x)"),
    ("decompose/batch-norm", "%x: float32[2,3]", "%s = constant float32[3] [1.0, 2.0, 3.0]\n"
     "%y = BatchNormalization(%x, %s, %s, %s, %s)"),
    ("decompose/batch-norm", "%x: float32[4,3], %s: float32[3]", "%v = Mul(%s, %s)\n"
     "%y, %m, %n = BatchNormalization(%x, %s, %s, %s, %v) {training_mode=1}"),
    ("fold_affine/batch-norm", "%x: float32[4,3]", "%s = constant float32[3] [1.0, 2.0, 3.0]\n"
     "%y, %m, %n = BatchNormalization(%x, %s, %s, %s, %s) {training_mode=1}"),
    # ---- norms and activations ----
    ("recognize/layer-norm", "%x: float32[4,4]", "%a = constant int64[1] [1]\n"
     "%e = constant float32[] 0.25\n%m = ReduceMean(%x, %a)\n%d = Sub(%x, %m)\n"
     "%q = Mul(%d, %d)\n%v = ReduceMean(%q, %a) {keepdims=0}\n%w = Add(%v, %e)\n"
     "%r = Sqrt(%w)\n%y = Div(%d, %r)"),
    ("recognize/layer-norm", X, "%e = constant float32[] 0.25\n"
     "%m = ReduceMean(%x) {noop_with_empty_axes=1}\n%d = Sub(%x, %m)\n%q = Mul(%d, %d)\n"
     "%v = ReduceMean(%q) {noop_with_empty_axes=1}\n%w = Add(%v, %e)\n%r = Sqrt(%w)\n"
     "%y = Div(%d, %r)"),
    ("recognize/swish", X, "%c = constant float32[4] [1.0, 2.0, 3.0, 4.0]\n%a = Mul(%x, %c)\n"
     "%s = Sigmoid(%a)\n%y = Mul(%x, %s)"),
    ("recognize/swish", "%x: float32[N,4]", "%c = constant float32[2,1] [1.5, 1.5]\n"
     "%a = Mul(%x, %c)\n%s = Sigmoid(%a)\n%y = Mul(%x, %s)"),
    # ---- group norm ----
    ("recognize/group-norm-affine", "%x: float32[2,1,3]", "%s = constant float32[1] [1.0]\n"
     "%z = constant float32[1] [0.0]\n%n = GroupNormalization(%x, %s, %z) {num_groups=1}\n"
     "%c = constant float32[4,1] [1.5, 2.0, -3.0, 0.5]\n%y = Mul(%n, %c)"),
    ("recognize/group-norm", CHANNELS, GROUPS + "%y = kiln.Reshape(%n) {shape=[2, 3, 4]}"),
    ("recognize/group-norm", "%x: float32[2,4]",
     "%s = kiln.Reshape(%x) {shape=[2, 2, 2]}\n" + NORM +
     "%y = kiln.Reshape(%n) {shape=[2, 4]}"),
    ("recognize/group-norm", "%x: float32[2,3,4]",
     "%s = kiln.Reshape(%x) {shape=[2, 2, 6]}\n" + NORM +
     "%y = kiln.Reshape(%n) {shape=[2, 3, 4]}"),
    ("recognize/group-norm", CHANNELS, "%s = kiln.Reshape(%x) {shape=[1, 2, 12]}\n" + NORM +
     "%y = kiln.Reshape(%n) {shape=[2, 4, 3]}"),
    ("recognize/group-norm", CHANNELS, "%s = kiln.Reshape(%x) {shape=[2, 2, 3, 2]}\n" + NORM +
     "%y = kiln.Reshape(%n) {shape=[2, 4, 3]}"),
    ("recognize/group-norm-affine", CHANNELS, GROUPS + "%g = kiln.Reshape(%n) {shape=[2, 4, 3]}\n"
     "%c = constant float32[3] [1.5, 2.0, -3.0]\n%y = Mul(%g, %c)"),
    ("recognize/group-norm-affine", CHANNELS, GROUPS + "%g = kiln.Reshape(%n) {shape=[2, 4, 3]}\n"
     "%c = constant float32[2,1,1] [1.5, 2.0]\n%y = Mul(%g, %c)"),
]  # fmt: skip


def rewrites(name: str, params: str, lines: str) -> dict[str, int]:
    """How often each rule of a pass applied; the numbers are the same before and after."""
    graph = graph_of(f"graph main({params}) -> (y) {{\n{lines}\nreturn %y\n}}")
    feeds = {**random_feeds(graph), **_known(params)}
    with np.errstate(all="ignore"):
        expected = evaluate(graph, feeds)
        done = run(graph, name).records[0].details
        same(evaluate(graph, feeds), expected, 1e-2 if "float16" in params else 1e-5)
    return dict(done)


def _split(text: str) -> tuple[str, str]:
    """The pass and its rule; ``simplify`` is not said."""
    name, slash, rule = text.rpartition("/")
    (found,) = parse_pipeline(name or "simplify")
    assert rule in {r.name for r in found.rules}
    return found.name, rule


def _known(params: str) -> dict[str, Any]:
    """Axes that only the run knows, and a flag."""
    values = {
        "%i": np.array([1]),
        "%j": np.array([2, 3]),
        "%p": np.ones(4, np.int64),
        "%t": np.array(False),
    }
    return {name[1:]: v for name, v in values.items() if name in params}


@pytest.mark.parametrize(("rule", "params", "lines"), REWRITTEN)
def test_what_a_rule_rewrites(rule: str, params: str, lines: str) -> None:
    name, rule = _split(rule)
    assert rewrites(name, params, lines).get(rule) == 1


@pytest.mark.parametrize(("rule", "params", "lines"), LEFT)
def test_what_a_rule_leaves(rule: str, params: str, lines: str) -> None:
    name, rule = _split(rule)
    assert rule not in rewrites(name, params, lines)
