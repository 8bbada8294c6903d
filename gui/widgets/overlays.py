"""What is drawn over a picture: boxes, masks, key points. Places are in pixels of the original picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QImage, QPainter, QPen

from gui import theme
from gui.words import percent_words

MOST_BOXES = 300
_LONGEST_LABEL = 160
_POINT = 4.0
_LIT = 3.5


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the picture lies on the screen: ``target`` in screen pixels, ``scale`` of them for one of the original."""

    target: QRectF
    scale: float

    def point(self, x: float, y: float) -> QPointF:
        return QPointF(self.target.x() + x * self.scale, self.target.y() + y * self.scale)

    def rect(self, box: Mapping[str, float]) -> QRectF:
        return QRectF(self.point(box["xmin"], box["ymin"]), self.point(box["xmax"], box["ymax"]))


class Overlay(Protocol):
    """Drawn on the GUI thread at every paint: nothing here computes more than it draws."""

    def paint(self, painter: QPainter, frame: Frame) -> None: ...

    def words_at(self, x: float, y: float) -> str:
        """What lies at a point of the original picture, "" for nothing to tell."""

    def entry_at(self, x: float, y: float) -> int | None:
        """The number of the entry there, None for none."""


def class_colour(number: int) -> QColor:
    """The colour of the ``number``-th class: five, then the same again (dashed, where there are lines)."""
    return QColor(theme.OVERLAY[number % len(theme.OVERLAY)])


def is_dashed(number: int) -> bool:
    return number // len(theme.OVERLAY) % 2 == 1


@dataclass(slots=True)
class Things:
    """Boxes and key points of ``entries``, as object-detection and keypoint-detection answer them, best first.

    ``colours`` holds a number for each entry (see :func:`class_colour`); ``lit`` is the chosen one. ``skeleton`` are
    pairs of names of points.
    """

    entries: Sequence[Mapping[str, Any]]
    colours: Sequence[int]
    lit: int | None = None
    skeleton: Sequence[Sequence[str]] = ()
    _tags: list[QRectF] = field(default_factory=list)

    def paint(self, painter: QPainter, frame: Frame) -> None:
        painter.setFont(theme.font("small", semibold=True))
        self._tags = []
        shown = list(enumerate(self.entries))[:MOST_BOXES]
        for at, entry in reversed(shown):  # the best on top
            if isinstance(entry.get("box"), Mapping):
                self._paint_box(painter, frame.rect(entry["box"]), self.colours[at], at == self.lit)
        for at, entry in shown:
            self._paint_points(painter, frame, entry, self.colours[at])
        for at, entry in shown:
            if isinstance(entry.get("box"), Mapping):
                self._paint_tag(painter, frame, entry, self.colours[at])

    @staticmethod
    def _paint_box(painter: QPainter, rect: QRectF, number: int, lit: bool) -> None:
        painter.setBrush(Qt.BrushStyle.NoBrush)
        width = _LIT if lit else 2.0
        # A dark line outside the coloured one: it shows on any photograph.
        painter.setPen(QPen(QColor(theme.OVERLAY_TEXT), width + 2.0))
        painter.drawRect(rect)
        pen = QPen(class_colour(number), width)
        if is_dashed(number):
            pen.setStyle(Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.drawRect(rect)

    def _paint_tag(self, painter: QPainter, frame: Frame, entry: Mapping[str, Any], number: int) -> None:
        """The name where it covers no other: above the box, below it, inside."""
        metrics = QFontMetricsF(painter.font())
        words = f"{entry['label']}  {percent_words(float(entry['score']))}"
        text = metrics.elidedText(words, Qt.TextElideMode.ElideMiddle, _LONGEST_LABEL)
        rect = frame.rect(entry["box"])
        size = (metrics.horizontalAdvance(text) + 10, metrics.height() + 2)
        places = [
            QRectF(rect.left() - 1, rect.top() - size[1] - 1, *size),
            QRectF(rect.right() - size[0] + 1, rect.top() - size[1] - 1, *size),
            QRectF(rect.left() - 1, rect.bottom() + 1, *size),
            QRectF(rect.left() + 1, rect.top() + 1, *size),
            QRectF(rect.left() + 1, rect.bottom() - size[1] - 1, *size),
        ]
        room = frame.target.adjusted(-1, -1, 1, 1)
        free = [p for p in places if room.contains(p) and not any(p.intersects(other) for other in self._tags)]
        tag = next(iter(free), next((p for p in places if room.contains(p)), places[3]))
        self._tags.append(tag)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(class_colour(number))
        painter.drawRoundedRect(tag, 3, 3)
        painter.setPen(QColor(theme.OVERLAY_TEXT))
        painter.drawText(tag, Qt.AlignmentFlag.AlignCenter, text)

    def _paint_points(self, painter: QPainter, frame: Frame, entry: Mapping[str, Any], number: int) -> None:
        points = {str(p["label"]): p for p in entry.get("keypoints") or ()}
        colour, dark = class_colour(number), QColor(theme.OVERLAY_TEXT)
        for first, second in self.skeleton:
            if first in points and second in points:
                ends = [frame.point(points[name]["x"], points[name]["y"]) for name in (first, second)]
                for width, line in ((5.0, dark), (2.5, colour)):
                    painter.setPen(QPen(line, width))
                    painter.drawLine(*ends)
        for point in points.values():
            score = point.get("score")
            painter.setPen(QPen(dark, 1.5))
            # What the model hardly saw is drawn hollow.
            painter.setBrush(colour if score is None or score >= 0.5 else Qt.BrushStyle.NoBrush)
            painter.drawEllipse(frame.point(point["x"], point["y"]), _POINT, _POINT)

    def words_at(self, x: float, y: float) -> str:
        reach = 8.0
        named = [
            (abs(p["x"] - x) + abs(p["y"] - y), str(p["label"]).replace("_", " "))
            for entry in self.entries
            for p in entry.get("keypoints") or ()
        ]
        near = min(named, default=None)
        return near[1] if near is not None and near[0] <= reach else ""

    def entry_at(self, x: float, y: float) -> int | None:
        inside = [
            ((box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"]), at)
            for at, entry in enumerate(self.entries)
            if isinstance(box := entry.get("box"), Mapping)
            and box["xmin"] <= x <= box["xmax"]
            and box["ymin"] <= y <= box["ymax"]
        ]
        return min(inside)[1] if inside else None


@dataclass(slots=True)
class Tint:
    """Masks as one picture with transparency; ``numbers`` (height, width) tells whose each of its pixels is, from 1."""

    image: QImage
    numbers: Any
    names: Sequence[str]
    scale: float
    """Pixels of ``numbers`` for one of the original."""

    def paint(self, painter: QPainter, frame: Frame) -> None:
        painter.drawImage(frame.target, self.image)

    def words_at(self, x: float, y: float) -> str:
        at = self.entry_at(x, y)
        return self.names[at] if at is not None else ""

    def entry_at(self, x: float, y: float) -> int | None:
        row, column = int(y * self.scale), int(x * self.scale)
        height, width = self.numbers.shape
        if not (0 <= row < height and 0 <= column < width):
            return None
        number = int(self.numbers[row, column])
        return number - 1 if number else None


@dataclass(slots=True)
class Readout:
    """Nothing drawn: the number under the pointer, of a map that covers the picture."""

    values: Any
    across: float
    """Pixels of ``values`` for one of the original, across and down."""
    down: float
    unit: str = ""

    def paint(self, painter: QPainter, frame: Frame) -> None:
        return

    def words_at(self, x: float, y: float) -> str:
        height, width = self.values.shape
        row, column = min(height - 1, int(y * self.down)), min(width - 1, int(x * self.across))
        if row < 0 or column < 0:
            return ""
        return f"{float(self.values[row, column]):.4g}{self.unit}"

    def entry_at(self, x: float, y: float) -> int | None:
        return None
