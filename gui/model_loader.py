"""The QThread on which a load runs and reports: recognition, hashing and loading are asked for from there.

The engine call is made on this thread, progress is thinned out on it, and the GUI thread only ever gets small signals.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Qt, QThread, Signal

from engine import EnginePort, LoadTicket
from engine.errors import LoadCancelled
from engine.events import LoadProgress, LoadStage
from gui.engine_bridge import EngineBridge
from gui.language import tr

PROGRESS_INTERVAL_S = 0.05
"""Progress of one stage reaches the window at most this often."""


_ABANDONED: list[QThread] = []


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """What to load. ``replaces`` is the id of an open model whose next version is wanted, "" for a load of its own;
    it stays on its device and in its precision where none is named."""

    path: Path
    trust: bool = False
    replaces: str = ""
    device: str = ""
    precision: str = ""

    def start(self, engine: EnginePort) -> LoadTicket:
        """Ask ``engine`` for it. What goes wrong may be raised here or come through the ticket."""
        if self.replaces:
            return engine.reload(
                self.replaces, trust=self.trust, device=self.device or None, precision=self.precision or None
            )
        return engine.load(self.path, trust=self.trust)


class _LoadWorker(QObject):
    """Lives on the loader's thread."""

    started = Signal(int, str)
    progressed = Signal(object)
    finished = Signal(int, object, object)

    def __init__(self, engine: EnginePort) -> None:
        super().__init__()
        self._engine = engine
        self._lock = threading.Lock()
        self._tickets: dict[int, LoadTicket] = {}
        self._cancelled: set[int] = set()
        self._last: dict[str, tuple[LoadStage, float]] = {}
        self._open = True

    def load(self, token: int, order: LoadOrder) -> None:
        if token in self._cancelled:
            self._finish(token, None, LoadCancelled(tr("The load was cancelled.")))
            return
        try:
            ticket = order.start(self._engine)
        except Exception as error:  # noqa: BLE001  (becomes the load's own error, shown to the person)
            self._finish(token, None, error)
            return
        with self._lock:
            self._tickets[token] = ticket
            late = token in self._cancelled
        self.started.emit(token, ticket.model_id)
        if late:
            ticket.cancel()
        ticket.future.add_done_callback(lambda future: self._on_future(token, future))

    def cancel(self, token: int) -> None:
        """End a load, from any thread; one whose engine call has not returned yet is ended as soon as it does."""
        with self._lock:
            self._cancelled.add(token)
            ticket = self._tickets.get(token)
        if ticket is not None:
            ticket.cancel()

    def cancel_all(self) -> None:
        with self._lock:
            tokens = set(self._tickets)
        for token in tokens:
            self.cancel(token)

    def close(self) -> None:
        with self._lock:
            self._open = False

    def on_progress(self, event: LoadProgress) -> None:
        now = time.monotonic()
        stage, sent_at = self._last.get(event.model_id, (None, 0.0))
        if stage is event.stage and now - sent_at < PROGRESS_INTERVAL_S and event.fraction not in (None, 1.0):
            return
        self._last[event.model_id] = (event.stage, now)
        self.progressed.emit(event)

    def _on_future(self, token: int, future: Future[dict[str, Any]]) -> None:
        try:
            error = future.exception()
        except CancelledError:
            error = LoadCancelled(tr("The load was cancelled."))
        self._finish(token, None if error else future.result(), error)

    def _finish(self, token: int, entry: dict[str, Any] | None, error: BaseException | None) -> None:
        with self._lock:
            self._tickets.pop(token, None)
            self._cancelled.discard(token)
            if self._open:
                self.finished.emit(token, entry, error)


class ModelLoader(QObject):
    """Loads by token. Signals, all on the GUI thread and in order:

    ``started(token, model_id)`` once the engine took the load, ``progressed(LoadProgress)``, then exactly one of
    ``loaded(token, entry)``, ``failed(token, order, error)``, ``cancelled(token, order)``.
    """

    started = Signal(int, str)
    progressed = Signal(object)
    loaded = Signal(int, object)
    failed = Signal(int, object, object)
    cancelled = Signal(int, object)
    stopped = Signal()
    _load_asked = Signal(int, object)

    def __init__(self, bridge: EngineBridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._bridge = bridge
        self._tokens = itertools.count(1)
        self._orders: dict[int, LoadOrder] = {}
        self._thread = QThread()
        self._thread.setObjectName("model-loader")
        self._worker = _LoadWorker(bridge.engine)
        self._worker.moveToThread(self._thread)
        queued = Qt.ConnectionType.QueuedConnection
        self._load_asked.connect(self._worker.load, queued)
        bridge.load_progressed.connect(self._worker.on_progress, queued)
        self._worker.started.connect(self.started, queued)
        self._worker.progressed.connect(self.progressed, queued)
        self._worker.finished.connect(self._on_finished, queued)
        self._thread.finished.connect(self.stopped, queued)
        self._thread.start()

    @property
    def is_loading(self) -> bool:
        return bool(self._orders)

    def load(self, order: LoadOrder) -> int:
        """Ask for a load; returns its token at once."""
        token = next(self._tokens)
        self._orders[token] = order
        self._load_asked.emit(token, order)
        return token

    def cancel(self, token: int) -> None:
        """End a load in whatever stage it is. The engine is told on a task thread, so a slow answer freezes nothing."""
        if token in self._orders:
            self._bridge.run(self, lambda: self._worker.cancel(token), _nothing, _raise)

    def shut_down(self) -> None:
        """End every load and the thread without waiting; ``stopped`` says when the thread is gone."""
        self._worker.close()
        self._thread.quit()

    def cancel_all(self) -> None:
        """End every load, from any thread."""
        for token in tuple(self._orders):
            self._worker.cancel(token)

    def wait(self, milliseconds: int) -> bool:
        """Whether the thread ended within the time. Never called on the GUI thread of a running window."""
        return self._thread.wait(milliseconds)

    def abandon(self) -> None:
        """Let a thread that does not end outlive its owner: Qt would abort the process that destroys it."""
        if self._thread.isRunning():
            _ABANDONED.append(self._thread)

    def _on_finished(self, token: int, entry: dict[str, Any] | None, error: BaseException | None) -> None:
        order = self._orders.pop(token, None)
        if order is None:
            return
        if isinstance(error, LoadCancelled):
            self.cancelled.emit(token, order)
        elif error is not None:
            self.failed.emit(token, order, error)
        else:
            self.loaded.emit(token, entry)


def _nothing(_value: object) -> None:
    """A cancel has no answer of its own: the load's end is."""


def _raise(error: BaseException) -> None:
    raise error
