"""Live pictures through the model: the newest is asked about whenever the last answer is there, and never one more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from engine import EnginePort, Lane, Prediction, PredictRequest
from engine.errors import EngineError
from gui.engine_bridge import EngineBridge
from gui.frames import Frame, FrameSource, FrameSources, SourceOrder, SourceState
from gui.frames.rate import Rate
from gui.predict_queue import TIMEOUT_S

LOOK_EVERY_MS = 15
"""How often the source is asked for a newer picture: a camera of 60 a second is not missed."""
AFTER_ERROR_S = 1.0
"""Pause before the next question after one that failed: a refusal would come back at once, for ever."""


class LiveSession(QObject):
    """``pictured(Frame)`` for a newer picture, ``answered(Frame, Prediction)`` and ``refused(Frame, error)`` for what
    became of one, ``changed`` when the source opened or ended. Lives on the GUI thread; :meth:`shut_down` may be called
    from any."""

    changed = Signal()
    pictured = Signal(object)
    answered = Signal(object, object)
    refused = Signal(object, object)

    def __init__(
        self,
        bridge: EngineBridge,
        sources: FrameSources,
        parent: QObject | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(parent)
        self._bridge, self._sources, self._clock = bridge, sources, clock
        self._lock = threading.Lock()
        self._open: list[FrameSource] = []
        """Those that may still hold a camera; under the lock, for :meth:`shut_down`."""
        self._source: FrameSource | None = None
        self._state = SourceState.ENDED
        self._ticket = 0
        self._asked = 0
        self._answers = 0
        self._wait_until = 0.0
        self._params: dict[str, Any] = {}
        self._given, self._answered = Rate(), Rate()
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._look)
        self.order: SourceOrder | None = None
        self.frame: Frame | None = None
        """The newest picture."""
        self.model = ""
        """The model that is asked, "" for none: pictures are shown all the same."""
        self.may_ask: Callable[[], bool] = lambda: True
        """False while the last answer is still being drawn."""

    @property
    def source(self) -> FrameSource | None:
        return self._source

    @property
    def problem(self) -> EngineError | None:
        """Why the source gives nothing any more."""
        return self._source.problem if self._source is not None else None

    @property
    def is_asking(self) -> bool:
        return self._bridge.is_pending(self._ticket)

    def start(self, order: SourceOrder) -> None:
        """Open ``order``, in place of what was open."""
        self.stop()
        self.order = order
        source = self._source = self._sources.source(order)
        self._state = SourceState.OPENING
        with self._lock:
            self._open.append(source)
        self._bridge.run(self, source.open, lambda _: None, self._on_fault)
        self._timer.start()
        self.changed.emit()

    def stop(self) -> None:
        """Let the source go; what is being asked is withdrawn."""
        source, self._source = self._source, None
        self._timer.stop()
        self._bridge.drop(self._ticket)
        self.frame, self.order, self._asked, self._state = None, None, 0, SourceState.ENDED
        self._wait_until = 0.0
        self._given.clear()
        self._answered.clear()
        if source is not None:
            self._bridge.run(self, lambda: self._let_go(source), lambda _: None, self._on_fault)
            self.changed.emit()

    def shut_down(self) -> None:
        """Close whatever is open, and wait for it. From any thread; nothing is opened afterwards by itself."""
        self._sources.close()
        with self._lock:
            still_open = list(self._open)
        for source in still_open:
            self._let_go(source)

    def set_model(self, model: str, params: Mapping[str, Any]) -> None:
        """Ask ``model`` from the next picture on, with ``params`` beside it."""
        if model != self.model:
            self._bridge.drop(self._ticket)
            self._wait_until = 0.0
            self._answered.clear()
        self.model, self._params = model, dict(params)

    def refine(self, params: Mapping[str, Any]) -> None:
        """Ask otherwise from now on: a slider was moved."""
        self._params |= params
        self._asked = 0

    def ask_again(self) -> None:
        """Do not wait after an error."""
        self._wait_until, self._asked = 0.0, 0

    def rates(self) -> tuple[float | None, float | None]:
        """Answers a second, and pictures the source gives a second; None where it is not known yet."""
        now = self._clock()
        return self._answered.per_second(now), self._given.per_second(now)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _let_go(self, source: FrameSource) -> None:
        source.close()
        with self._lock:
            if source in self._open:
                self._open.remove(source)

    @staticmethod
    def _on_fault(error: BaseException) -> None:
        """A source tells its problems itself; what it raises is a fault, for whoever reports those."""
        raise error

    def _look(self) -> None:
        source = self._source
        if source is None:
            return
        state = source.state
        if state is not self._state:
            self._state = state
            if state is SourceState.ENDED:
                self._timer.stop()
                self._bridge.drop(self._ticket)
            self.changed.emit()
        frame = source.latest()
        if frame is None or source is not self._source:
            return
        if self.frame is None or frame.number != self.frame.number:
            self.frame = frame
            self._given.add(self._clock(), frame.number)
            self.pictured.emit(frame)
        self._ask(frame)

    def _ask(self, frame: Frame) -> None:
        """The one question under way is the only one: nothing ever waits in line for the model."""
        if not self.model or frame.number == self._asked or self.is_asking or not self.may_ask():
            return
        if self._clock() < self._wait_until:
            return
        self._asked = frame.number
        request = PredictRequest(
            self.model, frame.jpeg, "image/jpeg", dict(self._params), Lane.OWNER, client="you", timeout_s=TIMEOUT_S
        )

        def call(engine: EnginePort) -> Future[Prediction]:
            return engine.predict(request)

        self._ticket = self._bridge.ask(
            self,
            call,
            lambda prediction: self._on_answer(frame, prediction),
            lambda error: self._on_error(frame, error),
        )

    def _on_answer(self, frame: Frame, prediction: Prediction) -> None:
        self._answers += 1
        self._answered.add(self._clock(), self._answers)
        self.answered.emit(frame, prediction)

    def _on_error(self, frame: Frame, error: BaseException) -> None:
        self._wait_until = self._clock() + AFTER_ERROR_S
        self.refused.emit(frame, error)
