"""The engine's two threads of its own: one publishes events and snapshots, one keeps the time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from enum import Enum

from engine.events import Event, EventBus, Snapshot

log = logging.getLogger(__name__)

SNAPSHOT_EVERY_S = 0.1


class _Wake(Enum):
    CHANGED = 1
    STOP = 2


class EventThread:
    """Publishes events in the order they were posted, and a snapshot at most every ``SNAPSHOT_EVERY_S``."""

    def __init__(self, bus: EventBus, snapshot: Callable[[], Snapshot]) -> None:
        self._bus = bus
        self._snapshot = snapshot
        self._queue: queue.SimpleQueue[Event | _Wake | Callable[[], None]] = queue.SimpleQueue()
        self._changed = False
        self._thread = threading.Thread(target=self._run, name="engine-events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, event: Event) -> None:
        self._queue.put(event)

    def after_all(self, callback: Callable[[], None]) -> None:
        """Call once all that was posted so far has been published."""
        self._queue.put(callback)

    def mark_changed(self) -> None:
        if not self._changed:
            self._changed = True
            self._queue.put(_Wake.CHANGED)

    def stop(self) -> None:
        """Publish what was posted, then end."""
        self._queue.put(_Wake.STOP)
        if self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self) -> None:
        due: float | None = None
        last = 0.0
        while True:
            try:
                event = self._queue.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                self._changed, due = False, None
                last = time.monotonic()
                self._bus.publish(self._snapshot())
                continue
            if event is _Wake.STOP:
                return
            if event is _Wake.CHANGED:
                due = max(time.monotonic(), last + SNAPSHOT_EVERY_S)
            elif callable(event):
                event()
            elif not isinstance(event, _Wake):
                self._bus.publish(event)


class ClockThread:
    """Calls ``tick`` when the earliest time anybody asked for has come."""

    def __init__(self, clock: Callable[[], float], tick: Callable[[], None]) -> None:
        self._clock = clock
        self._tick = tick
        self._condition = threading.Condition()
        self._next = float("inf")
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self, at: float) -> None:
        if at >= self._next:
            return  # a tick comes before that, and every tick asks for the next one
        with self._condition:
            if at < self._next:
                self._next = at
                self._condition.notify()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join(5.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and (wait := self._next - self._clock()) > 0:
                    self._condition.wait(min(wait, threading.TIMEOUT_MAX))
                if self._stopped:
                    return
                self._next = float("inf")
            try:
                self._tick()
            except Exception:
                log.exception("the engine's clock stumbled")
