"""A recording as its outline over time."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from engine.prediction import AudioPreview
from gui import theme
from gui.language import tr

MARGIN = 16
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_MOST_TICKS = 8


def time_words(seconds: float) -> str:
    """``0.4 s`` below a minute, ``2:05`` and ``1:02:05`` above."""
    if seconds < 60:
        return f"{seconds:g}\u2009s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class WaveView(QWidget):
    """Shows one :class:`AudioPreview`."""

    def __init__(self) -> None:
        super().__init__()
        self.preview: AudioPreview | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(200, 160)
        self.setAccessibleName(tr("Recording"))

    def show_preview(self, preview: AudioPreview | None, name: str = "") -> None:
        self.preview = preview
        self.setAccessibleName(tr("Recording {name}").format(name=name).strip())
        if preview is not None:
            self.setAccessibleDescription(tr("{time} long").format(time=time_words(preview.seconds)))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("canvas"))
        painter.drawRoundedRect(self.rect(), 10, 10)
        if self.preview is not None and self.preview.high:
            self._paint_wave(painter, self.preview)
        painter.end()

    def _paint_wave(self, painter: QPainter, preview: AudioPreview) -> None:
        painter.setFont(theme.font("caption"))
        line = painter.fontMetrics().height()
        room = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN - line - 8)
        middle, half = room.center().y(), room.height() / 2
        step = room.width() / max(1, len(preview.high))
        upper = [QPointF(room.x() + i * step, middle - v * half) for i, v in enumerate(preview.high)]
        lower = [QPointF(room.x() + i * step, middle - v * half) for i, v in enumerate(preview.low)]
        painter.setBrush(theme.color("accent"))
        painter.drawPolygon(QPolygonF(upper + lower[::-1]))
        painter.setPen(theme.color("ctl"))
        painter.drawLine(QPointF(room.left(), middle), QPointF(room.right(), middle))
        painter.setPen(theme.color("text3"))
        spacing = next((t for t in _TICKS if preview.seconds / t <= _MOST_TICKS), _TICKS[-1])
        for number in range(int(preview.seconds / spacing) + 1):
            x = room.x() + number * spacing / preview.seconds * room.width()
            words = time_words(round(number * spacing, 3))
            width = painter.fontMetrics().horizontalAdvance(words)
            left = min(max(x - width / 2, room.left()), room.right() - width)
            painter.drawText(QRectF(left, room.bottom() + 8, width + 2, line), Qt.AlignmentFlag.AlignLeft, words)
