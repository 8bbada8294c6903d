"""Tells listeners that something changed, at most ten times a second, and always of the last change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

INTERVAL_S = 0.1


class CoalescingNotifier(Generic[T]):
    """Calls each listener with ``read()`` after :meth:`changed`: at once, or when the interval since the last call is
    over. Listeners run on the changing thread or on a timer's; one that raises is logged and keeps its place."""

    def __init__(self, read: Callable[[], T], interval_s: float = INTERVAL_S) -> None:
        self._read = read
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._delivering = threading.RLock()
        self._listeners: list[Callable[[T], None]] = []
        self._last = -interval_s
        self._timer: threading.Timer | None = None

    def subscribe(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Call ``listener`` from now on; the returned function ends that, and may be called twice."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def changed(self) -> None:
        """Never blocks for longer than the listeners take."""
        with self._lock:
            if self._timer is not None or not self._listeners:
                return
            wait_s = self._last + self._interval_s - time.monotonic()
            if wait_s > 0:
                self._timer = threading.Timer(wait_s, self._on_timer)
                self._timer.name = "server-notify"
                self._timer.daemon = True
                self._timer.start()
                return
            self._last = time.monotonic()
        self._deliver()

    def flush(self) -> None:
        """Wait until what changed has been told (at most one interval and the listeners' time)."""
        with self._lock:
            timer = self._timer
        if timer is not None and timer is not threading.current_thread():
            timer.join()

    def _on_timer(self) -> None:
        with self._lock:
            self._timer = None
            self._last = time.monotonic()
        self._deliver()

    def _deliver(self) -> None:
        with self._delivering:
            with self._lock:
                listeners = tuple(self._listeners)
            state = self._read()
            for listener in listeners:
                try:
                    listener(state)
                except Exception:
                    log.exception("a listener of the server failed")
