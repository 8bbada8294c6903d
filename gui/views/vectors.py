"""Features: a vector (or several), how long it is, what its numbers look like, and the numbers to keep."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QVBoxLayout

from gui.engine_bridge import EngineBridge
from gui.language import mark, tr
from gui.views.base import AnswerView, Canvas
from gui.widgets.basics import Button, ElidedLabel, label
from gui.widgets.histogram import BINS, Histogram

FIRST = 8

_FACTS = (mark("Length"), mark("Least"), mark("Most"), mark("First"))


class VectorsView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.head = ElidedLabel("", "section")
        self.histogram = Histogram()
        self.rows = {name: label("", "body") for name in _FACTS}
        grid = QGridLayout()
        for row, (name, value) in enumerate(self.rows.items()):
            value.setWordWrap(True)
            grid.addWidget(label(tr(name), "body2"), row, 0)
            grid.addWidget(value, row, 1)
        grid.setColumnStretch(1, 1)
        grid.setHorizontalSpacing(16)
        self.save_button = Button(tr("Save as .npy…"), "save", small=True)
        self.save_button.clicked.connect(self._save)
        row_ = QHBoxLayout()
        row_.addWidget(self.save_button)
        row_.addStretch(1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(self.head)
        box.addWidget(self.histogram)
        box.addLayout(grid)
        box.addLayout(row_)
        box.addStretch(1)
        self.array: np.ndarray | None = None

    def update_dock(self, fresh: bool) -> None:
        assert self.prediction is not None
        found = self.prediction.predictions
        self.array = None
        self.compute(lambda: _facts(found), self._on_facts)

    def _on_facts(self, made: tuple[np.ndarray, dict[str, str], tuple[int, ...]]) -> None:
        self.array, facts, counts = made
        shape = " × ".join(str(side) for side in self.array.shape)
        self.head.setText(tr("{shape} numbers").format(shape=shape))
        for name, words in facts.items():
            self.rows[name].setText(words)
        self.histogram.show_counts(counts)

    def _save(self) -> None:
        array, item = self.array, self.item
        if array is None or item is None:
            return

        def content() -> bytes:
            packed = io.BytesIO()
            np.save(packed, array, allow_pickle=False)
            return packed.getvalue()

        stem = item.source.name.rpartition(".")[0] or item.source.name
        self.save_as(tr("Save the numbers"), f"{stem}.npy", content)


def _facts(found: Any) -> tuple[np.ndarray, dict[str, str], tuple[int, ...]]:
    array = np.asarray(found, dtype=np.float32)
    flat = array.reshape(-1).astype(np.float64)
    counts, _ = np.histogram(flat, bins=BINS)
    facts = {
        "Length": f"{np.linalg.norm(flat):.4g}",
        "Least": f"{flat.min():.4g}",
        "Most": f"{flat.max():.4g}",
        "First": ", ".join(f"{value:.4g}" for value in flat[:FIRST]) + (" …" if flat.size > FIRST else ""),
    }
    return array, facts, tuple(int(count) for count in counts)
