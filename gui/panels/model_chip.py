"""A model in the header: empty, starting, reading (filled to the measured fraction), ready, failed."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QMenu, QSizePolicy, QVBoxLayout, QWidget

from gui import theme
from gui.icons import IconLabel
from gui.language import tr
from gui.model_shelf import ANSWERING, ChipPhase, ModelCard
from gui.widgets.basics import Button, ElidedLabel, label, line, set_tone
from gui.widgets.progress import Ring, paint_progress
from gui.words import STAGES, format_words, size_words, task_words

HEIGHT = 44
TASK_ICONS = {
    "image-classification": "image",
    "object-detection": "scan-search",
    "image-segmentation": "layers",
    "keypoint-detection": "waypoints",
    "depth-estimation": "mountain",
    "image-to-image": "wand-sparkles",
    "text-classification": "file-text",
    "token-classification": "file-text",
    "feature-extraction": "file-text",
    "audio-classification": "audio-lines",
    "tabular-classification": "table",
    "tabular-regression": "table",
}


def stage_words(card: ModelCard) -> str:
    """What the load does now, with bytes where they are measured."""
    if card.stage is None:
        return tr("Starting")
    words = tr(STAGES[card.stage][1])
    if card.bytes_total and card.bytes_done is not None:
        return tr("{words}, {done:.0f} of {size}").format(
            words=words, done=card.bytes_done / 1000000.0, size=size_words(card.bytes_total)
        )
    return words


class ModelChip(QWidget):
    """Shows one :class:`ModelCard`, or that there is none. Signals carry its key or token ("" and 0 for none)."""

    chosen = Signal(str)
    cancel_asked = Signal(int)
    eject_asked = Signal(str)
    start_again_asked = Signal(str)
    card_asked = Signal(str)
    reload_asked = Signal(str)
    rollback_asked = Signal(str)
    open_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.card: ModelCard | None = None
        self._active = False
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self._icon = IconLabel("box", "text2", 16, tile=28, tile_role="sunken")
        self.name = ElidedLabel("", "strong")
        self.second = ElidedLabel("", "caption")
        self.window_count = _Counter("accent", tr("you"))
        self.network_count = _Counter("lan", tr("LAN"))
        self._counters = QWidget()
        counters = QVBoxLayout(self._counters)
        counters.setContentsMargins(8, 0, 0, 0)
        counters.setSpacing(1)
        counters.addStretch(1)
        counters.addWidget(self.window_count)
        counters.addWidget(self.network_count)
        counters.addStretch(1)
        self._ring = Ring(16)
        self._line = line("vline")
        self._line.setFixedHeight(22)
        self.menu_button = Button("", "chevron-down", "flat", small=True, name=tr("What to do with this model"))
        self.menu_button.clicked.connect(self.open_menu)
        self.eject = Button("", "eject", "flat", small=True, name=tr("Close this model"))
        self.eject.clicked.connect(lambda: self.eject_asked.emit(self.card.key if self.card else ""))
        self.cancel = Button(tr("Cancel"), small=True, name=tr("Cancel the load"))
        self.cancel.clicked.connect(lambda: self.cancel_asked.emit(self.card.token if self.card else 0))
        self.again = Button(tr("Start again"), small=True)
        self.again.clicked.connect(lambda: self.start_again_asked.emit(self.card.key if self.card else ""))
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addStretch(1)
        words.addWidget(self.name)
        words.addWidget(self.second)
        words.addStretch(1)
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 0, 8, 0)
        row.setSpacing(8)
        row.addWidget(self._icon)
        row.addLayout(words, 1)
        self._trailing = (
            self._counters, self._ring, self._line, self.menu_button, self.eject, self.cancel, self.again,
        )  # fmt: skip
        for part in self._trailing:
            row.addWidget(part)
        self.show_card(None, False)

    def show_card(self, card: ModelCard | None, active: bool) -> None:
        """Show ``card``; ``active`` is the model that answers what is dropped."""
        self.card, self._active = card, active
        phase = card.phase if card is not None else None
        loading = card is not None and bool(card.token)
        ready = phase in ANSWERING and not loading
        self._counters.setVisible(ready)
        self._line.setVisible(ready)
        self.menu_button.setVisible(ready)
        self.eject.setVisible(ready)
        self._ring.setVisible(phase is ChipPhase.STOPPING or (not loading and phase is ChipPhase.STARTING))
        self.cancel.setVisible(loading)
        self.again.setVisible(phase is ChipPhase.FAILED)
        set_tone(self.second, "error" if phase is ChipPhase.FAILED else "")
        if card is None:
            self.name.setText(tr("No model open"))
            self.second.setText(tr("Ctrl+L to choose, or drop one anywhere"))
            self._icon.set_icon("box", "text2", "sunken")
        else:
            self.name.setText(card.name)
            self.second.setText(self._second_line(card))
            name = TASK_ICONS.get(card.task, "tensor" if card.task else "box")
            if phase is ChipPhase.FAILED:
                self._icon.set_icon("circle-alert", "error", "error_soft")
            else:
                self._icon.set_icon(
                    name, "accent" if active or loading else "text2", "accent_soft" if active or loading else "sunken"
                )
            self.window_count.set_count(card.window_requests)
            self.network_count.set_count(card.network_requests)
        self.setAccessibleName(tr("Model {name}, {state}").format(name=self.name.text(), state=self.second.text()))
        self.setMinimumWidth(min(360, self._natural_width()))
        self.setMaximumWidth(self._natural_width())
        self.update()

    def open_menu(self) -> None:
        """What can be done with this model, below its button."""
        card = self.card
        if card is None:
            return
        menu = self.menu_of(card)
        menu.aboutToHide.connect(menu.deleteLater)
        menu.popup(self.menu_button.mapToGlobal(self.menu_button.rect().bottomLeft()))

    def menu_of(self, card: ModelCard) -> QMenu:
        """The menu for ``card``: its card, the next and the last version, closing it."""
        menu = QMenu(self)
        menu.addAction(tr("Model card")).triggered.connect(lambda: self.card_asked.emit(card.key))
        menu.addAction(tr("Reload its files")).triggered.connect(lambda: self.reload_asked.emit(card.key))
        before = card.version_before
        if before:
            back = menu.addAction(tr("Back to version {before}").format(before=before).replace("&", "&&"))
            back.triggered.connect(lambda: self.rollback_asked.emit(card.key))
        menu.addSeparator()
        menu.addAction(tr("Close this model")).triggered.connect(lambda: self.eject_asked.emit(card.key))
        return menu

    def _natural_width(self) -> int:
        words = max(label_.fontMetrics().horizontalAdvance(label_.text()) for label_ in (self.name, self.second))
        words = max(words, 150 if self.card is not None and self.card.token else 0)
        rest = sum(part.sizeHint().width() + 8 for part in self._trailing if not part.isHidden())
        return min(words, 250) + rest + 62

    @staticmethod
    def _second_line(card: ModelCard) -> str:
        if card.token:
            return stage_words(card)
        if card.phase is ChipPhase.FAILED:
            return card.problem or tr("Stopped, not restarted")
        if card.phase is ChipPhase.STOPPING:
            return tr("Closing")
        if card.phase in (ChipPhase.STARTING, ChipPhase.LOADING):
            return tr("Starting again")
        return " · ".join(part for part in (task_words(card.task), format_words(card.format)) if part)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self.card is None:
            self.open_asked.emit()
        else:
            self.chosen.emit(self.card.key)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect = QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5)
        card = self.card
        loading = card is not None and bool(card.token)
        edge = "ctl" if card is None else "accent" if loading else "hair"
        if card is not None and card.phase is ChipPhase.FAILED:
            edge = "error"
        pen = QPen(theme.color(edge), 1)
        if card is None:
            pen.setDashPattern([4, 3])
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush if card is None else theme.color("btn"))
        painter.drawRoundedRect(rect, 8, 8)
        if loading and card is not None:
            inside = QPainterPath()
            inside.addRoundedRect(rect.adjusted(0.5, 0.5, -0.5, -0.5), 7.5, 7.5)
            painter.setClipPath(inside)
            if card.fraction is not None and not card.learnt:
                fill = QRectF(0, 0, self.width() * card.fraction, self.height())
                painter.fillRect(fill, theme.color("accent_soft"))
            bar = QRectF(0, self.height() - 4, self.width(), 3)
            paint_progress(painter, bar, card.fraction, card.learnt, self._ring.phase)
        painter.end()


class _Counter(QWidget):
    """A dot of one door's hue, its name and how many it answered."""

    def __init__(self, hue: str, name: str) -> None:
        super().__init__()
        self._hue = hue
        self._name = name
        self._count = label("0", "caption")
        self._count.setStyleSheet("font-weight: 600;")
        row = QHBoxLayout(self)
        row.setContentsMargins(10, 0, 0, 0)
        row.setSpacing(5)
        row.addWidget(label(name, "caption"))
        row.addStretch(1)
        row.addWidget(self._count)

    @property
    def count(self) -> int:
        return int(self._count.text())

    def set_count(self, count: int) -> None:
        self._count.setText(str(count))
        self.setAccessibleName(tr("{count} answers for {name}").format(count=count, name=self._name))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color(self._hue))
        painter.drawEllipse(QRectF(0, self.height() / 2 - 3, 6, 6))
        painter.end()
