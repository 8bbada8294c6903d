"""One sentence, what to do, actions, and the details folded away. It says which model still answers."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from gui import theme
from gui.error_text import ErrorText
from gui.icons import IconLabel
from gui.language import tr
from gui.widgets.basics import Button, Card, label, line


class Details(QWidget):
    """The fold: closed by default, fixed-width, copyable."""

    def __init__(self) -> None:
        super().__init__()
        self.toggle = Button(tr("Details"), "chevron-right", "flat", small=True)
        self.toggle.clicked.connect(lambda: self.set_open(not self.is_open))
        self._copy = Button(tr("Copy"), "copy", "flat", small=True, name=tr("Copy the details"))
        self._copy.clicked.connect(self._copy_text)
        self.text: QPlainTextEdit = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setFont(theme.fixed_font("small"))
        self.text.setStyleSheet(f"font-size: {theme.px('small')}px;")
        self.text.setAccessibleName(tr("Details"))
        self.text.setMinimumHeight(120)
        self.text.setMaximumHeight(260)
        row = QHBoxLayout()
        row.addWidget(self.toggle)
        row.addStretch(1)
        row.addWidget(self._copy)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addLayout(row)
        box.addWidget(self.text)
        self.set_open(False)

    def _copy_text(self) -> None:
        QGuiApplication.clipboard().setText(self.text.toPlainText())

    @property
    def is_open(self) -> bool:
        return not self.text.isHidden()

    def set_open(self, opened: bool) -> None:
        self.text.setVisible(opened)
        self._copy.setVisible(opened)
        self.toggle.set_icon_name("chevron-down" if opened else "chevron-right")


class ErrorPanel(QWidget):
    """``back_asked`` returns to what was there before, ``open_asked`` opens another file."""

    back_asked = Signal()
    open_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.sentence = label("", "title", wrap=True)
        self.advice = label("", "body2", wrap=True)
        self.details = Details()
        self.open_button = Button(tr("Open another…"), kind="primary")
        self.open_button.clicked.connect(self.open_asked)
        self.back_button = Button(tr("Back"))
        self.back_button.clicked.connect(self.back_asked)
        words = QVBoxLayout()
        words.setSpacing(6)
        words.addWidget(self.sentence)
        words.addWidget(self.advice)
        words.addSpacing(12)
        actions = QHBoxLayout()
        actions.setSpacing(8)
        actions.addWidget(self.open_button)
        actions.addWidget(self.back_button)
        actions.addStretch(1)
        words.addLayout(actions)
        top = QHBoxLayout()
        top.setSpacing(16)
        top.addWidget(
            IconLabel("file-alert", "error", 22, tile=44, tile_role="error_soft"), 0, Qt.AlignmentFlag.AlignTop
        )
        top.addLayout(words, 1)
        card = Card()
        card.setMaximumWidth(760)
        box = QVBoxLayout(card)
        box.setContentsMargins(24, 24, 24, 16)
        box.setSpacing(12)
        box.addLayout(top)
        box.addWidget(line())
        box.addWidget(self.details)
        self._still = Card()
        self._still.setMaximumWidth(760)
        self.still_text = label("", "strong")
        still_back = Button(tr("Back to it"), small=True)
        still_back.clicked.connect(self.back_asked)
        row = QHBoxLayout(self._still)
        row.setContentsMargins(16, 8, 10, 8)
        row.setSpacing(10)
        row.addWidget(IconLabel("circle-check", "ok", 18))
        row.addWidget(self.still_text, 1)
        row.addWidget(still_back)
        column = QVBoxLayout()
        column.setSpacing(12)
        column.addStretch(2)
        column.addWidget(card)
        column.addWidget(self._still)
        column.addStretch(3)
        outer = QHBoxLayout(self)
        outer.setContentsMargins(24, 16, 24, 16)
        outer.addStretch(1)
        outer.addLayout(column, 1000)
        outer.addStretch(1)

    def show_error(self, text: ErrorText, still_answering: str) -> None:
        """``still_answering`` names the model that was there before, "" where there is none."""
        self.sentence.setText(text.sentence)
        self.advice.setText(text.advice)
        self.details.text.setPlainText(text.details)
        self.details.set_open(False)
        self.still_text.setText(
            tr("{still_answering} is still loaded and answering.").format(still_answering=still_answering)
        )
        self._still.setVisible(bool(still_answering))
        self.back_button.setVisible(not still_answering)
        self.setAccessibleName(f"{text.sentence} {text.advice}")
