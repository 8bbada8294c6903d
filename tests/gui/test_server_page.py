"""The three-way switch, addresses, the key, and the live table of requests."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.errors import ServerStartError
from engine.serving_types import RequestRecord, RequestState, ServerProblem, ServerScope, ServerState
from gui.actions import SERVER
from gui.item_models.requests_model import FROM, LIMIT, STATE, caller_words
from gui.main_window import MainWindow
from tests.fakes import FakeEngine, FakeServer
from tests.gui.conftest import WAIT_MS


class SlowServer(FakeServer):
    """Starts when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def start(self, scope: ServerScope, port: int) -> ServerState:
        assert self.gate.wait(30)
        return super().start(scope, port)


def switch_to(qtbot: QtBot, window: MainWindow, value: str) -> None:
    page = window.server_page
    page.switch.click_choice(value)
    qtbot.waitUntil(lambda: page.switch.value == value and not page.switch.busy, timeout=WAIT_MS)
    assert window.isActiveWindow(), "something came up as a window of its own and took the keyboard"


def record(number: int, at: float, state: RequestState = RequestState.ANSWERED, lane: str = "lan") -> RequestRecord:
    return RequestRecord(f"r{number}", at, lane, "192.168.1.57", "wine", state, 1000, 1.0, 2.0)


def test_the_switch_goes_through_its_three_positions(qtbot: QtBot, window: MainWindow, server: FakeServer) -> None:
    page, pill = window.server_page, window.header.pill
    assert pill.words == "Server off"
    switch_to(qtbot, window, "computer")
    assert (page.title.text(), pill.words) == ("Serving this computer", "This computer")
    assert [row.url for row in page.rows] == ["http://127.0.0.1:8765"]
    assert page.key_row.isHidden()
    switch_to(qtbot, window, "network")
    assert (page.title.text(), pill.words) == ("Serving the network", "Network")
    assert len(page.rows) == 2
    assert not page.key_row.isHidden()
    switch_to(qtbot, window, "off")
    assert (page.title.text(), pill.words) == ("The server is off", "Server off")
    assert page.rows == []
    assert [scope for scope, _ in server.starts] == [ServerScope.COMPUTER, ServerScope.NETWORK]


class TestSlowServer:
    @pytest.fixture
    def server(self) -> SlowServer:
        return SlowServer()

    def test_the_switch_moves_only_when_the_server_answered(
        self, qtbot: QtBot, window: MainWindow, server: SlowServer
    ) -> None:
        page = window.server_page
        page.switch.click_choice("network")
        assert (page.switch.value, page.switch.busy) == ("off", "network")
        assert window.header.pill.words == "Starting"
        page.switch.click_choice("computer")
        window.server.switch(ServerScope.COMPUTER, 8765)
        server.gate.set()
        qtbot.waitUntil(lambda: page.switch.value == "network", timeout=WAIT_MS)
        assert [scope for scope, _ in server.starts] == [ServerScope.NETWORK]


def test_a_port_in_use_is_named_with_the_next_free_one(qtbot: QtBot, window: MainWindow, server: FakeServer) -> None:
    server.error = ServerStartError("taken", port=8765, free_port=8766)
    server.problem = ServerProblem("port_in_use", "taken", 8765, 8766)
    page = window.server_page
    window.show_page(SERVER)
    page.switch.click_choice("computer")
    qtbot.waitUntil(lambda: page.banner.isVisible(), timeout=WAIT_MS)
    assert page.switch.value == "off"
    assert page.banner.sentence == "Port 8765 is in use by another program."
    assert page.banner.action.text() == "Use 8766"
    assert window.header.pill.words == "Port 8765 taken"
    server.error = None
    page.banner.action.click()
    qtbot.waitUntil(lambda: page.switch.value == "computer", timeout=WAIT_MS)
    assert server.starts[-1] == (ServerScope.COMPUTER, 8766)
    assert page.banner.isHidden()


def test_addresses_and_key_are_copied(qtbot: QtBot, window: MainWindow) -> None:
    switch_to(qtbot, window, "network")
    page, clipboard = window.server_page, QGuiApplication.clipboard()
    page.rows[0].copy_button.click()
    assert clipboard.text() == "http://192.168.1.24:8765"
    page.key_row.copy_button.click()
    secret = "k" * 39 + "3f9a"
    assert clipboard.text() == secret
    page.key_row.link_button.click()
    assert clipboard.text() == f"http://192.168.1.24:8765/#key={secret}"
    assert page.key_row.secret_label.text() == secret


def test_a_new_key_replaces_the_old_one_after_a_question(qtbot: QtBot, window: MainWindow) -> None:
    switch_to(qtbot, window, "network")
    row = window.server_page.key_row
    row.renew_button.click()
    row.keep_button.click()
    assert row.secret_label.text().endswith("3f9a")
    row.renew_button.click()
    row.confirm_button.click()
    qtbot.waitUntil(lambda: row.secret_label.text().endswith("77c1"), timeout=WAIT_MS)


def test_a_key_made_before_shows_only_its_end(qtbot: QtBot, window: MainWindow, server: FakeServer) -> None:
    switch_to(qtbot, window, "network")
    from dataclasses import replace

    from engine.serving_types import KeyInfo

    server.publish(replace(server.state, key=KeyInfo("window", "aa11", 0.0)))
    row = window.server_page.key_row
    qtbot.waitUntil(lambda: row.words.text() == "Key, ends in aa11", timeout=WAIT_MS)
    assert row.secret_label.text() == ""
    assert row.copy_button.isHidden()
    assert row.link_button.isHidden()


def test_the_table_merges_both_doors_by_time(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, server: FakeServer
) -> None:
    engine.records = [record(1, 10.0, lane="owner"), record(2, 8.0)]
    engine.publish_snapshot()
    refused = RequestRecord("x", 9.0, "lan", "192.168.1.90", "", RequestState.REFUSED, 10, code="key_invalid")
    server.publish(ServerState(port=8765, refusals=(refused,)))
    model = window.server_page.tabs.requests.model
    qtbot.waitUntil(lambda: model.rowCount() == 3, timeout=WAIT_MS)
    assert [r.id for r in model.records] == ["r1", "x", "r2"]
    assert model.data(model.index(0, FROM)) == "you"
    assert model.data(model.index(1, STATE)) == "refused, wrong key"


def test_the_table_keeps_the_last_hundred(qtbot: QtBot, window: MainWindow, engine: FakeEngine) -> None:
    engine.records = [record(i, float(i)) for i in range(150)]
    engine.publish_snapshot()
    model = window.server_page.tabs.requests.model
    qtbot.waitUntil(lambda: model.rowCount() == LIMIT, timeout=WAIT_MS)
    assert model.records[0].id == "r149"


def test_the_table_holds_still_under_the_pointer(qtbot: QtBot, window: MainWindow, engine: FakeEngine) -> None:
    model, viewport = window.server_page.tabs.requests.model, window.server_page.tabs.requests.table.viewport()
    engine.records = [record(1, 1.0, RequestState.RUNNING)]
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: model.rowCount() == 1, timeout=WAIT_MS)
    QApplication.sendEvent(viewport, QEvent(QEvent.Type.Enter))
    engine.records = [record(2, 2.0), record(1, 1.0, RequestState.ANSWERED)]
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: model.records[0].state is RequestState.ANSWERED, timeout=WAIT_MS)
    assert [r.id for r in model.records] == ["r1"]
    QApplication.sendEvent(viewport, QEvent(QEvent.Type.Leave))
    assert [r.id for r in model.records] == ["r2", "r1"]


def test_pages_are_reached_by_keys_and_by_the_pill(qtbot: QtBot, window: MainWindow) -> None:
    qtbot.keyClick(window, Qt.Key.Key_2, Qt.KeyboardModifier.ControlModifier)
    assert window.pages.currentIndex() == SERVER
    qtbot.keyClick(window, Qt.Key.Key_1, Qt.KeyboardModifier.ControlModifier)
    assert window.pages.currentIndex() == 0
    window.header.pill.click()
    assert window.pages.currentIndex() == SERVER


def test_every_control_has_a_name(qtbot: QtBot, ready_window: MainWindow, make_window: Callable[..., object]) -> None:
    from PySide6.QtWidgets import QAbstractButton, QAbstractSpinBox

    buttons = ready_window.findChildren(QAbstractButton)
    nameless = [b for b in buttons if not b.accessibleName() and not b.text() and b.isVisible()]
    spins = [s for s in ready_window.findChildren(QAbstractSpinBox) if not s.accessibleName()]
    assert (nameless, spins) == ([], [])


def test_a_caller_is_its_key_and_its_address() -> None:
    facts = ("r", 0.0, "lan", "192.168.1.57", "wine", RequestState.ANSWERED, 1)
    assert caller_words(RequestRecord(*facts)) == "192.168.1.57"
    assert caller_words(RequestRecord(*facts, key="lab 1")) == "lab 1 192.168.1.57"
    assert caller_words(RequestRecord("r", 0.0, "loopback", "", "wine", RequestState.ANSWERED, 1)) == "this computer"
    assert caller_words(RequestRecord("r", 0.0, "owner", "", "wine", RequestState.ANSWERED, 1)) == "you"
