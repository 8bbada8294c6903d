"""The view of each kind of answer, through the real window: what is drawn, what a slider asks for, what can be kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from engine.errors import PredictionExpired
from engine.model_spec import Postprocessing
from engine.prediction import ImagePreview, Prediction, PredictRequest
from gui import theme
from gui.item_models.answers_model import SCORE
from gui.main_window import MainWindow
from gui.panels.work_view import WorkView
from gui.views import AnswerView
from gui.views.classes import ClassesView
from gui.views.depth import DepthView
from gui.views.json_text import JsonView
from gui.views.masks import MasksView
from gui.views.pictures import PicturesView
from gui.views.pixels import colour_map, numbered, slice_of, tinted, unrolled
from gui.views.spans import SpansView
from gui.views.tensors import TensorsView
from gui.views.things import PosesView, ThingsView
from gui.views.values import ValuesView
from gui.views.vectors import VectorsView
from gui.widgets.image_view import STEP, ImageView
from gui.widgets.overlays import Readout, Things, Tint
from gui.widgets.text_view import TextView, document_places
from tests.fakes import TIMING, FakeEngine, spec
from tests.gui.conftest import WAIT_MS, WindowFactory, drop
from tests.gui.test_predict import picture

V = TypeVar("V", bound=AnswerView)
SIZE = (640, 480)
"""What the fake engine says a picture measures; its preview has 64 x 48 pixels."""


class Refined:
    """Keeps what was asked of :meth:`FakeEngine.refine`."""

    def __init__(self, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.params: list[dict[str, Any]] = []
        refine = engine.refine

        def asked(prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
            self.params.append(params)
            return refine(prediction_id, params)

        monkeypatch.setattr(engine, "refine", asked)


@pytest.fixture
def refined(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Refined:
    return Refined(engine, monkeypatch)


@pytest.fixture
def shown(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, tmp_path: Path
) -> Callable[..., tuple[MainWindow, AnswerView]]:
    """Opens a model of a task, drops a file on it and waits for the view ``kind``."""

    def show(
        kind: type[V], task: str, answer: Callable[[PredictRequest], dict[str, Any]], file: str = "a.png", **facts: Any
    ) -> tuple[MainWindow, V]:
        engine.add(spec("model", task, **facts))
        engine.answer = lambda request: Prediction("p1", request.model, task, TIMING, **answer(request))
        window = make_window()
        qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
        path = tmp_path / file
        if path.suffix == ".png":
            picture(tmp_path, file)
        elif not path.exists():
            path.write_bytes(b"some bytes")
        drop(window, path)
        dock = window.predict_page.work.dock
        qtbot.waitUntil(lambda: isinstance(dock.view, kind), timeout=WAIT_MS)
        assert isinstance(dock.view, kind)
        return window, dock.view

    return show


def view_of(window: MainWindow) -> ImageView:
    return window.predict_page.work.image_view


def work_of(window: MainWindow) -> WorkView:
    return window.predict_page.work


def colour_at(view: ImageView, x: float, y: float) -> QColor:
    """What is drawn at a place of the original picture."""
    at = view.frame_of().point(x, y)
    return view.grab().toImage().pixelColor(round(at.x()), round(at.y()))


def box(left: int, top: int, right: int, bottom: int) -> dict[str, int]:
    return {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}


# -- things ------------------------------------------------------------------------------------------------------------
FOUND = [
    {"label": "cat", "score": 0.9, "box": box(100, 100, 300, 300)},
    {"label": "dog", "score": 0.7, "box": box(350, 100, 600, 400)},
    {"label": "cat", "score": 0.5, "box": box(10, 10, 60, 60)},
]


def detections(request: PredictRequest) -> dict[str, Any]:
    least = float(request.params.get("threshold", 0.25))
    return {"predictions": [entry for entry in FOUND if float(str(entry["score"])) >= least]}


def test_a_threshold_refines_and_never_asks_again(
    qtbot: QtBot, engine: FakeEngine, refined: Refined, shown: Any
) -> None:
    _, view = shown(ThingsView, "object-detection", detections, postprocessing=Postprocessing(threshold=0.3, iou=0.6))
    assert (view.threshold.value, view.overlap.value) == (0.3, 0.6)
    assert view.head.text() == "3 objects"
    assert not view.table.horizontalScrollBar().isVisible(), "the columns fit the dock"
    view.threshold.slider.setValue(60)
    qtbot.waitUntil(lambda: view.head.text() == "2 objects", timeout=WAIT_MS)
    assert refined.params == [{"threshold": 0.6, "iou": 0.6}]
    assert len(engine.requests) == 1
    view.threshold.slider.setValue(95)
    qtbot.waitUntil(lambda: view.head.text() == "Nothing found above 0.95", timeout=WAIT_MS)
    assert view.threshold.isVisible()


def test_a_slider_that_moves_on_asks_once(qtbot: QtBot, refined: Refined, shown: Any) -> None:
    _, view = shown(ThingsView, "object-detection", detections)
    for value in range(30, 60):
        view.threshold.slider.setValue(value)
    qtbot.waitUntil(lambda: bool(refined.params), timeout=WAIT_MS)
    assert [params["threshold"] for params in refined.params] == [0.59]


def test_a_class_is_hidden_without_asking_anybody(
    qtbot: QtBot, engine: FakeEngine, refined: Refined, shown: Any
) -> None:
    window, view = shown(ThingsView, "object-detection", detections, labels=("dog", "cat"))
    qtbot.waitUntil(lambda: isinstance(view_of(window).overlay, Things), timeout=WAIT_MS)
    assert list(view.classes.boxes) == ["cat", "dog"]
    view.classes.boxes["cat"].click()
    assert [entry["label"] for entry in view.shown] == ["dog"]
    overlay = view_of(window).overlay
    assert isinstance(overlay, Things)
    assert [entry["label"] for entry in overlay.entries] == ["dog"]
    assert list(overlay.colours) == [0], "a class keeps its colour whatever is hidden"
    view.classes.all_button.click()
    assert len(view.shown) == 3
    assert refined.params == []
    assert len(engine.requests) == 1


def test_the_row_and_the_box_are_chosen_together(qtbot: QtBot, shown: Any) -> None:
    window, view = shown(ThingsView, "object-detection", detections)
    image = view_of(window)
    qtbot.waitUntil(lambda: isinstance(image.overlay, Things), timeout=WAIT_MS)
    at = image.frame_of().point(400, 200).toPoint()
    QTest.mouseClick(image, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)
    assert view.table.currentIndex().row() == 1
    overlay = image.overlay
    assert isinstance(overlay, Things)
    assert overlay.lit == 1


def test_joints_and_bones_are_drawn(qtbot: QtBot, shown: Any) -> None:
    points = [
        {"label": "head", "x": 320.0, "y": 100.0, "score": 0.9},
        {"label": "hip", "x": 320.0, "y": 300.0, "score": 0.9},
    ]
    answer = {"predictions": [{"label": "figure", "score": 0.8, "box": box(200, 50, 440, 400), "keypoints": points}]}
    window, view = shown(
        PosesView, "keypoint-detection", lambda _: answer, keypoints=("head", "hip"), skeleton=(("head", "hip"),)
    )
    qtbot.waitUntil(lambda: isinstance(view_of(window).overlay, Things), timeout=WAIT_MS)
    image = view_of(window)
    at, drawn = image.frame_of().point(320, 200).toPoint(), image.grab().toImage()
    assert theme.OVERLAY[0] in {drawn.pixelColor(at.x() + dx, at.y()).name().upper() for dx in range(-2, 3)}
    assert view.points.text() == "head 320, 100 · hip 320, 300"
    overlay = view_of(window).overlay
    assert overlay is not None
    assert overlay.words_at(322, 101) == "head"
    assert overlay.words_at(400, 200) == ""


# -- masks -------------------------------------------------------------------------------------------------------------
def runs_of(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def left_half() -> np.ndarray:
    mask = np.zeros((480, 640), bool)
    mask[:, :320] = True
    return mask


def masks(request: PredictRequest) -> dict[str, Any]:
    entries = [
        {"label": "sky", "score": None, "mask": runs_of(left_half()), "area": 0.5},
        {"label": "sea", "score": None, "mask": runs_of(~left_half()), "area": 0.5},
    ]
    if request.params.get("masks") != "rle":
        entries = [entry | {"mask": b"PNG"} for entry in entries]
    return {"predictions": entries}


def test_masks_tint_the_picture_and_can_be_hidden(qtbot: QtBot, engine: FakeEngine, shown: Any) -> None:
    window, view = shown(
        MasksView, "image-segmentation", masks, postprocessing=Postprocessing(head="semantic"), labels=("sky", "sea")
    )
    assert engine.requests[0].params == {"masks": "rle"}
    image = view_of(window)
    qtbot.waitUntil(lambda: isinstance(image.overlay, Tint), timeout=WAIT_MS)
    plain = QColor(16 * 10 % 256, 100, 128)
    tinted_colour = colour_at(image, 160, 240)
    wanted = [round(0.5 * a + 0.5 * b) for a, b in zip(_rgb(QColor(theme.OVERLAY[0])), (64, 120, 128), strict=True)]
    assert all(abs(a - b) < 16 for a, b in zip(_rgb(tinted_colour), wanted, strict=True)), plain
    overlay = image.overlay
    assert isinstance(overlay, Tint)
    assert (overlay.words_at(100, 100), overlay.words_at(500, 100)) == ("sky", "sea")
    assert not view.threshold.isVisible(), "a map of classes has no confidence"
    view.classes.boxes["sky"].click()
    qtbot.waitUntil(lambda: image.overlay is not overlay, timeout=WAIT_MS)
    assert all(abs(a - b) < 8 for a, b in zip(_rgb(colour_at(image, 160, 240)), (64, 120, 128), strict=True))


def _rgb(colour: QColor) -> tuple[int, int, int]:
    return colour.red(), colour.green(), colour.blue()


def test_copied_json_has_what_the_network_gives(qtbot: QtBot, refined: Refined, shown: Any) -> None:
    window, _ = shown(MasksView, "image-segmentation", masks)
    QGuiApplication.clipboard().clear()
    window.predict_page.copy_answer()
    qtbot.waitUntil(lambda: bool(QGuiApplication.clipboard().text()), timeout=WAIT_MS)
    assert refined.params == [{}]
    body = json.loads(QGuiApplication.clipboard().text())
    assert [entry["mask"] for entry in body["predictions"]] == ["UE5H", "UE5H"]


def test_runs_that_do_not_fill_the_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        unrolled({"size": [4, 4], "counts": [3, 4]}, 4, 4)


def test_runs_become_pixels_column_by_column() -> None:
    mask = np.random.default_rng(1).random((30, 50)) > 0.5
    np.testing.assert_array_equal(unrolled(runs_of(mask), 30, 50), mask)
    np.testing.assert_array_equal(numbered([runs_of(mask), runs_of(~mask)], 30, 50), np.where(mask, 1, 2))
    half = tinted(numbered([runs_of(mask)], 30, 50), [None], 0.5)
    assert half.pixelColor(0, 0).alpha() == 0


# -- maps and pictures -------------------------------------------------------------------------------------------------
def test_depth_stands_behind_a_divider_that_keys_move(qtbot: QtBot, shown: Any) -> None:
    depth = np.tile(np.linspace(1, 5, 640, dtype=np.float32), (480, 1))
    window, view = shown(
        DepthView, "depth-estimation", lambda _: {"predictions": {"depth": b"PNG", "predicted_depth": depth}}
    )
    image = view_of(window)
    qtbot.waitUntil(lambda: image.second is not None, timeout=WAIT_MS)
    assert view.range.text() == "1 to 5"
    assert sum(view.histogram.counts) == depth.size
    overlay = image.overlay
    assert isinstance(overlay, Readout)
    assert overlay.words_at(639, 5) == "5"
    before = colour_at(image, 330, 100)
    image.setFocus()
    QTest.keyClick(image, Qt.Key.Key_Right)
    assert image.divider == pytest.approx(0.5 + STEP)
    for _ in range(4):
        QTest.keyClick(image, Qt.Key.Key_Right)
    assert colour_at(image, 330, 100) != before, "the picture now reaches further"


def test_the_divider_follows_the_pointer(qtbot: QtBot, shown: Any) -> None:
    depth = np.ones((48, 64), np.float32) * np.arange(64, dtype=np.float32)
    window, _ = shown(DepthView, "depth-estimation", lambda _: {"predictions": {"predicted_depth": depth}})
    image = view_of(window)
    qtbot.waitUntil(lambda: image.second is not None, timeout=WAIT_MS)
    frame = image.frame_of()
    start, end = frame.point(320, 240).toPoint(), frame.point(160, 240).toPoint()
    QTest.mousePress(image, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    QTest.mouseMove(image, end)
    QTest.mouseRelease(image, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, end)
    assert image.divider == pytest.approx(0.25, abs=0.01)


def test_depth_is_kept_as_a_picture_of_sixteen_bits(
    qtbot: QtBot, shown: Any, refined: Refined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: PredictRequest) -> dict[str, Any]:
        deep = request.params.get("depth") == "grey16"
        values = np.ones((4, 4), np.float32)
        values[0] = 2
        return {"predictions": {"depth": b"deep" if deep else b"flat", "predicted_depth": values}}

    _, view = shown(DepthView, "depth-estimation", answer)
    target = tmp_path / "kept.png"
    monkeypatch.setattr(QFileDialog, "open", lambda dialog: dialog.fileSelected.emit(str(target)))
    view.save_button.click()
    qtbot.waitUntil(target.exists, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: target.read_bytes() == b"deep", timeout=WAIT_MS)
    assert refined.params == [{"depth": "grey16"}]


def test_a_map_without_numbers_is_told(qtbot: QtBot, shown: Any) -> None:
    window, _ = shown(
        DepthView, "depth-estimation", lambda _: {"predictions": {"predicted_depth": np.full((4, 4), np.nan)}}
    )
    qtbot.waitUntil(lambda: window.predict_page.banner.isVisible(), timeout=WAIT_MS)


def test_colours_go_from_the_least_to_the_most() -> None:
    image, low, high, counts = colour_map(np.array([[0.0, 1.0], [np.nan, 2.0]]))
    assert (low, high, sum(counts)) == (0.0, 2.0, 3)
    assert image.pixelColor(0, 0).name() == "#440154"
    assert image.pixelColor(1, 1).name() == "#fde724"
    assert image.pixelColor(0, 1).name() == "#000000"


def test_a_new_picture_is_decoded_elsewhere_and_kept_as_it_came(
    qtbot: QtBot, engine: FakeEngine, shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def preview(source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        seen.append(source)
        future: Future[ImagePreview] = Future()
        colour = bytes([10, 200, 30]) if source == b"NEW" else bytes([90, 90, 90])
        future.set_result(ImagePreview(8, 6, colour * 48, (1280, 960) if source == b"NEW" else SIZE))
        return future

    monkeypatch.setattr(engine, "preview_image", preview)
    found = {"image": b"NEW", "width": 1280, "height": 960}
    window, view = shown(PicturesView, "image-to-image", lambda _: {"predictions": found})
    image = view_of(window)
    qtbot.waitUntil(lambda: image.second is not None, timeout=WAIT_MS)
    assert b"NEW" in seen
    assert view.head.text() == "1280 × 960"
    assert colour_at(image, 500, 200).name() == "#0ac81e"
    assert colour_at(image, 100, 200).name() == "#5a5a5a"
    target = tmp_path / "new.png"
    monkeypatch.setattr(QFileDialog, "open", lambda dialog: dialog.fileSelected.emit(str(target)))
    view.save_button.click()
    qtbot.waitUntil(lambda: target.exists() and target.read_bytes() == b"NEW", timeout=WAIT_MS)


def test_what_one_picture_had_is_not_laid_over_the_next(qtbot: QtBot, engine: FakeEngine, shown: Any) -> None:
    window, _ = shown(ThingsView, "object-detection", detections)
    image = view_of(window)
    qtbot.waitUntil(lambda: isinstance(image.overlay, Things), timeout=WAIT_MS)
    engine.hold = True
    work = work_of(window)
    item = work.current
    assert item is not None
    assert item.source.path is not None
    drop(window, picture(item.source.path.parent, "next.png"))
    qtbot.waitUntil(lambda: work.current is not None and work.current.source.name == "next.png", timeout=WAIT_MS)
    assert image.overlay is None
    assert image.second is None
    for request, future in engine.held:
        future.set_result(engine.answer(request))


# -- texts -------------------------------------------------------------------------------------------------------------
TEXT = "Ana 😀 lives\r\nin Rome."


def spans(request: PredictRequest) -> dict[str, Any]:
    entries = [
        {"entity_group": "PER", "score": 0.99, "word": "Ana", "start": 0, "end": 3},
        {"entity_group": "LOC", "score": 0.6, "word": "Rome", "start": 16, "end": 20},
    ]
    least = float(request.params.get("threshold", 0))
    return {"predictions": [entry for entry in entries if float(str(entry["score"])) >= least]}


def test_spans_are_marked_where_they_stand(qtbot: QtBot, shown: Any, tmp_path: Path, refined: Refined) -> None:
    (tmp_path / "letter.txt").write_bytes(TEXT.encode())
    window, view = shown(SpansView, "token-classification", spans, "letter.txt")
    text = work_of(window).views.text
    qtbot.waitUntil(lambda: len(text.extraSelections()) == 2, timeout=WAIT_MS)
    marked = [selection.cursor.selectedText() for selection in text.extraSelections()]
    assert marked == ["Ana", "Rome"]
    assert [view.model.item(row, 1).text() for row in range(2)] == ["PER", "LOC"]
    assert not view.table.horizontalScrollBar().isVisible(), "the columns fit the dock"
    view.table.selectRow(1)
    assert text.lit == 1
    view.threshold.slider.setValue(80)
    qtbot.waitUntil(lambda: len(text.extraSelections()) == 1, timeout=WAIT_MS)
    assert refined.params == [{"threshold": 0.8}]
    view.classes.boxes["PER"].click()
    assert text.extraSelections() == []


def test_spans_that_the_text_does_not_hold_get_no_mark(qtbot: QtBot) -> None:
    view = TextView()
    qtbot.addWidget(view)
    view.show_spans([(0, 3, 0), (16, 20, 1)], lit=1)
    assert view.extraSelections() == []
    view.show_text(TEXT)
    view.show_spans([(0, 3, 0), (16, 2000, 1)], lit=1)
    assert [mark.cursor.selectedText() for mark in view.extraSelections()] == ["Ana"]


def test_places_count_as_the_document_counts() -> None:
    assert document_places(TEXT, [0, 3, 5, 16, 20]) == [0, 3, 6, 16, 20]


def test_a_text_can_be_typed_and_asked_about(qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory) -> None:
    engine.add(spec("reader", "text-classification", labels=("good", "bad")))
    best = [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]
    engine.answer = lambda request: Prediction("p", request.model, "text-classification", TIMING, predictions=best)
    window = make_window()
    ready = window.predict_page.ready
    qtbot.waitUntil(ready.text_box.isVisible, timeout=WAIT_MS)
    assert not ready.ask_button.isEnabled()
    QTest.keyClicks(ready.text, "A fine day")
    QTest.keyClick(ready.text, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    work = work_of(window)
    qtbot.waitUntil(lambda: work.dock.bars.answers == [("good", 0.9), ("bad", 0.1)], timeout=WAIT_MS)
    assert (engine.requests[0].data, engine.requests[0].content_type) == (b"A fine day", "text/plain; charset=utf-8")
    qtbot.waitUntil(lambda: work.views.text.toPlainText() == "A fine day", timeout=WAIT_MS)


# -- recordings, numbers, tensors --------------------------------------------------------------------------------------
def test_a_recording_is_shown_with_its_length(qtbot: QtBot, engine: FakeEngine, shown: Any) -> None:
    best = [{"label": "bird", "score": 0.8}, {"label": "car", "score": 0.2}]
    window, _ = shown(ClassesView, "audio-classification", lambda _: {"predictions": best}, "song.wav")
    work = work_of(window)
    qtbot.waitUntil(lambda: work.views.wave.preview is not None, timeout=WAIT_MS)
    assert engine.requests[0].content_type == "audio/wav"
    assert work.dock.right.text() == "2.5\u2009s, 16 kHz, mono"
    wave = work.views.wave.grab().toImage()
    colours = {wave.pixelColor(x, wave.height() // 3).name() for x in range(20, wave.width() - 20, 3)}
    assert theme.color("accent").name() in colours


def test_no_class_above_the_threshold_is_said(qtbot: QtBot, shown: Any) -> None:
    _, view = shown(
        ClassesView, "image-classification", lambda _: {"predictions": []}, postprocessing=Postprocessing(threshold=0.5)
    )
    assert view.nothing.text() == "No class has a score above 50\u2009%."
    assert view.nothing.isVisible()


def test_scores_that_are_no_shares_are_numbers(qtbot: QtBot, shown: Any) -> None:
    _, view = shown(
        ClassesView, "text-classification", lambda _: {"predictions": [{"label": "stars", "score": 3.7}]}, "a.txt"
    )
    assert view.bars.best_score.text() == "3.7"
    assert not view.bars.close_call.isVisible()


def test_predicted_numbers_stand_with_their_names(qtbot: QtBot, shown: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    rows = [{"input": 0, "predictions": [{"value": 4.25}, {"value": 7.0}]}]
    window, view = shown(
        ValuesView, "tabular-regression", lambda _: {"results": rows}, "t.csv", labels=("price", "age")
    )
    assert view.first.text() == "4.25"
    assert view.grid.itemAtPosition(1, 0).widget().text() == "age"
    answers = work_of(window).answers
    assert answers.data(answers.index(0, 1)) == "4.25, 7"
    qtbot.waitUntil(lambda: work_of(window).table.isColumnHidden(SCORE), timeout=WAIT_MS)


def test_features_are_counted_and_kept(
    qtbot: QtBot, shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = [3.0, 4.0, 0.0]
    _, view = shown(VectorsView, "feature-extraction", lambda _: {"predictions": vector}, "a.txt")
    qtbot.waitUntil(lambda: view.head.text() == "3 numbers", timeout=WAIT_MS)
    assert view.rows["Length"].text() == "5"
    target = tmp_path / "v.npy"
    monkeypatch.setattr(QFileDialog, "open", lambda dialog: dialog.fileSelected.emit(str(target)))
    view.save_button.click()
    qtbot.waitUntil(lambda: target.exists() and target.stat().st_size > 0, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: np.load(io.BytesIO(target.read_bytes())).tolist() == vector, timeout=WAIT_MS)


def test_a_slice_of_a_tensor_can_be_chosen(qtbot: QtBot, shown: Any) -> None:
    tensor = np.zeros((2, 5, 7), np.float32)
    tensor[1, 4, 6] = 1.0
    outputs = {"map": tensor, "names": np.array(["a", "b"], dtype=object)}
    window, view = shown(TensorsView, "raw-tensors", lambda _: {"outputs": outputs}, "x.npy")
    canvas = work_of(window).views.tensor
    qtbot.waitUntil(lambda: canvas.slice.image is not None, timeout=WAIT_MS)
    assert canvas.axes() == (1, 2)

    def shown_slice() -> QImage:
        assert canvas.slice.image is not None
        return canvas.slice.image

    assert (shown_slice().width(), shown_slice().height()) == (7, 5)
    canvas.spins[0].setValue(1)
    qtbot.waitUntil(lambda: shown_slice().pixelColor(6, 4).value() == 255, timeout=WAIT_MS)
    view.chooser.setCurrentIndex(1)
    qtbot.waitUntil(lambda: view.facts["First"].text() == "a, b", timeout=WAIT_MS)
    assert canvas.slice.message == "This output has no picture."


def test_a_slice_turns_where_the_axes_do() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    assert slice_of(array, 1, 2, [1, 0, 0]).shape == (3, 4)
    np.testing.assert_array_equal(slice_of(array, 2, 1, [1, 0, 0]), slice_of(array, 1, 2, [1, 0, 0]).T)
    assert slice_of(np.array([np.nan, np.nan]), 0, 0, [0]).tolist() == [[0, 0]]


def test_what_no_view_knows_is_shown_as_json(qtbot: QtBot, shown: Any) -> None:
    _, view = shown(JsonView, "a-task-of-tomorrow", lambda _: {"predictions": [{"strange": "<b>thing</b>"}]})
    assert json.loads(view.text.toPlainText()) == [{"strange": "<b>thing</b>"}]


def test_a_note_about_the_picture_is_told(
    qtbot: QtBot, engine: FakeEngine, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preview(source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        future: Future[ImagePreview] = Future()
        future.set_result(ImagePreview(2, 2, bytes(12), (20, 20), "first of 12 frames"))
        return future

    monkeypatch.setattr(engine, "preview_image", preview)
    window, _ = shown(ThingsView, "object-detection", detections)
    work = work_of(window)
    qtbot.waitUntil(work.note.isVisible, timeout=WAIT_MS)
    assert work.note.text() == "First of 12 frames."


def test_a_point_of_the_screen_is_one_of_the_picture(qtbot: QtBot, shown: Any) -> None:
    window, _ = shown(ThingsView, "object-detection", detections)
    image = view_of(window)
    qtbot.waitUntil(lambda: image.has_picture, timeout=WAIT_MS)
    x, y = image.place_of(image.frame_of().point(123, 45))
    assert (x, y) == pytest.approx((123, 45))
    assert isinstance(image.frame_of().point(0, 0), QPointF)
    assert isinstance(image.frame_of().point(0, 0).toPoint(), QPoint)


def test_an_answer_the_engine_keeps_no_more_is_copied_as_it_is_shown(
    qtbot: QtBot, engine: FakeEngine, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, _ = shown(MasksView, "image-segmentation", masks)
    gate: Future[Prediction] = Future()
    monkeypatch.setattr(engine, "refine", lambda *_: gate)
    QGuiApplication.clipboard().clear()
    before = window.status_line.message
    window.predict_page.copy_answer()
    assert window.status_line.message == before, "nothing is said before it is so"
    gate.set_exception(PredictionExpired("This answer is no longer kept."))
    qtbot.waitUntil(lambda: "on the clipboard" in window.status_line.message, timeout=WAIT_MS)
    assert "predictions" in json.loads(QGuiApplication.clipboard().text())
