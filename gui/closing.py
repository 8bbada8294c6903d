"""The end of a window, off the GUI thread: loads are cancelled, the server drains, threads end, then it closes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from PySide6.QtCore import QObject, Qt, QTimer, Signal

log = logging.getLogger(__name__)

CLOSE_WITHIN_MS = 20_000
"""A close that takes longer goes on without waiting; the engine's own close is bounded as well."""


class Closing(QObject):
    """Runs ``steps`` in their order on a thread of its own, because each may wait. ``over`` says whether all ended."""

    over = Signal(bool)
    _ended = Signal()

    def __init__(self, steps: Sequence[Callable[[], object]], parent: QObject) -> None:
        super().__init__(parent)
        self._steps = tuple(steps)
        self.under_way = False
        self._ended.connect(self._on_ended, Qt.ConnectionType.QueuedConnection)
        self._limit = QTimer(self)
        self._limit.setSingleShot(True)
        self._limit.setInterval(CLOSE_WITHIN_MS)
        self._limit.timeout.connect(self._on_too_long)

    def begin(self) -> None:
        """Start, once; returns at once."""
        if not self.under_way:
            self.under_way = True
            self._limit.start()
            threading.Thread(target=self._run, name="gui-close", daemon=True).start()

    def _run(self) -> None:
        for step in self._steps:
            try:
                step()
            except Exception:
                log.exception("closing the window: %s", step)
        self._ended.emit()

    def _on_ended(self) -> None:
        if self._limit.isActive():
            self._limit.stop()
            self.over.emit(True)

    def _on_too_long(self) -> None:
        log.error("the window closed before everything in it had ended")
        self.over.emit(False)
