"""How often values occur, as bars; under them the colours that stand for them, where a map has some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from engine.viridis import VIRIDIS
from gui import theme
from gui.language import tr

BINS = 32
_BARS, _SCALE = 64, 10


class Histogram(QWidget):
    """``counts`` from the least value to the largest. ``coloured`` draws viridis below."""

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self.counts: tuple[int, ...] = ()
        self._coloured = coloured
        self.setFixedHeight(_BARS + (_SCALE + 6 if coloured else 0))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(tr("How often each value occurs"))

    def show_counts(self, counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        most = max(self.counts, default=0)
        if most:
            width = self.width() / len(self.counts)
            painter.setBrush(theme.color("ctl"))
            for number, count in enumerate(self.counts):
                height = _BARS * count / most
                if count:
                    height = max(1.5, height)
                painter.drawRect(QRectF(number * width, _BARS - height, max(1.0, width - 1), height))
        if self._coloured:
            ramp = QLinearGradient(0, 0, self.width(), 0)
            for share in np.linspace(0, 1, 17):
                red, green, blue = (int(v) for v in VIRIDIS[round(share * 255)])
                ramp.setColorAt(float(share), QColor(red, green, blue))
            painter.setBrush(ramp)
            painter.drawRoundedRect(QRectF(0, _BARS + 6, self.width(), _SCALE), 3, 3)
        painter.end()
