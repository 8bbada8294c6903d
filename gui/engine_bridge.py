"""The only place where a Future or an engine event becomes a Qt signal.

Work that may take time (engine calls, disk, the server's switch) runs on a few named threads; its result comes back
to the GUI thread as a call of ``done`` or ``failed``. A result whose ticket was dropped, or whose owner is gone, is
thrown away, so a late answer can hit neither a newer question nor a dead widget.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal
from shiboken6 import isValid

from engine import EnginePort
from engine.errors import RequestCancelled
from engine.events import Event, LoadProgress, ModelStateChanged, Notice, Snapshot
from gui.calm import Calm
from gui.language import tr

log = logging.getLogger(__name__)

_COUNTED = frozenset(("requests", "inferences", "statistics", "waiting", "running", "memory", "device_memory"))
"""What of a model's entry changes while nothing happens to it but being asked."""

Done = Callable[[Any], None]
Failed = Callable[[BaseException], None]


@dataclass(slots=True)
class _Pending:
    owner: QObject
    done: Done
    failed: Failed
    future: Future[Any] | None = None


class EngineBridge(QObject):
    """Signals carry the event objects of :mod:`engine.events`. Lives on the GUI thread; :meth:`close` ends it."""

    model_state_changed = Signal(object)
    load_progressed = Signal(object)
    snapshot_taken = Signal(object)
    """Every one, for who counts."""
    snapshot_due = Signal(object)
    """Those of them that are to be shown (:mod:`gui.calm`)."""
    notice_given = Signal(object)
    _settled = Signal(int, object, object)

    def __init__(self, engine: EnginePort, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.engine = engine
        self._tickets = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        # Re-entrant: an event published on the GUI thread is delivered at once and may start new work.
        self._gate = threading.RLock()
        self._open = True
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="gui-task")
        self._settled.connect(self._on_settled, Qt.ConnectionType.QueuedConnection)
        self.calm = Calm(self)
        self._states: list[dict[str, Any]] = []
        """Of the models, as last shown, without what is only counted."""
        self.snapshot_taken.connect(self._on_snapshot)
        self.model_state_changed.connect(self._overtake)
        this = weakref.ref(self)

        def relay(event: Event) -> None:
            bridge = this()
            if bridge is not None:
                bridge._relay(event)

        self._unsubscribe = engine.subscribe(relay)

    # -- work and futures ------------------------------------------------------------------------------------------
    def run(self, owner: QObject, work: Callable[[], Any], done: Done, failed: Failed) -> int:
        """Run ``work`` on a task thread; returns the ticket that :meth:`drop` takes."""
        ticket = self._register(owner, done, failed)
        self._start(ticket, work, chained=False)
        return ticket

    def ask(self, owner: QObject, call: Callable[[EnginePort], Future[Any]], done: Done, failed: Failed) -> int:
        """Make an engine call that answers by Future. The call itself is made on a task thread as well."""
        ticket = self._register(owner, done, failed)
        self._start(ticket, lambda: call(self.engine), chained=True)
        return ticket

    def read_stats(self, owner: QObject, done: Done, failed: Failed) -> int:
        """What the engine's ``stats()`` say now, without waiting for its next snapshot."""

        def newest(stats: dict[str, Any]) -> None:
            self._overtake()
            done(stats)

        return self.run(owner, self.engine.stats, newest, failed)

    def drop(self, ticket: int) -> None:
        """Forget a ticket: its answer is stale. A request that still waits in the engine is withdrawn."""
        pending = self._pending.pop(ticket, None)
        if pending is not None and pending.future is not None:
            pending.future.cancel()

    def is_pending(self, ticket: int) -> bool:
        """Whether the answer to ``ticket`` is still to come."""
        return ticket in self._pending

    def close(self, wait: bool = True) -> None:
        """End the subscription and the threads; blocks until they are gone where ``wait`` is set. Idempotent."""
        with self._gate:
            self._open = False
        self.calm.stop()
        self._unsubscribe()
        self._pool.shutdown(wait=wait, cancel_futures=True)

    @property
    def is_open(self) -> bool:
        """False once closing has begun; long work asks between its steps."""
        return self._open

    def _register(self, owner: QObject, done: Done, failed: Failed) -> int:
        ticket = next(self._tickets)
        self._pending[ticket] = _Pending(owner, done, failed)
        return ticket

    def _start(self, ticket: int, work: Callable[[], Any], *, chained: bool) -> None:
        def task() -> None:
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001  (handed to the caller's `failed`, never swallowed)
                self._settle(ticket, None, error)
                return
            if chained:
                pending = self._pending.get(ticket)
                if pending is None:
                    value.cancel()
                    return
                pending.future = value
                value.add_done_callback(lambda future: self._settle_future(ticket, future))
            else:
                self._settle(ticket, value, None)

        with self._gate:
            if not self._open:
                self._pending.pop(ticket, None)
                return
            self._pool.submit(task)

    def _settle_future(self, ticket: int, future: Future[Any]) -> None:
        try:
            error = future.exception()
        except CancelledError:
            error = RequestCancelled(tr("The request was cancelled."))
        self._settle(ticket, None if error else future.result(), error)

    def _settle(self, ticket: int, value: Any, error: BaseException | None) -> None:
        with self._gate:
            if self._open:
                self._settled.emit(ticket, value, error)

    def _on_settled(self, ticket: int, value: Any, error: BaseException | None) -> None:
        pending = self._pending.pop(ticket, None)
        if pending is None or not isValid(pending.owner):
            return
        if error is not None:
            pending.failed(error)
        else:
            pending.done(value)

    # -- events ----------------------------------------------------------------------------------------------------
    def _relay(self, event: Event) -> None:
        with self._gate:
            if not self._open:
                return
            if isinstance(event, LoadProgress):
                self.load_progressed.emit(event)
            elif isinstance(event, ModelStateChanged):
                self.model_state_changed.emit(event)
            elif isinstance(event, Snapshot):
                self.snapshot_taken.emit(event)
            elif isinstance(event, Notice):
                self.notice_given.emit(event)

    def _on_snapshot(self, event: Snapshot) -> None:
        states = [{k: v for k, v in entry.items() if k not in _COUNTED} for entry in event.stats["models"]]
        has_changed, self._states = states != self._states, states
        self.calm.offer("snapshot", lambda: self.snapshot_due.emit(event), at_once=has_changed)

    def _overtake(self, _event: object = None) -> None:
        """A snapshot that waits to be shown is older than what is shown now; the next one comes by itself."""
        self.calm.forget("snapshot")
