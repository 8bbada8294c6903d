"""The foot of an answer: how much of the model was found in its files, and whether both doors give its kept answer."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from gui.evidence import evidence_rows, found_words, is_doubtful
from gui.golden import golden_of, golden_words
from gui.icons import IconLabel
from gui.language import tr
from gui.model_shelf import ModelCard
from gui.widgets.basics import Button, ElidedLabel, label, line, set_tone


class EvidenceFoot(QWidget):
    """``card_asked(id)`` from its link, ``keep_asked()`` from Keep this answer."""

    card_asked = Signal(str)
    keep_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._key = ""
        self._shown: object = None
        self._evidence_icon = IconLabel("circle-check", "ok")
        self.evidence = ElidedLabel("", "small")
        self.card_link = Button(tr("Model card"), kind="link")
        self.card_link.clicked.connect(lambda: self.card_asked.emit(self._key))
        self._golden_icon = IconLabel("bookmark", "text2")
        self.golden = ElidedLabel("", "small")
        self.golden_at = label("", "small")
        self.keep_link = Button(tr("Keep this answer"), kind="link")
        self.keep_link.setToolTip(tr("Checked after every load, and over the network when you ask."))
        self.keep_link.clicked.connect(self.keep_asked)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 4, 0, 0)
        box.setSpacing(2)
        box.addWidget(line())
        box.addSpacing(6)
        for icon, words, parts in (
            (self._evidence_icon, self.evidence, (self.card_link,)),
            (self._golden_icon, self.golden, (self.golden_at, self.keep_link)),
        ):
            row = QHBoxLayout()
            row.setSpacing(8)
            row.addWidget(icon)
            row.addWidget(words, 1)
            for part in parts:
                row.addWidget(part)
            box.addLayout(row)

    @property
    def has_model(self) -> bool:
        return bool(self._key)

    def show_model(self, card: ModelCard | None) -> None:
        """What is known of ``card``; None and a model without a spec show nothing."""
        if card is None or not card.spec:
            self._key, self._shown = "", None
            return
        golden = golden_of(card.entry)
        if self._shown == (card.key, card.spec, golden):
            return
        self._key, self._shown = card.key, (card.key, card.spec, golden)
        rows = evidence_rows(card.entry)
        assumed = is_doubtful(rows)
        self._evidence_icon.set_icon("circle-help" if assumed else "circle-check", "warn" if assumed else "ok")
        self.evidence.setText(found_words(rows))
        set_tone(self.evidence, "warn" if assumed else "")
        words = golden_words(golden)
        self._golden_icon.set_icon(words.icon, words.tone)
        self.golden.setText(words.sentence if golden is not None else tr("No answer is kept yet"))
        set_tone(self.golden, words.tone if words.tone == "error" else "")
        self.golden_at.setText(words.at)
        self.golden_at.setVisible(bool(words.at))
        self.keep_link.setVisible(golden is None)
