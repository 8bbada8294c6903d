"""Settings of the window. Each change holds at once and is written to the settings file on a task thread."""

from __future__ import annotations

import threading

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QVBoxLayout, QWidget

from engine.settings import Settings, SettingsStore, replace_setting
from gui.autostart import Autostart, autostart
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.language import LANGUAGES, mark, tr
from gui.panels.setting_row import setting_row
from gui.session import program_command
from gui.widgets.basics import Card, label, line, spin_box
from gui.widgets.segmented import Segmented, translated

NO_YES = (("no", mark("No"), ""), ("yes", mark("Yes"), "accent"))
THEMES = (("system", mark("As the desktop"), ""), ("light", mark("Light"), ""), ("dark", mark("Dark"), ""))


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
        self.theme = Segmented(translated(THEMES), tr("Look"))
        self.theme.set_value(settings.window.theme)
        self.theme.asked.connect(self._on_theme)
        self.language = QComboBox()
        self.language.setAccessibleName(tr("Language"))
        self.language.addItem(tr("As the desktop"), "")
        for code, name in LANGUAGES.items():
            self.language.addItem(name, code)
        self.language.setCurrentIndex(self.language.findData(settings.window.language))
        self.language.activated.connect(lambda _index: self._on_language())
        self.doubtful = spin_box(0, 100, tr("Mark answers below this score"), 92)
        self.doubtful.setSuffix(" %")
        self.doubtful.setValue(round(settings.window.doubtful_below * 100))
        self.doubtful.valueChanged.connect(self._on_doubtful)
        self.restore = self._switch(tr("Open again what was open"), settings.window.restore)
        self.restore.asked.connect(lambda value: self._on_switch(self.restore, "restore", value))
        self.tray = self._switch(tr("Close to the tray"), settings.window.close_to_tray)
        self.tray.asked.connect(lambda value: self._on_switch(self.tray, "close_to_tray", value))
        self.tray.setEnabled(has_tray)
        self.budget = spin_box(0, 4096, tr("Memory for models"), 110)
        self.budget.setSuffix(" GB")
        self.budget.setSpecialValueText(tr("no limit"))
        self.budget.setValue(round(settings.limits.memory_budget_mb / 1000))
        self.budget.valueChanged.connect(lambda gb: self.change("limits", memory_budget_mb=gb * 1000))
        self.idle = spin_box(0, 1440, tr("Close models nobody asks after"), 110)
        self.idle.setSuffix(tr(" min"))
        self.idle.setSpecialValueText(tr("never"))
        self.idle.setValue(round(settings.limits.unload_idle_s / 60))
        self.idle.valueChanged.connect(lambda minutes: self.change("limits", unload_idle_s=minutes * 60.0))
        self._at_login = at_login if at_login is not None else autostart(program_command())
        self.login = self._switch(tr("Start at login"), False)
        self.login.asked.connect(self._on_login)
        bridge.run(self, self._at_login.is_on, self._show_login, self._on_not_read)
        card = Card()
        card.setMaximumWidth(720)
        rows = QVBoxLayout(card)
        rows.setContentsMargins(20, 8, 20, 8)
        rows.setSpacing(0)
        rows.addLayout(setting_row(tr("Look"), tr("Light or dark, or whatever the desktop uses."), self.theme))
        rows.addWidget(line())
        speaks = tr("From the next start. What the engine tells scripts and the log stays English.")
        rows.addLayout(setting_row(tr("Language"), speaks, self.language))
        rows.addWidget(line())
        doubt = tr("Answers whose best score is below this are marked amber.")
        rows.addLayout(setting_row(tr("Close call below"), doubt, self.doubtful))
        again = tr("The models of the last time, and the server's switch where it stood.")
        beside = tr("Closing the window leaves Deskside beside the clock, still serving.")
        no_tray = tr("This desktop has no place beside the clock: closing quits.")
        for title, words, control in (
            (tr("Open again what was open"), again, self.restore),
            (tr("Close to the tray"), beside if has_tray else no_tray, self.tray),
            (tr("Start at login"), tr("Deskside starts when you log in to this computer."), self.login),
            (
                tr("Memory for models"),
                tr("Beyond it, those nobody uses are closed until they are asked again."),
                self.budget,
            ),
            (tr("Close models nobody asks"), tr("After this long; the next question opens them again."), self.idle),
        ):
            rows.addWidget(line())
            rows.addLayout(setting_row(title, words, control))
        where = (
            tr("Kept in {path}").format(path=store.path) if store is not None else tr("Kept until this window closes.")
        )
        box = QVBoxLayout(self)
        box.setContentsMargins(20, 20, 20, 20)
        box.setSpacing(14)
        box.addWidget(label(tr("Settings"), "page"))
        box.addWidget(card)
        box.addWidget(label(where, "hint"))
        box.addStretch(1)

    @staticmethod
    def _switch(name: str, on: bool) -> Segmented:
        control = Segmented(translated(NO_YES), name)
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
            self.status.emit(
                "ok", tr("Deskside starts at login.") if on else tr("Deskside does not start at login any more.")
            )

        def not_kept(error: BaseException) -> None:
            self.login.set_value(self.login.value)
            self.status.emit(
                "error",
                tr("Start at login could not be changed. {sentence}").format(sentence=error_text(error).sentence),
            )

        self._bridge.run(self, lambda: where.set_on(on), kept, not_kept)

    def _show_login(self, on: bool) -> None:
        self.login.set_value("yes" if on else "no")

    def _on_not_read(self, error: BaseException) -> None:
        self.status.emit(
            "error",
            tr("Whether Deskside starts at login is not known. {sentence}").format(sentence=error_text(error).sentence),
        )

    def _on_theme(self, value: str) -> None:
        self.theme.set_value(value)
        self._change(theme=value)

    def _on_language(self) -> None:
        self.change("window", language=self.language.currentData())

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
        self.status.emit("ok", tr("Settings kept."))

    def _on_not_saved(self, error: BaseException) -> None:
        self.status.emit(
            "error", tr("The settings could not be written. {sentence}").format(sentence=error_text(error).sentence)
        )
