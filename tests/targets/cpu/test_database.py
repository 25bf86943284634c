"""Databases of choices: what they hold, and what happens to damaged, busy and killed ones."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphkiln.ir.choices import DIRECT, Choice, KernelShape, ProductShape
from graphkiln.ir.windows import ConvShape
from graphkiln.targets.cpu import database as module
from graphkiln.targets.cpu.database import (
    SHIPPED,
    Database,
    DatabaseError,
    Entry,
    Timing,
    shipped_choices,
    write_shipped,
)
from graphkiln.targets.cpu.features import features_of, named_cpus
from graphkiln.targets.cpu.winograd_forms import FORMS

CONV = ConvShape(64, 32, 1, (3, 3), (1, 1), (1, 1), (56, 56), False)
PRODUCT = ProductShape(8, 64, 48)
ENTRY = Entry(
    Choice(32, "winograd_4x4"),
    (Timing(Choice(32, "winograd_4x4"), 1e-3), Timing(Choice(16), None)),
    "0.27",
)


def test_entries_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "tuned.sqlite"
    with Database(path, create=True) as database:
        database.store(CONV, "cpu:x", ENTRY)
        database.store(PRODUCT, "cpu:x", Entry(Choice(64)))
        database.store(PRODUCT, "cpu:x", Entry(Choice(48)))
    with Database(path) as database:
        assert database.find(CONV, "cpu:x") == Choice(32, "winograd_4x4")
        assert database.find(PRODUCT, "cpu:x") == Choice(48)
        assert database.find(CONV, "cpu:y") is None
        found = list(database.entries("cpu:x").values())
        assert found == [ENTRY, Entry(Choice(48))]


@pytest.mark.parametrize(
    "other",
    [
        ConvShape(64, 32, 1, (3, 3), (1, 1), (1, 1), (56, 57), False),
        ConvShape(64, 32, 1, (3, 3), (1, 1), (1, 1), (56, None), False),
        ConvShape(64, 32, 1, (3, 3), (1, 1), (1, 1), (56, 56), True),
        ConvShape(64, 32, 2, (3, 3), (1, 1), (1, 1), (56, 56), False),
        ConvShape(64, 32, 1, (3, 3), (2, 1), (1, 1), (56, 56), False),
        ConvShape(64, 32, 1, (3, 3), (1, 1), (1, 2), (56, 56), False),
        ProductShape(8, 64, 48, "uint8", "int8"),
        ProductShape(None, 64, 48),
    ],
)
def test_shapes_are_told_apart(tmp_path: Path, other: KernelShape) -> None:
    with Database(tmp_path / "d", create=True) as database:
        database.store(CONV, "cpu:x", ENTRY)
        database.store(PRODUCT, "cpu:x", ENTRY)
        assert database.find(other, "cpu:x") is None


def test_old_templates_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(tmp_path / "d", create=True) as database:
        database.store(CONV, "cpu:x", ENTRY)
        monkeypatch.setattr(module, "TEMPLATES", module.TEMPLATES + 1)
        assert database.find(CONV, "cpu:x") is None
        assert database.entries("cpu:x") == {}


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE choices (kernel TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("damage", ["text", "foreign", "folder", "cut"])
def test_other_files_are_refused(tmp_path: Path, damage: str, create: bool) -> None:
    path = tmp_path / "tuned.sqlite"
    if damage == "text":
        path.write_text("these are not tuned kernels at all, but a text of some length\n" * 40)
    elif damage == "foreign":
        foreign(path)
    elif damage == "folder":
        path.mkdir()
    else:
        write_shipped(path, {"cpu:x": {f"product {i}": ENTRY for i in range(500)}})
        path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DatabaseError, match="tuned.sqlite"), Database(path, create=create) as d:
        d.store(CONV, "cpu:x", ENTRY)
        d.entries("cpu:x")


@pytest.mark.parametrize("change", ["tile='wide'", "candidates='[1'", "candidates='[[1]]'"])
def test_damaged_rows_are_told(tmp_path: Path, change: str) -> None:
    path = tmp_path / "tuned.sqlite"
    with Database(path, create=True) as database:
        database.store(CONV, "cpu:x", ENTRY)
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE choices SET {change}")
    connection.commit()
    connection.close()
    with Database(path) as database, pytest.raises(DatabaseError, match="damaged"):
        database.entries("cpu:x")


def test_nothing_is_made_where_nothing_should_be(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="tuned.sqlite"):
        Database(tmp_path / "tuned.sqlite")
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from graphkiln.ir.choices import Choice, ProductShape
from graphkiln.targets.cpu.database import Database, Entry
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(first, first + count):
    with Database(path, create=True) as database:
        database.store(ProductShape(i, 64, 64), "cpu:x", Entry(Choice(64)))
    print(i, flush=True)
"""


def writer(path: Path, first: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "tuned.sqlite"
    writers = [writer(path, 1000 * i, 25) for i in range(4)]
    for w in writers:
        w.communicate(timeout=60)
    assert [w.returncode for w in writers] == [0] * 4
    with Database(path) as database:
        assert len(database.entries("cpu:x")) == 100


def test_a_killed_writer_leaves_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "tuned.sqlite"
    w = writer(path, 0, 10**6)
    assert w.stdout is not None
    w.stdout.readline()
    time.sleep(0.2)
    w.send_signal(signal.SIGKILL)
    told = len(w.communicate(timeout=10)[0].splitlines()) + 1
    with Database(path) as database:
        assert told <= len(database.entries("cpu:x")) <= told + 1
        assert database._value("PRAGMA integrity_check") == "ok"


def test_what_ships_is_one_file_of_the_same_bytes(tmp_path: Path) -> None:
    rows = {"cpu:y": {"b": ENTRY, "a": Entry(Choice(16))}, "cpu:x": {"a": ENTRY}}
    contents = []
    for name in ("first", "second"):
        write_shipped(tmp_path / name, rows)
        contents.append((tmp_path / name).read_bytes())
        with Database(tmp_path / name, fixed=True) as database:
            assert {t: database.entries(t) for t in database.targets()} == rows
    assert contents[0] == contents[1]
    assert {p.name for p in tmp_path.iterdir()} == {"first", "second"}


def test_the_shipped_file_opens() -> None:
    before = set(SHIPPED.parent.iterdir())
    for name in named_cpus():
        lanes = features_of(name).lanes
        for key, choice in shipped_choices(f"cpu:{name}").items():
            assert key.startswith(("conv ", "product "))
            assert choice.columns % lanes == 0 < choice.columns
            assert choice.algorithm in (DIRECT, *FORMS)
    assert set(SHIPPED.parent.iterdir()) == before
    assert SHIPPED.stat().st_size < 256 * 1024
