"""The last 100 requests through both doors, live."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from engine.serving_types import RequestState
from gui.icons import IconLabel
from gui.item_models.requests_model import FROM, MODEL, RAN, SIZE, STATE, TIME, WAITED, RequestsModel
from gui.widgets.basics import Card, label, line
from gui.widgets.delegates import RequestDelegate
from gui.words import count_words


class RequestsCard(Card):
    """``model`` is fed with the engine's records and the door's refusals."""

    def __init__(self) -> None:
        super().__init__()
        self.model = RequestsModel(self)
        self.table = QTableView()
        self._live = label("", "caption", tone="accent")
        self._held = label("held while the pointer is here", "hint")
        self._held.hide()
        self._setup_table()
        head = QHBoxLayout()
        head.setContentsMargins(16, 10, 16, 8)
        head.setSpacing(10)
        head.addWidget(label("Requests", "section"))
        head.addWidget(self._live)
        head.addStretch(1)
        head.addWidget(self._held)
        self._stack = QStackedWidget()
        self._stack.addWidget(self._empty())
        self._stack.addWidget(self.table)
        box = QVBoxLayout(self)
        box.setContentsMargins(1, 1, 1, 8)
        box.setSpacing(0)
        box.addLayout(head)
        box.addWidget(line())
        box.addWidget(self._stack, 1)
        self.model.modelReset.connect(self._on_changed)
        self.model.dataChanged.connect(self._on_changed)
        self._on_changed()

    def _setup_table(self) -> None:
        table = self.table
        table.setModel(self.model)
        table.setItemDelegate(RequestDelegate(table))
        table.setShowGrid(False)
        table.setFrameShape(QFrame.Shape.NoFrame)
        table.setMouseTracking(True)
        table.verticalHeader().hide()
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        table.verticalHeader().setDefaultSectionSize(32)
        header = table.horizontalHeader()
        header.setFixedHeight(28)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(60)
        header.setSectionResizeMode(FROM, QHeaderView.ResizeMode.Stretch)
        for column, width in ((TIME, 90), (MODEL, 200), (STATE, 200), (WAITED, 84), (RAN, 84), (SIZE, 90)):
            table.setColumnWidth(column, width)
        table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        table.setAccessibleName("Last requests")
        table.viewport().installEventFilter(self)

    @staticmethod
    def _empty() -> QWidget:
        page = QWidget()
        box = QVBoxLayout(page)
        box.setSpacing(6)
        box.addStretch(1)
        box.addWidget(
            IconLabel("radio-tower", "text3", 22, tile=48, tile_role="sunken"), 0, Qt.AlignmentFlag.AlignCenter
        )
        box.addSpacing(6)
        box.addWidget(label("No requests yet", "strong"), 0, Qt.AlignmentFlag.AlignCenter)
        words = "Each question to a model appears here, yours and the network's."
        box.addWidget(label(words, "small"), 0, Qt.AlignmentFlag.AlignCenter)
        box.addStretch(2)
        return page

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() in (QEvent.Type.Enter, QEvent.Type.Leave):
            entered = event.type() is QEvent.Type.Enter
            self.model.set_held(entered)
            self._held.setVisible(entered and self.model.rowCount() > 0)
        return super().eventFilter(watched, event)

    def _on_changed(self) -> None:
        records = self.model.records
        self._stack.setCurrentIndex(1 if records else 0)
        live = sum(record.state in (RequestState.WAITING, RequestState.RUNNING) for record in records)
        self._live.setText(f"{live} live" if live else count_words(len(records), "request", "requests"))
        self._live.setVisible(bool(records))
