"""What named CPUs require: all that LLVM may use when it compiles for them."""

from __future__ import annotations

import pytest

from graphkiln.targets.cpu.features import detected_features, features_of, named_cpus
from graphkiln.targets.cpu.target import CpuTarget

CHOSEN_BY_LLVM = {
    "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "sse4a": "sse4a", "popcnt": "popcnt",
    "lzcnt": "abm", "bmi": "bmi1", "bmi2": "bmi2", "tbm": "tbm", "movbe": "movbe", "xop": "xop",
    "fma4": "fma4", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "gfni": "gfni",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd", "avx512dq": "avx512dq",
    "avx512vl": "avx512vl", "avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16", "avx512ifma": "avx512ifma", "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2", "avx512bitalg": "avx512_bitalg", "avxvnni": "avx_vnni",
    "avx512vpopcntdq": "avx512_vpopcntdq",
}  # fmt: skip
"""LLVM's names of instruction sets that it uses without being told to, and Linux's names."""


@pytest.mark.parametrize("name", [n for n in named_cpus() if features_of(n).arch == "x86_64"])
def test_requires_what_llvm_may_use(name: str) -> None:
    from tvm.target.codegen import llvm_get_cpu_features

    cpu = features_of(name)
    used = {str(f) for f in llvm_get_cpu_features(CpuTarget(cpu).tvm_target())}
    assert {flag for f, flag in CHOSEN_BY_LLVM.items() if f in used} == set(cpu.required)


@pytest.mark.parametrize(
    ("model", "missing", "name"),
    [
        ("sapphirerapids", (), "sapphirerapids"),
        ("znver4", (), "znver4"),
        # Cooper Lake and Cascade Lake have bfloat16 or not, but no byte permutations.
        ("sapphirerapids", ("avx512vbmi",), "cascadelake"),
        ("znver4", ("sse4a",), "icelake-server"),
        ("znver4", ("avx512f",), "x86-64-v3"),
    ],
)
def test_takes_the_most_specific_cpu_that_a_machine_is(
    model: str, missing: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = frozenset(features_of(model).required) - set(missing)
    monkeypatch.setattr("graphkiln.targets.cpu.features.cpu_features", lambda: flags)
    monkeypatch.setattr("graphkiln.targets.cpu.features.machine_arch", lambda: "x86_64")
    assert detected_features().name == name
