"""The model card in the real window: evidence, the choice by looking at answers, the kept answer, versions, devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QAbstractButton, QLabel
from pytestqt.qtbot import QtBot

from engine.errors import ConsentRequired, LoadFailed, ModelCorrupt
from engine.events import LoadStage, ModelState
from engine.model_spec import Preprocessing
from engine.serving_types import ServerScope
from gui.actions import CARD, PREDICT
from gui.evidence import Evidence
from gui.main_window import MainWindow
from gui.panels.convention_card import ConventionCard
from gui.panels.model_card_page import ModelCardPage
from tests.gui.card_engine import CardEngine, CardServer, flowers
from tests.gui.conftest import WAIT_MS, WindowFactory, drop

SCALING = "preprocessing.scaling"


@pytest.fixture
def engine() -> CardEngine:
    result = CardEngine()
    result.add(flowers())
    return result


@pytest.fixture
def server(engine: CardEngine) -> CardServer:
    return CardServer(engine)


@pytest.fixture
def window(qtbot: QtBot, make_window: WindowFactory) -> MainWindow:
    result = make_window()
    qtbot.waitUntil(lambda: result.shelf.active is not None, timeout=WAIT_MS)
    return result


def picture(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"\x89PNG " + name.encode())
    return path


def answer_of(qtbot: QtBot, window: MainWindow, path: Path) -> str:
    """Drop ``path`` and read the large answer."""
    before = len(window.queue.items)
    drop(window, path)
    items = window.queue.items
    qtbot.waitUntil(lambda: len(items) > before and items[-1].prediction is not None, timeout=WAIT_MS)
    dock = window.predict_page.work.dock
    qtbot.waitUntil(lambda: dock.name.text() == path.name and dock.bars.isVisible(), timeout=WAIT_MS)
    return dock.bars.best_label.text()


def open_card(qtbot: QtBot, window: MainWindow, tmp_path: Path) -> ModelCardPage:
    """A picture was dropped, then the card was opened by its key: the tiles hold its answers."""
    answer_of(qtbot, window, picture(tmp_path, "dahlia-12.jpg"))
    qtbot.keyClick(window, Qt.Key.Key_I, Qt.KeyboardModifier.ControlModifier)
    assert window.pages.currentIndex() == CARD
    qtbot.waitUntil(lambda: len(window.card_page.conventions.tiles) == 4, timeout=WAIT_MS)
    return window.card_page


def keep(qtbot: QtBot, window: MainWindow, tmp_path: Path) -> None:
    """Drop a picture and keep its answer by the key."""
    answer_of(qtbot, window, picture(tmp_path, "kept.png"))
    qtbot.keyClick(window, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    foot = window.predict_page.work.dock.foot
    qtbot.waitUntil(lambda: foot.golden.text() == "Same answer here", timeout=WAIT_MS)


def tile_states(card: ConventionCard) -> list[str]:
    return ["chosen" if tile.is_chosen else "assumed now" if tile.now else "" for tile in card.tiles]


class TestTheChoice:
    def test_an_assumed_scaling_is_asked_about_with_the_picture_dropped_last(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        page = open_card(qtbot, window, tmp_path)
        assert engine.given == [b"\x89PNG dahlia-12.jpg"]
        assert page.conventions.question.text() == "Which scaling gives the right answer?"
        answers = [(tile.words, tile.answer, tile.score) for tile in page.conventions.tiles]
        assert answers[0] == ("0 … 1", "ranunculus", 0.384)
        assert answers[1] == ("\u22121 … 1", "dahlia", 0.941)
        assert tile_states(page.conventions) == ["assumed now", "", "", ""]
        row = page.list.row(SCALING)
        assert row is not None
        assert row.row.kind is Evidence.ASSUMED
        assert row.is_selected
        assert "Scaling is assumed" in window.status_line.message
        assert "13 fields found, 1 assumed." in page.summary.text()

    def test_the_tile_that_is_chosen_is_how_the_model_reads_afterwards(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        assert answer_of(qtbot, window, picture(tmp_path, "before.jpg")) == "ranunculus"
        page = open_card(qtbot, window, tmp_path)
        qtbot.mouseClick(page.conventions.tiles[1], Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: tile_states(page.conventions) == ["", "chosen", "", ""], timeout=WAIT_MS)
        assert engine.stated == {"flowers": {"scaling": "-1..1"}}
        row = page.list.row(SCALING)
        assert row is not None
        assert row.row.kind is Evidence.CHANGED
        assert row.value.text() == "\u22121 … 1"
        assert row.source.text().startswith("changed by you, ")
        qtbot.waitUntil(row.undo.isVisible, timeout=WAIT_MS)  # a layout shows what it was given a turn later
        assert "none assumed" in page.summary.text()
        page.back_button.click()
        assert window.pages.currentIndex() == PREDICT
        assert answer_of(qtbot, window, picture(tmp_path, "after.jpg")) == "dahlia"

    def test_undo_takes_the_whole_choice_back(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        page = open_card(qtbot, window, tmp_path)
        page.conventions.tiles[2].click()
        qtbot.waitUntil(lambda: page.list.row("preprocessing.mean") is not None, timeout=WAIT_MS)
        row = page.list.row("preprocessing.mean")
        assert row is not None
        row.undo.click()
        qtbot.waitUntil(lambda: tile_states(page.conventions)[0] == "assumed now", timeout=WAIT_MS)
        undone = page.list.row(SCALING)
        assert undone is not None
        assert undone.row.kind is Evidence.ASSUMED
        assert not undone.undo.isVisible()
        assert answer_of(qtbot, window, picture(tmp_path, "after.jpg")) == "ranunculus"

    def test_a_choice_by_keyboard_alone(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        page = open_card(qtbot, window, tmp_path)
        window.activateWindow()
        qtbot.waitUntil(window.isActiveWindow, timeout=WAIT_MS)
        page.back_button.setFocus(Qt.FocusReason.TabFocusReason)
        tile = page.conventions.tiles[1]
        for _ in range(60):
            focused = window.focusWidget()
            if focused is tile:
                break
            qtbot.keyClick(focused, Qt.Key.Key_Tab)
        assert window.focusWidget() is tile
        assert window.focus_ring.isVisible()
        qtbot.keyClick(tile, Qt.Key.Key_Space)
        qtbot.waitUntil(lambda: tile_states(page.conventions)[1] == "chosen", timeout=WAIT_MS)
        assert window.focusWidget() is tile

    def test_another_tile_takes_back_what_the_one_before_set(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        page = open_card(qtbot, window, tmp_path)
        page.conventions.tiles[2].click()
        qtbot.waitUntil(lambda: tile_states(page.conventions) == ["", "", "chosen", ""], timeout=WAIT_MS)
        assert set(engine.stated["flowers"]) == {"scaling", "mean", "std"}
        page.conventions.tiles[0].click()
        qtbot.waitUntil(lambda: tile_states(page.conventions) == ["chosen", "", "", ""], timeout=WAIT_MS)
        assert engine.stated["flowers"] == {"scaling": "0..1"}
        assert answer_of(qtbot, window, picture(tmp_path, "after.jpg")) == "ranunculus"

    def test_what_is_asked_comes_first_and_the_other_ways_on_demand(
        self, qtbot: QtBot, make_window: WindowFactory, engine: CardEngine, tmp_path: Path
    ) -> None:
        engine._models["flowers"]["spec"]["evidence"]["preprocessing.channel_order"] = "assumed"
        window = make_window()
        qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
        page = open_card(qtbot, window, tmp_path)
        assert {tile.words.rpartition(", ")[2] for tile in page.conventions.tiles} == {"RGB"}
        colour = page.list.row("preprocessing.channel_order")
        assert colour is not None
        colour.compare.click()
        qtbot.waitUntil(lambda: len(page.conventions.tiles) == 2, timeout=WAIT_MS)
        assert [tile.words for tile in page.conventions.tiles] == ["0 … 1, RGB", "0 … 1, BGR"]
        assert page.conventions.question.text() == "Which order of colours gives the right answer?"
        page.conventions.more_button.click()
        assert len(page.conventions.tiles) == 8

    def test_keeping_it_assumed_changes_nothing(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        page = open_card(qtbot, window, tmp_path)
        page.conventions.keep_button.click()
        assert page.right.currentWidget() is not page.conventions
        assert engine.stated == {}
        row = page.list.row(SCALING)
        assert row is not None
        qtbot.mouseClick(row, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: page.conventions.isVisible(), timeout=WAIT_MS)

    def test_without_a_picture_one_is_asked_for(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        window.show_card()
        card = window.card_page.conventions
        qtbot.waitUntil(lambda: card.choose_button.isVisible(), timeout=WAIT_MS)
        assert engine.given == []
        card._on_file_chosen([str(picture(tmp_path, "mine.png"))])
        qtbot.waitUntil(lambda: len(card.tiles) == 4, timeout=WAIT_MS)
        assert engine.given == [b"\x89PNG mine.png"]
        card._on_file_chosen([str(tmp_path / "plan.docx")])
        assert card.message.text() == "plan.docx is not a picture."

    def test_another_of_the_last_pictures_comes_from_the_menu(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        answer_of(qtbot, window, picture(tmp_path, "first & best.jpg"))
        page = open_card(qtbot, window, tmp_path)
        page.conventions._fill_menu()
        names = [action.text() for action in page.conventions.picture_menu.actions()]
        assert names == ["dahlia-12.jpg", "first && best.jpg", "", "Choose a picture…"]
        page.conventions.picture_menu.actions()[1].trigger()
        qtbot.waitUntil(lambda: engine.given[-1] == b"\x89PNG first & best.jpg", timeout=WAIT_MS)

    @pytest.mark.parametrize(
        ("step", "sentence"),
        [
            ("apply_preprocessing", "The model still reads pictures as before."),
            ("save_sidecar", "It is used now, but could not be saved beside the model."),
        ],
    )
    def test_a_choice_that_fails_says_how_far_it_came(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path, step: str, sentence: str
    ) -> None:
        page = open_card(qtbot, window, tmp_path)
        engine.refuse[step] = LoadFailed("The folder cannot be written.")
        page.conventions.tiles[1].click()
        qtbot.waitUntil(lambda: page.banner.isVisible(), timeout=WAIT_MS)
        assert page.banner.sentence == sentence
        assert engine.stated == {}

    def test_a_model_that_cannot_compare_says_why(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        engine.refuse["try_conventions"] = ModelCorrupt("<b>This picture</b> is damaged.")
        answer_of(qtbot, window, picture(tmp_path, "a.png"))
        window.show_card()
        message = window.card_page.conventions.message
        qtbot.waitUntil(lambda: message.isVisible(), timeout=WAIT_MS)
        assert message.text().startswith("<b>This picture</b> is damaged.")
        assert message.textFormat() is Qt.TextFormat.PlainText


class TestTheCard:
    def test_it_opens_from_the_dock_the_chip_and_the_menu(
        self, qtbot: QtBot, window: MainWindow, tmp_path: Path
    ) -> None:
        answer_of(qtbot, window, picture(tmp_path, "a.png"))
        foot = window.predict_page.work.dock.foot
        assert foot.evidence.text() == "13 of 14 fields found in the files"
        foot.card_link.click()
        assert window.pages.currentIndex() == CARD
        assert window.rail.buttons[PREDICT].isChecked()
        window.card_page.crumb_button.click()
        chip = window.header.chips[0]
        assert chip.card is not None
        actions = {action.text(): action for action in chip.menu_of(chip.card).actions()}
        assert "Back to version 1" not in actions
        actions["Model card"].trigger()
        assert window.pages.currentIndex() == CARD

    def test_without_a_model_there_is_no_card(self, qtbot: QtBot, window: MainWindow, engine: CardEngine) -> None:
        window.header.chips[0].eject.click()
        qtbot.waitUntil(lambda: window.shelf.active is None, timeout=WAIT_MS)
        window.show_card()
        assert window.pages.currentIndex() == PREDICT
        assert "Open a model first" in window.status_line.message

    def test_a_model_closed_meanwhile_closes_its_card(self, qtbot: QtBot, window: MainWindow, tmp_path: Path) -> None:
        open_card(qtbot, window, tmp_path)
        window.header.chips[0].eject.click()
        qtbot.waitUntil(lambda: window.pages.currentIndex() == PREDICT, timeout=WAIT_MS)

    def test_what_it_does_not_use_is_folded_away(self, window: MainWindow) -> None:
        window.show_card()
        rows = window.card_page.list
        assert rows.row("columns") is None
        rows.unused_button.click()
        assert rows.row("columns") is not None
        rows.unused_button.click()
        assert rows.row("columns") is None

    def test_outside_text_is_plain_named_and_copied_in_full(
        self, qtbot: QtBot, make_window: WindowFactory, engine: CardEngine
    ) -> None:
        engine.unload("flowers")
        names = tuple(f"<img src=x> {i}" for i in range(200))
        engine.add(flowers("<i>evil</i>", labels=names))
        window = make_window()
        qtbot.waitUntil(lambda: window.shelf.active is not None, timeout=WAIT_MS)
        window.show_card()
        page = window.card_page
        assert page.model_name.text() == "<i>evil</i>"
        texts = page.findChildren(QLabel)
        assert all(text.textFormat() is Qt.TextFormat.PlainText for text in texts)
        row = page.list.row("labels")
        assert row is not None
        assert "<img" not in row.value.toolTip()
        row.copy_value()
        assert QGuiApplication.clipboard().text() == ", ".join(names)
        assert window.status_line.message == "Classes is on the clipboard."
        page.copy_button.click()
        assert "<img src=x> 199" in QGuiApplication.clipboard().text()

    def test_every_control_has_a_name(self, qtbot: QtBot, window: MainWindow, tmp_path: Path) -> None:
        page = open_card(qtbot, window, tmp_path)
        unnamed = [b for b in page.findChildren(QAbstractButton) if not b.accessibleName()]
        assert unnamed == []
        row = page.list.row(SCALING)
        assert row is not None
        assert row.accessibleName() == "Scaling: 0 … 1. Found nowhere, so assumed."
        assert page.conventions.tiles[0].accessibleName() == "0 … 1: ranunculus 38.4\u2009%. Assumed now."


class TestTheKeptAnswer:
    def test_an_answer_is_kept_from_the_dock_and_checked_at_both_doors(
        self, qtbot: QtBot, window: MainWindow, server: CardServer, tmp_path: Path
    ) -> None:
        answer_of(qtbot, window, picture(tmp_path, "a.png"))
        foot = window.predict_page.work.dock.foot
        assert foot.golden.text() == "No answer is kept yet"
        foot.keep_link.click()
        qtbot.waitUntil(lambda: foot.golden.text() == "Same answer here", timeout=WAIT_MS)
        assert not foot.keep_link.isVisible()
        window.server.switch(ServerScope.COMPUTER, 8765)
        qtbot.waitUntil(lambda: window.server.is_running, timeout=WAIT_MS)
        window.show_card()
        window.card_page.leave_comparison()
        window.card_page.golden.check_button.click()
        golden = window.card_page.golden
        qtbot.waitUntil(lambda: golden.doors["network"].text() == "same answer", timeout=WAIT_MS)
        assert server.asked == ["flowers"]
        assert golden.sentence.text().startswith("Same answer here and over the network, ")
        assert golden.second.text() == "Largest difference 0, 0.001 allowed."
        assert foot.golden.text() == "Same answer here and over the network"
        assert foot.golden_at.text()

    def test_while_the_server_is_off_only_this_door_is_checked(
        self, qtbot: QtBot, window: MainWindow, server: CardServer, tmp_path: Path
    ) -> None:
        keep(qtbot, window, tmp_path)
        window.show_card()
        page = window.card_page
        qtbot.waitUntil(lambda: page.test_button.isEnabled(), timeout=WAIT_MS)
        page.test_button.click()
        assert not page.golden.check_button.isEnabled()
        qtbot.waitUntil(lambda: page.golden.check_button.isEnabled(), timeout=WAIT_MS)
        assert server.asked == []
        assert page.golden.doors["network"].text() == "not checked, the server is off"

    def test_a_door_that_gives_another_answer_is_red_and_in_words(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        keep(qtbot, window, tmp_path)
        engine.check_network("flowers", agreed=False)
        engine.publish_snapshot()
        foot = window.predict_page.work.dock.foot
        qtbot.waitUntil(lambda: foot.golden.text() == "Not the kept answer over the network", timeout=WAIT_MS)
        assert foot.golden.property("tone") == "error"

    def test_a_check_that_cannot_run_is_told(
        self, qtbot: QtBot, window: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        keep(qtbot, window, tmp_path)
        engine.refuse["check_golden"] = LoadFailed("The kept answer cannot be read.")
        window.check_golden()
        qtbot.waitUntil(lambda: window.predict_page.banner.isVisible(), timeout=WAIT_MS)
        assert window.predict_page.banner.sentence == "The kept answer could not be checked."


class TestVersions:
    @pytest.fixture
    def swapping(self, qtbot: QtBot, window: MainWindow, engine: CardEngine) -> MainWindow:
        """The next version is being loaded, asked for by the key."""
        engine.hold_loads = True
        qtbot.keyClick(window, Qt.Key.Key_R, Qt.KeyboardModifier.ControlModifier)
        qtbot.waitUntil(lambda: bool(engine.held_loads), timeout=WAIT_MS)
        return window

    def test_old_and_new_stand_together_while_the_next_version_loads(
        self, qtbot: QtBot, swapping: MainWindow, engine: CardEngine, tmp_path: Path
    ) -> None:
        window = swapping
        engine.publish_progress("flowers", LoadStage.IMPORTING)
        chip = window.header.chips[0]
        qtbot.waitUntil(lambda: chip.second.text() == "Importing the framework", timeout=WAIT_MS)
        names = [chip.name.text() for chip in window.header.chips if chip.isVisible()]
        assert names == ["flowers, next version", "flowers"]
        assert answer_of(qtbot, window, picture(tmp_path, "a.png")) == "ranunculus"
        window.reload_active()
        assert len(engine.held_loads) == 1
        engine.finish_swap()
        qtbot.waitUntil(lambda: window.shelf.loading is None, timeout=WAIT_MS)
        assert [chip.name.text() for chip in window.header.chips if chip.isVisible()] == ["flowers"]
        assert window.status_line.message == "Version 2 of flowers answers now."

    def test_one_click_goes_back(self, qtbot: QtBot, swapping: MainWindow, engine: CardEngine) -> None:
        engine.finish_swap()
        qtbot.waitUntil(lambda: swapping.shelf.loading is None, timeout=WAIT_MS)
        swapping.show_card()
        swapping.card_page.leave_comparison()
        versions = swapping.card_page.versions
        assert versions.sentence.text() == "Version 2 answers."
        assert versions.rollback_button.text() == "Back to version 1"
        versions.rollback_button.click()
        qtbot.waitUntil(lambda: versions.sentence.text() == "Version 1 answers.", timeout=WAIT_MS)
        assert versions.rollback_button.text() == "Back to version 2"
        chip = swapping.header.chips[0]
        assert chip.card is not None
        actions = {action.text(): action for action in chip.menu_of(chip.card).actions()}
        actions["Back to version 2"].trigger()
        qtbot.waitUntil(lambda: versions.sentence.text() == "Version 2 answers.", timeout=WAIT_MS)

    @pytest.mark.parametrize("on_card", [False, True])
    def test_a_swap_that_fails_leaves_the_old_one_answering_and_says_so(
        self, qtbot: QtBot, swapping: MainWindow, engine: CardEngine, tmp_path: Path, on_card: bool
    ) -> None:
        window = swapping
        if on_card:
            window.show_card()
        engine.finish_swap(ModelCorrupt("model.keras ends in the middle."))
        banner = window.card_page.banner if on_card else window.predict_page.banner
        qtbot.waitUntil(lambda: banner.isVisible(), timeout=WAIT_MS)
        assert banner.sentence == "The next version of flowers was not taken; version 1 still answers."
        engine.publish_snapshot()
        window.show_card()
        window.card_page.leave_comparison()
        second = window.card_page.versions.second
        qtbot.waitUntil(lambda: "model.keras ends in the middle." in second.text(), timeout=WAIT_MS)
        assert answer_of(qtbot, window, picture(tmp_path, "a.png")) == "ranunculus"

    def test_a_swap_is_cancelled_without_touching_the_model(self, qtbot: QtBot, swapping: MainWindow) -> None:
        swapping.header.chips[0].cancel.click()
        qtbot.waitUntil(lambda: swapping.shelf.loading is None, timeout=WAIT_MS)
        assert [card.key for card in swapping.shelf.cards] == ["flowers"]

    def test_a_changed_program_asks_again_and_is_then_swapped(
        self, qtbot: QtBot, swapping: MainWindow, engine: CardEngine
    ) -> None:
        engine.finish_swap(ConsentRequired("It is a program.", fingerprint="4f1e88d2c07a63b9"))
        qtbot.waitUntil(lambda: swapping.consent_dialog is not None, timeout=WAIT_MS)
        engine.load_error = None
        assert swapping.consent_dialog is not None
        swapping.consent_dialog.run_button.click()
        qtbot.waitUntil(lambda: engine.reloads == [(None, None, False), (None, None, True)], timeout=WAIT_MS)
        qtbot.waitUntil(lambda: swapping.shelf.loading is None, timeout=WAIT_MS)


def test_device_and_precision_load_it_once_more_beside_itself(
    qtbot: QtBot, window: MainWindow, engine: CardEngine
) -> None:
    window.show_card()
    window.card_page.leave_comparison()
    runs = window.card_page.runs
    assert (runs.device_button.text(), runs.precision_button.text()) == ("CPU", "float32")
    assert [action.text() for action in runs.device_menu.actions()][:2] == ["Automatic", "CPU"]
    runs.precision_menu.actions()[1].trigger()
    qtbot.waitUntil(lambda: engine.reloads == [(None, "bfloat16", False)], timeout=WAIT_MS)
    qtbot.waitUntil(lambda: runs.device_button.isEnabled(), timeout=WAIT_MS)
    runs.device_menu.actions()[1].trigger()
    qtbot.waitUntil(lambda: engine.reloads[1:] == [("cpu", None, False)], timeout=WAIT_MS)
    assert engine.unloaded == []


def test_a_model_that_was_never_read_has_no_task_none(
    qtbot: QtBot, make_window: WindowFactory, engine: CardEngine
) -> None:
    engine._models["flowers"] |= {"task": None, "format": None, "spec": None, "state": str(ModelState.UNLOADED)}
    window = make_window()
    qtbot.waitUntil(lambda: bool(window.shelf.cards), timeout=WAIT_MS)
    assert "None" not in window.header.chips[0].second.text()


def test_large_photographs_are_decoded_smaller_by_the_owners_choice_alone(
    qtbot: QtBot, window: MainWindow, engine: CardEngine
) -> None:
    window.show_card()
    page = window.card_page
    page.leave_comparison()
    card = page.photographs
    assert card.isVisible()
    assert card.choice.value == "full"
    assert any("pixels differ slightly from the reference" in text.text() for text in card.findChildren(QLabel))
    card.choice.click_choice("smaller")
    qtbot.waitUntil(lambda: card.choice.value == "smaller", timeout=WAIT_MS)
    assert engine.stated == {"flowers": {"jpeg_scaled_decode": True}}
    row = page.list.row("preprocessing.jpeg_scaled_decode")
    assert row is not None
    assert row.row.kind is Evidence.CHANGED
    assert row.row.value == "JPEG decoded smaller: faster, pixels differ slightly"
    row.undo.click()
    qtbot.waitUntil(lambda: card.choice.value == "full", timeout=WAIT_MS)
    assert engine.stated == {"flowers": {}}


def test_no_choice_is_offered_that_would_change_nothing(
    qtbot: QtBot, make_window: WindowFactory, engine: CardEngine
) -> None:
    how = Preprocessing(size=(224, 224), resample="inter_linear")
    engine.add(flowers("boxes", task="object-detection", preprocessing=how))
    window = make_window()
    qtbot.waitUntil(lambda: window.shelf.card("boxes") is not None, timeout=WAIT_MS)
    window.show_card()
    window.card_page.show_model("flowers")
    window.card_page.leave_comparison()
    assert window.card_page.photographs.isVisible()
    window.card_page.show_model("boxes")
    window.card_page.leave_comparison()
    assert window.card_page.photographs.isHidden()
