"""The window shows a person's steps at once and a flood of changes calmly, and always the last of them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import shiboken6
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from engine.events import Snapshot
from gui import calm as calm_module
from gui.calm import BURST, Calm
from gui.main_window import MainWindow
from tests.fakes import FakeEngine
from tests.gui.conftest import WAIT_MS


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch, qtbot: QtBot) -> Iterator[Calm]:
    monkeypatch.setattr(calm_module, "EVERY_MS", 60)
    owner = QObject()
    yield Calm(owner)
    shiboken6.delete(owner)  # here, and not by the garbage collector on whatever thread: a timer may be running


def shower(shown: list[int]) -> Callable[[int], Callable[[], None]]:
    return lambda number: partial(shown.append, number)


def test_a_few_changes_are_shown_at_once(calm: Calm) -> None:
    shown: list[int] = []
    for number in range(BURST):
        calm.offer("snapshot", shower(shown)(number))
    assert shown == list(range(BURST))


def test_of_a_flood_the_newest_is_shown_every_so_often_and_the_last_one_always(calm: Calm, qtbot: QtBot) -> None:
    shown: list[int] = []
    show = shower(shown)
    for number in range(100):
        calm.offer("snapshot", show(number))
    assert shown == list(range(BURST))
    qtbot.waitUntil(lambda: len(shown) > BURST, timeout=5000)
    assert shown[BURST:] == [99]
    for number in range(100, 200):
        calm.offer("snapshot", show(number))
    qtbot.waitUntil(lambda: shown[-1] == 199, timeout=5000)
    assert shown[BURST:] == [99, 199]


def test_what_waits_of_several_kinds_is_shown_together(calm: Calm, qtbot: QtBot) -> None:
    shown: list[int] = []
    show = shower(shown)
    for _ in range(BURST):
        calm.offer("snapshot", show(0))
    shown.clear()
    together: list[list[int]] = []
    calm.offer("snapshot", show(1))
    calm.offer("server", lambda: (shown.append(2), together.append(list(shown)))[0])
    qtbot.waitUntil(lambda: bool(together), timeout=5000)
    assert together == [[1, 2]]


def test_what_is_no_mere_counting_is_shown_at_once_and_what_waited_never(calm: Calm, qtbot: QtBot) -> None:
    shown: list[int] = []
    show = shower(shown)
    for number in range(BURST + 1):
        calm.offer("snapshot", show(number))
    calm.offer("snapshot", show(50), at_once=True)
    assert shown == [*range(BURST), 50]
    calm.offer("server", show(60))
    qtbot.waitUntil(lambda: shown[-1] == 60, timeout=5000)
    assert shown == [*range(BURST), 50, 60]


def test_after_a_rest_changes_are_shown_at_once_again(calm: Calm, qtbot: QtBot) -> None:
    shown: list[int] = []
    show = shower(shown)
    for number in range(BURST + 1):
        calm.offer("snapshot", show(number))
    qtbot.waitUntil(lambda: shown[-1] == BURST, timeout=5000)
    qtbot.waitUntil(lambda: not calm._timer.isActive(), timeout=5000)
    calm.offer("snapshot", show(70))
    assert shown[-1] == 70


def test_nothing_is_shown_after_the_end(calm: Calm, qtbot: QtBot) -> None:
    shown: list[int] = []
    show = shower(shown)
    for number in range(BURST + 1):
        calm.offer("snapshot", show(number))
    stopping = threading.Thread(target=calm.stop)
    stopping.start()
    stopping.join(10)
    calm.offer("snapshot", show(80), at_once=True)
    qtbot.waitUntil(lambda: not calm._timer.isActive(), timeout=5000)
    assert shown == list(range(BURST))


def test_a_snapshot_that_waits_does_not_come_back_over_what_was_read_after_it(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine
) -> None:
    window, waiting = ready_window, ready_window.bridge.calm
    before = Snapshot(copy.deepcopy(engine.stats()), ())
    for _ in range(BURST + 2):
        engine.bus.publish(before)
    qtbot.waitUntil(lambda: bool(waiting._waiting), timeout=WAIT_MS)
    (entry,) = engine._models.values()
    entry["swap_error"] = {"code": "x", "message": "The file has gone."}
    window.changes._read_back()

    def told() -> object:
        card = window.shelf.active
        return card is not None and card.entry["swap_error"]

    qtbot.waitUntil(lambda: bool(told()), timeout=WAIT_MS)
    waiting._on_timeout()  # as if the second were over
    assert told() == entry["swap_error"]
