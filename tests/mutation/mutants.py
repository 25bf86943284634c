"""The files with rules, the tests of each, and the faults that no test can notice."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .changes import Change, changes

ROOT = Path(__file__).parents[2]

_TESTS = {
    "passes/simplify": ("simplify", "rule_conditions", "exactness", "subnormals"),
    "passes/simplify/quantized.py": ("simplify", "rule_conditions", "qdq_fuse", "saturation"),
    "passes/simplify/dequantized.py": ("dequantized", "simplify"),
    "passes/simplify/saturation.py": ("saturation", "simplify", "rule_conditions"),
    "passes/fold_affine": ("fold_affine", "rule_conditions"),
    "passes/recognize": ("recognize", "rule_conditions"),
    "passes/recognize/attention.py": ("attention", "recognize"),
    "passes/qdq_fuse.py": ("qdq_fuse", "saturation"),
    "passes/quantizer_scales.py": ("quantizer_scales", "qdq_fuse"),
    "passes/tabulate.py": ("tabulate",),
    "passes/signedness.py": ("signedness", "qdq_fuse"),
    "passes/subnormals.py": ("subnormals",),
    "passes/decompose.py": ("decompose", "rule_conditions", "exactness"),
    "passes/layout": ("layout",),
    "passes/fuse": ("fuse",),
    "passes/anchors.py": ("fuse",),
    "passes/float_signs.py": ("value_queries", "exactness", "rule_conditions", "simplify"),
    "passes/precision.py": ("precision", "simplify", "exactness", "subnormals"),
    "passes/queries.py": ("value_queries", "simplify"),
    "passes/fold.py": ("fold", "exactness"),
    "passes/shapes.py": ("shapes",),
    "passes/sequences.py": ("sequences",),
    "passes/unroll.py": ("unroll",),
    "passes/cse.py": ("dce_cse",),
    "passes/dce.py": ("dce_cse",),
}
"""The tests of a file or of a folder with rules, as names below ``tests/passes``."""

_COMMON = ("tests/passes/test_random.py", "tests/proofs/test_movement.py")
"""Random graphs, and proofs of what the rules of several passes claim."""


@dataclass(frozen=True)
class RuleFile:
    """A file with rules."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @property
    def module(self) -> str:
        parts = Path(self.name).with_suffix("").parts
        return ".".join(("graphkiln", *(p for p in parts if p != "__init__")))

    @property
    def tests(self) -> list[str]:
        """The files with its tests, those of its own first."""
        folder = str(Path(self.name).parent)
        own = _TESTS.get(self.name) or _TESTS[folder]
        return [*(f"tests/passes/test_{name}.py" for name in own), *_COMMON]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text("utf-8"), str(self.path))

    def mutants(self) -> list[Mutant]:
        """Its faults, each once, in the order of the text."""
        found: dict[str, Mutant] = {}
        for change in changes(self.tree):
            mutant = Mutant(self, change, *change.texts())
            if mutant.before != mutant.after:
                found.setdefault(mutant.key, mutant)
        return list(found.values())


@dataclass(frozen=True, eq=False)
class Mutant:
    """One fault of a file; ``before`` and ``after`` are the line or the argument that has it."""

    file: RuleFile
    change: Change
    before: str
    after: str

    @property
    def key(self) -> str:
        """What tells it from others, wherever in the file it stands."""
        return f"{self.file.name} {self.change.site.scope}: {self.before} => {self.after}"

    @property
    def line(self) -> int:
        return getattr(self.change.site.piece, "lineno", 0)

    @property
    def rank(self) -> str:
        """Puts mutants into an order of chance that edits elsewhere do not change."""
        return hashlib.sha256(self.key.encode()).hexdigest()


def rule_files() -> list[RuleFile]:
    """All files with rules."""
    return [RuleFile(str(p.relative_to(ROOT))) for p in sorted(_paths())]


def _paths() -> Iterator[Path]:
    for name in _TESTS:
        path = ROOT / name
        if path.is_dir():
            yield from (p for p in path.glob("*.py"))
        elif str(Path(name).parent) not in _TESTS:
            yield path
