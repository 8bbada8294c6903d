"""The window keeps painting while the engine, the disk or the inspector stands still, and it always closes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QEvent, QObject, QTimer
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from engine.events import LoadStage
from engine.model_spec import ModelSpec
from engine.prediction import ImagePreview, LoadTicket
from engine.serving_types import ServerScope, ServerState
from gui.intake import InputFile
from gui.item_models.items_model import ItemsModel
from gui.main_window import MainWindow
from tests.fakes import FakeEngine, FakeServer, spec
from tests.gui.conftest import WAIT_MS, WindowFactory, drop

FROZEN_S = 60.0
"""The longest an engine call stands still if a test forgets to let it go."""
TICKS = 60
PAINTS = 5


class FrozenEngine(FakeEngine):
    """Stands still in one call, on the caller's thread, until ``gate`` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.frozen = ""

    def _freeze(self, where: str) -> None:
        if self.frozen == where:
            self.entered.set()
            assert self.gate.wait(FROZEN_S)

    def load(
        self, source: Any, device: str | None = None, trust: bool = False, runtime: str | None = None
    ) -> LoadTicket:
        for stage, where in ((LoadStage.RECOGNISING, "recognition"), (LoadStage.HASHING, "hashing")):
            self.publish_progress(Path(source).name, stage)
            self._freeze(where)
        self._freeze("load")
        return super().load(source, device, trust, runtime)

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        self._freeze("describe")
        return super().inspect(path)

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        self._freeze("preview")
        return super().preview_image(source, max_side)

    def stats(self) -> dict[str, Any]:
        self._freeze("stats")
        return super().stats()


class PaintCount(QObject):
    """Counts what the event loop does: ticks of a timer, and repaints of one widget asked for by them."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        self.ticks = self.paints = 0
        self._widget = widget
        widget.installEventFilter(self)
        self._timer = QTimer(self)
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        self.ticks += 1
        self._widget.update()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Paint:
            self.paints += 1
        return False


@pytest.fixture
def engine() -> Iterator[FrozenEngine]:
    engine = FrozenEngine()
    yield engine
    engine.gate.set()


@pytest.mark.parametrize("where", ["recognition", "hashing", "describe", "load", "preview", "stats"])
def test_the_window_paints_while_the_engine_stands_still(
    qtbot: QtBot, make_window: WindowFactory, engine: FrozenEngine, tmp_path: Path, where: str
) -> None:
    engine.frozen = where
    engine.add(spec())
    window = make_window()
    if where == "preview":
        picture = tmp_path / "a.png"
        picture.write_bytes(b"png")
        drop(window, picture)
    elif where != "stats":
        model = tmp_path / "flowers"
        model.mkdir()
        (model / "model.keras").write_bytes(b"model")
        drop(window, model)
    qtbot.waitUntil(engine.entered.is_set, timeout=WAIT_MS)
    count = PaintCount(window.header)
    qtbot.waitUntil(lambda: count.ticks >= TICKS and count.paints >= PAINTS, timeout=WAIT_MS)
    assert not engine.gate.is_set(), "the engine stood still all the time"
    engine.gate.set()
    engine.frozen = ""
    if where in ("recognition", "hashing", "describe", "load"):
        qtbot.waitUntil(
            lambda: window.shelf.active is not None and window.shelf.active.key == "flowers", timeout=WAIT_MS
        )
    elif where == "preview":
        qtbot.waitUntil(lambda: window.predict_page.work.image_view.has_picture, timeout=WAIT_MS)
    else:
        qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)


def test_a_load_cancelled_before_the_engine_took_it_never_runs(
    qtbot: QtBot, make_window: WindowFactory, engine: FrozenEngine, tmp_path: Path
) -> None:
    window = make_window()
    engine.frozen = "load"
    engine.hold_loads = True
    window.load_model(tmp_path / "flowers")
    qtbot.waitUntil(engine.entered.is_set, timeout=WAIT_MS)
    window.header.chips[0].cancel.click()
    qtbot.waitUntil(lambda: bool(window.loader._worker._cancelled), timeout=WAIT_MS)
    engine.gate.set()
    qtbot.waitUntil(lambda: not window.shelf.cards, timeout=WAIT_MS)
    assert isinstance(engine.held_loads[0][1].exception(), Exception)


def test_closing_during_a_load_cancels_it(
    qtbot: QtBot, make_window: WindowFactory, engine: FrozenEngine, tmp_path: Path
) -> None:
    window = make_window()
    engine.hold_loads = True
    window.load_model(tmp_path / "flowers")
    qtbot.waitUntil(lambda: len(engine.held_loads) == 1, timeout=WAIT_MS)
    window.close()
    assert window.isVisible(), "the window says that it is closing until all has ended"
    assert window.status_line.message.startswith("Closing")
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
    assert engine.held_loads[0][1].done()
    assert not window.isVisible()


class SlowStop(FakeServer):
    """Drains until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.stopped_on = ""

    def stop(self) -> ServerState:
        assert self.gate.wait(FROZEN_S)
        self.stopped_on = threading.current_thread().name
        return super().stop()


class TestClosingWhileServing:
    @pytest.fixture
    def server(self) -> SlowStop:
        return SlowStop()

    def test_the_server_is_drained_off_the_gui_thread(self, qtbot: QtBot, window: MainWindow, server: SlowStop) -> None:
        window.server_page.switch.click_choice("network")
        qtbot.waitUntil(lambda: window.server.is_running, timeout=WAIT_MS)
        window.close()
        count = PaintCount(window.header)
        qtbot.waitUntil(lambda: count.ticks >= TICKS, timeout=WAIT_MS)
        assert not window.is_closed
        server.gate.set()
        qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
        assert server.state.scope is ServerScope.OFF
        assert server.stopped_on != threading.main_thread().name


def test_a_late_result_for_a_dead_widget_is_thrown_away(qtbot: QtBot, window: MainWindow, engine: FrozenEngine) -> None:
    from shiboken6 import delete

    owner = QWidget()
    future: Future[str] = Future()
    seen: list[object] = []
    window.bridge.ask(owner, lambda _engine: future, seen.append, seen.append)
    marker: list[object] = []
    delete(owner)
    future.set_result("late")
    window.bridge.run(window, lambda: "after", marker.append, marker.append)
    qtbot.waitUntil(lambda: marker == ["after"], timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not window.bridge._pending, timeout=WAIT_MS)
    assert seen == []


def test_an_answer_does_not_lay_thousands_of_pictures_out_anew(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    count = ItemsModel.rowCount

    def counted(self: ItemsModel, *parent: Any) -> int:
        asked.append(1)
        return count(self, *parent)

    monkeypatch.setattr(ItemsModel, "rowCount", counted)  # before Qt looks for it
    page = make_window().predict_page
    model, rows = page.work.items_model, 3000
    page.add_inputs([InputFile(f"{n}.npy", "tensor", data=b"") for n in range(rows)], [])
    qtbot.waitUntil(lambda: page.work.strip.isVisible() and model.rowCount() == rows, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: page.work.strip.visualRect(model.index(rows - 1)).isValid(), timeout=WAIT_MS)
    asked.clear()
    for row in range(5):
        model.dataChanged.emit(model.index(row), model.index(row))
        page.work.strip.visualRect(model.index(rows - 1))  # waits for a layout that is due
    assert len(asked) < rows
