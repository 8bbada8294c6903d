"""The Server page: the network door with its switch, addresses, key and QR code; how busy it is; who asks."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QHideEvent, QPainter, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from engine.errors import EngineError, ServerStartError
from engine.serving_types import RequestRecord, ServerPhase, ServerScope
from engine.settings import Settings
from gui import theme
from gui.error_text import error_text
from gui.language import mark, tr
from gui.model_shelf import ANSWERING, ModelShelf
from gui.panels.address_rows import AddressRow, KeyRow
from gui.panels.encryption_row import EncryptionRow
from gui.panels.reach_card import ReachCard
from gui.panels.server_charts import ServerCharts
from gui.panels.server_tabs import ServerTabs
from gui.panels.setting_row import Change, scrolled
from gui.server_bridge import ServerBridge, first_port
from gui.server_meter import ServerMeter
from gui.widgets.banner import Banner
from gui.widgets.basics import Card, ElidedLabel, label, spin_box
from gui.widgets.segmented import Segmented, translated

CHOICES = (("off", mark("Off"), ""), ("computer", mark("This computer"), "accent"), ("network", mark("Network"), "lan"))


class _Dot(QWidget):
    """Hollow while off, filled in the door's hue while open; the title beside it says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.hue = ""
        self.setFixedSize(12, 12)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.hue:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color(self.hue))
            painter.drawEllipse(QRectF(1, 1, 10, 10))
        else:
            pen = painter.pen()
            pen.setColor(theme.color("text2"))
            pen.setWidthF(1.75)
            painter.setPen(pen)
            painter.drawEllipse(QRectF(2, 2, 8, 8))
        painter.end()


LOWEST_TABS = 160


class ServerPage(QWidget):
    """``status(tone, text)`` for the status line."""

    status = Signal(str, str)

    def __init__(self, server: ServerBridge, shelf: ModelShelf, settings: Settings, change: Change) -> None:
        super().__init__()
        self.setObjectName("page")
        self._server, self._shelf = server, shelf
        self._wanted_scope = ServerScope.COMPUTER
        self._free_port: int | None = None
        self.meter = ServerMeter(self)
        self.charts = ServerCharts(self.meter, settings.limits.waiting_requests, settings.limits.max_batch_size)
        self.tabs = ServerTabs(server, shelf, settings, change)
        self.code = ReachCard(server)
        self.title = ElidedLabel("", "title", cut_end=True)
        self.sentence = label("", "body2", wrap=True)
        self.port = spin_box(1024, 65535, tr("Port"), 92)
        self.port.setValue(first_port(settings.server))
        self.switch = Segmented(translated(CHOICES), tr("Server"))
        self.banner = Banner()
        self.rows: list[AddressRow] = []
        self.key_row = KeyRow()
        self._dot = _Dot()
        self._rows_box = QVBoxLayout()
        self._rows_box.setSpacing(0)
        self._lan_url = ""
        self.encryption = EncryptionRow()
        # A low window scrolls; else rows would be drawn over each other where there are many addresses.
        box = scrolled(self, sideways=False)
        box.setContentsMargins(20, 14, 20, 14)
        box.setSpacing(12)
        self.tabs.setMinimumHeight(LOWEST_TABS)
        self.tabs.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Ignored)
        box.addWidget(self.banner)
        box.addWidget(self._door_card())
        box.addWidget(self.charts)
        box.addWidget(self.tabs, 1)
        self.switch.asked.connect(self._on_asked)
        self.port.valueChanged.connect(self._on_port)
        self.banner.acted.connect(self._on_use_free_port)
        self.key_row.renew_asked.connect(server.renew_key)
        for row in (self.key_row, self.encryption):
            row.copied.connect(lambda what: self.status.emit("ok", tr("{what} is on the clipboard.").format(what=what)))
        self.tabs.status.connect(self.status)
        server.changed.connect(self.refresh)
        shelf.changed.connect(self._say)
        self.refresh()

    def _door_card(self) -> Card:
        card = Card()
        head = QHBoxLayout()
        head.setSpacing(10)
        head.addWidget(self._dot)
        head.addWidget(self.title, 1)
        head.addWidget(label(tr("Port"), "body2"))
        head.addWidget(self.port)
        head.addSpacing(6)
        head.addWidget(self.switch)
        row = QHBoxLayout(card)
        row.setContentsMargins(18, 14, 18, 10)
        row.setSpacing(20)
        box = QVBoxLayout()
        box.setSpacing(0)
        row.addLayout(box, 1)
        row.addWidget(self.code)
        box.addLayout(head)
        box.addSpacing(4)
        box.addWidget(self.sentence)
        box.addSpacing(10)
        box.addLayout(self._rows_box)
        box.addWidget(self.key_row)
        box.addWidget(self.encryption)
        box.addStretch(1)
        return card

    # -- the switch ------------------------------------------------------------------------------------------------
    def _on_asked(self, value: str) -> None:
        self.banner.hide()
        scope = ServerScope(value)
        if scope is not ServerScope.OFF:
            self._wanted_scope = scope
        self._server.switch(scope, self.port.value())

    def _on_port(self, port: int) -> None:
        """Another port while it runs: the listener moves there, models stay as they are."""
        if self._server.is_running and self._server.target is None and port != self._server.state.port:
            self._on_asked(str(self._server.state.scope))

    def _on_use_free_port(self) -> None:
        if self._free_port is not None:
            self.port.setValue(self._free_port)
            self._on_asked(str(self._wanted_scope))

    def show_failure(self, error: BaseException) -> None:
        """What the server could not do, and another port where that is what it lacked."""
        text = error_text(error)
        free = error.free_port if isinstance(error, ServerStartError) else None
        problem = self._server.state.problem
        if free is None and problem is not None:
            free = problem.free_port
        self._free_port = free
        sentence, second, action = text.sentence, text.advice, ""
        if isinstance(error, EngineError) and error.code == "port_in_use":
            sentence = tr("Port {port} is in use by another program.").format(port=self.port.value())
            second = (
                tr("{free} is free. The server stays off until you choose.").format(free=free) if free else text.advice
            )
            action = tr("Use {free}").format(free=free) if free else ""
        self.banner.say("error", sentence, second, action)
        self.status.emit("error", sentence)

    # -- what is shown ---------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Show the server's newest state; the switch stands where the server is, not where it was asked to go."""
        server, state = self._server, self._server.state
        running = state.phase is ServerPhase.RUNNING
        value = str(state.scope) if running else "off"
        self.switch.set_value(value, str(server.target) if server.target is not None else "")
        self.port.setEnabled(server.target is None)
        if running and state.port >= 1024 and self.port.value() != state.port:
            self.port.blockSignals(True)
            self.port.setValue(state.port)
            self.port.blockSignals(False)
        self._dot.hue = ("lan" if state.scope is ServerScope.NETWORK else "accent") if running else ""
        self._dot.update()
        self._say()
        self._show_addresses()
        self.charts.setVisible(running)
        self._watch()
        self.tabs.requests.model.set_refused(state.refusals)

    def _say(self) -> None:
        state = self._server.state
        answering = sum(card.phase in ANSWERING for card in self._shelf.cards)
        models = {0: tr("No model is open yet, so nothing answers."), 1: tr("One model answers.")}.get(
            answering, tr("{count} models answer.").format(count=answering)
        )
        if self._server.target is not None:
            stopping = self._server.target is ServerScope.OFF
            title = tr("Switching off") if stopping else tr("Switching on")
            sentence = tr("Requests already taken are answered first.") if stopping else tr("Checking that it answers.")
        elif state.phase is not ServerPhase.RUNNING:
            title = tr("The server is off")
            sentence = tr("Nothing can reach your models from outside this window. Move the switch to let programs in.")
        elif state.scope is ServerScope.NETWORK:
            title = tr("Serving the network")
            keyed = tr("Colleagues need the key") if state.key_required else tr("Nobody needs a key")
            sentence = tr("{models} {keyed}; this window never waits for them.").format(models=models, keyed=keyed)
        else:
            title = tr("Serving this computer")
            sentence = tr("{models} Only programs on this computer can ask; the network cannot.").format(models=models)
        self.title.setText(title)
        self.sentence.setText(sentence)

    def _show_addresses(self) -> None:
        state = self._server.state
        running = state.phase is ServerPhase.RUNNING
        urls = state.urls if running else ()
        if [(row.url, row.label_text) for row in self.rows] != [(u.url, u.label) for u in urls]:
            for row in self.rows:
                row.hide()
                row.deleteLater()
            self.rows = []
            for url in urls:
                row = AddressRow(url)
                row.copied.connect(
                    lambda what: self.status.emit("ok", tr("{what} is on the clipboard.").format(what=what))
                )
                row.code_asked.connect(self._on_code_asked)
                self._rows_box.addWidget(row)
                self.rows.append(row)
        network = running and state.scope is ServerScope.NETWORK
        lan_urls = [url.url for url in urls if not url.is_loopback]
        if self._lan_url not in lan_urls:
            self._lan_url = lan_urls[0] if lan_urls else ""
        keyed = network and state.key_required
        self.key_row.show_key(self._server.key if keyed else None, self._server.secret, self._lan_url)
        self.code.show_url(self._lan_url if network else "", self._server.secret if keyed else "")
        self.encryption.show_certificate(state.certificate)
        self.encryption.setVisible(network)

    def _on_code_asked(self, url: str) -> None:
        self._lan_url = url
        self._show_addresses()

    # -- how busy it is --------------------------------------------------------------------------------------------
    def show_requests(self, records: Sequence[RequestRecord]) -> None:
        """Those that the engine had of late, beside those that the door turned away."""
        self.tabs.requests.model.set_served(records)

    def show_settings(self, settings: Settings) -> None:
        self.charts.set_bounds(settings.limits.waiting_requests, settings.limits.max_batch_size)
        self.tabs.limits.show_settings(settings)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._watch()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._watch()

    def _watch(self) -> None:
        """Count only while somebody looks and there is something to count."""
        self.meter.run(self.isVisible() and self._server.is_running)
