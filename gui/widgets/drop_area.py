"""The dashed zone that shows where a drop lands. The window accepts the drop; the zone only says what it will do."""

from __future__ import annotations

from enum import StrEnum

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.icons import IconLabel
from gui.widgets.basics import Button, ElidedLabel, label


class DropState(StrEnum):
    IDLE = "idle"
    OVER = "over"
    REFUSED = "refused"


def paint_zone(painter: QPainter, rect: QRectF, state: DropState, radius: float = 10.0) -> None:
    """Dashed edge at rest, 2 px accent over soft fill while something usable is above, red while it is not."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if state is DropState.IDLE:
        pen = QPen(theme.color("ctl"), 1)
        pen.setDashPattern([5, 4])
        painter.setBrush(theme.color("surface"))
        inset = 0.5
    else:
        role = "accent" if state is DropState.OVER else "error"
        pen = QPen(theme.color(role), 2)
        painter.setBrush(theme.color(f"{role}_soft"))
        inset = 1.0
    painter.setPen(pen)
    painter.drawRoundedRect(rect.adjusted(inset, inset, -inset, -inset), radius, radius)


class DropArea(QWidget):
    """Icon, sentence, second line, and up to two buttons. ``open_asked`` and ``paste_asked`` come from the buttons."""

    open_asked = Signal()
    paste_asked = Signal()

    def __init__(self, icon_name: str, title: str, text: str, open_text: str, paste_text: str = "") -> None:
        super().__init__()
        self._idle = (icon_name, title, text)
        self.state = DropState.IDLE
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(title)
        self._icon = IconLabel(icon_name, "accent", 26, tile=56)
        self._title = ElidedLabel(title, "title")
        self._title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text = label(text, "body2", wrap=True)
        self._text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.open_button = Button(open_text, "folder-open", "primary")
        self.open_button.clicked.connect(self.open_asked)
        self._buttons = QWidget()
        row = QHBoxLayout(self._buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addStretch(1)
        row.addWidget(self.open_button)
        if paste_text:
            paste = Button(paste_text)
            paste.clicked.connect(self.paste_asked)
            row.addWidget(paste)
        row.addStretch(1)
        self.hint = label("", "hint")
        self.hint.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint.hide()
        box = QVBoxLayout(self)
        box.setContentsMargins(32, 24, 32, 24)
        box.setSpacing(0)
        box.addStretch(1)
        box.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignHCenter)
        box.addSpacing(16)
        box.addWidget(self._title)
        box.addSpacing(8)
        box.addWidget(self._text)
        box.addSpacing(20)
        box.addWidget(self._buttons)
        box.addSpacing(12)
        box.addWidget(self.hint)
        box.addStretch(1)

    @property
    def sentence(self) -> str:
        """The line a person reads now."""
        return self._title.text()

    def set_idle(self, icon_name: str, title: str, text: str) -> None:
        self._idle = (icon_name, title, text)
        if self.state is DropState.IDLE:
            self.show_state(DropState.IDLE)

    def show_state(self, state: DropState, title: str = "", text: str = "") -> None:
        """What a drop would do now; the words of the zone at rest come back with IDLE."""
        if state is not self.state:
            self.update()
        self.state = state
        if state is DropState.IDLE:
            icon_name, title, text = self._idle
            self._icon.set_icon(icon_name, "accent", "accent_soft")
        elif state is DropState.OVER:
            self._icon.set_icon(self._idle[0], "accent", "accent_soft")
        else:
            self._icon.set_icon("ban", "error", "error_soft")
        self._title.setText(title)
        self._text.setText(text)
        self._buttons.setVisible(state is DropState.IDLE)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_zone(painter, QRectF(self.rect()), self.state)
        painter.end()


class DropOverlay(QWidget):
    """The zone over a page that shows something else: it appears while a file is dragged over the window."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.state = DropState.IDLE
        self._icon = IconLabel("image-plus", "accent", 26)
        self._title = ElidedLabel("", "title")
        self._title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text = ElidedLabel("", "body2")
        self._text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        box = QVBoxLayout(self)
        box.addStretch(1)
        box.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignHCenter)
        box.addSpacing(12)
        box.addWidget(self._title)
        box.addSpacing(4)
        box.addWidget(self._text)
        box.addStretch(1)
        self.hide()

    @property
    def sentence(self) -> str:
        return self._title.text()

    def show_state(self, state: DropState, title: str = "", text: str = "") -> None:
        self.state = state
        self._title.setText(title)
        self._text.setText(text)
        refused = state is DropState.REFUSED
        self._icon.set_icon("ban" if refused else "image-plus", "error" if refused else "accent")
        self.setVisible(state is not DropState.IDLE)
        if state is not DropState.IDLE:
            parent = self.parentWidget()
            assert parent is not None  # made with one
            self.setGeometry(parent.rect().adjusted(16, 10, -16, -10))
            self.raise_()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_zone(painter, QRectF(self.rect()), self.state)
        painter.end()
