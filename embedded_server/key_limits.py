"""How often and how many at once each key may ask, and when it last did. Thread-safe; nothing here blocks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from embedded_server.access import KeyDigest

WINDOW_S = 60.0


class KeyLimits:
    """``clock`` is monotonic, in seconds; ``now`` is Unix time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._asked: dict[str, deque[float]] = {}
        self._inside: dict[str, int] = {}
        self._last_used: dict[str, float] = {}

    def enter(self, key: KeyDigest) -> float | None:
        """Let one question of ``key`` in, or say after how many seconds to ask again. What was let in must
        :meth:`leave`."""
        with self._lock:
            if (wait_s := self._wait_s(key)) is not None:
                return wait_s
            if key.per_minute is not None:
                self._asked[key.name].append(self._clock())
            self._inside[key.name] = self._inside.get(key.name, 0) + 1
            return None

    def wait_s(self, key: KeyDigest) -> float | None:
        """After how many seconds to ask again, None where a question would be let in; nothing is counted."""
        if key.per_minute is None and key.at_once is None:
            return None
        with self._lock:
            return self._wait_s(key)

    def _wait_s(self, key: KeyDigest) -> float | None:
        if key.per_minute is not None:
            now, asked = self._clock(), self._asked.setdefault(key.name, deque())
            while asked and now - asked[0] >= WINDOW_S:
                asked.popleft()
            if len(asked) >= key.per_minute:
                return WINDOW_S - (now - asked[0]) if asked else WINDOW_S
        if key.at_once is not None and self._inside.get(key.name, 0) >= key.at_once:
            return 1.0
        return None

    def leave(self, key: KeyDigest) -> None:
        with self._lock:
            self._inside[key.name] -= 1

    def used(self, key: KeyDigest) -> None:
        with self._lock:
            self._last_used[key.name] = self._now()

    def last_used(self) -> dict[str, float]:
        """Unix time in seconds, by key name, of the keys that were used since this was made."""
        with self._lock:
            return dict(self._last_used)
