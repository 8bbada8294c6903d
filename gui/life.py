"""The window's life on the desktop: the tray, leaving, what was open last time, and a run that did not end properly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QGuiApplication

from engine.errors import ConsentRequired
from engine.serving_types import ServerScope
from gui.error_text import error_text
from gui.language import tr
from gui.model_shelf import ANSWERING
from gui.panels.leave_dialog import LeaveDialog, ask_to_leave
from gui.session import MOST_MODELS, LastRun, Session, SessionFiles
from gui.tray import Tray
from gui.words import moment_words

if TYPE_CHECKING:
    from gui.main_window import MainWindow


class Life(QObject):
    """``session`` None: nothing is remembered. Speaks through the window's notice and status line."""

    def __init__(self, window: MainWindow, session: SessionFiles | None) -> None:
        super().__init__(window)
        self._window, self._session = window, session
        self._kept = Session()
        self._restoring: set[int] = set()
        self._report = ""
        self.tray: Tray | None = None
        self.leave_dialog: LeaveDialog | None = None
        window.notice.acted.connect(self._copy_report)
        window.shelf.changed.connect(self.keep_session)
        window.server.changed.connect(self.keep_session)

    # -- coming and going ------------------------------------------------------------------------------------------
    def set_tray(self, tray: Tray) -> None:
        """Use ``tray`` beside the clock."""
        self.tray = tray
        window = self._window
        tray.show_asked.connect(self.come_forward)
        tray.quit_asked.connect(self.leave)
        tray.switch_asked.connect(lambda scope: window.server.switch(scope, window.server_port))

    def come_forward(self) -> None:
        """Show the window before the others."""
        window = self._window
        window.setWindowState(window.windowState() & ~Qt.WindowState.WindowMinimized)
        window.show()
        window.raise_()
        window.activateWindow()

    def closed_by_person(self) -> None:
        """The close button: beside the clock where that is wanted and there is such a place, else leave."""
        if self.tray is not None and self._window.settings_page.settings.window.close_to_tray:
            self._window.hide()
            self.tray.tell_hidden()
        else:
            self.leave()

    def leave(self) -> None:
        """Quit; asked first where other computers use the server."""
        if self.leave_dialog is not None or self._window.is_closing:
            return
        server = self._window.server
        callers = server.callers_now() if server.is_running else 0
        if not callers:
            self._window.quit()
            return

        def over(quit_: bool) -> None:
            self.leave_dialog = None
            if quit_:
                self._window.quit()

        self.come_forward()
        self.leave_dialog = ask_to_leave(self._window, callers, over)

    def close(self) -> None:
        if self.tray is not None:
            self.tray.close()

    # -- the run before --------------------------------------------------------------------------------------------
    def tell_crash(self, last: LastRun) -> None:
        """The run before did not end properly: say so, and offer what it left."""
        self._report = last.report
        second = tr("Nothing was sent to anybody.")
        if last.started_at:
            second = tr("It began {when}. Nothing was sent to anybody.").format(when=moment_words(last.started_at))
        self._window.notice.say("warn", tr("Deskside did not end properly last time."), second, tr("Copy report"))

    def _copy_report(self) -> None:
        QGuiApplication.clipboard().setText(self._report)
        self._window.status_line.say("ok", tr("The report is on the clipboard. Read it before you send it."))

    # -- what was open ---------------------------------------------------------------------------------------------
    def restore(self, session: Session) -> None:
        """Open what was open, and put the switch where it stood. What asks for consent is not asked about now."""
        window = self._window
        for path in map(Path, session.models):
            if token := window.load_model(path):
                self._restoring.add(token)
        if session.scope is not ServerScope.OFF:
            window.server_page.port.setValue(session.port)
            window.server.switch(session.scope, session.port)

    def restored(self, token: int) -> None:
        self._restoring.discard(token)

    def not_restored(self, token: int, path: Path, error: BaseException) -> bool:
        """Whether this load was a restored one; then it is said here, and nobody is asked anything."""
        if token not in self._restoring:
            return False
        self._restoring.discard(token)
        second = error_text(error).sentence
        if isinstance(error, ConsentRequired):
            second = tr("It is a program that was not agreed to yet. Open it to decide.")
        sentence = tr("{name} was not opened again.").format(name=path.name)
        if self._window.notice.isVisible():  # the word about the run before stays until it was read
            self._window.status_line.say("warn", f"{sentence} {second}")
        else:
            self._window.notice.say("warn", sentence, second)
        return True

    def keep_session(self) -> None:
        """Remember what is open, where that is wanted and something has changed."""
        window = self._window
        wanted = window.settings_page.settings.window.restore
        if self._session is None or not wanted or window.is_closing or self._restoring:
            return
        server = window.server
        if server.target is not None:
            return
        session = Session(
            tuple(str(card.path) for card in window.shelf.cards if card.phase in ANSWERING)[:MOST_MODELS],
            server.state.scope if server.is_running else ServerScope.OFF,
            server.state.port if server.is_running else window.server_port,
        )
        if session != self._kept:
            self._kept = session
            files = self._session
            window.bridge.run(self, lambda: files.save(lambda: self._kept), lambda _: None, self._on_not_kept)

    def _on_not_kept(self, error: BaseException) -> None:
        sentence = tr("What is open could not be kept for the next start. {sentence}").format(
            sentence=error_text(error).sentence
        )
        self._window.status_line.say("error", sentence)
