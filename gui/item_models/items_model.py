"""The queue as a list of thumbnails; each is asked for only when it comes into view."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal
from PySide6.QtGui import QPixmap

from gui.error_text import error_text
from gui.language import mark, tr
from gui.predict_queue import Item, ItemState, PredictQueue
from gui.widgets.basics import plain_tooltip

ITEM_ROLE = Qt.ItemDataRole.UserRole
MAX_THUMBNAILS = 400

_Index = QModelIndex | QPersistentModelIndex

_STATES = {
    ItemState.QUEUED: mark("waiting"),
    ItemState.RUNNING: mark("running"),
    ItemState.DONE: mark("answered"),
    ItemState.FAILED: mark("failed"),
}


class ItemsModel(QAbstractListModel):
    """``wanted(item)`` asks for a thumbnail that came into view; :meth:`set_thumbnail` brings it."""

    wanted = Signal(object)

    def __init__(self, queue: PredictQueue, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._queue = queue
        self._items: list[Item] = []
        self._rows: dict[int, int] = {}
        self._thumbnails: dict[int, QPixmap] = {}
        queue.changed.connect(self._on_changed)
        queue.item_changed.connect(self._on_item_changed)
        self._on_changed()  # a picture of the camera may be in the queue before its list is ever shown

    def item(self, row: int) -> Item:
        return self._items[row]

    def row_of(self, item: Item) -> int:
        """The row of ``item``, -1 where it is not listed."""
        return self._rows.get(item.number, -1)

    def set_thumbnail(self, number: int, pixmap: QPixmap) -> None:
        while len(self._thumbnails) >= MAX_THUMBNAILS:
            del self._thumbnails[next(iter(self._thumbnails))]
        self._thumbnails[number] = pixmap
        row = self._rows.get(number, -1)
        if row >= 0:
            self.dataChanged.emit(self.index(row), self.index(row))

    def thumbnail(self, item: Item) -> QPixmap | None:
        """The picture for ``item``; where it is not there yet it is asked for."""
        found = self._thumbnails.get(item.number)
        if found is None and item.source.kind == "image":
            self.wanted.emit(item)
        return found

    def rowCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(self._items)

    def data(self, index: _Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        item = self._items[index.row()]
        if role == ITEM_ROLE:
            return item
        if role == Qt.ItemDataRole.DisplayRole:
            return item.source.name
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            words = f"{item.source.name}, {tr(_STATES[item.state])}"
            if item.state is ItemState.FAILED and item.error is not None:
                words = f"{item.source.name}: {error_text(item.error).sentence}"
            return plain_tooltip(words) if role == Qt.ItemDataRole.ToolTipRole else words
        return None

    def _on_changed(self) -> None:
        items = self._queue.items
        if len(items) == len(self._items) and (not items or (items[0] is self._items[0])):
            return
        if len(items) > len(self._items) and (not self._items or items[0] is self._items[0]):
            self.beginInsertRows(QModelIndex(), len(self._items), len(items) - 1)
            self._rows |= {item.number: row for row, item in enumerate(items[len(self._items) :], len(self._items))}
            self._items = list(items)
            self.endInsertRows()
            return
        self.beginResetModel()
        self._items = list(items)
        self._rows = {item.number: row for row, item in enumerate(items)}
        known = {item.number for item in items}
        self._thumbnails = {number: p for number, p in self._thumbnails.items() if number in known}
        self.endResetModel()

    def _on_item_changed(self, item: Item) -> None:
        row = self.row_of(item)
        if row >= 0:
            self.dataChanged.emit(self.index(row), self.index(row))
