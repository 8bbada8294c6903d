"""One line of JSON for each request: who asked what and how it went. Never a body, a query, a key or a file path."""

from __future__ import annotations

import datetime
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path

import orjson

from embedded_server.access import Decision, is_canonical, needed_right

MOST_BYTES = 4 << 20
KEPT_FILES = 4
"""Beside the newest one; the oldest goes."""
LOG_FILE = "requests.log"
NEWEST = 500
MOST_WAITING = 10_000
AT_ONCE = 200
PAUSE_S = 0.05
END_S = 5.0
LONGEST_PATH, LONGEST_METHOD = 200, 10
_Line = tuple[float, str, Decision, str, str, int, int, int, float]
"""Unix time, request id, decision, method, path, status, bytes received, bytes sent, seconds."""


class RequestLog:
    """``target`` is ``off``, ``stderr`` or ``file``: then ``folder/requests.log``, rotated at 4 MiB, five in all.
    ``before``: lines of a log that this one goes on from.

    A thread of its own writes, so that no answer waits for the disk. A disk that is full, or :data:`MOST_WAITING` lines
    behind, costs lines, not answers. The newest :data:`NEWEST` are kept in memory as well, for the owner's page. A line
    is put into words by whoever writes or reads it. Thread-safe.
    """

    def __init__(self, target: str, folder: Path | None = None, before: Iterable[str] = ()) -> None:
        self._newest: deque[str | _Line] = deque(before, maxlen=NEWEST)
        self._lock = threading.Lock()
        self._writer: _Writer | None = None
        self._handler: logging.Handler | None = None
        if target == "stderr":
            self._handler = logging.StreamHandler(sys.stderr)
        elif target == "file" and folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._handler = RotatingFileHandler(
                folder / LOG_FILE, maxBytes=MOST_BYTES, backupCount=KEPT_FILES, encoding="utf-8", delay=True
            )

    def write(
        self,
        request_id: str,
        decision: Decision,
        method: str,
        path: str,
        status: int,
        *,
        received: int,
        sent: int,
        seconds: float,
    ) -> None:
        """``received`` and ``sent`` are bytes of bodies."""
        line: str | _Line = (time.time(), request_id, decision, method, path, status, received, sent, seconds)
        if len(path) > LONGEST_PATH or len(method) > LONGEST_METHOD or not is_canonical(path):
            line = _words(line)  # what the client made as long as it liked is not kept
        self._newest.append(line)
        if self._handler is not None:
            with self._lock:
                if self._writer is None:
                    self._writer = _Writer(self._handler)
                self._writer.add(line)

    def newest(self) -> tuple[str, ...]:
        """Lines of JSON, oldest first."""
        return tuple(map(_words, tuple(self._newest)))

    def close(self) -> None:
        """Write what waits, and let go of the file. A line that comes later opens it again."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            writer.end()
        if self._handler is not None:
            self._handler.close()


def _words(line: str | _Line) -> str:
    if isinstance(line, str):
        return line
    at, request_id, decision, method, path, status, received, sent, seconds = line
    known = is_canonical(path)
    return orjson.dumps(
        {
            "time": datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds"),
            "id": request_id,
            "lane": str(decision.lane),
            "client": decision.client,
            "key": decision.key.name if decision.key is not None else None,
            "method": method if method.isalpha() and len(method) <= LONGEST_METHOD else "?",
            # A path of none of the written forms may hold anything at all.
            "path": path if known and len(path) <= LONGEST_PATH else "?",
            "model": (needed_right(method, path)[1][:64] or None) if known else None,
            "status": status,
            "reason": decision.reason or None,
            "received": received,
            "sent": sent,
            "ms": round(seconds * 1000, 2),
        }
    ).decode()


class _Writer:
    """The thread that writes lines to ``handler``; several that are close together at once."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._lines: queue.SimpleQueue[str | _Line | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server-log", daemon=True)
        self._thread.start()

    def add(self, line: str | _Line) -> None:
        if self._lines.qsize() < MOST_WAITING:
            self._lines.put(line)

    def end(self) -> None:
        """Wait until every line is written, or the disk has had :data:`END_S` seconds for it."""
        self._ending.set()
        self._lines.put(None)
        self._thread.join(END_S)

    def _run(self) -> None:
        line = self._lines.get()
        while line is not None:
            lines = [line]
            while (line := self._next()) and len(lines) < AT_ONCE:
                lines.append(line)
            text = "\n".join(map(_words, lines))
            self._handler.handle(logging.LogRecord("deskside.requests", logging.INFO, "", 0, text, None, None))
            if line == "":
                self._ending.wait(PAUSE_S)  # those that come meanwhile are written together
                line = self._lines.get()

    def _next(self) -> str | _Line | None:
        """The next line, "" where none waits, None at the end."""
        try:
            return self._lines.get_nowait()
        except queue.Empty:
            return ""
