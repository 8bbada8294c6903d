"""Things found in a picture: boxes, and figures of key points.

Sliders act on the kept result, toggles on what is drawn.
"""

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
from gui.widgets.overlays import Things
from gui.widgets.share_slider import ShareSlider
from gui.words import percent_words

MOST_ROWS = 500
_KINDS = {"end-to-end": 0.25, "detr": 0.5, "tensorflow": 0.5, "litert": 0.5}
_OVERLAPPING = ("", "yolov8", "yolov5", "yolov8-pose")


class ThingsView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.head = ElidedLabel("", "section")
        self.threshold = ShareSlider(tr("Confidence at least"))
        self.overlap = ShareSlider(tr("Overlap allowed"))
        self.note = label(tr("Both act at once on the kept result; nothing is run again."), "hint", wrap=True)
        self.classes = ClassList()
        self.model = QStandardItemModel(0, 3, self)
        self.table = self._make_table()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        for widget in (self.head, self.threshold, self.overlap, self.note, line(), self.classes):
            box.addWidget(widget)
        box.addWidget(line())
        box.addWidget(self.table, 1)
        for slider in (self.threshold, self.overlap):
            slider.moved.connect(lambda _value: self._ask())
        self.classes.changed.connect(self._show)
        self._shown: list[Mapping[str, Any]] = []
        canvas.image.picked.connect(self._on_picked)

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.model)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        table.setFrameShape(QFrame.Shape.NoFrame)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(30)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setAccessibleName(tr("What was found"))
        table.horizontalHeader().setHighlightSections(False)
        table.setMinimumHeight(120)
        table.selectionModel().currentRowChanged.connect(self._on_row)
        return table

    # -- what was found ----------------------------------------------------------------------------------------------
    @property
    def entries(self) -> list[Mapping[str, Any]]:
        found = self.prediction.predictions if self.prediction is not None else None
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    @property
    def shown(self) -> list[Mapping[str, Any]]:
        """What is drawn and listed: the classes that are not hidden."""
        return self._shown

    def update_dock(self, fresh: bool) -> None:
        head = str((self.spec.get("postprocessing") or {}).get("head") or "")
        self.overlap.setVisible(head in _OVERLAPPING)
        self.note.setText(
            tr("Both act at once on the kept result; nothing is run again.")
            if head in _OVERLAPPING
            else tr("Acts at once on the kept result; nothing is run again.")
        )
        if fresh:
            self.threshold.set_value(self.default("threshold", _KINDS.get(head, 0.25)))
            self.overlap.set_value(self.default("iou", 0.7))
        self._show()

    def found_words(self, count: int) -> str:
        return counted("{count} object", "{count} objects", count)

    def _colours(self) -> dict[str, int]:
        """A number for each class: its place among the model's, so that it keeps its colour from picture to picture."""
        labels = [str(name) for name in self.spec.get("labels") or ()]
        strange = [str(e.get("label", "")) for e in self.entries if str(e.get("label", "")) not in labels]
        return {name: number for number, name in enumerate(dict.fromkeys([*labels, *strange]))}

    def _show(self) -> None:
        entries, colours = self.entries, self._colours()
        found = Counter(str(entry.get("label", "")) for entry in entries)
        self.classes.setVisible(bool(found) and list(found) != [""])
        self.classes.show_classes([(name, colours[name], str(count)) for name, count in found.items() if name])
        self._shown = [entry for entry in entries if str(entry.get("label", "")) not in self.classes.hidden]
        if entries:
            self.head.setText(self.found_words(len(self._shown)))
        else:
            self.head.setText(tr("Nothing found above {score:.2f}").format(score=self.threshold.value))
        self._fill_table()
        self.lay_over()

    def _fill_table(self) -> None:
        self.model.clear()
        self.model.setHorizontalHeaderLabels([tr("Object"), tr("Score"), tr("Size")])
        for entry in self._shown[:MOST_ROWS]:
            box = entry.get("box") or {}
            size = f"{box['xmax'] - box['xmin']} × {box['ymax'] - box['ymin']}" if box else ""
            score = percent_words(float(entry["score"])) if isinstance(entry.get("score"), float) else ""
            self.model.appendRow([QStandardItem(str(text)) for text in (entry.get("label", ""), score, size)])
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in ((1, 80), (2, 96)):
            self.table.setColumnWidth(column, width)
        self.table.setVisible(bool(self._shown))

    def lay_over(self) -> None:
        if self.picture is None:
            return
        colours = self._colours()
        row = self.table.currentIndex().row()
        overlay = Things(
            self._shown,
            [colours.get(str(entry.get("label", "")), 0) for entry in self._shown],
            row if 0 <= row < len(self._shown) else None,
            self.spec.get("skeleton") or (),
        )
        self.canvas.image.show_overlay(overlay if self._shown else None)

    def _ask(self) -> None:
        params = {"threshold": self.threshold.value}
        if not self.overlap.isHidden():
            params["iou"] = self.overlap.value
        self.refine_asked.emit(params)

    def _on_row(self, _now: QModelIndex, _before: QModelIndex) -> None:
        self.lay_over()

    def _on_picked(self, number: int) -> None:
        if self.picture is not None and 0 <= number < self.model.rowCount():
            self.table.selectRow(number)


class PosesView(ThingsView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.points = label("", "small", wrap=True)
        layout = self.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.addWidget(self.points)

    def found_words(self, count: int) -> str:
        return counted("{count} figure", "{count} figures", count)

    def update_dock(self, fresh: bool) -> None:
        super().update_dock(fresh)
        self._say_points()

    def _on_row(self, now: QModelIndex, before: QModelIndex) -> None:
        super()._on_row(now, before)
        self._say_points()

    def _say_points(self) -> None:
        """The points of the chosen figure, else of the first."""
        row = max(0, self.table.currentIndex().row())
        points = list(self.shown[row].get("keypoints") or ()) if row < len(self.shown) else []
        said = [f"{str(p['label']).replace('_', ' ')} {p['x']:.0f}, {p['y']:.0f}" for p in points]
        self.points.setText(" · ".join(said))
        self.points.setVisible(bool(said))
