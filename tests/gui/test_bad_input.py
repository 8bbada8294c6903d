"""What nobody prepared: each gets a clear sentence, the window stays alive, and the counts add up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from PySide6.QtCore import QByteArray, QMimeData, QObject, QPoint, QPointF, Qt, QTimer, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QImage
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.errors import ModelUnreadable, WorkerRestarted
from engine.events import ModelState, ModelStateChanged
from engine.prediction import Prediction, PredictRequest
from gui.intake import MAX_FILES
from gui.main_window import MainWindow
from gui.predict_queue import ItemState
from gui.widgets.drop_area import DropState
from tests.fakes import TIMING, FakeEngine, spec
from tests.gui.conftest import WAIT_MS, drop
from tests.gui.test_predict import picture

LONGEST_GAP_S = 3.0
"""Only so that a frozen window is told from a busy machine; how long gaps are is measured in benchmarks/."""
COPY, LEFT, NONE = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


class Gaps(QObject):
    """The longest time in which the window's loop did nothing."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.longest_s = 0.0
        self._last = time.monotonic()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._timer.start(5)

    def _tick(self) -> None:
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now


def let_go(window: MainWindow, mime: QMimeData) -> DropState:
    """Drag ``mime`` over the window and let go whatever it says; what it said."""
    QApplication.sendEvent(window, QDragEnterEvent(QPoint(400, 300), COPY, mime, LEFT, NONE))
    said = window.predict_page.drop_state
    QApplication.sendEvent(window, QDropEvent(QPointF(400, 300), COPY, mime, LEFT, NONE))
    return said


def test_five_thousand_files_and_more_are_all_accounted_for(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    """Queued or listed with a reason; the window paints all the while."""
    engine.hold = True
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(MAX_FILES):
        (folder / f"{number:05}.png").touch()
    for number in range(40):
        (folder / f"{number:05}.svg").touch()
    gaps = Gaps(ready_window)
    drop(ready_window, folder)
    queue = ready_window.queue
    qtbot.waitUntil(lambda: len(queue.items) >= MAX_FILES, timeout=6 * WAIT_MS)
    counts = queue.counts
    assert sum(counts.values()) == len(queue.items)
    assert counts[ItemState.QUEUED] + counts[ItemState.RUNNING] + counts[ItemState.DONE] == MAX_FILES
    refused = [item for item in queue.items if item.state is ItemState.FAILED]
    assert all(item.error is not None and str(item.error) for item in refused)
    assert 0 < gaps.longest_s < LONGEST_GAP_S


@pytest.mark.parametrize("text", ["https://example.org/cat.jpg", "http://example.org"])
def test_an_address_is_not_fetched(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, text: str) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl(text)])
    mime.setText(text)
    assert let_go(ready_window, mime) is DropState.REFUSED
    banner = ready_window.predict_page.banner
    assert banner.isVisible()
    assert banner.sentence == "Addresses are not opened: Deskside fetches nothing."
    assert engine.requests == []


def test_nothing_at_all(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    assert let_go(ready_window, QMimeData()) is DropState.REFUSED
    assert ready_window.predict_page.banner.sentence == "Nothing in it can be used."
    mime = QMimeData()
    mime.setData("application/x-unheard-of", QByteArray(b"\0" * 1000))
    let_go(ready_window, mime)
    assert engine.requests == []


def test_a_picture_dragged_from_another_program_is_run(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine
) -> None:
    """As a browser gives it: the address beside the picture itself."""
    mime = QMimeData()
    mime.setUrls([QUrl("https://example.org/cat.png")])
    mime.setData("image/png", QByteArray(b"\x89PNG\r\n\x1a\n raw bytes, decoded by the inspector"))
    assert let_go(ready_window, mime) is DropState.OVER
    qtbot.waitUntil(lambda: len(engine.requests) == 1, timeout=WAIT_MS)
    assert engine.requests[0].data == b"\x89PNG\r\n\x1a\n raw bytes, decoded by the inspector"
    pixels = QMimeData()
    pixels.setImageData(QImage(4, 4, QImage.Format.Format_RGB32))
    let_go(ready_window, pixels)
    qtbot.waitUntil(lambda: len(engine.requests) == 2, timeout=WAIT_MS)
    assert bytes(engine.requests[1].data[:8]) == b"\x89PNG\r\n\x1a\n"  # type: ignore[arg-type]


@pytest.mark.skipif(os.name == "nt", reason="needs a sparse file and links")
def test_a_picture_of_two_gigabytes_and_a_folder_in_itself(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    huge = tmp_path / "huge.png"
    with huge.open("wb") as handle:
        handle.truncate(2 << 30)
    drop(ready_window, huge)
    queue = ready_window.queue
    qtbot.waitUntil(lambda: any(i.state is ItemState.FAILED for i in queue.items) or
                    ready_window.predict_page.banner.isVisible(), timeout=WAIT_MS)  # fmt: skip
    assert engine.requests == []
    ring = tmp_path / "ring"
    ring.mkdir()
    (ring / "again").symlink_to(ring, target_is_directory=True)
    picture(ring, "a.png")
    ready_window.predict_page.clear()
    drop(ready_window, ring)
    qtbot.waitUntil(lambda: len(engine.requests) == 1, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: queue.counts[ItemState.DONE] == 1, timeout=WAIT_MS)
    assert sum(queue.counts.values()) == len(queue.items)


def test_a_drawing_in_svg_stays_untouched(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    path = tmp_path / "logo.svg"
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    page = ready_window.predict_page
    QApplication.sendEvent(ready_window, QDragEnterEvent(QPoint(400, 300), COPY, mime, LEFT, NONE))
    qtbot.waitUntil(lambda: page.drop_state is DropState.REFUSED, timeout=WAIT_MS)
    let_go(ready_window, mime)
    banner = page.banner
    qtbot.waitUntil(banner.isVisible, timeout=WAIT_MS)
    assert "logo.svg" in banner.sentence + banner._second.text()
    assert engine.requests == []


@pytest.mark.parametrize("label", ["x" * 10_000, "<b>bold</b><img src=x>" * 400, "a\nb\tc" * 2000, "\u202ertl " * 2000])
def test_a_label_of_ten_thousand_characters(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path, label: str
) -> None:
    best = [{"label": label, "score": 0.6}, {"label": "cat", "score": 0.4}]
    engine.answer = lambda request: Prediction("p", request.model, "image-classification", TIMING, predictions=best)
    width = ready_window.width()
    drop(ready_window, picture(tmp_path, "a.png"))
    dock = ready_window.predict_page.work.dock
    qtbot.waitUntil(lambda: len(dock.bars.answers) == 2, timeout=WAIT_MS)
    QApplication.processEvents()
    assert ready_window.width() == width, "the window keeps its size"
    assert dock.width() < width / 2
    assert not ready_window.grab().isNull()


def test_a_model_whose_file_went_away_says_so(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    """Its worker ended and cannot be loaded again: the item has a reason, the chip says failed."""

    def gone(_request: PredictRequest) -> Prediction:
        raise WorkerRestarted("The model's process ended while it had this request. Ask again.", retry_after_s=1)

    engine.answer = gone
    drop(ready_window, picture(tmp_path, "a.png"))
    qtbot.waitUntil(lambda: ready_window.queue.counts[ItemState.FAILED] == 1, timeout=WAIT_MS)
    engine.add(spec(), ModelState.FAILED)
    error = ModelUnreadable("digits-keras is not there any more.")
    engine.publish(ModelStateChanged("digits-keras", ModelState.FAILED, error))
    qtbot.waitUntil(
        lambda: ready_window.shelf.cards[0].problem == "digits-keras is not there any more.", timeout=WAIT_MS
    )
