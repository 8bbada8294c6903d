"""Depth as a map of colours behind a divider, the number under the pointer, and how depths are spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QVBoxLayout

from gui.engine_bridge import EngineBridge
from gui.language import tr
from gui.views.base import AnswerView, Canvas
from gui.views.pixels import colour_map
from gui.widgets.basics import Button, ElidedLabel, label, line
from gui.widgets.histogram import Histogram
from gui.widgets.overlays import Readout

SAVE_S = 60.0


class DepthView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.head = label(tr("Depth"), "section")
        self.range = ElidedLabel("", "small")
        self.histogram = Histogram(coloured=True)
        self.low, self.high = label("", "caption"), label("", "caption")
        self.unit = label("", "small", wrap=True)
        self.facts = QGridLayout()
        self.save_button = Button(tr("Save as 16-bit PNG…"), "save", small=True)
        self.save_button.clicked.connect(self._save)
        self.numbers_button = Button(tr("Save numbers as .npy…"), "save", small=True)
        self.numbers_button.clicked.connect(self._save_numbers)
        ends = QHBoxLayout()
        ends.addWidget(self.low)
        ends.addStretch(1)
        ends.addWidget(self.high)
        top = QHBoxLayout()
        top.addWidget(self.head)
        top.addStretch(1)
        top.addWidget(self.range)
        self._shape, self._middle = label("", "body"), label("", "body")
        for row, (name, value) in enumerate(((tr("Shape"), self._shape), (tr("Middle"), self._middle))):
            self.facts.addWidget(label(name, "body2"), row, 0)
            self.facts.addWidget(value, row, 1)
        self.facts.setColumnStretch(0, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addLayout(top)
        box.addWidget(self.histogram)
        box.addLayout(ends)
        box.addWidget(self.unit)
        box.addWidget(line())
        box.addWidget(label(tr("Numbers"), "strong"))
        box.addLayout(self.facts)
        box.addWidget(line())
        for button in (self.save_button, self.numbers_button):
            row_ = QHBoxLayout()
            row_.addWidget(button)
            row_.addStretch(1)
            box.addLayout(row_)
        box.addStretch(1)
        self._image: Any = None

    @property
    def values(self) -> np.ndarray | None:
        found = self.prediction.predictions if self.prediction is not None else None
        values = found.get("predicted_depth") if isinstance(found, dict) else None
        return values if isinstance(values, np.ndarray) and values.ndim == 2 and values.size else None

    def update_dock(self, fresh: bool) -> None:
        self._image = None
        values = self.values
        for button in (self.save_button, self.numbers_button):
            button.setEnabled(values is not None)
        if values is None:
            self.range.setText(tr("No map came back."))
            return
        self.unit.setText(tr("As the model counts: its package states no unit, and whether near is high or low."))
        self._shape.setText(f"{values.shape[1]} × {values.shape[0]}, {values.dtype}")
        self.compute(lambda: (*colour_map(values), float(np.nanmedian(values))), self._on_map)

    def _on_map(self, made: tuple[Any, float, float, tuple[int, ...], float]) -> None:
        self._image, low, high, counts, middle = made
        self.range.setText(tr("{low:.3g} to {high:.3g}").format(low=low, high=high))
        self.low.setText(f"{low:.3g}")
        self.high.setText(f"{high:.3g}")
        self._middle.setText(f"{middle:.3g}")
        self.histogram.show_counts(counts)
        self.histogram.setAccessibleDescription(tr("from {low:.3g} to {high:.3g}").format(low=low, high=high))
        self.lay_over()

    def lay_over(self) -> None:
        values = self.values
        if self.picture is None or self._image is None or values is None:
            return
        width, height = self.picture.source_size
        self.canvas.image.show_second(self._image, tr("Picture"), tr("Depth"))
        self.canvas.image.show_overlay(Readout(values, values.shape[1] / width, values.shape[0] / height))

    def _save(self) -> None:
        prediction, item, engine = self.prediction, self.item, self.bridge.engine
        if prediction is None or item is None:
            return

        def content() -> bytes:
            answer = engine.refine(prediction.id, {"depth": "grey16"}).result(SAVE_S).predictions
            assert isinstance(answer, dict)
            return bytes(answer["depth"])

        self.save_as(tr("Save the depth map"), f"{_stem(item.source.name)}-depth.png", content)

    def _save_numbers(self) -> None:
        values, item = self.values, self.item
        if values is None or item is None:
            return

        def content() -> bytes:
            import io

            packed = io.BytesIO()
            np.save(packed, values, allow_pickle=False)
            return packed.getvalue()

        self.save_as(tr("Save the numbers"), f"{_stem(item.source.name)}-depth.npy", content)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name
