"""A share from 0 to 1 to move, with its name and its value: for thresholds that act on kept results."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QSlider, QVBoxLayout, QWidget

from gui.widgets.basics import label

STEPS = 100


class ShareSlider(QWidget):
    """``moved(float)`` while a person moves it, never when :meth:`set_value` does."""

    moved = Signal(float)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(10)
        self.slider.setAccessibleName(name)
        self.slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.slider.valueChanged.connect(self._on_value)
        self._shown = label("", "strong")
        top = QHBoxLayout()
        top.addWidget(label(name, "body2"))
        top.addStretch(1)
        top.addWidget(self._shown)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 6)
        box.setSpacing(4)
        box.addLayout(top)
        box.addWidget(self.slider)

    @property
    def value(self) -> float:
        return self.slider.value() / STEPS

    def set_value(self, value: float) -> None:
        """Show ``value`` without telling anybody."""
        self.slider.blockSignals(True)
        self.slider.setValue(round(min(1.0, max(0.0, value)) * STEPS))
        self.slider.blockSignals(False)
        self._show()

    def _on_value(self, _value: int) -> None:
        self._show()
        self.moved.emit(self.value)

    def _show(self) -> None:
        self._shown.setText(f"{self.value:.2f}")
