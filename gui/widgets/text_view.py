"""A text as plain text, with what was found in it marked in the colour of its kind."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtGui import QColor, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import QFrame, QPlainTextEdit, QTextEdit

from gui import theme
from gui.language import tr
from gui.widgets.overlays import class_colour

MOST_SPANS = 2000
_SOFT, _LIT = 70, 170
"""How much of a class's colour lies behind a span, of 255; more behind the chosen one."""


def document_places(text: str, offsets: Sequence[int]) -> list[int]:
    """Places in ``text`` (characters) as places in Qt's document, which counts UTF-16 units and one for a line's end
    (``\\r\\n`` too). ``offsets`` ascend."""
    places, at, units = [], 0, 0
    for offset in offsets:
        part = text[at:offset]
        units += len(part) + sum(ord(c) > 0xFFFF for c in part) - part.count("\r\n")
        places.append(units)
        at = offset
    return places


class TextView(QPlainTextEdit):
    """``picked(int)`` is the span under the text cursor, -1 for none."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setReadOnly(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setAccessibleName(tr("Text"))
        self.setProperty("kind", "reading")
        self.text = ""
        self.spans: list[tuple[int, int, int]] = []
        """(start, end, number of the class) in characters of the text."""
        self.lit = -1
        self._places: list[tuple[int, int]] = []
        self.cursorPositionChanged.connect(self._on_cursor)

    def show_text(self, text: str) -> None:
        self.text = text
        self.spans, self._places, self.lit = [], [], -1
        self.blockSignals(True)
        self.setPlainText(text)
        self.blockSignals(False)
        self.setExtraSelections([])

    def show_spans(self, spans: Sequence[tuple[int, int, int]], lit: int = -1) -> None:
        """Mark ``spans``, at most :data:`MOST_SPANS`; ``lit`` is the chosen one. A span that the text does not hold, as
        while an answer is there before its text, gets no mark."""
        self.spans, self.lit = list(spans[:MOST_SPANS]), lit
        edges = sorted({edge for start, end, _ in self.spans for edge in (start, end)})
        placed = dict(zip(edges, document_places(self.text, edges), strict=True))
        self._places = [(placed[start], placed[end]) for start, end, _ in self.spans]
        marks = []
        for number, ((start, end), (_, last, kind)) in enumerate(zip(self._places, self.spans, strict=True)):
            if last > len(self.text):
                continue
            mark = QTextEdit.ExtraSelection()
            colour = QColor(class_colour(kind))
            colour.setAlpha(_LIT if number == lit else _SOFT)
            form = QTextCharFormat()
            form.setBackground(colour)
            if number == lit:
                form.setForeground(QColor(theme.OVERLAY_TEXT))
            cursor = QTextCursor(self.document())
            cursor.setPosition(start)
            cursor.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
            mark.cursor, mark.format = cursor, form
            marks.append(mark)
        self.setExtraSelections(marks)
        if 0 <= lit < len(self._places) and self.spans[lit][1] <= len(self.text):
            cursor = QTextCursor(self.document())
            cursor.setPosition(self._places[lit][0])
            self.blockSignals(True)
            self.setTextCursor(cursor)
            self.blockSignals(False)
            self.ensureCursorVisible()

    def _on_cursor(self) -> None:
        at = self.textCursor().position()
        self.picked.emit(next((n for n, (start, end) in enumerate(self._places) if start <= at <= end), -1))
