"""What stands around every page: header, rail and status line."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QRectF, QSignalBlocker, QSize, Qt, Signal
from PySide6.QtGui import QEnterEvent, QFontMetrics, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QAbstractButton, QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from engine import Prediction
from gui import theme
from gui.icons import IconLabel, paint_icon
from gui.language import mark, tr
from gui.model_shelf import ModelShelf
from gui.panels.model_chip import ModelChip
from gui.widgets.basics import Button, ElidedLabel, label, placed, set_tone
from gui.widgets.memory_ring import MemoryRing
from gui.widgets.server_pill import ServerPill
from gui.words import ms_words

MAX_CHIPS = 3
CHIP_WIDTH, BESIDE_CHIPS = 344, 460
"""Pixels: of a chip with its gap, and of everything else in the header."""


class Header(QFrame):
    """Menu button, model chips, device, server pill. Its signals are the chips' own."""

    chosen = Signal(str)
    cancel_asked = Signal(int)
    eject_asked = Signal(str)
    start_again_asked = Signal(str)
    card_asked = Signal(str)
    reload_asked = Signal(str)
    rollback_asked = Signal(str)
    open_asked = Signal()

    def __init__(self, shelf: ModelShelf) -> None:
        super().__init__()
        self._shelf = shelf
        self.setObjectName("header")
        self.setFixedHeight(60)
        self.menu_button = Button("", "menu", "flat", name=tr("Menu"))
        self.pill = ServerPill()
        self.chips: list[ModelChip] = []
        self._more = label("", "small")
        self._add = Button("", "plus", "flat", small=True, name=tr("Open another model"))
        self._add.clicked.connect(self.open_asked)
        self.memory = MemoryRing()
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(22, 0, 20, 0)
        self._row.setSpacing(8)
        self._row.addWidget(self.menu_button)
        self._row.addSpacing(36)
        self._chip_box = QHBoxLayout()
        self._chip_box.setSpacing(8)
        self._row.addLayout(self._chip_box)
        self._row.addWidget(self._more)
        self._row.addWidget(self._add)
        self._row.addStretch(1)
        self._row.addWidget(self.memory)
        self._row.addSpacing(8)
        self._row.addWidget(self.pill)
        shelf.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Loads first (newest), then the model that answers, then the others."""
        active = self._shelf.active
        cards = sorted(self._shelf.cards, key=lambda card: (not card.token, card is not active))
        shown = cards[: self._room()]
        for _ in range(len(self.chips), max(1, len(shown))):
            self._add_chip()
        for i, chip in enumerate(self.chips):
            chip.setVisible(i < max(1, len(shown)))
            if i < len(shown):
                chip.show_card(shown[i], shown[i] is active)
            elif i == 0:
                chip.show_card(None, False)
        hidden = len(cards) - len(shown)
        self._more.setText(f"+{hidden}")
        self._more.setVisible(hidden > 0)

    def show_memory(self, stats: dict[str, Any]) -> None:
        """What the engine measured, beside the device that runs the model."""
        active = self._shelf.active
        self.memory.show_memory(
            stats, active.device if active is not None else "", active.key if active is not None else ""
        )

    def _room(self) -> int:
        """How many chips stand side by side without covering each other."""
        return min(MAX_CHIPS, max(1, (self.width() - BESIDE_CHIPS) // CHIP_WIDTH))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.refresh()

    def _add_chip(self) -> None:
        chip = ModelChip()
        chip.chosen.connect(self.chosen)
        chip.cancel_asked.connect(self.cancel_asked)
        chip.eject_asked.connect(self.eject_asked)
        chip.start_again_asked.connect(self.start_again_asked)
        chip.card_asked.connect(self.card_asked)
        chip.reload_asked.connect(self.reload_asked)
        chip.rollback_asked.connect(self.rollback_asked)
        chip.open_asked.connect(self.open_asked)
        self.chips.append(chip)
        self._chip_box.addWidget(chip)


RAIL_BUTTON = (60, 54)
"""Least width and height, px."""


class RailButton(QAbstractButton):
    """Icon over a word; the chosen one on a sheet, with a mark at the edge."""

    def __init__(self, icon_name: str, text: str) -> None:
        super().__init__()
        self.setText(text)
        self.setCheckable(True)
        self.setAutoExclusive(True)
        self._icon_name = icon_name
        self.dot = ""
        self.setFixedSize(self.width_for(text), RAIL_BUTTON[1])
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setAccessibleName(text)

    def set_dot(self, hue: str) -> None:
        """A dot in ``hue`` at the icon ("" for none): the door is open."""
        if self.dot != hue:
            self.dot = hue
            self.update()

    @staticmethod
    def width_for(text: str) -> int:
        """Its word fits, in every language and at every font size."""
        needed = QFontMetrics(theme.font("caption", semibold=True)).horizontalAdvance(text) + 8
        return max(RAIL_BUTTON[0], needed)

    def sizeHint(self) -> QSize:
        return self.size()

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        chosen = self.isChecked()
        if chosen or self.underMouse():
            painter.setBrush(theme.color("btn" if chosen else "hover"))
            painter.drawRoundedRect(QRectF(self.rect()), 8, 8)
        tint = theme.color("accent" if chosen else "text2")
        paint_icon(painter, self._icon_name, QRectF(self.width() / 2 - 10, 9, 20, 20), tint)
        if self.dot:
            painter.setBrush(theme.color(self.dot))
            painter.drawEllipse(QRectF(self.width() / 2 + 8, 7, 8, 8))
        painter.setPen(theme.color("text" if chosen else "text2"))
        painter.setFont(theme.font("caption", semibold=chosen, medium=True))
        painter.drawText(QRectF(0, 31, self.width(), 18), int(Qt.AlignmentFlag.AlignCenter), self.text())
        painter.end()


class Rail(QFrame):
    """The pages, as far as there are any. ``chosen(index)``."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("rail")
        self.buttons = [
            RailButton("scan-search", tr("Predict")),
            RailButton("radio-tower", tr("Server")),
            RailButton("settings", tr("Settings")),
        ]
        widest = max(button.width() for button in self.buttons)
        for button in self.buttons:
            button.setFixedWidth(widest)
        self.setFixedWidth(widest + 17)
        box = QVBoxLayout(self)
        box.setContentsMargins(8, 10, 8, 10)
        box.setSpacing(6)
        for index, button in enumerate(self.buttons):
            if button is self.buttons[-1]:
                box.addStretch(1)
            box.addWidget(button)
            button.clicked.connect(lambda _checked=False, i=index: self.chosen.emit(i))
            # A screen reader does not click, it toggles.
            button.toggled.connect(lambda on, i=index: self.chosen.emit(i) if on else None)

    def select(self, index: int) -> None:
        with QSignalBlocker(self.buttons[index]):  # the page is open already: this only shows which
            self.buttons[index].setChecked(True)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        chosen = next((button for button in self.buttons if button.isChecked()), None)
        if chosen is not None:
            painter = QPainter(self)
            painter.fillRect(placed(self, QRectF(0, chosen.y() + 12, 3, 30)), theme.color("accent"))
            painter.end()


class _TimingBar(QWidget):
    """Where the last answer's time went, as one line of segments."""

    PARTS = ((mark("decode"), "ctl"), (mark("wait"), "hair"), (mark("infer"), "accent"), (mark("post"), "warn_line"))

    def __init__(self) -> None:
        super().__init__()
        self.timing: dict[str, float] = {}
        self.setFixedSize(120, 6)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        total = sum(self.timing.get(name, 0.0) for name, _ in self.PARTS)
        x = 0.0
        for name, role in self.PARTS:
            width = self.width() * self.timing.get(name, 0.0) / total if total else 0.0
            painter.fillRect(QRectF(x, 0, max(0.0, width - 1), self.height()), theme.color(role))
            x += width
        painter.end()


class StatusLine(QFrame):
    """Left: what the last answer took, or one sentence; right: where in the list, and the zoom."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("statusLine")
        self.setFixedHeight(33)
        self._icon = IconLabel("circle-check", "ok", 14)
        self._message = ElidedLabel("", "small")
        self._bar = _TimingBar()
        self._times: dict[str, tuple[QWidget, QLabel]] = {}
        self.right = label("", "small")
        row = QHBoxLayout(self)
        row.setContentsMargins(20, 0, 20, 0)
        row.setSpacing(8)
        row.addWidget(self._icon)
        row.addWidget(self._bar)
        row.addSpacing(4)
        for name, _ in _TimingBar.PARTS:
            pair = QWidget()
            box = QHBoxLayout(pair)
            box.setContentsMargins(0, 0, 8, 0)
            box.setSpacing(5)
            value = label("", "small")
            value.setStyleSheet("font-weight: 600;")
            box.addWidget(label(tr(name), "small"))
            box.addWidget(value)
            self._times[name] = (pair, value)
            row.addWidget(pair)
        row.addWidget(self._message, 1)
        row.addStretch(1)
        row.addWidget(self.right)
        self.say("ok", tr("Ready."))

    @property
    def message(self) -> str:
        return self._message.text()

    def say(self, tone: str, text: str) -> None:
        """One sentence in ``tone`` (ok, warn, error, accent or "")."""
        icon_name = {"error": "circle-alert", "ok": "circle-check", "warn": "circle-help"}.get(tone, "info")
        self._icon.set_icon(icon_name, tone or "text2")
        set_tone(self._message, tone if tone in ("error", "warn") else "")
        self._message.setText(text)
        self._show_timing(False)

    def show_timing(self, prediction: Prediction) -> None:
        self._bar.timing = {name: float(value) for name, value in prediction.timing_ms.items()}
        for name, (_, value) in self._times.items():
            value.setText(ms_words(self._bar.timing.get(name, 0.0)))
        self._bar.update()
        self._message.setText("")
        self._show_timing(True)

    def _show_timing(self, shown: bool) -> None:
        self._bar.setVisible(shown)
        self._icon.setVisible(not shown)
        self._message.setVisible(not shown)
        for pair, _ in self._times.values():
            pair.setVisible(shown)
