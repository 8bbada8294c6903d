"""The last minute of a number as a line: nothing moves but the data."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.widgets.basics import Card, ElidedLabel, label

HEIGHT = 44
SAMPLES = 120
"""Two a second for a minute."""

Series = tuple[str, Sequence[float], bool]
"""Colour token, values (oldest first), whether the area below is filled."""


class LiveChart(QWidget):
    """Lines over a common scale from zero; a minute wide, the newest value at the right edge."""

    def __init__(self) -> None:
        super().__init__()
        self._series: list[Series] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(HEIGHT)

    def sizeHint(self) -> QSize:
        return QSize(160, HEIGHT)

    def show_series(self, series: Sequence[Series]) -> None:
        self._series = list(series)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(0, 1, 0, -1.5)
        painter.setPen(QPen(theme.color("hair"), 1))
        for share in (0.0, 0.5):
            y = round(area.top() + area.height() * share) + 0.5
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        top = max((max(values, default=0.0) for _, values, _ in self._series), default=0.0)
        scale = (area.height() - 4) / top if top > 0 else 0.0
        for role, values, filled in self._series:
            points = self._points(values, area, scale)
            if len(points) < 2:
                continue
            tint = theme.color(role)
            if filled:
                below = theme.color(role)
                below.setAlpha(30)
                closed = [*points, QPointF(points[-1].x(), area.bottom()), QPointF(points[0].x(), area.bottom())]
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(below)
                painter.drawPolygon(QPolygonF(closed))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(tint, 1.5))
            painter.drawPolyline(QPolygonF(points))
        painter.end()

    @staticmethod
    def _points(values: Sequence[float], area: QRectF, scale: float) -> list[QPointF]:
        shown = list(values)[-SAMPLES:]
        step = area.width() / (SAMPLES - 1)
        first = area.right() - step * (len(shown) - 1)
        return [QPointF(first + i * step, area.bottom() - value * scale) for i, value in enumerate(shown)]


class ChartCard(Card):
    """One number, one plain sentence, one line. ``legend`` pairs a colour token with its word."""

    def __init__(self, title: str, legend: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__()
        self._title = title
        self.number = label("", "title")
        self.sentence = ElidedLabel("", "small")
        self.chart = LiveChart()
        head = QHBoxLayout()
        head.setSpacing(10)
        head.addWidget(label(title, "small"), 1)
        for role, word in legend:
            head.addWidget(_Key(role, word))
        figures = QHBoxLayout()
        figures.setSpacing(8)
        figures.addWidget(self.number)
        figures.addWidget(self.sentence, 1, Qt.AlignmentFlag.AlignBottom)
        box = QVBoxLayout(self)
        box.setContentsMargins(14, 10, 14, 12)
        box.setSpacing(4)
        box.addLayout(head)
        box.addLayout(figures)
        box.addWidget(self.chart)
        self.sentence.setMinimumWidth(40)

    def show_values(self, number: str, sentence: str, series: Sequence[Series]) -> None:
        self.number.setText(number)
        self.sentence.setText(sentence)
        self.chart.show_series(series)
        self.setAccessibleName(f"{self._title}: {number} {sentence}".strip())


class _Key(QWidget):
    """A dot in a series' colour, and its word."""

    def __init__(self, role: str, word: str) -> None:
        super().__init__()
        self._role = role
        row = QHBoxLayout(self)
        row.setContentsMargins(13, 0, 0, 0)
        row.addWidget(label(word, "small"))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color(self._role))
        painter.drawEllipse(QRectF(2, self.height() / 2 - 3, 6, 6))
        painter.end()
