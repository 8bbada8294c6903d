"""Masks over a picture, one tint for each; classes can be hidden, and the tint made stronger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PySide6.QtWidgets import QVBoxLayout

from gui.engine_bridge import EngineBridge
from gui.language import counted, tr
from gui.views.base import AnswerView, Canvas
from gui.views.pixels import numbered, tinted
from gui.widgets.basics import ElidedLabel, label, line
from gui.widgets.class_list import ClassList
from gui.widgets.overlays import Tint, class_colour
from gui.widgets.share_slider import ShareSlider
from gui.words import percent_words

MOST_SIDE = 1024
"""Of the tint, in pixels: it is drawn as large as the picture."""
_THRESHOLDS = {"semantic": None, "class-map": None}
_DEFAULTS = {"maskformer": 0.5, "mask2former": 0.5, "detr-masks": 0.5}


class MasksView(AnswerView):
    params: ClassVar[Mapping[str, Any]] = {"masks": "rle"}

    def __init__(self, bridge: EngineBridge, canvas: Canvas) -> None:
        super().__init__(bridge, canvas)
        self.head = ElidedLabel("", "section")
        self.threshold = ShareSlider(tr("Confidence at least"))
        self.note = label(tr("Acts at once on the kept result; nothing is run again."), "hint", wrap=True)
        self.opacity = ShareSlider(tr("Tint"))
        self.opacity.set_value(0.5)
        self.classes = ClassList()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        for widget in (self.head, self.threshold, self.note, self.opacity, line(), self.classes):
            box.addWidget(widget)
        box.addStretch(1)
        self.threshold.moved.connect(lambda value: self.refine_asked.emit({"threshold": value, "masks": "rle"}))
        self.opacity.moved.connect(lambda _value: self.lay_over())
        self.classes.changed.connect(self.lay_over)
        self._whose: np.ndarray | None = None

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        found = self.prediction.predictions if self.prediction is not None else None
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def update_dock(self, fresh: bool) -> None:
        head = str((self.spec.get("postprocessing") or {}).get("head") or "")
        scored = any(entry.get("score") is not None for entry in self.entries) or head not in _THRESHOLDS
        self.threshold.setVisible(scored)
        self.note.setVisible(scored)
        if fresh:
            self.threshold.set_value(self.default("threshold", _DEFAULTS.get(head, 0.25)))
        self._whose = None
        areas: dict[str, float] = {}
        counts: dict[str, int] = {}
        for entry in self.entries:
            name = str(entry.get("label", ""))
            areas[name] = areas.get(name, 0.0) + float(entry.get("area") or 0.0)
            counts[name] = counts.get(name, 0) + 1
        colours = self._colours()
        rows = [
            (
                name,
                colours[name],
                f"{counts[name]} · {percent_words(area)}" if counts[name] > 1 else percent_words(area),
            )
            for name, area in areas.items()
        ]
        self.classes.setVisible(bool(rows))
        self.classes.show_classes(rows)
        found = len(self.entries)
        self.head.setText(
            counted("{count} mask", "{count} masks", found) if found else tr("Nothing found in this picture")
        )
        self.lay_over()

    def _colours(self) -> dict[str, int]:
        labels = [str(name) for name in self.spec.get("labels") or ()]
        names = [str(entry.get("label", "")) for entry in self.entries]
        return {name: number for number, name in enumerate(dict.fromkeys([*labels, *names]))}

    def lay_over(self) -> None:
        if self.picture is None:
            return
        entries, colours, hidden = self.entries, self._colours(), set(self.classes.hidden)
        if not entries:
            self.canvas.image.show_overlay(None)
            return
        names = [str(entry.get("label", "")) for entry in entries]
        several = len(set(names)) < len(names)
        shown = [
            None if name in hidden else class_colour(number if several else colours[name])
            for number, name in enumerate(names)
        ]
        masks: Sequence[Mapping[str, Any]] = [entry["mask"] for entry in entries]
        width, height = self.picture.source_size
        scale = min(1.0, MOST_SIDE / max(width, height))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        whose, opacity = self._whose, self.opacity.value

        def work() -> tuple[Any, Any]:
            found = whose if whose is not None else numbered(masks, *size)
            return found, tinted(found, shown, opacity)

        def done(made: tuple[Any, Any]) -> None:
            self._whose, image = made
            self.canvas.image.show_overlay(Tint(image, self._whose, names, scale))

        self.compute(work, done)
