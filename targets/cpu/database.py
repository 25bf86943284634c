"""Databases of tuned kernels: the one that ships with the package, and the user's own.

A row says which choice (tile and algorithm) was the fastest for a shape on a target, and the time
of each candidate. It is valid for one version of the templates, :data:`TEMPLATES`. SQLite's
transactions keep the file intact when several processes write at a time or one is killed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import GraphkilnError
from ...ir.choices import Choice, KernelShape, shape_key

TEMPLATES = 5
"""The version of the kernel templates; it rises when old measurements no longer hold."""

SHIPPED = Path(__file__).parent / "tuned.sqlite"

_APPLICATION = 0x676B6C6E
_SCHEMA = 1
_BUSY_SECONDS = 5.0
_TABLE = """
CREATE TABLE IF NOT EXISTS choices (
    kernel TEXT NOT NULL,
    target TEXT NOT NULL,
    templates INTEGER NOT NULL,
    tile INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    candidates TEXT NOT NULL,
    tvm TEXT NOT NULL,
    PRIMARY KEY (kernel, target, templates)
) WITHOUT ROWID
"""


class DatabaseError(GraphkilnError):
    """A database of choices cannot be read or written; the message names the file."""


@dataclass(frozen=True)
class Timing:
    """A candidate and the seconds of one run; None where it failed."""

    choice: Choice
    seconds: float | None


@dataclass(frozen=True)
class Entry:
    """The choice for a kernel, the timings that it rests on, and the version of TVM."""

    choice: Choice
    timings: tuple[Timing, ...] = ()
    tvm: str = ""


class Database:
    """An SQLite file of choices; ``create`` makes one where there is none.

    ``fixed`` opens a file that nobody writes to, so that SQLite puts no files of its own beside it.
    All of this raises :class:`DatabaseError` where the file cannot be read or written, or is no
    such database.
    """

    def __init__(self, path: str | Path, *, create: bool = False, fixed: bool = False) -> None:
        self.path = Path(path).absolute()
        mode = "mode=ro&immutable=1" if fixed else f"mode={'rwc' if create else 'rw'}"
        with self._named():
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?{mode}", uri=True, timeout=_BUSY_SECONDS,
                isolation_level=None,
            )  # fmt: skip
        try:
            self._open(create)
        except DatabaseError:
            self.close()
            raise

    def _open(self, create: bool) -> None:
        with self._named():
            empty = not self._value("SELECT count(*) FROM sqlite_master")
            if empty and create:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA application_id={_APPLICATION}")
                self._connection.execute(f"PRAGMA user_version={_SCHEMA}")
                self._connection.execute("COMMIT")
            kind = self._value("PRAGMA application_id"), self._value("PRAGMA user_version")
        if kind != (_APPLICATION, _SCHEMA):
            raise self._error("not a database of kernel choices of this version")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, shape: KernelShape, target: str) -> Choice | None:
        """The choice for a shape on a target; None where there is none."""
        with self._named():
            row = self._connection.execute(
                "SELECT tile, algorithm FROM choices WHERE kernel=? AND target=? AND templates=?",
                (shape_key(shape), target, TEMPLATES),
            ).fetchone()
        return None if row is None else self._choice(*row)

    def store(self, shape: KernelShape, target: str, entry: Entry) -> None:
        """Write an entry; it replaces an older one."""
        self.put(shape_key(shape), target, entry)

    def put(self, key: str, target: str, entry: Entry) -> None:
        """Write an entry for the shape with that key (see ``ir.choices.shape_key``)."""
        timings = [[t.choice.columns, t.choice.algorithm, t.seconds] for t in entry.timings]
        chosen = entry.choice
        row = (key, target, TEMPLATES, chosen.columns, chosen.algorithm,
               json.dumps(timings), entry.tvm)  # fmt: skip
        with self._named():
            self._connection.execute("INSERT OR REPLACE INTO choices VALUES (?,?,?,?,?,?,?)", row)

    def entries(self, target: str) -> dict[str, Entry]:
        """All entries for a target by the keys of their shapes."""
        with self._named():
            rows = self._connection.execute(
                "SELECT kernel, tile, algorithm, candidates, tvm FROM choices"
                " WHERE target=? AND templates=? ORDER BY kernel",
                (target, TEMPLATES),
            ).fetchall()
        return {k: Entry(self._choice(t, a), self._timings(c), v) for k, t, a, c, v in rows}

    def targets(self) -> list[str]:
        """The targets that there are entries for."""
        query = "SELECT DISTINCT target FROM choices WHERE templates=? ORDER BY target"
        with self._named():
            return [t for (t,) in self._connection.execute(query, (TEMPLATES,))]

    def seal(self) -> None:
        """Compact the database into one file without a write-ahead log, for readers only."""
        with self._named():
            self._connection.execute("PRAGMA journal_mode=DELETE")
            self._connection.execute("VACUUM")

    def _choice(self, tile: object, algorithm: object) -> Choice:
        if not isinstance(tile, int) or not isinstance(algorithm, str):
            raise self._error(f"damaged: ({tile!r}, {algorithm!r}) is no choice")
        return Choice(tile, algorithm)

    def _timings(self, text: str) -> tuple[Timing, ...]:
        try:
            return tuple(Timing(Choice(t, a), s) for t, a, s in json.loads(text))
        except (TypeError, ValueError):
            raise self._error(f"damaged: {text!r} are no timings") from None

    def _error(self, reason: str) -> DatabaseError:
        return DatabaseError(reason, file=str(self.path))

    def _value(self, query: str) -> object:
        return self._connection.execute(query).fetchone()[0]

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else e
            raise self._error(f"the database of tuned kernels: {reason}") from e


@cache
def shipped_choices(target: str) -> dict[str, Choice]:
    """The choices for a target that ship with the package, by the keys of shapes."""
    with Database(SHIPPED, fixed=True) as database:
        return {key: entry.choice for key, entry in database.entries(target).items()}


def find_shipped(target: str, shape: KernelShape) -> Choice | None:
    """The choice for a shape that ships with the package; None where none does."""
    return shipped_choices(target).get(shape_key(shape))


def write_shipped(path: Path, entries: Mapping[str, Mapping[str, Entry]]) -> None:
    """Replace the database at ``path`` by a new one with these entries, by target and key.

    Raises :class:`DatabaseError` where that cannot be done, and leaves the old one as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with Database(beside, create=True) as database:
            for target, rows in sorted(entries.items()):
                for key, entry in sorted(rows.items()):
                    database.put(key, target, entry)
            database.seal()
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
