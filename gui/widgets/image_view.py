"""The picture that was asked about, from raw pixels the inspector decoded: fit, zoom at the pointer, drag to pan.

Over it lies what was found; beside it, behind a divider that moves, a second picture that was made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QPixmap,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QSizePolicy, QWidget

from engine.prediction import ImagePreview
from gui import theme
from gui.language import tr
from gui.widgets.overlays import Frame, Overlay

MARGIN = 12
MAX_ZOOM = 32.0
STEP = 0.02
"""How far an arrow key moves the divider, as a share of the picture."""
_GRIP = 14.0
_CLICK = 3.0


def image_of(preview: ImagePreview) -> QImage:
    """``preview`` as a QImage that owns its pixels. Raises ValueError where the buffer does not fill the size."""
    if preview.width < 1 or preview.height < 1 or len(preview.rgb) != preview.width * preview.height * 3:
        raise ValueError(f"{len(preview.rgb)} bytes do not fill {preview.width} x {preview.height} RGB")
    return QImage(
        preview.rgb, preview.width, preview.height, preview.width * 3, QImage.Format.Format_RGB888
    ).copy()  # without the copy the QImage would point into the bytes object


@dataclass(slots=True)
class Second:
    """A picture to compare with, of whatever size: it fills the same place. The names stand in its corners."""

    pixmap: QPixmap
    first_name: str
    name: str


class ImageView(QWidget):
    """``zoomed`` tells the scale in screen pixels per picture pixel; ``picked`` the entry of the overlay that was
    clicked, -1 for none."""

    zoomed = Signal(float)
    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._pixmap: QPixmap | None = None
        self._source_width = 1
        self._zoom = 1.0
        self._centre = QPointF(0.5, 0.5)
        self._grip: QPointF | None = None
        self._message = ""
        self._pressed_at: QPointF | None = None
        self._pointer: QPointF | None = None
        self._moves_divider = False
        self.overlay: Overlay | None = None
        self.second: Second | None = None
        self.divider = 0.5
        """Where the second picture begins, as a share of the picture's width."""
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(200, 160)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName(tr("Picture"))

    @property
    def has_picture(self) -> bool:
        return self._pixmap is not None

    def show_preview(self, preview: ImagePreview, name: str) -> None:
        """Show decoded pixels. Raises ValueError where they do not fill their size."""
        self._pixmap = QPixmap.fromImage(image_of(preview))
        self._source_width = max(1, preview.source_size[0])
        self._message = ""
        self.setAccessibleName(tr("Picture {name}").format(name=name))
        self.fit()

    def show_frame(self, preview: ImagePreview, name: str) -> None:
        """The next picture of the same thing: zoom, divider and what lies over it stay. Raises ValueError as above."""
        if self._pixmap is None or preview.source_size[0] != self._source_width:
            self.show_preview(preview, name)
            return
        self._pixmap = QPixmap.fromImage(image_of(preview))
        self.update()

    def show_overlay(self, overlay: Overlay | None) -> None:
        """Draw ``overlay`` over the picture from now on, None for nothing."""
        self.overlay = overlay
        self.update()

    def show_second(self, image: QImage | None, first_name: str = "", name: str = "") -> None:
        """Compare with ``image``; None for the picture alone."""
        self.second = None if image is None else Second(QPixmap.fromImage(image), first_name, name)
        self.setAccessibleDescription(
            tr("{first_name} left, {name} right; arrow keys move the divider").format(first_name=first_name, name=name)
            if image is not None
            else ""
        )
        self.update()

    def picture_with_answer(self) -> QImage | None:
        """What is to be kept: the picture in its own pixels with what is drawn over it; where it is compared with a
        second one, that one. None without a picture."""
        if self._pixmap is None:
            return None
        if self.second is not None:
            return self.second.pixmap.toImage()
        image = self._pixmap.toImage().convertToFormat(QImage.Format.Format_RGB32)
        if self.overlay is not None:
            painter = QPainter(image)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self.overlay.paint(painter, Frame(QRectF(image.rect()), image.width() / self._source_width))
            painter.end()
        return image

    def frame_of(self) -> Frame:
        """Where the picture lies now."""
        target = self._target()
        return Frame(target, target.width() / self._source_width)

    def place_of(self, at: QPointF) -> tuple[float, float]:
        """A point of the screen in pixels of the original."""
        frame = self.frame_of()
        return (at.x() - frame.target.x()) / frame.scale, (at.y() - frame.target.y()) / frame.scale

    def show_message(self, text: str) -> None:
        """No picture, one grey sentence instead."""
        self._pixmap, self._message = None, text
        self.update()

    def fit(self) -> None:
        self._zoom, self._centre = 1.0, QPointF(0.5, 0.5)
        self._changed()

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom so that the picture's point under ``at`` (default: the middle) stays where it is."""
        if self._pixmap is None:
            return
        at = at or QPointF(self.width() / 2, self.height() / 2)
        before = self._target()
        anchor = QPointF((at.x() - before.x()) / before.width(), (at.y() - before.y()) / before.height())
        self._zoom = min(MAX_ZOOM, max(1.0, self._zoom * factor))
        after = self._target()
        shift_x = at.x() - (after.x() + anchor.x() * after.width())
        shift_y = at.y() - (after.y() + anchor.y() * after.height())
        self._pan(shift_x, shift_y)
        self._changed()

    @property
    def scale(self) -> float:
        """Screen pixels per pixel of the original picture."""
        return self._target().width() / self._source_width if self._pixmap is not None else 1.0

    def _target(self) -> QRectF:
        assert self._pixmap is not None
        room = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
        factor = min(room.width() / self._pixmap.width(), room.height() / self._pixmap.height()) * self._zoom
        width, height = self._pixmap.width() * factor, self._pixmap.height() * factor
        x = room.center().x() - width * self._centre.x()
        y = room.center().y() - height * self._centre.y()
        return QRectF(x, y, width, height)

    def _pan(self, dx: float, dy: float) -> None:
        target = self._target()
        x = self._centre.x() - dx / target.width()
        y = self._centre.y() - dy / target.height()
        slack = 0.5 * (1 - 1 / self._zoom)
        self._centre = QPointF(min(0.5 + slack, max(0.5 - slack, x)), min(0.5 + slack, max(0.5 - slack, y)))

    def _changed(self) -> None:
        self.update()
        self.zoomed.emit(self.scale)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._changed()

    def wheelEvent(self, event: QWheelEvent) -> None:
        self.zoom_by(1.2 ** (event.angleDelta().y() / 120), event.position())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.fit()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._grip = self._pressed_at = event.position()
        self._moves_divider = self.second is not None and abs(event.position().x() - self._divider_x()) <= _GRIP

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._pointer = event.position()
        if self._pixmap is None:
            return
        near = self.second is not None and abs(event.position().x() - self._divider_x()) <= _GRIP
        self.setCursor(Qt.CursorShape.SplitHCursor if near or self._moves_divider else Qt.CursorShape.ArrowCursor)
        if self._grip is not None and self._moves_divider:
            target = self._target()
            self._set_divider((event.position().x() - target.x()) / target.width())
        elif self._grip is not None:
            moved = event.position() - self._grip
            self._grip = event.position()
            self._pan(moved.x(), moved.y())
            self._changed()
        elif self.overlay is not None:
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        pressed, self._grip, self._pressed_at = self._pressed_at, None, None
        moved, self._moves_divider = self._moves_divider, False
        still = pressed is not None and (event.position() - pressed).manhattanLength() <= _CLICK
        if still and not moved and self.overlay is not None and self._pixmap is not None:
            at = self.overlay.entry_at(*self.place_of(event.position()))
            self.picked.emit(-1 if at is None else at)

    def leaveEvent(self, event: QEvent) -> None:
        self._pointer = None
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        steps = {Qt.Key.Key_Left: -STEP, Qt.Key.Key_Right: STEP}
        zooms = {Qt.Key.Key_Plus: 1.2, Qt.Key.Key_Equal: 1.2, Qt.Key.Key_Minus: 1 / 1.2}
        key = Qt.Key(event.key())
        if self.second is not None and key in steps:
            self._set_divider(self.divider + steps[key])
        elif key in zooms:
            self.zoom_by(zooms[key])
        elif key == Qt.Key.Key_0:
            self.fit()
        else:
            super().keyPressEvent(event)

    def _set_divider(self, share: float) -> None:
        self.divider = min(1.0, max(0.0, share))
        self.update()

    def _divider_x(self) -> float:
        if self._pixmap is None:
            return 0.0
        target = self._target()
        return target.x() + self.divider * target.width()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("canvas"))
        painter.drawRoundedRect(self.rect(), 10, 10)
        if self._pixmap is not None:
            room = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
            target = self._target()
            clip = QPainterPath()
            clip.addRoundedRect(room.intersected(target), 4, 4)
            painter.setClipPath(clip)
            # Up to 4x smooth; beyond it a person is looking at pixels and wants to see their edges.
            smooth = target.width() < 4 * self._pixmap.width()
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, smooth)
            painter.drawPixmap(target, self._pixmap, QRectF(self._pixmap.rect()))
            if self.second is not None:
                self._paint_second(painter, clip, target)
            if self.overlay is not None:
                self.overlay.paint(painter, Frame(target, self.scale))
                self._paint_words(painter)
        elif self._message:
            painter.setPen(theme.color("text3"))
            painter.setFont(theme.font("body"))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self._message)
        painter.end()

    def _paint_second(self, painter: QPainter, clip: QPainterPath, target: QRectF) -> None:
        assert self.second is not None
        x = self._divider_x()
        painter.save()
        painter.setClipRect(QRectF(x, target.y(), target.right() - x, target.height()), Qt.ClipOperation.IntersectClip)
        # The one behind may have more pixels than the picture: it is what a person came to look at.
        painter.setRenderHint(
            QPainter.RenderHint.SmoothPixmapTransform, target.width() < 4 * self.second.pixmap.width()
        )
        painter.drawPixmap(target, self.second.pixmap, QRectF(self.second.pixmap.rect()))
        painter.restore()
        room = clip.boundingRect()
        for width, colour in ((4.0, QColor(theme.OVERLAY_TEXT)), (2.0, QColor("#FFFFFF"))):
            painter.setPen(QPen(colour, width))
            painter.drawLine(QPointF(x, room.top()), QPointF(x, room.bottom()))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor("#FFFFFF"))
        middle = QPointF(x, room.center().y())
        painter.drawEllipse(middle, _GRIP, _GRIP)
        painter.setPen(QPen(QColor(theme.OVERLAY_TEXT), 1.75))
        for side in (-1, 1):
            tip = middle + QPointF(side * 7, 0)
            painter.drawLine(tip, tip + QPointF(-side * 4, -4))
            painter.drawLine(tip, tip + QPointF(-side * 4, 4))
        self._paint_name(painter, self.second.first_name, room.left() + 12, room.top() + 12, right=False)
        self._paint_name(painter, self.second.name, room.right() - 12, room.top() + 12, right=True)

    def _paint_words(self, painter: QPainter) -> None:
        """What lies under the pointer, beside it."""
        assert self.overlay is not None
        if self._pointer is None or self._grip is not None or not self._target().contains(self._pointer):
            return
        words = self.overlay.words_at(*self.place_of(self._pointer))
        if words:
            at = self._pointer + QPointF(14, 10)
            flipped = at.x() > self.width() - 140
            self._paint_name(painter, words, at.x() - (28 if flipped else 0), at.y(), right=flipped)

    def _paint_name(self, painter: QPainter, name: str, x: float, y: float, *, right: bool) -> None:
        if not name:
            return
        painter.setFont(theme.font("small", semibold=True))
        metrics = QFontMetricsF(painter.font())
        text = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, 200)
        tag = QRectF(x, y, metrics.horizontalAdvance(text) + 16, metrics.height() + 8)
        if right:
            tag.moveRight(x)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.OVERLAY_TEXT))
        painter.drawRoundedRect(tag, 4, 4)
        painter.setPen(QColor("#FFFFFF"))
        painter.drawText(tag, Qt.AlignmentFlag.AlignCenter, text)
