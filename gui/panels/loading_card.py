"""A load on the page: its stages, what each took, the bytes where they are measured, and Cancel."""

from __future__ import annotations

import time

from PySide6.QtCore import QRectF, Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QPainter, QPaintEvent, QPen, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from engine.events import LoadStage
from gui import theme
from gui.icons import IconLabel, paint_icon
from gui.language import tr
from gui.model_shelf import ModelCard
from gui.widgets.basics import Button, Card, ElidedLabel, label, line
from gui.widgets.progress import ProgressBar, paint_ring
from gui.words import STAGES, seconds_words, size_words

SHOWN = tuple(LoadStage)


class _Mark(QWidget):
    """Tick, ring or hollow dot."""

    def __init__(self) -> None:
        super().__init__()
        self.state = "ahead"
        self.phase = 0
        self.setFixedSize(16, 16)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.state == "done":
            paint_icon(painter, "check", QRectF(0, 0, 16, 16), theme.color("ok"))
        elif self.state == "now":
            paint_ring(painter, QRectF(2, 2, 12, 12), self.phase)
        else:
            painter.setPen(QPen(theme.color("ctl"), 1.5))
            painter.drawEllipse(QRectF(5, 5, 6, 6))
        painter.end()


class _StageRow(QWidget):
    def __init__(self, stage: LoadStage) -> None:
        super().__init__()
        self.mark = _Mark()
        self.name = label(tr(STAGES[stage][0]))
        self.right = label("", "small")
        self.bar = ProgressBar(4)
        self.bar.hide()
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(self.mark)
        row.addWidget(self.name)
        row.addStretch(1)
        row.addWidget(self.right)
        under = QHBoxLayout()
        under.setContentsMargins(28, 0, 0, 0)
        under.addWidget(self.bar)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 5, 0, 5)
        box.setSpacing(6)
        box.addLayout(row)
        box.addLayout(under)


class LoadingCard(QWidget):
    """Shows the newest load. ``cancel_asked(token)``; ``open_files_asked`` from the strip below."""

    cancel_asked = Signal(int)
    open_files_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._card: ModelCard | None = None
        self.title = ElidedLabel("", "title")
        self._path = ElidedLabel("", "body2")
        self.cancel_button = Button(tr("Cancel load"))
        self.cancel_button.clicked.connect(lambda: self.cancel_asked.emit(self._card.token if self._card else 0))
        self._rows = {stage: _StageRow(stage) for stage in SHOWN}
        self._note = label("", "small", wrap=True)
        words = QVBoxLayout()
        words.setSpacing(4)
        words.addWidget(self.title)
        words.addWidget(self._path)
        top = QHBoxLayout()
        top.setSpacing(16)
        top.addLayout(words, 1)
        top.addWidget(self.cancel_button, 0, Qt.AlignmentFlag.AlignTop)
        card = Card()
        card.setFixedWidth(560)
        box = QVBoxLayout(card)
        box.setContentsMargins(28, 26, 28, 24)
        box.setSpacing(0)
        box.addLayout(top)
        box.addSpacing(20)
        for row in self._rows.values():
            box.addWidget(row)
        box.addSpacing(16)
        box.addWidget(line())
        box.addSpacing(16)
        note = QHBoxLayout()
        note.setSpacing(10)
        note.addWidget(IconLabel("info", "text3"), 0, Qt.AlignmentFlag.AlignTop)
        note.addWidget(self._note, 1)
        box.addLayout(note)
        self.waiting = label(tr("Drop pictures or a table now if you like"), "strong")
        outer = QVBoxLayout(self)
        outer.addStretch(2)
        # Stretches and no alignment: an aligned item is given its size hint, which a wrapped line makes too low.
        for part in (card, self._strip()):
            row_ = QHBoxLayout()
            row_.addStretch(1)
            row_.addWidget(part)
            row_.addStretch(1)
            outer.addLayout(row_)
            outer.addSpacing(16)
        outer.addStretch(3)
        self._timer = QTimer(self)
        self._timer.setInterval(100)
        self._timer.timeout.connect(self._tick)

    def _strip(self) -> QWidget:
        strip = Card("card")
        strip.setFixedWidth(560)
        row = QHBoxLayout(strip)
        row.setContentsMargins(20, 14, 16, 14)
        row.setSpacing(12)
        row.addWidget(IconLabel("image-plus", "text2", 20))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self.waiting)
        words.addWidget(label(tr("They run as soon as the model is ready."), "small"))
        row.addLayout(words, 1)
        button = Button(tr("Open files…"))
        button.clicked.connect(self.open_files_asked)
        row.addWidget(button)
        return strip

    def show_load(self, card: ModelCard, others: ModelCard | None, waiting: int) -> None:
        """Show ``card``; ``others`` is the model that answers meanwhile, ``waiting`` the inputs already queued."""
        self._card = card
        self.title.setText(tr("Loading {name}").format(name=card.name))
        self._path.setText(str(card.path))
        took = dict(card.stage_seconds)
        for stage, row in self._rows.items():
            now = stage is card.stage
            done = stage in took and not now
            row.mark.state = "now" if now else "done" if done else "ahead"
            row.name.setProperty("role", "strong" if now else "body" if done else "body2")
            row.name.style().polish(row.name)
            row.bar.setVisible(now)
            # A stage this format does not have is passed over without a word.
            passed = card.stage is not None and SHOWN.index(stage) < SHOWN.index(card.stage) and not done and not now
            row.setVisible(not passed)
            if now:
                row.bar.set_progress(card.fraction, card.learnt)
            row.right.setText(seconds_words(took[stage]) if done else "")
            row.mark.update()
        if others is not None:
            self._note.setText(
                tr(
                    "{name} keeps answering until this one is ready. Cancel ends the process and gives its memory back."
                ).format(name=others.name)
            )
        else:
            self._note.setText(tr("Cancel ends the process and gives its memory back."))
        if waiting:
            self.waiting.setText(
                tr("{count} waiting").format(count=waiting) if waiting > 1 else tr("One file is waiting")
            )
        else:
            self.waiting.setText(tr("Drop pictures or a table now if you like"))
        self._tick()

    def _tick(self) -> None:
        card = self._card
        if card is None or card.stage is None:
            return
        row = self._rows[card.stage]
        row.mark.phase += 1
        row.mark.update()
        elapsed = time.monotonic() - card.stage_since
        words = seconds_words(elapsed) if elapsed >= 0.1 else ""
        if card.bytes_total and card.bytes_done is not None:
            words = tr("{done:.0f} of {size}").format(
                done=card.bytes_done / 1000000.0, size=size_words(card.bytes_total)
            )
            if elapsed > 0.5:
                words += tr(" · {rate:.0f} MB/s").format(rate=card.bytes_done / 1000000.0 / elapsed)
        row.right.setText(words)

    def showEvent(self, event: QShowEvent) -> None:
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        self._timer.stop()
