"""Upgrades of nodes of older opsets to the one that the IR uses.

A rule rewrites a node for opset ``until`` (or before) to one for opset ``until + 1``. The rules of
an op run in that order. Changes that need no rule, because the newer op accepts every older node
with the same meaning, are listed in :mod:`.supersets`, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from ...ir.discovery import load_modules
from ..emit import Emit
from ..node import OnnxNode
from ..schema import LATEST
from ..scope import Slot

Apply: TypeAlias = "Callable[[OnnxNode, Emit], Sequence[Slot] | None]"
"""Edits the node in place and returns None, or returns the values of the node's outputs."""


@dataclass(frozen=True)
class Rule:
    """``apply`` rewrites a node of opset ``until`` for the opset after it."""

    until: int
    apply: Apply


_RULES: dict[str, list[Rule]] = {}


def upgrade(*ops: str, until: int, domain: str = "") -> Callable[[Apply], Apply]:
    """Decorator: a rule for nodes of these ops written for opset ``until`` or before."""

    def wrap(apply: Apply) -> Apply:
        for op in ops:
            found = _RULES.setdefault(f"{domain}.{op}" if domain else op, [])
            if any(r.until == until for r in found):
                raise ValueError(f"two rules for {op} until {until}")
            found.append(Rule(until, apply))
            found.sort(key=lambda r: r.until)
        return apply

    return wrap


@cache
def _load() -> None:
    load_modules(__name__)


def rules(key: str) -> Sequence[Rule]:
    """The rules of an op, oldest first."""
    _load()
    return _RULES.get(key, ())


def ops_with_rules() -> Sequence[str]:
    """The keys of all ops that have rules."""
    _load()
    return sorted(_RULES)


def bring_up(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """Upgrade ``node`` in place to the newest opset, or return the values of its outputs."""
    rule = _next(node)
    while rule is not None:
        result = rule.apply(node, emit)
        if result is not None:
            return result
        node.version = rule.until + 1
        rule = _next(node)
    node.version = LATEST.get(node.domain, node.version)
    return None


def _next(node: OnnxNode) -> Rule | None:
    return next((r for r in rules(node.key) if r.until >= node.version), None)
