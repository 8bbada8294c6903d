"""The answer beside the input: the view of its task, a row of a table, or the reason why there is none."""

from __future__ import annotations

from typing import Any, TypeVar

from PySide6.QtCore import QEvent, Qt, QTimer, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLayout, QScrollArea, QSpinBox, QVBoxLayout, QWidget

from engine import Prediction
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.icons import IconLabel
from gui.language import tr
from gui.model_shelf import ModelCard
from gui.panels.error_panel import Details
from gui.panels.evidence_foot import EvidenceFoot
from gui.panels.reading_words import reading_words
from gui.predict_queue import Item, ItemState
from gui.views import AnswerView, Canvas, view_of, view_of_task
from gui.views.classes import ClassesView
from gui.widgets.basics import Button, Card, ElidedLabel, label, line
from gui.widgets.progress import Ring
from gui.widgets.result_bars import ResultBars

WIDTH = 336
REFINE_AFTER_MS = 150
V = TypeVar("V", bound=AnswerView)


class ResultDock(Card):
    """``refine_asked(Item, params)`` after a slider rested; ``again_asked(Item)`` from an error; ``card_asked(id)``
    opens the model's card, ``keep_asked(Prediction)`` keeps the shown answer to check against; ``failed(error)`` tells
    of what could not be shown or saved."""

    refine_asked = Signal(object, dict)
    again_asked = Signal(object)
    card_asked = Signal(str)
    keep_asked = Signal(object)
    failed = Signal(object)

    def __init__(self, bridge: EngineBridge, canvas: Canvas, doubtful_below: float) -> None:
        super().__init__()
        self.setFixedWidth(WIDTH)
        self._bridge, self._canvas = bridge, canvas
        self._item: Item | None = None
        self._spec: dict[str, Any] = {}
        self.view: AnswerView | None = None
        """The view that shows the answer now."""
        self._views: dict[type[AnswerView], AnswerView] = {}
        self.name = ElidedLabel("", "small")
        self.right = label("", "small")
        self.busy = self._busy_box()
        self.error_box, self.error_sentence, self.error_advice, self.details = self._error_parts()
        self.values = QWidget()
        self._values_grid = QGridLayout(self.values)
        self._values_grid.setContentsMargins(0, 0, 14, 0)
        self._values_grid.setVerticalSpacing(0)
        self._values_scroll = QScrollArea()
        self._values_scroll.setWidgetResizable(True)
        self._values_scroll.setWidget(self.values)
        self.values.setObjectName("clear")
        self._values_scroll.viewport().setObjectName("clear")
        self.foot = EvidenceFoot()
        self.foot.card_asked.connect(self.card_asked)
        self.foot.keep_asked.connect(self.keep_answer)
        self.reading = QWidget()
        self._reading_box = QVBoxLayout(self.reading)
        self._read: object = None
        self._reading_box.setContentsMargins(0, 0, 0, 0)
        self._reading_box.setSpacing(4)
        top = QHBoxLayout()
        top.setSpacing(12)
        top.addWidget(self.name, 1)
        top.addWidget(self.right)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(20, 16, 20, 16)
        self._box.setSpacing(0)
        self._box.addLayout(top)
        self._box.addSpacing(6)
        self._box.addWidget(self.busy)
        self._box.addWidget(self.error_box)
        self._box.addSpacing(4)
        self._view_at = self._box.count()
        self._box.addWidget(self._values_scroll, 100)
        self._box.addStretch(1)
        self._box.addWidget(self.reading)
        self._box.addWidget(self.foot)
        self._wanted: dict[str, Any] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFINE_AFTER_MS)
        self._timer.timeout.connect(self._ask_refine)
        self.classes = self._make(ClassesView)
        self.classes.bars.doubtful_below = doubtful_below
        self.clear()

    @property
    def bars(self) -> ResultBars:
        """The bars of classes, wherever they are shown."""
        return self.classes.bars

    @property
    def top_k(self) -> QSpinBox:
        return self.classes.top_k

    def _make(self, kind: type[V]) -> V:
        view = self._views.get(kind)
        if view is None:
            view = kind(self._bridge, self._canvas)
            view.hide()
            view.refine_asked.connect(self._on_refine_asked)
            view.failed.connect(self.failed)
            self._box.insertWidget(self._view_at, view, 100)
            self._views[kind] = view
        assert isinstance(view, kind)
        return view

    # -- parts -----------------------------------------------------------------------------------------------------
    @staticmethod
    def _busy_box() -> QWidget:
        box = QWidget()
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 8, 0, 8)
        row.setSpacing(10)
        row.addWidget(Ring(18))
        box.words = label(tr("Running"), "body2")  # type: ignore[attr-defined]  # kept on its own box
        row.addWidget(box.words, 1)  # type: ignore[attr-defined]
        return box

    def _error_parts(self) -> tuple[QWidget, Any, Any, Details]:
        box = QWidget()
        sentence, advice, details = label("", "section", wrap=True), label("", "body2", wrap=True), Details()
        again = Button(tr("Run again"), "refresh", small=True)
        again.clicked.connect(lambda: self.again_asked.emit(self._item))
        self.again_button = again
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 8, 0, 0)
        column.setSpacing(8)
        column.addWidget(IconLabel("circle-alert", "error", 20, tile=36, tile_role="error_soft"))
        column.addWidget(sentence)
        column.addWidget(advice)
        column.addWidget(again, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(line())
        column.addWidget(details)
        return box, sentence, advice, details

    # -- what is shown ---------------------------------------------------------------------------------------------
    def clear(self) -> None:
        self._item = None
        self.name.setText("")
        self.right.setText("")
        self._show_only()

    def show_item(self, item: Item, model: ModelCard | None, right: str = "") -> None:
        """The state of one dropped thing: waiting, running, its answer, or why there is none."""
        self._item = item
        self.show_model(model)
        self.name.setText(item.source.name)
        self.right.setText(right)
        if item.state in (ItemState.QUEUED, ItemState.RUNNING):
            waiting = item.state is ItemState.QUEUED
            words = tr("Waits for its turn") if model is not None else tr("Waits for a model")
            self.busy.words.setText(words if waiting else tr("Running"))  # type: ignore[attr-defined]
            self._show_only(self.busy)
        elif item.error is not None:
            text = error_text(item.error)
            self.error_sentence.setText(text.sentence)
            self.error_advice.setText(text.advice)
            self.details.text.setPlainText(text.details)
            self.again_button.setVisible(item.source.kind != "other")
            self._show_only(self.error_box)
        elif item.prediction is not None:
            self._show_prediction(item, item.prediction, model)

    def show_row(self, number: int, total: int, result: dict[str, Any], inputs: list[tuple[str, str]]) -> None:
        """One row of a table: its answers and its own values."""
        item = self._item
        self.name.setText(tr("Row {number}").format(number=number))
        self.right.setText(tr("of {total}").format(total=total))
        error = result.get("error")
        parts: list[QWidget] = []
        if error:
            self.error_sentence.setText(str(error.get("message", "")))
            self.error_advice.setText("")
            self.again_button.hide()
            self.details.text.setPlainText(f"code     {error.get('code', '')}")
            parts.append(self.error_box)
        elif item is not None and item.prediction is not None and result.get("predictions") is not None:
            answer = item.prediction
            row = Prediction(answer.id, answer.model, answer.task, answer.timing_ms, predictions=result["predictions"])
            view = self._make(view_of_task(answer.task))
            self._change_view(view)
            view.show_answer(item, row, self._spec)
            self.classes.top_k_box.hide()
            parts.append(view)
        if inputs:
            self._fill_values(tr("This row"), inputs)
            parts.append(self._values_scroll)
        self._show_only(*parts)

    def _show_prediction(self, item: Item, prediction: Prediction, model: ModelCard | None) -> None:
        self._spec = model.spec if model is not None else {}
        if prediction.results is not None and item.source.kind == "table":
            self._show_only()  # a row of it is shown as soon as one is chosen
            return
        view = self._make(view_of(prediction))
        self._change_view(view)
        view.show_answer(item, prediction, self._spec)
        with_reading = item.source.kind == "image" and isinstance(view, ClassesView)
        self._fill_reading(self._spec if with_reading else {})
        self._show_only(view, *([self.reading] if with_reading else []))

    def _change_view(self, view: AnswerView) -> None:
        if self.view is not view and self.view is not None:
            self.view.leave()
        self.view = view

    def _show_only(self, *parts: QWidget) -> None:
        answered = self._item is not None and self._item.prediction is not None
        if self.view is not None and self.view not in parts:
            self.view.leave()
            self.view = None
        for part in (self.busy, self.error_box, self._values_scroll, self.reading, *self._views.values()):
            part.setVisible(part in parts)
        self.foot.setVisible(answered and self.foot.has_model)

    def _on_refine_asked(self, params: dict[str, Any]) -> None:
        self._wanted = params
        self._timer.start()

    def _ask_refine(self) -> None:
        if self._item is not None and self._item.prediction is not None:
            self.refine_asked.emit(self._item, self._wanted)

    def _fill_values(self, title: str, rows: list[tuple[str, str]]) -> None:
        _empty(self._values_grid)
        self._values_grid.addWidget(label(title, "strong"), 0, 0, 1, 2)
        for i, (name, value) in enumerate(rows[:200]):
            left, right = ElidedLabel(name), ElidedLabel(value, "small")
            right.setAlignment(Qt.AlignmentFlag.AlignRight)
            for widget in (left, right):
                widget.setMinimumHeight(28)
            self._values_grid.addWidget(left, i + 1, 0)
            self._values_grid.addWidget(right, i + 1, 1)
        self._values_grid.setColumnStretch(0, 1)
        self._values_grid.setColumnStretch(1, 1)
        self._values_grid.setRowStretch(len(rows) + 2, 1)

    def _fill_reading(self, spec: dict[str, Any]) -> None:
        words = reading_words(spec)
        if words == self._read:  # live pictures: the same again, many times a second
            return
        self._read = words
        _empty(self._reading_box)
        if not words:
            return
        self._reading_box.addWidget(label(tr("What the model sees"), "strong"))
        self._reading_box.addWidget(label(" · ".join(text for text, _ in words), "small", wrap=True))
        assumed = [text for text, is_assumed in words if is_assumed]
        if assumed:
            row = QHBoxLayout()
            row.setSpacing(8)
            row.addWidget(IconLabel("circle-help", "warn"), 0, Qt.AlignmentFlag.AlignTop)
            row.addWidget(
                label(
                    tr("Found nowhere, so assumed: {fields}").format(fields=", ".join(assumed)),
                    "small",
                    tone="warn",
                    wrap=True,
                ),
                1,
            )
            self._reading_box.addLayout(row)
        self._reading_box.addSpacing(8)

    def show_model(self, model: ModelCard | None) -> None:
        """The newest of the model that answered: what was found in it, and its kept answer."""
        self.foot.show_model(model)

    def keep_answer(self) -> None:
        """Keep the shown answer to check the model against."""
        if self._item is not None and self._item.prediction is not None:
            self.keep_asked.emit(self._item.prediction)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self.update()


def _empty(layout: QLayout) -> None:
    while (entry := layout.takeAt(0)) is not None:
        widget, inner = entry.widget(), entry.layout()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
        elif inner is not None:
            _empty(inner)
