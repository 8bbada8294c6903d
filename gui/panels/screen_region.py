"""A part of the screen as a picture: the window steps aside, the person marks a rectangle over a screenshot.

The screenshot never leaves memory; what was not marked is forgotten with it.
"""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QPointF, QRect, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QCloseEvent,
    QColor,
    QFontMetricsF,
    QGuiApplication,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QScreen,
)
from PySide6.QtWidgets import QWidget

from gui import theme
from gui.engine_bridge import EngineBridge
from gui.error_text import FrameProblem
from gui.language import mark, tr
from gui.png import png_of

STEP_ASIDE_MS = 300
"""What a desktop may need to paint what lay behind the window."""
STEP, FINE = 10, 1
SMALLEST = 8
"""Pixels a side; a click without a drag marks nothing."""
HINT = mark("Drag a rectangle. Arrow keys move it, with Shift they change its size. Enter takes it, Esc cancels.")
REFUSED = mark("This desktop does not let a program see the screen.")


class RegionPicker(QWidget):
    """A screenshot over the whole screen, dimmed but for the marked rectangle. ``taken(QRect)`` in pixels of the
    screenshot, ``cancelled`` by Esc."""

    taken = Signal(object)
    cancelled = Signal()

    def __init__(self, shot: QPixmap, place: QRect) -> None:
        super().__init__(None, Qt.WindowType.FramelessWindowHint | Qt.WindowType.WindowStaysOnTopHint)
        self.setWindowTitle(tr("Mark a part of the screen"))
        self.setAccessibleName(tr("Part of the screen"))
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setGeometry(place)
        self._shot = shot
        self._anchor: QPointF | None = None
        size = QSize(place.width() // 2, place.height() // 2)
        self.region = QRect(place.width() // 4, place.height() // 4, size.width(), size.height())
        """What is marked, in the widget's own pixels. It begins in the middle, for those who use the keyboard."""
        self._say()

    def in_shot(self) -> QRect:
        """The marked rectangle in pixels of the screenshot, which may be finer than those of the widget."""
        across, down = self._shot.width() / self.width(), self._shot.height() / self.height()
        r = self.region
        left, top = round(r.x() * across), round(r.y() * down)
        right, bottom = round((r.x() + r.width()) * across), round((r.y() + r.height()) * down)
        return QRect(left, top, right - left, bottom - top) & QRect(0, 0, self._shot.width(), self._shot.height())

    def take(self) -> None:
        """What is marked; too small a mark stays on the screen."""
        if min(self.region.width(), self.region.height()) >= SMALLEST:
            self.taken.emit(self.in_shot())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() is Qt.MouseButton.LeftButton:
            self._anchor = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._anchor is not None:
            self._mark(QRectF(self._anchor, event.position()).normalized().toAlignedRect())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is None:
            return
        marked = QRectF(anchor, event.position()).normalized().toAlignedRect()
        if min(marked.width(), marked.height()) >= SMALLEST:
            self._mark(marked)
            self.take()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        ways = {
            Qt.Key.Key_Left: (-1, 0), Qt.Key.Key_Right: (1, 0), Qt.Key.Key_Up: (0, -1), Qt.Key.Key_Down: (0, 1),
        }  # fmt: skip
        key = Qt.Key(event.key())
        if key in ways:
            step = FINE if event.modifiers() & Qt.KeyboardModifier.ControlModifier else STEP
            dx, dy = (step * way for way in ways[key])
            if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
                grown = QSize(max(SMALLEST, self.region.width() + dx), max(SMALLEST, self.region.height() + dy))
                self._mark(QRect(self.region.topLeft(), grown))
            else:
                x = min(max(0, self.region.x() + dx), self.width() - self.region.width())
                y = min(max(0, self.region.y() + dy), self.height() - self.region.height())
                self._mark(QRect(x, y, self.region.width(), self.region.height()))
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.take()
        elif key == Qt.Key.Key_Escape:
            self.cancelled.emit()
        else:
            super().keyPressEvent(event)

    def _mark(self, region: QRect) -> None:
        self.region = region & self.rect()
        self._say()
        self.update()

    def _say(self) -> None:
        r = self.region
        self.setAccessibleDescription(
            tr("{width} by {height} pixels at {x}, {y}. {hint}").format(
                width=r.width(), height=r.height(), x=r.x(), y=r.y(), hint=tr(HINT)
            )
        )

    def closeEvent(self, event: QCloseEvent) -> None:
        """Closed by the desktop's own way to close a window."""
        event.ignore()
        self.cancelled.emit()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.drawPixmap(self.rect(), self._shot)
        painter.fillRect(self.rect(), QColor(0, 0, 0, 140))
        painter.setClipRect(self.region)
        painter.drawPixmap(self.rect(), self._shot)
        painter.setClipping(False)
        for width, colour in ((4.0, QColor(theme.OVERLAY_TEXT)), (2.0, QColor("#FFFFFF"))):
            painter.setPen(QPen(colour, width))
            painter.drawRect(QRectF(self.region).adjusted(1, 1, -1, -1))
        r = self.region
        self._paint_words(painter, f"{r.width()} × {r.height()}", r.center().x(), r.bottom() + 10, below=r)
        self._paint_words(painter, tr(HINT), self.width() / 2, 24)
        painter.end()

    def _paint_words(
        self, painter: QPainter, words: str, middle: float, top: float, below: QRect | None = None
    ) -> None:
        painter.setFont(theme.font("body", medium=True))
        metrics = QFontMetricsF(painter.font())
        text = metrics.elidedText(words, Qt.TextElideMode.ElideRight, self.width() - 48)
        tag = QRectF(0, top, metrics.horizontalAdvance(text) + 24, metrics.height() + 12)
        tag.moveCenter(QPointF(middle, tag.center().y()))
        if below is not None and tag.bottom() > self.height() - 8:
            tag.moveBottom(below.bottom() - 10)  # no room under it: inside
        tag.moveLeft(min(max(8.0, tag.left()), self.width() - tag.width() - 8))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.OVERLAY_TEXT))
        painter.drawRoundedRect(tag, 6, 6)
        painter.setPen(QColor("#FFFFFF"))
        painter.drawText(tag, Qt.AlignmentFlag.AlignCenter, text)


class ScreenRegion(QObject):
    """From the question to the picture: ``taken(bytes)`` with the marked part as PNG, ``failed(error)`` where the
    desktop shows no program its screen. ``grab`` and ``platform`` are the desktop's; a test may pass others."""

    taken = Signal(object)
    failed = Signal(object)

    def __init__(
        self,
        bridge: EngineBridge,
        parent: QObject,
        grab: Callable[[QScreen], QPixmap] = lambda screen: screen.grabWindow(0),
        platform: Callable[[], str] = QGuiApplication.platformName,
    ) -> None:
        super().__init__(parent)
        self._bridge = bridge
        self.grab, self.platform = grab, platform
        self._window: QWidget | None = None
        self.picker: RegionPicker | None = None
        self._aside = QTimer(self)
        self._aside.setSingleShot(True)
        self._aside.setInterval(STEP_ASIDE_MS)
        self._aside.timeout.connect(self._look)

    def begin(self, window: QWidget) -> None:
        """``window`` steps aside for a moment. Does nothing while a part is being marked."""
        if self._window is not None:
            return
        if self.platform().startswith("wayland"):
            # It would answer with an empty picture; asked beforehand, so that no window disappears for nothing.
            self.failed.emit(FrameProblem(tr(REFUSED), code="screen_refused"))
            return
        self._window = window
        window.hide()
        self._aside.start()

    def cancel(self) -> None:
        """Forget it: the window closes."""
        self._aside.stop()
        self._end()

    def _look(self) -> None:
        window = self._window
        assert window is not None
        screen = window.screen()
        shot = self.grab(screen)
        # Before the picker, and behind it: when that goes, it must not be the application's last window.
        window.show()
        image = shot.toImage()
        place = screen.geometry()
        self._bridge.run(
            self, lambda: is_blank(image), lambda blank: self._on_seen(shot, place, blank), self._on_failed
        )

    def _on_seen(self, shot: QPixmap, place: QRect, blank: bool) -> None:
        if self._window is None:  # cancelled meanwhile
            return
        if blank:
            self._on_failed(FrameProblem(tr(REFUSED), code="screen_refused"))
            return
        picker = self.picker = RegionPicker(shot, place)
        picker.taken.connect(lambda region: self._on_marked(shot.copy(region).toImage()))
        picker.cancelled.connect(self._end)
        picker.showFullScreen()
        picker.activateWindow()
        picker.setFocus()

    def _on_marked(self, part: QImage) -> None:
        self._end()
        self._bridge.run(self, lambda: png_of(part), self.taken.emit, self.failed.emit)

    def _on_failed(self, error: BaseException) -> None:
        self._end()
        self.failed.emit(error)

    def _end(self) -> None:
        window, self._window = self._window, None
        picker, self.picker = self.picker, None
        if picker is not None:
            picker.hide()
            picker.deleteLater()
        if window is not None:
            window.activateWindow()


def is_blank(image: QImage) -> bool:
    """Whether a screenshot shows nothing: no pixels, or every one of them black, as where it was not allowed."""
    if image.isNull() or not image.width() or not image.height():
        return True
    grey = image.convertToFormat(QImage.Format.Format_Grayscale8)
    width, row_bytes, data = grey.width(), grey.bytesPerLine(), bytes(grey.constBits())
    return not any(data[row * row_bytes : row * row_bytes + width].strip(b"\0") for row in range(grey.height()))
