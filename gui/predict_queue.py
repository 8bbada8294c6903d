"""What was dropped, one after the other through the engine, with every item's answer or reason kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from engine import EnginePort, Lane, Prediction, PredictRequest
from gui.engine_bridge import EngineBridge
from gui.error_text import FileProblem
from gui.intake import InputFile, read_input

MAX_ITEMS = 10_000
"""Items the list keeps; the oldest finished ones go first."""
TIMEOUT_S = 60.0
TELL_EVERY_MS = 50


class ItemState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class Item:
    """One dropped thing. ``prediction`` or ``error`` is set once it is over; ``model`` answered it."""

    number: int
    source: InputFile
    state: ItemState = ItemState.QUEUED
    prediction: Prediction | None = None
    error: BaseException | None = None
    model: str = ""
    lane: Lane = Lane.OWNER


class PredictQueue(QObject):
    """``item_changed(item)`` after every change of one, ``changed`` for them all, at most twenty times a second."""

    changed = Signal()
    item_changed = Signal(object)

    def __init__(self, bridge: EngineBridge, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._bridge = bridge
        self._numbers = itertools.count(1)
        self._running: tuple[Item, int] | None = None
        self._tell_all = QTimer(self)
        self._tell_all.setSingleShot(True)
        self._tell_all.setInterval(TELL_EVERY_MS)
        self._tell_all.timeout.connect(self.changed)
        self.items: list[Item] = []
        self.model = ""
        self._params: dict[str, Any] = {}

    @property
    def counts(self) -> dict[ItemState, int]:
        """How many items are in each state; the numbers add up to ``len(items)``."""
        result = dict.fromkeys(ItemState, 0)
        for item in self.items:
            result[item.state] += 1
        return result

    def add(self, sources: list[InputFile], refused: list[tuple[str, FileProblem]]) -> list[Item]:
        """Queue ``sources`` (several take the batch lane, so that others need not wait) and list what was refused."""
        lane = Lane.BATCH if len(sources) > 1 else Lane.OWNER
        added = [Item(next(self._numbers), source, lane=lane) for source in sources]
        for name, problem in refused:
            source = InputFile(name, "other")
            added.append(Item(next(self._numbers), source, ItemState.FAILED, error=problem))
        self.items += added
        while len(self.items) > MAX_ITEMS and self.items[0].state in (ItemState.DONE, ItemState.FAILED):
            del self.items[0]
        self.changed.emit()
        self._next()
        return added

    def run_again(self, item: Item) -> bool:
        """Ask for one item anew (another model is active, or it failed); False where it waits or runs already."""
        if item.state not in (ItemState.DONE, ItemState.FAILED) or item.source.kind == "other":
            return False
        item.state, item.prediction, item.error, item.lane = ItemState.QUEUED, None, None, Lane.OWNER
        self._tell(item)
        self._next()
        return True

    def set_model(self, model: str, params: Mapping[str, Any] | None = None) -> None:
        """The model that answers from now on ("" holds the queue), and what every request asks for beside its input."""
        self.model = model
        self._params = dict(params or {})
        self._next()

    def clear(self) -> list[tuple[int, Item]]:
        """Forget every item; what runs is withdrawn. What :meth:`put_back` takes."""
        return self.take_out(list(self.items))

    def take_out(self, items: Sequence[Item]) -> list[tuple[int, Item]]:
        """Forget ``items``; one that runs is withdrawn. What :meth:`put_back` takes: where they were."""
        numbers = {item.number for item in items}
        taken = [(place, item) for place, item in enumerate(self.items) if item.number in numbers]
        if self._running is not None and self._running[0].number in numbers:
            item, ticket = self._running
            self._bridge.drop(ticket)
            self._running = None
            item.state = ItemState.QUEUED
        self.items = [item for item in self.items if item.number not in numbers]
        self.changed.emit()
        self._next()
        return taken

    def put_back(self, taken: Sequence[tuple[int, Item]]) -> None:
        """Undo :meth:`take_out`; what waited or ran then waits again."""
        for place, item in taken:
            self.items.insert(min(place, len(self.items)), item)
        self.changed.emit()
        self._next()

    def replace_prediction(self, item: Item, prediction: Prediction) -> None:
        item.prediction = prediction
        self._tell(item)

    def _next(self) -> None:
        if self._running is not None or not self.model:
            return
        item = next((i for i in self.items if i.state is ItemState.QUEUED), None)
        if item is None:
            return
        item.state, item.model = ItemState.RUNNING, self.model
        ticket = self._bridge.ask(self, self._request(item), self._on_answer, self._on_error)
        self._running = (item, ticket)
        self._tell(item)

    def _request(self, item: Item) -> Callable[[EnginePort], Future[Prediction]]:
        source, model, lane, params = item.source, item.model, item.lane, self._params

        def call(engine: EnginePort) -> Future[Prediction]:
            data = read_input(source)  # on a task thread: a slow disk holds up nothing else
            return engine.predict(
                PredictRequest(model, data, source.content_type, params, lane=lane, client="you", timeout_s=TIMEOUT_S)
            )

        return call

    def _on_answer(self, prediction: Prediction) -> None:
        self._finish(ItemState.DONE, prediction=prediction)

    def _on_error(self, error: BaseException) -> None:
        self._finish(ItemState.FAILED, error=error)

    def _finish(
        self, state: ItemState, prediction: Prediction | None = None, error: BaseException | None = None
    ) -> None:
        if self._running is None:
            return
        item, _ = self._running
        self._running = None
        item.state, item.prediction, item.error = state, prediction, error
        self._tell(item)
        self._next()

    def _tell(self, item: Item) -> None:
        self.item_changed.emit(item)
        if not self._tell_all.isActive():
            self._tell_all.start()
