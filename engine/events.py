"""Typed events of the engine, and the bus that carries them.

Listeners are called on an engine thread: they return within a millisecond and never block (a front end posts to its own
loop). Front ends get coalesced :class:`Snapshot` events (at most ten a second), never one event per request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.errors import EngineError
from engine.serving_types import RequestRecord

log = logging.getLogger(__name__)


class ModelState(StrEnum):
    UNLOADED = "UNLOADED"
    STARTING = "STARTING"
    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


class LoadStage(StrEnum):
    """The real stages of a load, in their order."""

    RECOGNISING = "recognising"
    HASHING = "hashing"
    STARTING = "starting"
    IMPORTING = "importing framework"
    READING = "reading weights"
    BUILDING = "building"
    MOVING = "moving to device"
    WARMING = "warming up"


@dataclass(frozen=True, slots=True)
class ModelStateChanged:
    model_id: str
    state: ModelState
    error: EngineError | None = None


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """``fraction`` is 0..1 of this stage where it is measured (bytes) or learnt, else None: not known."""

    model_id: str
    stage: LoadStage
    fraction: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    learnt: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``stats()`` as of now, and the last 100 requests, newest first."""

    stats: dict[str, Any]
    requests: tuple[RequestRecord, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the owner should know that belongs to no model: settings were reset, the journal cannot be written."""

    code: str
    message: str


Event = ModelStateChanged | LoadProgress | Snapshot | Notice
Listener = Callable[[Event], None]


class EventBus:
    """Thread-safe fan-out. A listener that raises is logged and keeps its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for every event from now on; the returned function ends that, and may be called twice."""
        with self._lock:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def publish(self, event: Event) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener(event)
            except Exception:
                log.exception("event listener failed on %s", type(event).__name__)
