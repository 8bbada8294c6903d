"""A model is ready and nothing was dropped yet: where to drop, and its own samples to try."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from gui.engine_bridge import EngineBridge
from gui.intake import InputFile
from gui.language import tr
from gui.model_shelf import ModelCard
from gui.samples import sample_inputs
from gui.widgets.basics import Button, label
from gui.widgets.drop_area import DropArea
from gui.widgets.sample_strip import SampleStrip

TEXT_TASKS = frozenset({"text-classification", "token-classification", "feature-extraction"})


class TextBox(QPlainTextEdit):
    """``asked`` on Ctrl+Enter; plain text only."""

    asked = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.asked.emit()
        else:
            super().keyPressEvent(event)


class ReadyPage(QWidget):
    """``sample_chosen(InputFile)`` from the samples that lie beside the model; ``text_asked(str)`` from the text box of
    models that take texts."""

    sample_chosen = Signal(object)
    text_asked = Signal(str)

    def __init__(self, bridge: EngineBridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._key = ""
        self.drop_area = DropArea("image-plus", tr("Drop pictures here"), "", tr("Open files…"), tr("Paste"))
        self.drop_area.setMinimumHeight(280)
        self.samples_box = QWidget()
        self.strip = SampleStrip(bridge, 56)
        self.strip.chosen.connect(self.sample_chosen)
        self._tables = QHBoxLayout()
        self._tables.setSpacing(8)
        box = QVBoxLayout(self.samples_box)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(label(tr("Or try one of its samples"), "strong"))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.strip)
        row.addLayout(self._tables)
        row.addStretch(1)
        box.addLayout(row)
        self.samples_box.hide()
        self.text_box = self._make_text_box()
        self.text_box.hide()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 8)
        outer.setSpacing(18)
        outer.addWidget(self.drop_area, 1)
        outer.addWidget(self.text_box)
        outer.addWidget(self.samples_box, 0, Qt.AlignmentFlag.AlignLeft)
        self.table_buttons: list[Button] = []

    def _make_text_box(self) -> QWidget:
        self.text = TextBox()
        self.text.setProperty("kind", "reading")
        self.text.setPlaceholderText(tr("Or type a text, and press Ctrl+Enter"))
        self.text.setAccessibleName(tr("Text to ask about"))
        self.text.setTabChangesFocus(True)
        self.text.setFixedHeight(132)
        self.ask_button = Button(tr("Ask"), "", "primary")
        self.ask_button.setEnabled(False)
        self.ask_button.clicked.connect(self._ask_text)
        self.text.textChanged.connect(lambda: self.ask_button.setEnabled(bool(self.text.toPlainText().strip())))
        self.text.asked.connect(self._ask_text)
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self.text)
        column.addWidget(self.ask_button, 0, Qt.AlignmentFlag.AlignRight)
        return box

    def _ask_text(self) -> None:
        text = self.text.toPlainText()
        if text.strip():
            self.text_asked.emit(text)

    def show_model(self, card: ModelCard) -> None:
        """Words for what ``card`` takes; its samples are looked for on a task thread."""
        self.text_box.setVisible(card.task in TEXT_TASKS)
        if card.task.startswith("tabular"):
            self.drop_area.set_idle(
                "table",
                tr("Drop a table here"),
                tr("CSV, one row per question. {name} is ready.").format(name=card.name),
            )
        elif card.task in TEXT_TASKS:
            self.drop_area.set_idle(
                "file-text",
                tr("Drop a text here"),
                tr("A .txt file, or several. {name} is ready.").format(name=card.name),
            )
        elif card.task.startswith("audio"):
            text = tr("WAV, FLAC or OGG, of any length. {name} is ready.").format(name=card.name)
            self.drop_area.set_idle("audio-lines", tr("Drop a recording here"), text)
        elif card.task.startswith(("image", "object", "depth", "keypoint")):
            text = tr("One, many, or a whole folder. {name} is ready.").format(name=card.name)
            self.drop_area.set_idle("image-plus", tr("Drop pictures here"), text)
        else:
            text = tr("Tensors as .npy or .npz, a table as CSV. {name} is ready.").format(name=card.name)
            self.drop_area.set_idle("tensor", tr("Drop a file here"), text)
        if card.key != self._key:
            self._key = card.key
            self.samples_box.hide()
            path, key = card.path, card.key
            self._bridge.run(
                self, lambda: sample_inputs(path), lambda found: self._show(key, found), lambda _e: self._show(key, ())
            )

    def _show(self, key: str, samples: tuple[InputFile, ...]) -> None:
        if key != self._key:
            return
        for button in self.table_buttons:
            button.hide()
            button.deleteLater()
        self.table_buttons = []
        self.strip.show_samples([sample for sample in samples if sample.kind == "image"])
        for sample in samples:
            if sample.kind != "image":
                button = Button(
                    sample.name.replace("&", "&&"), "table", name=tr("Sample {name}").format(name=sample.name)
                )
                button.clicked.connect(lambda _checked=False, s=sample: self.sample_chosen.emit(s))
                self._tables.addWidget(button)
                self.table_buttons.append(button)
        self.samples_box.setVisible(bool(samples))
