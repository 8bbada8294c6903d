"""A picture made of a picture: both behind one divider, and the new one to keep."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout

from engine.prediction import ImagePreview
from gui.engine_bridge import EngineBridge
from gui.language import tr
from gui.views.base import AnswerView, Canvas
from gui.widgets.basics import Button, ElidedLabel, label
from gui.widgets.image_view import image_of
from gui.words import size_words

MOST_SIDE = 4096


class PicturesView(AnswerView):
    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.head = ElidedLabel("", "section")
        self.about = label("", "small", wrap=True)
        self.hint = label(tr("Drag the divider, or move it with the arrow keys."), "hint", wrap=True)
        self.save_button = Button(tr("Save picture…"), "save", small=True)
        self.save_button.clicked.connect(self._save)
        row = QHBoxLayout()
        row.addWidget(self.save_button)
        row.addStretch(1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        for widget in (self.head, self.about, self.hint):
            box.addWidget(widget)
        box.addLayout(row)
        box.addStretch(1)
        self.made: ImagePreview | None = None

    @property
    def image(self) -> bytes | None:
        found = self.prediction.predictions if self.prediction is not None else None
        data = found.get("image") if isinstance(found, dict) else None
        return data if isinstance(data, bytes) else None

    def update_dock(self, fresh: bool) -> None:
        self.made = None
        data = self.image
        self.save_button.setEnabled(data is not None)
        if data is None:
            self.head.setText(tr("No picture came back"))
            return
        found = self.prediction.predictions if self.prediction is not None else None
        assert isinstance(found, dict)
        self.head.setText(f"{found.get('width', '?')} × {found.get('height', '?')}")
        note = str(found.get("note") or "")
        self.about.setText(
            "; ".join(part for part in (tr("PNG, {size}").format(size=size_words(len(data))), note) if part)
        )
        self.bridge.drop(self._ticket)
        # Decoded where every picture is: in a process of its own.
        self._ticket = self.bridge.ask(
            self, lambda engine: engine.preview_image(data, MOST_SIDE), self._on_made, self.failed.emit
        )

    def _on_made(self, preview: ImagePreview) -> None:
        self.made = preview
        self.lay_over()

    def lay_over(self) -> None:
        if self.picture is not None and self.made is not None:
            self.canvas.image.show_second(image_of(self.made), tr("Before"), tr("After"))

    def _save(self) -> None:
        data, item = self.image, self.item
        if data is not None and item is not None:
            stem = item.source.name.rpartition(".")[0] or item.source.name
            self.save_as(tr("Save the picture"), f"{stem}-new.png", lambda: data)
