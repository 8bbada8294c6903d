"""The Server page below its switch: charts, QR code, reach, keys, limits, log; and staying awake."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from engine.events import Snapshot
from engine.serving_types import KeyInfo, ReachReport, RequestRecord, RequestState, ServerScope, ServerState
from engine.settings import ServerSettings, SettingsStore
from gui.actions import SERVER
from gui.calm import BURST
from gui.item_models.requests_model import ACTION, STATE, RequestsModel, ordinal, state_words
from gui.keep_awake import KeepAwake, inhibitor_command
from gui.main_window import MainWindow
from gui.panels.access_tab import KeyLine, key_words
from gui.panels.log_tab import line_words
from gui.panels.reach_card import reach_words
from gui.panels.server_tabs import ACCESS, LIMITS, LOG
from gui.request_code import as_curl, as_python
from gui.server_meter import ServerMeter
from gui.widgets.live_chart import LiveChart
from gui.widgets.qr_code import QrCode
from tests.fakes import FakeEngine, FakeServer, spec
from tests.gui.conftest import WAIT_MS, WindowFactory
from tests.gui.test_server_page import record, switch_to


@pytest.fixture
def serving(qtbot: QtBot, ready_window: MainWindow) -> MainWindow:
    """A window whose server answers the network, its Server page open."""
    ready_window.show_page(SERVER)
    switch_to(qtbot, ready_window, "network")
    return ready_window


def stats(window: int, network: int, runs: int, rows: int, waiting: int = 0) -> dict[str, Any]:
    model = {"requests": {"window": window, "network": network}, "inferences": runs, "statistics": {"rows": rows}}
    return {"models": [model], "waiting": waiting, "running": 0}


# -- the code and the addresses --------------------------------------------------------------------------------------
def test_the_code_is_what_a_phone_reads(qtbot: QtBot) -> None:
    """Every module is one colour: read back from the picture, row by row, against the library's own matrix."""
    import segno

    code = QrCode()
    qtbot.addWidget(code)
    text = "http://192.168.1.24:8765/#key=" + "k" * 43
    code.set_text(text, "QR code of the page")
    picture = code.grab().toImage().convertToFormat(QImage.Format.Format_Grayscale8)
    pixels = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), -1)[:, : picture.width()]
    matrix = np.array([list(row) for row in segno.make(text, error="m", micro=False).matrix])
    side = len(matrix) + 8
    module = picture.width() // side
    first = (picture.width() - module * side) // 2 + 4 * module
    centres = first + module * np.arange(len(matrix)) + module // 2
    assert (pixels[np.ix_(centres, centres)] < 128).astype(int).tolist() == (matrix > 0).astype(int).tolist()
    quiet = pixels[first - 4 * module : first, first : first + module * len(matrix)]
    assert quiet.min() == 255, "the quiet zone is white in every theme"
    assert module >= 3


def test_the_code_follows_the_switch_and_the_chosen_address(
    qtbot: QtBot, serving: MainWindow, server: FakeServer
) -> None:
    page = serving.server_page
    secret = "k" * 39 + "3f9a"
    assert page.code.code.text == f"http://192.168.1.24:8765/#key={secret}"
    assert secret not in page.code.code.accessibleName()
    urls = (*server.state.urls[:1], replace(server.state.urls[0], url="http://10.0.0.7:8765"), server.state.urls[-1])
    server.publish(replace(server.state, urls=urls))
    qtbot.waitUntil(lambda: len(page.rows) == 3, timeout=WAIT_MS)
    page.rows[1].code_button.click()
    assert page.code.code.text.startswith("http://10.0.0.7:8765/#key=")
    assert page.rows[2].code_button.isHidden(), "no phone reaches this computer's own name for itself"
    switch_to(qtbot, serving, "computer")
    assert page.code.isHidden()


def test_a_key_that_nobody_knows_any_more_is_not_in_the_code(
    qtbot: QtBot, window: MainWindow, server: FakeServer
) -> None:
    window.show_page(SERVER)
    switch_to(qtbot, window, "network")
    server.publish(replace(server.state, key=KeyInfo("window", "aa11", 0.0)))
    code = window.server_page.code
    qtbot.waitUntil(lambda: code.code.text == "http://192.168.1.24:8765", timeout=WAIT_MS)
    assert code.words.text() == "It asks for the key"


def test_reach_is_green_only_for_a_caller_that_was_seen() -> None:
    state = ServerState(port=8765)
    tones = [
        reach_words(replace(state, reached_at=time.time()), None)[0],
        reach_words(state, None)[0],
        reach_words(state, ReachReport(("http://192.168.1.24:8765",)))[0],
        reach_words(state, ReachReport((), "ufw", False))[0],
        reach_words(state, ReachReport((), "ufw", True))[0],
        reach_words(state, ReachReport())[0],
    ]
    assert tones == ["ok", "", "error", "warn", "", ""]
    assert "8765" in reach_words(state, ReachReport((), "ufw", False))[2]


def test_reach_is_looked_at_when_the_network_is_switched_on(
    qtbot: QtBot, ready_window: MainWindow, server: FakeServer
) -> None:
    server.reach = ReachReport(("http://192.168.1.24:8765",))
    ready_window.show_page(SERVER)
    switch_to(qtbot, ready_window, "network")
    card = ready_window.server_page.code
    qtbot.waitUntil(lambda: card.sentence.text().startswith("192.168.1.24:8765 does not answer"), timeout=WAIT_MS)
    server.reach = ReachReport()
    card.check_button.click()
    qtbot.waitUntil(lambda: "scan the code" in card.sentence.text(), timeout=WAIT_MS)
    server.publish(replace(server.state, reached_at=time.time()))
    qtbot.waitUntil(lambda: card.sentence.text().startswith("Others can reach this"), timeout=WAIT_MS)


def test_another_port_while_it_runs_moves_the_listener(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    serving.server_page.port.setValue(8800)
    qtbot.waitUntil(lambda: server.state.port == 8800 and server.starts[-1] == (ServerScope.NETWORK, 8800))
    qtbot.waitUntil(lambda: serving.server_page.rows[0].url.endswith(":8800"), timeout=WAIT_MS)
    assert len(server.starts) == 2


# -- charts ----------------------------------------------------------------------------------------------------------
def test_rates_are_of_the_last_second(qtbot: QtBot) -> None:
    now = [100.0]
    meter = ServerMeter(clock=lambda: now[0])
    for step in range(4):
        meter.take(Snapshot(stats(10 + step, 50 + 4 * step, 20 + 2 * step, 60 + 6 * step, waiting=step), ()))
        meter.sample()
        now[0] += 0.5
    assert list(meter.you) == [0.0, 2.0, 2.0, 2.0]
    assert list(meter.lan) == [0.0, 8.0, 8.0, 8.0]
    assert meter.batch[-1] == 3.0
    assert list(meter.waiting) == [0.0, 1.0, 2.0, 3.0]
    meter.take(Snapshot(stats(0, 0, 0, 0), ()))
    meter.sample()
    assert (meter.you[-1], meter.lan[-1]) == (0.0, 0.0), "a closed model takes its counts with it"
    now[0] += 60.0
    for _ in range(200):
        now[0] += 0.5
        meter.sample()
    assert len(meter.you) == 120


def test_the_time_to_answer_is_the_middle_and_the_slow_end_of_a_minute() -> None:
    now = time.time()
    answered = [replace(record(i, now - 1), wait_ms=float(i), run_ms=1.0) for i in range(1, 101)]
    old = [replace(record(200, now - 120), wait_ms=9000.0)]
    refused = [replace(record(201, now, RequestState.REFUSED), wait_ms=9000.0)]
    meter = ServerMeter()
    meter.take(Snapshot(stats(0, 0, 0, 0), (*answered, *old, *refused)))
    meter.sample()
    assert (meter.median[-1], meter.slow[-1]) == (52.0, 97.0)


def test_charts_are_there_while_it_serves_and_count_while_they_are_seen(
    qtbot: QtBot, serving: MainWindow, engine: FakeEngine
) -> None:
    page = serving.server_page
    assert page.charts.isVisible()
    seen = len(page.meter.you)
    qtbot.waitUntil(lambda: len(page.meter.you) > seen, timeout=WAIT_MS)
    assert page.charts.waiting.sentence.text() == "of 256 places"
    assert page.charts.time.number.text() == "–"
    serving.show_page(0)
    assert not page.meter._timer.isActive()
    serving.show_page(SERVER)
    assert page.meter._timer.isActive()
    switch_to(qtbot, serving, "off")
    assert page.charts.isHidden()
    assert not page.meter._timer.isActive()


def test_a_line_ends_at_the_right_edge_and_starts_at_zero(qtbot: QtBot) -> None:
    chart = LiveChart()
    qtbot.addWidget(chart)
    chart.resize(240, 44)
    before = chart.grab().toImage()
    chart.show_series([("error", [0.0, 10.0], False)])
    after = chart.grab().toImage()
    changed = [
        (x, y) for x in range(240) for y in range(44) if before.pixelColor(x, y) != after.pixelColor(x, y)
    ]  # fmt: skip
    assert changed
    assert min(x for x, _ in changed) >= 235
    assert min(y for _, y in changed) <= 6


# -- requests --------------------------------------------------------------------------------------------------------
def test_places_in_line_are_said() -> None:
    waiting = record(1, 1.0, RequestState.WAITING)
    assert [state_words(replace(waiting, position=place)) for place in (None, 0, 1, 2, 10, 21)] == [
        "waiting", "next", "2nd in line", "3rd in line", "11th in line", "22nd in line",
    ]  # fmt: skip
    assert [ordinal(n) for n in (1, 4, 12, 13, 103, 112)] == ["1st", "4th", "12th", "13th", "103rd", "112th"]


def test_the_table_is_filtered_by_caller_model_and_state(qtbot: QtBot, serving: MainWindow, engine: FakeEngine) -> None:
    engine.records = [
        replace(record(3, 3.0), key="lab phones"), replace(record(2, 2.0, RequestState.FAILED), model="digits"),
        record(1, 1.0),
    ]  # fmt: skip
    engine.publish_snapshot()
    tabs = serving.server_page.tabs
    model = tabs.requests.model
    qtbot.waitUntil(lambda: model.rowCount() == 3, timeout=WAIT_MS)
    for words, ids in (("LAB", ["r3"]), ("digits failed", ["r2"]), ("answered wine", ["r3", "r1"]), ("none", [])):
        tabs.filter.setText(words)
        assert [r.id for r in model.records] == ids, words
    assert tabs.requests._empty_title.text() == "Nothing fits the filter"
    tabs.filter.clear()
    assert model.rowCount() == 3


@pytest.mark.parametrize("state", list(RequestState))
def test_every_cell_has_a_word_for_a_screen_reader(qtbot: QtBot, state: RequestState) -> None:
    model = RequestsModel()
    model.set_served([replace(record(1, 1.0), state=state, wait_ms=None, run_ms=None, size=0, model="")])
    for column in range(model.columnCount()):
        assert model.index(0, column).data(Qt.ItemDataRole.AccessibleTextRole).strip(), column


def test_a_chosen_row_stays_chosen_while_others_come(qtbot: QtBot) -> None:
    model = RequestsModel()
    resets: list[int] = []
    model.modelReset.connect(lambda: resets.append(1))
    model.set_served([record(i, float(i)) for i in range(100, 0, -1)])
    table_index = model.index(3, STATE)
    from PySide6.QtCore import QPersistentModelIndex

    chosen = QPersistentModelIndex(table_index)
    identity = model.records[3].id
    before = len(resets)
    model.set_served([record(i, float(i)) for i in range(104, 4, -1)])
    assert model.records[chosen.row()].id == identity
    assert chosen.row() == 7
    assert (len(resets), model.rowCount()) == (before, 100)


def test_a_waiting_request_is_cancelled_by_click_and_by_key(
    qtbot: QtBot, serving: MainWindow, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []
    monkeypatch.setattr(engine, "cancel", lambda request_id: cancelled.append(request_id) or True)
    engine.records = [record(2, 2.0, RequestState.WAITING), record(1, 1.0, RequestState.RUNNING)]
    engine.publish_snapshot()
    tab = serving.server_page.tabs.requests
    qtbot.waitUntil(lambda: tab.model.rowCount() == 2, timeout=WAIT_MS)
    assert serving.server_page.tabs.bar.tabText(0) == "Requests  2 live"
    spot = tab.table.visualRect(tab.model.index(0, ACTION)).center()
    qtbot.mouseClick(tab.table.viewport(), Qt.MouseButton.LeftButton, pos=spot)
    qtbot.waitUntil(lambda: cancelled == ["r2"], timeout=WAIT_MS)
    qtbot.waitUntil(lambda: serving.status_line.message == "The request was given up.", timeout=WAIT_MS)
    tab.table.setFocus()
    tab.table.setCurrentIndex(tab.model.index(1, 0))
    QTest.keyClick(tab.table, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: cancelled == ["r2", "r1"], timeout=WAIT_MS)


def test_a_request_that_is_over_offers_what_can_be_done(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    tab = serving.server_page.tabs.requests
    over = replace(record(1, 1.0), key="lab & co")
    menu = tab.menu_of(over)
    names = [action.text() for action in menu.actions()]
    assert names == ["Copy as curl", "Copy as Python", "Pause key “lab && co”", "Block 192.168.1.57"]
    menu.actions()[0].trigger()
    expected = (
        "curl --data-binary @FILE -H 'Content-Type: application/octet-stream' -H 'Authorization: Bearer YOUR_KEY'"
    )
    assert QGuiApplication.clipboard().text() == f"{expected} http://192.168.1.24:8765/predict/wine"
    menu.actions()[2].trigger()
    qtbot.waitUntil(lambda: server.state.paused_keys == ("lab & co",), timeout=WAIT_MS)
    menu.actions()[3].trigger()
    qtbot.waitUntil(lambda: server.state.blocked == ("192.168.1.57",), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: tab.menu_of(over).actions()[3].text() == "Answer 192.168.1.57 again", timeout=WAIT_MS)
    mine = RequestRecord("r", 0.0, "owner", "", "", RequestState.ANSWERED, 1)
    assert [action.isEnabled() for action in tab.menu_of(mine).actions()] == [False]


def test_the_menu_opens_under_its_row_and_holds_the_table(
    qtbot: QtBot, serving: MainWindow, engine: FakeEngine
) -> None:
    engine.records = [record(1, 1.0)]
    engine.publish_snapshot()
    tab = serving.server_page.tabs.requests
    qtbot.waitUntil(lambda: tab.model.rowCount() == 1, timeout=WAIT_MS)
    tab.act(0)
    assert tab.menu is not None
    qtbot.waitUntil(tab.menu.isVisible, timeout=WAIT_MS)
    tab.menu.close()
    qtbot.waitUntil(lambda: tab.menu is None, timeout=WAIT_MS)


def test_copied_programs_run_as_they_are(tmp_path: Path) -> None:
    """Names with quotes in them are quoted, for the shell and for Python."""
    import shlex

    line = as_curl("http://x:1", "a", file="my 'best' photo.png", content_type="image/png", keyed=True, key="se cret")
    assert shlex.split(line) == [
        "curl", "--data-binary", "@my 'best' photo.png", "-H", "Content-Type: image/png",
        "-H", "Authorization: Bearer se cret", "http://x:1/predict/a",
    ]  # fmt: skip
    program = as_python("http://x:1", "a", file="it's.png", keyed=True)
    compile(program, "copied", "exec")
    assert "'Authorization': 'Bearer YOUR_KEY'" in program


# -- who may ---------------------------------------------------------------------------------------------------------
def test_a_key_is_made_shown_once_paused_and_ended_with_a_way_back(
    qtbot: QtBot, serving: MainWindow, server: FakeServer
) -> None:
    tabs = serving.server_page.tabs
    tabs.bar.setCurrentIndex(ACCESS)
    access = tabs.access
    assert not access.make_button.isEnabled()
    assert not access.none.isHidden()
    access.name.setText("  lab   phones ")
    access.models.setCurrentIndex(1)
    access.per_minute.setValue(60)
    QTest.keyClick(access.name, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(access.rows) == 1, timeout=WAIT_MS)
    assert server.keys["lab phones"].models == ("digits-keras",)
    assert server.keys["lab phones"].per_minute == 60
    assert access.made.isVisible()
    access.made.copy_button.click()
    assert QGuiApplication.clipboard().text() == "secret-of-lab phones-aaaa"
    access.made.curl_button.click()
    assert QGuiApplication.clipboard().text().endswith("/predict/digits-keras")
    row = access.rows[0]
    assert isinstance(row, KeyLine)
    assert row.words.text() == "asks digits-keras, 60 a minute, not used yet"
    row.pause_button.click()
    qtbot.waitUntil(lambda: "paused" in first_key(serving).words.text(), timeout=WAIT_MS)
    first_key(serving).remove_button.click()
    qtbot.waitUntil(lambda: access.rows == [], timeout=WAIT_MS)
    assert access.made.isHidden(), "an ended key is shown no longer"
    assert access.banner.sentence == "The key “lab phones” has ended."
    access.banner.action.click()
    qtbot.waitUntil(lambda: len(access.rows) == 1, timeout=WAIT_MS)


def first_key(window: MainWindow) -> KeyLine:
    row = window.server_page.tabs.access.rows[0]
    assert isinstance(row, KeyLine)
    return row


def test_a_key_that_cannot_be_made_says_why(qtbot: QtBot, serving: MainWindow) -> None:
    access = serving.server_page.tabs.access
    serving.server_page.tabs.bar.setCurrentIndex(ACCESS)
    access.name.setText("<b>bad</b>")
    access.make_button.click()
    qtbot.waitUntil(access.banner.isVisible, timeout=WAIT_MS)
    assert "<b>bad</b>" in access.banner.sentence + access.banner._second.text()
    assert access.name.text() == "<b>bad</b>", "what was typed stays"


def test_a_blocked_address_is_listed_with_the_way_back(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    access = serving.server_page.tabs.access
    server.block("192.168.1.9", True)
    qtbot.waitUntil(lambda: len(access.rows) == 1, timeout=WAIT_MS)
    access.rows[0].button.click()  # type: ignore[union-attr]
    qtbot.waitUntil(lambda: server.state.blocked == () and access.rows == [], timeout=WAIT_MS)


def test_what_a_key_may_is_said_in_words() -> None:
    info = KeyInfo("a", "aaaa", 0.0, models=("x", "y"), at_once=2, last_used=0.0)
    assert key_words(info).startswith("asks x, y, 2 at once, used 1 Jan")
    assert key_words(replace(info, rights=("read",), models=None), paused=True).startswith("paused, reads only")


def test_the_network_is_paused_and_let_in_again(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    button = serving.server_page.tabs.pause_button
    assert button.text() == "Pause network"
    button.click()
    qtbot.waitUntil(lambda: server.state.paused and button.text() == "Let the network ask again", timeout=WAIT_MS)
    button.click()
    qtbot.waitUntil(lambda: not server.state.paused and button.text() == "Pause network", timeout=WAIT_MS)
    switch_to(qtbot, serving, "computer")
    assert button.isHidden()


# -- limits and log --------------------------------------------------------------------------------------------------
def test_limits_are_kept_and_reopen_the_listener_where_they_are_the_doors(
    qtbot: QtBot, engine: FakeEngine, server: FakeServer, make_window: WindowFactory, tmp_path: Path
) -> None:
    engine.add(spec())
    store = SettingsStore(tmp_path / "settings.json")
    window = make_window(store=store)
    window.show_page(SERVER)
    switch_to(qtbot, window, "network")
    window.server_page.tabs.bar.setCurrentIndex(LIMITS)
    limits = window.server_page.tabs.limits
    limits.body.setValue(64)
    qtbot.waitUntil(lambda: [s.body_bytes for s in server.applied] == [64 << 20], timeout=WAIT_MS)
    limits.share.setValue(50)
    names = window.server_page.tabs.access.names
    names.origins.setText("https://lab.example, http://10.0.0.7:3000")
    names.origins.editingFinished.emit()
    qtbot.waitUntil(lambda: len(server.applied) == 2, timeout=WAIT_MS)
    assert server.applied[-1].cors_origins == ["https://lab.example", "http://10.0.0.7:3000"]
    qtbot.waitUntil(lambda: store.load().limits.lan_share == 0.5, timeout=WAIT_MS)
    assert store.load().server.body_bytes == 64 << 20
    limits.awake.click_choice("no")
    qtbot.waitUntil(lambda: store.load().server.keep_awake is False, timeout=WAIT_MS)
    assert limits.awake.value == "no"
    assert len(server.applied) == 2, "staying awake is not the door's business: nobody is cut off for it"


def test_a_limit_that_is_none_is_refused_in_words(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    serving.server_page.tabs.bar.setCurrentIndex(ACCESS)
    names = serving.server_page.tabs.access.names
    names.origins.setText("*")
    names.origins.editingFinished.emit()
    assert names.banner.isVisible()
    assert "is no origin" in names.banner._second.text()
    assert server.applied == []


def test_the_log_is_read_while_it_is_looked_at(qtbot: QtBot, serving: MainWindow, server: FakeServer) -> None:
    entry = {
        "time": "2026-11-27T10:00:00.123+00:00", "id": "a", "lane": "lan", "client": "192.168.1.57", "key": "lab",
        "method": "POST", "path": "/predict/wine", "model": "wine", "status": 401, "reason": "key_invalid",
        "received": 1, "sent": 2, "ms": 3.21,
    }  # fmt: skip
    server.lines = (json.dumps(entry), "not json")
    tabs = serving.server_page.tabs
    assert tabs.log.text.toPlainText() == ""
    tabs.bar.setCurrentIndex(LOG)
    qtbot.waitUntil(lambda: "POST /predict/wine" in tabs.log.text.toPlainText(), timeout=WAIT_MS)
    assert tabs.log.text.toPlainText().splitlines()[1] == "not json"
    words = line_words(server.lines[0]).split()
    assert words[1:6] == ["192.168.1.57", "lab", "POST", "/predict/wine", "401"]
    assert words[-1] == "key_invalid"
    tabs.filter.setText("wine")
    assert len(tabs.log.text.toPlainText().splitlines()) == 1
    tabs.log.copy_button.click()
    assert "key_invalid" in QGuiApplication.clipboard().text()


# -- awake -----------------------------------------------------------------------------------------------------------
posix = pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="Linux's way, by a stand-in program")


def stand_in(folder: Path, script: str) -> Path:
    program = folder / "systemd-inhibit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@posix
def test_sleep_is_held_off_while_the_network_is_served(
    qtbot: QtBot, ready_window: MainWindow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    stand_in(tmp_path, f'echo "$@" > {told}\nexec cat')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ready_window.show_page(SERVER)
    switch_to(qtbot, ready_window, "network")
    qtbot.waitUntil(lambda: ready_window.keep_awake.is_held and told.exists(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "--what=sleep:idle" in told.read_text(), timeout=WAIT_MS)
    assert "stays awake" in ready_window.status_line.right.text()
    process = ready_window.keep_awake._process
    assert process is not None
    switch_to(qtbot, ready_window, "computer")
    assert not ready_window.keep_awake.is_held
    assert "awake" not in ready_window.status_line.right.text()


@posix
def test_where_it_is_refused_nothing_is_claimed(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    awake = KeepAwake()
    awake.hold(True)
    qtbot.waitUntil(lambda: awake._process is None, timeout=WAIT_MS)
    assert not awake.is_held
    awake.hold(True)
    assert awake._process is None, "whoever refused is not asked again at every change"
    awake.hold(False)
    awake.hold(True)
    assert awake._process is not None
    qtbot.waitUntil(lambda: awake._process is None, timeout=WAIT_MS)
    awake.hold(False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    awake.hold(True)
    assert (awake.is_held, awake._process) == (False, None)
    assert inhibitor_command("darwin") == []


def test_the_page_stands_in_a_small_window(qtbot: QtBot, serving: MainWindow) -> None:
    serving.resize(900, 640)
    qtbot.waitUntil(lambda: serving.width() == 900, timeout=WAIT_MS)
    page = serving.server_page
    for widget in (page.switch, page.tabs.pause_button, page.tabs.filter, page.key_row.renew_button):
        right = widget.mapTo(serving, QPoint(widget.width(), 0)).x()
        assert right <= serving.width(), widget


def test_a_key_meant_for_a_model_that_closes_meanwhile_is_for_no_other(
    qtbot: QtBot, serving: MainWindow, server: FakeServer
) -> None:
    access = serving.server_page.tabs.access
    serving.server_page.tabs.bar.setCurrentIndex(ACCESS)
    access.models.setCurrentIndex(access.models.findData("digits-keras"))
    access.name.setText("lab phones")
    serving.eject("digits-keras")
    qtbot.waitUntil(lambda: not serving.shelf.cards, timeout=WAIT_MS)
    access.make_button.click()
    qtbot.waitUntil(lambda: "lab phones" in server.keys, timeout=WAIT_MS)
    assert server.keys["lab phones"].models == ("digits-keras",)


def test_a_report_of_before_does_not_stand_over_a_newer_one(
    qtbot: QtBot, serving: MainWindow, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = serving.server
    qtbot.waitUntil(lambda: bridge.reach is not None, timeout=WAIT_MS)
    old, new = ReachReport(("http://10.0.0.1:1",)), ReachReport(())
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> ReachReport:
        begun.set()
        assert go_on.wait(WAIT_MS / 1000)
        return old

    monkeypatch.setattr(server, "check_reach", slow)
    bridge.check_reach()
    assert bridge.reach is None, "while it is looked, nothing is known"
    assert begun.wait(WAIT_MS / 1000)
    monkeypatch.setattr(server, "check_reach", lambda: new)
    bridge.check_reach()
    qtbot.waitUntil(lambda: bridge.reach == new, timeout=WAIT_MS)
    with qtbot.waitSignal(bridge.changed, timeout=WAIT_MS):
        go_on.set()
        bridge.pause(True)
    assert bridge.reach == new
    switch_to(qtbot, serving, "off")
    assert bridge.reach is None


def test_callers_are_counted_as_the_server_knows_them_now(serving: MainWindow, server: FakeServer) -> None:
    before = server._state
    server._state = replace(before, callers=("10.0.0.7",))
    assert serving.server.callers_now() == 1
    server._state = before


def test_however_busy_it_is_the_table_is_painted_seldom_and_the_charts_count_everything(
    qtbot: QtBot, serving: MainWindow, engine: FakeEngine
) -> None:
    page, model = serving.server_page, serving.server_page.tabs.requests.model
    painted = []
    model.rowsInserted.connect(lambda *_: painted.append(1))
    for number in range(1, 21):
        records = tuple(record(i, float(i)) for i in range(number, 0, -1))
        engine.bus.publish(Snapshot(engine.stats() | {"waiting": number}, records))
    qtbot.waitUntil(lambda: bool(painted), timeout=WAIT_MS)
    assert len(painted) <= BURST + 1  # one more: the models are new to the window
    page.meter.sample()
    assert page.meter.waiting[-1] == 20.0
    qtbot.waitUntil(lambda: model.rowCount() == 20, timeout=WAIT_MS)
    assert len(painted) <= BURST + 2


def test_settings_that_arrive_amid_a_switch_do_not_end_it(
    qtbot: QtBot, ready_window: MainWindow, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied while the server is off, and over while it is being switched on: the switch is still on its way."""
    bridge = ready_window.server
    applying, starting = threading.Event(), threading.Event()
    apply, start = server.apply, server.start

    def slow_apply(settings: ServerSettings) -> ServerState:
        assert applying.wait(WAIT_MS / 1000)
        return apply(settings)

    def slow_start(scope: ServerScope, port: int) -> ServerState:
        assert starting.wait(WAIT_MS / 1000)
        return start(scope, port)

    monkeypatch.setattr(server, "apply", slow_apply)
    monkeypatch.setattr(server, "start", slow_start)
    bridge.apply(ServerSettings())
    bridge.switch(ServerScope.COMPUTER, 8765)
    applying.set()
    qtbot.waitUntil(lambda: len(server.applied) == 1 and not bridge._applying, timeout=WAIT_MS)
    assert bridge.target is ServerScope.COMPUTER
    starting.set()
    qtbot.waitUntil(lambda: bridge.target is None and bridge.is_running, timeout=WAIT_MS)
