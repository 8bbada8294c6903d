"""Addresses of the server and its key, each with what can be copied."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from engine.serving_types import KeyInfo, ServerUrl
from gui import theme
from gui.icons import IconLabel
from gui.language import tr
from gui.widgets.basics import Button, ElidedLabel, label, line
from gui.words import moment_words

ROW = 38


def _fixed(text: str) -> ElidedLabel:
    shown = ElidedLabel(text)
    family = theme.fixed_font().family()
    shown.setStyleSheet(f'font-family: "{family}";')
    return shown


class AddressRow(QWidget):
    """One URL, whose it is, its QR code and Copy. ``copied(what)``, ``code_asked(url)``."""

    copied = Signal(str)
    code_asked = Signal(str)

    def __init__(self, url: ServerUrl) -> None:
        super().__init__()
        self.url, self.label_text = url.url, url.label
        self.copy_button = Button("", "copy", "flat", small=True, name=tr("Copy {url}").format(url=url.url))
        self.copy_button.clicked.connect(self._copy)
        self.code_button = Button(
            "", "qr-code", "flat", small=True, name=tr("Show {url} as a QR code").format(url=url.url)
        )
        if url.is_loopback:
            self.code_button.hide()  # never shown here: without a parent yet, it would be a window of its own
        self.code_button.clicked.connect(lambda: self.code_asked.emit(self.url))
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        row.addWidget(IconLabel("monitor" if url.is_loopback else "ethernet", "text2"))
        row.addWidget(_fixed(url.url), 1)
        row.addWidget(label(tr(url.label), "body2"))
        row.addWidget(self.code_button)
        row.addWidget(self.copy_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(line())
        box.addLayout(row, 1)
        self.setFixedHeight(ROW)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.url)
        self.copied.emit(tr("The address"))


class KeyRow(QWidget):
    """The key: shown while this window knows it, else by its last characters. ``renew_asked`` after a second click."""

    renew_asked = Signal()
    copied = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._secret = ""
        self._url = ""
        self.words = label("", "strong")
        self.made = label("", "small")
        self.secret_label = _fixed("")
        self.secret_label.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.copy_button = Button("", "copy", "flat", small=True, name=tr("Copy the key"))
        self.copy_button.clicked.connect(self._copy_key)
        self.link_button = Button(tr("Copy link with key"), "link", small=True)
        self.link_button.clicked.connect(self._copy_link)
        self.renew_button = Button(tr("New key…"), small=True)
        self.renew_button.clicked.connect(lambda: self._ask(True))
        self._question = QWidget()
        question = QHBoxLayout(self._question)
        question.setContentsMargins(0, 0, 0, 0)
        question.setSpacing(8)
        self.confirm_button = Button(tr("Make a new key"), small=True)
        self.keep_button = Button(tr("Keep this one"), kind="primary", small=True)
        self.confirm_button.clicked.connect(self._on_confirmed)
        self.keep_button.clicked.connect(lambda: self._ask(False))
        question.addWidget(label(tr("The old key ends at once."), "small"))
        question.addWidget(self.confirm_button)
        question.addWidget(self.keep_button)
        row = QHBoxLayout()
        row.setContentsMargins(0, 4, 0, 4)
        row.setSpacing(10)
        row.addWidget(IconLabel("key", "text2"), 0, Qt.AlignmentFlag.AlignVCenter)
        row.addWidget(self.words)
        row.addWidget(self.secret_label, 1)
        row.addWidget(self.copy_button)
        row.addStretch(0)
        row.addWidget(self.made)
        row.addWidget(self.link_button)
        row.addWidget(self.renew_button)
        row.addWidget(self._question)
        self._question.hide()
        self.once = label(tr("The key is shown until this window closes. Copy it now."), "hint")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(line())
        box.addLayout(row)
        hint = QHBoxLayout()
        hint.setContentsMargins(26, 0, 0, 8)
        hint.addWidget(self.once)
        box.addLayout(hint)

    def show_key(self, key: KeyInfo | None, secret: str, lan_url: str) -> None:
        """Show ``key`` (None hides the row); ``secret`` is "" once nobody but its holder knows it."""
        self.setVisible(key is not None)
        self._secret, self._url = secret, lan_url
        if key is None:
            self._ask(False)
            return
        known = bool(secret)
        self.words.setText(tr("Key") if known else tr("Key, ends in {ends}").format(ends=key.ends))
        self.secret_label.setText(secret)
        self.secret_label.setVisible(True)
        self.copy_button.setVisible(known)
        self.once.setVisible(known)
        self.link_button.setVisible(known and bool(lan_url))
        made = moment_words(key.created_at)
        self.made.setText("" if known else tr("made {made}").format(made=made))
        self.made.setVisible(not known)

    def _ask(self, asking: bool) -> None:
        self._question.setVisible(asking)
        self.renew_button.setVisible(not asking)
        self.link_button.setVisible(not asking and bool(self._secret) and bool(self._url))

    def _on_confirmed(self) -> None:
        self._ask(False)
        self.renew_asked.emit()

    def _copy_key(self) -> None:
        QGuiApplication.clipboard().setText(self._secret)
        self.copied.emit(tr("The key"))

    def _copy_link(self) -> None:
        # The fragment never leaves the browser: it is in no request line and in no log.
        QGuiApplication.clipboard().setText(f"{self._url}/#key={self._secret}")
        self.copied.emit(tr("The link with the key"))
