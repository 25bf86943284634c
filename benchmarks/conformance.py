"""ONNX's own backend cases: each is compiled and run in a process of its own.

    python benchmarks/conformance.py                      every case, as many at once as cores
    python benchmarks/conformance.py --filter conv -v     those whose name matches
    python benchmarks/conformance.py --sample 100         a fixed part of them

A case is ``right`` if every output is close to what ONNX gives by ONNX's own rule, ``wrong`` if
not, ``refused`` if the compiler says that it cannot, ``failed`` if anything else was raised; a
``crash`` or a ``timeout`` is the process's end. Cases of ops that draw random numbers cannot
agree and count as ``random``. The exit code is 1 where a case is wrong, crashes or hangs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper
from onnx.backend.test.runner import Runner
from pool import Ended, run_all

DATA = Path(onnx.backend.test.__file__).parent / "data"
FOLDERS = ("simple", "pytorch-operator", "pytorch-converted")
STATUSES = ("right", "wrong", "refused", "failed", "crash", "timeout", "random")
BAD = ("wrong", "crash", "timeout")
RANDOM = re.compile("bernoulli|training_dropout(?!_zero_ratio)")

Arrays = list[Any]
Sets = list[tuple[Arrays, Arrays]]


@dataclass(frozen=True)
class Case:
    """One model and its data; ``read`` gives the model and pairs of inputs and outputs."""

    kind: str
    name: str
    rtol: float
    atol: float
    read: Callable[[], tuple[onnx.ModelProto, Sets]]


@dataclass(frozen=True)
class Result:
    """What became of a case."""

    kind: str
    name: str
    status: str
    message: str
    seconds: float


def load_cases() -> list[Case]:
    """Every case of the installed onnx, by kind and name."""
    with warnings.catch_warnings():  # making the data overflows on purpose
        warnings.simplefilter("ignore")
        cases = [*_node_cases(), *_folder_cases(), *_light_cases()]
    return sorted(cases, key=lambda c: (c.kind, c.name))


def _node_cases() -> Iterator[Case]:
    from onnx.backend.test.case.model import collect_testcases as collect_models
    from onnx.backend.test.case.node import collect_testcases as collect_nodes

    stored = {path.name for path in (DATA / "simple").iterdir()}
    models = [c for c in collect_models() if c.kind == "simple" and c.name not in stored]
    for c in [*collect_nodes(None), *models]:
        kind = "expanded" if "_expanded" in c.name else c.kind

        def read(c: Any = c) -> tuple[onnx.ModelProto, Sets]:
            sets = [([_array(x) for x in i], [_array(x) for x in o]) for i, o in c.data_sets]
            return c.model, sets

        yield Case(kind, c.name, c.rtol, c.atol, read)


def _folder_cases() -> Iterator[Case]:
    for kind in FOLDERS:
        for path in sorted((DATA / kind).glob("*/model.onnx")):
            extra = path.with_name("data.json")
            told = json.loads(extra.read_text()) if extra.exists() else {}

            def read(path: Path = path) -> tuple[onnx.ModelProto, Sets]:
                model = onnx.load(path)
                folders = sorted(path.parent.glob("test_data_set*"))
                return model, [_stored_set(model, folder) for folder in folders]

            yield Case(kind, path.parent.name, told.get("rtol", 1e-3), told.get("atol", 1e-7), read)


def _light_cases() -> Iterator[Case]:
    for path in sorted((DATA / "light").glob("*.onnx")):

        def read(path: Path = path) -> tuple[onnx.ModelProto, Sets]:
            model = onnx.load(path)
            stem = str(path).removesuffix(".onnx")
            wanted = [
                _stored(Path(f"{stem}_output_{i}.pb"), o.type)
                for i, o in enumerate(model.graph.output)
            ]
            return model, [([_ramp(i.type) for i in _true_inputs(model)], wanted)]

        yield Case("light", path.stem, 1e-3, 1e-7, read)


def _true_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    given = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in given]


def _ramp(t: onnx.TypeProto) -> np.ndarray:
    """The input that the stored outputs of the light models belong to."""
    shape = [d.dim_value or 1 for d in t.tensor_type.shape.dim]
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def _stored_set(model: onnx.ModelProto, folder: Path) -> tuple[Arrays, Arrays]:
    types = {"input": _true_inputs(model), "output": list(model.graph.output)}
    found = {
        side: [_stored(folder / f"{side}_{i}.pb", infos[i].type)
               for i in range(len(list(folder.glob(f"{side}_*.pb"))))]
        for side, infos in types.items()
    }  # fmt: skip
    return found["input"], found["output"]


def _stored(path: Path, t: onnx.TypeProto) -> Any:
    proto: Any = onnx.TensorProto()
    if t.HasField("sequence_type"):
        proto = onnx.SequenceProto()
    elif t.HasField("optional_type"):
        proto = onnx.OptionalProto()
    proto.ParseFromString(path.read_bytes())
    return _array(proto)


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    if isinstance(value, list | tuple):
        return [_array(v) for v in value]
    return value if value is None else np.asarray(value)


def compare(got: Any, wanted: Any, case: Case) -> None:
    """Raises ``AssertionError`` where a value is not what ONNX gives."""
    if wanted is None or got is None:
        assert got is wanted, f"{type(got).__name__} instead of {type(wanted).__name__}"
    elif isinstance(wanted, list):
        fits = isinstance(got, list | tuple) and len(got) == len(wanted)
        assert fits, "the sequences differ in length"
        for a, b in zip(got, wanted, strict=True):
            compare(a, b, case)
    else:
        got = np.asarray(got)
        assert got.dtype == wanted.dtype, f"{got.dtype} instead of {wanted.dtype}"
        if wanted.dtype.kind == "V" and wanted.dtype.name != "bfloat16":
            got, wanted = got.astype(np.float32), wanted.astype(np.float32)
        Runner.assert_similar_outputs([wanted], [got], case.rtol, case.atol)


def run_case(case: Case, target: str = "cpu") -> tuple[str, str]:
    """Compile and run a case in this process; its status and a message."""
    from graphkiln import onnx_backend

    model, sets = case.read()
    try:
        compiled = onnx_backend.prepare(model, target=target)
    except Exception as e:
        ours = type(e).__module__.startswith("graphkiln")
        return "refused" if ours else "failed", f"{type(e).__name__}: {e}"
    try:
        results = [compiled.run(inputs) for inputs, _ in sets]
    except Exception as e:
        return "failed", f"{type(e).__name__}: {e}"
    try:
        for outputs, (_, wanted) in zip(results, sets, strict=True):
            compare(outputs, wanted, case)
    except AssertionError as e:
        return ("random" if RANDOM.search(case.name) else "wrong"), str(e)
    return "right", ""


def result_of(ended: Ended[Case]) -> Result:
    """A case's result, also where its process did not live to tell."""
    status, message = ended.status, f"exit code {ended.answer}"
    if status == "done":
        status, message = ended.answer
    case = ended.item
    return Result(case.kind, case.name, status, message, round(ended.seconds, 3))


def chosen(pattern: str, sample: int, seed: int) -> list[Case]:
    """The cases whose name matches, or a fixed sample of them."""
    cases = [c for c in load_cases() if re.search(pattern, c.name)]
    if 0 < sample < len(cases):
        kept = set(random.Random(seed).sample(range(len(cases)), sample))
        cases = [c for i, c in enumerate(cases) if i in kept]
    return cases


def show(results: Sequence[Result]) -> None:
    """Totals by kind, and every case that is not right."""
    for r in results:
        if r.status not in ("right", "random"):
            reason = " ".join(r.message.split())[:200]
            print(f"{r.status:8} {r.kind}/{r.name}: {reason}")
    kinds = [*dict.fromkeys(r.kind for r in results), "all"]
    print(f"\n{'':20}{'cases':>8}" + "".join(f"{s:>9}" for s in STATUSES))
    for kind in kinds:
        counts = Counter(r.status for r in results if kind in ("all", r.kind))
        print(f"{kind:20}{counts.total():8}" + "".join(f"{counts[s]:9}" for s in STATUSES))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filter", default="", help="a regular expression for names")
    parser.add_argument("--sample", type=int, default=0, help="run only so many of them")
    parser.add_argument("--seed", type=int, default=0, help="which ones a sample holds")
    parser.add_argument("--target", default="cpu", help="what to compile for")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=60, help="seconds for one case")
    parser.add_argument("--json", type=Path, help="write every result to this file")
    parser.add_argument("-v", "--verbose", action="store_true", help="print cases as they end")
    options = parser.parse_args()

    from graphkiln import onnx_backend

    onnx_backend.warmup()
    cases = chosen(options.filter, options.sample, options.seed)

    results = []
    work = partial(run_case, target=options.target)
    for ended in run_all(cases, work, jobs=options.jobs, limit=options.limit):
        result = result_of(ended)
        results.append(result)
        if options.verbose:
            print(f"{result.status:8} {result.seconds:7.2f} s  {result.kind}/{result.name}")
    results.sort(key=lambda r: (r.kind, r.name))
    show(results)
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    return 1 if any(r.status in BAD for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
