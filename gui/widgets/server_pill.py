"""The server's state in the header: a dot (never alone: the words say the same) and the requests answered."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QEnterEvent, QFontMetrics, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QSizePolicy

from engine.serving_types import ServerPhase, ServerScope
from gui import theme
from gui.icons import paint_icon
from gui.language import tr
from gui.server_bridge import ServerBridge
from gui.widgets.basics import placed
from gui.widgets.progress import paint_ring

HEIGHT = 36


class ServerPill(QAbstractButton):
    """A click opens the Server page."""

    def __init__(self) -> None:
        super().__init__()
        self._look, self._words, self._count, self._phase = "off", tr("Server off"), "", 0
        self._timer = QTimer(self)
        self._timer.setInterval(80)
        self._timer.timeout.connect(self._step)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self._words)

    @property
    def words(self) -> str:
        return self._words

    def show_server(self, server: ServerBridge) -> None:
        state = server.state
        count = ""
        if server.target is not None:
            look, words = "busy", tr("Stopping") if server.target is ServerScope.OFF else tr("Starting")
        elif state.phase is ServerPhase.RUNNING:
            look = "lan" if state.scope is ServerScope.NETWORK else "accent"
            words = tr("Network") if look == "lan" else tr("This computer")
            count = str(state.served)
        elif state.phase is ServerPhase.FAILED:
            look = "error"
            taken = state.problem is not None and state.problem.code == "port_in_use"
            words = (
                tr("Port {port} taken").format(port=state.problem.port)
                if taken and state.problem
                else tr("Server failed")
            )
        else:
            look, words = "off", tr("Server off")
        if (look, words, count) != (self._look, self._words, self._count):
            width = self.sizeHint().width()
            self._look, self._words, self._count = look, words, count
            self.setAccessibleName(tr("{words}, {count} answered").format(words=words, count=count) if count else words)
            if self.sizeHint().width() != width:
                self.updateGeometry()
            self.update()
        if look == "busy":
            self._timer.start()
        else:
            self._timer.stop()

    def _step(self) -> None:
        self._phase += 1
        self.update()

    def sizeHint(self) -> QSize:
        width = QFontMetrics(theme.font("body", semibold=True)).horizontalAdvance(self._words)
        if self._count:
            width += QFontMetrics(theme.font("body")).horizontalAdvance(self._count) + 10
        return QSize(width + 14 + 18 + 28, HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        hue = self._look if self._look in ("accent", "lan", "error") else ""
        fill = f"{hue}_soft" if hue else ("hover" if self.underMouse() else "btn")
        painter.setPen(QPen(theme.color(hue or "ctl"), 1))
        painter.setBrush(theme.color(fill))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), HEIGHT / 2, HEIGHT / 2)
        middle = self.height() / 2
        if self._look == "busy":
            paint_ring(painter, placed(self, QRectF(13, middle - 6, 12, 12)), self._phase)
        elif self._look == "error":
            paint_icon(painter, "circle-alert", placed(self, QRectF(12, middle - 7, 14, 14)), theme.color("error"))
        elif self._look == "off":
            painter.setPen(QPen(theme.color("text2"), 1.75))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(placed(self, QRectF(15, middle - 3.75, 7.5, 7.5)))
        else:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color(hue))
            painter.drawEllipse(placed(self, QRectF(14, middle - 4.5, 9, 9)))
        painter.setPen(theme.color(hue or "text"))
        painter.setFont(theme.font("body", semibold=True))
        metrics = painter.fontMetrics()
        room = QRectF(32, 0, self.width() - 32, self.height())
        painter.drawText(placed(self, room), int(Qt.AlignmentFlag.AlignVCenter), self._words)
        if self._count:
            room.setLeft(32 + metrics.horizontalAdvance(self._words) + 10)
            painter.setFont(theme.font("body", medium=True))
            painter.drawText(placed(self, room), int(Qt.AlignmentFlag.AlignVCenter), self._count)
        chevron = placed(self, QRectF(self.width() - 26, middle - 7, 14, 14))
        onward = "chevron-right" if self.layoutDirection() is Qt.LayoutDirection.LeftToRight else "chevron-left"
        paint_icon(painter, onward, chevron, theme.color(hue or "text2"))
        painter.end()
