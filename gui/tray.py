"""The icon beside the clock: what the server does, its switch, and the way back to the window."""

from __future__ import annotations

from PySide6.QtCore import QObject, QRectF, Qt, Signal
from PySide6.QtGui import QAction, QActionGroup, QIcon, QPainter, QPixmap
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from engine.serving_types import ServerScope
from gui import theme
from gui.icons import paint_icon
from gui.language import mark, tr
from gui.server_bridge import ServerBridge

CHOICES = (
    (ServerScope.OFF, mark("Off")),
    (ServerScope.COMPUTER, mark("This computer")),
    (ServerScope.NETWORK, mark("Network")),
)
SIDE = 64


class Tray(QObject):
    """``show_asked``, ``quit_asked``, ``switch_asked(ServerScope)``. Make it only where there is a tray."""

    show_asked = Signal()
    quit_asked = Signal()
    switch_asked = Signal(object)

    def __init__(self, server: ServerBridge, parent: QObject) -> None:
        super().__init__(parent)
        self._server = server
        self._told = False
        self.menu = QMenu()
        self.menu.addAction(tr("Show Deskside")).triggered.connect(self.show_asked)
        self.menu.addSeparator()
        self.switches: dict[ServerScope, QAction] = {}
        group = QActionGroup(self.menu)
        for scope, words in CHOICES:
            action = self.menu.addAction(
                tr("Server: {state}").format(state=tr(words)) if scope is ServerScope.OFF else tr(words)
            )
            action.setCheckable(True)
            group.addAction(action)
            action.triggered.connect(lambda _checked=False, to=scope: self._on_switch(to))
            self.switches[scope] = action
        self.menu.addSeparator()
        self.menu.addAction(tr("Quit")).triggered.connect(self.quit_asked)
        self.icon = QSystemTrayIcon(self)
        self.icon.setContextMenu(self.menu)
        self.icon.activated.connect(self._on_activated)
        server.changed.connect(self.refresh)
        self.refresh()
        self.icon.show()

    def refresh(self) -> None:
        """Show the server's state; the switch stands where the server is."""
        scope = self._server.state.scope if self._server.is_running else ServerScope.OFF
        self.switches[scope].setChecked(True)
        self.icon.setIcon(tray_icon({ServerScope.NETWORK: "lan", ServerScope.COMPUTER: "accent"}.get(scope, "")))
        words = {
            ServerScope.NETWORK: tr("Deskside, serving the network"),
            ServerScope.COMPUTER: tr("Deskside, serving this computer"),
        }
        self.icon.setToolTip(words.get(scope, tr("Deskside, server off")))

    def tell_hidden(self) -> None:
        """Say once where the window went."""
        if not self._told:
            self._told = True
            self.icon.showMessage(tr("Deskside goes on here"), tr("Its models stay open. Quit in this icon's menu."))

    def close(self) -> None:
        self.icon.hide()
        self.menu.deleteLater()

    def _on_switch(self, scope: ServerScope) -> None:
        self.refresh()  # it moves when the server has answered
        self.switch_asked.emit(scope)

    def _on_activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if reason in (QSystemTrayIcon.ActivationReason.Trigger, QSystemTrayIcon.ActivationReason.DoubleClick):
            self.show_asked.emit()


def tray_icon(hue: str) -> QIcon:
    """The mark on a tile in the door's hue; grey while off. It must show on a light and on a dark bar."""
    pixmap = QPixmap(SIDE, SIDE)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(theme.LIGHT.color(hue or "ctl"))
    painter.drawRoundedRect(QRectF(2, 2, SIDE - 4, SIDE - 4), 14, 14)
    paint_icon(painter, "radio-tower", QRectF(12, 12, SIDE - 24, SIDE - 24), theme.LIGHT.color("on_accent"))
    painter.end()
    return QIcon(pixmap)
