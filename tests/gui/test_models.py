"""Opening, cancelling, refusing, consenting to and closing models."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from engine.errors import ConsentRequired, EngineError, LoadFailed, ModelCorrupt, ModelFailed
from engine.events import LoadProgress, LoadStage, ModelState, ModelStateChanged, Snapshot
from engine.prediction import LoadTicket
from gui.main_window import MainWindow
from gui.model_shelf import ChipPhase
from tests.fakes import FakeEngine, spec
from tests.gui.conftest import WAIT_MS, drop

STAGES = (LoadStage.RECOGNISING, LoadStage.HASHING, LoadStage.STARTING, LoadStage.IMPORTING, LoadStage.READING)


def start_load(qtbot: QtBot, window: MainWindow, engine: FakeEngine, path: Path) -> str:
    """A load that stays under way; its model id."""
    engine.hold_loads = True
    window.load_model(path)
    qtbot.waitUntil(lambda: bool(engine.held_loads), timeout=WAIT_MS)
    model_id = engine.held_loads[-1][0]
    qtbot.waitUntil(lambda: any(card.key == model_id for card in window.shelf.cards), timeout=WAIT_MS)
    return model_id


def test_no_model_shows_the_empty_chip_and_the_start_page(window: MainWindow) -> None:
    chip = window.header.chips[0]
    assert chip.card is None
    assert chip.name.text() == "No model open"
    assert window.predict_page.stack.currentWidget() is window.predict_page.start


def test_the_chip_shows_every_stage_of_a_load_in_its_order(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    model_id = start_load(qtbot, window, engine, tmp_path / "flowers")
    chip = window.header.chips[0]
    seen: list[str] = []
    window.shelf.changed.connect(lambda: seen.append(chip.second.text()))
    for stage in STAGES:
        engine.publish_progress(model_id, stage)
        qtbot.waitUntil(lambda s=stage: window.shelf.loading.stage is s, timeout=WAIT_MS)  # type: ignore[union-attr]
    engine.publish(LoadProgress(model_id, LoadStage.READING, 1.0, 298_000_000, 298_000_000))
    qtbot.waitUntil(lambda: chip.card is not None and chip.card.fraction == 1.0, timeout=WAIT_MS)
    assert list(dict.fromkeys(seen)) == [
        "Looking at the file",
        "Checking the file",
        "Starting the worker",
        "Importing the framework",
        "Reading weights",
        "Reading weights, 298 of 298\u2009MB",
    ]
    assert chip.cancel.isVisible()
    assert window.predict_page.stack.currentWidget() is window.predict_page.loading
    assert [stage for stage, _ in window.shelf.loading.stage_seconds] == list(STAGES[:4])  # type: ignore[union-attr]


def test_a_load_that_ends_makes_the_model_ready_and_active(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    model_id = start_load(qtbot, window, engine, tmp_path / "flowers")
    engine.held_loads[0][1].set_result(engine.add(spec(model_id)))
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    chip = window.header.chips[0]
    assert chip.eject.isVisible()
    assert not chip.cancel.isVisible()
    assert chip.second.text() == "Image classification · Keras"
    assert window.predict_page.stack.currentWidget() is window.predict_page.ready


@pytest.mark.parametrize("way", ["chip", "card", "escape"])
def test_a_load_is_cancelled_from_each_place(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, tmp_path: Path, way: str
) -> None:
    start_load(qtbot, window, engine, tmp_path / "flowers")
    if way == "chip":
        window.header.chips[0].cancel.click()
    elif way == "card":
        window.predict_page.loading.cancel_button.click()
    else:
        qtbot.keyClick(window, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not window.shelf.cards, timeout=WAIT_MS)
    assert "cancelled" in window.status_line.message
    assert window.predict_page.stack.currentWidget() is window.predict_page.start


def test_a_failed_load_says_so_and_keeps_the_model_before(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.load_error = ModelCorrupt("<b>orchid</b>.keras ends in the middle.", details="line of the worker")
    ready_window.load_model(tmp_path / "orchid.keras")
    panel = ready_window.predict_page.error
    qtbot.waitUntil(lambda: ready_window.predict_page.stack.currentWidget() is panel, timeout=WAIT_MS)
    assert panel.sentence.text() == "<b>orchid</b>.keras ends in the middle."
    assert panel.sentence.textFormat() is Qt.TextFormat.PlainText
    assert panel.still_text.text() == "digits-keras is still loaded and answering."
    assert not panel.details.is_open
    panel.details.toggle.click()
    assert panel.details.is_open
    assert "model_corrupt" in panel.details.text.toPlainText()
    assert "line of the worker" in panel.details.text.toPlainText()
    assert ready_window.shelf.active is not None
    panel.back_button.click()
    assert ready_window.predict_page.stack.currentWidget() is ready_window.predict_page.ready


class AsksConsent(FakeEngine):
    """Loads only what is trusted."""

    trusted: bool | None = None

    def load(self, source: object, device: object = None, trust: bool = False, runtime: object = None) -> LoadTicket:
        self.trusted = trust
        self.load_error = None if trust else ConsentRequired("It is a program.", fingerprint="4f1e88d2c07a63b9")
        return super().load(source, trust=trust)  # type: ignore[arg-type]  # what the window gave


class TestConsent:
    @pytest.fixture
    def engine(self) -> AsksConsent:
        return AsksConsent()

    def test_the_safe_answer_is_first_and_what_escape_gives(
        self, qtbot: QtBot, window: MainWindow, engine: AsksConsent, tmp_path: Path
    ) -> None:
        window.load_model(tmp_path / "room.pt")
        qtbot.waitUntil(lambda: getattr(window, "consent_dialog", None) is not None, timeout=WAIT_MS)
        dialog = window.consent_dialog
        assert dialog is not None
        assert dialog.safe_button.isDefault()
        assert dialog.focusWidget() is dialog.safe_button
        qtbot.keyClick(dialog, Qt.Key.Key_Escape)
        qtbot.waitUntil(lambda: window.consent_dialog is None, timeout=WAIT_MS)
        assert engine.trusted is False
        assert window.shelf.active is None
        assert "not opened" in window.status_line.message

    def test_consent_loads_it_with_trust(
        self, qtbot: QtBot, window: MainWindow, engine: AsksConsent, tmp_path: Path
    ) -> None:
        window.load_model(tmp_path / "room.pt")
        qtbot.waitUntil(lambda: getattr(window, "consent_dialog", None) is not None, timeout=WAIT_MS)
        assert window.consent_dialog is not None
        window.consent_dialog.run_button.click()
        qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
        assert engine.trusted is True


def test_eject_closes_the_model(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    ready_window.header.chips[0].eject.click()
    qtbot.waitUntil(lambda: not ready_window.shelf.cards, timeout=WAIT_MS)
    assert engine.unloaded == ["digits-keras"]
    assert ready_window.predict_page.stack.currentWidget() is ready_window.predict_page.start


def test_a_model_that_stopped_can_be_started_again(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    error = ModelFailed("Stopped 5 times, not restarted.")
    engine.publish(ModelStateChanged("digits-keras", ModelState.FAILED, error))
    chip = ready_window.header.chips[0]
    qtbot.waitUntil(lambda: chip.again.isVisible(), timeout=WAIT_MS)
    assert chip.second.text() == "Stopped 5 times, not restarted."
    assert ready_window.shelf.active is None
    chip.again.click()
    qtbot.waitUntil(lambda: ready_window.shelf.active is not None, timeout=WAIT_MS)
    assert ready_window.shelf.active is not None
    assert ready_window.shelf.active.phase is ChipPhase.READY


def test_counters_of_both_doors_follow_the_snapshot(qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine) -> None:
    engine._models["digits-keras"]["requests"] = {"window": 13, "network": 340}
    engine.publish_snapshot()
    chip = ready_window.header.chips[0]
    qtbot.waitUntil(lambda: chip.network_count.count == 340, timeout=WAIT_MS)
    assert chip.window_count.count == 13


def test_a_dropped_model_file_is_loaded(qtbot: QtBot, window: MainWindow, engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "flowers.keras"
    path.write_bytes(b"model")
    drop(window, path)
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    assert window.shelf.active is not None
    assert window.shelf.active.path == path


def test_an_example_card_loads_its_model(qtbot: QtBot, make_window: object, tmp_path: Path) -> None:
    folder = tmp_path / "digits-torch"
    (folder / "samples").mkdir(parents=True)
    (folder / "deskside.toml").write_text('task = "image-classification"\nformat = "torchscript"\n')
    (folder / "model.pt").write_bytes(b"x" * 5000)
    (folder / "samples" / "digit-0.png").write_bytes(b"png")
    window: MainWindow = make_window(examples=(folder, tmp_path / "missing"))  # type: ignore[operator]
    start = window.predict_page.start
    qtbot.waitUntil(lambda: len(start.cards) == 1, timeout=WAIT_MS)
    start.cards[0].load_button.click()
    qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
    ready = window.predict_page.ready
    qtbot.waitUntil(lambda: len(ready.strip.buttons) == 1, timeout=WAIT_MS)
    ready.strip.buttons[0].click()
    qtbot.waitUntil(lambda: window.predict_page.work.dock.bars.answers != [], timeout=WAIT_MS)


def test_an_engine_that_raises_from_load_is_told_like_any_error(
    qtbot: QtBot, window: MainWindow, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_args: object, **_options: object) -> LoadTicket:
        raise LoadFailed("The worker could not be started.")

    monkeypatch.setattr(engine, "load", load)
    window.load_model(tmp_path / "flowers.keras")
    page = window.predict_page
    qtbot.waitUntil(lambda: page.stack.currentWidget() is page.error, timeout=WAIT_MS)
    assert page.error.sentence.text() == "The worker could not be started."
    QApplication.clipboard().clear()


@pytest.mark.parametrize("error", [EngineError("Bad."), ValueError("x")])
def test_every_error_has_words(error: Exception) -> None:
    from gui.error_text import error_text

    text = error_text(error)
    assert text.sentence
    assert text.advice
    assert text.details.startswith("code     internal")


def test_a_late_snapshot_does_not_take_the_place_of_the_model_just_opened(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    """Taken while it loaded, delivered after it had: what is dropped next still goes to the new model."""
    ready_window.load_model(tmp_path / "roses.keras")
    shelf = ready_window.shelf
    qtbot.waitUntil(lambda: shelf.active is not None and shelf.active.key == "roses.keras", timeout=WAIT_MS)
    engine._models["roses.keras"]["state"] = "LOADING"
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: shelf.active is None, timeout=WAIT_MS)
    assert ready_window.queue.model == "roses.keras"
    engine._models["roses.keras"]["state"] = "READY"
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: shelf.active is not None, timeout=WAIT_MS)
    assert shelf.active is not None
    assert shelf.active.key == "roses.keras"
    engine._models["roses.keras"]["state"] = "FAILED"
    engine.publish_snapshot()
    qtbot.waitUntil(lambda: shelf.active is not None and shelf.active.key == "digits-keras", timeout=WAIT_MS)


def test_a_snapshot_of_before_the_load_does_not_undo_what_the_load_told(
    qtbot: QtBot, ready_window: MainWindow, engine: FakeEngine, tmp_path: Path
) -> None:
    """Taken as the load began, when nothing was known of the model, and delivered after its end."""
    before = engine.stats()
    early = engine.stats()["models"][0] | {
        "id": "roses.keras", "state": "UNLOADED", "offered": True, "task": None, "spec": None, "loads": 0,
    }  # fmt: skip
    ready_window.load_model(tmp_path / "roses.keras")
    shelf = ready_window.shelf
    qtbot.waitUntil(lambda: shelf.active is not None and shelf.active.key == "roses.keras", timeout=WAIT_MS)
    shelf.snapshot(Snapshot(before | {"models": [*before["models"], early]}, ()))
    assert shelf.active is not None
    assert (shelf.active.key, shelf.active.task) == ("roses.keras", "image-classification")
    rested = early | {"loads": 1, "task": "image-classification", "spec": {}}
    shelf.snapshot(Snapshot(before | {"models": [*before["models"], rested]}, ()))
    card = shelf.card("roses.keras")
    assert card is not None
    assert card.phase is ChipPhase.OFFERED, "one that rests is told from one that was not loaded yet"
