"""What every test gets: no display needed, a home of its own, and the check that a window left nothing behind."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before PySide6 is imported anywhere: without a display Qt's xcb plug-in aborts the process.
os.environ["QT_QPA_PLATFORM"] = "offscreen"
# The window speaks the desktop's language where nobody chose; what tests read is English, on every desktop.
os.environ["LC_ALL"] = "C.UTF-8"
os.environ.pop("LANGUAGE", None)
# For what is made at session scope; every test gets a folder of its own below.
os.environ["DESKSIDE_HOME"] = tempfile.mkdtemp(prefix="deskside-tests-")

LEAK_WAIT_S = 10.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes share the tests by their ids: of two with one id the second would never run."""
    if hasattr(config, "workerinput"):
        twice = [node for node, times in Counter(item.nodeid for item in items).items() if times > 1]
        if twice:
            raise pytest.UsageError(
                f"{len(twice)} ids name several tests, which only one process runs all: {twice[:3]}"
            )


@pytest.fixture(autouse=True)
def deskside_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, keys and consent of this test only."""
    home = tmp_path / "deskside-home"
    monkeypatch.setenv("DESKSIDE_HOME", str(home))
    return home


@pytest.fixture
def no_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that leaves a running QThread, a Python thread, a QTimer or a top-level widget behind."""
    from PySide6.QtCore import QCoreApplication, QEvent, QThread, QTimer
    from PySide6.QtWidgets import QApplication
    from shiboken6 import isValid

    started: list[QThread] = []
    start = QThread.start

    def recording_start(thread: QThread, *args: object) -> None:
        started.append(thread)
        start(thread, *args)  # type: ignore[arg-type]  # whatever the caller gave

    monkeypatch.setattr(QThread, "start", recording_start)
    timers: list[QTimer] = []
    start_timer = QTimer.start

    def recording_timer(timer: QTimer, *args: object) -> None:
        timers.append(timer)
        start_timer(timer, *args)  # type: ignore[call-overload]  # whatever the caller gave

    monkeypatch.setattr(QTimer, "start", recording_timer)
    before = set(threading.enumerate())
    widgets_before = set(QApplication.topLevelWidgets()) if QApplication.instance() else set()
    yield
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    for thread in started:
        assert not isValid(thread) or thread.wait(int(LEAK_WAIT_S * 1000)), f"QThread {thread.objectName()} still runs"
    for other in set(threading.enumerate()) - before:
        if not isinstance(other, threading._DummyThread):  # a Qt thread that ran Python; its end is checked above
            other.join(LEAK_WAIT_S)
            assert not other.is_alive(), f"thread {other.name} still runs"
    ticking = [timer for timer in timers if isValid(timer) and timer.isActive() and not timer.isSingleShot()]
    assert not ticking, f"timers that go on: {[(type(t.parent()).__name__, t.interval()) for t in ticking]}"
    left = [w for w in QApplication.topLevelWidgets() if w not in widgets_before and w.isVisible()]
    assert not left, f"top-level widgets left: {left}"
