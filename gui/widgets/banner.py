"""A banner inside the page: one bold sentence, one grey, at most one action. It stays until it is closed."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from gui.icons import IconLabel
from gui.language import tr
from gui.widgets.basics import Button, Card, label, set_tone

_ICONS = {"error": "circle-alert", "warn": "circle-help", "ok": "circle-check", "accent": "info"}


class Banner(Card):
    """Hidden until :meth:`say`. ``acted`` comes from its one button."""

    acted = Signal()
    closed = Signal()

    def __init__(self) -> None:
        super().__init__("banner")
        self._icon = IconLabel("info", "accent", 18)
        self._sentence = label("", "strong", wrap=True)
        self._second = label("", "small", wrap=True)
        self.action = Button("", small=True, name=tr("Action"))
        self.action.setProperty("square", False)
        self.action.clicked.connect(self.acted)
        close = Button("", "x", "flat", small=True, name=tr("Close this message"))
        close.clicked.connect(self.dismiss)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(self._sentence)
        words.addWidget(self._second)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 10, 10, 10)
        row.setSpacing(12)
        row.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        row.addWidget(self.action)
        row.addWidget(close)
        self.hide()

    @property
    def sentence(self) -> str:
        return self._sentence.text()

    def say(self, tone: str, sentence: str, second: str = "", action: str = "") -> None:
        """Show the banner in ``tone`` (error, warn, ok, accent)."""
        set_tone(self, tone)
        self._icon.set_icon(_ICONS[tone], tone)
        self._sentence.setText(sentence)
        self._second.setText(second)
        self._second.setVisible(bool(second))
        self.action.setText(action)
        self.action.setAccessibleName(action)
        self.action.setVisible(bool(action))
        self.setAccessibleName(f"{sentence} {second}".strip())
        self.show()

    def dismiss(self) -> None:
        self.hide()
        self.closed.emit()


class BannerBar(QWidget):
    """A banner with a page's margin around it, which takes no room while the banner is hidden."""

    def __init__(self, banner: Banner) -> None:
        super().__init__()
        box = QHBoxLayout(self)
        box.setContentsMargins(20, 14, 20, 0)
        box.addWidget(banner)
        banner.installEventFilter(self)
        self.hide()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.ShowToParent, QEvent.Type.HideToParent):
            self.setVisible(event.type() == QEvent.Type.ShowToParent)
        return super().eventFilter(watched, event)
