"""Raw tensors: which outputs there are, what their numbers look like, and a slice of the chosen one."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QVBoxLayout

from engine.answer_files import files_of
from gui.engine_bridge import EngineBridge
from gui.language import mark, tr
from gui.views.base import AnswerView, Canvas
from gui.views.pixels import image_of_grey, slice_of
from gui.widgets.basics import Button, label
from gui.widgets.histogram import BINS, Histogram

FIRST = 6
_FACTS = (
    mark("Type"),
    mark("Shape"),
    mark("Least"),
    mark("Most"),
    mark("Mean"),
    mark("Deviation"),
    mark("Not numbers"),
    mark("First"),
)


class TensorsView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.chooser = QComboBox()
        self.chooser.setAccessibleName(tr("Output"))
        self.chooser.currentIndexChanged.connect(lambda _index: self._show_chosen())
        self.facts = {name: label("", "body", wrap=True) for name in _FACTS}
        grid = QGridLayout()
        self._names = {}
        for row, (name, value) in enumerate(self.facts.items()):
            self._names[name] = label(tr(name), "body2")
            grid.addWidget(self._names[name], row, 0)
            grid.addWidget(value, row, 1)
        grid.setColumnStretch(1, 1)
        grid.setHorizontalSpacing(16)
        self.histogram = Histogram()
        self.save_button = Button(tr("Save as .npz…"), "save", small=True)
        self.save_button.clicked.connect(self._save)
        row_ = QHBoxLayout()
        row_.addWidget(self.save_button)
        row_.addStretch(1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(label(tr("Outputs"), "section"))
        box.addWidget(self.chooser)
        box.addWidget(self.histogram)
        box.addLayout(grid)
        box.addLayout(row_)
        box.addStretch(1)
        canvas.tensor.wanted.connect(self._on_wanted)
        self._slice_ticket = 0

    @property
    def chosen(self) -> np.ndarray | None:
        outputs = (self.prediction.outputs or {}) if self.prediction is not None else {}
        return outputs.get(str(self.chooser.currentData()))

    def update_dock(self, fresh: bool) -> None:
        assert self.prediction is not None
        outputs = self.prediction.outputs or {}
        before = self.chooser.currentData()
        self.chooser.blockSignals(True)
        self.chooser.clear()
        for name, array in outputs.items():
            shape = " × ".join(str(side) for side in array.shape) or tr("one number")
            self.chooser.addItem(f"{name}  {shape}", name)
        if before in outputs:
            self.chooser.setCurrentIndex(list(outputs).index(str(before)))
        self.chooser.blockSignals(False)
        self._show_chosen()

    def _show_chosen(self) -> None:
        array = self.chosen
        if array is not None:
            self.compute(lambda: _facts(array), self._on_facts)
        self.lay_over()

    def _on_facts(self, made: tuple[dict[str, str], tuple[int, ...]]) -> None:
        facts, counts = made
        for name, value in self.facts.items():
            value.setText(facts.get(name, ""))
            value.setVisible(name in facts)
            self._names[name].setVisible(name in facts)
        self.histogram.setVisible(bool(counts))
        self.histogram.show_counts(counts)

    def lay_over(self) -> None:
        array = self.chosen
        if array is None:
            return
        if array.dtype.kind not in "biuf" or array.ndim == 0 or not array.size:
            self.canvas.tensor.show_message(tr("This output has no picture."))
        else:
            self.canvas.tensor.show_tensor(array.shape)

    def _on_wanted(self, down: int, across: int, indices: list[int]) -> None:
        array = self.chosen
        if array is None or array.dtype.kind not in "biuf":
            return
        self.bridge.drop(self._slice_ticket)
        self._slice_ticket = self.bridge.run(
            self,
            lambda: image_of_grey(slice_of(array, down, across, indices)),
            self.canvas.tensor.show_slice,
            self.failed.emit,
        )

    def leave(self) -> None:
        self.bridge.drop(self._slice_ticket)
        super().leave()

    def _save(self) -> None:
        prediction, item = self.prediction, self.item
        if prediction is None or item is None:
            return
        stem = item.source.name.rpartition(".")[0] or item.source.name
        self.save_as(tr("Save the outputs"), f"{stem}-outputs.npz", lambda: next(iter(files_of(prediction)))[1])


def _facts(array: np.ndarray) -> tuple[dict[str, str], tuple[int, ...]]:
    facts = {"Type": str(array.dtype), "Shape": " × ".join(str(side) for side in array.shape) or tr("one number")}
    first = [_words(value) for value in array.reshape(-1)[:FIRST].tolist()]
    facts["First"] = ", ".join(first) + (" …" if array.size > FIRST else "")
    if array.dtype.kind not in "biuf" or not array.size:
        return facts, ()
    values = array.reshape(-1).astype(np.float64)
    known = values[np.isfinite(values)]
    if len(known) < len(values):
        facts["Not numbers"] = str(len(values) - len(known))
    if not len(known):
        return facts, ()
    facts |= {
        "Least": f"{known.min():.6g}", "Most": f"{known.max():.6g}", "Mean": f"{known.mean():.6g}",
        "Deviation": f"{known.std():.6g}",
    }  # fmt: skip
    counts, _ = np.histogram(known, bins=BINS)
    return facts, tuple(int(count) for count in counts)


def _words(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:40]
