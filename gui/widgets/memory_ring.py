"""The device and its memory: a ring, and in words what is free. The menu says who has it, and moves the model."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QPoint, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QActionGroup, QEnterEvent, QFontMetrics, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QMenu, QSizePolicy

from gui import theme
from gui.icons import paint_icon
from gui.language import tr
from gui.widgets.basics import placed
from gui.words import DEVICES, device_choice_words, device_words, gb_words, size_words

HEIGHT, RING, CHEVRON = 40, 24, 18
TIGHT = 0.9
"""From this share on the ring is amber."""


class MemoryRing(QAbstractButton):
    """``pin_asked(model, pinned)``, ``settings_asked``, ``run_asked(model, device)``: load it again there."""

    pin_asked = Signal(str, bool)
    settings_asked = Signal()
    run_asked = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self._memory: dict[str, Any] = {}
        self._models: list[dict[str, Any]] = []
        self._device = ""
        self._model = ""
        self.menu: QMenu | None = None
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.clicked.connect(self._open_menu)
        self.hide()

    @property
    def used(self) -> float:
        """The share of the memory that everybody together has, 0..1."""
        total = self._memory.get("total") or 0
        return 1 - self._memory["available"] / total if total else 0.0

    @property
    def words(self) -> tuple[str, str]:
        total, free = self._memory.get("total", 0), self._memory.get("available", 0)
        return device_words(self._device) or tr("This computer"), tr("{free} of {total}\u2009GB free").format(
            free=gb_words(free), total=gb_words(total)
        )

    def show_memory(self, stats: dict[str, Any], device: str, model: str = "") -> None:
        """``stats`` as of the engine, what the model that answers runs on, and its id ("" for none); nothing is shown
        before the engine has measured."""
        memory = stats.get("memory") or {}
        before = (self.words, round(self.used * 100)) if self._memory else None
        self._memory, self._models, self._device, self._model = memory, list(stats["models"]), device, model
        self.setVisible(bool(memory.get("total")))
        if before == (self.words, round(self.used * 100)):
            return
        name, free = self.words
        self.setAccessibleName(tr("{name}, memory: {free}").format(name=name, free=free))
        self.setToolTip(tr("{percent:.0f}\u2009% of this computer's memory is in use").format(percent=self.used * 100))
        self.updateGeometry()
        self.update()

    def make_menu(self) -> QMenu:
        """Where the model runs; each model with what it takes and whether it is pinned; other programs, the budget."""
        menu = QMenu(self)
        if self._model:
            self._add_devices(menu)
        for model in self._models:
            size = model.get("memory")
            words = size_words(size) if size else tr("no process")
            action = menu.addAction(tr("Keep {name} open").format(name=model["id"]).replace("&", "&&") + f"\t{words}")
            action.setCheckable(True)
            action.setChecked(bool(model.get("pinned")))
            action.setToolTip(tr("A pinned model is never closed to save memory."))
            action.triggered.connect(lambda on, key=str(model["id"]): self.pin_asked.emit(key, on))
        if self._models:
            menu.addSeparator()
        budget = self._memory.get("budget")
        for words, size in (
            (tr("Models together"), size_words(self._memory.get("models", 0))),
            (tr("Other programs"), size_words(self._memory.get("others", 0))),
            (tr("Budget for models"), size_words(budget) if budget else tr("none")),
        ):
            menu.addAction(f"{words}\t{size}").setEnabled(False)
        menu.addSeparator()
        menu.addAction(tr("Memory settings…")).triggered.connect(self.settings_asked)
        return menu

    def _add_devices(self, menu: QMenu) -> None:
        menu.addAction(tr("{name} runs on").format(name=self._model).replace("&", "&&")).setEnabled(False)
        group = QActionGroup(menu)
        for device in DEVICES:
            free = self._free(device)
            words = tr("{free} free").format(free=size_words(free)) if free is not None else ""
            action = menu.addAction(device_choice_words(device) + (f"\t{words}" if words else ""))
            action.setCheckable(True)
            action.setChecked(device == self._device.partition(":")[0])
            group.addAction(action)
            action.triggered.connect(lambda _on, to=device: self.run_asked.emit(self._model, to))
        menu.addSeparator()

    def _free(self, device: str) -> int | None:
        """The free bytes of a device; None where nothing told them, as of a GPU that no model runs on."""
        if device == "cpu":
            return int(self._memory.get("available", 0))
        told = [
            entry["free"] for entry in self._memory.get("devices", ()) if entry["device"].partition(":")[0] == device
        ]
        return max(told, default=None)

    def _open_menu(self) -> None:
        if self.menu is not None:
            self.menu.deleteLater()
        self.menu = self.make_menu()
        self.menu.popup(self.mapToGlobal(QPoint(0, self.height())))

    def sizeHint(self) -> QSize:
        name, free = self.words
        strong = QFontMetrics(theme.font("body", semibold=True)).horizontalAdvance(name)
        small = QFontMetrics(theme.font("caption")).horizontalAdvance(free)
        return QSize(RING + 18 + max(strong + CHEVRON, small) + 6, HEIGHT)

    def enterEvent(self, event: QEnterEvent) -> None:
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.underMouse() or self.isDown():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("hover"))
            painter.drawRoundedRect(QRectF(self.rect()), 6, 6)
        ring = placed(self, QRectF(6, (self.height() - RING) / 2, RING, RING)).adjusted(2, 2, -2, -2)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(theme.color("track"), 3.5))
        painter.drawEllipse(ring)
        pen = QPen(theme.color("warn_line" if self.used >= TIGHT else "accent"), 3.5)
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        painter.setPen(pen)
        painter.drawArc(ring, 90 * 16, -round(self.used * 360 * 16))
        name, free = self.words
        left = RING + 16
        painter.setFont(theme.font("body", semibold=True))
        painter.setPen(theme.color("text"))
        half = self.height() / 2
        painter.drawText(placed(self, QRectF(left, 0, self.width() - left, half + 1)), _BOTTOM, name)
        after = left + painter.fontMetrics().horizontalAdvance(name) + 4
        paint_icon(painter, "chevron-down", placed(self, QRectF(after, half - 14, 12, 12)), theme.color("text2"))
        painter.setFont(theme.font("caption"))
        painter.setPen(theme.color("text2"))
        painter.drawText(placed(self, QRectF(left, half + 1, self.width() - left, half - 1)), _TOP, free)
        painter.end()


_BOTTOM = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignBottom)
_TOP = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
