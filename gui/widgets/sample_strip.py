"""A row of small pictures to try a model on."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QEnterEvent, QPainter, QPainterPath, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QWidget

from engine.prediction import ImagePreview
from gui import theme
from gui.engine_bridge import EngineBridge
from gui.icons import paint_icon
from gui.intake import InputFile
from gui.language import tr
from gui.widgets.basics import plain_tooltip
from gui.widgets.image_view import image_of


class SampleButton(QAbstractButton):
    """One sample; its picture comes when the inspector has decoded it."""

    def __init__(self, sample: InputFile, side: int) -> None:
        super().__init__()
        self.sample = sample
        self._pixmap: QPixmap | None = None
        self.setFixedSize(side, side)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setToolTip(plain_tooltip(sample.name))
        self.setAccessibleName(tr("Sample {name}").format(name=sample.name))

    def show_preview(self, preview: ImagePreview) -> None:
        self._pixmap = QPixmap.fromImage(image_of(preview))
        self.update()

    def keep_icon(self, _error: BaseException) -> None:
        """The sample cannot be shown; its icon stands for it, and running it will say why."""
        self._pixmap = None
        self.update()

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        rect = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        path = QPainterPath()
        path.addRoundedRect(rect, 6, 6)
        painter.fillPath(path, theme.color("canvas"))
        painter.save()
        painter.setClipPath(path)
        if self._pixmap is not None:
            painter.drawPixmap(rect, self._pixmap, QRectF(self._pixmap.rect()))
        else:
            name = "table" if self.sample.kind == "table" else "image"
            spot = QRectF(rect.center().x() - 9, rect.center().y() - 9, 18, 18)
            paint_icon(painter, name, spot, theme.color("text3"))
        painter.restore()
        if self.underMouse() and self.isEnabled():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(theme.color("accent"), 2))
            painter.drawRoundedRect(rect, 6, 6)
        painter.end()


class SampleStrip(QWidget):
    """``chosen(InputFile)`` when one is clicked."""

    chosen = Signal(object)

    def __init__(self, bridge: EngineBridge, side: int = 42) -> None:
        super().__init__()
        self._bridge = bridge
        self._side = side
        self.buttons: list[SampleButton] = []
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(6)
        self._row.addStretch(1)

    def show_samples(self, samples: Sequence[InputFile]) -> None:
        for button in self.buttons:
            button.hide()
            button.deleteLater()
        self.buttons = []
        for sample in samples:
            button = SampleButton(sample, self._side)
            button.clicked.connect(lambda _checked=False, s=sample: self.chosen.emit(s))
            self._row.insertWidget(len(self.buttons), button)
            self.buttons.append(button)
            path = sample.path
            if sample.kind == "image" and path is not None:
                self._bridge.ask(
                    button,
                    lambda engine, p=path: engine.preview_image(p, 128),  # type: ignore[misc]
                    button.show_preview,
                    button.keep_icon,
                )
