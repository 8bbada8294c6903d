"""The ring in the header: what is free, who has the rest, and which models stay open."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from engine.settings import EngineLimits, SettingsStore
from gui.actions import SETTINGS
from gui.main_window import MainWindow
from gui.widgets.memory_ring import MemoryRing
from tests.fakes import FakeEngine, spec
from tests.gui.conftest import WAIT_MS, WindowFactory


def menu_of(ring: MemoryRing) -> list[str]:
    return [action.text().replace("\u2009", " ").replace("\t", " | ") for action in ring.make_menu().actions()]


def pin_action(menu: QMenu) -> QAction:
    return next(action for action in menu.actions() if action.text().startswith("Keep"))


def test_the_ring_says_what_is_free_and_who_has_the_rest(qtbot: QtBot, ready_window: MainWindow) -> None:
    ring = ready_window.header.memory
    qtbot.waitUntil(ring.isVisible, timeout=WAIT_MS)
    assert ring.accessibleName().replace("\u2009", " ") == "CPU, memory: 10 of 16 GB free"
    assert round(ring.used, 3) == 0.375
    gpu = "Apple GPU" if sys.platform == "darwin" else "GPU"
    assert menu_of(ring) == [
        "digits-keras runs on", "Automatic", "CPU | 10.0 GB free", gpu, "",
        "Keep digits-keras open | 300 MB", "", "Models together | 300 MB", "Other programs | 5.7 GB",
        "Budget for models | none", "", "Memory settings…",
    ]  # fmt: skip


def test_nothing_is_shown_before_it_was_measured(qtbot: QtBot) -> None:
    ring = MemoryRing()
    qtbot.addWidget(ring)
    ring.show_memory({"models": [], "memory": {"total": 0, "available": 0, "models": 0, "others": 0}}, "")
    assert ring.isHidden()


def test_a_model_is_pinned_from_the_menu(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    ring = ready_window.header.memory
    ring.click()
    assert ring.menu is not None
    action = pin_action(ring.menu)
    assert not action.isChecked()
    action.trigger()
    qtbot.waitUntil(lambda: engine.stats()["models"][0]["pinned"] is True, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: ready_window.status_line.message == "digits-keras stays open.", timeout=WAIT_MS)
    ring.menu.close()
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: pin_action(ring.make_menu()).isChecked(), timeout=WAIT_MS)
    ring.make_menu().actions()[-1].trigger()
    assert ready_window.pages.currentIndex() == SETTINGS


def test_limits_of_memory_hold_at_once_and_are_kept(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, tmp_path: Path
) -> None:
    engine.add(spec())
    store = SettingsStore(tmp_path / "settings.json")
    window = make_window(store=store)
    page = window.settings_page
    page.budget.setValue(8)
    qtbot.waitUntil(lambda: engine.limits.memory_budget_mb == 8000, timeout=WAIT_MS)
    page.idle.setValue(15)
    qtbot.waitUntil(lambda: engine.limits.unload_idle_s == 900.0, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: store.load().limits.unload_idle_s == 900.0, timeout=WAIT_MS)
    assert store.load().limits.memory_budget_mb == 8000
    page.budget.setValue(0)
    qtbot.waitUntil(lambda: engine.limits.memory_budget_mb == 0, timeout=WAIT_MS)


def test_of_two_changes_the_newest_holds_whichever_thread_is_faster(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.add(spec())
    page = make_window(store=SettingsStore(tmp_path / "settings.json")).settings_page
    begun, go_on, over = threading.Event(), threading.Event(), threading.Semaphore(0)
    take = engine.limit

    def slow_at_first(limits: EngineLimits) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(WAIT_MS / 1000)
        take(limits)
        over.release()

    monkeypatch.setattr(engine, "limit", slow_at_first)
    page.budget.setValue(8)
    assert begun.wait(WAIT_MS / 1000)
    page.budget.setValue(9)
    # Where nothing kept it back, the second would be over now, and the first would end later.
    over.acquire(timeout=0.3)
    go_on.set()
    qtbot.waitUntil(lambda: over.acquire(blocking=False), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: engine.limits.memory_budget_mb == 9000, timeout=WAIT_MS)


def test_the_model_moves_to_another_device_from_the_menu(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine
) -> None:
    ring = ready_window.header.memory
    qtbot.waitUntil(ring.isVisible, timeout=WAIT_MS)
    here = next(action for action in ring.make_menu().actions() if action.text().startswith("CPU"))
    assert here.isChecked()
    next(action for action in ring.make_menu().actions() if action.text() == "Automatic").trigger()
    qtbot.waitUntil(lambda: any(card.replaces == "digits-keras" for card in ready_window.shelf.cards), timeout=WAIT_MS)


def test_a_gpu_s_free_memory_stands_in_the_menu(qtbot: QtBot) -> None:
    ring = MemoryRing()
    qtbot.addWidget(ring)
    memory = {"total": 16e9, "available": 10e9, "models": 0, "others": 6e9, "budget": None}
    told = [{"device": f"{'mps' if sys.platform == 'darwin' else 'cuda'}:0", "free": 20_000_000_000}]
    ring.show_memory({"models": [], "memory": memory | {"devices": told}}, told[0]["device"], "m")
    gpu = menu_of(ring)[3]
    assert gpu.endswith("GPU | 20.0 GB free")


def test_little_free_memory_is_amber(qtbot: QtBot) -> None:
    ring = MemoryRing()
    qtbot.addWidget(ring)
    shown = []
    for free in (50, 5):
        memory = {"total": 100_000_000_000, "available": free * 1_000_000_000, "models": 0, "others": 0, "budget": None}
        ring.show_memory({"models": [], "memory": memory}, "cpu")
        ring.resize(ring.sizeHint())
        shown.append(ring.grab().toImage().pixelColor(26, 12).name())
    assert shown[0] != shown[1]
