"""What was found in a text: marked where it stands, and listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QAbstractItemView, QFrame, QHeaderView, QTableView, QVBoxLayout

from gui.engine_bridge import EngineBridge
from gui.language import counted, tr
from gui.views.base import AnswerView, Canvas
from gui.widgets.basics import ElidedLabel, label, line
from gui.widgets.class_list import ClassList
from gui.widgets.share_slider import ShareSlider
from gui.words import percent_words

MOST_ROWS = 1000


class SpansView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.head = ElidedLabel("", "section")
        self.threshold = ShareSlider(tr("Confidence at least"))
        self.note = label(tr("Acts at once on the kept result; nothing is run again."), "hint", wrap=True)
        self.classes = ClassList()
        self.model = QStandardItemModel(0, 3, self)
        self.table = QTableView()
        self.table.setModel(self.model)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.table.setFrameShape(QFrame.Shape.NoFrame)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(30)
        self.table.horizontalHeader().setHighlightSections(False)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setAccessibleName(tr("What was found in the text"))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        for widget in (self.head, self.threshold, self.note, line(), self.classes, line()):
            box.addWidget(widget)
        box.addWidget(self.table, 1)
        self.threshold.moved.connect(lambda value: self.refine_asked.emit({"threshold": value}))
        self.classes.changed.connect(self._show)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        canvas.text.picked.connect(self._on_picked)
        self._shown: list[Mapping[str, Any]] = []

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        found = self.prediction.predictions if self.prediction is not None else None
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def update_dock(self, fresh: bool) -> None:
        if fresh:
            self.threshold.set_value(self.default("threshold", 0.0))
        self._show()

    def _show(self) -> None:
        kinds = Counter(_kind(entry) for entry in self.entries)
        numbers = {name: number for number, name in enumerate(sorted(kinds))}
        self.classes.setVisible(bool(kinds))
        self.classes.show_classes([(name, numbers[name], str(kinds[name])) for name in sorted(kinds)])
        self._shown = [entry for entry in self.entries if _kind(entry) not in self.classes.hidden]
        found = counted("{count} span", "{count} spans", len(self._shown))
        self.head.setText(
            found if self.entries else tr("Nothing found above {score:.2f}").format(score=self.threshold.value)
        )
        self.model.clear()
        self.model.setHorizontalHeaderLabels([tr("Text"), tr("Kind"), tr("Score")])
        for entry in self._shown[:MOST_ROWS]:
            cells = (entry.get("word", ""), _kind(entry), percent_words(float(entry.get("score") or 0.0)))
            self.model.appendRow([QStandardItem(str(cell)) for cell in cells])
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in ((1, 72), (2, 76)):
            self.table.setColumnWidth(column, width)
        self.table.setVisible(bool(self._shown))
        self._mark(-1)

    def _mark(self, lit: int) -> None:
        numbers = {name: number for number, name in enumerate(sorted({_kind(entry) for entry in self.entries}))}
        spans = [(int(entry["start"]), int(entry["end"]), numbers[_kind(entry)]) for entry in self._shown]
        self.canvas.text.show_spans(spans, lit)

    def lay_over(self) -> None:
        self._mark(self.table.currentIndex().row())

    def _on_row(self, now: QModelIndex, _before: QModelIndex) -> None:
        if now.isValid():
            self._mark(now.row())

    def _on_picked(self, number: int) -> None:
        if self.prediction is not None and 0 <= number < self.model.rowCount():
            self.table.selectRow(number)


def _kind(entry: Mapping[str, Any]) -> str:
    return str(entry.get("entity_group") or entry.get("entity") or "")
