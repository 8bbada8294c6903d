"""A slice of a tensor as a picture: two of its axes, the others held at an index."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QImage, QPainter, QPaintEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QSpinBox, QVBoxLayout, QWidget

from gui import theme
from gui.language import tr
from gui.widgets.basics import label, spin_box

MARGIN = 16


class _Slice(QWidget):
    def __init__(self) -> None:
        super().__init__()
        self.image: QImage | None = None
        self.message = ""
        self.setMinimumSize(200, 160)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(tr("Slice of the tensor"))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("canvas"))
        painter.drawRoundedRect(self.rect(), 10, 10)
        if self.image is not None:
            room = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
            factor = min(room.width() / self.image.width(), room.height() / self.image.height())
            width, height = self.image.width() * factor, self.image.height() * factor
            target = QRectF(room.center().x() - width / 2, room.center().y() - height / 2, width, height)
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, factor < 1)
            painter.drawImage(target, self.image)
        elif self.message:
            painter.setPen(theme.color("text3"))
            painter.setFont(theme.font("body"))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self.message)
        painter.end()


class TensorView(QWidget):
    """``wanted(down, across, indices)`` when a person chose other axes: the owner brings :meth:`show_slice`."""

    wanted = Signal(int, int, list)

    def __init__(self) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = ()
        self.slice = _Slice()
        self.down, self.across = QComboBox(), QComboBox()
        self.down.setAccessibleName(tr("Axis shown downwards"))
        self.across.setAccessibleName(tr("Axis shown across"))
        self.spins: list[QSpinBox] = []
        self._bar = QWidget()
        self._row = QHBoxLayout(self._bar)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(8)
        for words, box in ((tr("Down"), self.down), (tr("Across"), self.across)):
            self._row.addWidget(label(words, "body2"))
            self._row.addWidget(box)
            box.activated.connect(self._on_axes)
        self._others = QHBoxLayout()
        self._others.setSpacing(8)
        self._row.addLayout(self._others)
        self._row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._bar)
        column.addWidget(self.slice, 1)

    def show_tensor(self, shape: tuple[int, ...]) -> None:
        """Choose axes for a tensor of ``shape``: its two largest, in their order."""
        self.shape = shape
        self._bar.setVisible(len(shape) > 2)
        if len(shape) > 1:
            largest = sorted(sorted(range(len(shape)), key=lambda axis: -shape[axis])[:2])
            for box, chosen in ((self.down, largest[0]), (self.across, largest[1])):
                box.clear()
                box.addItems(
                    [tr("axis {axis} ({size})").format(axis=axis, size=size) for axis, size in enumerate(shape)]
                )
                box.setCurrentIndex(chosen)
        self._make_spins()
        self._ask()

    def show_message(self, message: str) -> None:
        """A sentence in place of a slice."""
        self._bar.hide()
        self.slice.image, self.slice.message = None, message
        self.slice.update()

    def show_slice(self, image: QImage | None, message: str = "") -> None:
        self.slice.image, self.slice.message = image, message
        self.slice.update()

    def axes(self) -> tuple[int, int]:
        return self.down.currentIndex(), self.across.currentIndex()

    def _on_axes(self, _index: int) -> None:
        down, across = self.axes()
        if down == across:
            other = next(axis for axis in range(len(self.shape)) if axis != down)
            (self.across if self.sender() is self.down else self.down).setCurrentIndex(other)
        self._make_spins()
        self._ask()

    def _make_spins(self) -> None:
        while (entry := self._others.takeAt(0)) is not None:
            if (widget := entry.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.spins = []
        if len(self.shape) < 3:
            return
        for axis, size in enumerate(self.shape):
            if axis in self.axes() or size < 2:
                continue
            spin = spin_box(0, size - 1, tr("Index of axis {axis}").format(axis=axis), 72)
            spin.setProperty("axis", axis)
            spin.valueChanged.connect(lambda _value: self._ask())
            self._others.addWidget(label(tr("axis {axis}").format(axis=axis), "body2"))
            self._others.addWidget(spin)
            self.spins.append(spin)

    def _ask(self) -> None:
        indices = [0] * len(self.shape)
        for spin in self.spins:
            indices[int(spin.property("axis"))] = spin.value()
        down, across = self.axes() if len(self.shape) > 1 else (0, 0)
        self.wanted.emit(down, across, indices)
