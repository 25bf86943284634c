"""The README and the pages of docs/: their code runs, and what they name exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
SUMMARY = re.compile(r"^  ([a-z][a-z ]*?)  +(.+?)\s*$", re.M)
API = sorted((ROOT / "docs" / "api").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text("utf-8")) if name == language]


def having(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout to what only reads the models."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return tmp_path


@pytest.mark.parametrize("page", having("python"), ids=lambda p: p.name)
def test_python_runs(page: Path, checkout: Path) -> None:
    """All blocks of a page in one process, in order."""
    script = checkout / "page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=checkout, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", having("console"), ids=lambda p: p.name)
def test_commands_run(page: Path, checkout: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in "\n".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            done = subprocess.run(
                shlex.split(line[2:]), cwd=checkout, capture_output=True, text=True, timeout=240,
                env={**os.environ, "PATH": path},
            )  # fmt: skip
            assert done.returncode == 0, line + "\n" + done.stderr


def test_the_summary_of_the_readme_is_real(checkout: Path) -> None:
    """Its labels and what does not depend on the machine."""
    (shown,) = [b for b in blocks(ROOT / "README.md", "") if "Summary" in b]
    command, _, _ = shown.partition("\n")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        shlex.split(command[2:]), cwd=checkout, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, real = (dict(SUMMARY.findall(t.partition("Summary")[2])) for t in (shown, done.stdout))
    assert list(told) == list(real)
    for label in ("nodes", "kernels", "runs", "operations per run", "host functions"):
        assert told[label] == real[label]


def test_dumps_of_the_readme_are_real(tmp_path: Path) -> None:
    import graphkiln

    model = ROOT / "tests" / "models" / "mnist_cntk.onnx"
    graphkiln.optimize(model, dump_ir=tmp_path, stop_after="fold_affine")
    first, *_, last = sorted(tmp_path.iterdir())
    shown = blocks(ROOT / "README.md", "text")
    assert len(shown) == 2
    for block, dump in zip(shown, (first, last), strict=True):
        assert {line.strip() for line in dump.read_text("utf-8").splitlines()} >= set(
            block.splitlines()
        )


def test_dumps_of_the_architecture_page_are_real(tmp_path: Path) -> None:
    import graphkiln

    model = ROOT / "tests" / "models" / "mnist_cntk.onnx"
    graphkiln.compile(model, "cpu:x86-64-v3", dump_ir=tmp_path)
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    shown = re.findall(r"<!-- (\S+) -->\n```text\n(.*?)```", page, re.S)
    assert len(shown) == 6
    for name, block in shown:
        files = [*tmp_path.glob(name), *tmp_path.glob(f"{name}_*")]
        text = "\n".join(f.read_text("utf-8") for f in files)
        real = {line.strip() for line in re.sub(r"_[0-9a-f]{16}\b", "_<digest>", text).splitlines()}
        assert real >= set(block.splitlines()), name


FOLDERS = (
    "cli codegen distiller docs frontend ir passes pruner quantizer runtime targets training tests"
    " benchmarks"
).split()
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/(?:[\w./]+(?:\.py|\.c|/))?)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_name_files_that_are_there(page: Path) -> None:
    named = PATH.findall(page.read_text("utf-8"))
    assert [n for n in named if not (ROOT / n).exists()] == []
    assert len(named) > 20 or page.name not in ("architecture.md", "glossary.md")


def test_the_architecture_page_names_what_is_in_the_files() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`(\w+(?:\.\w+)?)`\s+in\s+`([\w/]+\.py)`", page)
    assert len(named) > 10
    for name, file in named:
        scope: list[ast.stmt] = ast.parse((ROOT / file).read_text("utf-8")).body
        for part in name.split("."):
            kinds = (ast.FunctionDef, ast.ClassDef)
            found = [n for n in scope if isinstance(n, kinds) and n.name == part]
            assert found, f"{name} in {file}"
            scope = found[0].body


@pytest.mark.parametrize("page", [*PAGES, *API], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(FENCE.sub("", page.read_text("utf-8")))
    for file, place in {(file, place) for file, place in links if "://" not in file}:
        to = page.parent / file if file else page
        assert to.exists(), file
        assert not place or place in anchors(to), f"{file}#{place}"


def anchors(page: Path) -> set[str]:
    """The places on a page that links may name, as GitHub makes them from headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_python_pages_are_up_to_date(tmp_path: Path) -> None:
    script = ROOT / "docs" / "make_api.py"
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = {p.name: p.read_text("utf-8") for p in tmp_path.iterdir()}
    told = "python docs/make_api.py writes them again"
    assert {p.name: p.read_text("utf-8") for p in API} == written, told


def test_python_pages_hold_all_that_is_public() -> None:
    import graphkiln
    import graphkiln.runtime

    listed = (ROOT / "docs" / "api" / "README.md").read_text("utf-8")
    for module in (graphkiln, graphkiln.runtime):
        held = {n: getattr(module, n) for n in module.__all__ if n != "__version__"}
        names = [n for n, value in held.items() if not isinstance(value, ModuleType)]
        assert [n for n in names if f"[`{n}`]" not in listed] == []


def test_named_options_exist() -> None:
    import click

    from graphkiln.cli import COMMANDS, group

    context = click.Context(group)
    commands = [group.get_command(context, name) for name in COMMANDS]
    known = {o for c in commands if c for p in c.params for o in p.opts}
    # pytest's, with those of tests/conftest.py, of hypothesis and of pytest-xdist
    ours = {"--update-goldens", "--cpu", "--check-bounds"}
    foreign = ours | {"--hypothesis-profile", "--dist", "--help"}
    mains = [ROOT / "tests" / name / "__main__.py" for name in ("fuzz", "mutation")]
    for tool in [*mains, *(ROOT / "benchmarks").glob("*.py")]:
        foreign |= set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', tool.read_text("utf-8")))
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text("utf-8")))
        assert named - foreign <= known, page.name


def test_options_are_described() -> None:
    """Each option of each command, in one of its spellings."""
    import click

    from graphkiln.cli import COMMANDS, group

    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        for option in command.params:
            spelled = [o for o in option.opts if re.search(rf"(?<![\w-]){o}(?![\w-])", page)]
            assert spelled or isinstance(option, click.Argument), f"{name} {option.opts}"


def test_commands_are_described() -> None:
    from graphkiln.cli import COMMANDS

    page = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `graphkiln (\w+)", page, re.M)) == set(COMMANDS)


def test_families_of_random_graphs_are_described() -> None:
    from fuzz.families import families

    page = (ROOT / "docs" / "fuzzing.md").read_text("utf-8").partition("| option |")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", page, re.M)
    assert {n for row in rows for n in re.findall(r"`(\w+)`", row)} == set(families())


def test_named_ops_exist() -> None:
    from graphkiln.ir.registry import specs

    known = {s.key for s in specs()}
    for page in PAGES:
        named = set(re.findall(r"(?<!graph)kiln\.[A-Z]\w+", page.read_text("utf-8")))
        assert named <= known, page.name
    assert all(s.doc for s in specs() if s.domain == "kiln")


def test_passes_are_described_with_their_phases_and_options() -> None:
    from dataclasses import fields

    from graphkiln.passes.catalog import PIPELINES
    from graphkiln.passes.options import format_option
    from graphkiln.passes.pipeline import parse_pipeline

    phases: dict[str, list[str]] = {}
    options: dict[str, str] = {}
    for phase in PIPELINES["default"].split(","):
        for p in parse_pipeline(phase):
            if phase not in phases.setdefault(p.name, []):
                phases[p.name].append(phase)
            told = ((f.name.replace("_", "-"), format_option(f.default)) for f in fields(p))
            options[p.name] = ", ".join(f"`{name}={value}`" for name, value in told)
    wanted = [(name, ", ".join(phases[name]), options[name]) for name in phases]
    text = (ROOT / "docs" / "passes.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([a-z, ]+) \| ([^|]*)\|", text, re.M)
    assert [(name, phase, given.strip()) for name, phase, given in rows] == wanted
