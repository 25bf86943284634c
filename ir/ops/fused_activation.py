"""The parameters of the activation that com.microsoft's fused ops put behind their result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def activation_parameters(attr: Callable[[str], Any]) -> tuple[float, ...]:
    """The numbers of ``activation``: ``activation_params`` of a FusedConv, or ``activation_alpha``
    and ``activation_beta`` of a FusedGemm. ``attr`` tells an attribute, None where it is absent.
    """
    listed = attr("activation_params")
    if listed is None:
        listed = [v for v in (attr("activation_alpha"), attr("activation_beta")) if v is not None]
    return tuple(float(v) for v in listed)


__all__ = ["activation_parameters"]
