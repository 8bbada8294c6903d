"""Our own icons, tinted from tokens. QtSvg reads nothing but the files of this package."""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPaintEvent, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QWidget

from gui import theme


@lru_cache(maxsize=256)
def _source(name: str) -> str:
    return (theme.ICON_DIR / f"{name}.svg").read_text(encoding="utf-8")


def paint_icon(painter: QPainter, name: str, rect: QRectF, tint: QColor) -> None:
    """Draw the icon ``name`` into ``rect``. Raises FileNotFoundError for an icon that is not shipped."""
    renderer = QSvgRenderer(QByteArray(_source(name).replace("#000000", tint.name()).encode()))
    renderer.render(painter, rect)


def icon(name: str, role: str = "text2", size: int = 16, disabled_role: str = "text3", gap: int = 0) -> QIcon:
    """A QIcon in two tints (normal, disabled), at one and two device pixels per pixel; ``gap`` px stay
    free right of it, left where it is negative."""
    result = QIcon()
    for mode, tint in ((QIcon.Mode.Normal, role), (QIcon.Mode.Disabled, disabled_role)):
        for ratio in (1, 2):
            pixmap = QPixmap(QSize(size + abs(gap), size) * ratio)
            pixmap.setDevicePixelRatio(ratio)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            paint_icon(painter, name, QRectF(max(0, -gap), 0, size, size), theme.color(tint))
            painter.end()
            # A copy: what was painted on keeps its paint engine, four times what a picture of this size weighs.
            result.addPixmap(pixmap.copy(), mode)
    return result


class IconLabel(QWidget):
    """One icon, optionally on a soft square tile. It is decoration: the text beside it says the same."""

    def __init__(
        self, name: str, role: str = "text2", size: int = 16, tile: int = 0, tile_role: str = "accent_soft"
    ) -> None:
        super().__init__()
        self._name, self._role, self._size, self._tile, self._tile_role = name, role, size, tile, tile_role
        side = tile or size
        self.setFixedSize(side, side)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def set_icon(self, name: str, role: str, tile_role: str | None = None) -> None:
        before = self._name, self._role, self._tile_role
        self._name, self._role, self._tile_role = name, role, self._tile_role if tile_role is None else tile_role
        if before != (self._name, self._role, self._tile_role):
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._tile:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color(self._tile_role))
            radius = 6 if self._tile < 40 else 10
            painter.drawRoundedRect(self.rect(), radius, radius)
        offset = (self.width() - self._size) / 2
        paint_icon(painter, self._name, QRectF(offset, offset, self._size, self._size), theme.color(self._role))
        painter.end()
