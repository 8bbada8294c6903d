"""A model is ready and nothing was dropped yet: where to drop, and its own samples to try."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from gui.engine_bridge import EngineBridge
from gui.intake import InputFile
from gui.model_shelf import ModelCard
from gui.samples import sample_inputs
from gui.widgets.basics import Button, label
from gui.widgets.drop_area import DropArea
from gui.widgets.sample_strip import SampleStrip


class ReadyPage(QWidget):
    """``sample_chosen(InputFile)`` from the samples that lie beside the model."""

    sample_chosen = Signal(object)

    def __init__(self, bridge: EngineBridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._key = ""
        self.drop_area = DropArea("image-plus", "Drop pictures here", "", "Open files…", "Paste")
        self.drop_area.setMinimumHeight(280)
        self.samples_box = QWidget()
        self.strip = SampleStrip(bridge, 56)
        self.strip.chosen.connect(self.sample_chosen)
        self._tables = QHBoxLayout()
        self._tables.setSpacing(8)
        box = QVBoxLayout(self.samples_box)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(label("Or try one of its samples", "strong"))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.strip)
        row.addLayout(self._tables)
        row.addStretch(1)
        box.addLayout(row)
        self.samples_box.hide()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 8)
        outer.setSpacing(18)
        outer.addWidget(self.drop_area, 1)
        outer.addWidget(self.samples_box, 0, Qt.AlignmentFlag.AlignLeft)
        self.table_buttons: list[Button] = []

    def show_model(self, card: ModelCard) -> None:
        """Words for what ``card`` takes; its samples are looked for on a task thread."""
        if card.task.startswith("tabular"):
            self.drop_area.set_idle("table", "Drop a table here", f"CSV, one row per question. {card.name} is ready.")
        elif card.task.startswith("image"):
            text = f"One, many, or a whole folder. {card.name} is ready."
            self.drop_area.set_idle("image-plus", "Drop pictures here", text)
        else:
            text = f"Tensors as .npy or .npz, a table as CSV. {card.name} is ready."
            self.drop_area.set_idle("tensor", "Drop a file here", text)
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
                button = Button(sample.name.replace("&", "&&"), "table", name=f"Sample {sample.name}")
                button.clicked.connect(lambda _checked=False, s=sample: self.sample_chosen.emit(s))
                self._tables.addWidget(button)
                self.table_buttons.append(button)
        self.samples_box.setVisible(bool(samples))
