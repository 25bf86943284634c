"""Whether code for a target runs on this machine."""

from __future__ import annotations

import sys

from ..machine import arch_name, cpu_features, machine_arch
from .errors import ArtifactError
from .manifest import TargetSpec

_SYSTEMS = ("linux", "darwin", "windows")


def check_target(target: TargetSpec) -> None:
    """Raises ArtifactError unless code for ``target`` can run here."""
    system = next((name for name in _SYSTEMS if name in target.triple.lower()), "linux")
    if not sys.platform.startswith(system):
        raise ArtifactError(
            f"was compiled for {system} ({target.triple}), this is {sys.platform}: compile the "
            "model for this system"
        )
    here = machine_arch()
    if arch_name(target.arch) != here:
        raise ArtifactError(
            f"was compiled for {target.arch}, this machine is {here}: compile the model with a "
            f"target for {here}"
        )
    _check_features(target)


def _check_features(target: TargetSpec) -> None:
    missing = sorted(set(target.features) - cpu_features()) if target.features else []
    if missing:
        raise ArtifactError(
            f"needs CPU features that this machine lacks ({', '.join(missing)}): compile the "
            f"model for this CPU or for an older one than {target.name!r}"
        )
