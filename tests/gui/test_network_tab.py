"""Which networks are served and whether what is sent is encrypted, as a person chooses and sees it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from embedded_server.controller import ServeOptions, ServerController
from engine.serving_types import CertificateInfo, InterfaceKind, NetworkInterface, ServerScope
from engine.settings import ServerSettings
from gui.actions import SERVER
from gui.main_window import MainWindow
from gui.panels.encryption_row import encryption_words
from gui.panels.server_tabs import NETWORK
from gui.request_code import as_curl, as_python
from tests.fakes import FakeEngine, FakeServer
from tests.gui.conftest import WAIT_MS
from tests.gui.test_server_page import switch_to

CERTIFICATE = CertificateInfo("AB:" * 31 + "CD", "sha256//pin=", 1_795_000_000.0, True, "curl --insecure x")


@pytest.fixture
def serving(qtbot: QtBot, ready_window: MainWindow) -> MainWindow:
    """The Server page with its Network tab open, serving the network."""
    ready_window.show_page(SERVER)
    switch_to(qtbot, ready_window, "network")
    ready_window.server_page.tabs.bar.setCurrentIndex(NETWORK)
    qtbot.waitUntil(lambda: len(ready_window.server_page.tabs.network.rows) == 2, timeout=WAIT_MS)
    return ready_window


def test_each_interface_says_what_it_leads_to(qtbot: QtBot, serving: MainWindow) -> None:
    rows = serving.server_page.tabs.network.rows
    assert [(row.box.text(), row.box.isChecked()) for row in rows] == [("eth0", True), ("wg0", False)]
    assert rows[1].box.accessibleName() == "Serve wg0, 10.8.0.2, VPN or modem: others far away could reach it"


def test_a_choice_is_kept_and_served_and_taken_back(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    tab = serving.server_page.tabs.network
    assert not tab.every.isVisible()
    server.networks = tuple(replace(network, chosen=True) for network in server.networks)
    tab.rows[1].box.click()
    qtbot.waitUntil(lambda: bool(server.applied), timeout=WAIT_MS)
    assert server.applied[-1].interfaces == ["eth0", "wg0"]
    qtbot.waitUntil(lambda: tab.every.isVisible() and tab.rows[1].shows.chosen, timeout=WAIT_MS)
    tab.every.click()
    qtbot.waitUntil(lambda: server.applied[-1].interfaces == [], timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not tab.every.isVisible(), timeout=WAIT_MS)


def test_the_last_one_stays_chosen(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    tab = serving.server_page.tabs.network
    tab.rows[0].box.click()
    assert tab.banner.isVisible()
    assert tab.rows[0].box.isChecked()
    assert not server.applied


def test_an_interface_that_comes_is_listed(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    server.networks += (NetworkInterface("wlan0", ("10.0.0.3",), InterfaceKind.NETWORK, True),)
    server.publish(replace(server.state))
    qtbot.waitUntil(lambda: len(serving.server_page.tabs.network.rows) == 3, timeout=WAIT_MS)


def test_encryption_is_switched_on_and_shown(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    page, tab = serving.server_page, serving.server_page.tabs.network
    assert page.encryption.words.text().startswith("Not encrypted")
    tab.encryption.click_choice("self-signed")
    qtbot.waitUntil(lambda: bool(server.applied), timeout=WAIT_MS)
    assert server.applied[-1].tls == "self-signed"
    assert tab.encryption.value == "self-signed"
    server.publish(replace(server.state, certificate=CERTIFICATE))
    qtbot.waitUntil(page.encryption.fingerprint.isVisible, timeout=WAIT_MS)
    assert page.encryption.fingerprint.text().replace("\n", "") == CERTIFICATE.fingerprint
    page.encryption.curl_button.click()
    assert QGuiApplication.clipboard().text() == CERTIFICATE.curl
    page.encryption.fingerprint_button.click()
    assert QGuiApplication.clipboard().text() == CERTIFICATE.fingerprint
    assert "The fingerprint is on the clipboard." in {text.text() for text in serving.status_line.findChildren(QLabel)}


def test_an_own_certificate_needs_both_files(
    qtbot: QtBot, serving: MainWindow, server: FakeServer, tmp_path: Path
) -> None:
    tab = serving.server_page.tabs.network
    tab.encryption.click_choice("own")
    assert tab.certificate.isVisible()
    tab.certificate.take(str(tmp_path / "lab.pem"))
    assert not server.applied
    tab.key.take(str(tmp_path / "lab.key"))
    qtbot.waitUntil(lambda: bool(server.applied), timeout=WAIT_MS)
    applied = server.applied[-1]
    assert (applied.tls, applied.tls_certificate, applied.tls_key) == (
        "own", str(tmp_path / "lab.pem"), str(tmp_path / "lab.key"),
    )  # fmt: skip


def test_what_a_certificate_needs_is_said(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    notice = "The certificate lab.pem ends on 2026-12-04."
    own = replace(CERTIFICATE, self_signed=False, notices=(notice,))
    server.publish(replace(server.state, certificate=own))
    row = serving.server_page.encryption
    qtbot.waitUntil(row.notice.isVisible, timeout=WAIT_MS)
    assert row.notice.text() == notice
    assert encryption_words(own) == row.words.text()
    assert "fingerprint" not in row.words.text()


def test_a_low_window_scrolls_and_draws_nothing_over_anything(
    qtbot: QtBot, serving: MainWindow, server: FakeServer
) -> None:
    server.publish(replace(server.state, certificate=CERTIFICATE))
    page = serving.server_page
    qtbot.waitUntil(page.encryption.fingerprint.isVisible, timeout=WAIT_MS)
    serving.resize(900, serving.minimumHeight())
    for text in page.encryption.findChildren(QLabel):
        if text.isVisible() and text.text():
            qtbot.waitUntil(lambda text=text: text.height() >= text.heightForWidth(text.width()), timeout=WAIT_MS)  # type: ignore[misc]
    for above, below in zip(page.rows, page.rows[1:], strict=False):
        assert above.geometry().bottom() < below.geometry().top()


@pytest.mark.parametrize("write", [as_curl, as_python], ids=["curl", "Python"])
def test_what_is_copied_asks_the_server_and_nobody_else(write: object, tmp_path: Path) -> None:
    """Run as it was copied, against the real server, and against one with another key."""
    controller = ServerController(FakeEngine(), ServerSettings(), tmp_path / "data")
    try:
        state = controller.start_at(ServeOptions(port=0, tls=True))
        certificate = state.certificate
        assert certificate is not None
        file = tmp_path / "x.png"
        file.write_bytes(b"no picture")

        def run(certificate: CertificateInfo) -> str:
            code = write(state.urls[0].url, "digits-keras", file=str(file), certificate=certificate)  # type: ignore[operator]
            command = ["sh", "-c", code] if write is as_curl else [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            return done.stdout if done.returncode == 0 else f"refused: {done.returncode} {done.stderr}"

        answer = run(certificate)
        assert "model_not_found" in answer, answer
        other = replace(certificate, pin="sha256//" + "A" * 43 + "=", fingerprint=certificate.fingerprint[::-1])
        assert run(other).startswith("refused:")
    finally:
        controller.stop()


def test_code_for_plain_http_and_for_a_known_authority_pins_nothing() -> None:
    for certificate in (None, replace(CERTIFICATE, self_signed=False)):
        assert "pinned" not in as_curl("https://x:1", "a", certificate=certificate)
        ast.parse(as_python("https://x:1", "a", certificate=certificate))
        assert "fingerprint" not in as_python("https://x:1", "a", certificate=certificate)
    assert re.search(
        r"--insecure --pinnedpubkey '?sha256//pin='?", as_curl("https://x:1", "a", certificate=CERTIFICATE)
    )


def test_the_switch_position_survives_a_change(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    serving.server_page.tabs.network.encryption.click_choice("self-signed")
    qtbot.waitUntil(lambda: bool(server.applied), timeout=WAIT_MS)
    assert server.state.scope is ServerScope.NETWORK
