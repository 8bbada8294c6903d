"""The model card: what is known of a model and where it was read, corrected by looking at answers."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QBoxLayout, QHBoxLayout, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.evidence import EvidenceRow, as_text, assumed_rows, evidence_rows, found_of
from gui.golden import golden_of
from gui.icons import IconLabel
from gui.language import counted, tr
from gui.model_changes import ModelChanges
from gui.model_shelf import ModelCard, ModelShelf
from gui.panels.convention_card import ConventionCard
from gui.panels.copy_cards import GoldenCard, PhotographsCard, RunsCard, VersionsCard
from gui.panels.evidence_list import EvidenceList
from gui.predict_queue import PredictQueue
from gui.widgets.banner import Banner
from gui.widgets.basics import Button, Card, ElidedLabel, label, line

NARROW = 820
NARROW_HEIGHT = 460


class ModelCardPage(QWidget):
    """Shows one model of the shelf until :meth:`show_model` names another.

    ``back_asked()`` leaves it; ``reload_asked(id)`` and ``run_asked(id, device, precision)`` are loads, which the
    window runs; ``status(tone, text)`` for the status line.
    """

    back_asked = Signal()
    reload_asked = Signal(str)
    run_asked = Signal(str, str, str)
    status = Signal(str, str)

    def __init__(self, bridge: EngineBridge, shelf: ModelShelf, queue: PredictQueue, changes: ModelChanges) -> None:
        super().__init__()
        self.setObjectName("page")
        self._shelf, self._changes = shelf, changes
        self._key = ""
        self._rows: list[EvidenceRow] = []
        self.back_button = Button("", "arrow-left", "flat", small=True, name=tr("Back to Predict"))
        self.crumb_button = Button(tr("Predict"), kind="crumb")
        self.model_name = ElidedLabel("", "strong")
        self.test_button = Button(tr("Run self-test"), "shield-check", "flat")
        self.copy_button = Button(tr("Copy as text"), "copy", "flat")
        self.banner = Banner()
        self.summary = label("", "small", wrap=True)
        self.list = EvidenceList()
        self.saved = ElidedLabel("", "small")
        self.conventions = ConventionCard(bridge, queue)
        self.golden, self.versions, self.runs = GoldenCard(), VersionsCard(), RunsCard()
        self.photographs = PhotographsCard()
        self.right = QStackedWidget()
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(4)
        for widget in (self.back_button, self.crumb_button, IconLabel("chevron-right", "text3", 14)):
            top.addWidget(widget)
        top.addSpacing(4)
        top.addWidget(label(tr("Model card"), "strong"))
        top.addWidget(IconLabel("chevron-right", "text3", 14))
        top.addWidget(self.model_name, 1)
        top.addWidget(self.test_button)
        top.addWidget(self.copy_button)
        copies = QWidget()
        copies.setObjectName("clear")
        column = QVBoxLayout(copies)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        for card in (self.golden, self.versions, self.photographs, self.runs):
            column.addWidget(card)
        column.addStretch(1)
        self._copies = QScrollArea()
        self._copies.setWidget(copies)
        self._copies.setWidgetResizable(True)
        self._copies.viewport().setObjectName("clear")
        self._copies.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.right.addWidget(self._copies)
        self.right.addWidget(self.conventions)
        both = QWidget()
        both.setObjectName("clear")
        self._evidence = self._evidence_card()
        self._columns = QBoxLayout(QBoxLayout.Direction.LeftToRight, both)
        self._columns.setContentsMargins(0, 0, 0, 0)
        self._columns.setSpacing(16)
        self._columns.addWidget(self._evidence, 54)
        self._columns.addWidget(self.right, 47)
        scroll = QScrollArea()
        scroll.setWidget(both)
        scroll.setWidgetResizable(True)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.viewport().setObjectName("clear")
        box = QVBoxLayout(self)
        box.setContentsMargins(20, 14, 20, 14)
        box.setSpacing(12)
        box.addLayout(top)
        box.addWidget(self.banner)
        box.addWidget(scroll, 1)

    def _evidence_card(self) -> Card:
        card = Card()
        head = QVBoxLayout()
        head.setContentsMargins(18, 16, 18, 12)
        head.setSpacing(4)
        head.addWidget(label(tr("What Deskside knows, and where it read it"), "section", wrap=True))
        head.addWidget(self.summary)
        foot = QHBoxLayout()
        foot.setContentsMargins(18, 10, 18, 12)
        foot.setSpacing(10)
        foot.addWidget(IconLabel("save", "text2"))
        foot.addWidget(self.saved, 1)
        box = QVBoxLayout(card)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(head)
        box.addWidget(line())
        box.addWidget(self.list, 1)
        box.addWidget(line())
        box.addLayout(foot)
        return card

    def _connect(self) -> None:
        self.back_button.clicked.connect(self.back_asked)
        self.crumb_button.clicked.connect(self.back_asked)
        self.copy_button.clicked.connect(self.copy_as_text)
        self.test_button.clicked.connect(self.check_golden)
        self.list.chosen.connect(self.compare)
        self.list.undo_asked.connect(lambda key: self._changes.undo(self._key, key))
        self.list.copied.connect(
            lambda name: self.status.emit("ok", tr("{name} is on the clipboard.").format(name=name))
        )
        self.conventions.applied.connect(self._on_applied)
        self.conventions.kept.connect(self.leave_comparison)
        self.golden.check_asked.connect(self.check_golden)
        self.golden.forget_asked.connect(lambda: self._changes.forget_golden(self._key))
        self.versions.reload_asked.connect(lambda: self.reload_asked.emit(self._key))
        self.versions.rollback_asked.connect(lambda: self._changes.roll_back(self._key))
        self.runs.run_asked.connect(lambda device, precision: self.run_asked.emit(self._key, device, precision))
        self.photographs.asked.connect(self._on_photographs)
        self._changes.changed.connect(self._on_changed)
        self._changes.failed.connect(self._on_failed)
        self._changes.done.connect(self._on_done)
        self._shelf.changed.connect(self._on_changed)

    # -- which model -----------------------------------------------------------------------------------------------
    @property
    def model(self) -> ModelCard | None:
        """The model shown; None where it was closed meanwhile."""
        return self._shelf.card(self._key)

    def show_model(self, key: str) -> None:
        """Open the card of ``key``; a scaling that is assumed is asked about at once."""
        self._key = key
        self.banner.hide()
        self.refresh()
        self.leave_comparison()
        self.list.verticalScrollBar().setValue(0)
        card = self.model
        if card is None:
            return
        assumed = [row.key for row in assumed_rows(self._rows) if row.is_asked]
        if "preprocessing.scaling" in assumed:
            self.compare("preprocessing.scaling")

    def compare(self, key: str) -> None:
        """Offer the conventions for the field ``key`` side by side."""
        card = self.model
        if card is None:
            return
        self.list.select(key)
        self.right.setCurrentWidget(self.conventions)
        self.conventions.compare(card, key)
        self._say_assumed()

    def leave_comparison(self) -> None:
        self.list.select("")
        self.right.setCurrentWidget(self._copies)

    def _on_changed(self) -> None:
        if self.isVisible():  # a hidden page costs nothing; it is read anew when it is opened
            self.refresh()

    def showEvent(self, event: QShowEvent) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Show the newest of the model; a model that was closed meanwhile closes its card."""
        card = self.model
        if card is None:
            if self._key:
                self._key = ""
                self.back_asked.emit()
            return
        self._rows = evidence_rows(card.entry)
        found, fields = found_of(self._rows)
        assumed = len(assumed_rows(self._rows))
        words = (
            tr("{fields} found, {assumed} assumed.").format(
                fields=counted("{count} field", "{count} fields", found), assumed=assumed or tr("none")
            )
            if fields
            else ""
        )
        self.summary.setText(
            tr("{words} Change any of them; the model's own file is never altered.").format(words=words).strip()
        )
        self.model_name.setText(card.name)
        self.list.show_rows(self._rows, self._changes.changed_at(self._key))
        self.saved.setText(self._changes.saved_words(card))
        swapping = any(other.replaces == card.key for other in self._shelf.cards)
        checking = self._changes.is_checking(card.key)
        self.golden.show_model(card, serving=self._changes.is_serving, checking=checking)
        self.versions.show_model(card, swapping=swapping or self._changes.is_rolling_back(card.key))
        self.photographs.show_model(card)
        self.runs.show_model(card, busy=swapping or bool(card.token))
        self.test_button.setEnabled(golden_of(card.entry) is not None and not checking)
        self.conventions.follow(card)

    # -- what the person does --------------------------------------------------------------------------------------
    def copy_as_text(self) -> None:
        QGuiApplication.clipboard().setText(as_text(self._rows))
        self.status.emit("ok", tr("The model card is on the clipboard."))

    def check_golden(self) -> None:
        self._changes.check_golden(self._key)

    def _on_applied(self, values: dict[str, Any], words: str) -> None:
        self._changes.apply(self._key, values, words)

    def _on_photographs(self, smaller: bool) -> None:
        words = tr("Smaller decoding of large photographs") if smaller else tr("Full decoding of large photographs")
        self._changes.apply(self._key, {"jpeg_scaled_decode": smaller}, words)

    def _on_done(self, sentence: str) -> None:
        self.banner.hide()
        self.status.emit("ok", sentence)

    def _on_failed(self, sentence: str, error: BaseException) -> None:
        text = error_text(error)
        self.banner.say("error", sentence, f"{text.sentence} {text.advice}".strip())
        self.status.emit("error", sentence)

    def _say_assumed(self) -> None:
        names = [row.name for row in assumed_rows(self._rows) if row.is_asked]
        if names:
            one = tr("{name} is assumed. Answers may be wrong until you choose.").format(name=names[0])
            two = tr("{name} and {second} are assumed. Answers may be wrong until you choose.")
            self.status.emit("warn", one if len(names) == 1 else two.format(name=names[0], second=names[1]))

    def resizeEvent(self, event: QResizeEvent) -> None:
        narrow = event.size().width() < NARROW
        self._columns.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)
        for part in (self._evidence, self.right):  # one below the other, the page scrolls
            part.setMinimumHeight(NARROW_HEIGHT if narrow else 0)
