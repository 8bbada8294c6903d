"""Where the network is served: on which interfaces, and whether what is sent is encrypted."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from engine.serving_types import InterfaceKind, NetworkInterface
from engine.settings import Settings
from gui.icons import IconLabel
from gui.language import mark, tr
from gui.panels.setting_row import Change, ask_change, scrolled, setting_row
from gui.server_bridge import ServerBridge
from gui.widgets.banner import Banner
from gui.widgets.basics import Button, ElidedLabel, label, line
from gui.widgets.segmented import Segmented, translated

KINDS = {
    InterfaceKind.NETWORK: mark("network"),
    InterfaceKind.SELF_ASSIGNED: mark("no router answered it"),
    InterfaceKind.VPN: mark("VPN or modem: others far away could reach it"),
    InterfaceKind.VIRTUAL: mark("virtual machines and containers of this computer"),
    InterfaceKind.AWAY: mark("not connected now; served once it is"),
}
ENCRYPTION = (
    ("off", mark("Off"), ""),
    ("self-signed", mark("Made here"), "accent"),
    ("own", mark("Your certificate"), "accent"),
)


class NetworkTab(QWidget):
    """Interfaces are looked at anew whenever the tab is. A change reopens the listener; models stay loaded.
    ``status(tone, text)``."""

    status = Signal(str, str)

    def __init__(self, server: ServerBridge, settings: Settings, change: Change) -> None:
        super().__init__()
        self._server, self._change = server, change
        self._interfaces: list[str] = settings.server.interfaces
        self._tls: str = settings.server.tls
        self.rows: list[InterfaceLine] = []
        self.banner = Banner()
        self.every = Button(tr("Follow every network"), "refresh", "flat", small=True)
        self.every.setToolTip(tr("Serve each network this computer joins, and no VPN."))
        self.encryption = Segmented(translated(ENCRYPTION), tr("Encryption"))
        self.certificate = FileRow(tr("Certificate"), settings.server.tls_certificate)
        self.key = FileRow(tr("Its key"), settings.server.tls_key)
        self._files = QWidget()
        self._rows = QVBoxLayout()
        self._rows.setSpacing(0)
        self._lay_out()
        self.every.clicked.connect(lambda: self._choose([]))
        self.encryption.asked.connect(self._on_encryption)
        self.certificate.chosen.connect(self._on_file)
        self.key.chosen.connect(self._on_file)
        server.interfaces_read.connect(self._show)
        server.changed.connect(self._look)
        self.encryption.set_value(self._tls)
        self._files.setVisible(self._tls == "own")
        self._show(())

    def _lay_out(self) -> None:
        files = QVBoxLayout(self._files)
        files.setContentsMargins(0, 0, 0, 8)
        files.setSpacing(6)
        files.addWidget(self.certificate)
        files.addWidget(self.key)
        rows = scrolled(self)
        rows.addWidget(self.banner)
        rows.addLayout(
            setting_row(
                tr("Networks to serve"),
                tr("A chosen one is served whenever it is there, and nothing else."),
                self.every,
            )
        )
        rows.addLayout(self._rows)
        rows.addSpacing(6)
        rows.addWidget(line())
        rows.addLayout(
            setting_row(
                tr("Encryption"),
                tr("https on the network, with a certificate made here or with yours."),
                self.encryption,
            )
        )
        rows.addWidget(self._files)
        rows.addStretch(1)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._look()

    def _look(self) -> None:
        if self.isVisible():
            self._server.read_interfaces()

    # -- interfaces ------------------------------------------------------------------------------------------------
    def _show(self, interfaces: tuple[NetworkInterface, ...]) -> None:
        self.every.setVisible(bool(self._interfaces))
        if interfaces == tuple(row.shows for row in self.rows):
            return
        for row in self.rows:
            row.hide()
            row.deleteLater()
        self.rows = []
        for interface in interfaces:
            row = InterfaceLine(interface)
            row.box.clicked.connect(self._on_box)
            self._rows.addWidget(row)
            self.rows.append(row)

    def _on_box(self) -> None:
        chosen = [row.shows.name for row in self.rows if row.box.isChecked()]
        if not chosen:
            self.banner.say(
                "warn",
                tr("One network has to stay chosen."),
                tr("To serve none, move the switch above to This computer."),
            )
            self._server.read_interfaces()
            for row in self.rows:
                row.box.setChecked(row.shows.chosen)
            return
        self._choose(chosen)

    def _choose(self, names: list[str]) -> None:
        if ask_change(self._change, self.banner, "server", interfaces=names):
            self._interfaces = names
            self._server.read_interfaces()

    # -- encryption ------------------------------------------------------------------------------------------------
    def _on_encryption(self, value: str) -> None:
        self.banner.hide()
        self._files.setVisible(value == "own")
        if value == "own" and not (self.certificate.path and self.key.path):
            self.encryption.set_value(value)
            self.status.emit("", tr("Choose the certificate and its key; until then nothing changes."))
            return
        self._ask_encryption(value)

    def _on_file(self) -> None:
        if self.certificate.path and self.key.path:
            self._ask_encryption("own")

    def _ask_encryption(self, value: str) -> None:
        values: dict[str, object] = {"tls": value}
        if value == "own":
            values |= {"tls_certificate": self.certificate.path, "tls_key": self.key.path}
        if ask_change(self._change, self.banner, "server", **values):
            self._tls = value
        self.encryption.set_value(self._tls)


class InterfaceLine(QWidget):
    """One interface: whether it is served, its name, its addresses, and what it leads to."""

    def __init__(self, interface: NetworkInterface) -> None:
        super().__init__()
        self.shows = interface
        self.box = QCheckBox(interface.name)
        self.box.setChecked(interface.chosen)
        words = tr(KINDS[interface.kind])
        self.box.setAccessibleName(
            tr("Serve {name}, {addresses}, {kind}").format(
                name=interface.name, addresses=", ".join(interface.addresses), kind=words
            )
        )
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 5, 0, 5)
        row.setSpacing(12)
        row.addWidget(self.box)
        row.addWidget(label(", ".join(interface.addresses), "body2"))
        row.addStretch(1)
        odd = interface.kind is not InterfaceKind.NETWORK
        if odd:
            row.addWidget(IconLabel("circle-alert", "warn" if interface.chosen else "text3"))
        row.addWidget(label(words, "small"))


class FileRow(QWidget):
    """A PEM file that a person chooses. ``chosen`` after a choice."""

    chosen = Signal()

    def __init__(self, title: str, path: str) -> None:
        super().__init__()
        self.path = path
        self._title = title
        self.field = QLineEdit(path)
        self.field.setReadOnly(True)
        self.field.setPlaceholderText(tr("A PEM file"))
        self.field.setAccessibleName(title)
        self.button = Button(tr("Choose…"), small=True, name=tr("Choose the file: {title}").format(title=title))
        self.button.clicked.connect(self._ask)
        name = ElidedLabel(title, "body2")
        name.setFixedWidth(110)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        row.addWidget(name)
        row.addWidget(self.field, 1)
        row.addWidget(self.button)

    def _ask(self) -> None:
        dialog = QFileDialog(self, self._title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.setNameFilters([tr("PEM files (*.pem *.crt *.cer *.key)"), tr("All files (*)")])
        dialog.fileSelected.connect(self.take)
        dialog.open()

    def take(self, path: str) -> None:
        self.path = str(Path(path))
        self.field.setText(self.path)
        self.chosen.emit()
