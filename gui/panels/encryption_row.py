"""Below the addresses: whether what is sent can be read on the way, and how a caller knows that it is us."""

from __future__ import annotations

from datetime import datetime

from PySide6.QtCore import Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from engine.serving_types import CertificateInfo
from gui import theme
from gui.icons import IconLabel
from gui.language import tr
from gui.widgets.basics import Button, label, line


class EncryptionRow(QWidget):
    """``copied(what)``."""

    copied = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._certificate: CertificateInfo | None = None
        self._icon = IconLabel("lock-open", "warn")
        self.words = label("", "small", wrap=True)
        self.fingerprint = label("")
        self.fingerprint.setStyleSheet(f'font-family: "{theme.fixed_font().family()}";')
        self.fingerprint_button = Button("", "copy", "flat", small=True, name=tr("Copy the fingerprint"))
        self.curl_button = Button(tr("Copy a line that checks it"), "code", "flat", small=True)
        self.notice = label("", "small", tone="warn", wrap=True)
        self.fingerprint_button.clicked.connect(lambda: self._copy(tr("The fingerprint"), "fingerprint"))
        self.curl_button.clicked.connect(lambda: self._copy(tr("The curl line"), "curl"))
        self._details = QWidget()
        details = QHBoxLayout(self._details)
        details.setContentsMargins(26, 0, 0, 4)
        details.setSpacing(8)
        details.addWidget(self.fingerprint)
        details.addWidget(self.fingerprint_button)
        details.addStretch(1)
        row = QHBoxLayout()
        row.setContentsMargins(0, 10, 0, 4)
        row.setSpacing(10)
        row.addWidget(self._icon)
        row.addWidget(self.words, 1)
        row.addWidget(self.curl_button)
        notice = QHBoxLayout()
        notice.setContentsMargins(26, 0, 0, 4)
        notice.addWidget(self.notice)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(line())
        box.addLayout(row)
        box.addWidget(self._details)
        box.addLayout(notice)
        self.show_certificate(None)

    def show_certificate(self, certificate: CertificateInfo | None) -> None:
        """None: nothing is encrypted."""
        self._certificate = certificate
        self._icon.set_icon(*(("shield-check", "ok") if certificate is not None else ("lock-open", "warn")))
        self.words.setText(encryption_words(certificate))
        for widget in (self._details, self.curl_button):
            widget.setVisible(certificate is not None)
        notices = certificate.notices if certificate is not None else ()
        self.notice.setText(" ".join(notices))
        self.notice.setVisible(bool(notices))
        self.fingerprint.setText(_in_two_lines(certificate.fingerprint) if certificate is not None else "")

    def _copy(self, what: str, field: str) -> None:
        if self._certificate is not None:
            QGuiApplication.clipboard().setText(str(getattr(self._certificate, field)))
            self.copied.emit(what)


def _in_two_lines(fingerprint: str) -> str:
    """All of it has to be seen to be compared; 95 characters in one line are wider than the card."""
    half = (len(fingerprint) + 1) // 2
    return f"{fingerprint[:half]}\n{fingerprint[half:]}"


def encryption_words(certificate: CertificateInfo | None) -> str:
    if certificate is None:
        return tr(
            "Not encrypted: whoever shares this network could read what is sent. Use it where you trust the network."
        )
    ends = datetime.fromtimestamp(certificate.ends_at).astimezone().date().isoformat()
    if not certificate.self_signed:
        return tr("Encrypted with your certificate, which ends on {ends}.").format(ends=ends)
    return tr(
        "Encrypted with a certificate made here: a browser warns at its first visit. It is this computer if the "
        "fingerprint there is this one. Renewed by itself before {ends}."
    ).format(ends=ends)
