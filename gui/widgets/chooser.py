"""A list to choose from by typing: over the window, with the rest of it dimmed, until something is chosen or Esc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractListModel, QEvent, QModelIndex, QObject, QPersistentModelIndex, QRectF, QSize, Qt
from PySide6.QtCore import Signal as QtSignal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)
from shiboken6 import isValid

from gui import theme
from gui.icons import IconLabel, paint_icon
from gui.language import tr
from gui.widgets.basics import Card, label, line

_Index = QModelIndex | QPersistentModelIndex
CHOICE_ROLE = Qt.ItemDataRole.UserRole
SECTION_ROLE = Qt.ItemDataRole.UserRole + 1
WIDTH, MOST_HEIGHT = 640, 400
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)


@dataclass(frozen=True, slots=True)
class Choice:
    """One row. ``right`` is drawn at the right in ``tone``; ``words`` is searched beside what is shown."""

    key: str
    title: str
    detail: str = ""
    right: str = ""
    tone: str = ""
    tag: str = ""
    icon: str = ""
    section: str = ""
    enabled: bool = True
    words: str = ""

    def fits(self, words: Sequence[str]) -> bool:
        """Whether every word is somewhere in it, in any letter case."""
        text = f"{self.title} {self.detail} {self.tag} {self.words}".lower()
        return all(word in text for word in words)


class ChoiceModel(QAbstractListModel):
    """Choices that fit what was typed; within a section those whose title begins with it come first."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._all: list[Choice] = []
        self._typed = ""
        self.choices: list[Choice] = []

    @property
    def total(self) -> int:
        return len(self._all)

    def set_choices(self, choices: Sequence[Choice]) -> None:
        self._all = list(choices)
        self._filter()

    def set_typed(self, typed: str) -> None:
        self._typed = typed
        self._filter()

    def _filter(self) -> None:
        words = self._typed.lower().split()
        sections = list(dict.fromkeys(choice.section for choice in self._all))
        start = " ".join(words)
        fitting = [choice for choice in self._all if choice.fits(words)]
        if words:
            fitting.sort(key=lambda c: (sections.index(c.section), not c.title.lower().startswith(start)))
        self.beginResetModel()
        self.choices = fitting
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(self.choices)

    def flags(self, index: _Index) -> Qt.ItemFlag:
        enabled = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return enabled if index.isValid() and self.choices[index.row()].enabled else Qt.ItemFlag.NoItemFlags

    def data(self, index: _Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        choice = self.choices[index.row()]
        if role == CHOICE_ROLE:
            return choice
        if role == SECTION_ROLE:
            first = index.row() == 0 or self.choices[index.row() - 1].section != choice.section
            return choice.section if first else ""
        if role == Qt.ItemDataRole.DisplayRole:
            return choice.title
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return ", ".join(filter(None, (choice.title, choice.tag, choice.detail, choice.right)))
        return None


class _ChoiceDelegate(QStyledItemDelegate):
    """Icon, title with its tag, detail below, two words at the right; a section's name over its first row."""

    def __init__(self, tall: bool, parent: QObject) -> None:
        super().__init__(parent)
        self._height = 56 if tall else 36

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        return QSize(10, self._height + (26 if index.data(SECTION_ROLE) else 0))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        choice: Choice = index.data(CHOICE_ROLE)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect = QRectF(option.rect)
        if section := index.data(SECTION_ROLE):
            painter.setFont(theme.font("small", medium=True))
            painter.setPen(theme.color("text3"))
            painter.drawText(QRectF(rect.left() + 14, rect.top(), rect.width() - 28, 26), _LEFT, section)
            rect.setTop(rect.top() + 26)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("accent_soft"))
            painter.drawRoundedRect(rect.adjusted(4, 1, -4, -1), 6, 6)
        inner = rect.adjusted(16, 0, -16, 0)
        if choice.icon:
            side = 16.0
            spot = QRectF(inner.left(), rect.center().y() - side / 2, side, side)
            paint_icon(painter, choice.icon, spot, theme.color("text2" if choice.enabled else "text3"))
            inner.setLeft(inner.left() + 30)
        self._paint_words(painter, inner, choice)
        painter.restore()

    @staticmethod
    def _paint_words(painter: QPainter, inner: QRectF, choice: Choice) -> None:
        title_rect = QRectF(inner)
        if choice.detail:
            title_rect.setBottom(inner.center().y() + 1)
            title_rect.setTop(inner.top() + 8)
        painter.setFont(theme.font("small"))
        right_width = painter.fontMetrics().horizontalAdvance(choice.right) + 16 if choice.right else 0
        painter.setPen(theme.color(choice.tone or "text2"))
        painter.drawText(inner if not choice.detail else title_rect, _RIGHT, choice.right)
        painter.setFont(theme.font("body", medium=True))
        painter.setPen(theme.color("text" if choice.enabled else "text3"))
        metrics = painter.fontMetrics()
        room = int(inner.width() - right_width - (90 if choice.tag else 0))
        title = metrics.elidedText(choice.title, Qt.TextElideMode.ElideMiddle, room)
        painter.drawText(title_rect, _LEFT, title)
        if choice.tag:
            left = title_rect.left() + metrics.horizontalAdvance(title) + 10
            painter.setFont(theme.font("caption", medium=True))
            width = painter.fontMetrics().horizontalAdvance(choice.tag) + 12
            box = QRectF(left, title_rect.center().y() - 9, width, 18)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("track"))
            painter.drawRoundedRect(box, 4, 4)
            painter.setPen(theme.color("text2"))
            painter.drawText(box, int(Qt.AlignmentFlag.AlignCenter), choice.tag)
        if choice.detail:
            painter.setFont(theme.font("small"))
            painter.setPen(theme.color("text2"))
            below = QRectF(inner.left(), inner.center().y() + 1, inner.width(), inner.height() / 2 - 8)
            shown = painter.fontMetrics().elidedText(choice.detail, Qt.TextElideMode.ElideMiddle, int(below.width()))
            painter.drawText(below, _LEFT, shown)


class Chooser(QWidget):
    """``chosen(key)``, ``removed(key)`` (Delete) and ``closed``. A child that covers its window; the keyboard stays in
    it and goes back to where it was."""

    chosen = QtSignal(str)
    removed = QtSignal(str)
    closed = QtSignal()

    def __init__(self, window: QWidget, name: str, placeholder: str, *, tall: bool = False) -> None:
        super().__init__(window)
        self._window = window
        self._before: QWidget | None = None
        self.setAccessibleName(name)
        self.model = ChoiceModel(self)
        self.field = QLineEdit()
        self.field.setPlaceholderText(placeholder)
        self.field.setAccessibleName(name)
        self.field.setFrame(False)
        self.field.setProperty("kind", "bare")
        self.counted = label("", "small")
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setItemDelegate(_ChoiceDelegate(tall, self.list))
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMouseTracking(True)
        self.list.setAccessibleName(name)
        self.foot = QHBoxLayout()
        self.foot.setContentsMargins(14, 8, 14, 8)
        self.foot.setSpacing(8)
        self._stops: list[QWidget] = [self.field]
        self.card = Card("dialog")
        top = QHBoxLayout()
        top.setContentsMargins(16, 6, 16, 6)
        top.setSpacing(10)
        top.addWidget(IconLabel("search", "text2"))
        top.addWidget(self.field, 1)
        top.addWidget(self.counted)
        box = QVBoxLayout(self.card)
        box.setContentsMargins(1, 1, 1, 1)
        box.setSpacing(0)
        box.addLayout(top)
        box.addWidget(line())
        box.addSpacing(4)
        box.addWidget(self.list, 1)
        box.addWidget(line())
        box.addLayout(self.foot)
        self.card.setParent(self)
        self.field.installEventFilter(self)
        self.field.textChanged.connect(self._on_typed)
        self.list.clicked.connect(lambda index: self._choose(index.row()))
        window.installEventFilter(self)
        self.hide()

    def add_stop(self, control: QWidget) -> None:
        """A control in the foot that Tab reaches."""
        self.foot.addWidget(control)
        control.installEventFilter(self)
        self._stops.append(control)

    def add_hint(self, key: str, words: str) -> None:
        tag = label(f" {key} ", "caption")
        tag.setProperty("kind", "key")
        self.foot.addWidget(tag, 0, Qt.AlignmentFlag.AlignVCenter)
        self.foot.addWidget(label(words, "small"))

    def open_with(self, choices: Sequence[Choice]) -> None:
        """Show these choices, the first that can be chosen ahead."""
        if not self.isVisible():
            self._before = self.window().focusWidget()
        self.field.clear()
        self.set_choices(choices)
        self._fit()
        self.show()
        self.raise_()
        self.field.setFocus()

    def set_choices(self, choices: Sequence[Choice]) -> None:
        """Other choices while it is open; what was typed and the row stay."""
        row = self.list.currentIndex().row()
        self.model.set_choices(choices)
        self._after_change(max(0, row))

    def close_chooser(self) -> None:
        if not self.isVisible():
            return
        self.hide()
        before, self._before = self._before, None
        if before is not None and isValid(before):
            before.setFocus()
        self.closed.emit()

    @property
    def current(self) -> Choice | None:
        row = self.list.currentIndex().row()
        return self.model.choices[row] if 0 <= row < len(self.model.choices) else None

    # -- inside ----------------------------------------------------------------------------------------------------
    def _on_typed(self, text: str) -> None:
        self.model.set_typed(text)
        self._after_change(0)

    def _after_change(self, row: int) -> None:
        rows = self.model.rowCount()
        self.counted.setText(
            tr("{rows} of {total}").format(rows=rows, total=self.model.total) if rows != self.model.total else str(rows)
        )
        self._select(min(row, rows - 1), 1)
        self._fit()

    def _select(self, row: int, step: int) -> None:
        """The next row from ``row`` on that can be chosen."""
        choices = self.model.choices
        while 0 <= row < len(choices) and not choices[row].enabled:
            row += step
        if 0 <= row < len(choices):
            self.list.setCurrentIndex(self.model.index(row))

    def _move(self, step: int) -> None:
        self._select(self.list.currentIndex().row() + step, 1 if step > 0 else -1)

    def _choose(self, row: int) -> None:
        if 0 <= row < len(self.model.choices) and self.model.choices[row].enabled:
            key = self.model.choices[row].key
            self.close_chooser()
            self.chosen.emit(key)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.parent() and event.type() == QEvent.Type.Resize:
            self._fit()
        elif isinstance(event, QKeyEvent) and watched in self._stops:
            if event.type() == QEvent.Type.ShortcutOverride and event.key() == Qt.Key.Key_Escape:
                event.accept()  # ours, and not the window's own Esc
                return True
            if event.type() == QEvent.Type.KeyPress:
                return self._on_key(watched, event)
        return super().eventFilter(watched, event)

    def _on_key(self, watched: QObject, event: QKeyEvent) -> bool:
        key = event.key()
        if key == Qt.Key.Key_Escape:
            self.close_chooser()
        elif key in (Qt.Key.Key_Tab, Qt.Key.Key_Backtab):
            at = self._stops.index(watched)  # type: ignore[arg-type]
            step = -1 if key == Qt.Key.Key_Backtab else 1
            reason = Qt.FocusReason.BacktabFocusReason if step < 0 else Qt.FocusReason.TabFocusReason
            self._stops[(at + step) % len(self._stops)].setFocus(reason)
        elif watched is not self.field:
            return False
        elif key in (Qt.Key.Key_Down, Qt.Key.Key_Up):
            self._move(1 if key == Qt.Key.Key_Down else -1)
        elif key in (Qt.Key.Key_PageDown, Qt.Key.Key_PageUp):
            for _ in range(6):
                self._move(1 if key == Qt.Key.Key_PageDown else -1)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._choose(self.list.currentIndex().row())
        elif key == Qt.Key.Key_Delete and self.field.cursorPosition() == len(self.field.text()):
            if self.current is not None:
                self.removed.emit(self.current.key)
        else:
            return False
        return True

    def _fit(self) -> None:
        window = self._window
        self.setGeometry(window.rect())
        width = min(WIDTH, window.width() - 40)
        rows = sum(self.list.sizeHintForRow(row) for row in range(min(self.model.rowCount(), 60)))
        height = min(rows + 120, MOST_HEIGHT + 120, window.height() - 80)
        self.card.setGeometry((window.width() - width) // 2, 58, width, max(160, height))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if not self.card.geometry().contains(event.position().toPoint()):
            self.close_chooser()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(0, 0, 0, 90))
        painter.end()
