"""A table's rows beside their answers: row number, answer, score, then the input's own columns."""

from __future__ import annotations

import csv
import io
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from engine import Prediction
from engine.prediction import TablePreview
from gui.language import tr
from gui.widgets.basics import plain_tooltip
from gui.words import percent_words

SCORE_ROLE = Qt.ItemDataRole.UserRole
FAILED_ROLE = Qt.ItemDataRole.UserRole + 1
"""The score 0..1 of a row, None where it has none."""
ROW, ANSWER, SCORE, FIRST_INPUT = range(4)

_Index = QModelIndex | QPersistentModelIndex
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


def best_of(predictions: Any) -> tuple[str, float | None]:
    """The answer of one row as (text, score): the best label, a value, or whatever the task says."""
    if isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        first = predictions[0]
        if "label" in first:
            return str(first["label"]), float(first["score"]) if first.get("score") is not None else None
        if "value" in first:
            return ", ".join(
                f"{p['value']:g}" if isinstance(p["value"], float) else str(p["value"]) for p in predictions
            ), None
    return str(predictions), None


class AnswersModel(QAbstractTableModel):
    """Rows come from the answer (``results``), the input's columns from the head of the table where it reaches."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._results: list[dict[str, Any]] = []
        self._columns: tuple[str, ...] = ()
        self._inputs: tuple[tuple[str, ...], ...] = ()

    def show_table(self, preview: TablePreview) -> None:
        self.beginResetModel()
        self._columns, self._inputs = preview.columns, preview.rows
        self.endResetModel()

    def show_answers(self, prediction: Prediction | None) -> None:
        self.beginResetModel()
        self._results = list(prediction.results or []) if prediction is not None else []
        self.endResetModel()

    def clear(self) -> None:
        self.beginResetModel()
        self._results, self._columns, self._inputs = [], (), ()
        self.endResetModel()

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    def result(self, row: int) -> dict[str, Any]:
        return self._results[row] if row < len(self._results) else {}

    def inputs(self, row: int) -> tuple[str, ...]:
        return self._inputs[row] if row < len(self._inputs) else ()

    @property
    def has_scores(self) -> bool:
        """False where answers are there and none has a score, as numbers that were predicted have none."""
        answers = [result["predictions"] for result in self._results if "predictions" in result]
        return not answers or any(best_of(answer)[1] is not None for answer in answers)

    def doubtful_rows(self, below: float) -> int:
        scores = (best_of(result.get("predictions"))[1] for result in self._results)
        return sum(score is not None and score < below for score in scores)

    def rowCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else max(len(self._results), len(self._inputs))

    def columnCount(self, parent: _Index = QModelIndex()) -> int:
        return 0 if parent.isValid() else FIRST_INPUT + len(self._columns)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(Qt.ItemDataRole.DisplayRole)
    ) -> Any:
        if orientation is Qt.Orientation.Vertical:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return (
                ("", tr("Answer"), tr("Score"))[section]
                if section < FIRST_INPUT
                else self._columns[section - FIRST_INPUT]
            )
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _LEFT if section < FIRST_INPUT else _RIGHT
        return None

    def data(self, index: _Index, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        row, column = index.row(), index.column()
        if role == SCORE_ROLE:
            return best_of(self.result(row).get("predictions"))[1] if "predictions" in self.result(row) else None
        if role == FAILED_ROLE:
            return "error" in self.result(row)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _RIGHT if column >= FIRST_INPUT else _LEFT
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(row, column)
        if role == Qt.ItemDataRole.AccessibleTextRole:  # a cell without a word would be passed over in silence
            return self._text(row, column) or tr("empty")
        if role == Qt.ItemDataRole.ToolTipRole:
            error = self.result(row).get("error")
            return plain_tooltip(str(error["message"]) if error else self._text(row, column))
        return None

    def _text(self, row: int, column: int) -> str:
        result = self.result(row)
        if column == ROW:
            return str(row + 1)
        if column >= FIRST_INPUT:
            values = self.inputs(row)
            return values[column - FIRST_INPUT] if column - FIRST_INPUT < len(values) else ""
        if "error" in result:
            return tr("no answer") if column == ANSWER else ""
        if "predictions" not in result:
            return ""
        answer, score = best_of(result["predictions"])
        if column == ANSWER:
            return answer
        return percent_words(score) if score is not None else ""

    def as_csv(self) -> str:
        """Everything shown, as CSV; cells that a spreadsheet would take for a formula are quoted with an apostrophe."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["row", "answer", "score", *self._columns])
        for row in range(self.rowCount()):
            score = self.data(self.index(row, SCORE), SCORE_ROLE)
            cells = [str(row + 1), self._text(row, ANSWER), "" if score is None else f"{score:.6f}", *self.inputs(row)]
            writer.writerow([_inert(cell) for cell in cells])
        return out.getvalue()


def _inert(cell: str) -> str:
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
    return cell
