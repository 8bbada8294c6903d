"""How busy the models are, twice a second over the last minute, from the engine's snapshots."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from engine.events import Snapshot
from engine.serving_types import RequestRecord, RequestState
from gui.widgets.live_chart import SAMPLES

EVERY_MS = 500
MINUTE_S = 60.0


class ServerMeter(QObject):
    """``sampled`` after each sample, while :meth:`run` is on. Rates are over the last second or so, times over the last
    minute of the last hundred requests, both doors together."""

    sampled = Signal()

    def __init__(self, parent: QObject | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(parent)
        self._clock = clock
        self._stats: dict[str, Any] = {"models": [], "waiting": 0, "running": 0}
        self._requests: tuple[RequestRecord, ...] = ()
        self._counts: deque[tuple[float, int, int, int, int]] = deque(maxlen=3)
        """(when, by the window, by the network, runs of models, rows they were given)"""
        self.you: deque[float] = deque(maxlen=SAMPLES)
        self.lan: deque[float] = deque(maxlen=SAMPLES)
        self.median: deque[float] = deque(maxlen=SAMPLES)
        self.slow: deque[float] = deque(maxlen=SAMPLES)
        self.waiting: deque[float] = deque(maxlen=SAMPLES)
        self.batch: deque[float] = deque(maxlen=SAMPLES)
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self.sample)

    def run(self, on: bool) -> None:
        if on and not self._timer.isActive():
            self.sample()
            self._timer.start()
        elif not on:
            self._timer.stop()

    def take(self, snapshot: Snapshot) -> None:
        """The engine's newest snapshot; where none comes, nothing has changed."""
        self._stats, self._requests = snapshot.stats, snapshot.requests

    def sample(self) -> None:
        models = self._stats["models"]
        now = self._clock()
        total = (
            sum(m["requests"]["window"] for m in models), sum(m["requests"]["network"] for m in models),
            sum(m["inferences"] for m in models), sum(m["statistics"]["rows"] for m in models),
        )  # fmt: skip
        self._counts.append((now, *total))
        then, *before = self._counts[0]
        passed = now - then
        # A model that was closed takes its counts with it: less than before is nothing, not a negative rate.
        you, lan, runs, rows = (max(0, new - old) for new, old in zip(total, before, strict=True))
        self.you.append(you / passed if passed > 0 else 0.0)
        self.lan.append(lan / passed if passed > 0 else 0.0)
        self.batch.append(rows / runs if runs else (self.batch[-1] if self.batch and not (you or lan) else 0.0))
        self.waiting.append(float(self._stats["waiting"]))
        times = self._times()
        self.median.append(_quantile(times, 0.5))
        self.slow.append(_quantile(times, 0.95))
        self.sampled.emit()

    def _times(self) -> list[float]:
        """Milliseconds from taken to answered, sorted."""
        since = time.time() - MINUTE_S
        return sorted(
            (record.wait_ms or 0.0) + (record.run_ms or 0.0)
            for record in self._requests
            if record.state is RequestState.ANSWERED and record.received_at >= since
        )


def _quantile(ordered: list[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
