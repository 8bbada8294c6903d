"""A QR code: black on white with its quiet zone in both themes, because that is what phones read."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

QUIET = 4
"""Modules of white around it (ISO/IEC 18004)."""


class QrCode(QWidget):
    """Shows ``text``; empty shows nothing. Modules are whole device pixels, so that none is blurred."""

    def __init__(self, side: int = 184) -> None:
        super().__init__()
        self.text = ""
        self._rows: list[bytes] = []
        self.setFixedSize(QSize(side, side))
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def set_text(self, text: str, name: str) -> None:
        """``name`` is what a screen reader says instead: the text itself may hold a key."""
        self.setAccessibleName(name)
        if text == self.text:
            return
        self.text = text
        self._rows = _modules(text) if text else []
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self._rows:
            return
        painter = QPainter(self)
        ratio = self.devicePixelRatioF()
        modules = len(self._rows) + 2 * QUIET
        module = max(1, int(self.width() * ratio // modules)) / ratio
        side = module * modules
        left = round((self.width() - side) / 2 * ratio) / ratio
        top = round((self.height() - side) / 2 * ratio) / ratio
        painter.fillRect(QRectF(left, top, side, side), Qt.GlobalColor.white)
        for y, row in enumerate(self._rows):
            for x, dark in enumerate(row):
                if dark:
                    at = QRectF(left + (x + QUIET) * module, top + (y + QUIET) * module, module, module)
                    painter.fillRect(at, Qt.GlobalColor.black)
        painter.end()


def _modules(text: str) -> list[bytes]:
    """The code of ``text``, a byte a module: 1 is dark."""
    import segno  # here: with it come urllib, ssl and XML, 3 MB that a window whose server is off does without

    return [bytes(row) for row in segno.make(text, error="m", micro=False).matrix]
