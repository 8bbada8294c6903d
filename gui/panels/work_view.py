"""Input and answer side by side: the picture or the table, the list of what was dropped, the result dock."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from PySide6.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QPersistentModelIndex, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QImage, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QListView,
    QScrollArea,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from engine import EnginePort, Prediction
from engine.codecs.texts import decode_text
from engine.errors import PredictionExpired
from engine.prediction import AudioPreview, ImagePreview, TablePreview
from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.icons import IconLabel
from gui.intake import read_input
from gui.item_models.answers_model import ANSWER, FIRST_INPUT, ROW, SCORE, AnswersModel
from gui.item_models.items_model import ItemsModel
from gui.language import counted, tr
from gui.model_shelf import ModelCard, ModelShelf
from gui.panels.result_dock import ResultDock
from gui.predict_queue import Item, ItemState, PredictQueue
from gui.thumbnails import Thumbnails
from gui.views import Canvas
from gui.widgets.basics import Button, Card, ElidedLabel, label, line
from gui.widgets.delegates import AnswerDelegate, ThumbnailDelegate
from gui.widgets.image_view import ImageView
from gui.widgets.tensor_view import TensorView
from gui.widgets.text_view import TextView
from gui.widgets.wave_view import WaveView, time_words

NARROW = 900
PREVIEW_SIDE = 2048
WAVE_POINTS = 1200
FOLLOW_EVERY_MS = 200
_Index = QModelIndex | QPersistentModelIndex


class _Strip(QListView):
    """``remove_asked`` by Delete."""

    remove_asked = Signal()

    def dataChanged(self, first: _Index, last: _Index, roles: Sequence[int] = ()) -> None:
        """QListView lays all items out anew, at every answer of thousands; theirs are of one size."""
        QAbstractItemView.dataChanged(self, first, last, list(roles))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Delete:
            self.remove_asked.emit()
        else:
            super().keyPressEvent(event)


class WorkView(QWidget):
    """Shows one item of the queue. ``answered(Prediction)`` when the shown one got its answer."""

    answered = Signal(object)
    zoomed = Signal(float)
    card_asked = Signal(str)
    keep_asked = Signal(object)
    remove_asked = Signal()
    failed = Signal(object)

    def __init__(self, bridge: EngineBridge, queue: PredictQueue, shelf: ModelShelf, doubtful_below: float) -> None:
        super().__init__()
        self._bridge, self._queue, self._shelf = bridge, queue, shelf
        self._doubtful_below = doubtful_below
        self.current: Item | None = None
        self._follow = True
        self._to_follow: Item | None = None
        self._follow_timer = QTimer(self)
        self._follow_timer.setSingleShot(True)
        self._follow_timer.setInterval(FOLLOW_EVERY_MS)
        self._follow_timer.timeout.connect(self._on_follow)
        self._preview_ticket = 0
        self._pictured = 0
        """Number of the item whose picture is on the canvas."""
        self._previews: dict[int, ImagePreview] = {}
        self._refine_ticket = 0
        self._copy_ticket = 0
        self._sizes: dict[int, str] = {}
        self.image_view = ImageView()
        self.image_view.zoomed.connect(self.zoomed)
        self.answers = AnswersModel(self)
        self.table = QTableView()
        self.table_card, self._table_name, self._table_facts, self._doubtful = self._table_parts()
        self._nothing = ImageView()
        self.views = Canvas(self.image_view, TextView(), WaveView(), TensorView())
        self.note = label("", "small")
        self.note.hide()
        self.canvas = QStackedWidget()
        for page in (
            self.image_view, self.table_card, self._nothing, self.views.text, self.views.wave, self.views.tensor,
        ):  # fmt: skip
            self.canvas.addWidget(page)
        self.items_model = ItemsModel(queue, self)
        self._thumbnails = Thumbnails(bridge, self.items_model, self)
        self.counts = label("", "small")
        self.strip_box, self.strip = self._strip_parts()
        self.dock = ResultDock(bridge, self.views, doubtful_below)
        self.dock.failed.connect(self.failed)
        self.dock.refine_asked.connect(self._on_refine)
        self.dock.again_asked.connect(queue.run_again)
        self.dock.card_asked.connect(self.card_asked)
        self.dock.keep_asked.connect(self.keep_asked)
        shelf.changed.connect(lambda: self.dock.show_model(self._answering_model()))
        left = QVBoxLayout()
        left.setSpacing(8)
        left.addWidget(self.canvas, 1)
        left.addWidget(self.note)
        left.addWidget(self.strip_box)
        inner = QWidget()
        inner.setObjectName("clear")
        scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.viewport().setObjectName("clear")
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight, inner)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(16)
        self._row.addLayout(left, 1)
        self._row.addWidget(self.dock)
        queue.item_changed.connect(self._on_item_changed)
        queue.changed.connect(self._on_queue_changed)
        self._on_queue_changed()

    # -- parts -----------------------------------------------------------------------------------------------------
    def _table_parts(self) -> tuple[Card, ElidedLabel, ElidedLabel, QWidget]:
        card = Card()
        name, facts = ElidedLabel("", "section"), ElidedLabel("", "small")
        doubtful = Card("banner")
        doubtful.setProperty("tone", "warn")
        self._doubtful_words = label("", "caption", tone="warn")
        inner = QHBoxLayout(doubtful)
        inner.setContentsMargins(8, 3, 8, 3)
        inner.setSpacing(5)
        inner.addWidget(IconLabel("circle-help", "warn", 12))
        inner.addWidget(self._doubtful_words)
        copy = Button(tr("Copy table"), "copy", "flat", small=True)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.answers.as_csv()))
        top = QHBoxLayout()
        top.setContentsMargins(16, 8, 8, 8)
        top.setSpacing(10)
        top.addWidget(IconLabel("table", "text2", 18))
        top.addWidget(name)
        top.addWidget(facts, 1)
        top.addWidget(doubtful)
        top.addWidget(copy)
        table = self.table
        table.setModel(self.answers)
        self._answer_delegate = AnswerDelegate(self._doubtful_below)
        table.setItemDelegate(self._answer_delegate)
        table.setMouseTracking(True)
        table.setShowGrid(False)
        table.setFrameShape(QFrame.Shape.NoFrame)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(34)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        table.horizontalHeader().setFixedHeight(32)
        table.horizontalHeader().setHighlightSections(False)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.setAccessibleName(tr("Table of answers"))
        table.selectionModel().currentRowChanged.connect(self._on_row_chosen)
        box = QVBoxLayout(card)
        box.setContentsMargins(1, 1, 1, 8)
        box.setSpacing(0)
        box.addLayout(top)
        box.addWidget(line())
        box.addWidget(table, 1)
        return card, name, facts, doubtful

    def _strip_parts(self) -> tuple[QWidget, QListView]:
        view = _Strip()
        view.remove_asked.connect(self.remove_asked)
        view.setModel(self.items_model)
        view.setItemDelegate(ThumbnailDelegate(view))
        view.setFlow(QListView.Flow.LeftToRight)
        view.setWrapping(False)
        view.setUniformItemSizes(True)
        view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setFixedHeight(ThumbnailDelegate.SIZE.height() + 8)
        view.setAccessibleName(tr("Dropped files"))
        view.selectionModel().selectionChanged.connect(self._on_selected)
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(view)
        column.addWidget(self.counts)
        return box, view

    # -- what is shown ---------------------------------------------------------------------------------------------
    def follow_new(self) -> None:
        """Something new was dropped: show it as soon as it runs."""
        self._follow = True

    def show_item(self, item: Item) -> None:
        """Make ``item`` the shown one: its preview is asked for, its answer appears beside it."""
        self.current = item
        self.image_view.show_overlay(None)
        self.image_view.show_second(None)
        self._say_note("")
        self._pictured = 0
        self._bridge.drop(self._preview_ticket)
        row = self.items_model.row_of(item)
        if row >= 0 and self.strip.currentIndex().row() != row:
            index = self.items_model.index(row)
            self.strip.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            self.strip.scrollTo(index)
        source = item.source
        given = source.data if source.data is not None else source.path
        if source.kind == "image" and given is not None:
            self.canvas.setCurrentWidget(self.image_view)
            self._preview_ticket = self._bridge.ask(
                self,
                lambda engine: engine.preview_image(given, PREVIEW_SIDE),
                lambda preview: self._on_image(item, preview),
                self._on_no_preview,
            )
        elif source.kind == "table" and given is not None:
            self.answers.clear()
            self._table_name.setText(source.name)
            self._table_facts.setText("")
            self.canvas.setCurrentWidget(self.table_card)
            self._preview_ticket = self._bridge.ask(
                self, lambda engine: engine.preview_table(given), self._on_table, self._on_no_preview
            )
        elif source.kind == "text":
            self.views.text.show_text("")
            self.canvas.setCurrentWidget(self.views.text)
            self._preview_ticket = self._bridge.run(
                self,
                lambda: decode_text(read_input(source)),
                lambda text: self._on_text(item, text),
                self._on_no_preview,
            )
        elif source.kind == "audio" and given is not None:
            self.views.wave.show_preview(None)
            self.canvas.setCurrentWidget(self.views.wave)
            self._preview_ticket = self._bridge.ask(
                self,
                lambda engine: engine.preview_audio(given, WAVE_POINTS),
                lambda preview: self._on_audio(item, preview),
                self._on_no_preview,
            )
        elif source.kind == "tensor":
            self.views.tensor.show_message(tr("Tensors have no picture; the answer's numbers are shown as one."))
            self.canvas.setCurrentWidget(self.views.tensor)
        else:
            self._nothing.show_message(tr("This file was not run."))
            self.canvas.setCurrentWidget(self._nothing)
        self._show_answer()

    def keep_answer(self) -> None:
        """Keep the shown answer to check its model against."""
        self.dock.keep_answer()

    def _answering_model(self) -> ModelCard | None:
        """The model that gave the shown answer, else the one that would give it."""
        answered = self._shelf.card(self.current.model) if self.current is not None else None
        return answered or self._shelf.active

    def copy_json(self, done: Callable[[], None]) -> bool:
        """The shown answer, as the HTTP interface gives it, to the clipboard, then ``done``; False without one."""

        def copy(text: str) -> None:
            QGuiApplication.clipboard().setText(text)
            done()

        return self.answer_json(copy)

    def answer_json(self, done: Callable[[str], None], item: Item | None = None) -> bool:
        """``done(text)`` with the answer of ``item``, by default the shown one, as the HTTP interface gives it; False
        where there is none."""
        item = item or self.current
        if item is None or item.prediction is None:
            return False

        def tell(prediction: Prediction) -> None:
            done(json.dumps(prediction.to_json(), indent=2, ensure_ascii=False))

        def not_refined(error: BaseException) -> None:
            if isinstance(error, PredictionExpired):  # the engine keeps the last ones only: then as it is shown
                tell(prediction)
            else:
                self.failed.emit(error)

        prediction, view = item.prediction, self.dock.view
        asked_otherwise = view is not None and bool(view.params) and prediction.results is None
        self._bridge.drop(self._copy_ticket)
        if asked_otherwise:
            # The window asks for what it draws best; a script gets what the network gives.
            self._copy_ticket = self._bridge.ask(
                self, lambda engine: engine.refine(prediction.id, {}), tell, not_refined
            )
        else:
            tell(prediction)
        return True

    def answer_picture(self) -> QImage | None:
        """The shown picture with its answer drawn over it; None where the answer is no picture's."""
        item = self.current
        if item is None or item.prediction is None or self._pictured != item.number:
            return None
        return self.image_view.picture_with_answer()

    def set_doubtful_below(self, value: float) -> None:
        self._doubtful_below = self.dock.bars.doubtful_below = self._answer_delegate.doubtful_below = value
        self._show_answer()

    def _show_answer(self) -> None:
        item = self.current
        if item is None:
            return
        self.dock.show_item(item, self._answering_model(), self._sizes.get(item.number, ""))
        if self.dock.view is None and self._pictured == item.number:
            self.image_view.show_overlay(None)
            self.image_view.show_second(None)
        self._lay_over(item)
        if item.source.kind == "table":
            self.answers.show_answers(item.prediction)
            self._table_said()
        if item.state is ItemState.DONE and item.prediction is not None:
            self.answered.emit(item.prediction)

    def _lay_over(self, item: Item) -> None:
        """What was found, over the picture it was found in: never over the picture shown before."""
        view = self.dock.view
        if view is None or item is not self.current:
            return
        preview = self._previews.get(item.number)
        if item.source.kind == "image" and preview is not None and self._pictured == item.number:
            view.show_picture(preview)
        elif item.source.kind == "text":
            view.lay_over()

    def _say_note(self, note: str) -> None:
        self.note.setText(note[:1].upper() + note[1:] + "." if note else "")
        self.note.setVisible(bool(note))

    def _table_said(self) -> None:
        rows = self.answers.rowCount()
        columns = len(self.answers.columns)
        if rows:
            across = counted("{count} column", "{count} columns", columns)
            self._table_facts.setText(", ".join((counted("{count} row", "{count} rows", rows), across)))
        doubtful = self.answers.doubtful_rows(self._doubtful_below)
        below = f"{self._doubtful_below * 100:.0f} %"
        self._doubtful_words.setText(
            tr("{rows} below {score}").format(rows=counted("{count} row", "{count} rows", doubtful), score=below)
        )
        self._doubtful.setVisible(doubtful > 0)
        self.table.setColumnWidth(ROW, 52)
        self.table.setColumnWidth(ANSWER, 140)
        self.table.setColumnWidth(SCORE, 190)
        self.table.setColumnHidden(SCORE, rows > 0 and not self.answers.has_scores)
        for column in range(FIRST_INPUT, self.answers.columnCount()):
            head = str(self.answers.headerData(column, Qt.Orientation.Horizontal))
            self.table.setColumnWidth(column, min(180, max(84, self.fontMetrics().horizontalAdvance(head) + 28)))
        if rows and self.current is not None and self.current.prediction is not None:
            chosen = self.table.currentIndex()
            self.table.selectRow(chosen.row() if chosen.isValid() else 0)
            self._on_row_chosen(self.table.currentIndex(), QModelIndex())

    def _on_row_chosen(self, index: QModelIndex, _previous: QModelIndex) -> None:
        row = index.row()
        if row < 0 or self.current is None or self.current.prediction is None or self.current.source.kind != "table":
            return
        inputs = list(zip(self.answers.columns, self.answers.inputs(row), strict=False))
        self.dock.show_row(row + 1, self.answers.rowCount(), self.answers.result(row), inputs)

    def _on_image(self, item: Item, preview: ImagePreview) -> None:
        width, height = preview.source_size
        self._sizes[item.number] = f"{width} × {height}"
        self.image_view.show_preview(preview, item.source.name)
        self._pictured = item.number
        self._previews = {item.number: preview}
        self._say_note(preview.note)
        self._lay_over(item)
        if item is self.current:
            self.dock.right.setText(self._sizes[item.number])

    def _on_text(self, item: Item, text: str) -> None:
        self.views.text.show_text(text)
        self._sizes[item.number] = counted("{count} character", "{count} characters", len(text))
        if item is self.current:
            self.dock.right.setText(self._sizes[item.number])
            self._lay_over(item)

    def _on_audio(self, item: Item, preview: AudioPreview) -> None:
        self.views.wave.show_preview(preview, item.source.name)
        count = preview.channels
        channels = tr("mono") if count == 1 else counted("{count} channel", "{count} channels", count)
        self._sizes[item.number] = tr("{time}, {rate:g} kHz, {channels}").format(
            time=time_words(round(preview.seconds, 1)), rate=preview.rate / 1000, channels=channels
        )
        if item is self.current:
            self.dock.right.setText(self._sizes[item.number])

    def _on_table(self, preview: TablePreview) -> None:
        self.answers.show_table(preview)
        self._table_said()

    def _on_no_preview(self, error: BaseException) -> None:
        self._nothing.show_message(tr("It cannot be shown. {sentence}").format(sentence=error_text(error).sentence))
        self.canvas.setCurrentWidget(self._nothing)

    def _on_refine(self, item: Item, params: dict[str, Any]) -> None:
        prediction = item.prediction
        if prediction is None:
            return
        self._bridge.drop(self._refine_ticket)

        def expired(error: BaseException) -> None:
            if isinstance(error, PredictionExpired):
                self._queue.run_again(item)
            else:
                item.error = error
                self._show_answer()

        def call(engine: EnginePort) -> Future[Prediction]:
            return engine.refine(prediction.id, params)

        self._refine_ticket = self._bridge.ask(
            self,
            call,
            lambda refined: self._on_refined(item, refined),
            expired,
        )

    def _on_refined(self, item: Item, prediction: Prediction) -> None:
        self._queue.replace_prediction(item, prediction)

    # -- the list --------------------------------------------------------------------------------------------------
    def _on_selected(self, selected: QItemSelection, _deselected: QItemSelection) -> None:
        rows = selected.indexes()
        if rows:
            item = self.items_model.item(rows[0].row())
            if item is not self.current:
                self._follow = False
                self.show_item(item)

    def _on_item_changed(self, item: Item) -> None:
        if item is self.current:
            if item.state is ItemState.QUEUED:
                self._bridge.drop(self._refine_ticket)  # of the answer before: it must not take the new one's place
            self._show_answer()
        elif self._follow and item.state in (ItemState.RUNNING, ItemState.FAILED):
            self._to_follow = item
            if not self._follow_timer.isActive():
                self._follow_timer.start()

    def _on_follow(self) -> None:
        """The newest of a run is shown a few times a second: more could not be seen, and would cost the run."""
        item, self._to_follow = self._to_follow, None
        if item is not None and self._follow and self.items_model.row_of(item) >= 0:
            self.show_item(item)

    def _on_queue_changed(self) -> None:
        items = self._queue.items
        if not items:
            self.current = None
            self._follow = True
            self.dock.clear()
        elif self.current is None or self.current not in items:
            self.show_item(items[0])
        self.strip_box.setVisible(len(items) > 1)
        counts = self._queue.counts
        parts = [
            tr("{count} answered").format(count=counts[ItemState.DONE]),
            tr("{count} not answered").format(count=counts[ItemState.FAILED]) if counts[ItemState.FAILED] else "",
            tr("{count} to go").format(count=counts[ItemState.QUEUED] + counts[ItemState.RUNNING])
            if counts[ItemState.QUEUED] + counts[ItemState.RUNNING]
            else "",
        ]
        files = counted("{count} file", "{count} files", len(items))
        self.counts.setText(f"{files}: {', '.join(p for p in parts if p)}")

    def resizeEvent(self, event: QResizeEvent) -> None:
        narrow = event.size().width() < NARROW - 100
        self._row.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)
        if narrow:
            self.dock.setMinimumWidth(0)
            self.dock.setMaximumWidth(16_777_215)
        else:
            self.dock.setFixedWidth(336)
