"""An answer that no other view knows: as JSON."""

from __future__ import annotations

import json

from PySide6.QtWidgets import QPlainTextEdit, QVBoxLayout

from gui import theme
from gui.engine_bridge import EngineBridge
from gui.language import tr
from gui.views.base import AnswerView, Canvas

LONGEST = 200_000


class JsonView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setFont(theme.fixed_font("small"))
        self.text.setAccessibleName(tr("Answer as JSON"))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.text)

    def update_dock(self, fresh: bool) -> None:
        assert self.prediction is not None
        body = self.prediction.to_json()
        shown = body.get("predictions", body.get("results"))
        self.text.setPlainText(json.dumps(shown, indent=1, ensure_ascii=False)[:LONGEST])
