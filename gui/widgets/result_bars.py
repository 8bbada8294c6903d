"""The best answer large with its number, the others as bars. A screen reader gets the same as one sentence per bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.icons import IconLabel
from gui.language import tr
from gui.widgets.basics import Card, ElidedLabel, label, plain_tooltip, set_tone
from gui.words import percent_words

MIN_BAR_PX = 4


def number_words(score: float) -> str:
    """A score that is no share of anything."""
    return f"{score:.4g}"


def paint_bar(painter: QPainter, rect: QRectF, score: float, role: str) -> None:
    """A bar of ``score`` 0..1; anything above zero shows."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    radius = rect.height() / 2
    painter.setBrush(theme.color("track"))
    painter.drawRoundedRect(rect, radius, radius)
    width = rect.width() * min(1.0, max(0.0, score))
    if score > 0:
        painter.setBrush(theme.color(role))
        painter.drawRoundedRect(QRectF(rect.x(), rect.y(), max(MIN_BAR_PX, width), rect.height()), radius, radius)


class Bar(QWidget):
    """One bar without its numbers."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self._score, self._role = 0.0, "accent"
        self.setFixedHeight(height)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_score(self, score: float, role: str) -> None:
        self._score, self._role = score, role
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_bar(painter, QRectF(self.rect()), self._score, self._role)
        painter.end()


class _Rest(QWidget):
    """The answers after the best: label left, number right, bar below, as many as there are."""

    ROW = 36

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[str, float]] = []
        self._role = "accent"
        self.in_words: Callable[[float], str] = percent_words
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_rows(self, rows: list[tuple[str, float]], role: str) -> None:
        self._rows, self._role = rows, role
        self.setFixedHeight(self._row_height() * len(rows))
        words = [f"{name} {self.in_words(score)}" for name, score in rows]
        self.setAccessibleName(tr("Other answers"))
        self.setAccessibleDescription("; ".join(words))
        self.setToolTip(plain_tooltip("\n".join(words)))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, self._row_height() * len(self._rows))

    def _row_height(self) -> int:
        return max(self.ROW, theme.px("body") + 22)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setFont(theme.font("body"))
        metrics = painter.fontMetrics()
        height = self._row_height()
        for i, (name, score) in enumerate(self._rows):
            top = i * height
            number = self.in_words(score)
            number_width = metrics.horizontalAdvance(number)
            text_rect = QRectF(0, top, self.width() - number_width - 12, metrics.height() + 2)
            painter.setPen(theme.color("text"))
            shown = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, int(text_rect.width()))
            painter.drawText(text_rect, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), shown)
            painter.setPen(theme.color("text2"))
            painter.drawText(
                QRectF(0, top, self.width(), text_rect.height()),
                int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter),
                number,
            )
            paint_bar(painter, QRectF(0, top + text_rect.height() + 3, self.width(), 6), score, self._role)
        painter.end()


class ResultBars(QWidget):
    """Top answers of a classification. ``answers`` is what is shown now, best first."""

    def __init__(self, doubtful_below: float) -> None:
        super().__init__()
        self.doubtful_below = doubtful_below
        self.answers: list[tuple[str, float]] = []
        self.best_label = ElidedLabel("", "answer")
        self.best_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.best_score = label("", "answer", tone="accent")
        self._bar = Bar(8)
        self._rest = _Rest()
        self.close_call = Card("banner")
        self.close_call.setProperty("tone", "warn")
        note = QHBoxLayout(self.close_call)
        note.setContentsMargins(12, 10, 12, 10)
        note.setSpacing(10)
        note.addWidget(IconLabel("circle-help", "warn"), 0, Qt.AlignmentFlag.AlignTop)
        self._note_text = label("", "small", tone="warn", wrap=True)
        note.addWidget(self._note_text, 1)
        top = QHBoxLayout()
        top.setSpacing(12)
        top.addWidget(self.best_label, 1)
        top.addWidget(self.best_score)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(top)
        box.addSpacing(6)
        box.addWidget(self._bar)
        box.addSpacing(20)
        box.addWidget(self._rest)
        box.addWidget(self.close_call)

    @property
    def is_doubtful(self) -> bool:
        return bool(self.answers) and self.answers[0][1] < self.doubtful_below

    def show_answers(self, predictions: Sequence[dict[str, Any]], *, as_numbers: bool = False) -> None:
        """``[{"label", "score"}…]``, best first, scores 0..1; ``as_numbers`` where they are no shares."""
        self.answers = [(str(p["label"]), float(p["score"])) for p in predictions]
        name, score = self.answers[0]
        self._rest.in_words = score_words = number_words if as_numbers else percent_words
        doubtful = self.is_doubtful and not as_numbers
        self.best_label.setText(name)
        self.best_score.setText(score_words(score))
        set_tone(self.best_score, "warn" if doubtful else "accent")
        self._bar.set_score(score, "warn_line" if doubtful else "accent")
        self._bar.setAccessibleName(f"{name} {score_words(score)}")
        self._rest.set_rows(self.answers[1:], "ctl" if doubtful else "accent")
        self.close_call.setVisible(doubtful)
        if len(self.answers) > 1 and self.answers[1][1] > score / 2:
            self._note_text.setText(tr("Close call. Two answers are near each other; check this one yourself."))
        else:
            self._note_text.setText(tr("Close call. No answer stands out; check this one yourself."))
