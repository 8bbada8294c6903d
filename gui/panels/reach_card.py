"""The QR code of the page, and what is known about whether others can reach it."""

from __future__ import annotations

import time

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from engine.serving_types import ReachReport, ServerState
from gui.icons import IconLabel
from gui.language import tr
from gui.server_bridge import ServerBridge
from gui.widgets.basics import Button, label, set_tone
from gui.widgets.qr_code import QrCode

WIDTH = 196


class ReachCard(QWidget):
    """Shown on Network only. It never says that others can reach this computer before one of them was seen."""

    def __init__(self, server: ServerBridge) -> None:
        super().__init__()
        self._server = server
        self._url = ""
        self.code = QrCode()
        self.words = label("", "small", wrap=True)
        self.words.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.sentence = label("", "small", wrap=True)
        self._icon = IconLabel("circle-help", "text2")
        self.check_button = Button(
            tr("Check again"), kind="link", name=tr("Check again whether others can reach this computer")
        )
        self.check_button.clicked.connect(server.check_reach)
        known = QHBoxLayout()
        known.setSpacing(8)
        known.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        known.addWidget(self.sentence, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 4)
        box.setSpacing(4)
        box.addWidget(self.code, 0, Qt.AlignmentFlag.AlignHCenter)
        title = label(tr("Scan to open the page"), "strong", wrap=True)
        title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        box.addWidget(title)
        box.addWidget(self.words)
        box.addSpacing(4)
        box.addLayout(known)
        box.addWidget(self.check_button, 0, Qt.AlignmentFlag.AlignHCenter)
        box.addStretch(1)
        self.setFixedWidth(WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Minimum)
        server.changed.connect(self.refresh)
        server.reach_checked.connect(self.refresh)
        self.refresh()

    def show_url(self, url: str, secret: str) -> None:
        """Show ``url`` as a code, with the key in its fragment where it is known; "" hides the card."""
        self.setVisible(bool(url))
        if not url:
            self._url = ""
            return
        # The fragment never leaves the browser: it is in no request line and in no log.
        self.code.set_text(f"{url}/#key={secret}" if secret else url, tr("QR code of {url}").format(url=url))
        needs_key = self._server.state.key_required and not secret
        self.words.setText(tr("It asks for the key") if needs_key else (tr("The key is in it") if secret else ""))
        self.words.setVisible(bool(self.words.text()))
        if url != self._url:
            self._url = url
            self._server.check_reach()

    def refresh(self) -> None:
        tone, icon_name, sentence = reach_words(self._server.state, self._server.reach)
        set_tone(self.sentence, tone)
        self._icon.set_icon(icon_name, tone or "text2")
        self.sentence.setText(sentence)
        self.check_button.setVisible(tone != "ok")


def reach_words(state: ServerState, report: ReachReport | None) -> tuple[str, str, str]:
    """Tone, icon and sentence: what is known, the surest first."""
    if state.reached_at is not None:
        at = time.strftime("%H:%M", time.localtime(state.reached_at))
        return "ok", "circle-check", tr("Others can reach this, last at {at}").format(at=at)
    if report is None:
        return "", "circle-help", tr("Looking whether others can reach this")
    if report.failed:
        names = ", ".join(url.partition("://")[2] for url in report.failed)
        return "error", "circle-alert", tr("{names} does not answer, not even from here").format(names=names)
    if report.let_in is False:
        port = state.port
        return (
            "warn",
            "circle-alert",
            tr("The firewall ({firewall}) is on and does not let port {port} in").format(
                firewall=report.firewall, port=port
            ),
        )
    return "", "circle-help", tr("Not known yet whether others can reach this: scan the code from a phone")
