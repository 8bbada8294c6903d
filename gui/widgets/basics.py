"""Labels, buttons, cards and lines: the small parts every panel is made of."""

from __future__ import annotations

import html

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QSizePolicy, QSpinBox, QWidget

from gui.icons import icon

ICON_GAP = 5
"""Pixels between a button's icon and its text, on top of the style's own."""


def plain_tooltip(text: str) -> str:
    """Text from outside as a tool tip: Qt would take some of it for markup."""
    return f'<p style="white-space: pre-wrap">{html.escape(text)}</p>' if text else ""


def label(text: str = "", role: str = "body", *, tone: str = "", wrap: bool = False) -> QLabel:
    """A label that never reads markup. ``role`` is a type size of the style sheet, ``tone`` a colour."""
    result = QLabel(text)
    result.setTextFormat(Qt.TextFormat.PlainText)
    result.setProperty("role", role)
    if tone:
        result.setProperty("tone", tone)
    if wrap:
        result.setWordWrap(True)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)  # a policy set anew forgets it, and layouts would guess the height
        result.setSizePolicy(policy)
    return result


def set_tone(widget: QWidget, tone: str) -> None:
    """Give ``widget`` another tone; the style sheet is asked again only where it changed."""
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


class ElidedLabel(QLabel):
    """A line of outside text, cut in the middle where it is too long; the whole of it is the tool tip."""

    def __init__(self, text: str = "", role: str = "body", *, tone: str = "", cut_end: bool = False) -> None:
        super().__init__()
        self._mode = Qt.TextElideMode.ElideRight if cut_end else Qt.TextElideMode.ElideMiddle
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setProperty("role", role)
        if tone:
            self.setProperty("tone", tone)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.setText(text)

    def setText(self, text: str) -> None:
        one_line = " ".join(text.splitlines()).replace("\t", " ")
        super().setText(one_line)
        self.setAccessibleName(one_line)
        self._update_tooltip()

    def minimumSizeHint(self) -> QSize:
        return QSize(40, super().minimumSizeHint().height())

    def resizeEvent(self, event: object) -> None:
        self._update_tooltip()

    def _update_tooltip(self) -> None:
        cut = self.fontMetrics().horizontalAdvance(self.text()) > self.width() > 0
        self.setToolTip(plain_tooltip(self.text()) if cut else "")

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        metrics = QFontMetrics(self.font())
        text = metrics.elidedText(self.text(), self._mode, self.width())
        painter.setFont(self.font())
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(self.rect(), int(self.alignment() | Qt.AlignmentFlag.AlignVCenter), text)
        painter.end()


def placed(widget: QWidget, box: QRectF) -> QRectF:
    """Where ``box`` (x from the leading edge) lies on ``widget``: mirrored where it is read from right to left. Texts
    that are painted with AlignLeft are mirrored by Qt itself."""
    if widget.layoutDirection() is Qt.LayoutDirection.LeftToRight:
        return box
    return QRectF(widget.width() - box.right(), box.y(), box.width(), box.height())


class Button(QPushButton):
    """A button of a ``kind`` (plain, primary, flat, link) with an icon that follows the theme.

    Focus comes by keyboard only, so the ring of :class:`gui.widgets.focus_ring.FocusRing` never answers a click.
    """

    def __init__(
        self, text: str = "", icon_name: str = "", kind: str = "plain", *, small: bool = False, name: str = ""
    ) -> None:
        super().__init__(text)
        self._icon_name = icon_name
        self.setProperty("kind", kind)
        self.setProperty("small", small)
        self.setProperty("square", not text)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.ArrowCursor)
        accessible = name or text
        self.setAccessibleName(accessible)
        if not text:
            self.setToolTip(accessible)
        if icon_name:
            self.setIconSize(QSize(16 + (ICON_GAP if text else 0), 16))
            self._tint()

    def set_icon_name(self, icon_name: str) -> None:
        if icon_name == self._icon_name:
            return
        self._icon_name = icon_name
        self._tint()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and self._icon_name:
            self._tint()

    def _tint(self) -> None:
        role = {"primary": "on_accent", "plain": "text", "link": "accent"}.get(str(self.property("kind")), "text2")
        gap = ICON_GAP if self.text() else 0
        if self.layoutDirection() is Qt.LayoutDirection.RightToLeft:
            gap = -gap
        self.setIcon(icon(self._icon_name, role, gap=gap))


def spin_box(low: int, high: int, name: str, width: int) -> QSpinBox:
    """A number field that tells its value when the person is done with it."""
    result = QSpinBox()
    result.setRange(low, high)
    result.setFixedWidth(width)
    result.setKeyboardTracking(False)
    result.setGroupSeparatorShown(False)
    result.setAccessibleName(name)
    result.lineEdit().setTextMargins(6, 0, 0, 0)  # a style sheet's padding does not reach the inner field
    return result


class Card(QFrame):
    """A sheet of ``kind``: card, canvas, sunken, banner, dialog."""

    def __init__(self, kind: str = "card") -> None:
        super().__init__()
        self.setProperty("kind", kind)


def line(kind: str = "line") -> QFrame:
    """A hairline: ``line`` lies, ``vline`` stands."""
    result = QFrame()
    result.setProperty("kind", kind)
    return result
