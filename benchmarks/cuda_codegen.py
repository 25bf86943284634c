"""Code generation for a GPU, which this machine need not have, for ONNX's own backend cases.

    python benchmarks/cuda_codegen.py               every case as far as CUDA source
    python benchmarks/cuda_codegen.py --nvcc        whole artifacts, the device code made by nvcc
    python benchmarks/cuda_codegen.py --sample 200  a fixed part of the cases

Nothing is run. A case is ``built`` where everything was made, ``refused`` where `graphkiln.check`
says what cannot be compiled, and ``failed`` where anything else was raised; with ``--nvcc`` also
where compiling and `graphkiln.check` do not agree. The exit code is 1 where a case fails.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator

from conformance import Case, chosen

import graphkiln


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filter", default="", help="a regular expression for names")
    parser.add_argument("--sample", type=int, default=0, help="try only so many of them")
    parser.add_argument("--seed", type=int, default=0, help="which ones a sample holds")
    parser.add_argument("--target", default="cuda:sm_90", help="what to compile for")
    parser.add_argument("--nvcc", action="store_true", help="compile whole artifacts")
    options = parser.parse_args()

    counts: Counter[str] = Counter()
    for case in chosen(options.filter, options.sample, options.seed):
        reasons = list(problems(case, options.target, options.nvcc))
        status = reasons[0][0] if reasons else "built"
        counts[status] += 1
        for _, reason in reasons:
            print(f"{status:8} {case.kind}/{case.name}: {reason}", flush=True)
    told = ", ".join(f"{counts[status]} {status}" for status in ("built", "refused", "failed"))
    print(f"{counts.total()} cases: {told}")
    return 1 if counts["failed"] else 0


def problems(case: Case, target: str, nvcc: bool) -> Iterator[tuple[str, str]]:
    """The status of a case that is not built, with each reason."""
    model, _ = case.read()
    try:
        blockers = graphkiln.check(model, target=target)
    except Exception as e:
        yield "failed", f"check raises {type(e).__name__}: {first_line(e)}"
        return
    for blocker in blockers:
        yield "refused", str(blocker)
    if nvcc:
        yield from disagreement(model, target, bool(blockers))


def disagreement(model: object, target: str, blocked: bool) -> Iterator[tuple[str, str]]:
    """What compiling says where that is not what `graphkiln.check` said."""
    try:
        graphkiln.compile(model, target=target)
    except graphkiln.GraphkilnError as e:
        if not blocked:
            yield "failed", f"check finds nothing, compiling raises {first_line(e)}"
    except Exception as e:
        yield "failed", f"compiling raises {type(e).__name__}: {first_line(e)}"
    else:
        if blocked:
            yield "failed", "check finds blockers, but it can be compiled"


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]


if __name__ == "__main__":
    sys.exit(main())
