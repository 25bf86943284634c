"""How many rewrites are proved, by what the passes themselves claim."""

from __future__ import annotations

from graphkiln.cli.rewrites import rewrites, shares

LEAST = 0.7
"""The share of exact elementwise and movement rewrites that must be proved."""


def test_most_exact_rewrites_of_elements_and_movements_are_proved() -> None:
    found = {family: (exact, proved) for family, _, exact, proved in shares(rewrites())}
    for family in ("elementwise", "movement"):
        exact, proved = found[family]
        assert proved >= LEAST * exact, f"{family}: {proved} of {exact}"


def test_what_is_exact_and_not_proved_says_why() -> None:
    silent = [r.rule for r in rewrites() if r.is_exact and r.known == "tested"]
    assert not silent
