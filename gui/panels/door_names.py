"""Under which names the door answers, and to which web pages: lists that a person types."""

from __future__ import annotations

from typing import Any

from PySide6.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from engine.settings import Settings
from gui.language import tr
from gui.panels.setting_row import Change, ask_change, setting_row
from gui.widgets.banner import Banner
from gui.widgets.basics import line


class DoorNames(QWidget):
    """Each list is validated and kept when the keyboard leaves it; the listener is opened anew, models stay loaded."""

    def __init__(self, settings: Settings, change: Change) -> None:
        super().__init__()
        self._change = change
        self.banner = Banner()
        self.hosts = self._names(tr("Other names of this computer"), "models.lab.example")
        self.origins = self._names(tr("Web pages that may ask"), "https://lab.example")
        self._hosts, self._origins = settings.server.allowed_hosts, settings.server.cors_origins
        self.hosts.setText(", ".join(self._hosts))
        self.origins.setText(", ".join(self._origins))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(self.banner)
        box.addWidget(line())
        hosts, pages = (
            tr("Beside its own, with commas between."),
            tr("Exact addresses of other sites; none by default."),
        )
        box.addLayout(setting_row(tr("Other names of this computer"), hosts, self.hosts))
        box.addWidget(line())
        box.addLayout(setting_row(tr("Web pages that may ask"), pages, self.origins))
        self.hosts.editingFinished.connect(self._on_hosts)
        self.origins.editingFinished.connect(self._on_origins)

    @staticmethod
    def _names(name: str, example: str) -> QLineEdit:
        field = QLineEdit()
        field.setAccessibleName(name)
        field.setPlaceholderText(example)
        field.setFixedWidth(320)
        return field

    def _on_hosts(self) -> None:
        names = _listed(self.hosts.text())
        if names != self._hosts and self._ask(allowed_hosts=names):
            self._hosts = names

    def _on_origins(self) -> None:
        names = _listed(self.origins.text())
        if names != self._origins and self._ask(cors_origins=names):
            self._origins = names

    def _ask(self, **values: Any) -> bool:
        return ask_change(self._change, self.banner, "server", **values)


def _listed(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]
