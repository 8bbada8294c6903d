"""Ctrl+K and Ctrl+L: found by typing, run by Enter, and what was opened before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shiboken6
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLineEdit
from pytestqt.qtbot import QtBot

from gui import build_window
from gui.actions import SERVER, SETTINGS
from gui.main_window import MainWindow
from gui.recent_models import FILE, MOST, RecentModel, RecentModels
from gui.widgets.chooser import Choice, ChoiceModel
from tests.fakes import FakeEngine, FakeServer, spec
from tests.gui.conftest import WAIT_MS

CONTROL = Qt.KeyboardModifier.ControlModifier


def press(window: MainWindow, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    QTest.keyClick(QApplication.focusWidget() or window, key, modifier)


def open_palette(qtbot: QtBot, window: MainWindow) -> None:
    window.activateWindow()
    press(window, Qt.Key.Key_K, CONTROL)
    qtbot.waitUntil(window.palette_.isVisible, timeout=WAIT_MS)


# -- choosing in general -----------------------------------------------------------------------------------------------
def test_every_word_counts_and_beginnings_come_first() -> None:
    model = ChoiceModel()
    model.set_choices([
        Choice("a", "Open a folder…"), Choice("b", "Copy the answer as JSON"), Choice("c", "Paste"),
        Choice("d", "Answer of a copy", enabled=False), Choice("e", "Server", words="network door"),
    ])  # fmt: skip
    for typed, keys in (
        ("", "abcde"), ("ANSWER", "db"), ("json copy", "b"), ("fold", "a"), ("door", "e"), ("nothing", ""),
    ):  # fmt: skip
        model.set_typed(typed)
        assert "".join(choice.key for choice in model.choices) == keys, typed


def test_sections_stay_in_their_order() -> None:
    model = ChoiceModel()
    model.set_choices([Choice("a", "wine old", section="Open"), Choice("b", "old wine", section="Before")])
    model.set_typed("old")
    assert [choice.key for choice in model.choices] == ["a", "b"]


# -- commands ----------------------------------------------------------------------------------------------------------
def test_a_command_is_found_and_run_by_keyboard_alone(qtbot: QtBot, window: MainWindow) -> None:
    open_palette(qtbot, window)
    palette = window.palette_
    assert QApplication.focusWidget() is palette.field
    QTest.keyClicks(palette.field, "serv")
    assert palette.current is not None
    assert palette.current.title == "Server"
    assert palette.current.right == "Ctrl+2"
    press(window, Qt.Key.Key_Return)
    assert window.pages.currentIndex() == SERVER
    assert palette.isHidden()
    open_palette(qtbot, window)
    assert [choice.title for choice in palette.model.choices][:1] == ["Server"], "used last comes first"
    assert palette.model.choices[0].section == "Used last"


def test_every_action_of_the_menu_is_a_command(qtbot: QtBot, window: MainWindow) -> None:
    open_palette(qtbot, window)
    named = {action.text() for action in window.menu.actions() if action.text()}
    assert {choice.title for choice in window.palette_.model.choices} == named - {"Commands…"}
    assert len(named) > 15


def test_an_action_that_is_off_is_shown_and_skipped(qtbot: QtBot, window: MainWindow) -> None:
    action = next(a for a in window.actions() if a.text() == "Paste")
    action.setEnabled(False)
    ran: list[bool] = []
    action.triggered.connect(ran.append)
    open_palette(qtbot, window)
    palette = window.palette_
    QTest.keyClicks(palette.field, "paste")
    assert [choice.enabled for choice in palette.model.choices] == [False]
    press(window, Qt.Key.Key_Return)
    assert (ran, palette.isVisible()) == ([], True)
    palette._run("Paste")
    assert ran == []


def test_esc_and_a_click_beside_close_it_and_give_the_keyboard_back(qtbot: QtBot, ready_window: MainWindow) -> None:
    window = ready_window
    button = window.header.menu_button
    button.setFocus()
    open_palette(qtbot, window)
    press(window, Qt.Key.Key_Escape)
    assert window.palette_.isHidden()
    assert QApplication.focusWidget() is button
    open_palette(qtbot, window)
    qtbot.mouseClick(window.palette_, Qt.MouseButton.LeftButton, pos=QPoint(5, window.height() - 5))
    assert window.palette_.isHidden()


def test_arrows_move_and_tab_stays_inside(qtbot: QtBot, window: MainWindow) -> None:
    open_palette(qtbot, window)
    palette = window.palette_
    first = palette.list.currentIndex().row()
    for key, row in (
        (Qt.Key.Key_Down, first + 1), (Qt.Key.Key_PageDown, first + 7), (Qt.Key.Key_Up, first + 6),
        (Qt.Key.Key_PageUp, first),
    ):  # fmt: skip
        press(window, key)
        assert palette.list.currentIndex().row() == row
    press(window, Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is palette.field
    palette.field.setText("nothing is called that")
    assert palette.counted.text().startswith("0 of ")
    press(window, Qt.Key.Key_Down)
    press(window, Qt.Key.Key_Return)
    assert palette.isVisible()


def test_it_fits_a_small_window(qtbot: QtBot, window: MainWindow) -> None:
    open_palette(qtbot, window)
    window.resize(760, 560)
    qtbot.waitUntil(lambda: window.palette_.width() == 760, timeout=WAIT_MS)
    card = window.palette_.card.geometry()
    assert window.rect().contains(card)


# -- models ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def remembering(qtbot: QtBot, engine: FakeEngine, server: FakeServer, tmp_path: Path) -> MainWindow:
    """A window that remembers two models, one of which has gone."""
    from engine.settings import Settings

    there = tmp_path / "roses.keras"
    there.write_bytes(b"model")
    recent = RecentModels(tmp_path / FILE)
    recent.opened(tmp_path / "gone.pt", "gone", "object-detection", "torchscript")
    recent.opened(there, "roses", "image-classification", "keras")
    recent.write()
    engine.add(spec())
    window = build_window(engine, server, Settings(), state_dir=tmp_path)
    qtbot.addWidget(
        window, before_close_func=lambda w: (w.close(), qtbot.waitUntil(lambda: w.is_closed, timeout=WAIT_MS))
    )
    window.show()
    qtbot.waitExposed(window)
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: len(window.picker._recent.models) == 2, timeout=WAIT_MS)
    return window


def test_a_process_is_kept_ready_for_the_kind_opened_last(
    qtbot: QtBot, engine: FakeEngine, remembering: MainWindow, tmp_path: Path
) -> None:
    qtbot.waitUntil(lambda: engine.spares_asked == [str(tmp_path / "roses.keras")], timeout=WAIT_MS)


def open_picker(qtbot: QtBot, window: MainWindow) -> None:
    window.activateWindow()
    press(window, Qt.Key.Key_L, CONTROL)
    qtbot.waitUntil(window.picker.isVisible, timeout=WAIT_MS)


def titles(window: MainWindow) -> list[tuple[str, str, str]]:
    return [(choice.section, choice.title, choice.right) for choice in window.picker.model.choices]


def test_open_models_and_those_of_before_are_listed(qtbot: QtBot, remembering: MainWindow) -> None:
    open_picker(qtbot, remembering)
    qtbot.waitUntil(lambda: titles(remembering)[-1][2] == "not there any more", timeout=WAIT_MS)
    listed = titles(remembering)
    assert [entry[:2] for entry in listed] == [
        ("Open", "digits-keras"), ("Opened before", "roses"), ("Opened before", "gone"),
    ]  # fmt: skip
    assert listed[0][2] == "answers here"


def test_one_of_before_is_opened_and_remembered_as_newest(
    qtbot: QtBot, remembering: MainWindow, tmp_path: Path
) -> None:
    open_picker(qtbot, remembering)
    QTest.keyClicks(remembering.picker.field, "rose")
    press(remembering, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: remembering.shelf.active is not None and remembering.shelf.active.key == "roses.keras")
    qtbot.waitUntil(
        lambda: json.loads((tmp_path / FILE).read_text())["models"][0]["path"] == str(tmp_path / "roses.keras"),
        timeout=WAIT_MS,
    )
    assert len(json.loads((tmp_path / FILE).read_text())["models"]) == 2


def test_one_that_has_gone_says_so(qtbot: QtBot, remembering: MainWindow, engine: FakeEngine) -> None:
    open_picker(qtbot, remembering)
    qtbot.waitUntil(lambda: titles(remembering)[-1][2] == "not there any more", timeout=WAIT_MS)
    remembering.picker.list.setCurrentIndex(remembering.picker.model.index(2))
    press(remembering, Qt.Key.Key_Return)
    assert remembering.status_line.message == "gone.pt is not there any more."


def test_forgetting_one_can_be_undone(qtbot: QtBot, remembering: MainWindow, tmp_path: Path) -> None:
    open_picker(qtbot, remembering)
    picker = remembering.picker
    picker.list.setCurrentIndex(picker.model.index(1))
    press(remembering, Qt.Key.Key_Delete)
    assert [entry[1] for entry in titles(remembering)] == ["digits-keras", "gone"]
    qtbot.waitUntil(lambda: len(json.loads((tmp_path / FILE).read_text())["models"]) == 1, timeout=WAIT_MS)
    press(remembering, Qt.Key.Key_Tab)
    press(remembering, Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is picker.undo_button
    press(remembering, Qt.Key.Key_Space)
    assert [entry[1] for entry in titles(remembering)] == ["digits-keras", "roses", "gone"]
    picker.list.setCurrentIndex(picker.model.index(0))
    picker.field.setFocus()
    press(remembering, Qt.Key.Key_Delete)
    assert len(titles(remembering)) == 3, "an open model is closed elsewhere"


def test_an_open_model_is_made_the_one_that_answers(qtbot: QtBot, remembering: MainWindow, engine: FakeEngine) -> None:
    engine.add(spec("wine", "tabular-classification"))
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: len(remembering.shelf.cards) == 2, timeout=WAIT_MS)
    open_picker(qtbot, remembering)
    QTest.keyClicks(remembering.picker.field, "wine")
    press(remembering, Qt.Key.Key_Return)
    assert remembering.shelf.active is not None
    assert remembering.shelf.active.key == "wine"


def test_the_file_dialog_is_one_tab_away(
    qtbot: QtBot, remembering: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(remembering.predict_page, "_choose", lambda title, _filter: asked.append(title))
    open_picker(qtbot, remembering)
    press(remembering, Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is remembering.picker.open_button
    press(remembering, Qt.Key.Key_Space)
    assert asked == ["Open a model"]
    assert remembering.picker.isHidden()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"models": [1]}', b'{"models": [{"path": 1}]}', b"\xff\xfe", b'{"models": null}']
)
def test_a_damaged_list_is_an_empty_one(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert RecentModels(tmp_path / FILE).read() == ()
    assert "could not be read as recent models" in caplog.text


def test_the_list_is_short_and_newest_first(tmp_path: Path) -> None:
    clock = iter(range(1000))
    recent = RecentModels(tmp_path / FILE, now=lambda: float(next(clock)))
    for number in range(MOST + 5):
        recent.opened(tmp_path / str(number % 33), "n", "t", "f")
    assert len(recent.models) == MOST
    assert [model.opened_at for model in recent.models] == sorted((m.opened_at for m in recent.models), reverse=True)
    recent.write()
    assert RecentModels(tmp_path / FILE).read() == recent.models
    assert recent.remove("nothing") is None
    removed = recent.remove(recent.models[3].path)
    assert isinstance(removed, RecentModel)
    recent.put_back(removed)
    assert recent.models[3] == removed


def test_names_from_outside_are_plain_text(qtbot: QtBot, remembering: MainWindow, engine: FakeEngine) -> None:
    """Nothing of a list is markup: the delegate draws, and the accessible text is the words themselves."""
    model = ChoiceModel()
    model.set_choices([Choice("k", "<b>bold</b>" * 1000, "<img src=x>")])
    index = model.index(0)
    assert str(model.data(index, Qt.ItemDataRole.AccessibleTextRole)).startswith("<b>bold</b>")
    remembering.picker.open_with(model.choices)
    assert not remembering.picker.grab().isNull()


def test_a_command_is_not_lost_where_the_control_before_is_gone(qtbot: QtBot, window: MainWindow) -> None:
    field = QLineEdit(window)
    field.show()
    field.setFocus()
    window.palette_.open_palette()
    assert window.palette_._before is field
    shiboken6.delete(field)
    window.palette_.field.setText("Settings")
    qtbot.keyClick(window.palette_.field, Qt.Key.Key_Return)
    assert window.pages.currentIndex() == SETTINGS
