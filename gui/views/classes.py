"""Classes with scores: bars, and how many of them."""

from __future__ import annotations

from typing import Any, TypeGuard

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from gui.engine_bridge import EngineBridge
from gui.language import tr
from gui.views.base import AnswerView, Canvas
from gui.widgets.basics import label, spin_box
from gui.widgets.result_bars import ResultBars


def are_classes(predictions: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether these are classes with scores, at least one."""
    return (
        isinstance(predictions, list)
        and bool(predictions)
        and all(isinstance(p, dict) and "label" in p and p.get("score") is not None for p in predictions)
    )


class ClassesView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas, doubtful_below: float = 0.7) -> None:
        super().__init__(bridge, canvas)
        self.bars = ResultBars(doubtful_below)
        self.nothing = label("", "section", wrap=True)
        self.top_k = spin_box(1, 100, tr("How many of the best answers to show"), 68)
        self.top_k.valueChanged.connect(lambda value: self.refine_asked.emit({"top_k": value}))
        self._of = label("", "body2")
        self.top_k_box = QWidget()
        row = QHBoxLayout(self.top_k_box)
        row.setContentsMargins(0, 4, 0, 4)
        row.setSpacing(8)
        row.addWidget(label(tr("Show the best"), "body2"))
        row.addWidget(self.top_k)
        row.addWidget(self._of)
        row.addStretch(1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(self.nothing)
        box.addWidget(self.bars)
        box.addWidget(self.top_k_box)
        box.addStretch(1)

    def update_dock(self, fresh: bool) -> None:
        assert self.prediction is not None
        predictions = self.prediction.predictions
        found = are_classes(predictions)
        self.bars.setVisible(found)
        self.nothing.setVisible(not found)
        self.top_k_box.setVisible(found)
        if not are_classes(predictions):
            least = (self.spec.get("postprocessing") or {}).get("threshold")
            if isinstance(least, int | float):
                share = f"{float(least) * 100:.0f}\u2009%"
                self.nothing.setText(tr("No class has a score above {share}.").format(share=share))
            else:
                self.nothing.setText(tr("No class has a score."))
            return
        numbers = any(not 0.0 <= float(p["score"]) <= 1.0 for p in predictions)
        self.bars.show_answers(predictions, as_numbers=numbers)
        classes = len(self.spec.get("labels") or ()) or None
        self.top_k.blockSignals(True)
        self.top_k.setRange(1, max(classes or 100, len(predictions)))
        if fresh or not self.top_k.hasFocus():
            self.top_k.setValue(len(predictions))
        self.top_k.blockSignals(False)
        self._of.setText(tr("of {classes} classes").format(classes=classes) if classes else tr("classes"))
