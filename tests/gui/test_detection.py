"""Boxes over the picture they were found in, and what was found beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytestqt.qtbot import QtBot

from engine.prediction import Prediction
from gui import theme
from gui.main_window import MainWindow
from gui.views.things import ThingsView
from gui.widgets.image_view import ImageView
from gui.widgets.overlays import Things
from tests.fakes import TIMING, FakeEngine
from tests.gui.conftest import WAIT_MS, drop
from tests.gui.test_predict import picture

CIRCLE = {"label": "circle", "score": 0.95, "box": {"xmin": 160, "ymin": 120, "xmax": 480, "ymax": 360}}
SQUARE = {"label": "<b>square</b>", "score": 0.6, "box": {"xmin": 0, "ymin": 0, "xmax": 64, "ymax": 48}}


def answers_with(engine: FakeEngine, predictions: list[dict[str, Any]]) -> None:
    engine.answer = lambda request: Prediction("p", request.model, "object-detection", TIMING, predictions=predictions)


def entries_over(view: ImageView) -> list[Any]:
    """What lies over the picture."""
    return list(view.overlay.entries) if isinstance(view.overlay, Things) else []


def test_what_was_found_is_drawn_where_it_was_found(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    answers_with(engine, [CIRCLE, SQUARE])
    drop(ready_window, picture(tmp_path, "shapes.png"))
    work = ready_window.predict_page.work
    view = work.image_view
    qtbot.waitUntil(lambda: entries_over(view) == [CIRCLE, SQUARE], timeout=WAIT_MS)
    found = work.dock.view
    assert isinstance(found, ThingsView)
    assert [found.model.item(row, 0).text() for row in range(2)] == ["circle", "<b>square</b>"]
    # The picture is 640 x 480, shown from a preview of 64 x 48: a box is placed in pixels of the original.
    target = view._target()
    shown = view.grab().toImage()
    x, y = round(target.x() + target.width() / 4), round(target.y() + target.height() / 2)
    assert theme.OVERLAY[0] in {shown.pixelColor(x + dx, y).name().upper() for dx in range(-2, 3)}


def test_boxes_go_with_their_picture(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    answers_with(engine, [CIRCLE])
    drop(ready_window, picture(tmp_path, "one.png"))
    work = ready_window.predict_page.work
    qtbot.waitUntil(lambda: entries_over(work.image_view) == [CIRCLE], timeout=WAIT_MS)
    answers_with(engine, [])
    drop(ready_window, picture(tmp_path, "none.png"))
    qtbot.waitUntil(lambda: work.current is not None and work.current.source.name == "none.png", timeout=WAIT_MS)
    assert entries_over(work.image_view) == []
