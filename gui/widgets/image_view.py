"""The picture that was asked about, from raw pixels the inspector decoded: fit, zoom at the pointer, drag to pan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QImage,
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
from gui.words import percent_words

MARGIN = 12
MAX_ZOOM = 32.0
MOST_BOXES = 300
_LONGEST_LABEL = 160


def image_of(preview: ImagePreview) -> QImage:
    """``preview`` as a QImage that owns its pixels. Raises ValueError where the buffer does not fill the size."""
    if preview.width < 1 or preview.height < 1 or len(preview.rgb) != preview.width * preview.height * 3:
        raise ValueError(f"{len(preview.rgb)} bytes do not fill {preview.width} x {preview.height} RGB")
    return QImage(
        preview.rgb, preview.width, preview.height, preview.width * 3, QImage.Format.Format_RGB888
    ).copy()  # without the copy the QImage would point into the bytes object


class ImageView(QWidget):
    """``zoomed`` tells the scale in screen pixels per picture pixel."""

    zoomed = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self._pixmap: QPixmap | None = None
        self._source_width = 1
        self._zoom = 1.0
        self._centre = QPointF(0.5, 0.5)
        self._grip: QPointF | None = None
        self._message = ""
        self.boxes: list[dict[str, Any]] = []
        """What was found, as the task object-detection answers it: label, score, box in pixels of the original."""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(200, 160)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName("Picture")

    @property
    def has_picture(self) -> bool:
        return self._pixmap is not None

    def show_preview(self, preview: ImagePreview, name: str) -> None:
        """Show decoded pixels. Raises ValueError where they do not fill their size."""
        self._pixmap = QPixmap.fromImage(image_of(preview))
        self._source_width = max(1, preview.source_size[0])
        self._message = ""
        self.setAccessibleName(f"Picture {name}")
        self.fit()

    def show_boxes(self, found: Sequence[dict[str, Any]]) -> None:
        """Draw what was found over the picture, each label in the colour of its class. Best first, at most 300."""
        self.boxes = list(found[:MOST_BOXES])
        self.update()

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
        self._grip = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._grip is not None and self._pixmap is not None:
            moved = event.position() - self._grip
            self._grip = event.position()
            self._pan(moved.x(), moved.y())
            self._changed()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._grip = None

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
            self._paint_boxes(painter, target)
        elif self._message:
            painter.setPen(theme.color("text3"))
            painter.setFont(theme.font("body"))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self._message)
        painter.end()

    def _paint_boxes(self, painter: QPainter, target: QRectF) -> None:
        scale = self.scale
        labels = list(dict.fromkeys(str(found["label"]) for found in self.boxes))
        colours = {name: QColor(theme.OVERLAY[n % len(theme.OVERLAY)]) for n, name in enumerate(labels)}
        painter.setFont(theme.font("small", semibold=True))
        metrics = QFontMetricsF(painter.font())
        for found in reversed(self.boxes):  # the best on top
            label, box = str(found["label"]), found["box"]
            colour = colours[label]
            left, top = target.x() + box["xmin"] * scale, target.y() + box["ymin"] * scale
            rect = QRectF(left, top, (box["xmax"] - box["xmin"]) * scale, (box["ymax"] - box["ymin"]) * scale)
            painter.setBrush(Qt.BrushStyle.NoBrush)
            # A dark line outside the coloured one: it shows on any photograph.
            for width, line in ((4.0, QColor(theme.OVERLAY_TEXT)), (2.0, colour)):
                painter.setPen(QPen(line, width))
                painter.drawRect(rect)
            text = metrics.elidedText(
                f"{label}  {percent_words(float(found['score']))}", Qt.TextElideMode.ElideMiddle, _LONGEST_LABEL
            )
            tag = QRectF(
                left - 1, top - metrics.height() - 3, metrics.horizontalAdvance(text) + 10, metrics.height() + 2
            )
            if tag.top() < target.top():
                tag.moveTop(top + 1)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            painter.drawRoundedRect(tag, 3, 3)
            painter.setPen(QColor(theme.OVERLAY_TEXT))
            painter.drawText(tag, Qt.AlignmentFlag.AlignCenter, text)
