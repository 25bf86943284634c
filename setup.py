"""The root folder is the package ``graphkiln``: its subpackages are found, not listed."""

from tempfile import TemporaryDirectory

from setuptools import find_packages, setup

LAYERS = [
    "cli", "codegen", "distiller", "frontend", "ir", "passes", "pruner", "quantizer", "runtime",
    "targets", "training",
]  # fmt: skip

found = find_packages(".", include=[name for layer in LAYERS for name in (layer, f"{layer}.*")])

# A build folder that stays would bring files back that have been removed since.
with TemporaryDirectory(prefix="graphkiln-") as build:
    setup(
        package_dir={"graphkiln": "."},
        packages=["graphkiln", *(f"graphkiln.{name}" for name in found)],
        options={"build": {"build_base": build}},
    )
