"""For everybody: a name and a role on every control of every page, and the first minute by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible, QAccessibleInterface, QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QSlider,
    QTabBar,
    QWidget,
)
from pytestqt.qtbot import QtBot

from engine.prediction import Prediction
from engine.settings import Settings, replace_setting
from gui import theme
from gui.actions import CARD, PREDICT, SERVER, SETTINGS
from gui.main_window import MainWindow
from gui.panels.consent_dialog import ConsentDialog
from gui.panels.leave_dialog import LeaveDialog
from tests.e2e.program import DIGITS_KERAS
from tests.fakes import TIMING, FakeEngine, FakeServer, spec
from tests.gui.conftest import WAIT_MS, WindowFactory, drop
from tests.gui.test_predict import picture
from tests.gui.test_server_page import record, switch_to

CONTROLS = (
    QAbstractButton, QLineEdit, QAbstractSpinBox, QComboBox, QSlider, QAbstractItemView, QPlainTextEdit, QTabBar,
)  # fmt: skip
ROLES = {
    QAccessible.Role.Button, QAccessible.Role.PushButton, QAccessible.Role.CheckBox, QAccessible.Role.RadioButton,
    QAccessible.Role.EditableText, QAccessible.Role.SpinBox, QAccessible.Role.ComboBox, QAccessible.Role.Slider,
    QAccessible.Role.Table, QAccessible.Role.List, QAccessible.Role.Tree, QAccessible.Role.PageTabList,
    QAccessible.Role.PageTab, QAccessible.Role.ButtonMenu, QAccessible.Role.Client,
}  # fmt: skip


def walk(root: QWidget) -> Iterator[tuple[QWidget, QAccessibleInterface]]:
    """What a screen reader is told of every visible control that can be operated."""
    for kind in CONTROLS:
        for control in root.findChildren(kind):
            inner = isinstance(control.parentWidget(), QAbstractSpinBox | QComboBox | QAbstractItemView)
            if control.isVisible() and not inner and control.objectName() != "qt_spinbox_lineedit":
                yield control, QAccessible.queryAccessibleInterface(control)


def faults(root: QWidget) -> list[str]:
    found = []
    for control, told in walk(root):
        where = f"{type(control).__name__} in {type(control.parentWidget()).__name__}"
        if not told.text(QAccessible.Text.Name).strip():
            found.append(f"{where}: no name")
        if told.role() not in ROLES:
            found.append(f"{where}: {told.role()}")
    return found


@pytest.fixture
def busy_window(
    qtbot: QtBot, engine: FakeEngine, server: FakeServer, make_window: WindowFactory, tmp_path: Path
) -> MainWindow:
    """Models, an answer, a running server with keys, callers and requests."""
    engine.add(spec())
    engine.add(spec("wine", "tabular-classification"))
    window = make_window(examples=(DIGITS_KERAS,))
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    drop(window, picture(tmp_path, "a.png"))
    qtbot.waitUntil(lambda: bool(window.predict_page.work.dock.bars.answers), timeout=WAIT_MS)
    server.add_key("lab phones")
    server.block("192.168.1.9", True)
    engine.records = [replace(record(1, 1.0), key="lab phones")]
    window.show_page(SERVER)
    switch_to(qtbot, window, "network")
    engine.publish_snapshot()
    return window


def test_every_control_of_every_page_has_a_name_and_a_role(qtbot: QtBot, busy_window: MainWindow) -> None:
    window, seen = busy_window, 0
    for page in (PREDICT, SERVER, SETTINGS, CARD):
        if page == CARD:
            window.show_card()
        window.show_page(page)
        tabs = range(window.server_page.tabs.bar.count()) if page == SERVER else range(1)
        for tab in tabs:
            window.server_page.tabs.bar.setCurrentIndex(tab)
            QApplication.processEvents()
            assert faults(window) == [], f"page {page}, tab {tab}"
            seen += len(list(walk(window)))
    assert seen > 100, "the walk has to find something"


def test_lists_over_the_window_and_dialogs_have_names_too(
    qtbot: QtBot, busy_window: MainWindow, tmp_path: Path
) -> None:
    from engine.errors import ConsentRequired

    window = busy_window
    for opened in (window.picker.open_picker, window.palette_.open_palette):
        opened()
        QApplication.processEvents()
        assert faults(window) == []
    window.palette_.close_chooser()
    window.picker.close_chooser()
    for dialog in (
        LeaveDialog(window, 2), ConsentDialog(window, tmp_path / "m.pt", ConsentRequired("x", fingerprint="ab" * 32)),
    ):  # fmt: skip
        dialog.show()
        assert faults(dialog) == []
        told = QAccessible.queryAccessibleInterface(dialog)
        assert told.role() == QAccessible.Role.Dialog
        assert told.text(QAccessible.Text.Description)
        dialog.close()


def test_a_control_without_a_name_would_be_found(qtbot: QtBot, window: MainWindow) -> None:
    from gui.widgets.basics import Button

    nameless = Button("", "x")
    nameless.setParent(window)
    nameless.show()
    assert [fault for fault in faults(window) if "Button" in fault] == ["Button in MainWindow: no name"]
    nameless.setAccessibleName("Close")


def test_the_rail_can_be_operated_by_a_screen_reader(qtbot: QtBot, window: MainWindow) -> None:
    """Its one action opens the page, and exactly one entry says that it is the chosen one."""
    for page in (SERVER, SERVER, SETTINGS, PREDICT):
        told = QAccessible.queryAccessibleInterface(window.rail.buttons[page])
        action = told.actionInterface()
        action.doAction(action.actionNames()[0])
        qtbot.waitUntil(lambda page=page: window.pages.currentIndex() == page, timeout=WAIT_MS)  # type: ignore[misc]
        assert [button.isChecked() for button in window.rail.buttons] == [n == page for n in range(3)]


def test_the_ground_of_the_window_can_be_said(window: MainWindow) -> None:
    assert window.centralWidget().accessibleName() == "Deskside"


# -- keyboard ----------------------------------------------------------------------------------------------------------
def press(key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    focus = QApplication.focusWidget()
    assert focus is not None, "the keyboard is nowhere"
    QTest.keyClick(focus, key, modifier)


def tab_to(wanted: QWidget, most: int = 80) -> None:
    """Press Tab until ``wanted`` has the keyboard, as a person would."""
    passed = []
    for _ in range(most):
        press(Qt.Key.Key_Tab)
        focus = QApplication.focusWidget()
        assert focus is not None
        assert focus.isVisible(), f"{focus} is not to be seen"
        if focus is wanted:
            return
        passed.append(f"{type(focus).__name__} {focus.accessibleName()}")
    pytest.fail(f"Tab never came to {wanted}; it passed {passed}")


def test_the_first_minute_by_keyboard_alone(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, server: FakeServer
) -> None:
    """Load the bundled model, ask its sample, switch the server on, see the code: no mouse."""
    engine.answer = lambda request: Prediction(
        "p1", request.model, "image-classification", TIMING, predictions=[{"label": "7", "score": 0.99}]
    )
    window = make_window(examples=(DIGITS_KERAS,))
    window.activateWindow()
    page = window.predict_page
    qtbot.waitUntil(lambda: bool(page.start.cards) and page.start.cards[0].isVisible(), timeout=WAIT_MS)
    tab_to(page.start.cards[0].load_button)
    press(Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: window.shelf.active is not None and page.ready.isVisible(), timeout=WAIT_MS)
    strip = page.ready.strip
    qtbot.waitUntil(lambda: bool(strip.buttons), timeout=WAIT_MS)
    window.centralWidget().setFocus()
    tab_to(strip.buttons[0])
    press(Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: page.work.dock.bars.answers == [("7", 0.99)], timeout=WAIT_MS)
    window.centralWidget().setFocus()
    press(Qt.Key.Key_2, Qt.KeyboardModifier.ControlModifier)
    assert window.pages.currentIndex() == SERVER
    tab_to(window.server_page.switch)
    press(Qt.Key.Key_Right)
    qtbot.waitUntil(lambda: window.server_page.switch.value == "computer", timeout=WAIT_MS)
    press(Qt.Key.Key_Right)
    qtbot.waitUntil(lambda: window.server_page.switch.value == "network", timeout=WAIT_MS)
    qtbot.waitUntil(window.server_page.code.code.isVisible, timeout=WAIT_MS)
    assert window.server_page.code.code.text.startswith("http://192.168.1.24:8765/#key=")


def test_tab_goes_round_and_meets_everything_once(qtbot: QtBot, busy_window: MainWindow) -> None:
    """Of the Server page: whatever Tab may reach is reached, and then it starts again."""
    window = busy_window
    window.centralWidget().setFocus()
    met: list[QWidget] = []
    for _ in range(200):
        press(Qt.Key.Key_Tab)
        focus = QApplication.focusWidget()
        assert focus is not None
        if focus in met:
            break
        met.append(focus)
    reachable = [
        control for control, _ in walk(window)
        if control.focusPolicy() & Qt.FocusPolicy.TabFocus and control.isEnabled()
    ]  # fmt: skip
    missed = [f"{type(w).__name__} {w.accessibleName()}" for w in reachable if w not in met]
    assert missed == []


def test_f6_goes_from_part_to_part(qtbot: QtBot, busy_window: MainWindow) -> None:
    window = busy_window
    window.centralWidget().setFocus()
    parts = []
    for modifier in (Qt.KeyboardModifier.NoModifier,) * 4 + (Qt.KeyboardModifier.ShiftModifier,) * 2:
        press(Qt.Key.Key_F6, modifier)
        focus = QApplication.focusWidget()
        assert focus is not None
        regions = {"header": window.header, "rail": window.rail, "page": window.server_page}
        parts.append(next(name for name, region in regions.items() if region.isAncestorOf(focus)))
    assert parts == ["header", "rail", "page", "header", "page", "rail"]
    assert window.rail.buttons[SERVER].hasFocus(), "the page one is on, not the first in the rail"


# -- contrast ----------------------------------------------------------------------------------------------------------
def contrast(one: QColor, other: QColor) -> float:
    """WCAG 2.1, "contrast ratio"."""

    def luminance(colour: QColor) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour.getRgbF()[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("tokens", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_and_edges_are_told_apart_in_both_themes(tokens: theme.Tokens) -> None:
    """AA: 4.5 for text on every fill it stands on, 3 for the edges of what can be operated."""
    fills = ("window", "surface", "sunken", "rail")
    for role in ("text", "text2", "text3", "accent", "lan", "ok", "warn", "error"):
        for fill in fills if role in ("text", "text2") else ("window", "surface"):
            assert contrast(tokens.color(role), tokens.color(fill)) >= 4.5, (role, fill)
    for role, fill in (
        ("on_accent", "accent"), ("on_accent", "accent_hover"), ("on_lan", "lan"), ("accent", "accent_soft"),
        ("lan", "lan_soft"), ("ok", "ok_soft"), ("warn", "warn_soft"), ("error", "error_soft"), ("text2", "track"),
        ("text", "hover"), ("text3", "sunken"),
    ):  # fmt: skip
        assert contrast(tokens.color(role), tokens.color(fill)) >= 4.5, (role, fill)
    for fill in ("window", "surface", "btn"):
        assert contrast(tokens.color("ctl"), tokens.color(fill)) >= 3.0, fill


def test_sizes_follow_the_font_of_the_system(
    qtbot: QtBot, make_window: WindowFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At one and a half times the size nothing is cut off that was not before."""
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    before = application.property(theme._BODY_PX_PROPERTY)
    application.setProperty(theme._BODY_PX_PROPERTY, 20)
    try:
        window = make_window(settings=replace_setting(Settings(), "window", theme="light"))
        assert theme.px("body") == 20
        for page in (PREDICT, SERVER, SETTINGS):
            window.show_page(page)
            QApplication.processEvents()
            for button in window.findChildren(QAbstractButton):
                if button.isVisible() and button.text():
                    assert button.height() >= button.fontMetrics().height() - 2, button.text()
                    assert button.width() + 2 >= button.minimumSizeHint().width(), button.text()
    finally:
        application.setProperty(theme._BODY_PX_PROPERTY, before)


def test_right_to_left_turns_the_window_round(qtbot: QtBot, make_window: WindowFactory) -> None:
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    application.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    try:
        window = make_window()
        window.show_page(SERVER)
        QApplication.processEvents()
        assert window.rail.x() > window.pages.mapTo(window, window.pages.rect().topLeft()).x()
        switch = window.server_page.switch
        switch_to(qtbot, window, "computer")
        assert switch.value == "computer"
        assert not window.grab().isNull()
    finally:
        application.setLayoutDirection(Qt.LayoutDirection.LeftToRight)


def test_a_switch_can_be_operated_by_a_screen_reader(qtbot: QtBot, window: MainWindow) -> None:
    """Its positions are radio buttons; choosing one asks for it, and the chosen one is where the switch stands."""
    window.show_page(SERVER)
    switch = window.server_page.switch

    def told(number: int) -> QAccessibleInterface:
        return QAccessible.queryAccessibleInterface(switch.positions[number])

    assert [told(n).role() for n in range(3)] == [QAccessible.Role.RadioButton] * 3
    assert [told(n).text(QAccessible.Text.Name) for n in range(3)] == ["Off", "This computer", "Network"]
    assert [position.isChecked() for position in switch.positions] == [True, False, False]
    action = told(1).actionInterface()
    action.doAction(action.actionNames()[0])
    qtbot.waitUntil(lambda: switch.value == "computer" and not switch.busy, timeout=WAIT_MS)
    assert [position.isChecked() for position in switch.positions] == [False, True, False]
    # What cannot be done at once leaves it where it is.
    window.settings_page.theme.setEnabled(False)
    window.settings_page.theme.positions[2].toggle()
    assert [position.isChecked() for position in window.settings_page.theme.positions] == [True, False, False]
