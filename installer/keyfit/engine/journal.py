"""The record of every change, in SQLite with full sync: what was there before is on disk before it is touched.

A transaction is one plan being carried out, taken back or repaired. Each step goes through intended -> done (-> undoing ->
undone); what the machine is like before, and will be like after, is written down with the intent. A transaction is "running"
until it ends as "done", "undone" (taken back) or "repaired", and "removing" until it is "removed" (uninstalled later). What is
still "running" or "removing" with no process holding the lock was interrupted.
"""

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from keyfit.engine import installed
from keyfit.errors import BusyError, ElevationError, HostError, StorageError
from keyfit.model.plan import Plan
from keyfit.privatefiles import FileLock, make_parents, require_own

SCHEMA_VERSION = 2
SCHEMAS = (
    ("CREATE TABLE txn (id INTEGER PRIMARY KEY, verb TEXT NOT NULL, brand TEXT NOT NULL, plan TEXT NOT NULL,"
     " state TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '')",
     "CREATE TABLE step (txn INTEGER NOT NULL REFERENCES txn(id), seq INTEGER NOT NULL, step_id TEXT NOT NULL,"
     " state TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL DEFAULT '{}', PRIMARY KEY (txn, seq))"),
    ("ALTER TABLE txn ADD COLUMN boot TEXT NOT NULL DEFAULT ''",
     "ALTER TABLE txn ADD COLUMN restart INTEGER NOT NULL DEFAULT 0"),
)
"""What makes version n + 1 of the database out of version n. Nothing is taken out of it, ever."""
BUSY_TIMEOUT_S = 10.0


class StepRecord(Struct, frozen=True, kw_only=True):
    """One step of a transaction. `before` and `after` are what the step kind wrote down about the machine; until it is done,
    `after` is what it expected beforehand (empty in records of version 1)."""

    seq: int
    step_id: str
    state: str
    before: dict[str, Any]
    after: dict[str, Any]


class Record(Struct, frozen=True, kw_only=True):
    """A transaction with its plan and the steps that were begun, in order. Times are ISO 8601 in UTC.

    Attributes:
        boot: id of the start of the machine that it was done in; "" if that was not known.
        restart: it takes effect only when the machine has been started again.
    """

    id: int
    verb: str
    state: str
    started: str
    ended: str
    message: str
    plan: Plan
    steps: tuple[StepRecord, ...]
    boot: str = ""
    restart: bool = False

    def as_data(self) -> dict[str, Any]:
        """For the `history` command."""
        return {
            "id": self.id, "started": self.started, "ended": self.ended, "verb": self.verb, "brand": self.plan.brand,
            "result": self.state, "message": self.message, "target": self.plan.target, "sequence": self.plan.sequence,
            "plan": self.plan.id, "restart": self.restart, "steps": [{"id": s.step_id, "state": s.state} for s in self.steps],
        }


class Journal:
    """The journal in a state directory, `state_dir`, which is made if it is not there.

    Raises:
        StorageError: the directory cannot be written.
        HostError: the database is damaged or of a newer version.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._dir = state_dir
        self._file = state_dir / "journal.sqlite"
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the one lock that every change needs.

        Raises:
            BusyError: another process holds it.
            HostError: code "state-dir-writable": somebody else could exchange the record.
        """
        self._make_directory()
        require_own(self._dir)
        with FileLock(self._dir / "lock", 0.0, busy="another-installation"):
            yield

    def begin(self, verb: str, plan: Plan, *, boot: str = "") -> int:
        """A transaction starts; returns its number."""
        with self._writing() as db:
            cursor = db.execute("INSERT INTO txn (verb, brand, plan, state, started, boot) VALUES (?, ?, ?, 'running', ?, ?)",
                                (verb, plan.brand, msgspec.json.encode(plan).decode(), _now(), boot))
            return int(cursor.lastrowid or 0)

    def intend(self, txn: int, seq: int, step_id: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        """On disk before the step touches anything: what is there, and what will be there as far as that is known."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO step (txn, seq, step_id, state, before, after) VALUES (?, ?, ?, 'intended', ?, ?)",
                       (txn, seq, step_id, json.dumps(before), json.dumps(after)))

    def skipped(self, txn: int, seq: int, step_id: str, before: dict[str, Any]) -> None:
        """There was nothing to do in the step."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO step (txn, seq, step_id, state, before) VALUES (?, ?, ?, 'skipped', ?)",
                       (txn, seq, step_id, json.dumps(before)))

    def done(self, txn: int, seq: int, after: dict[str, Any]) -> None:
        """The step has had its effect."""
        with self._writing() as db:
            db.execute("UPDATE step SET state = 'done', after = ? WHERE txn = ? AND seq = ?", (json.dumps(after), txn, seq))

    def repaired(self, txn: int, seq: int, repaired: int, after: dict[str, Any]) -> None:
        """A step of a repair has had its effect, and the transaction that it repairs is whole again in this step."""
        with self._writing() as db:
            db.execute("UPDATE step SET state = 'repaired' WHERE txn = ? AND seq = ?", (txn, seq))
            db.execute("UPDATE step SET after = ? WHERE txn = ? AND seq = ?", (json.dumps(after), repaired, seq))

    def undoing(self, txn: int, seq: int) -> None:
        """On disk before a step that is done is taken back."""
        with self._writing() as db:
            db.execute("UPDATE step SET state = CASE state WHEN 'shared' THEN 'releasing' ELSE 'undoing' END"
                       " WHERE txn = ? AND seq = ? AND state IN ('done', 'shared')", (txn, seq))

    def undone(self, txn: int, seq: int, state: str = "undone", after: dict[str, Any] | None = None) -> None:
        """The step was taken back; or it was left alone because of what others did ("kept"), or left for another brand that
        needs it ("shared", with what is left in `after`)."""
        with self._writing() as db:
            if after is not None:
                db.execute("UPDATE step SET after = ? WHERE txn = ? AND seq = ?", (json.dumps(after), txn, seq))
            db.execute("UPDATE step SET state = ? WHERE txn = ? AND seq = ?", (state, txn, seq))

    def handed_down(self, txn: int, seq: int, state: str, older: int, older_seq: int, after: dict[str, Any]) -> None:
        """A newer transaction lets go of what its step brought, and an older one's step takes it over, both at once."""
        with self._writing() as db:
            db.execute("UPDATE step SET state = ? WHERE txn = ? AND seq = ?", (state, txn, seq))
            db.execute("UPDATE step SET after = ? WHERE txn = ? AND seq = ?", (json.dumps(after), older, older_seq))

    def finish(self, txn: int, state: str, message: str = "", *, restart: bool = False) -> None:
        """The transaction ends as "done", "undone", "repaired" or "removed"."""
        with self._writing() as db:
            db.execute("UPDATE txn SET state = ?, ended = ?, message = ?, restart = ? WHERE id = ?",
                       (state, _now(), message, int(restart), txn))
        self.publish()

    def publish(self) -> None:
        """Bring the list for everyone in line with the record; a sudden end may have come between the two."""
        if self._file.exists():
            installed.publish(self._dir, (record.plan for record in self.records()))

    def open_transactions(self) -> tuple[Record, ...]:
        """Those that were begun and have not ended, newest first; also those that are removed, but for a step that was left to
        another brand and was being taken back when that was removed."""
        return tuple(reversed(self._records("state IN ('running', 'removing') OR state = 'removed' AND id IN"
                                            " (SELECT txn FROM step WHERE state = 'releasing')")))

    def reopen(self, txn: int) -> None:
        """An uninstall that could not even begin leaves the transaction as it was."""
        with self._writing() as db:
            db.execute("UPDATE step SET state = 'done' WHERE txn = ? AND state = 'undoing'", (txn,))
            db.execute("UPDATE txn SET state = 'done' WHERE id = ?", (txn,))

    def shared(self) -> tuple[Record, ...]:
        """Transactions that are removed but for steps that another brand needed then, oldest first."""
        return tuple(r for r in self._records("state = 'removed'") if any(s.state in ("shared", "releasing") for s in r.steps))

    def mark_removing(self, txn: int) -> None:
        """An uninstall begins; should it be cut off, it is gone on with."""
        with self._writing() as db:
            db.execute("UPDATE txn SET state = 'removing' WHERE id = ?", (txn,))

    def records(self, brand: str | None = None) -> tuple[Record, ...]:
        """What is installed by Keyfit: transactions that are done and were not removed, oldest first."""
        if brand is None:
            return self._records("state = 'done'")
        return self._records("state = 'done' AND brand = ?", brand)

    def installed(self) -> dict[str, int]:
        """Brand -> number of its signed data that is installed; also for who may not read the record itself."""
        if self._file.exists() and not os.access(self._file, os.R_OK):
            return installed.read(self._dir)
        return installed.newest(record.plan for record in self.records())

    def history(self) -> tuple[Record, ...]:
        """All transactions, oldest first."""
        return self._records("1")

    def _records(self, where: str, *values: str) -> tuple[Record, ...]:
        if not self._file.exists():
            return ()
        if not os.access(self._file, os.R_OK):
            raise ElevationError("record-closed", f"The record {self._file} is open to administrators only.",
                                 hint="Run the same command as administrator, with sudo for example.")
        with self._reading() as db:
            columns = "id, verb, state, started, ended, message, plan, boot, restart"
            rows = db.execute(f"SELECT {columns} FROM txn WHERE {where} ORDER BY id", values).fetchall()  # noqa: S608 - constant text
            return tuple(
                Record(id=row[0], verb=row[1], state=row[2], started=row[3], ended=row[4], message=row[5],
                       plan=msgspec.json.decode(row[6], type=Plan), steps=self._steps(db, row[0]), boot=row[7],
                       restart=bool(row[8]))
                for row in rows)

    @staticmethod
    def _steps(db: sqlite3.Connection, txn: int) -> tuple[StepRecord, ...]:
        rows = db.execute("SELECT seq, step_id, state, before, after FROM step WHERE txn = ? ORDER BY seq", (txn,))
        return tuple(StepRecord(seq=r[0], step_id=r[1], state=r[2], before=json.loads(r[3]), after=json.loads(r[4]))
                     for r in rows)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = self._open()
        try:
            with db:
                yield db
        except sqlite3.Error as error:
            raise self._explain(error) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._open()
        except (sqlite3.Error, msgspec.DecodeError, json.JSONDecodeError) as error:
            raise self._explain(error) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._make_directory()
            try:
                self._connection = self._connect()
            except sqlite3.Error as error:
                raise self._explain(error) from error
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if not self._file.exists():
            try:
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600))
            except OSError as error:
                raise _storage(self._file, error) from error
        for suffix in ("", "-wal", "-shm", "-journal"):
            _check_own(Path(f"{self._file}{suffix}"))
        db = sqlite3.connect(self._file, timeout=BUSY_TIMEOUT_S)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise HostError("journal-newer", f"The record {self._file} was written by a newer Keyfit.",
                            hint="Install that version again.")
        if version < SCHEMA_VERSION:
            _bring_up_to_date(db)
        return db

    def _make_directory(self) -> None:
        """Made for administrators only; one that others may write is refused (security D1)."""
        try:
            make_parents(self._file)
            mode = self._dir.lstat().st_mode
        except OSError as error:
            raise _storage(self._dir, error) from error
        if not stat.S_ISDIR(mode):
            raise HostError("state-dir-link", f"{self._dir} is a symbolic link, so the record in it cannot be trusted.",
                            hint="Give the folder itself with --state-dir.")
        if os.name == "posix" and mode & (stat.S_IWOTH | stat.S_IWGRP):
            raise HostError("state-dir-writable", f"Others may write to {self._dir}, so the record in it cannot be trusted.",
                            hint=f"chmod go-w {self._dir}")

    def _explain(self, error: Exception) -> HostError:
        text = str(error)
        if "locked" in text or "busy" in text:
            return BusyError("another-installation", f"The record {self._file} is held by another program.",
                             hint="Wait until it has finished, then run this again.")
        if "full" in text or "readonly" in text or "unable to open" in text or "disk I/O" in text:
            return StorageError("disk-full" if "full" in text else "cannot-write",
                                f"The record {self._file} cannot be written: {text}.",
                                hint="Free some disk space, or check the rights and the disk.")
        return HostError("journal-damaged", f"The record {self._file} cannot be read: {text}.",
                         hint="Keep the file; it tells what was installed. Restore it from a backup, or ask for help.")


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """All or nothing, and by one process only."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        for statements in SCHEMAS[db.execute("PRAGMA user_version").fetchone()[0]:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _check_own(path: Path) -> None:
    """SQLite opens what lies there, whatever it is (security D3, D5)."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _storage(path, error) from error
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise HostError("journal-link", f"The record {path} is a link or no regular file, so it is not used.",
                        hint="Find out who put it there, and put the file itself there.")


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError("cannot-write", f"{path} cannot be written: {error.strerror}.",
                        hint="Run it with administrator rights, or give another --state-dir.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
