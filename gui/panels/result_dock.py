"""The answer beside the input: bars, a row of a table, tensors, or the reason why there is none."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

from PySide6.QtCore import QEvent, Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLayout,
    QPlainTextEdit,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from engine import Prediction
from gui import theme
from gui.error_text import error_text
from gui.icons import IconLabel
from gui.model_shelf import ModelCard
from gui.panels.error_panel import Details
from gui.panels.evidence_foot import EvidenceFoot
from gui.predict_queue import Item, ItemState
from gui.widgets.basics import Button, Card, ElidedLabel, label, line, spin_box
from gui.widgets.progress import Ring
from gui.widgets.result_bars import ResultBars

WIDTH = 336
MOST_FOUND = 12
"""How many of the things found in a picture are listed; all of them are drawn."""
REFINE_AFTER_MS = 150
_ORDERS = {"rgb": "RGB", "bgr": "BGR", "grayscale": "greyscale"}
_CROPS = {"center": "centre crop", "square": "centre square"}


def reading_words(spec: dict[str, Any]) -> list[tuple[str, bool]]:
    """How the model reads a picture, as (words, assumed): from the spec's preprocessing and its evidence."""
    pre = spec.get("preprocessing") or {}
    evidence = spec.get("evidence") or {}

    def assumed(name: str) -> bool:
        return str(evidence.get(f"preprocessing.{name}", "assumed")).startswith("assumed")

    words = []
    if pre.get("size"):
        height, width = pre["size"]
        words.append((f"{width} × {height} pixels", assumed("size")))
    if pre.get("channel_order"):
        words.append((_ORDERS.get(pre["channel_order"], pre["channel_order"]), assumed("channel_order")))
    if pre.get("scaling"):
        words.append((f"scaled to {str(pre['scaling']).replace('..', ' … ')}", assumed("scaling")))
    if pre.get("crop") in _CROPS:
        words.append((_CROPS[pre["crop"]], assumed("crop")))
    return words


class ResultDock(Card):
    """``refine_asked(Item, top_k)`` after the spin box rested; ``again_asked(Item)`` from an error;
    ``card_asked(id)`` opens the model's card, ``keep_asked(Prediction)`` keeps the shown answer to check against."""

    refine_asked = Signal(object, int)
    again_asked = Signal(object)
    card_asked = Signal(str)
    keep_asked = Signal(object)

    def __init__(self, doubtful_below: float) -> None:
        super().__init__()
        self.setFixedWidth(WIDTH)
        self._item: Item | None = None
        self.name = ElidedLabel("", "small")
        self.right = label("", "small")
        self.bars = ResultBars(doubtful_below)
        self.busy = self._busy_box()
        self.error_box, self.error_sentence, self.error_advice, self.details = self._error_parts()
        self.top_k_box, self.top_k, self._of = self._top_k_parts()
        self.values = QWidget()
        self._values_grid = QGridLayout(self.values)
        self._values_grid.setContentsMargins(0, 0, 14, 0)
        self._values_grid.setVerticalSpacing(0)
        self._values_scroll = QScrollArea()
        self._values_scroll.setWidgetResizable(True)
        self._values_scroll.setWidget(self.values)
        self.values.setObjectName("clear")
        self._values_scroll.viewport().setObjectName("clear")
        self.raw = QPlainTextEdit()
        self.raw.setReadOnly(True)
        self.raw.setFont(theme.fixed_font("small"))
        self.raw.setAccessibleName("Answer as JSON")
        self.foot = EvidenceFoot()
        self.foot.card_asked.connect(self.card_asked)
        self.foot.keep_asked.connect(self.keep_answer)
        self.reading = QWidget()
        self._reading_box = QVBoxLayout(self.reading)
        self._reading_box.setContentsMargins(0, 0, 0, 0)
        self._reading_box.setSpacing(4)
        top = QHBoxLayout()
        top.setSpacing(12)
        top.addWidget(self.name, 1)
        top.addWidget(self.right)
        box = QVBoxLayout(self)
        box.setContentsMargins(20, 16, 20, 16)
        box.setSpacing(0)
        box.addLayout(top)
        box.addSpacing(6)
        box.addWidget(self.busy)
        box.addWidget(self.bars)
        box.addSpacing(8)
        box.addWidget(self.top_k_box)
        box.addWidget(self.error_box)
        box.addSpacing(10)
        box.addWidget(self._values_scroll, 100)
        box.addWidget(self.raw, 100)
        box.addStretch(1)
        box.addWidget(self.reading)
        box.addWidget(self.foot)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFINE_AFTER_MS)
        self._timer.timeout.connect(self._ask_refine)
        self.top_k.valueChanged.connect(lambda _value: self._timer.start())
        self.clear()

    # -- parts -----------------------------------------------------------------------------------------------------
    @staticmethod
    def _busy_box() -> QWidget:
        box = QWidget()
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 8, 0, 8)
        row.setSpacing(10)
        row.addWidget(Ring(18))
        box.words = label("Running", "body2")  # type: ignore[attr-defined]  # kept on its own box
        row.addWidget(box.words, 1)  # type: ignore[attr-defined]
        return box

    def _error_parts(self) -> tuple[QWidget, Any, Any, Details]:
        box = QWidget()
        sentence, advice, details = label("", "section", wrap=True), label("", "body2", wrap=True), Details()
        again = Button("Run again", "refresh", small=True)
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

    @staticmethod
    def _top_k_parts() -> tuple[QWidget, QSpinBox, Any]:
        box = QWidget()
        spin = spin_box(1, 100, "How many of the best answers to show", 68)
        of = label("", "body2")
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 4, 0, 4)
        row.setSpacing(8)
        row.addWidget(label("Show the best", "body2"))
        row.addWidget(spin)
        row.addWidget(of)
        row.addStretch(1)
        return box, spin, of

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
            words = "Waits for its turn" if model is not None else "Waits for a model"
            self.busy.words.setText(words if waiting else "Running")  # type: ignore[attr-defined]
            self._show_only(self.busy)
        elif item.error is not None:
            text = error_text(item.error)
            self.error_sentence.setText(text.sentence)
            self.error_advice.setText(text.advice)
            self.details.text.setPlainText(text.details)
            self.again_button.setVisible(item.source.kind != "other")
            self._show_only(self.error_box)
        elif item.prediction is not None:
            self._show_prediction(item.prediction, model)

    def show_row(self, number: int, total: int, result: dict[str, Any], inputs: list[tuple[str, str]]) -> None:
        """One row of a table: its answers and its own values."""
        self.name.setText(f"Row {number}")
        self.right.setText(f"of {total}")
        error = result.get("error")
        predictions = result.get("predictions")
        parts: list[QWidget] = []
        if error:
            self.error_sentence.setText(str(error.get("message", "")))
            self.error_advice.setText("")
            self.again_button.hide()
            self.details.text.setPlainText(f"code     {error.get('code', '')}")
            parts.append(self.error_box)
        elif predictions is not None and _is_classification(predictions):
            self.bars.show_answers(predictions)
            parts.append(self.bars)
        elif predictions is not None:
            self.raw.setPlainText(json.dumps(predictions, indent=1, ensure_ascii=False))
            parts.append(self.raw)
        if inputs:
            self._fill_values("This row", inputs)
            parts.append(self._values_scroll)
        self._show_only(*parts)

    def _show_prediction(self, prediction: Prediction, model: ModelCard | None) -> None:
        spec = model.spec if model is not None else {}
        if _is_classification(prediction.predictions):
            self.bars.show_answers(prediction.predictions)
            classes = len(spec.get("labels") or ()) or None
            self._set_top_k(len(prediction.predictions), classes)
            self._fill_reading(spec)
            self._show_only(self.bars, self.top_k_box, self.reading)
        elif is_detection(prediction.predictions):
            self.bars.show_answers(prediction.predictions[:MOST_FOUND])
            self._fill_reading(spec)
            self._show_only(self.bars, self.reading)
        elif prediction.outputs is not None:
            rows = []
            for name, array in prediction.outputs.items():
                first = ", ".join(
                    f"{value:.4g}" if isinstance(value, float) else str(value) for value in array.ravel()[:6].tolist()
                )
                shape = " × ".join(str(n) for n in array.shape) or "scalar"
                rows += [(name, f"{array.dtype} · {shape}"), ("", first + (" …" if array.size > 6 else ""))]
            self._fill_values("Outputs", rows)
            self._show_only(self._values_scroll)
        else:
            shown = prediction.predictions if prediction.predictions is not None else prediction.results
            self.raw.setPlainText(json.dumps(shown, indent=1, ensure_ascii=False)[:200_000])
            self._show_only(self.raw)

    def _show_only(self, *parts: QWidget) -> None:
        answered = self._item is not None and self._item.prediction is not None
        for part in (self.busy, self.bars, self.top_k_box, self.error_box, self._values_scroll, self.raw, self.reading):
            part.setVisible(part in parts)
        self.foot.setVisible(answered and self.foot.has_model)

    def _set_top_k(self, shown: int, classes: int | None) -> None:
        self.top_k.blockSignals(True)
        self.top_k.setRange(1, max(classes or 100, shown))
        if not self._timer.isActive():
            self.top_k.setValue(shown)
        self.top_k.blockSignals(False)
        self._of.setText(f"of {classes} classes" if classes else "classes")

    def _ask_refine(self) -> None:
        if self._item is not None and self._item.prediction is not None:
            self.refine_asked.emit(self._item, self.top_k.value())

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
        _empty(self._reading_box)
        words = reading_words(spec)
        if not words:
            return
        self._reading_box.addWidget(label("What the model sees", "strong"))
        self._reading_box.addWidget(label(" · ".join(text for text, _ in words), "small", wrap=True))
        assumed = [text for text, is_assumed in words if is_assumed]
        if assumed:
            row = QHBoxLayout()
            row.setSpacing(8)
            row.addWidget(IconLabel("circle-help", "warn"), 0, Qt.AlignmentFlag.AlignTop)
            row.addWidget(label(f"Found nowhere, so assumed: {', '.join(assumed)}", "small", tone="warn", wrap=True), 1)
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


def is_detection(predictions: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether this is what the task object-detection answers, with something found."""
    return (
        isinstance(predictions, list)
        and bool(predictions)
        and all(isinstance(p, dict) and "label" in p and isinstance(p.get("box"), dict) for p in predictions)
    )


def _is_classification(predictions: Any) -> TypeGuard[list[dict[str, Any]]]:
    return (
        isinstance(predictions, list)
        and bool(predictions)
        and all(
            isinstance(p, dict) and "label" in p and p.get("score") is not None and "box" not in p for p in predictions
        )
    )


def _empty(layout: QLayout) -> None:
    while (entry := layout.takeAt(0)) is not None:
        widget, inner = entry.widget(), entry.layout()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
        elif inner is not None:
            _empty(inner)
