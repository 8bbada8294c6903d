"""Settings of the window. Each change holds at once and is written to the settings file on a task thread."""

from __future__ import annotations

import threading

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from engine.settings import Settings, SettingsStore, replace_setting
from gui.autostart import Autostart, autostart
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.session import program_command
from gui.widgets.basics import Card, label, line, spin_box
from gui.widgets.segmented import Segmented

NO_YES = (("no", "No", ""), ("yes", "Yes", "accent"))
THEMES = (("system", "As the desktop", ""), ("light", "Light", ""), ("dark", "Dark", ""))


class SettingsPage(QWidget):
    """``changed(Settings)`` after every change; ``status(tone, text)`` says whether it was kept."""

    changed = Signal(object)
    status = Signal(str, str)

    def __init__(
        self,
        bridge: EngineBridge,
        settings: Settings,
        store: SettingsStore | None,
        *,
        has_tray: bool = False,
        at_login: Autostart | None = None,
    ) -> None:
        super().__init__()
        self.setObjectName("page")
        self._bridge, self._store = bridge, store
        self.settings = settings
        self._written = settings
        self._writing = threading.Lock()
        self.theme = Segmented(THEMES, "Look")
        self.theme.set_value(settings.window.theme)
        self.theme.asked.connect(self._on_theme)
        self.doubtful = spin_box(0, 100, "Mark answers below this score", 92)
        self.doubtful.setSuffix(" %")
        self.doubtful.setValue(round(settings.window.doubtful_below * 100))
        self.doubtful.valueChanged.connect(self._on_doubtful)
        self.restore = self._switch("Open again what was open", settings.window.restore)
        self.restore.asked.connect(lambda value: self._on_switch(self.restore, "restore", value))
        self.tray = self._switch("Close to the tray", settings.window.close_to_tray)
        self.tray.asked.connect(lambda value: self._on_switch(self.tray, "close_to_tray", value))
        self.tray.setEnabled(has_tray)
        self.budget = spin_box(0, 4096, "Memory for models", 110)
        self.budget.setSuffix(" GB")
        self.budget.setSpecialValueText("no limit")
        self.budget.setValue(round(settings.limits.memory_budget_mb / 1000))
        self.budget.valueChanged.connect(lambda gb: self.change("limits", memory_budget_mb=gb * 1000))
        self.idle = spin_box(0, 1440, "Close models nobody asks after", 110)
        self.idle.setSuffix(" min")
        self.idle.setSpecialValueText("never")
        self.idle.setValue(round(settings.limits.unload_idle_s / 60))
        self.idle.valueChanged.connect(lambda minutes: self.change("limits", unload_idle_s=minutes * 60.0))
        self._at_login = at_login if at_login is not None else autostart(program_command())
        self.login = self._switch("Start at login", False)
        self.login.asked.connect(self._on_login)
        bridge.run(self, self._at_login.is_on, self._show_login, self._on_not_read)
        card = Card()
        card.setMaximumWidth(720)
        rows = QVBoxLayout(card)
        rows.setContentsMargins(20, 8, 20, 8)
        rows.setSpacing(0)
        rows.addLayout(self._row("Look", "Light or dark, or whatever the desktop uses.", self.theme))
        rows.addWidget(line())
        doubt = "Answers whose best score is below this are marked amber."
        rows.addLayout(self._row("Close call below", doubt, self.doubtful))
        again = "The models of the last time, and the server's switch where it stood."
        beside = "Closing the window leaves Deskside beside the clock, still serving."
        no_tray = "This desktop has no place beside the clock: closing quits."
        for title, words, control in (
            ("Open again what was open", again, self.restore),
            ("Close to the tray", beside if has_tray else no_tray, self.tray),
            ("Start at login", "Deskside starts when you log in to this computer.", self.login),
            ("Memory for models", "Beyond it, those nobody uses are closed until they are asked again.", self.budget),
            ("Close models nobody asks", "After this long; the next question opens them again.", self.idle),
        ):
            rows.addWidget(line())
            rows.addLayout(self._row(title, words, control))
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

    @staticmethod
    def _switch(name: str, on: bool) -> Segmented:
        control = Segmented(NO_YES, name)
        control.set_value("yes" if on else "no")
        return control

    def _on_switch(self, control: Segmented, key: str, value: str) -> None:
        control.set_value(value)
        self._change(**{key: value == "yes"})

    def _on_login(self, value: str) -> None:
        """The system keeps this one, not the settings file."""
        on, where = value == "yes", self._at_login
        self.login.set_value(self.login.value, value)

        def kept(_nothing: object) -> None:
            self.login.set_value(value)
            self.status.emit("ok", "Deskside starts at login." if on else "Deskside does not start at login any more.")

        def not_kept(error: BaseException) -> None:
            self.login.set_value(self.login.value)
            self.status.emit("error", f"Start at login could not be changed. {error_text(error).sentence}")

        self._bridge.run(self, lambda: where.set_on(on), kept, not_kept)

    def _show_login(self, on: bool) -> None:
        self.login.set_value("yes" if on else "no")

    def _on_not_read(self, error: BaseException) -> None:
        self.status.emit("error", f"Whether Deskside starts at login is not known. {error_text(error).sentence}")

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
        if self._store is not None:
            self._bridge.run(self, self._write, self._on_saved, self._on_not_saved)

    def _write(self) -> None:
        """The newest settings into the file. Task threads take turns, so that an older state never ends up in it."""
        assert self._store is not None
        with self._writing:
            newest = self.settings
            if newest is not self._written:
                self._store.save(newest)
                self._written = newest

    def _on_saved(self, _nothing: object) -> None:
        self.status.emit("ok", "Settings kept.")

    def _on_not_saved(self, error: BaseException) -> None:
        self.status.emit("error", f"The settings could not be written. {error_text(error).sentence}")
