"""Settings of the window. Each change holds at once and is written to the settings file on a task thread."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from engine.settings import Settings, SettingsStore, replace_setting
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.widgets.basics import Card, label, line, spin_box
from gui.widgets.segmented import Segmented

THEMES = (("system", "As the desktop", ""), ("light", "Light", ""), ("dark", "Dark", ""))


class SettingsPage(QWidget):
    """``changed(Settings)`` after every change; ``status(tone, text)`` says whether it was kept."""

    changed = Signal(object)
    status = Signal(str, str)

    def __init__(self, bridge: EngineBridge, settings: Settings, store: SettingsStore | None) -> None:
        super().__init__()
        self.setObjectName("page")
        self._bridge, self._store = bridge, store
        self.settings = settings
        self.theme = Segmented(THEMES, "Look")
        self.theme.set_value(settings.window.theme)
        self.theme.asked.connect(self._on_theme)
        self.doubtful = spin_box(0, 100, "Mark answers below this score", 92)
        self.doubtful.setSuffix(" %")
        self.doubtful.setValue(round(settings.window.doubtful_below * 100))
        self.doubtful.valueChanged.connect(self._on_doubtful)
        card = Card()
        card.setMaximumWidth(720)
        rows = QVBoxLayout(card)
        rows.setContentsMargins(20, 8, 20, 8)
        rows.setSpacing(0)
        rows.addLayout(self._row("Look", "Light or dark, or whatever the desktop uses.", self.theme))
        rows.addWidget(line())
        doubt = "Answers whose best score is below this are marked amber."
        rows.addLayout(self._row("Close call below", doubt, self.doubtful))
        where = f"Kept in {store.path}" if store is not None else "Kept until this window closes."
        box = QVBoxLayout(self)
        box.setContentsMargins(20, 20, 20, 20)
        box.setSpacing(14)
        box.addWidget(label("Settings", "page"))
        box.addWidget(card)
        box.addWidget(label(where, "hint"))
        box.addStretch(1)

    @staticmethod
    def _row(title: str, text: str, control: QWidget) -> QHBoxLayout:
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(title, "strong"))
        words.addWidget(label(text, "small", wrap=True))
        row = QHBoxLayout()
        row.setContentsMargins(0, 12, 0, 12)
        row.setSpacing(16)
        row.addLayout(words, 1)
        row.addWidget(control, 0, Qt.AlignmentFlag.AlignVCenter)
        return row

    def _on_theme(self, value: str) -> None:
        self.theme.set_value(value)
        self._change(theme=value)

    def _on_doubtful(self, percent: int) -> None:
        self._change(doubtful_below=percent / 100)

    def _change(self, **values: object) -> None:
        self.change("window", **values)

    def change(self, section: str, **values: object) -> None:
        """Set ``values`` of a section and keep them. Raises SettingsInvalid; nothing is changed then."""
        self.settings = replace_setting(self.settings, section, **values)
        self.changed.emit(self.settings)
        store, settings = self._store, self.settings
        if store is not None:
            self._bridge.run(self, lambda: store.save(settings), self._on_saved, self._on_not_saved)

    def _on_saved(self, _nothing: object) -> None:
        self.status.emit("ok", "Settings kept.")

    def _on_not_saved(self, error: BaseException) -> None:
        self.status.emit("error", f"The settings could not be written. {error_text(error).sentence}")
