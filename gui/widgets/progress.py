"""Progress that tells the truth: solid is measured, hatched is learnt from the last load, a moving block: not known."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, QTimer
from PySide6.QtGui import QBrush, QHideEvent, QPainter, QPaintEvent, QPen, QShowEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from gui import theme
from gui.language import tr


class _Animated(QWidget):
    """A widget that steps its phase while it is on screen, and costs nothing while it is not."""

    def __init__(self, interval_ms: int) -> None:
        super().__init__()
        self.phase = 0
        self._timer = QTimer(self)
        self._timer.setInterval(interval_ms)
        self._timer.timeout.connect(self._step)

    def _step(self) -> None:
        self.phase += 1
        self.update()

    def showEvent(self, event: QShowEvent) -> None:
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        self._timer.stop()


class Ring(_Animated):
    """Work under way, of unknown length."""

    def __init__(self, size: int = 16) -> None:
        super().__init__(80)
        self.setFixedSize(size, size)
        self.setAccessibleName(tr("working"))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_ring(painter, QRectF(self.rect()).adjusted(1.5, 1.5, -1.5, -1.5), self.phase)
        painter.end()


def paint_ring(painter: QPainter, rect: QRectF, phase: int) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(theme.color("track"), 2.5))
    painter.drawEllipse(rect)
    painter.setPen(QPen(theme.color("accent"), 2.5, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawArc(rect, (90 - phase * 24) * 16, -110 * 16)


class ProgressBar(_Animated):
    """``fraction`` 0..1 or None (not known); ``learnt`` says it comes from the last load's duration."""

    def __init__(self, height: int = 4) -> None:
        super().__init__(60)
        self.fraction: float | None = None
        self.learnt = False
        self.setFixedHeight(height)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_progress(self, fraction: float | None, learnt: bool = False) -> None:
        self.fraction, self.learnt = fraction, learnt
        self.setAccessibleName(tr("working") if fraction is None else f"{fraction * 100:.0f} %")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_progress(painter, QRectF(self.rect()), self.fraction, self.learnt, self.phase)
        painter.end()


def paint_progress(painter: QPainter, rect: QRectF, fraction: float | None, learnt: bool, phase: int) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    radius = rect.height() / 2
    painter.setBrush(theme.color("track"))
    painter.drawRoundedRect(rect, radius, radius)
    fill = QRectF(rect)
    if fraction is None:
        fill.setWidth(rect.width() * 0.28)
        travel = rect.width() - fill.width()
        step = (phase * 2) % 200
        fill.moveLeft(rect.left() + travel * (step if step <= 100 else 200 - step) / 100)
    else:
        fill.setWidth(rect.width() * min(1.0, max(0.0, fraction)))
    if learnt and fraction is not None:
        painter.setBrush(QBrush(theme.color("accent"), Qt.BrushStyle.BDiagPattern))
    else:
        painter.setBrush(theme.color("accent"))
    if fill.width() >= 1:
        painter.drawRoundedRect(fill, radius, radius)
