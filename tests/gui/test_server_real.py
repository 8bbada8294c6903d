"""The Server page over the real server: what is clicked there holds on the socket, at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot

from embedded_server import ServerController
from embedded_server.addresses import InterfaceAddress, lan_addresses
from engine.settings import Settings, SettingsStore
from gui import build_window
from gui.actions import SERVER
from gui.main_window import MainWindow
from gui.panels.access_tab import KeyLine
from gui.panels.server_tabs import ACCESS, LIMITS, LOG
from tests.embedded_server.wire import Answer, Wire
from tests.fakes import FakeEngine, spec
from tests.gui.conftest import WAIT_MS
from tests.gui.test_server_page import switch_to
from tests.ports import free_port


@pytest.fixture
def lan() -> InterfaceAddress:
    addresses = lan_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    return addresses[0]


@pytest.fixture
def serving(qtbot: QtBot, lan: InterfaceAddress, tmp_path: Path) -> Iterator[tuple[MainWindow, FakeEngine]]:
    engine = FakeEngine((spec(),))
    server = ServerController(engine, Settings().server, tmp_path)
    window = build_window(engine, server, Settings(), SettingsStore(tmp_path / "settings.json"))
    window.show()
    qtbot.waitExposed(window)
    window.server_page.port.setValue(free_port())
    window.show_page(SERVER)
    switch_to(qtbot, window, "network")
    yield window, engine
    window.close()
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
    window.deleteLater()


def ask(window: MainWindow, address: str, secret: str, body: bytes = b"picture") -> Answer:
    port = window.server.state.port
    with Wire(port, address) as wire:
        headers = {"Host": f"{address}:{port}", "Authorization": f"Bearer {secret}", "Content-Type": "image/png"}
        return wire.request("POST", "/predict/digits-keras", body, **headers).answer()


def test_what_is_clicked_holds_on_the_socket(
    qtbot: QtBot, serving: tuple[MainWindow, FakeEngine], lan: InterfaceAddress
) -> None:
    window, engine = serving
    page = window.server_page
    tabs, access = page.tabs, page.tabs.access
    assert any(row.url == f"http://{lan.address}:{window.server.state.port}" for row in page.rows)
    qtbot.waitUntil(lambda: window.server.reach is not None and window.server.reach.failed == (), timeout=WAIT_MS)
    assert "scan the code" in page.code.sentence.text() or "firewall" in page.code.sentence.text()

    tabs.bar.setCurrentIndex(ACCESS)
    access.name.setText("lab phones")
    access.make_button.click()
    qtbot.waitUntil(lambda: len(access.rows) == 1, timeout=WAIT_MS)
    access.made.copy_button.click()
    secret = QGuiApplication.clipboard().text()
    assert ask(window, lan.address, secret).status == 200
    row = access.rows[0]
    assert isinstance(row, KeyLine)
    row.pause_button.click()
    qtbot.waitUntil(lambda: window.server.state.paused_keys == ("lab phones",), timeout=WAIT_MS)
    assert ask(window, lan.address, secret).code == "key_rights"
    qtbot.waitUntil(lambda: "paused" in page.tabs.access.rows[0].words.text(), timeout=WAIT_MS)  # type: ignore[union-attr]
    access.rows[0].pause_button.click()  # type: ignore[union-attr]
    qtbot.waitUntil(lambda: window.server.state.paused_keys == (), timeout=WAIT_MS)

    engine.publish_snapshot()
    table = tabs.requests.model
    qtbot.waitUntil(lambda: table.rowCount() >= 2, timeout=WAIT_MS)
    refused = next(record for record in table.records if record.code == "key_paused")
    assert refused.key == "lab phones"
    block = next(a for a in tabs.requests.menu_of(refused).actions() if a.text() == f"Block {lan.address}")
    block.trigger()
    qtbot.waitUntil(lambda: window.server.state.blocked == (lan.address,), timeout=WAIT_MS)
    assert ask(window, lan.address, secret).code == "not_allowed"
    qtbot.waitUntil(lambda: len(access.rows) == 2, timeout=WAIT_MS)
    access.rows[1].button.click()  # type: ignore[union-attr]
    qtbot.waitUntil(lambda: window.server.state.blocked == (), timeout=WAIT_MS)

    tabs.pause_button.click()
    qtbot.waitUntil(lambda: window.server.state.paused, timeout=WAIT_MS)
    assert (ask(window, lan.address, secret).status, ask(window, "127.0.0.1", secret).status) == (503, 200)
    tabs.pause_button.click()
    qtbot.waitUntil(lambda: not window.server.state.paused, timeout=WAIT_MS)

    tabs.bar.setCurrentIndex(LIMITS)
    started = window.server.state.started_at
    tabs.limits.body.setValue(1)
    qtbot.waitUntil(lambda: window.server.is_running and window.server.state.started_at != started, timeout=WAIT_MS)
    assert ask(window, lan.address, secret, b"x" * (2 << 20)).status == 413
    assert ask(window, lan.address, secret).status == 200

    tabs.bar.setCurrentIndex(LOG)
    qtbot.waitUntil(lambda: "lab phones" in tabs.log.text.toPlainText(), timeout=WAIT_MS)
    assert secret not in tabs.log.text.toPlainText()

    tabs.bar.setCurrentIndex(ACCESS)
    access.rows[0].remove_button.click()  # type: ignore[union-attr]
    qtbot.waitUntil(lambda: access.rows == [], timeout=WAIT_MS)
    assert ask(window, lan.address, secret).status == 401
    access.banner.action.click()
    qtbot.waitUntil(lambda: len(access.rows) == 1, timeout=WAIT_MS)
    assert ask(window, lan.address, secret).status == 200
    assert window.isActiveWindow()
