"""Who may import whom: every import statement of the package, also those inside functions.

Statements under ``TYPE_CHECKING`` count as others do: a file that needs another's classes to say
what it takes cannot be read, tested or moved without it, whether or not Python loads it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import networkx as nx
import pytest

import graphkiln

ROOT = Path(graphkiln.__file__).parent
LEAVES = {"contract", "errors", "machine", "tvm_import", "version"}
"""Modules that import nothing of the package, and that everybody may import."""

LAYERS = (
    "cli", "distiller", "pruner", "quantizer", "training", "driver", "samples", "frontend",
    "passes", "codegen", "targets", "runtime", "ir", *LEAVES,
)  # fmt: skip
BELOW_DRIVER = {"frontend", "passes", "codegen", "targets", "runtime", "ir"}

MAY_IMPORT = {
    "cli": {"distiller", "pruner", "quantizer", "training", "driver", "samples", *BELOW_DRIVER},
    "onnx_backend": {"driver", *BELOW_DRIVER},
    "pruner": {"quantizer", "driver", *BELOW_DRIVER},
    "quantizer": {"driver", *BELOW_DRIVER},
    "distiller": {"training", "driver", *BELOW_DRIVER},
    "training": {"ir"},
    "driver": {"samples", *BELOW_DRIVER},
    "samples": set(),
    "codegen": {"targets", "ir"},
    "frontend": {"ir"},
    "passes": {"ir"},
    "targets": {"ir"},
    "runtime": set(),
    "ir": set(),
    "__init__": {"distiller", "pruner", "quantizer", "training", "driver", "runtime", "ir"},
    "__main__": {"cli"},
    **{leaf: set() for leaf in LEAVES},
}
"""Layer -> the layers it knows; what is not listed may not be imported."""

STANDARD = {"numpy", *sys.stdlib_module_names}
MAY_USE = {
    "ir": {"networkx", "onnx", "ml_dtypes", "re2"},
    "frontend": {"networkx", "onnx", "google", "ml_dtypes"},
    "passes": {"networkx", "ml_dtypes"},
    "targets": {"networkx", "tvm", "tvm_ffi", "ml_dtypes"},
    "codegen": {"tvm", "tvm_ffi", "ml_dtypes"},
    # All but tvm_ffi only where a model has tensors or ops that need them.
    "runtime": {"tvm_ffi", "ml_dtypes", "PIL", "re2"},
    # tomli is tomllib for Python 3.10.
    "quantizer": {"onnx", "tomli", "tomllib", "jinja2", "matplotlib"},
    "distiller": {"onnx"},
    "training": {"torch", "ml_dtypes"},
    "pruner": {"onnx"},
    "driver": {"tvm"},
    "samples": set(),
    "onnx_backend": {"onnx", "tvm"},
    "cli": {"click", "rich", "onnx", "onnxruntime"},
    "__init__": set(),
    "__main__": set(),
    **{leaf: set() for leaf in LEAVES},
    "tvm_import": {"tvm", "tvm_ffi"},
}
"""Layer -> the packages it uses besides NumPy and the standard library."""


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of all modules that a file imports, with line numbers."""
    package = ["graphkiln", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # ``from . import x`` names a module; ``from .x import y`` mostly does not.
                yield f"{module}.{alias.name}" if module == "graphkiln" else module, node.lineno


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def files() -> list[Path]:
    folders = [ROOT / name for name in LAYERS if (ROOT / name).is_dir()]
    return [*(p for p in ROOT.glob("*.py") if p.name != "setup.py"),
            *(p for f in folders for p in f.rglob("*.py"))]  # fmt: skip


def test_layers_know_only_those_below() -> None:
    wrong = []
    for path in files():
        mine = layer(path)
        for module, line in imports(path):
            parts = module.split(".")
            if parts[0] != "graphkiln" or len(parts) == 1:
                continue
            other = parts[1]
            own_name = other not in LAYERS  # a plain name of the package
            known = {mine, *LEAVES, *MAY_IMPORT[mine]}
            if not own_name and other not in known:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_layers_use_only_their_packages() -> None:
    wrong = []
    for path in files():
        allowed = STANDARD | MAY_USE[layer(path)] | {"graphkiln"}
        for module, line in imports(path):
            if module.split(".")[0] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


# ---- circles -------------------------------------------------------------------------------------


def module_graph(root: Path, paths: Iterable[Path]) -> nx.DiGraph:
    """Module -> the modules of the package below ``root`` that it imports.

    ``from package import name`` imports the module ``package.name`` where there is one. Who imports
    a module also runs the ``__init__`` of each package around it, and so depends on that: but for
    the packages that it lies in itself, which have begun to run before it does.
    """
    modules = {module_name(root, p): p for p in paths}
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    for module, path in modules.items():
        mine = set(packages(module, path))
        for found in imported_modules(root, path, modules):
            around = (p for p in packages(found, modules[found]) if p in modules)
            for other in (found, *(p for p in around if p not in mine)):
                if other != module:
                    graph.add_edge(module, other)
    return graph


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(["graphkiln", *(p for p in parts if p != "__init__")])


def packages(module: str, path: Path) -> Iterator[str]:
    """The packages around a module, itself included where it is one, inner ones first."""
    name = module if path.name == "__init__.py" else module.rpartition(".")[0]
    while name:
        yield name
        name = name.rpartition(".")[0]


def imported_modules(root: Path, path: Path, modules: Collection[str]) -> Iterator[str]:
    package = ["graphkiln", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
            yield from (m for n in names if (m := n if n in modules else source) in modules)


def circles(graph: nx.DiGraph) -> list[list[str]]:
    return [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1]


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = module_graph(ROOT, files())
    assert graph.number_of_edges() > len(graph) > 400
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("from . import b", "from .a import x"),
        ("def f():\n    from .b import y", "from . import a"),
        ("if TYPE_CHECKING:\n    from .b import y", "from .a import x"),
        ("import graphkiln.b", "def f():\n    import graphkiln.a"),
        ("from .sub.c import z", ""),
    ],
)
def test_circles_are_found(a: str, b: str, tmp_path: Path) -> None:
    """Also one that goes through the ``__init__`` of a package on the way to a module."""
    texts = {"a.py": a, "b.py": b, "sub/__init__.py": "from ..a import x", "sub/c.py": ""}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = circles(module_graph(tmp_path, tmp_path.rglob("*.py")))
    assert found == [["graphkiln.a", "graphkiln.b" if b else "graphkiln.sub"]]


BY_NAME = {
    "__init__.py": "the public names, which are also imported under TYPE_CHECKING",
    "cli/__init__.py": "commands, when they are used",
    "ir/discovery.py": "files that register ops, lowerings, upgrade rules, passes: see there",
    "samples.py": "functions that a user names: a metric, or one that yields samples",
    "runtime/host/__init__.py": "host functions, when a model names them",
}
"""The files that load modules by name, from data: what they load is no import of theirs."""


def test_few_files_load_modules_by_name() -> None:
    """No other file hides an import, and a circle, from the test above."""
    loaders = set()
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in ("import_module", "importlib.import_module", "__import__"):
                    loaders.add(path.relative_to(ROOT).as_posix())
    assert loaders == set(BY_NAME)


# ---- how they are written, and what they load ----------------------------------------------------


def test_imports_inside_the_package_are_relative() -> None:
    wrong = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if any(n.split(".")[0] == "graphkiln" for n in names):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    # python -m graphkiln runs a file that has no package of its own.
    assert [w for w in wrong if not w.startswith("__main__")] == []


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import graphkiln", {"tvm", "tvm_ffi", "onnx", "networkx", "numpy", "rich", "click"}),
        ("import graphkiln.runtime", {"tvm", "onnx", "networkx", "rich", "click"}),
        ("import graphkiln; graphkiln.load", {"tvm", "onnx", "networkx"}),
        ("import graphkiln.ir", {"tvm", "tvm_ffi"}),
        ("import graphkiln.passes.catalog as c; c.load()", {"tvm", "tvm_ffi"}),
        ("import graphkiln.frontend", {"tvm", "tvm_ffi"}),
        ("import graphkiln.cli", {"tvm", "onnx", "networkx", "numpy"}),
    ],
)
def test_imports_load_nothing_heavy(statement: str, absent: set[str]) -> None:
    assert not loaded_by(statement) & absent


def test_every_folder_is_packaged() -> None:
    """The build finds packages below the layers it names: it names all, and all are packages."""
    missing = {p.parent for p in files() if not (p.parent / "__init__.py").is_file()}
    assert not missing
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (named,) = (
        ast.literal_eval(n.value) for n in setup.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "LAYERS"
    )  # fmt: skip
    others = {"tests", "benchmarks", "docs"}
    folders = {p.parent.name for p in ROOT.glob("*/__init__.py")} - others
    assert set(named) == folders
