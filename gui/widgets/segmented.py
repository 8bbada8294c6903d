"""One control with several positions. It moves when it is told to, not when it is clicked: ``asked`` says what for."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPointF, QRectF, QSignalBlocker, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFontMetrics, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QWidget

from gui import theme
from gui.language import tr
from gui.widgets.progress import paint_ring

HEIGHT = 34


def translated(choices: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """``choices`` that stand at module level, their words in the window's language."""
    return [(value, tr(words), hue) for value, words, hue in choices]


class _Position(QAbstractButton):
    """One position as a screen reader meets it: a radio button that can be chosen. What is seen, the mouse and the
    keyboard are the whole control's."""

    def __init__(self, text: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setText(text)
        self.setAccessibleName(text)
        self.setCheckable(True)
        self.setAutoExclusive(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The whole control is painted at once."""


class Segmented(QAbstractButton):
    """``choices`` are (value, text, hue): hue "" fills with surface, else with that token. A QAbstractButton for the
    focus ring and for screen readers; left and right move between the positions."""

    asked = Signal(str)

    def __init__(self, choices: Sequence[tuple[str, str, str]], name: str) -> None:
        super().__init__()
        self._choices = tuple(choices)
        self._name = name
        self._value = self._choices[0][0]
        self._busy = ""
        self._hover = -1
        self._phase = 0
        self._timer = QTimer(self)
        self._timer.setInterval(80)
        self._timer.timeout.connect(self._step)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.positions = [_Position(text, self) for _, text, _ in self._choices]
        for position, (value, _, _) in zip(self.positions, self._choices, strict=True):
            position.toggled.connect(lambda _on, asked=value: self._on_position(asked))
        self._say()

    @property
    def value(self) -> str:
        return self._value

    @property
    def busy(self) -> str:
        """The position on its way, "" while it stands."""
        return self._busy

    def set_value(self, value: str, busy: str = "") -> None:
        """Stand at ``value``; ``busy`` names the position that shows the ring until it answers."""
        self._value, self._busy = value, busy
        if busy:
            self._timer.start()
        else:
            self._timer.stop()
        self._say()
        self.update()

    def text_of(self, value: str) -> str:
        return next(text for v, text, _ in self._choices if v == value)

    def click_choice(self, value: str) -> None:
        """What a click on that position does."""
        if not self._busy and value != self._value and self.isEnabled():
            self.asked.emit(value)

    def _on_position(self, value: str) -> None:
        self._say()  # it stands where it stood until it is told to move
        self.click_choice(value)

    def _say(self) -> None:
        self.setAccessibleName(f"{self._name}: {self.text_of(self._value)}")
        for position, (value, _, _) in zip(self.positions, self._choices, strict=True):
            if value == self._value:
                blocked = [QSignalBlocker(each) for each in self.positions]
                position.setChecked(True)
                for blocker in blocked:
                    blocker.unblock()

    def resizeEvent(self, event: QResizeEvent) -> None:
        for position, rect in zip(self.positions, self._rects(), strict=True):
            position.setGeometry(rect.toRect())

    def _step(self) -> None:
        self._phase += 1
        self.update()

    def _widths(self) -> list[int]:
        metrics = QFontMetrics(theme.font("body", semibold=True))
        return [metrics.horizontalAdvance(text) + 28 for _, text, _ in self._choices]

    def sizeHint(self) -> QSize:
        return QSize(sum(self._widths()) + 6, HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def _rects(self) -> list[QRectF]:
        rects, x = [], 3.0
        for width in self._widths():
            rects.append(QRectF(x, 3, width, HEIGHT - 6))
            x += width
        return rects

    def _at(self, position: QPointF) -> int:
        return next((i for i, rect in enumerate(self._rects()) if rect.contains(position)), -1)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        hover = self._at(event.position())
        if hover != self._hover:
            self._hover = hover
            self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self._hover = -1
        self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        event.accept()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        index = self._at(event.position())
        if index >= 0:
            self.click_choice(self._choices[index][0])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        if step is None:
            super().keyPressEvent(event)
            return
        index = [v for v, _, _ in self._choices].index(self._value) + step
        if 0 <= index < len(self._choices):
            self.click_choice(self._choices[index][0])

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(theme.color("ctl" if self.isEnabled() else "hair"), 1))
        painter.setBrush(theme.color("sunken"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 7, 7)
        for i, ((value, text, hue), rect) in enumerate(zip(self._choices, self._rects(), strict=True)):
            chosen = value == self._value and not self._busy
            painter.setPen(Qt.PenStyle.NoPen)
            if chosen and self.isEnabled():
                painter.setBrush(theme.color(hue or ("surface" if theme.tokens().name == "light" else "track")))
                painter.drawRoundedRect(rect, 5, 5)
            elif i == self._hover and not self._busy:
                painter.setBrush(theme.color("hover"))
                painter.drawRoundedRect(rect, 5, 5)
            role = (f"on_{hue}" if hue else "text") if chosen else "text2"
            if not self.isEnabled():
                role = "text3"
            painter.setPen(theme.color(role))
            painter.setFont(theme.font("body", semibold=chosen, medium=True))
            if value == self._busy:
                paint_ring(painter, QRectF(rect.center().x() - 8, rect.center().y() - 8, 16, 16), self._phase)
            else:
                painter.drawText(rect, int(Qt.AlignmentFlag.AlignCenter), text)
        painter.end()
