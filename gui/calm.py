"""How often the window shows what changes all the time.

A saturated server changes its counters thousands of times a second. Each look at them paints a dozen widgets, while
the server's threads want the interpreter as well: ten looks a second made the window late by 15 ms in the worst
hundredth of its time. Nobody reads ten numbers a second; a person's own few steps are shown at once.
"""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer

EVERY_MS = 1000
BURST = 4


class Calm(QObject):
    """Shows up to :data:`BURST` changes at once and then, while more come, the newest of each kind together every
    :data:`EVERY_MS`; the last one is always shown. On the GUI thread."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._left = BURST
        self._stopped = False
        self._waiting: dict[str, Callable[[], None]] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self._on_timeout)

    def offer(self, kind: str, show: Callable[[], None], *, at_once: bool = False) -> None:
        """Call ``show`` now or in a while, or never where a newer one of its ``kind`` comes before that.

        ``at_once``: it is no mere counting and does not wait."""
        if self._stopped:
            return
        if not self._timer.isActive():
            self._timer.start()
        if not at_once and not self._left:
            self._waiting[kind] = show
            return
        if not at_once:
            self._left -= 1
        self._waiting.pop(kind, None)
        show()

    def forget(self, kind: str) -> None:
        """What waits of this kind is overtaken: something newer was shown past it."""
        self._waiting.pop(kind, None)

    def stop(self) -> None:
        """Show nothing from now on. On any thread: the timer, which only its own may stop, finds nothing to do."""
        self._stopped = True
        self._waiting = {}

    def _on_timeout(self) -> None:
        if self._stopped:
            return
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            self._left += 1
        if waiting or self._left < BURST:
            self._timer.start()
        for show in waiting.values():
            show()
