"""The kinds of what was found, each with its colour, how many there are, and a box that shows or hides them."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from gui import theme
from gui.language import tr
from gui.widgets.basics import Button, ElidedLabel, label
from gui.widgets.overlays import class_colour

MOST = 40


class Swatch(QWidget):
    """A small square of a class's colour."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.setFixedSize(QSize(14, 14))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(theme.color("ctl"))
        painter.setBrush(class_colour(self._number))
        painter.drawRoundedRect(QRectF(1, 1, 12, 12), 3, 3)
        painter.end()


class ClassList(QWidget):
    """``changed`` when a person shows or hides a kind; :attr:`hidden` holds the names that are not shown."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[str] = set()
        self.boxes: dict[str, QCheckBox] = {}
        self._rows: list[tuple[str, str]] = []
        self.all_button = Button(tr("Show all"), "", "link", small=True)
        self.all_button.clicked.connect(self._show_all)
        head = QHBoxLayout()
        head.addWidget(label(tr("Classes"), "strong"))
        head.addStretch(1)
        head.addWidget(self.all_button)
        self._inner = QVBoxLayout()
        self._inner.setSpacing(2)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(head)
        box.addLayout(self._inner)

    def show_classes(self, rows: Sequence[tuple[str, int, str]]) -> None:
        """(name, number of its colour, how many or how much) of each kind; the hidden ones stay hidden."""
        wanted = [(name, words) for name, _, words in rows[:MOST]]
        if wanted == self._rows:
            return
        self._rows = wanted
        while (entry := self._inner.takeAt(0)) is not None:
            if (widget := entry.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.boxes = {}
        for name, number, words in rows[:MOST]:
            self._inner.addWidget(self._row(name, number, words))
        self.all_button.setVisible(bool(self.hidden & {name for name, _ in wanted}))

    def _row(self, name: str, number: int, words: str) -> QWidget:
        row = QWidget()
        row.setMinimumHeight(26)
        box = QCheckBox()
        box.setChecked(name not in self.hidden)
        box.setAccessibleName(tr("Show {name}, {words}").format(name=name, words=words))
        box.toggled.connect(lambda on, n=name: self._on_toggled(n, on))
        self.boxes[name] = box
        layout = QHBoxLayout(row)
        layout.setContentsMargins(2, 0, 0, 0)
        layout.setSpacing(10)
        layout.addWidget(box)
        layout.addWidget(Swatch(number))
        layout.addWidget(ElidedLabel(name), 1)
        layout.addWidget(label(words, "body2"), 0, Qt.AlignmentFlag.AlignRight)
        return row

    def _on_toggled(self, name: str, on: bool) -> None:
        if on:
            self.hidden.discard(name)
        else:
            self.hidden.add(name)
        self.all_button.setVisible(bool(self.hidden & set(self.boxes)))
        self.changed.emit()

    def _show_all(self) -> None:
        for box in self.boxes.values():
            box.setChecked(True)
