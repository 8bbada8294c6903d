"""Ctrl+L: the models that are open and those opened before."""

from __future__ import annotations

import logging
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from gui.engine_bridge import EngineBridge
from gui.error_text import error_text
from gui.language import mark, tr
from gui.model_shelf import ANSWERING, ChipPhase, ModelCard, ModelShelf
from gui.panels.model_chip import TASK_ICONS
from gui.recent_models import RecentModel, RecentModels
from gui.widgets.basics import Button
from gui.widgets.chooser import Choice, Chooser
from gui.words import day_words, device_words, format_words, task_words

log = logging.getLogger(__name__)

_OPEN = mark("is open")
_PHASE_WORDS = {
    ChipPhase.STARTING: mark("starting"),
    ChipPhase.LOADING: mark("loading"),
    ChipPhase.OFFERED: mark("loads at the first question"),
    ChipPhase.STOPPING: mark("closing"),
    ChipPhase.FAILED: mark("failed"),
}


class ModelPicker(Chooser):
    """``activate_asked(key)`` for an open model, ``open_asked(Path)`` for one opened before, ``file_asked`` for the
    dialog. Forgetting one is taken back with ``undo``; ``status(tone, text)``."""

    activate_asked = Signal(str)
    open_asked = Signal(object)
    file_asked = Signal()
    status = Signal(str, str)
    forgot = Signal(str)

    def __init__(self, window: QWidget, bridge: EngineBridge, shelf: ModelShelf, recent: RecentModels) -> None:
        super().__init__(window, tr("Models"), tr("Find a model"), tall=True)
        self._bridge, self._shelf, self._recent = bridge, shelf, recent
        self._gone: frozenset[str] = frozenset()
        self._forgotten: RecentModel | None = None
        self.open_button = Button(tr("Open model…"), "folder-open", "flat", small=True)
        self.open_button.clicked.connect(self._on_file)
        self.undo_button = Button(tr("Undo"), kind="link", name=tr("Undo forgetting"))
        self.undo_button.clicked.connect(self.undo)
        self.add_stop(self.open_button)
        self.add_stop(self.undo_button)
        self.undo_button.hide()
        self.foot.addStretch(1)
        self.add_hint(tr("Enter"), tr("open"))
        self.add_hint(tr("Del"), tr("forget"))
        self.chosen.connect(self._on_chosen)
        self.removed.connect(self._on_removed)
        shelf.changed.connect(self._on_shelf)
        bridge.run(self, recent.read, self._on_read, self._on_failed)

    def open_picker(self) -> None:
        self._forgotten = None
        self.undo_button.hide()
        self.open_with(self._choices())
        paths = [model.path for model in self._recent.models]
        self._bridge.run(
            self, lambda: frozenset(p for p in paths if not Path(p).exists()), self._on_looked, self._on_failed
        )

    def note_opened(self, card: ModelCard) -> None:
        """A model was opened by this window."""
        self._recent.opened(card.path, card.name, card.task, card.format)
        self._keep()

    def undo(self) -> None:
        if self._forgotten is not None:
            self._recent.put_back(self._forgotten)
            self._forgotten = None
            self._keep()
            self.undo_button.hide()
            self.field.setFocus()
            self.set_choices(self._choices())

    # -- what is listed --------------------------------------------------------------------------------------------
    def _choices(self) -> list[Choice]:
        open_paths = {str(card.path) for card in self._shelf.cards}
        choices = [self._open_choice(card) for card in self._shelf.cards]
        return choices + [self._recent_choice(m) for m in self._recent.models if m.path not in open_paths]

    def _open_choice(self, card: ModelCard) -> Choice:
        active = card is self._shelf.active
        right = tr("answers here") if active else tr(_PHASE_WORDS.get(card.phase, _OPEN))
        detail = ", ".join(filter(None, (task_words(card.task), device_words(card.device))))
        return Choice(
            f"open:{card.key}", card.name, detail, right, "accent" if active else "", format_words(card.format),
            TASK_ICONS.get(card.task, "box"), tr("Open"), card.phase in ANSWERING, str(card.path),
        )  # fmt: skip

    def _recent_choice(self, model: RecentModel) -> Choice:
        gone = model.path in self._gone
        when = day_words(model.opened_at)
        return Choice(
            f"path:{model.path}", model.name, f"{task_words(model.task)}, {Path(model.path).parent}",
            tr("not there any more") if gone else when, "warn" if gone else "", format_words(model.format),
            TASK_ICONS.get(model.task, "box"), tr("Opened before"), True, model.path,
        )  # fmt: skip

    def _on_shelf(self) -> None:
        if self.isVisible():
            self.set_choices(self._choices())

    def _on_looked(self, gone: frozenset[str]) -> None:
        self._gone = gone
        self._on_shelf()

    def _on_read(self, models: tuple[RecentModel, ...]) -> None:
        """What was opened while the file was read stays ahead."""
        before, self._recent.models = self._recent.models, models
        for model in reversed(before):
            self._recent.put_back(model)
        # The window is there: what a load waits for longest can be had ready, of the kind that was opened last.
        last = self._recent.models[0].path if self._recent.models else None
        self._bridge.run(self, lambda: self._bridge.engine.keep_spares(last), lambda _: None, _on_no_spare)

    # -- what is done ----------------------------------------------------------------------------------------------
    def _on_chosen(self, key: str) -> None:
        kind, _, rest = key.partition(":")
        if kind == "open":
            self.activate_asked.emit(rest)
        elif rest in self._gone:
            self.status.emit("error", tr("{name} is not there any more.").format(name=Path(rest).name))
        else:
            self.open_asked.emit(Path(rest))

    def _on_removed(self, key: str) -> None:
        kind, _, path = key.partition(":")
        if kind != "path":
            return
        self._forgotten = self._recent.remove(path)
        self._keep()
        self.undo_button.setVisible(self._forgotten is not None)
        self.set_choices(self._choices())

    def _on_file(self) -> None:
        self.close_chooser()
        self.file_asked.emit()

    def _keep(self) -> None:
        self._bridge.run(self, self._recent.write, lambda _: None, self._on_failed)

    def _on_failed(self, error: BaseException) -> None:
        self.status.emit(
            "error", tr("The list of models could not be kept. {sentence}").format(sentence=error_text(error).sentence)
        )


def _on_no_spare(error: BaseException) -> None:
    """A load then takes as long as it takes."""
    log.warning("the engine keeps no process ready: %s", error)
