"""Dropping, pasting and choosing inputs; what is shown of their answers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QMimeData, Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage
from pytestqt.qtbot import QtBot

from engine.errors import PredictionExpired, UnusableInput
from engine.prediction import Prediction, PredictRequest
from gui.intake import MAX_INPUT_BYTES
from gui.main_window import MainWindow
from gui.predict_queue import ItemState
from gui.views.tensors import TensorsView
from gui.widgets.drop_area import DropState
from tests.fakes import TIMING, FakeEngine, spec
from tests.gui.conftest import WAIT_MS, WindowFactory, drag, drop, mime_of

PNG = b"\x89PNG\r\n\x1a\n not decoded by the window"


def picture(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(PNG)
    return path


def wait_for_all(qtbot: QtBot, window: MainWindow, count: int) -> None:
    def over() -> bool:
        items = window.queue.items
        return len(items) == count and all(i.state in (ItemState.DONE, ItemState.FAILED) for i in items)

    qtbot.waitUntil(over, timeout=WAIT_MS)


def test_a_dropped_picture_is_shown_with_its_bars(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    drop(ready_window, picture(tmp_path, "three.png"))
    work = ready_window.predict_page.work
    qtbot.waitUntil(lambda: work.dock.bars.answers != [], timeout=WAIT_MS)
    assert work.dock.bars.answers == [("three", 0.91), ("eight", 0.06), ("five", 0.02)]
    assert work.dock.bars.best_label.text() == "three"
    assert work.dock.bars.best_score.text() == "91.0\u2009%"
    assert not work.dock.bars.is_doubtful
    qtbot.waitUntil(lambda: work.image_view.has_picture, timeout=WAIT_MS)
    request = engine.requests[0]
    assert (request.model, request.data, str(request.lane)) == ("digits-keras", PNG, "owner")
    assert ready_window.predict_page.stack.currentWidget() is work
    qtbot.waitUntil(lambda: ready_window.status_line._times["infer"][1].text() == "3.4\u2009ms", timeout=WAIT_MS)


def test_an_answer_below_the_threshold_is_a_close_call(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.answer = lambda request: Prediction(
        "p", request.model, "image-classification", TIMING,
        predictions=[{"label": "<img src=x>", "score": 0.4}, {"label": "b", "score": 0.39}],
    )  # fmt: skip
    drop(ready_window, picture(tmp_path, "a.png"))
    bars = ready_window.predict_page.work.dock.bars
    qtbot.waitUntil(lambda: bars.is_doubtful, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: bars.close_call.isVisible(), timeout=WAIT_MS)
    assert bars.best_label.text() == "<img src=x>"
    assert bars.best_label.textFormat() is Qt.TextFormat.PlainText
    assert "<img" not in bars.best_label.toolTip()


def test_more_classes_are_asked_for_by_refining(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    def answer(request: PredictRequest) -> Prediction:
        top_k = int(request.params.get("top_k", 5))
        best = [{"label": str(i), "score": 0.9 / 2**i} for i in range(top_k)]
        return Prediction("p7", request.model, "image-classification", TIMING, predictions=best)

    engine.answer = answer
    drop(ready_window, picture(tmp_path, "a.png"))
    dock = ready_window.predict_page.work.dock
    qtbot.waitUntil(lambda: len(dock.bars.answers) == 5, timeout=WAIT_MS)
    assert dock.top_k.value() == 5
    assert dock.top_k.maximum() == 10
    dock.top_k.setValue(8)
    qtbot.waitUntil(lambda: len(dock.bars.answers) == 8, timeout=WAIT_MS)
    assert len(engine.requests) == 1


def test_an_expired_answer_is_run_again(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(ready_window, picture(tmp_path, "a.png"))
    dock = ready_window.predict_page.work.dock
    qtbot.waitUntil(lambda: dock.bars.answers != [], timeout=WAIT_MS)

    def refine(_id: str, _params: dict[str, Any]) -> object:
        raise PredictionExpired("Gone.")

    monkeypatch.setattr(engine, "refine", refine)
    dock.top_k.setValue(2)
    qtbot.waitUntil(lambda: len(engine.requests) == 2, timeout=WAIT_MS)
    wait_for_all(qtbot, ready_window, 1)


def test_a_table_shows_every_row_with_its_answer(
    qtbot: QtBot, engine: FakeEngine, make_window: Any, tmp_path: Path
) -> None:
    engine.add(spec("wine", "tabular-classification", labels=("a", "b")))

    def answer(request: PredictRequest) -> Prediction:
        results: list[dict[str, Any]] = [
            {"input": 0, "predictions": [{"label": "a", "score": 0.99}, {"label": "b", "score": 0.01}]},
            {"input": 1, "error": {"code": "value_invalid", "message": "hue is no number."}},
        ]
        return Prediction("p", request.model, "tabular-classification", TIMING, results=results)

    engine.answer = answer
    window = make_window()
    path = tmp_path / "cellar.csv"
    path.write_text("alcohol,malic_acid,hue\n14.23,1.71,3.92\n13.2,1.78,x\n")
    drop(window, path)
    answers = window.predict_page.work.answers
    qtbot.waitUntil(lambda: answers.columnCount() == 6 and bool(answers.result(0)), timeout=WAIT_MS)
    row = [answers.data(answers.index(0, column)) for column in range(6)]
    assert row == ["1", "a", "99.0\u2009%", "14.23", "1.71", "3.92"]
    assert answers.data(answers.index(1, 1)) == "no answer"
    assert "hue is no number." in answers.data(answers.index(1, 1), Qt.ItemDataRole.ToolTipRole)
    assert engine.requests[0].content_type == "text/csv"
    qtbot.waitUntil(lambda: window.predict_page.work.dock.bars.answers != [], timeout=WAIT_MS)
    window.predict_page.work.table.selectRow(1)
    assert window.predict_page.work.dock.error_sentence.text() == "hue is no number."
    assert answers.as_csv().splitlines()[0] == "row,answer,score,alcohol,malic_acid,hue"


def test_copied_tables_hold_no_formula(qtbot: QtBot) -> None:
    from engine.prediction import TablePreview
    from gui.item_models.answers_model import AnswersModel

    model = AnswersModel()
    model.show_table(TablePreview(("a", "b"), (("=1+1", "-3.5"),), 1))
    assert model.as_csv().splitlines()[1] == "1,,,'=1+1,-3.5"


def test_tensors_are_listed_with_type_shape_and_first_values(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.answer = lambda request: Prediction(
        "p", request.model, "raw", TIMING, outputs={"features": np.arange(12, dtype=np.float32).reshape(3, 4)}
    )
    path = tmp_path / "x.npy"
    path.write_bytes(b"npy")
    drop(ready_window, path)
    dock = ready_window.predict_page.work.dock
    qtbot.waitUntil(lambda: isinstance(dock.view, TensorsView), timeout=WAIT_MS)
    shown = dock.view
    assert isinstance(shown, TensorsView)
    qtbot.waitUntil(lambda: shown.facts["Most"].text() == "11", timeout=WAIT_MS)
    assert shown.chooser.currentText() == "features  3 × 4"
    assert shown.facts["Type"].text() == "float32"
    assert shown.facts["First"].text() == "0, 1, 2, 3, 4, 5 …"
    assert engine.requests[0].content_type == "application/x-npy"


def test_a_folder_is_queued_and_its_counts_add_up(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "holiday"
    (folder / "inner").mkdir(parents=True)
    for i in range(5):
        picture(folder, f"{i}.png")
    picture(folder / "inner", "deep.jpg")
    (folder / "plan.docx").write_bytes(b"text")
    right = engine.answer

    def answer(request: PredictRequest) -> Prediction:
        if len(engine.requests) == 3:
            raise UnusableInput("This picture is damaged.", code="image_invalid")
        return right(request)

    engine.answer = answer
    drop(ready_window, folder)
    wait_for_all(qtbot, ready_window, 7)
    counts = ready_window.queue.counts
    assert (counts[ItemState.DONE], counts[ItemState.FAILED]) == (5, 2)
    words = ready_window.predict_page.work.counts
    qtbot.waitUntil(lambda: words.text() == "7 files: 5 answered, 2 not answered", timeout=WAIT_MS)
    assert {str(request.lane) for request in engine.requests} == {"batch"}
    reasons = [str(item.error) for item in ready_window.queue.items if item.state is ItemState.FAILED]
    assert reasons == ["This picture is damaged.", "plan.docx is not a picture, a table, a text or a recording."]


def test_several_files_run_one_after_the_other(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold = True
    drop(ready_window, *(picture(tmp_path, f"{i}.png") for i in range(3)))
    for done in range(3):
        qtbot.waitUntil(lambda n=done: len(engine.held) == n + 1, timeout=WAIT_MS)
        assert ready_window.queue.counts[ItemState.RUNNING] == 1
        request, future = engine.held[done]
        future.set_result(engine.answer(request))
    wait_for_all(qtbot, ready_window, 3)


def test_what_is_dropped_meanwhile_waits_for_its_turn(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold = True
    drop(ready_window, picture(tmp_path, "a.png"))
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    drop(ready_window, picture(tmp_path, "b.png"))
    qtbot.waitUntil(lambda: len(ready_window.queue.items) == 2, timeout=WAIT_MS)
    assert [item.state for item in ready_window.queue.items] == [ItemState.RUNNING, ItemState.QUEUED]
    for turn in range(2):
        qtbot.waitUntil(lambda n=turn: len(engine.held) == n + 1, timeout=WAIT_MS)
        request, future = engine.held[turn]
        future.set_result(engine.answer(request))
    wait_for_all(qtbot, ready_window, 2)


def test_inputs_wait_for_a_model_and_run_when_it_is_ready(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    drop(window, picture(tmp_path, "a.png"))
    qtbot.waitUntil(lambda: len(window.queue.items) == 1, timeout=WAIT_MS)
    assert window.predict_page.banner.isVisible()
    assert window.queue.items[0].state is ItemState.QUEUED
    window.load_model(tmp_path / "digits")
    wait_for_all(qtbot, window, 1)
    assert window.queue.items[0].prediction is not None


def test_a_wrong_file_is_refused_while_it_is_dragged_and_when_dropped(
    qtbot: QtBot, ready_window: MainWindow, tmp_path: Path
) -> None:
    path = tmp_path / "holiday-plan.docx"
    path.write_bytes(b"text")
    mime = mime_of(path)
    drag(ready_window, mime)
    page = ready_window.predict_page
    qtbot.waitUntil(lambda: page.drop_state is DropState.REFUSED, timeout=WAIT_MS)
    assert page.ready.drop_area.sentence == "Nothing that can be asked about, and no model"
    drop(ready_window, path)
    qtbot.waitUntil(lambda: page.banner.isVisible(), timeout=WAIT_MS)
    assert page.banner.sentence == "holiday-plan.docx is not a picture, a table, a text, a recording or a model."
    assert not ready_window.queue.items
    assert page.drop_state is DropState.IDLE


def test_a_drag_says_what_a_drop_would_do(qtbot: QtBot, ready_window: MainWindow, tmp_path: Path) -> None:
    mime = mime_of(*(picture(tmp_path, f"{i}.png") for i in range(12)))
    assert drag(ready_window, mime)
    area = ready_window.predict_page.ready.drop_area
    assert area.state is DropState.OVER
    assert area.sentence == "Release to run 12 pictures"
    ready_window.predict_page.drag_left()
    assert area.state is DropState.IDLE


def test_a_file_too_large_is_listed_with_its_reason(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as handle:
        handle.truncate(MAX_INPUT_BYTES + 1)
    drop(ready_window, path)
    wait_for_all(qtbot, ready_window, 1)
    assert "larger than" in ready_window.predict_page.work.dock.error_sentence.text()
    assert engine.requests == []


def test_a_bad_picture_gives_a_sentence_and_details(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    def answer(_request: PredictRequest) -> Prediction:
        raise UnusableInput("This file is no picture.", code="image_invalid", details="PIL said no")

    engine.answer = answer
    drop(ready_window, picture(tmp_path, "a.png"))
    dock = ready_window.predict_page.work.dock
    qtbot.waitUntil(lambda: dock.error_sentence.isVisible(), timeout=WAIT_MS)
    assert dock.error_sentence.text() == "This file is no picture."
    assert dock.error_advice.text()
    assert "image_invalid" in dock.details.text.toPlainText()
    assert ready_window.shelf.active is not None
    engine.answer = FakeEngine().answer
    dock.again_button.click()
    qtbot.waitUntil(lambda: dock.bars.isVisible(), timeout=WAIT_MS)


@pytest.mark.parametrize("encoded", [True, False])
def test_a_pasted_picture_is_run(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, encoded: bool) -> None:
    mime = QMimeData()
    if encoded:
        mime.setData("image/png", PNG)
    else:
        image = QImage(8, 6, QImage.Format.Format_RGB32)
        image.fill(QColor("red"))
        mime.setImageData(image)
    ready_window.predict_page.paste(mime)
    wait_for_all(qtbot, ready_window, 1)
    data = engine.requests[0].data
    assert isinstance(data, bytes)
    assert data == PNG if encoded else data.startswith(PNG[:8])
    assert engine.requests[0].content_type == "image/png"


def test_a_pasted_path_is_opened_and_nothing_else_is(qtbot: QtBot, ready_window: MainWindow, tmp_path: Path) -> None:
    mime = QMimeData()
    mime.setText(str(picture(tmp_path, "a.png")))
    ready_window.predict_page.paste(mime)
    wait_for_all(qtbot, ready_window, 1)
    ready_window.predict_page.paste(QMimeData())
    assert ready_window.predict_page.banner.sentence == "Nothing to paste."


def test_the_answer_is_copied_as_the_network_gives_it(qtbot: QtBot, ready_window: MainWindow, tmp_path: Path) -> None:
    drop(ready_window, picture(tmp_path, "a.png"))
    wait_for_all(qtbot, ready_window, 1)
    qtbot.waitUntil(lambda: ready_window.predict_page.copy_button.isEnabled(), timeout=WAIT_MS)
    ready_window.predict_page.copy_button.click()
    copied = json.loads(QGuiApplication.clipboard().text())
    assert copied["predictions"][0] == {"label": "three", "score": 0.91}
    assert set(copied) == {"model", "version", "task", "predictions", "timing_ms"}


def test_a_late_answer_to_a_cleared_question_is_thrown_away(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold = True
    drop(ready_window, picture(tmp_path, "old.png"))
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    ready_window.predict_page.clear()
    drop(ready_window, picture(tmp_path, "new.png"))
    qtbot.waitUntil(lambda: len(engine.held) == 2, timeout=WAIT_MS)
    (_, old), (request, new) = engine.held
    late = [{"label": "late", "score": 1.0}]
    if not old.cancelled():
        old.set_result(Prediction("p0", request.model, "image-classification", TIMING, predictions=late))
    new.set_result(engine.answer(request))
    wait_for_all(qtbot, ready_window, 1)
    assert ready_window.queue.items[0].source.name == "new.png"
    assert ready_window.predict_page.work.dock.bars.answers[0][0] == "three"


def test_a_preview_that_lies_about_its_size_is_not_shown(qtbot: QtBot) -> None:
    from engine.prediction import ImagePreview
    from gui.widgets.image_view import image_of

    with pytest.raises(ValueError, match="do not fill"):
        image_of(ImagePreview(100, 100, b"short", (100, 100)))


def test_f5_asks_again(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path) -> None:
    qtbot.keyClick(ready_window, Qt.Key.Key_F5)
    assert ready_window.status_line.message.startswith("Drop something first")
    drop(ready_window, picture(tmp_path, "a.png"))
    wait_for_all(qtbot, ready_window, 1)
    qtbot.keyClick(ready_window, Qt.Key.Key_F5)
    qtbot.waitUntil(lambda: len(engine.requests) == 2, timeout=WAIT_MS)
    wait_for_all(qtbot, ready_window, 1)
    assert engine.requests[0].data == engine.requests[1].data


def test_a_picture_is_saved_with_what_was_found_in_it(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, tmp_path: Path
) -> None:
    """In the picture's own size, with boxes where they belong; and as JSON where that is asked for."""
    engine.add(spec("shapes", "object-detection"))
    box = {"label": "ring", "score": 0.9, "box": {"xmin": 100, "ymin": 100, "xmax": 500, "ymax": 400}}
    engine.answer = lambda request: Prediction("p", request.model, "object-detection", TIMING, predictions=[box])
    window = make_window()
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    drop(window, picture(tmp_path, "a.png"))
    page = window.predict_page
    qtbot.waitUntil(lambda: page.work.image_view.overlay is not None, timeout=WAIT_MS)
    kept, item = page.work.answer_picture(), page.work.current
    assert kept is not None
    assert item is not None
    page.write_answer(tmp_path / "kept.png", kept, item)
    qtbot.waitUntil(lambda: window.status_line.message == "The answer is kept in kept.png.", timeout=WAIT_MS)
    saved = QImage(str(tmp_path / "kept.png"))
    assert (saved.width(), saved.height()) == (64, 48)
    page.work.image_view.show_overlay(None)
    bare = page.work.image_view.picture_with_answer()
    assert bare is not None
    changed = [(x, y) for x in range(64) for y in range(48) if saved.pixel(x, y) != bare.pixel(x, y)]
    assert changed
    assert (min(x for x, _ in changed) - 10) in range(-4, 3), "the box begins at a sixth of the picture"
    page.write_answer(tmp_path / "kept.json", kept, item)
    qtbot.waitUntil((tmp_path / "kept.json").exists, timeout=WAIT_MS)
    assert json.loads((tmp_path / "kept.json").read_text())["predictions"][0]["label"] == "ring"
    page.work.current = None  # what is shown when the dialog closes is not what was asked about
    page.write_answer(tmp_path / "later.json", kept, item)
    qtbot.waitUntil((tmp_path / "later.json").exists, timeout=WAIT_MS)
    page.work.current, item.prediction, answer = item, None, item.prediction
    page.write_answer(tmp_path / "none.json", kept, item)
    assert window.status_line.message == "There is no answer to save yet."
    item.prediction = answer
    page.write_answer(tmp_path / "no such folder" / "deep" / "kept.png", kept, item)
    qtbot.waitUntil((tmp_path / "no such folder" / "deep" / "kept.png").exists, timeout=WAIT_MS)
    (tmp_path / "file").write_bytes(b"")
    page.write_answer(tmp_path / "file" / "kept.png", kept, item)
    qtbot.waitUntil(page.banner.isVisible, timeout=WAIT_MS)
    assert page.banner.sentence == "The answer could not be written."


def test_a_request_is_copied_as_others_can_ask_it(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    from gui.request_code import as_curl, as_python

    ready_window.copy_request(as_curl, "curl")
    assert ready_window.status_line.message == "Ask a model something first."
    path = picture(tmp_path, "a.png")
    drop(ready_window, path)
    wait_for_all(qtbot, ready_window, 1)
    ready_window.copy_request(as_curl, "curl")
    line = QGuiApplication.clipboard().text()
    assert line.endswith("http://127.0.0.1:8765/predict/digits-keras")
    assert str(path) in line
    assert "once the server is on" in ready_window.status_line.message
    ready_window.copy_request(as_python, "Python")
    compile(QGuiApplication.clipboard().text(), "copied", "exec")


def test_f5_keeps_the_answer_where_nobody_could_give_another(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    drop(ready_window, picture(tmp_path, "a.png"))
    wait_for_all(qtbot, ready_window, 1)
    ready_window.eject_active()
    qtbot.waitUntil(lambda: ready_window.shelf.active is None, timeout=WAIT_MS)
    ready_window.predict_page.run_again()
    assert ready_window.status_line.message.startswith("Open a model first")
    (item,) = ready_window.queue.items
    assert item.state is ItemState.DONE
    assert item.prediction is not None


def test_a_sliders_late_answer_does_not_take_the_place_of_a_new_one(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    from concurrent.futures import Future

    drop(ready_window, picture(tmp_path, "a.png"))
    wait_for_all(qtbot, ready_window, 1)
    (item,) = ready_window.queue.items
    late: Future[Prediction] = Future()
    asked = threading.Event()

    def refine(_id: str, _params: dict[str, Any]) -> Future[Prediction]:
        asked.set()
        return late

    engine.refine = refine  # type: ignore[method-assign]
    page = ready_window.predict_page
    page.work._on_refine(item, {"top_k": 3})
    qtbot.waitUntil(asked.is_set, timeout=WAIT_MS)
    page.run_again()
    wait_for_all(qtbot, ready_window, 1)
    assert not late.set_running_or_notify_cancel(), "it was withdrawn"
    assert item.prediction is not None
    assert item.prediction.id == "p1"


def test_what_is_taken_out_of_the_list_can_be_put_back(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    drop(ready_window, *(picture(tmp_path, f"{name}.png") for name in "abc"))
    wait_for_all(qtbot, ready_window, 3)
    queue, page = ready_window.queue, ready_window.predict_page

    def names() -> list[str]:
        return [item.source.name for item in queue.items]

    page.work.show_item(queue.items[1])
    qtbot.keyClick(page.work.strip, Qt.Key.Key_Delete)
    assert names() == ["a.png", "c.png"]
    assert page.banner.sentence == "b.png was taken out of the list."
    assert page.work.items_model.rowCount() == 2
    page.banner.action.click()
    assert names() == ["a.png", "b.png", "c.png"]
    assert page.banner.isHidden()
    assert page.work.current is queue.items[1]
    page.clear()
    assert names() == []
    assert page.banner.sentence == "3 things were taken out of the list."
    page.banner.action.click()
    assert names() == ["a.png", "b.png", "c.png"]
    assert all(item.prediction is not None for item in queue.items), "their answers came back with them"
    page.clear()
    drop(ready_window, picture(tmp_path, "d.png"))
    qtbot.waitUntil(lambda: names() == ["d.png"], timeout=WAIT_MS)
    assert page.banner.isHidden(), "an Undo of another list is no longer offered"
    wait_for_all(qtbot, ready_window, 1)
    assert len(engine.requests) == 4


def test_what_waited_when_it_was_taken_out_runs_when_it_is_put_back(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.hold = True
    drop(ready_window, picture(tmp_path, "a.png"), picture(tmp_path, "b.png"))
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    ready_window.predict_page.clear()
    qtbot.waitUntil(lambda: engine.held[0][1].cancelled(), timeout=WAIT_MS)
    engine.hold = False
    ready_window.predict_page.banner.action.click()
    wait_for_all(qtbot, ready_window, 2)
    assert ready_window.queue.counts[ItemState.DONE] == 2
