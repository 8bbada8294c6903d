"""No model open: drop one, try one of those that come along, and the path in three steps."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from gui.engine_bridge import EngineBridge
from gui.icons import IconLabel
from gui.language import mark, tr
from gui.panels.model_chip import TASK_ICONS
from gui.samples import Example
from gui.widgets.basics import Button, Card, ElidedLabel, label, line
from gui.widgets.drop_area import DropArea
from gui.widgets.sample_strip import SampleStrip

STEPS = (
    (mark("Load"), mark("The model opens in its own process.")),
    (mark("Drop"), mark("A picture, a table or a whole folder.")),
    (mark("Share"), mark("Switch the server on, copy the link.")),
)


class ExampleCard(Card):
    """A bundled model with what it is, its samples on the first card, and the button that loads it."""

    load_asked = Signal(object)

    def __init__(self, example: Example, bridge: EngineBridge, *, with_samples: bool) -> None:
        super().__init__()
        icon_name = TASK_ICONS.get(example.task, "image")
        self.load_button = Button(tr("Load"), small=True, name=tr("Load {title}").format(title=example.title))
        self.load_button.clicked.connect(lambda: self.load_asked.emit(example.path))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(ElidedLabel(example.title, "strong"))
        words.addWidget(ElidedLabel(example.about, "small"))
        top = QHBoxLayout()
        top.setSpacing(10)
        tile = "accent_soft" if with_samples else "sunken"
        top.addWidget(IconLabel(icon_name, "accent" if with_samples else "text2", 18, tile=32, tile_role=tile))
        top.addLayout(words, 1)
        top.addWidget(self.load_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(16, 12, 16, 12)
        box.setSpacing(10)
        box.addLayout(top)
        pictures = [sample for sample in example.samples if sample.kind == "image"]
        if with_samples and pictures:
            strip = SampleStrip(bridge, 42)
            strip.setEnabled(False)  # to look at: there is no model yet that could run them
            strip.show_samples(pictures)
            box.addWidget(strip)


class StartPage(QWidget):
    """``load_asked(Path)`` from a card; the drop area's own signals open or paste."""

    load_asked = Signal(object)

    def __init__(self, bridge: EngineBridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.drop_area = DropArea(
            "box",
            tr("Drop a model here"),
            tr("A file or a folder from Keras, TensorFlow or PyTorch.\nNo configuration to write."),
            tr("Open model…"),
            tr("Open folder…"),
        )
        self.drop_area.hint.setText(tr("Ctrl+L opens a model, Ctrl+O pictures and tables"))
        self.drop_area.hint.show()
        self.cards: list[ExampleCard] = []
        self._samples_title = label("", "strong")
        self._cards_box = QVBoxLayout()
        self._cards_box.setSpacing(12)
        self._side = QWidget()
        side = QVBoxLayout(self._side)
        side.setContentsMargins(0, 0, 0, 0)
        side.setSpacing(12)
        side.addWidget(self._samples_title)
        side.addLayout(self._cards_box)
        side.addStretch(1)
        self._side.hide()
        middle = QHBoxLayout()
        middle.setSpacing(24)
        middle.addWidget(self.drop_area, 10)
        middle.addWidget(self._side, 7)
        self.drop_area.setMinimumHeight(300)
        self.drop_area.setMaximumHeight(380)
        content = QWidget()
        content.setMaximumWidth(1120)
        box = QVBoxLayout(content)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(label(tr("Open a model"), "hero"))
        box.addSpacing(6)
        box.addWidget(label(tr("It runs on this computer. Nothing leaves it until you switch the server on."), "lead"))
        box.addSpacing(20)
        box.addLayout(middle)
        box.addSpacing(28)
        box.addWidget(line())
        box.addSpacing(18)
        box.addLayout(self._steps())
        outer = QHBoxLayout(self)
        outer.setContentsMargins(40, 16, 40, 16)
        centre = QVBoxLayout()
        centre.addStretch(2)
        centre.addWidget(content)
        centre.addStretch(3)
        outer.addStretch(1)
        outer.addLayout(centre, 1000)
        outer.addStretch(1)

    def show_examples(self, examples: Sequence[Example]) -> None:
        for card in self.cards:
            card.deleteLater()
        self.cards = []
        for i, example in enumerate(examples):
            card = ExampleCard(example, self._bridge, with_samples=i == 0)
            card.load_asked.connect(self.load_asked)
            self._cards_box.addWidget(card)
            self.cards.append(card)
        few = {
            1: tr("No model at hand? One comes with Deskside"),
            2: tr("No model at hand? Two come with Deskside"),
            3: tr("No model at hand? Three come with Deskside"),
            4: tr("No model at hand? Four come with Deskside"),
        }
        many = tr("No model at hand? {count} come with Deskside").format(count=len(examples))
        self._samples_title.setText(few.get(len(examples), many))
        self._side.setVisible(bool(examples))

    @staticmethod
    def _steps() -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(24)
        for i, (title, text) in enumerate(STEPS):
            cell = QHBoxLayout()
            cell.setSpacing(10)
            number = QLabel(str(i + 1))
            number.setObjectName("stepNumber")
            number.setAlignment(Qt.AlignmentFlag.AlignCenter)
            number.setFixedSize(26, 26)
            words = QVBoxLayout()
            words.setSpacing(2)
            words.addWidget(label(tr(title), "strong"))
            words.addWidget(label(tr(text), "small", wrap=True))
            cell.addWidget(number, 0, Qt.AlignmentFlag.AlignTop)
            cell.addLayout(words, 1)
            grid.addLayout(cell, 0, i)
            grid.setColumnStretch(i, 1)
        return grid
