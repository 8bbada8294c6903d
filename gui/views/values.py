"""Numbers that a model predicts for a row: each with its name."""

from __future__ import annotations

from PySide6.QtWidgets import QGridLayout, QVBoxLayout

from gui.engine_bridge import EngineBridge
from gui.language import tr
from gui.views.base import AnswerView, Canvas
from gui.widgets.basics import ElidedLabel, label

MOST = 100


class ValuesView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.values: list[float] = []
        self.first = ElidedLabel("", "answer")
        self.grid = QGridLayout()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(self.first)
        box.addLayout(self.grid)
        box.addStretch(1)

    def update_dock(self, fresh: bool) -> None:
        assert self.prediction is not None
        found = self.prediction.predictions
        self.show_values(found if isinstance(found, list) else [])

    def show_values(self, found: list[dict[str, float]]) -> None:
        """``[{"value"}…]``, one entry for each number."""
        self.values = [float(entry["value"]) for entry in found]
        while (entry := self.grid.takeAt(0)) is not None:
            if (widget := entry.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.first.setText(f"{self.values[0]:.6g}" if self.values else tr("No number"))
        names = [str(name) for name in self.spec.get("labels") or ()]
        if len(self.values) < 2:
            return
        for row, value in enumerate(self.values[:MOST]):
            self.grid.addWidget(
                label(names[row] if row < len(names) else tr("value {number}").format(number=row + 1), "body2"), row, 0
            )
            self.grid.addWidget(label(f"{value:.6g}"), row, 1)
        self.grid.setColumnStretch(0, 1)
