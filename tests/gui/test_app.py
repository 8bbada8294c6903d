"""Theme, settings, and the sentence for what nobody expected."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.errors import _BY_CODE, UNUSABLE_INPUT_CODES
from engine.settings import Settings, SettingsStore, replace_setting
from gui import theme
from gui.app import ExceptionReporter
from gui.error_text import _ADVICE
from gui.main_window import MainWindow
from tests.gui.conftest import WAIT_MS, WindowFactory


@pytest.mark.parametrize(("name", "tokens"), [("light", theme.LIGHT), ("dark", theme.DARK)])
def test_a_theme_reaches_palette_and_style_sheet(make_window: WindowFactory, name: str, tokens: theme.Tokens) -> None:
    make_window(settings=replace_setting(Settings(), "window", theme=name))
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    assert app.palette().color(QPalette.ColorRole.Window).name().upper() == tokens.window
    assert tokens.accent in app.styleSheet()
    assert not re.search(r"@[a-z]", app.styleSheet()), "a token of the style sheet has no colour"


def _contrast(one: str, other: str) -> float:
    def luminance(value: str) -> float:
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("tokens", [theme.LIGHT, theme.DARK])
def test_text_and_edges_can_be_seen(tokens: theme.Tokens) -> None:
    for text in ("text", "text2", "text3", "accent", "lan", "ok", "warn", "error"):
        for ground in ("surface", "window"):
            assert _contrast(getattr(tokens, text), getattr(tokens, ground)) >= 4.5, (text, ground)
    for hue in ("accent", "lan", "ok", "warn", "error"):
        assert _contrast(getattr(tokens, hue), getattr(tokens, f"{hue}_soft")) >= 4.5, hue
    assert _contrast(tokens.ctl, tokens.surface) >= 3
    assert _contrast(tokens.on_accent, tokens.accent) >= 4.5
    assert _contrast(tokens.on_lan, tokens.lan) >= 4.5


def test_settings_hold_at_once_and_are_kept(qtbot: QtBot, make_window: WindowFactory, tmp_path: Path) -> None:
    store = SettingsStore(tmp_path / "settings.json")
    window = make_window(store=store)
    window.settings_page.theme.click_choice("dark")
    assert theme.tokens() is theme.DARK
    window.settings_page.doubtful.setValue(50)
    assert window.predict_page.work.dock.bars.doubtful_below == 0.5
    qtbot.waitUntil(lambda: store.load().window.doubtful_below == 0.5, timeout=WAIT_MS)
    assert store.load().window.theme == "dark"


def test_settings_that_cannot_be_written_are_told(qtbot: QtBot, make_window: WindowFactory, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    window = make_window(store=SettingsStore(tmp_path / "file" / "settings.json"))
    window.settings_page.theme.click_choice("light")
    qtbot.waitUntil(lambda: "could not be written" in window.status_line.message, timeout=WAIT_MS)


def test_an_unexpected_error_is_one_sentence_with_details(qtbot: QtBot, window: MainWindow) -> None:
    reporter = ExceptionReporter(window)
    try:
        raise RuntimeError("<b>surprise</b>")
    except RuntimeError as error:
        reporter(type(error), error, error.__traceback__)
    qtbot.waitUntil(lambda: reporter.dialog is not None, timeout=WAIT_MS)
    dialog = reporter.dialog
    assert dialog is not None
    from gui.panels.error_panel import Details

    details = dialog.findChild(Details)
    assert details is not None
    assert not details.is_open
    assert "RuntimeError: <b>surprise</b>" in details.text.toPlainText()
    dialog.accept()
    assert reporter.dialog is None


def test_every_code_of_the_engine_has_advice() -> None:
    known = set(_BY_CODE) | UNUSABLE_INPUT_CODES
    known |= {"port_in_use", "address_unavailable", "permission_denied", "server_self_check"}
    assert known - set(_ADVICE) == set()


def test_the_newest_settings_end_up_in_the_file(
    qtbot: QtBot, make_window: WindowFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write is held up while others are asked for: it must not come last."""
    store = SettingsStore(tmp_path / "settings.json")
    window = make_window(store=store)
    gate, save = threading.Event(), store.save
    first = iter([True])

    def held(settings: Settings) -> None:
        if next(first, False):
            assert gate.wait(30)
        save(settings)

    monkeypatch.setattr(store, "save", held)
    for percent in (10, 20, 30, 40):
        window.settings_page.doubtful.setValue(percent)
    gate.set()
    qtbot.waitUntil(lambda: store.path.exists() and store.load().window.doubtful_below == 0.4, timeout=WAIT_MS)
    window.close()
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
    assert store.load().window.doubtful_below == 0.4
