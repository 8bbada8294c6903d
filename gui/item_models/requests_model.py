"""The last 100 requests, newest on top: those the engine took and those the door turned away, merged by time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from engine.serving_types import RequestRecord, RequestState
from gui.language import language, mark, tr
from gui.widgets.basics import plain_tooltip
from gui.words import ms_words, size_words

LIMIT = 100
COLUMNS = (mark("Time"), mark("From"), mark("Model"), mark("State"), mark("Waited"), mark("Ran"), mark("Size"), "")
TIME, FROM, MODEL, STATE, WAITED, RAN, SIZE, ACTION = range(8)
RECORD_ROLE = Qt.ItemDataRole.UserRole

_Index = QModelIndex | QPersistentModelIndex
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

_CODES = {
    "busy": mark("busy"),
    "key_required": mark("no key"),
    "key_invalid": mark("wrong key"),
    "key_limit": mark("too many wrong keys"),
    "bad_host": mark("wrong address"),
    "bad_origin": mark("from another page"),
    "not_found": mark("no such page"),
    "input_too_large": mark("too large"),
    "image_invalid": mark("not a picture"),
    "unsupported_media_type": mark("wrong kind"),
    "model_not_found": mark("no such model"),
    "worker_restarted": mark("process ended"),
    "deadline_exceeded": "",
    "key_rights": mark("not allowed to this key"),
    "key_quota": mark("too often"),
    "key_paused": mark("key paused"),
    "not_allowed": mark("not allowed"),
    "paused": mark("network paused"),
}
_STATES = {
    RequestState.WAITING: mark("waiting"),
    RequestState.RUNNING: mark("running"),
    RequestState.ANSWERED: mark("answered"),
    RequestState.LATE: mark("late"),
    RequestState.REFUSED: mark("refused"),
    RequestState.FAILED: mark("failed"),
    RequestState.GONE: mark("gone"),
}
LIVE = (RequestState.WAITING, RequestState.RUNNING)


def state_words(record: RequestRecord) -> str:
    """``refused, not a picture``: the state, and why where it is known."""
    if record.state in (RequestState.REFUSED, RequestState.FAILED) and record.code:
        why = tr(_CODES.get(record.code, record.code.replace("_", " ")))
        return f"{tr(_STATES[record.state])}, {why}" if why else tr(_STATES[record.state])
    if record.state is RequestState.WAITING and record.position is not None:
        return tr("next") if record.position == 0 else tr("{place} in line").format(place=ordinal(record.position + 1))
    return tr(_STATES[record.state])


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``11th``, ``21st`` in English; elsewhere as its catalog writes ``{number}th``."""
    if language() != "en":
        return tr("{number}th").format(number=number)
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{last}"


def caller_words(record: RequestRecord) -> str:
    if record.lane in ("owner", "batch"):
        return tr("you")
    named = " ".join(filter(None, (record.key, record.client)))
    return named or (tr("this computer") if record.lane == "loopback" else tr("network"))


class RequestsModel(QAbstractTableModel):
    """``set_held(True)`` (the pointer is on the list) keeps the rows where they are; their states still move on."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._served: tuple[RequestRecord, ...] = ()
        self._refused: tuple[RequestRecord, ...] = ()
        self._rows: list[RequestRecord] = []
        self._held = False
        self._filter: tuple[str, ...] = ()

    @property
    def records(self) -> tuple[RequestRecord, ...]:
        return tuple(self._rows)

    def set_served(self, records: Sequence[RequestRecord]) -> None:
        self._served = tuple(records)
        self._merge()

    def set_refused(self, records: Sequence[RequestRecord]) -> None:
        self._refused = tuple(records)
        self._merge()

    def set_filter(self, words: str) -> None:
        """Only requests whose caller, model or state hold every word, in any letter case."""
        self._filter = tuple(words.lower().split())
        self._rows_changed(self._chosen())

    def set_held(self, held: bool) -> None:
        self._held = held
        if not held:
            self._merge()

    def _merge(self) -> None:
        if self._held:
            newest = {record.id: record for record in (*self._served, *self._refused)}
            self._rows_changed([newest.get(record.id, record) for record in self._rows])
        else:
            self._rows_changed(self._chosen())

    def _chosen(self) -> list[RequestRecord]:
        everything = sorted((*self._served, *self._refused), key=lambda record: record.received_at, reverse=True)
        return [record for record in everything if self._passes(record)][:LIMIT]

    def _passes(self, record: RequestRecord) -> bool:
        if not self._filter:
            return True
        text = f"{caller_words(record)} {record.model} {state_words(record)}".lower()
        return all(word in text for word in self._filter)

    def _rows_changed(self, rows: list[RequestRecord]) -> None:
        """Put new rows on top and take old ones from the end, so that what is selected stays so."""
        if rows == self._rows:
            return
        before, after = [r.id for r in self._rows], [r.id for r in rows]
        added = after.index(before[0]) if before and before[0] in after else len(after)
        kept = len(after) - added
        if before[:kept] != after[added:]:
            self.beginResetModel()
            self._rows = rows
            self.endResetModel()
            return
        if kept < len(before):
            self.beginRemoveRows(QModelIndex(), kept, len(before) - 1)
            del self._rows[kept:]
            self.endRemoveRows()
        if added:
            self.beginInsertRows(QModelIndex(), 0, added - 1)
            self._rows = rows[:added] + self._rows
            self.endInsertRows()
        self._rows = rows
        if rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, len(COLUMNS) - 1))

    def rowCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        if orientation is Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return tr(COLUMNS[section])
            if role == Qt.ItemDataRole.TextAlignmentRole:
                right = WAITED <= section <= SIZE
                return _RIGHT if right else int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return None

    def data(self, index: _Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        record = self._rows[index.row()]
        if role == RECORD_ROLE:
            return record
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _RIGHT if WAITED <= index.column() <= SIZE else None
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tooltip(self._text(record, index.column()))
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(record, index.column())
        if role == Qt.ItemDataRole.AccessibleTextRole:  # a cell without a word would be passed over in silence
            return self._text(record, index.column()) or tr("empty")
        return None

    @staticmethod
    def _text(record: RequestRecord, column: int) -> str:
        return (
            time.strftime("%H:%M:%S", time.localtime(record.received_at)),
            caller_words(record),
            record.model,
            state_words(record),
            ms_words(record.wait_ms),
            ms_words(record.run_ms),
            size_words(record.size),
            tr("cancel") if record.state in LIVE else tr("more"),
        )[column]
