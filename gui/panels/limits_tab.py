"""How much the server takes. A change of the door reopens the listener; models stay loaded."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QSpinBox, QWidget

from engine.settings import Settings
from gui.language import tr
from gui.panels.setting_row import Change, ask_change, scrolled, setting_row
from gui.widgets.banner import Banner
from gui.widgets.basics import line, spin_box
from gui.widgets.segmented import Segmented

MB = 1 << 20


class LimitsTab(QWidget):
    """Each change is validated and kept at once. ``status(tone, text)``."""

    status = Signal(str, str)

    def __init__(self, settings: Settings, change: Change) -> None:
        super().__init__()
        self._change = change
        self.banner = Banner()
        self.awake = Segmented((("no", tr("No"), ""), ("yes", tr("Yes"), "accent")), tr("Stay awake while serving"))
        self.body = self._spin(1, 4096, tr("Largest request"), " MB")
        self.inside = self._spin(1, 100_000, tr("Requests at once"))
        self.connections = self._spin(1, 10_000, tr("Connections of one address"))
        self.drain = self._spin(1, 600, tr("Patience when switching off"), " s")
        self.places = self._spin(1, 100_000, tr("Places in line"))
        self.share = self._spin(1, 100, tr("The network's share"), " %")
        self.batch = self._spin(1, 1024, tr("Requests in one run"))
        self._lay_out()
        self.show_settings(settings)
        self._connect()

    def _lay_out(self) -> None:
        rows = scrolled(self)
        rows.addWidget(self.banner)
        for number, (title, words, control) in enumerate((
            (
                tr("Stay awake while serving"), tr("The computer does not fall asleep while the door is open."),
                self.awake,
            ),
            (tr("Largest request"), tr("What is larger is refused before it is read."), self.body),
            (tr("Requests at once"), tr("Beyond, callers are told to come back shortly."), self.inside),
            (tr("Connections of one address"), tr("So that one caller cannot take them all."), self.connections),
            (tr("Patience when switching off"), tr("So long are open requests still answered."), self.drain),
            (tr("Places in line"), tr("For each model."), self.places),
            (
                tr("The network's share"), tr("Of those places; the rest stays yours."),
                self.share,
            ),
            (
                tr("Requests in one run"), tr("At most so many are asked of a model together."),
                self.batch,
            ),
        )):  # fmt: skip
            if number:
                rows.addWidget(line())
            rows.addLayout(setting_row(title, words, control))
        rows.addStretch(1)

    @staticmethod
    def _spin(low: int, high: int, name: str, suffix: str = "") -> QSpinBox:
        box = spin_box(low, high, name, 110)
        box.setSuffix(suffix)
        return box

    def show_settings(self, settings: Settings) -> None:
        server, limits = settings.server, settings.limits
        for box, value in (
            (self.body, server.body_bytes // MB), (self.inside, server.requests_inside),
            (self.connections, server.connections_per_address), (self.drain, round(server.drain_s)),
            (self.places, limits.waiting_requests), (self.share, round(limits.lan_share * 100)),
            (self.batch, limits.max_batch_size),
        ):  # fmt: skip
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self.awake.set_value("yes" if server.keep_awake else "no")

    def _connect(self) -> None:
        self.awake.asked.connect(lambda value: self._ask("server", keep_awake=value == "yes"))
        self.body.valueChanged.connect(lambda mb: self._ask("server", body_bytes=mb * MB))
        self.inside.valueChanged.connect(lambda n: self._ask("server", requests_inside=n))
        self.connections.valueChanged.connect(lambda n: self._ask("server", connections_per_address=n))
        self.drain.valueChanged.connect(lambda s: self._ask("server", drain_s=float(s)))
        self.places.valueChanged.connect(lambda n: self._ask("limits", waiting_requests=n))
        self.share.valueChanged.connect(lambda percent: self._ask("limits", lan_share=percent / 100))
        self.batch.valueChanged.connect(lambda n: self._ask("limits", max_batch_size=n))

    def _ask(self, section: str, **values: Any) -> None:
        ask_change(self._change, self.banner, section, **values)
