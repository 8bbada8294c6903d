"""What the server wrote into its request log, newest at the end."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from gui import theme
from gui.language import tr
from gui.server_bridge import ServerBridge
from gui.widgets.basics import Button, label
from gui.words import ms_words

EVERY_MS = 1000


class LogTab(QWidget):
    """Reads the newest lines once a second while it is looked at. ``status(tone, text)``."""

    status = Signal(str, str)

    def __init__(self, server: ServerBridge) -> None:
        super().__init__()
        self._server = server
        self._lines: tuple[str, ...] = ()
        self._filter: tuple[str, ...] = ()
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setFont(theme.fixed_font("small"))
        self.text.setMaximumBlockCount(500)
        self.text.setAccessibleName(tr("Request log"))
        self.copy_button = Button(tr("Copy"), "copy", small=True, name=tr("Copy the log"))
        self.copy_button.clicked.connect(self._copy)
        foot = QHBoxLayout()
        foot.addWidget(label(tr("Who asked what, and how it went. Never what was sent, and no keys."), "hint"), 1)
        foot.addWidget(self.copy_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(14, 12, 14, 6)
        box.setSpacing(8)
        box.addWidget(self.text, 1)
        box.addLayout(foot)
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self.refresh)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def set_filter(self, words: str) -> None:
        self._filter = tuple(words.lower().split())
        self._show()

    def refresh(self) -> None:
        lines = self._server.log_lines()
        if lines != self._lines:
            self._lines = lines
            self._show()

    def _show(self) -> None:
        shown = [line_words(line) for line in self._lines]
        shown = [line for line in shown if all(word in line.lower() for word in self._filter)]
        bar = self.text.verticalScrollBar()
        at_end = bar.value() == bar.maximum()
        place = bar.value()
        self.text.setPlainText("\n".join(shown))
        bar.setValue(bar.maximum() if at_end else min(place, bar.maximum()))
        self.copy_button.setEnabled(bool(shown))

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.text.toPlainText())
        self.status.emit("ok", tr("The log is on the clipboard."))


def line_words(line: str) -> str:
    """One JSON line of the log as people read it; what is no such line stays as it is."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return "  ".join((
            datetime.fromisoformat(entry["time"]).astimezone().strftime("%H:%M:%S"),
            f"{entry['client']:<15}",
            f"{entry['key'] or '–':<12}",
            f"{entry['method']} {entry['path']}",
            str(entry["status"]),
            ms_words(float(entry["ms"])),
            str(entry["reason"] or ""),
        )).rstrip()  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return line
