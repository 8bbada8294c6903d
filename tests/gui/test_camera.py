"""Live pictures on the Predict page, from a real child process: shown, answered, kept, stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from engine.errors import EngineError, ModelFailed
from engine.prediction import ImagePreview, Prediction, PredictRequest
from engine.settings import Settings
from gui.actions import PREDICT, SERVER
from gui.engine_bridge import EngineBridge
from gui.frames import Frame, SourceFacts, SourceOrder, SourceState
from gui.live import AFTER_ERROR_S, LiveSession
from gui.main_window import MainWindow
from gui.panels.live_view import LiveView, rates_sentence
from gui.predict_queue import ItemState
from gui.views.things import ThingsView
from gui.widgets.overlays import Things
from tests.fakes import TIMING, FakeEngine, spec
from tests.gui.conftest import WAIT_MS, WindowFactory, drop
from tests.gui.test_frames import camera_settings, clip_folder


@pytest.fixture
def clip(tmp_path: Path) -> SourceOrder:
    return SourceOrder("clip", str(clip_folder(tmp_path / "street")), "street")


def camera_window(qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, mode: str) -> MainWindow:
    """A window with a model, whose cameras are those of the stand-in."""
    engine.add(spec())
    settings = Settings().model_copy(update={"worker": camera_settings(mode)})
    window = make_window(settings=settings)
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    return window


def shows_message(live: LiveView) -> bool:
    return live.stack.currentWidget() is live.message


def pid_of(live: LiveView) -> int:
    return int(live.session.source.pid)  # type: ignore[union-attr]  # a source with a process


def action(window: MainWindow, name: str) -> QAction:
    return next(action for action in window.actions() if action.text() == name)


# -- a camera ---------------------------------------------------------------------------------------------------------
def test_the_button_shows_the_first_camera_and_the_models_answer(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory
) -> None:
    window = camera_window(qtbot, engine, make_window, "jpeg")
    page, live = window.predict_page, window.predict_page.live
    assert page.camera_button.isVisible()
    page.camera_button.click()
    assert page.stack.currentWidget() is live
    assert not page.toolbar.isVisible()
    qtbot.waitUntil(lambda: live.dock.bars.answers != [], timeout=WAIT_MS)
    assert live.image_view.has_picture
    assert live.choices.currentText() == "Desk camera"
    assert live.dock.bars.answers[0] == ("three", 0.91)
    assert live.dock.right.text() == "64 × 48"
    request = engine.requests[0]
    assert isinstance(request.data, bytes)
    assert request.data.startswith(b"\xff\xd8\xff")
    assert (request.model, request.content_type) == ("digits-keras", "image/jpeg")
    assert (str(request.lane), request.client) == ("owner", "you")
    assert window.queue.items == [], "live pictures are not in the list"
    qtbot.waitUntil(lambda: "camera gives" in live.rates.text(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "a second, camera gives" in live.rates.text(), timeout=WAIT_MS)
    assert window.status_line._times["infer"][1].text() == "3.4\u2009ms"


def test_escape_stops_it_and_gives_the_page_back(qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory) -> None:
    window = camera_window(qtbot, engine, make_window, "jpeg")
    page, live = window.predict_page, window.predict_page.live
    action(window, "Camera").trigger()
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    pid = pid_of(live)
    action(window, "Cancel or close").trigger()
    assert not live.is_on
    qtbot.waitUntil(lambda: page.stack.currentWidget() is page.ready, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=WAIT_MS)
    asked = len(engine.requests)
    page.camera_button.click()
    qtbot.waitUntil(lambda: len(engine.requests) > asked, timeout=WAIT_MS)
    live.stop_button.click()
    assert not live.is_on


@pytest.mark.parametrize(
    ("mode", "sentence", "advice", "button"),
    [
        ("none", "No camera was found.", "Connect a camera, then look again.", "Look again"),
        ("unsupported", "Cameras need Qt Multimedia on this system, and it is not installed.", "", "Look again"),
        ("refused", "Deskside may not use this camera.", "", "Start again"),
        ("busy", "Another program is using this camera.", "", "Start again"),
        ("unplugged", "The camera was unplugged, or stopped answering.", "", "Start again"),
    ],
)
def test_why_there_is_no_picture_is_said_plainly(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, mode: str, sentence: str, advice: str, button: str
) -> None:
    window = camera_window(qtbot, engine, make_window, mode)
    live = window.predict_page.live
    window.show_camera()
    qtbot.waitUntil(lambda: shows_message(live), timeout=WAIT_MS)
    assert live.sentence.text() == sentence
    assert live.advice.text()
    assert advice in live.advice.text()
    assert live.again_button.text() == button
    assert live.again_button.isVisible()
    assert not live.keep_button.isEnabled()
    assert live.sentence.textFormat() is Qt.TextFormat.PlainText


def test_looking_again_finds_a_camera_that_was_connected(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, clip: SourceOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = camera_window(qtbot, engine, make_window, "none")
    live = window.predict_page.live
    window.show_camera()
    qtbot.waitUntil(lambda: shows_message(live), timeout=WAIT_MS)
    assert live.choices.currentText() == "No camera"
    monkeypatch.setattr(live._sources, "_settings", camera_settings("jpeg"))
    live.again_button.click()
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    assert live.choices.currentText() == "Desk camera"


def test_a_killed_child_is_one_sentence_and_can_be_started_again(
    qtbot: QtBot, ready_window: MainWindow, clip: SourceOrder
) -> None:
    live = ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.dock.bars.answers != [], timeout=WAIT_MS)
    pid = pid_of(live)
    os.kill(pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: shows_message(live), timeout=WAIT_MS)
    assert live.sentence.text() == "The process for cameras ended."
    assert live.is_on
    assert live.rates.text() == ""
    live.again_button.click()
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    assert pid_of(live) != pid
    assert live.stack.currentWidget() is live.image_view
    assert live.keep_button.isEnabled()


def test_a_driver_that_hangs_holds_up_neither_the_window_nor_stop(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory
) -> None:
    window = camera_window(qtbot, engine, make_window, "hangs")
    live = window.predict_page.live
    window.show_camera()
    qtbot.waitUntil(lambda: live.session.source is not None and live.session.source.facts is not None, timeout=WAIT_MS)
    assert live.session.frame is None
    pid = pid_of(live)
    live.stop_button.click()
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=WAIT_MS)


def test_the_window_closes_with_the_camera_on(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, clip: SourceOrder
) -> None:
    window = camera_window(qtbot, engine, make_window, "jpeg")
    live = window.predict_page.live
    live.play(clip)
    live.play(SourceOrder("camera", "/dev/video7", "Desk camera"))
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    pid = pid_of(live)
    window.close()
    qtbot.waitUntil(lambda: window.is_closed, timeout=WAIT_MS)
    assert not psutil.pid_exists(pid)
    assert live.session._open == []


def test_no_camera_runs_behind_another_page(qtbot: QtBot, ready_window: MainWindow, clip: SourceOrder) -> None:
    page, live = ready_window.predict_page, ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    pid = pid_of(live)
    ready_window.show_page(SERVER)
    assert not live.is_on
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=WAIT_MS)
    ready_window.show_page(PREDICT)
    qtbot.waitUntil(lambda: page.stack.currentWidget() is page.ready, timeout=WAIT_MS)


# -- what is asked ----------------------------------------------------------------------------------------------------
def test_one_question_at_a_time_and_the_next_is_about_the_newest_picture(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, clip: SourceOrder
) -> None:
    engine.hold = True
    live = ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    first = live.session._asked
    qtbot.waitUntil(lambda: live.session.frame is not None and live.session.frame.number >= first + 6, timeout=WAIT_MS)
    assert len(engine.requests) == 1, "nothing is queued while one is under way"
    request, future = engine.held.pop()
    future.set_result(engine.answer(request))
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    assert live.session._asked >= first + 6, "what came meanwhile is passed over"
    assert len(engine.requests) == 2
    engine.hold = False
    request, future = engine.held.pop()
    future.set_result(engine.answer(request))


def test_stop_withdraws_the_question(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, clip: SourceOrder
) -> None:
    engine.hold = True
    live = ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    live.stop()
    qtbot.waitUntil(lambda: engine.held[0][1].cancelled(), timeout=WAIT_MS)


def things(request: PredictRequest) -> Prediction:
    threshold = request.params.get("threshold", 0.25)
    found = [
        {"label": "zero", "score": score, "box": {"xmin": 10, "ymin": 10, "xmax": 40, "ymax": 30}}
        for score in (0.9, 0.4)
        if score >= threshold
    ]
    return Prediction("d1", request.model, "object-detection", dict(TIMING), predictions=found)


def test_boxes_lie_over_the_live_picture_and_sliders_hold_for_what_comes(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, clip: SourceOrder
) -> None:
    engine.answer = things
    engine.add(spec("finder", "object-detection"))
    window = make_window()
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    live = window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: isinstance(live.image_view.overlay, Things), timeout=WAIT_MS)
    view = live.dock.view
    assert isinstance(view, ThingsView)
    assert len(view.shown) == 2
    view.threshold.set_value(0.6)
    view.threshold.moved.emit(0.6)
    qtbot.waitUntil(lambda: len(view.shown) == 1, timeout=WAIT_MS)
    asked = len(engine.requests)
    qtbot.waitUntil(lambda: len(engine.requests) > asked + 3, timeout=WAIT_MS)
    assert engine.requests[-1].params["threshold"] == 0.6
    assert view.threshold.value == pytest.approx(0.6), "a new picture does not set the slider back"
    assert isinstance(live.image_view.overlay, Things)


def test_no_picture_is_asked_about_before_the_last_answer_is_drawn(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, clip: SourceOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThingsView, "is_busy", property(lambda view: True))
    engine.answer = things
    engine.add(spec("finder", "object-detection"))
    window = make_window()
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    live = window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.dock.view is not None, timeout=WAIT_MS)
    shown = live.session.frame
    assert shown is not None
    qtbot.waitUntil(
        lambda: live.session.frame is not None and live.session.frame.number > shown.number + 4, timeout=WAIT_MS
    )
    assert len(engine.requests) == 1


def test_zoom_stays_from_picture_to_picture(qtbot: QtBot, ready_window: MainWindow, clip: SourceOrder) -> None:
    live = ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    fitted = live.image_view.scale
    live.image_view.zoom_by(3.0)
    shown = live.session.frame
    assert shown is not None
    qtbot.waitUntil(
        lambda: live.session.frame is not None and live.session.frame.number > shown.number + 3, timeout=WAIT_MS
    )
    assert live.image_view.scale == pytest.approx(3 * fitted)


def test_without_a_model_the_picture_is_shown_and_nothing_is_asked(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, clip: SourceOrder
) -> None:
    live = window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.rates.text().startswith("Clip gives"), timeout=WAIT_MS)
    assert live.dock.busy.words.text() == "Waits for a model"  # type: ignore[attr-defined]  # kept on its own box
    assert engine.requests == []
    window.load_model(Path("/models/digits"))
    qtbot.waitUntil(lambda: live.dock.bars.answers != [], timeout=WAIT_MS)


def test_a_model_that_takes_no_pictures_is_not_asked(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, clip: SourceOrder
) -> None:
    engine.add(spec("wine", "tabular-classification"))
    window = make_window()
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    live = window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.rates.text() != "", timeout=WAIT_MS)
    assert live.dock.error_sentence.text() == "wine takes no pictures."
    assert engine.requests == []


# -- what a person does with it ---------------------------------------------------------------------------------------
def test_a_kept_picture_is_an_ordinary_item_and_the_camera_goes_on(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, clip: SourceOrder
) -> None:
    page, live = ready_window.predict_page, ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    frame = live.session.frame
    assert frame is not None
    live.keep_button.click()
    (item,) = ready_window.queue.items
    assert (item.source.name, item.source.kind, item.source.content_type) == ("Camera picture 1", "image", "image/jpeg")
    assert item.source.data == frame.jpeg
    assert "Camera picture 1 is in the list." in ready_window.status_line.message
    qtbot.waitUntil(lambda: item.state is ItemState.DONE, timeout=WAIT_MS)
    assert frame.jpeg in [request.data for request in engine.requests]
    assert page.stack.currentWidget() is live
    live.keep_button.click()
    assert ready_window.queue.items[1].source.name == "Camera picture 2"
    live.stop()
    qtbot.waitUntil(lambda: page.stack.currentWidget() is page.work, timeout=WAIT_MS)


def test_a_drop_takes_the_page_from_the_camera(
    qtbot: QtBot, ready_window: MainWindow, clip: SourceOrder, tmp_path: Path
) -> None:
    page, live = ready_window.predict_page, ready_window.predict_page.live
    live.play(clip)
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    drop(ready_window, tmp_path / "a.png")
    qtbot.waitUntil(lambda: page.stack.currentWidget() is page.work, timeout=WAIT_MS)
    assert not live.is_on


def test_a_clip_is_chosen_from_the_list_of_cameras(
    qtbot: QtBot, engine: FakeEngine, make_window: WindowFactory, clip: SourceOrder
) -> None:
    window = camera_window(qtbot, engine, make_window, "jpeg")
    live = window.predict_page.live
    window.show_camera()
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    live.choices.activated.emit(live.choices.findText("A folder of pictures…"))
    dialog = window.findChild(QFileDialog)
    assert dialog is not None
    assert dialog.fileMode() is QFileDialog.FileMode.Directory
    assert live.choices.currentText() == "Desk camera", "until one is chosen, what was open stays"
    dialog.reject()
    live.play(clip)
    qtbot.waitUntil(lambda: live.session.order == clip and live.session.frame is not None, timeout=WAIT_MS)
    assert live.choices.currentText() == "street"
    live.choices.activated.emit(live.choices.findText("Desk camera"))
    qtbot.waitUntil(lambda: live.session.frame is not None, timeout=WAIT_MS)
    assert live.session.order is not None
    assert live.session.order.name == "Desk camera"


def test_every_control_has_a_name(ready_window: MainWindow) -> None:
    live = ready_window.predict_page.live
    for control in (live.choices, live.keep_button, live.stop_button, live.again_button, live.image_view):
        assert control.accessibleName(), control


@pytest.mark.parametrize(
    ("answered", "given", "asks", "words"),
    [
        (None, None, True, ""),
        (None, 30.0, True, "Camera gives 30 pictures a second"),
        (12.1, 29.9, True, "12 pictures a second, camera gives 30"),
        (1.0, 15.0, True, "1 picture a second, camera gives 15"),
        (5.0, 1.0, False, "Camera gives 1 picture a second"),
    ],
)
def test_rates_in_words(answered: float | None, given: float | None, asks: bool, words: str) -> None:
    assert rates_sentence(answered, given, "camera", asks) == words


# -- the session alone ------------------------------------------------------------------------------------------------
class FakeSource:
    """Gives what a test puts in ``frame``."""

    def __init__(self) -> None:
        self.state, self.closed = SourceState.RUNNING, 0
        self.problem: EngineError | None = None
        self.facts = SourceFacts(8, 8, 30.0)
        self.frame: Frame | None = None

    def open(self) -> None: ...

    def latest(self) -> Frame | None:
        return self.frame

    def close(self) -> None:
        self.closed += 1

    def give(self, number: int) -> None:
        self.frame = Frame(number, b"\xff\xd8\xff%d" % number, ImagePreview(1, 1, b"\0\0\0", (8, 8)))


class FakeSources:
    def __init__(self) -> None:
        self.made: list[FakeSource] = []

    def cameras(self) -> list[SourceOrder]:
        return []

    def source(self, order: SourceOrder) -> FakeSource:
        self.made.append(FakeSource())
        return self.made[-1]

    def close(self) -> None: ...


class Desk:
    """A session over fakes, whose clock stands still."""

    def __init__(self, engine: FakeEngine) -> None:
        self.now = 100.0
        self.bridge = EngineBridge(engine)
        self.sources = FakeSources()
        self.session = LiveSession(self.bridge, self.sources, clock=lambda: self.now)
        self.refused: list[Any] = []
        self.answers: list[int] = []
        self.session.refused.connect(lambda frame, error: self.refused.append(error))
        self.session.answered.connect(lambda frame, prediction: self.answers.append(frame.number))
        self.session.set_model("digits-keras", {"top_k": 2})
        self.session.start(SourceOrder("camera", "a", "A"))

    @property
    def source(self) -> FakeSource:
        return self.sources.made[-1]

    def close(self) -> None:
        self.session.stop()
        self.session.shut_down()
        self.bridge.close()


@pytest.fixture
def desk(qtbot: QtBot, engine: FakeEngine) -> Any:
    engine.add(spec())
    made = Desk(engine)
    yield made
    made.close()
    assert all(source.closed for source in made.sources.made)


def test_after_an_error_it_waits_before_it_asks_again(qtbot: QtBot, engine: FakeEngine, desk: Desk) -> None:
    def fail(request: PredictRequest) -> Prediction:
        raise ModelFailed("The model has failed.")

    engine.answer = fail
    seen: list[int] = []
    desk.session.pictured.connect(lambda frame: seen.append(frame.number))
    desk.source.give(1)
    qtbot.waitUntil(lambda: len(desk.refused) == 1, timeout=WAIT_MS)
    for number in (2, 3):
        desk.source.give(number)
        qtbot.waitUntil(lambda n=number: seen[-1] == n, timeout=WAIT_MS)
    assert len(engine.requests) == 1, "pictures go on, questions wait"
    desk.now += AFTER_ERROR_S
    qtbot.waitUntil(lambda: len(desk.refused) == 2, timeout=WAIT_MS)
    desk.session.ask_again()
    qtbot.waitUntil(lambda: len(desk.refused) == 3, timeout=WAIT_MS)


def test_a_picture_is_asked_about_once(qtbot: QtBot, engine: FakeEngine, desk: Desk) -> None:
    desk.source.give(1)
    qtbot.waitUntil(lambda: desk.answers == [1], timeout=WAIT_MS)
    desk.source.give(2)
    qtbot.waitUntil(lambda: desk.answers == [1, 2], timeout=WAIT_MS)
    assert [request.data for request in engine.requests] == [b"\xff\xd8\xff1", b"\xff\xd8\xff2"]
    assert engine.requests[0].params == {"top_k": 2}
    desk.session.refine({"top_k": 7})
    qtbot.waitUntil(lambda: desk.answers == [1, 2, 2], timeout=WAIT_MS)
    assert engine.requests[-1].params == {"top_k": 7}, "a slider asks at once, about the picture that is shown"


def test_it_waits_for_what_is_still_being_drawn(qtbot: QtBot, engine: FakeEngine, desk: Desk) -> None:
    looked: list[bool] = []

    def busy() -> bool:
        looked.append(True)
        return False

    desk.session.may_ask = busy
    desk.source.give(1)
    qtbot.waitUntil(lambda: len(looked) > 3, timeout=WAIT_MS)
    assert engine.requests == []
    desk.session.may_ask = lambda: True
    qtbot.waitUntil(lambda: desk.answers == [1], timeout=WAIT_MS)


def test_an_answer_of_the_model_before_is_dropped(qtbot: QtBot, engine: FakeEngine, desk: Desk) -> None:
    engine.hold = True
    engine.add(spec("second"))
    desk.source.give(1)
    qtbot.waitUntil(lambda: len(engine.held) == 1, timeout=WAIT_MS)
    desk.session.set_model("second", {})
    desk.source.give(2)
    qtbot.waitUntil(lambda: len(engine.held) == 2, timeout=WAIT_MS)
    (old, gone), (new, future) = engine.held
    assert (old.model, new.model) == ("digits-keras", "second")
    assert gone.cancelled()
    future.set_result(engine.answer(new))
    qtbot.waitUntil(lambda: desk.answers == [2], timeout=WAIT_MS)


def test_the_end_of_a_source_is_told_once(qtbot: QtBot, desk: Desk) -> None:
    changes: list[SourceState] = []
    desk.source.give(1)
    qtbot.waitUntil(lambda: desk.answers == [1], timeout=WAIT_MS)
    desk.session.changed.connect(lambda: changes.append(desk.source.state))
    desk.source.state, desk.source.frame = SourceState.ENDED, None
    qtbot.waitUntil(lambda: changes == [SourceState.ENDED], timeout=WAIT_MS)
    assert not desk.session._timer.isActive()


def test_a_newer_source_takes_the_place_of_the_one_before(qtbot: QtBot, desk: Desk) -> None:
    first = desk.source
    first.give(5)
    qtbot.waitUntil(lambda: desk.answers == [5], timeout=WAIT_MS)
    desk.session.start(SourceOrder("camera", "b", "B"))
    assert desk.session.frame is None
    qtbot.waitUntil(lambda: first.closed == 1, timeout=WAIT_MS)
    desk.source.give(1)
    qtbot.waitUntil(lambda: desk.answers == [5, 1], timeout=WAIT_MS)


def test_shutting_down_closes_what_no_thread_has_closed_yet(engine: FakeEngine, qtbot: QtBot) -> None:
    engine.add(spec())
    desk = Desk(engine)
    desk.bridge.close()  # from now on nothing is run on its threads
    desk.session.stop()
    assert desk.source.closed == 0
    desk.session.shut_down()
    assert desk.source.closed == 1
