"""One line of JSON for each request: who asked what and how it went. Never a body, a query, a key or a file path."""

from __future__ import annotations

import datetime
import logging
import sys
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


class RequestLog:
    """``target`` is ``off``, ``stderr`` or ``file``: then ``folder/requests.log``, rotated at 4 MiB, five in all.
    ``before``: lines of a log that this one goes on from.

    A disk that is full costs lines, not answers. The newest :data:`NEWEST` are kept in memory as well, for the owner's
    page. Thread-safe.
    """

    def __init__(self, target: str, folder: Path | None = None, before: Iterable[str] = ()) -> None:
        self._handler: logging.Handler | None = None
        self._newest: deque[str] = deque(before, maxlen=NEWEST)
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
        known = is_canonical(path)
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "id": request_id,
            "lane": str(decision.lane),
            "client": decision.client,
            "key": decision.key.name if decision.key is not None else None,
            "method": method if method.isalpha() and len(method) <= 10 else "?",
            # A path of none of the written forms may hold anything at all.
            "path": path if known and len(path) <= 200 else "?",
            "model": (needed_right(method, path)[1][:64] or None) if known else None,
            "status": status,
            "reason": decision.reason or None,
            "received": received,
            "sent": sent,
            "ms": round(seconds * 1000, 2),
        }
        text = orjson.dumps(line).decode()
        self._newest.append(text)
        if self._handler is not None:
            self._handler.handle(logging.LogRecord("deskside.requests", logging.INFO, "", 0, text, None, None))

    def newest(self) -> tuple[str, ...]:
        """Lines of JSON, oldest first."""
        return tuple(self._newest)

    def close(self) -> None:
        if self._handler is not None:
            self._handler.close()
