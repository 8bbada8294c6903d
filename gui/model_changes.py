"""What a person changes of an open model: how it reads pictures, which answer is kept, which version answers.

Every call runs off the GUI thread; the result is read back from the engine, never assumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Signal

from engine import EnginePort, Prediction
from engine.model_spec import SIDECAR
from gui.engine_bridge import EngineBridge
from gui.golden import clock_words
from gui.language import tr
from gui.model_shelf import ModelCard, ModelShelf
from gui.server_bridge import ServerBridge

_SECTION = "preprocessing."


@dataclass(frozen=True, slots=True)
class _Change:
    """One field changed in this window: what it was before, whether a sidecar said so, and when it was changed."""

    before: Any
    stated: bool
    at: float


class ModelChanges(QObject):
    """``done(sentence)`` or ``failed(sentence, error)`` ends each; ``changed`` follows what is under way."""

    changed = Signal()
    done = Signal(str)
    failed = Signal(str, object)

    def __init__(
        self, bridge: EngineBridge, shelf: ModelShelf, server: ServerBridge, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._bridge, self._shelf, self._server = bridge, shelf, server
        self._made: dict[str, dict[str, _Change]] = {}
        self._changing: set[str] = set()
        self._checking: set[str] = set()
        self._rolling_back: set[str] = set()

    # -- how it reads pictures -------------------------------------------------------------------------------------
    def changed_at(self, model_id: str) -> dict[str, str]:
        """The fields changed in this window, as the sidecar names them, and the clock time of each change."""
        made = self._made.get(model_id, {})
        return {_SECTION + key: clock_words(change.at) for key, change in made.items()}

    def saved_words(self, card: ModelCard) -> str:
        """Where what is changed is kept, and when it last was."""
        if self._made.get(card.key):
            return tr("Saved beside the model, in its sidecar")
        return tr("What you change is saved beside the model, in its sidecar")

    def apply(self, model_id: str, changes: dict[str, Any], words: str) -> None:
        """Read pictures so from now on, at both doors, and keep it in the sidecar. ``words`` name it."""
        card = self._shelf.card(model_id)
        if card is None:
            return
        now, evidence = card.spec.get("preprocessing") or {}, card.spec.get("evidence") or {}
        stated = {key: str(evidence.get(_SECTION + key, "")).startswith(SIDECAR) for key in changes}

        def remember() -> None:
            made, at = self._made.setdefault(model_id, {}), time.time()
            for key in changes:
                first = made.get(key)
                if first is not None:
                    made[key] = _Change(first.before, first.stated, at)
                else:
                    made[key] = _Change(now.get(key), stated[key], at)

        self._change(model_id, changes, remember, tr("{words} is used from now on, and saved.").format(words=words))

    def undo(self, model_id: str, field: str) -> None:
        """Take back the change of ``field``, and whatever was changed in the same go."""
        made = self._made.get(model_id, {})
        key = field.removeprefix(_SECTION)
        if key not in made:
            return
        together = [name for name, change in made.items() if change.at == made[key].at]
        # What no sidecar stated is taken out of it again, so that it counts as what it was: found or assumed.
        values = {name: made[name].before if made[name].stated else None for name in together}

        def forget() -> None:
            for name in together:
                made.pop(name, None)

        self._change(model_id, values, forget, tr("It is as it was before."))

    def _change(self, model_id: str, values: dict[str, Any], remember: Callable[[], None], words: str) -> None:
        """None takes a value out of the sidecar. One change of a model at a time, so that they cannot overtake."""
        if model_id in self._changing:
            self.done.emit(tr("The choice before is still being saved."))
            return
        self._changing.add(model_id)

        def failed(sentence: str, error: BaseException) -> None:
            self._changing.discard(model_id)
            self._read_back()
            self._on_failed(sentence, error)

        def saved(_result: object) -> None:
            self._changing.discard(model_id)
            remember()
            self._read_back()
            self.done.emit(words)

        def applied(_result: object) -> None:
            self._bridge.ask(
                self,
                lambda engine: engine.save_sidecar(model_id, values),
                saved,
                lambda error: failed(tr("It is used now, but could not be saved beside the model."), error),
            )

        self._bridge.ask(
            self,
            lambda engine: engine.apply_preprocessing(model_id, values),
            applied,
            lambda error: failed(tr("The model still reads pictures as before."), error),
        )

    # -- the kept answer -------------------------------------------------------------------------------------------
    @property
    def is_serving(self) -> bool:
        """Whether the network's door can be checked as well."""
        return self._server.is_running

    def is_checking(self, model_id: str) -> bool:
        return model_id in self._checking

    def keep(self, prediction: Prediction) -> None:
        """Keep this answer: after every load, and on demand, the model must give it again."""

        def kept(_result: object) -> None:
            self._read_back()
            self.done.emit(tr("This answer is kept; it is checked after every load."))

        self._bridge.ask(
            self,
            lambda engine: engine.keep_golden(prediction.id),
            kept,
            lambda error: self._on_failed(tr("This answer was not kept."), error),
        )

    def forget_golden(self, model_id: str) -> None:
        """Remove the kept answer; one that came with the model's files counts again."""

        def forgotten(_result: object) -> None:
            self._read_back()
            self.done.emit(tr("The kept answer is forgotten."))

        self._bridge.ask(
            self,
            lambda engine: engine.forget_golden(model_id),
            forgotten,
            lambda error: self._on_failed(tr("The kept answer is still there."), error),
        )

    def check_golden(self, model_id: str) -> None:
        """Ask again, through this window's door and, while the server is on, over the network."""
        if model_id in self._checking:
            return
        self._checking.add(model_id)
        self.changed.emit()

        def over(_report: object) -> None:
            self._checking.discard(model_id)
            self._read_back()
            self.changed.emit()

        def failed(error: BaseException) -> None:
            over(None)
            self._on_failed(tr("The kept answer could not be checked."), error)

        def ask_network(_report: object) -> None:
            if not self._server.check_golden(self, model_id, over, failed):
                over(None)

        def ask(engine: EnginePort) -> Future[Any]:
            return engine.check_golden(model_id)

        self._bridge.ask(self, ask, ask_network, failed)

    # -- versions --------------------------------------------------------------------------------------------------
    def is_rolling_back(self, model_id: str) -> bool:
        return model_id in self._rolling_back

    def roll_back(self, model_id: str) -> None:
        """Let the version before answer again."""
        if model_id in self._rolling_back:
            return
        self._rolling_back.add(model_id)
        self.changed.emit()

        def over(_entry: object) -> None:
            self._rolling_back.discard(model_id)
            self._read_back()
            self.changed.emit()

        def done(_entry: object) -> None:
            over(None)
            self.done.emit(tr("The version before answers again."))

        def failed(error: BaseException) -> None:
            over(None)
            self._on_failed(tr("The version that answers stays."), error)

        self._bridge.ask(self, lambda engine: engine.rollback(model_id), done, failed)

    # -- inside ----------------------------------------------------------------------------------------------------
    def _read_back(self) -> None:
        """Show what the engine now says, without waiting for its next snapshot."""
        self._bridge.read_stats(
            self,
            lambda stats: self._shelf.entries(stats["models"]),
            lambda error: self._on_failed(tr("What changed could not be read."), error),
        )

    def _on_failed(self, sentence: str, error: BaseException) -> None:
        self.failed.emit(sentence, error)
