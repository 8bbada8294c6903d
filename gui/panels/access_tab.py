"""Who may ask: the named keys, the addresses shut out, and what the server answers to."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QGuiApplication, QShowEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from engine.serving_types import CertificateInfo, KeyInfo
from engine.settings import Settings
from gui import theme
from gui.error_text import error_text
from gui.icons import IconLabel
from gui.language import tr
from gui.model_shelf import ModelShelf
from gui.panels.door_names import DoorNames
from gui.panels.setting_row import Change, scrolled
from gui.request_code import as_curl
from gui.server_bridge import ServerBridge
from gui.widgets.banner import Banner
from gui.widgets.basics import Button, Card, ElidedLabel, label, line, spin_box
from gui.words import moment_words

MOST_ROWS = 200
"""Beyond, the command line lists them."""


class AccessTab(QWidget):
    """``status(tone, text)``. Keys are read anew whenever the tab is looked at."""

    status = Signal(str, str)

    def __init__(self, server: ServerBridge, shelf: ModelShelf, settings: Settings, change: Change) -> None:
        super().__init__()
        self._server, self._shelf = server, shelf
        self._removed = ""
        self.rows: list[KeyLine | BlockedLine] = []
        self.name = QLineEdit()
        self.name.setPlaceholderText(tr("Whose key? lab phones, notebook ana"))
        self.name.setMaxLength(40)
        self.name.setAccessibleName(tr("Name of the new key"))
        self.models = QComboBox()
        self.models.setAccessibleName(tr("Models the new key may ask"))
        self.per_minute = spin_box(0, 100_000, tr("Requests a minute of the new key"), 110)
        self.per_minute.setSpecialValueText(tr("no limit"))
        self.make_button = Button(tr("Make a key"), "plus", small=True)
        self.made = MadeKey()
        self.banner = Banner()
        self.none = label(
            tr("No keys of others yet. Each person or program can have one of its own."), "body2", wrap=True
        )
        self.names = DoorNames(settings, change)
        self._rows = QVBoxLayout()
        self._rows.setSpacing(0)
        self._lay_out()
        self.name.returnPressed.connect(self._make)
        self.make_button.clicked.connect(self._make)
        self.name.textChanged.connect(self._on_name)
        self.made.copied.connect(
            lambda what: self.status.emit("ok", tr("{what} is on the clipboard.").format(what=what))
        )
        self.banner.acted.connect(self._undo)
        server.keys_changed.connect(self._show)
        server.changed.connect(self._show)
        server.key_made.connect(self._on_made)
        server.key_refused.connect(self._on_refused)
        server.key_removed.connect(self._on_removed)
        shelf.changed.connect(self._show_models)
        self._show_models()
        self._on_name("")
        self._show()

    def _lay_out(self) -> None:
        form = QHBoxLayout()
        form.setSpacing(8)
        form.addWidget(self.name, 1)
        form.addWidget(self.models)
        form.addWidget(self.per_minute)
        form.addWidget(label(tr("a minute"), "small"))
        form.addWidget(self.make_button)
        box = scrolled(self)
        box.setContentsMargins(16, 12, 16, 8)
        box.setSpacing(10)
        box.addLayout(form)
        box.addWidget(self.banner)
        box.addWidget(self.made)
        box.addWidget(self.none)
        box.addLayout(self._rows)
        box.addWidget(self.names)
        box.addStretch(1)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._server.read_keys()

    # -- making and ending -----------------------------------------------------------------------------------------
    def _make(self) -> None:
        name = " ".join(self.name.text().split())
        if name:
            model = self.models.currentData()
            self._server.add_key(name, (model,) if model else None, self.per_minute.value() or None)

    def _on_name(self, text: str) -> None:
        named = bool(text.strip())
        self.make_button.setEnabled(named)
        self.make_button.setToolTip("" if named else tr("Give the key a name first."))

    def _on_made(self, key: KeyInfo) -> None:
        self.banner.hide()
        self.name.clear()
        self.per_minute.setValue(0)
        state = self._server.state
        url = next((url.url for url in state.urls if not url.is_loopback), "")
        self.made.show_key(key, url, key.models[0] if key.models else self._first_model(), state.certificate)
        self.status.emit("ok", tr("The key “{name}” lets in from now on.").format(name=key.name))

    def _on_refused(self, error: BaseException) -> None:
        text = error_text(error)
        self._removed = ""
        self.banner.say("error", text.sentence, text.advice)

    def _on_removed(self, name: str) -> None:
        if self.made.name == name:
            self.made.hide()
        self._removed = name
        self.banner.say(
            "accent",
            tr("The key “{name}” has ended.").format(name=name),
            tr("Whoever has it is not let in any more."),
            tr("Undo"),
        )

    def _undo(self) -> None:
        self.banner.hide()
        if self._removed:
            self._server.restore_key(self._removed)

    # -- what is shown ---------------------------------------------------------------------------------------------
    def _first_model(self) -> str:
        return next((card.key for card in self._shelf.cards if not card.token), "MODEL")

    def _show_models(self) -> None:
        names = [card.key for card in self._shelf.cards if not card.token]
        shown = [self.models.itemData(i) for i in range(1, self.models.count())]
        if shown == names and self.models.count():
            return
        chosen = self.models.currentData()
        self.models.clear()
        self.models.addItem(tr("all models"), "")
        # One that is closed meanwhile stays chosen: a key meant for it must not become one for all.
        for name in dict.fromkeys([*names, *([chosen] if chosen else [])]):
            self.models.addItem(name, name)
        self.models.setCurrentIndex(max(0, self.models.findData(chosen)))

    def _show(self) -> None:
        state = self._server.state
        wanted: list[tuple[object, ...]] = [
            ("key", info, info.name in state.paused_keys) for info in self._server.keys[:MOST_ROWS]
        ] + [("blocked", address) for address in state.blocked]
        self.none.setVisible(not wanted)
        if wanted == [row.shows for row in self.rows]:
            return
        for row in self.rows:
            row.hide()
            row.deleteLater()
        self.rows = []
        for what in wanted:
            row = self._row(what)
            self._rows.addWidget(row)
            self.rows.append(row)

    def _row(self, what: tuple[object, ...]) -> KeyLine | BlockedLine:
        server = self._server
        if what[0] == "blocked":
            address = str(what[1])
            blocked = BlockedLine(address)
            blocked.button.clicked.connect(lambda: server.block(address, False))
            return blocked
        info, paused = what[1], bool(what[2])
        assert isinstance(info, KeyInfo)
        row = KeyLine(info, paused)
        row.pause_button.clicked.connect(lambda: server.pause_key(info.name, not paused))
        row.remove_button.clicked.connect(lambda: server.remove_key(info.name))
        return row


class MadeKey(Card):
    """A key that was just made, shown this once. ``copied(what)``."""

    copied = Signal(str)

    def __init__(self) -> None:
        super().__init__("sunken")
        self.name = ""
        self._curl = ""
        self._title = ElidedLabel("", "strong")
        self.secret = ElidedLabel("")
        self.secret.setStyleSheet(f'font-family: "{theme.fixed_font().family()}";')
        self.copy_button = Button(tr("Copy"), "copy", "primary", small=True, name=tr("Copy the new key"))
        self.curl_button = Button(tr("Copy as curl"), "code", "flat", small=True)
        done = Button(tr("Done"), small=True, name=tr("Hide the new key"))
        self.copy_button.clicked.connect(lambda: self._copy(self.secret.text(), tr("The key")))
        self.curl_button.clicked.connect(lambda: self._copy(self._curl, tr("A curl line with the key")))
        done.clicked.connect(self.hide)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.secret, 1)
        row.addWidget(self.copy_button)
        row.addWidget(self.curl_button)
        row.addWidget(done)
        box = QVBoxLayout(self)
        box.setContentsMargins(14, 10, 10, 10)
        box.setSpacing(6)
        box.addWidget(self._title)
        box.addWidget(label(tr("Shown this once. Deskside keeps only its fingerprint."), "small"))
        box.addLayout(row)
        self.hide()

    def show_key(self, key: KeyInfo, url: str, model: str, certificate: CertificateInfo | None = None) -> None:
        self.name = key.name
        secret = key.secret or ""
        self._title.setText(tr("Key for “{name}”").format(name=key.name))
        self.secret.setText(secret)
        # It is on the screen beside the line, and whoever copies the line wants it to run.
        self._curl = as_curl(url, model, keyed=True, key=secret, certificate=certificate)
        self.curl_button.setVisible(bool(url))
        self.show()

    def _copy(self, text: str, what: str) -> None:
        QGuiApplication.clipboard().setText(text)
        self.copied.emit(what)


class KeyLine(QWidget):
    """One key: whose, what it may, when it was used, pause and end."""

    def __init__(self, info: KeyInfo, paused: bool) -> None:
        super().__init__()
        self.shows = ("key", info, paused)
        self.words = label(key_words(info, paused), "small")
        words = tr("Let {name} ask again") if paused else tr("Pause {name}")
        icon = "play" if paused else "pause"
        self.pause_button = Button("", icon, "flat", small=True, name=words.format(name=info.name))
        self.remove_button = Button("", "x", "flat", small=True, name=tr("End the key {name}").format(name=info.name))
        row = QHBoxLayout()
        row.setContentsMargins(0, 4, 0, 4)
        row.setSpacing(10)
        row.addWidget(IconLabel("key", "text3" if paused else "text2"))
        row.addWidget(ElidedLabel(info.name, "strong"))
        row.addWidget(label(tr("ends in {ends}").format(ends=info.ends), "small"))
        row.addStretch(1)
        row.addWidget(self.words)
        row.addWidget(self.pause_button)
        row.addWidget(self.remove_button)
        _ruled(self, row)


class BlockedLine(QWidget):
    """An address that is shut out, and the way back."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.shows = ("blocked", address)
        self.button = Button(tr("Answer again"), small=True, name=tr("Answer {address} again").format(address=address))
        row = QHBoxLayout()
        row.setContentsMargins(0, 4, 0, 4)
        row.setSpacing(10)
        row.addWidget(IconLabel("ban", "error"))
        row.addWidget(ElidedLabel(address, "strong"))
        row.addWidget(label(tr("blocked until Deskside is closed"), "small"))
        row.addStretch(1)
        row.addWidget(self.button)
        _ruled(self, row)


def _ruled(widget: QWidget, row: QHBoxLayout) -> None:
    box = QVBoxLayout(widget)
    box.setContentsMargins(0, 0, 0, 0)
    box.setSpacing(0)
    box.addWidget(line())
    box.addLayout(row)


def key_words(info: KeyInfo, paused: bool = False) -> str:
    """``asks wine, 60 a minute, used 27 Nov 14:02``"""
    models = tr("asks all models") if info.models is None else tr("asks {models}").format(models=", ".join(info.models))
    if "infer" not in info.rights:
        models = tr("reads only")
    parts = [tr("paused")] if paused else []
    parts.append(models)
    if info.per_minute is not None:
        parts.append(tr("{per_minute} a minute").format(per_minute=info.per_minute))
    if info.at_once is not None:
        parts.append(tr("{at_once} at once").format(at_once=info.at_once))
    parts.append(
        tr("not used yet") if info.last_used is None else tr("used {when}").format(when=moment_words(info.last_used))
    )
    return ", ".join(parts)
