"""Windows over fakes, closed again and checked for leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.settings import Settings, SettingsStore
from gui import build_window
from gui.main_window import MainWindow
from tests.fakes import FakeEngine, FakeServer, spec

WAIT_MS = 10_000

WindowFactory = Callable[..., MainWindow]


@pytest.fixture(autouse=True)
def _leak_check(qapp: QApplication, no_leaks: None) -> None:
    """Every window test."""


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def make_window(qtbot: QtBot, engine: FakeEngine, server: FakeServer) -> Iterator[WindowFactory]:
    windows: list[MainWindow] = []

    def make(
        *, settings: Settings | None = None, store: SettingsStore | None = None, examples: tuple[Path, ...] = ()
    ) -> MainWindow:
        window = build_window(engine, server, settings or Settings(), store, examples)
        windows.append(window)
        window.show()
        qtbot.waitExposed(window)
        return window

    yield make
    for window in windows:
        window.close()
        qtbot.waitUntil(lambda w=window: w.is_closed, timeout=WAIT_MS)
        window.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def window(make_window: WindowFactory) -> MainWindow:
    """No model open."""
    return make_window()


@pytest.fixture
def ready_window(qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory) -> MainWindow:
    """A window over an engine that has one image classifier ready."""
    engine.add(spec())
    result = make_window()
    qtbot.waitUntil(lambda: result.shelf.active is not None, timeout=WAIT_MS)
    return result


def mime_of(*paths: Path) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    return mime


def drag(window: MainWindow, mime: QMimeData) -> bool:
    """A drag enters the window; whether it is welcome."""
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    event = QDragEnterEvent(QPoint(400, 300), Qt.DropAction.CopyAction, mime, buttons, keys)
    QApplication.sendEvent(window, event)
    return event.isAccepted()


def drop(window: MainWindow, *paths: Path) -> None:
    """Drag ``paths`` over the window and let go."""
    mime = mime_of(*paths)
    assert drag(window, mime)
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    event = QDropEvent(QPointF(400, 300), Qt.DropAction.CopyAction, mime, buttons, keys)
    QApplication.sendEvent(window, event)
    assert event.isAccepted()
