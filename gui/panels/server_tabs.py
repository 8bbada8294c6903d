"""Below the door: who asks now, who may, how much is taken, and the log."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QStackedWidget, QTabBar, QToolButton, QVBoxLayout

from engine.serving_types import ServerScope
from engine.settings import Settings
from gui.icons import icon
from gui.language import tr
from gui.model_shelf import ModelShelf
from gui.panels.access_tab import AccessTab
from gui.panels.limits_tab import LimitsTab
from gui.panels.log_tab import LogTab
from gui.panels.network_tab import NetworkTab
from gui.panels.requests_tab import RequestsTab
from gui.panels.setting_row import Change
from gui.server_bridge import ServerBridge
from gui.widgets.basics import Button, Card, line

REQUESTS, ACCESS, NETWORK, LIMITS, LOG = range(5)


class ServerTabs(Card):
    """``status(tone, text)``."""

    status = Signal(str, str)

    def __init__(self, server: ServerBridge, shelf: ModelShelf, settings: Settings, change: Change) -> None:
        super().__init__()
        self._server = server
        self.requests = RequestsTab(server)
        self.access = AccessTab(server, shelf, settings, change)
        self.network = NetworkTab(server, settings, change)
        self.limits = LimitsTab(settings, change)
        self.log = LogTab(server)
        self.bar = QTabBar()
        self.bar.setDrawBase(False)
        self.bar.setExpanding(False)
        self.bar.setAccessibleName(tr("Server details"))
        self.filter = QLineEdit()
        self.filter.setPlaceholderText(tr("Filter by key, model or state"))
        self.filter.setAccessibleName(tr("Filter the requests"))
        self.filter.setClearButtonEnabled(True)
        self.filter.setFixedWidth(230)
        self._search = self.filter.addAction(icon("search", "text3"), QLineEdit.ActionPosition.LeadingPosition)
        for button in self.filter.findChildren(QToolButton):  # Qt gives them no names
            leading = button.defaultAction() is self._search or button.actions() == [self._search]
            button.setAccessibleName(tr("Filter the requests") if leading else tr("Clear the filter"))
        self.pause_button = Button(tr("Pause network"), "pause", "flat", small=True)
        self.pages = QStackedWidget()
        for title, page in (
            (tr("Requests"), self.requests),
            (tr("Access"), self.access),
            (tr("Network"), self.network),
            (tr("Limits"), self.limits),
            (tr("Log"), self.log),
        ):
            self.bar.addTab(title)
            self.pages.addWidget(page)
        head = QHBoxLayout()
        head.setContentsMargins(8, 6, 12, 0)
        head.setSpacing(8)
        head.addWidget(self.bar, 0, Qt.AlignmentFlag.AlignBottom)
        head.addStretch(1)
        head.addWidget(self.filter)
        head.addWidget(self.pause_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(1, 1, 1, 8)
        box.setSpacing(0)
        box.addLayout(head)
        box.addWidget(line())
        box.addWidget(self.pages, 1)
        self.bar.currentChanged.connect(self._on_tab)
        self.filter.textChanged.connect(self._on_filter)
        self.pause_button.clicked.connect(lambda: server.pause(not server.state.paused))
        self.requests.changed.connect(self._on_requests)
        for tab in (self.requests, self.access, self.network, self.limits, self.log):
            tab.status.connect(self.status)
        server.changed.connect(self._on_server)
        self._on_server()
        self._on_tab(REQUESTS)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._search.setIcon(icon("search", "text3"))

    def _on_tab(self, index: int) -> None:
        self.pages.setCurrentIndex(index)
        self.filter.setVisible(index in (REQUESTS, LOG))

    def _on_filter(self, words: str) -> None:
        self.requests.set_filter(words)
        self.log.set_filter(words)

    def _on_requests(self) -> None:
        live = self.requests.live
        self.bar.setTabText(REQUESTS, tr("Requests  {live} live").format(live=live) if live else tr("Requests"))

    def _on_server(self) -> None:
        state = self._server.state
        self.pause_button.setVisible(self._server.is_running and state.scope is ServerScope.NETWORK)
        words = tr("Let the network ask again") if state.paused else tr("Pause network")
        self.pause_button.setText(words)
        self.pause_button.setAccessibleName(words)
        self.pause_button.set_icon_name("play" if state.paused else "pause")
