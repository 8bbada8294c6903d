"""The application around the window: style, theme, and one sentence where an exception was not expected."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QApplication, QDialog, QVBoxLayout

from engine import EnginePort
from engine.settings import Settings, SettingsStore
from gui.interrupts import closing_on_signals
from gui.language import tr, use_language
from gui.main_window import MainWindow
from gui.panels.error_panel import Details
from gui.ports import ServerPort
from gui.session import LastRun, SessionFiles
from gui.single_instance import MeetingPoint
from gui.theme import ThemeSwitch
from gui.time_slice import ask_for_short_slices
from gui.widgets.basics import Button, label

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005


def create_application(settings: Settings, argv: Sequence[str] = ()) -> tuple[QApplication, ThemeSwitch]:
    """The QApplication in Fusion style, and the switch of its theme. Call once, on the main thread."""
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        app = QApplication([sys.argv[0], *argv])
    app.setApplicationName("Deskside")
    app.setApplicationDisplayName("Deskside")
    app.setDesktopFileName("deskside")
    app.setStyle("Fusion")
    use_language(app, settings.window.language)
    # The server's threads share the interpreter with this one: asked to hand it over ten times sooner than by default,
    # they make the window wait noticeably less when it is saturated (benchmarks/responsiveness.py).
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    ask_for_short_slices()
    switch = app.findChild(ThemeSwitch)
    if switch is None:
        return app, ThemeSwitch(app, settings.window.theme)
    switch.apply(settings.window.theme)
    return app, switch


class ExceptionReporter(QObject):
    """``sys.excepthook`` for the window: logs, then says one sentence with the traceback folded away."""

    _raised = Signal(str)

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self.dialog: QDialog | None = None
        self._raised.connect(self._show, Qt.ConnectionType.QueuedConnection)

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self._window.close()
            return
        log.critical("unexpected error in the window", exc_info=(kind, error, trace))
        self._raised.emit("".join(traceback.format_exception(kind, error, trace)))

    def _show(self, text: str) -> None:
        if self.dialog is not None:  # one at a time: a fault in a timer would bury the window in dialogs
            return
        dialog = QDialog(self._window)
        dialog.setWindowTitle("Deskside")
        dialog.setMinimumWidth(560)
        details = Details()
        details.text.setPlainText(text)
        close = Button(tr("Close"), kind="primary")
        close.clicked.connect(dialog.accept)
        box = QVBoxLayout(dialog)
        box.setContentsMargins(28, 24, 28, 20)
        box.setSpacing(10)
        box.addWidget(label(tr("Something in Deskside went wrong."), "title"))
        box.addWidget(label(tr("Your models keep answering. Copy the details and report them."), "body2", wrap=True))
        box.addWidget(details)
        box.addWidget(close, 0, Qt.AlignmentFlag.AlignRight)
        dialog.finished.connect(self._on_closed)
        dialog.finished.connect(dialog.deleteLater)
        self.dialog = dialog
        dialog.open()

    def _on_closed(self, _result: int) -> None:
        self.dialog = None


def run(
    engine: EnginePort,
    server: ServerPort,
    settings: Settings,
    models: Sequence[Path] = (),
    settings_store: SettingsStore | None = None,
    examples: Sequence[Path] = (),
    later_starts: MeetingPoint | None = None,
    state_dir: Path | None = None,
) -> int:
    """Open the window with ``models`` and run until it is closed; returns the exit status.

    The engine and the server stay the caller's: the window stops the server, the caller closes both. ``later_starts``
    brings what a second start was given; ``state_dir`` is where the window remembers what was open. SIGINT and SIGTERM
    close the window.
    """
    app, theme_switch = create_application(settings)
    session = SessionFiles(state_dir) if state_dir is not None else None
    last = _begin(session)
    window = MainWindow(engine, server, settings, settings_store, examples, theme_switch, state_dir, session)
    window.closed.connect(app.quit, Qt.ConnectionType.QueuedConnection)  # also where it was hidden
    before = sys.excepthook
    sys.excepthook = ExceptionReporter(window)
    try:
        window.show()
        if last is not None:
            window.life.tell_crash(last)
        if models:
            window.open_paths(list(models))
        elif session is not None and settings.window.restore:
            window.life.restore(session.load())
        if later_starts is not None:
            later_starts.models_handed_over.connect(lambda paths: _take_in(window, paths))
        with closing_on_signals(window.quit):
            code = app.exec()
    finally:
        sys.excepthook = before
    if session is not None:
        session.end()
    return code


def _begin(session: SessionFiles | None) -> LastRun | None:
    """A run whose mark cannot be written is not watched; the log says so."""
    if session is None:
        return None
    try:
        last = session.begin()
        session.collect_faults()
        return last
    except OSError as error:
        log.warning("whether this run ends properly cannot be kept: %s", error)
        return None


def _take_in(window: MainWindow, paths: list[Path]) -> None:
    """A second start: its models open here, and this window comes to the front."""
    if paths:
        window.open_paths(paths)
    window.life.come_forward()
