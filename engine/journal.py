"""SQLite journal: loads, with the duration of each stage, and requests. No payloads.

One writer thread with a bounded queue: nobody waits for the disk, and a full disk costs the journal's rows, not an
answer. What comes within ``GATHER_S`` is one transaction: to be woken for each request costs more than the rows. Above
``AGGREGATE_ABOVE`` requests a second, one row per model and second stands for them all, counted in memory and written
once a second.
"""

from __future__ import annotations

import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.serving_types import RequestRecord, RequestState

log = logging.getLogger(__name__)

AGGREGATE_ABOVE = 200
GATHER_S = 0.1
"""So long a row may wait for others; a program that is killed loses no older ones."""
SECONDS_EVERY_S = 1.0
_QUEUE = 10_000
_KEEP_REQUESTS = 100_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS loads (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, location TEXT NOT NULL, outcome TEXT NOT NULL,
    stages TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS loads_location ON loads(location, id);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, request TEXT NOT NULL, lane TEXT NOT NULL, client TEXT NOT NULL,
    model TEXT NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, size INTEGER NOT NULL, wait_ms REAL, run_ms REAL);
CREATE TABLE IF NOT EXISTS seconds (
    second INTEGER NOT NULL, model TEXT NOT NULL, answered INTEGER NOT NULL, failed INTEGER NOT NULL,
    PRIMARY KEY (second, model));
"""


class Journal:
    """Thread-safe. ``on_problem`` is called once with a sentence when the journal cannot be written."""

    def __init__(self, path: Path, on_problem: Callable[[str], None] = lambda sentence: None) -> None:
        self.path = path
        self._on_problem = on_problem
        self._lock = threading.Lock()
        self._queue: queue.Queue[Callable[[sqlite3.Connection], None] | None] = queue.Queue(_QUEUE)
        self._learnt: dict[str, dict[str, float]] = {}
        self._second = 0
        self._in_second = 0
        self._seconds: dict[tuple[int, str], list[int]] = {}
        """Answered and failed, by second and model, that are still to be written."""
        self._seconds_due = 0.0
        self._told = False
        self.dropped = 0
        self._loaded = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def record_load(self, model: str, location: str, outcome: str, stages: dict[str, float]) -> None:
        """One load: ``stages`` are seconds by LoadStage value; a finished one is what the next load learns from."""
        if outcome == "ready":
            with self._lock:
                self._learnt[location] = dict(stages)
        row = (time.time(), model, location, outcome, json.dumps(stages))
        self._put(
            lambda db: db.execute("INSERT INTO loads(at, model, location, outcome, stages) VALUES (?,?,?,?,?)", row)
        )

    def learnt_stages(self, location: str) -> dict[str, float]:
        """Seconds by stage of this model's last finished load; empty when there was none."""
        self._loaded.wait(2.0)
        with self._lock:
            return dict(self._learnt.get(location, {}))

    def record_request(self, record: RequestRecord) -> None:
        second = int(record.received_at)
        with self._lock:
            if second != self._second:
                self._second, self._in_second = second, 0
            self._in_second += 1
            aggregate = self._in_second > AGGREGATE_ABOVE
            if aggregate:
                answered = record.state is RequestState.ANSWERED
                counts = self._seconds.setdefault((second, record.model), [0, 0])
                counts[0 if answered else 1] += 1
                first = sum(counts) == 1
        if aggregate:
            if first:
                self._put(lambda db: None)  # wakes the writer, which now knows when to look again
            return
        row = (
            record.received_at, record.id, record.lane, record.client, record.model, str(record.state), record.code,
            record.size, record.wait_ms, record.run_ms,
        )  # fmt: skip
        self._put(
            lambda db: db.execute(
                "INSERT INTO requests(at, request, lane, client, model, state, code, size, wait_ms, run_ms) "
                "VALUES (?,?,?,?,?,?,?,?,?,?)",
                row,
            )
        )

    def close(self) -> None:
        """Write what is queued, then end. Bounded: a stuck disk is given up after five seconds."""
        self._closing.set()
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            log.warning("the journal did not keep up and was cut short")
        self._thread.join(5.0)

    def _put(self, write: Callable[[sqlite3.Connection], Any]) -> None:
        try:
            self._queue.put_nowait(write)
        except queue.Full:
            self.dropped += 1
            self._problem("The journal cannot keep up; some requests are not recorded.")

    def _problem(self, sentence: str) -> None:
        if not self._told:
            self._told = True
            log.warning("%s", sentence)
            self._on_problem(sentence)

    # -- the writer thread -----------------------------------------------------------------------------------------
    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=5.0)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_SCHEMA)
            db.execute("DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?", (_KEEP_REQUESTS,))
            rows = db.execute(
                "SELECT location, stages FROM loads WHERE id IN "
                "(SELECT max(id) FROM loads WHERE outcome = 'ready' GROUP BY location)"
            ).fetchall()
            db.commit()
        except BaseException:
            db.close()
            raise
        with self._lock:
            for location, stages in rows:
                self._learnt.setdefault(location, {str(k): float(v) for k, v in json.loads(stages).items()})
        return db

    def _open_or_set_aside(self) -> sqlite3.Connection | None:
        """The journal's database; a damaged one is kept beside a new one; None where nothing can be written."""
        try:
            return self._open()
        except (sqlite3.Error, OSError, ValueError) as error:
            reason = error
        try:
            if self.path.exists() and isinstance(reason, sqlite3.DatabaseError | ValueError):
                self.path.replace(self.path.with_name(self.path.name + ".damaged"))
                return self._open()
        except (sqlite3.Error, OSError, ValueError) as error:
            reason = error
        self._problem(f"The journal cannot be written ({reason}). Answers go on without it.")
        return None

    def _write(self) -> None:
        db = self._open_or_set_aside()
        self._loaded.set()
        try:
            while True:
                try:
                    write = self._queue.get(timeout=SECONDS_EVERY_S if self._seconds else None)
                    self._closing.wait(GATHER_S)
                except queue.Empty:
                    write = self._write_seconds
                if db is None:
                    self._seconds.clear()
                    if write is None:
                        return
                elif self._write_batch(db, write):
                    return
        finally:
            if db is not None:
                db.close()

    def _write_seconds(self, db: sqlite3.Connection) -> None:
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        self._seconds_due = time.monotonic() + SECONDS_EVERY_S
        db.executemany(
            "INSERT INTO seconds VALUES (?,?,?,?) ON CONFLICT(second, model) DO UPDATE SET "
            "answered = answered + excluded.answered, failed = failed + excluded.failed",
            [(second, model, *counts) for (second, model), counts in seconds.items()],
        )

    def _write_batch(self, db: sqlite3.Connection, write: Callable[[sqlite3.Connection], None] | None) -> bool:
        """One transaction over everything queued by now; True when the end (None) was queued too."""
        stop = write is None
        try:
            if write is not None:
                write(db)
            if stop or time.monotonic() >= self._seconds_due:
                self._write_seconds(db)
            while not stop:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                    self._write_seconds(db)
                    break
                following(db)
            db.commit()
        except sqlite3.Error as error:
            self._problem(f"The journal cannot be written ({error}). Answers go on without it.")
            try:
                db.rollback()
            except sqlite3.Error as second:
                log.debug("rolling back the journal failed: %s", second)
        return stop
