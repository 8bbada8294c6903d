"""What is known of a model and where it was read, as rows: tick = found, pencil = changed by you, amber = assumed."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QRectF, Qt, Signal
from PySide6.QtGui import QAction, QEnterEvent, QGuiApplication, QKeySequence, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QFrame, QHBoxLayout, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.evidence import COMPARED, Evidence, EvidenceRow
from gui.icons import IconLabel
from gui.language import counted, tr
from gui.widgets.basics import Button, ElidedLabel, label, line, plain_tooltip

ROW_HEIGHT = 40
NAME_WIDTH = 84
MARK_PX = 3

_LOOKS = {
    Evidence.FOUND: ("check", "ok"),
    Evidence.CHANGED: ("pencil", "text2"),
    Evidence.ASSUMED: ("circle-help", "warn"),
    Evidence.UNUSED: ("minus", "text3"),
}


class EvidenceRowView(QWidget):
    """One row. ``chosen(key)`` from a row whose value is found by comparing answers, ``undo_asked(key)`` from a change.

    Its value is copied by Ctrl+C while the row or a button in it has the focus, and from its menu.
    """

    chosen = Signal(str)
    undo_asked = Signal(str)
    copied = Signal(str)

    def __init__(self, row: EvidenceRow, changed_at: str = "") -> None:
        super().__init__()
        self.row = row
        self.is_compared = row.is_asked or (bool(changed_at) and row.key in COMPARED)
        self.is_selected = False
        self.setMinimumHeight(max(ROW_HEIGHT, theme.px("body") + 24))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        assumed, unused = row.kind is Evidence.ASSUMED, row.kind is Evidence.UNUSED
        name = label(row.name, "hint" if unused else "body2")
        name.setMinimumWidth(NAME_WIDTH)
        source = tr("changed by you, {changed_at}").format(changed_at=changed_at) if changed_at else row.source
        self.value = ElidedLabel(row.value, "hint" if unused else "strong", cut_end=True)
        self.source = ElidedLabel(source, "small", tone="warn" if assumed else "")
        self.undo = Button(tr("Undo"), kind="link", name=tr("Undo the change of {name}").format(name=row.name))
        self.undo.setVisible(bool(changed_at))
        self.undo.clicked.connect(lambda: self.undo_asked.emit(row.key))
        self.compare = Button(
            "", "chevron-right", "flat", small=True, name=tr("Compare answers for {name}").format(name=row.name)
        )
        self.compare.setVisible(self.is_compared)
        self.compare.clicked.connect(lambda: self.chosen.emit(row.key))
        self._lay_out(name)
        if self.is_compared:
            self.setCursor(Qt.CursorShape.PointingHandCursor)
        if row.full != row.value:
            self.value.setToolTip(plain_tooltip(row.full[:2000]))
        self.setAccessibleName(f"{row.name}: {row.value}. {row.source or row.kind}.")
        copy = QAction(tr("Copy {name}").format(name=row.name), self)
        copy.setShortcut(QKeySequence(QKeySequence.StandardKey.Copy))
        copy.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        copy.triggered.connect(self.copy_value)
        self.addAction(copy)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)

    def _lay_out(self, name: QWidget) -> None:
        # The two halves ignore what is in them, so that every row of the list has the same columns.
        right = QWidget()
        half = QHBoxLayout(right)
        half.setContentsMargins(0, 0, 0, 0)
        half.setSpacing(6)
        half.addWidget(self.source, 1)
        half.addWidget(self.undo)
        half.addWidget(self.compare)
        if not self.is_compared:
            half.addSpacing(34)
        for part in (self.value, self.source, right):
            part.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        box = QHBoxLayout(self)
        box.setContentsMargins(18, 0, 8, 0)
        box.setSpacing(10)
        icon, role = _LOOKS[self.row.kind]
        box.addWidget(IconLabel(icon, role if self.undo.isHidden() else "accent"))
        box.addWidget(name)
        box.addWidget(self.value, 9)
        box.addWidget(right, 12)

    def copy_value(self) -> None:
        """The whole value to the clipboard."""
        QGuiApplication.clipboard().setText(self.row.full)
        self.copied.emit(self.row.name)

    def set_selected(self, selected: bool) -> None:
        if self.is_selected != selected:
            self.is_selected = selected
            self.update()

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if (
            self.is_compared
            and event.button() == Qt.MouseButton.LeftButton
            and self.rect().contains(event.position().toPoint())
        ):
            self.chosen.emit(self.row.key)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        rect = QRectF(self.rect())
        assumed = self.row.kind is Evidence.ASSUMED
        if assumed:
            painter.fillRect(rect, theme.color("warn_soft"))
        elif self.is_selected:
            painter.fillRect(rect, theme.color("accent_soft"))
        elif self.is_compared and self.underMouse():
            painter.fillRect(rect, theme.color("sunken" if theme.tokens().name == "light" else "hover"))
        if assumed or self.is_selected:
            mark = theme.color("warn_line" if assumed else "accent")
            painter.fillRect(QRectF(0, 0, MARK_PX, rect.height()), mark)
        painter.end()


class EvidenceList(QScrollArea):
    """The rows in their groups; what the model does not use is folded away at the end of its group."""

    chosen = Signal(str)
    undo_asked = Signal(str)
    copied = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[EvidenceRowView] = []
        self.unused_button = Button("", kind="flat", small=True)
        self._unused_shown = False
        self._shown: tuple[tuple[EvidenceRow, ...], dict[str, str]] = ((), {})
        self._selected = ""
        self._inner = QWidget()
        self._inner.setObjectName("clear")
        self._box = QVBoxLayout(self._inner)
        self._box.setContentsMargins(1, 0, 1, 8)
        self._box.setSpacing(0)
        self.setWidget(self._inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # arrows scroll it
        self.viewport().setObjectName("clear")
        self.setAccessibleName(tr("What is known of the model, and where it was read"))

    def row(self, key: str) -> EvidenceRowView | None:
        """The view of the field ``key``."""
        return next((view for view in self.rows if view.row.key == key), None)

    def select(self, key: str) -> None:
        """Mark the row whose answers are compared; "" for none."""
        self._selected = key
        for view in self.rows:
            view.set_selected(bool(key) and view.row.key == key)

    def show_rows(self, rows: Sequence[EvidenceRow], changed_at: dict[str, str]) -> None:
        """Show ``rows``; those in ``changed_at`` (key to clock time) offer Undo. Nothing is rebuilt in vain."""
        if self._shown == (tuple(rows), changed_at):
            return
        self._shown = (tuple(rows), dict(changed_at))
        self._rebuild()

    def show_unused(self, shown: bool) -> None:
        self._unused_shown = shown
        self._rebuild()

    def _rebuild(self) -> None:
        rows, changed_at = self._shown
        had_focus = self.unused_button.hasFocus()
        focused = QApplication.focusWidget()
        held = next((v.row.key for v in self.rows if focused is not None and v.isAncestorOf(focused)), None)
        position = self.verticalScrollBar().value()
        while (item := self._box.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.rows = []
        unused = sum(row.kind is Evidence.UNUSED for row in rows)
        group = ""
        for row in rows:
            if row.kind is Evidence.UNUSED and not self._unused_shown:
                continue
            if row.group != group:
                group = row.group
                self._box.addWidget(_group_head(group))
            elif self.rows:
                self._box.addWidget(line())
            self._add(row, changed_at.get(row.key, ""))
        self.unused_button = self._fold(unused)
        if unused:
            self._box.addWidget(self.unused_button, 0, Qt.AlignmentFlag.AlignLeft)
        self._box.addStretch(1)
        self.select(self._selected)
        view = self.row(held) if held else None
        if had_focus:
            self.unused_button.setFocus()
        elif view is not None:
            view.compare.setFocus()
        self.verticalScrollBar().setValue(position)

    def _add(self, row: EvidenceRow, changed_at: str) -> None:
        view = EvidenceRowView(row, changed_at)
        view.chosen.connect(self.chosen)
        view.undo_asked.connect(self.undo_asked)
        view.copied.connect(self.copied)
        self._box.addWidget(view)
        self.rows.append(view)

    def _fold(self, unused: int) -> Button:
        words = (
            counted("Hide the {count} field it does not use", "Hide the {count} fields it does not use", unused)
            if self._unused_shown
            else counted("Show {count} field it does not use", "Show {count} fields it does not use", unused)
        )
        button = Button(words, kind="flat", small=True)
        button.clicked.connect(lambda: self.show_unused(not self._unused_shown))
        return button


def _group_head(text: str) -> QWidget:
    head = QWidget()
    box = QVBoxLayout(head)
    box.setContentsMargins(18, 14, 18, 4)
    box.addWidget(label(tr(text), "caption"))
    return head
