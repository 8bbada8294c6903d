"""The tray, leaving while others ask, what was open last time, starting at login, and a run that ended badly."""

from __future__ import annotations

import json
import os
import plistlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QSystemTrayIcon
from pytestqt.qtbot import QtBot

from engine.errors import ConsentRequired
from engine.serving_types import ServerScope
from engine.settings import Settings, SettingsStore, replace_setting
from gui.autostart import autostart, desktop_entry, launch_agent
from gui.main_window import MainWindow
from gui.model_loader import LoadOrder
from gui.panels.leave_dialog import leave_words
from gui.panels.settings_page import SettingsPage
from gui.session import FAULTS, LOG, MARKER, SESSION, LastRun, Session, SessionFiles, without_names
from gui.theme import ThemeSwitch
from gui.tray import Tray, tray_icon
from tests.e2e.program import PATIENCE_S, ROOT, environment
from tests.fakes import FakeEngine, FakeServer, spec
from tests.gui.conftest import WAIT_MS, WindowFactory
from tests.gui.test_server_page import switch_to


@pytest.fixture
def with_tray(window: MainWindow) -> Tray:
    """This platform draws no tray, but its icon and menu are the real ones."""
    tray = Tray(window.server, window)
    window.life.set_tray(tray)
    return tray


def close_by_hand(window: MainWindow) -> None:
    """As the desktop's close button does."""
    handle = window.windowHandle()
    assert handle is not None
    handle.close()


# -- tray --------------------------------------------------------------------------------------------------------------
def test_the_tray_switches_the_server_and_stands_where_it_is(
    qtbot: QtBot, window: MainWindow, server: FakeServer, with_tray: Tray
) -> None:
    assert with_tray.switches[ServerScope.OFF].isChecked()
    with_tray.switches[ServerScope.NETWORK].trigger()
    qtbot.waitUntil(
        # The server's state may arrive before the switch's own call is over; until then it cannot be moved again.
        lambda: with_tray.switches[ServerScope.NETWORK].isChecked() and not window.server_page.switch.busy,
        timeout=WAIT_MS,
    )
    assert server.starts == [(ServerScope.NETWORK, 8765)]
    assert with_tray.icon.toolTip() == "Deskside, serving the network"
    switch_to(qtbot, window, "off")
    assert with_tray.switches[ServerScope.OFF].isChecked()
    assert with_tray.icon.toolTip() == "Deskside, server off"


def test_closing_goes_to_the_tray_where_that_is_wanted_and_comes_back(
    qtbot: QtBot, make_window: WindowFactory, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = make_window(settings=replace_setting(Settings(), "window", close_to_tray=True))
    tray = Tray(window.server, window)
    window.life.set_tray(tray)
    told: list[str] = []
    monkeypatch.setattr(tray.icon, "showMessage", lambda title, _text: told.append(title))
    for _ in range(2):
        close_by_hand(window)
        qtbot.waitUntil(window.isHidden, timeout=WAIT_MS)
        assert not window.is_closing
        tray._on_activated(QSystemTrayIcon.ActivationReason.Trigger)
        assert window.isVisible()
    assert told == ["Deskside goes on here"], "said once"
    close_by_hand(window)
    tray.menu.actions()[-1].trigger()
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)


def test_closing_quits_where_there_is_no_tray(qtbot: QtBot, make_window: WindowFactory) -> None:
    window = make_window(settings=replace_setting(Settings(), "window", close_to_tray=True))
    assert window.life.tray is None
    close_by_hand(window)
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)


def test_the_icon_shows_the_doors_hue(qtbot: QtBot) -> None:
    colours = {tray_icon(hue).pixmap(64, 64).toImage().pixelColor(6, 32).name() for hue in ("", "accent", "lan")}
    assert len(colours) == 3


# -- leaving -----------------------------------------------------------------------------------------------------------
def test_leaving_while_others_ask_is_asked_about_and_staying_is_safe(
    qtbot: QtBot, window: MainWindow, server: FakeServer
) -> None:
    switch_to(qtbot, window, "network")
    server.publish(replace(server.state, callers=("192.168.1.57", "192.168.1.61")))
    qtbot.waitUntil(lambda: len(window.server.state.callers) == 2, timeout=WAIT_MS)
    close_by_hand(window)
    dialog = window.life.leave_dialog
    assert dialog is not None
    assert dialog.sentence == "2 other computers are using the network door. Quit anyway?"
    assert dialog.stay_button.hasFocus() or dialog.focusWidget() is dialog.stay_button
    close_by_hand(window)
    assert window.life.leave_dialog is dialog, "asked once"
    QTest.keyClick(dialog, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: window.life.leave_dialog is None, timeout=WAIT_MS)
    assert window.isVisible()
    assert not window.is_closing
    window.life.leave()
    again = window.life.leave_dialog
    assert again is not None
    again.quit_button.click()
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)


def test_leaving_is_not_asked_about_where_nobody_asks(qtbot: QtBot, window: MainWindow, server: FakeServer) -> None:
    switch_to(qtbot, window, "network")
    action = next(action for action in window.actions() if action.text() == "Quit")
    assert action.shortcut().toString() == "Ctrl+Q"
    action.trigger()
    assert window.life.leave_dialog is None
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)


def test_one_is_said_as_one() -> None:
    assert leave_words(1) == "1 other computer is using the network door. Quit anyway?"


# -- what was open -----------------------------------------------------------------------------------------------------
Reopen = Callable[..., MainWindow]


@pytest.fixture
def reopen(qtbot: QtBot, engine: FakeEngine, server: FakeServer, tmp_path: Path, make_window: WindowFactory) -> Reopen:
    """A window that remembers in ``tmp_path``."""
    from gui.app import create_application

    windows: list[MainWindow] = []

    def make(**window_settings: object) -> MainWindow:
        settings = replace_setting(Settings(), "window", restore=True, **window_settings)
        _, switch = create_application(settings)
        assert isinstance(switch, ThemeSwitch)
        made = MainWindow(engine, server, settings, None, (), switch, tmp_path, SessionFiles(tmp_path))
        windows.append(made)
        qtbot.addWidget(made, before_close_func=lambda w: (w.close(), qtbot.waitUntil(lambda: w.is_closed)))
        made.show()
        qtbot.waitExposed(made)
        return made

    return make


def test_what_is_open_is_remembered_and_opened_again(
    qtbot: QtBot, engine: FakeEngine, server: FakeServer, tmp_path: Path, reopen: Reopen
) -> None:
    files = SessionFiles(tmp_path)
    first = reopen()
    first.load_model(tmp_path / "roses.keras")
    qtbot.waitUntil(lambda: files.load().models == (str(tmp_path / "roses.keras"),), timeout=WAIT_MS)
    first.server_page.port.setValue(8800)
    switch_to(qtbot, first, "network")
    qtbot.waitUntil(lambda: files.load().scope is ServerScope.NETWORK, timeout=WAIT_MS)
    first.close()
    qtbot.waitUntil(lambda: first.is_closed, timeout=WAIT_MS)
    kept = files.load()
    assert (kept.models, kept.scope, kept.port) == ((str(tmp_path / "roses.keras"),), ServerScope.NETWORK, 8800)

    engine.unload("roses.keras")
    second = reopen()
    second.life.restore(kept)
    qtbot.waitUntil(lambda: second.shelf.active is not None, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: second.server.is_running, timeout=WAIT_MS)
    assert server.starts[-1] == (ServerScope.NETWORK, 8800)
    switch_to(qtbot, second, "off")
    qtbot.waitUntil(lambda: files.load().scope is ServerScope.OFF, timeout=WAIT_MS)


def test_a_program_is_not_run_by_a_restore_and_nobody_is_asked(
    qtbot: QtBot, engine: FakeEngine, tmp_path: Path, reopen: Reopen
) -> None:
    engine.load_error = ConsentRequired("It is a program.", fingerprint="ab" * 32)
    window = reopen()
    window.life.restore(Session((str(tmp_path / "program.pt"),)))
    qtbot.waitUntil(window.notice.isVisible, timeout=WAIT_MS)
    assert window.notice.sentence == "program.pt was not opened again."
    assert window.consent_dialog is None


def test_the_word_about_a_crash_stays_over_a_restore_that_fails(
    qtbot: QtBot, engine: FakeEngine, tmp_path: Path, reopen: Reopen
) -> None:
    engine.load_error = ConsentRequired("It is a program.", fingerprint="ab" * 32)
    window = reopen()
    window.life.tell_crash(LastRun(0.0, "the report"))
    window.life.restore(Session((str(tmp_path / "program.pt"),)))
    qtbot.waitUntil(lambda: "program.pt was not opened again." in window.status_line.message, timeout=WAIT_MS)
    assert window.notice.sentence == "Deskside did not end properly last time."


def test_a_restored_load_that_is_cancelled_does_not_stop_the_remembering(
    engine: FakeEngine, tmp_path: Path, reopen: Reopen
) -> None:
    window = reopen()
    window.life._restoring.add(7)
    window._on_load_cancelled(7, LoadOrder(tmp_path / "m.pt"))
    assert window.life._restoring == set()


def test_nothing_is_remembered_where_that_is_not_wanted(
    qtbot: QtBot, make_window: WindowFactory, tmp_path: Path, ready_window: MainWindow
) -> None:
    assert not (tmp_path / SESSION).exists()
    assert Settings().window.restore is False


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"models": "x", "scope": "off", "port": 1}', b'{"models": [], "scope": "all", "port": 1}',
     b'{"models": [], "scope": "off", "port": 70000}'],
)  # fmt: skip
def test_a_damaged_session_is_none(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / SESSION).write_bytes(content)
    assert SessionFiles(tmp_path).load() == Session()
    assert "could not be read as a session" in caplog.text


# -- a run that ended badly --------------------------------------------------------------------------------------------
def test_a_run_that_ended_leaves_nothing_and_one_that_did_not_leaves_its_report(tmp_path: Path) -> None:
    files = SessionFiles(tmp_path)
    assert files.begin() is None
    files.end()
    assert not (tmp_path / MARKER).exists()
    assert files.begin() is None
    (tmp_path / LOG).write_text("2026 INFO engine: opened\n" + "key " + "k" * 43 + "\n")
    last = SessionFiles(tmp_path).begin()
    assert isinstance(last, LastRun)
    assert last.started_at > 0
    assert "Last lines of the log:" in last.report
    assert "engine: opened" in last.report
    assert "k" * 43 not in last.report


def test_a_report_names_nobody() -> None:
    text = without_names("/home/ana/models/x.pt failed; key abc", home="/home/ana", secrets=("abc",))
    assert text == "~/models/x.pt failed; key …"


def test_the_window_says_it_once_and_copies_the_report(qtbot: QtBot, window: MainWindow) -> None:
    window.life.tell_crash(LastRun(0.0, "the report"))
    assert window.notice.isVisible()
    assert window.notice.sentence == "Deskside did not end properly last time."
    window.notice.action.click()
    assert QGuiApplication.clipboard().text() == "the report"


START = """
import sys
from pathlib import Path
from PySide6.QtCore import QTimer
import gui.app
from gui.main_window import MainWindow
from engine.settings import Settings
from tests.fakes import FakeEngine, FakeServer

class Told(MainWindow):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        QTimer.singleShot(0, self.tell)
    def tell(self):
        print(repr(self.notice.sentence), flush=True)

gui.app.MainWindow = Told
sys.exit(gui.app.run(FakeEngine(), FakeServer(), Settings(), state_dir=Path(sys.argv[1])))
"""


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_the_next_start_after_a_kill_says_so(tmp_path: Path) -> None:
    """The real loop in a process of its own: killed, started again, ended properly, started a third time."""
    for end, sentence in (
        (signal.SIGKILL, "''"), (signal.SIGSEGV, "'Deskside did not end properly last time.'"),
        (signal.SIGTERM, "'Deskside did not end properly last time.'"), (signal.SIGTERM, "''"),
    ):  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path)], cwd=ROOT, env=environment(tmp_path),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        assert process.stdout is not None
        assert process.stdout.readline().strip() == sentence
        process.send_signal(end)
        assert process.wait(PATIENCE_S) == (0 if end is signal.SIGTERM else -end)
        process.stdout.close()
        watchdog.cancel()
        if end is signal.SIGSEGV:
            assert b"Segmentation fault" in (tmp_path / FAULTS).read_bytes()
    assert not (tmp_path / MARKER).exists()


# -- at login ----------------------------------------------------------------------------------------------------------
def test_linux_starts_a_desktop_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    where = autostart(["/usr/bin/python3", "/opt/my models/main.py"], "linux", tmp_path)
    assert not where.is_on()
    where.set_on(True)
    assert where.is_on()
    entry = (tmp_path / ".config" / "autostart" / "deskside.desktop").read_text()
    assert 'Exec=/usr/bin/python3 "/opt/my models/main.py"\n' in entry
    where.set_on(False)
    where.set_on(False)
    assert not where.is_on()


def test_the_command_is_quoted_as_the_specification_has_it() -> None:
    entry = desktop_entry(["/bin/x", "50% $HOME", 'say "hi"']).decode()
    line = next(row for row in entry.splitlines() if row.startswith("Exec="))
    assert line == r'Exec=/bin/x "50%% \\$HOME" "say \\"hi\\""'


def test_macos_starts_a_launch_agent(tmp_path: Path) -> None:
    where = autostart(["/usr/bin/python3", "/opt/main.py"], "darwin", tmp_path)
    where.set_on(True)
    (path,) = (tmp_path / "Library" / "LaunchAgents").iterdir()
    assert plistlib.loads(path.read_bytes())["ProgramArguments"] == ["/usr/bin/python3", "/opt/main.py"]
    assert plistlib.loads(launch_agent(["a"]))["RunAtLoad"] is True


class Place:
    """Where the system keeps it, in memory; ``error`` makes it refuse."""

    def __init__(self) -> None:
        self.on = True
        self.error: OSError | None = None

    def is_on(self) -> bool:
        return self.on

    def set_on(self, on: bool) -> None:
        if self.error is not None:
            raise self.error
        self.on = on


def test_the_settings_page_shows_and_changes_it(qtbot: QtBot, window: MainWindow, tmp_path: Path) -> None:
    place, said = Place(), []
    store = SettingsStore(tmp_path / "settings.json")
    page = SettingsPage(window.bridge, Settings(), store, has_tray=False, at_login=place)
    qtbot.addWidget(page)
    page.status.connect(lambda tone, text: said.append((tone, text)))
    qtbot.waitUntil(lambda: page.login.value == "yes", timeout=WAIT_MS)
    page.login.click_choice("no")
    qtbot.waitUntil(lambda: page.login.value == "no" and not place.on, timeout=WAIT_MS)
    place.error = PermissionError(13, "Permission denied")
    page.login.click_choice("yes")
    qtbot.waitUntil(lambda: said[-1][0] == "error", timeout=WAIT_MS)
    assert (page.login.value, page.login.busy) == ("no", "")
    assert not page.tray.isEnabled()
    page.restore.click_choice("yes")
    qtbot.waitUntil(lambda: (tmp_path / "settings.json").exists(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: json.loads(store.path.read_text())["window"]["restore"] is True, timeout=WAIT_MS)


def test_the_first_page_stands_below_a_notice(qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory) -> None:
    engine.add(spec())
    window = make_window()
    top = window.pages.mapTo(window, window.pages.rect().topLeft()).y()
    assert top == window.header.height(), "no room is kept for a notice that is not there"
    window.life.tell_crash(LastRun(0.0, "r"))
    qtbot.waitUntil(window.notice.isVisible, timeout=WAIT_MS)
    bottom = window.notice.mapTo(window, window.notice.rect().bottomLeft()).y()
    assert bottom <= window.pages.mapTo(window, window.pages.rect().topLeft()).y()
