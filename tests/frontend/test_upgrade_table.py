"""Every change of every ONNX op has a rule or a reason why it needs none."""

from __future__ import annotations

from collections import defaultdict

import onnx.defs
import pytest

from graphkiln.frontend.schema import LATEST
from graphkiln.frontend.upgrade import ops_with_rules, rules
from graphkiln.frontend.upgrade.supersets import SUPERSETS, Reason


def _histories() -> dict[str, list[onnx.defs.OpSchema]]:
    found = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain in LATEST and schema.since_version <= LATEST[schema.domain]:
            key = f"{schema.domain}.{schema.name}" if schema.domain else schema.name
            found[key].append(schema)
    return {k: sorted(v, key=lambda s: s.since_version) for k, v in found.items()}


HISTORIES = _histories()
CHANGES = [(k, a, b) for k, v in HISTORIES.items() for a, b in zip(v, v[1:], strict=False)]


def _ruled(key: str, old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> bool:
    return any(old.since_version <= r.until < new.since_version for r in rules(key))


def test_the_ir_speaks_the_newest_opsets() -> None:
    for domain, version in LATEST.items():
        newest = max(s.since_version for s in onnx.defs.get_all_schemas() if s.domain == domain)
        assert newest <= version


def test_every_change_is_in_exactly_one_table() -> None:
    missing, doubled = [], []
    for key, old, new in CHANGES:
        listed = new.since_version in SUPERSETS.get(key, {})
        ruled = _ruled(key, old, new)
        if not listed and not ruled:
            missing.append((key, new.since_version))
        if listed and ruled:
            doubled.append((key, new.since_version))
    assert not missing, f"neither a rule nor a reason: {missing}"
    assert not doubled, f"a rule and a reason: {doubled}"


def test_tables_name_only_changes_that_exist() -> None:
    changed = {(k, new.since_version) for k, _, new in CHANGES}
    listed = {(k, v) for k, versions in SUPERSETS.items() for v in versions}
    assert listed <= changed
    assert set(ops_with_rules()) <= set(HISTORIES)


def _types(ports: object) -> list[set[str]]:
    return [set(p.types) for p in ports]  # type: ignore[attr-defined]


def _shrinks(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema) -> bool:
    """Whether the newer op takes fewer element types anywhere."""
    pairs = [
        *zip(_types(old.inputs), _types(new.inputs), strict=False),
        *zip(_types(old.outputs), _types(new.outputs), strict=False),
    ]
    return any(a - b for a, b in pairs)


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_match_the_schemas(reason: Reason) -> None:
    for key, old, new in CHANGES:
        given = SUPERSETS.get(key, {}).get(new.since_version)
        if given is None or given & Reason.KEPT:
            continue
        assert not _shrinks(old, new), (key, new.since_version)
        gone = set(old.attributes) - set(new.attributes)
        added = set(new.attributes) - set(old.attributes)
        if reason is Reason.ATTRIBUTE:
            assert bool(added) == bool(given & reason), (key, new.since_version)
            assert not any(new.attributes[n].required for n in added)
        elif reason is Reason.HINT:
            assert bool(gone) == bool(given & reason), (key, new.since_version)
            assert gone <= {"consumed_inputs"}
        elif reason is Reason.INPUT:
            assert (len(old.inputs), old.min_input) == (len(new.inputs), new.min_input) or (
                given & (reason | Reason.BACK)
            ), (key, new.since_version)
        elif reason is Reason.DEFAULT and not given & reason:
            for name in set(old.attributes) & set(new.attributes):
                before, after = old.attributes[name], new.attributes[name]
                assert before.default_value == after.default_value, (key, name)
