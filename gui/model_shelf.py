"""The models the window knows: what each chip shows, and which one answers what is dropped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from engine.errors import EngineError
from engine.events import LoadProgress, LoadStage, ModelState, ModelStateChanged, Snapshot
from gui.language import tr


class ChipPhase(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    OFFERED = "offered"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as the window shows it. ``token`` is the load under way, 0 where there is none.

    ``replaces`` is the id of the model whose next version this load brings: both stand together until it is there.
    ``entry`` is the engine's own entry, as of the newest snapshot.
    """

    key: str
    name: str
    path: Path
    phase: ChipPhase
    token: int = 0
    task: str = ""
    format: str = ""
    device: str = ""
    stage: LoadStage | None = None
    fraction: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    learnt: bool = False
    stage_seconds: tuple[tuple[LoadStage, float], ...] = ()
    stage_since: float = 0.0
    window_requests: int = 0
    network_requests: int = 0
    problem: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    replaces: str = ""
    entry: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The version that answers."""
        return str(self.entry.get("version") or self.spec.get("version") or "1")

    @property
    def version_before(self) -> str:
        """The version that a rollback goes to, "" where there is none."""
        known = [str(version) for version in self.entry.get("versions") or ()]
        at = known.index(self.version) if self.version in known else 0
        return known[at - 1] if at else ""


_PHASES = {
    ModelState.STARTING: ChipPhase.STARTING,
    ModelState.LOADING: ChipPhase.LOADING,
    ModelState.WARMING: ChipPhase.LOADING,
    ModelState.READY: ChipPhase.READY,
    ModelState.STOPPING: ChipPhase.STOPPING,
    ModelState.FAILED: ChipPhase.FAILED,
    ModelState.UNLOADED: ChipPhase.OFFERED,
}

ANSWERING = (ChipPhase.READY, ChipPhase.OFFERED)


class ModelShelf(QObject):
    """Cards in the order they were opened. ``changed`` follows every change; ``active_changed`` another model."""

    changed = Signal()
    active_changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._cards: dict[str, ModelCard] = {}
        self._active = ""

    # -- reading ---------------------------------------------------------------------------------------------------
    @property
    def cards(self) -> tuple[ModelCard, ...]:
        return tuple(self._cards.values())

    @property
    def active(self) -> ModelCard | None:
        """The model that answers what is dropped; None where none can."""
        card = self._cards.get(self._active)
        return card if card is not None and card.phase in ANSWERING else None

    @property
    def loading(self) -> ModelCard | None:
        """The newest load under way."""
        under_way = [card for card in self.cards if card.token]
        return under_way[-1] if under_way else None

    def card(self, key: str) -> ModelCard | None:
        """The model called ``key``; a swap under way has a card of its own."""
        return self._cards.get(key)

    def by_token(self, token: int) -> ModelCard | None:
        return next((card for card in self.cards if card.token == token), None)

    # -- loads of this window --------------------------------------------------------------------------------------
    def load_asked(self, token: int, path: Path) -> None:
        key = f"load-{token}"
        self._cards[key] = ModelCard(
            key, path.stem if path.suffix else path.name, path, ChipPhase.STARTING, token, stage_since=time.monotonic()
        )
        self.changed.emit()

    def swap_asked(self, token: int, model_id: str) -> None:
        """The next version of ``model_id`` is being loaded; the one that answers keeps its card."""
        before = self._cards[model_id]
        now = time.monotonic()
        name = tr("{name}, next version").format(name=before.name)
        card = ModelCard(
            f"load-{token}", name, before.path, ChipPhase.STARTING, token, before.task, before.format,
            stage_since=now, replaces=model_id,
        )  # fmt: skip
        self._put(card)

    def load_started(self, token: int, model_id: str) -> None:
        card = self.by_token(token)
        if card is None or card.replaces:
            return
        cards = {}
        for key, other in self._cards.items():
            if other is card:
                cards[model_id] = replace(card, key=model_id, name=model_id)
            elif key != model_id:
                cards[key] = other
        self._cards = cards
        self.changed.emit()

    def load_progressed(self, event: LoadProgress) -> None:
        card = self._loading_of(event.model_id)
        if card is None:
            return
        now = time.monotonic()
        seconds, since = card.stage_seconds, card.stage_since
        if card.stage is not event.stage:
            if card.stage is not None:
                seconds = (*seconds, (card.stage, now - since))
            since = now
        self._put(
            replace(
                card, phase=ChipPhase.LOADING, stage=event.stage, fraction=event.fraction, bytes_done=event.bytes_done,
                bytes_total=event.bytes_total, learnt=event.learnt, stage_seconds=seconds, stage_since=since,
            )
        )  # fmt: skip

    def _loading_of(self, model_id: str) -> ModelCard | None:
        card = self._cards.get(model_id)
        if card is not None and card.token:
            return card
        return next((other for other in self.cards if other.token and other.replaces == model_id), None)

    def load_finished(self, token: int, entry: dict[str, Any]) -> None:
        card = self.by_token(token)
        if card is not None:
            self._cards = {k: v for k, v in self._cards.items() if v is not card or k == entry["id"]}
        self._put(_card_of(entry))
        if card is None or not card.replaces:
            self.set_active(str(entry["id"]))

    def load_ended(self, token: int) -> None:
        """A load failed or was cancelled: its card goes, the models before it stay."""
        card = self.by_token(token)
        if card is not None:
            del self._cards[card.key]
            self.changed.emit()

    # -- what the engine says --------------------------------------------------------------------------------------
    def state_changed(self, event: ModelStateChanged) -> None:
        card = self._cards.get(event.model_id)
        if card is None or card.token:
            return
        if event.state is ModelState.UNLOADED and card.phase is ChipPhase.STOPPING:
            self.removed(event.model_id)
            return
        problem = event.error.message if isinstance(event.error, EngineError) else ""
        self._put(replace(card, phase=_PHASES[event.state], problem=problem))

    def snapshot(self, event: Snapshot) -> None:
        self.entries(event.stats["models"])

    def entries(self, entries: list[dict[str, Any]]) -> None:
        """``stats()["models"]``: counters and states, and models that another door opened."""
        seen = set()
        for entry in entries:
            card = self._cards.get(str(entry["id"]))
            state = ModelState(entry["state"])
            if state is ModelState.UNLOADED and not entry.get("offered"):
                continue
            if state is ModelState.FAILED and card is None:
                continue  # a load that failed was told where it was asked for; only a model that ran keeps its chip
            seen.add(str(entry["id"]))
            if card is not None and (card.token or card.phase is ChipPhase.STOPPING or _is_older(entry, card)):
                continue
            self._cards[str(entry["id"])] = _card_of(entry)
        self._cards = {k: c for k, c in self._cards.items() if k in seen or c.token}
        # One that loads keeps its place: a snapshot of before its load ended may come after the news of it, and one
        # whose worker is started anew is asked again as soon as it can answer.
        chosen = self._cards.get(self._active)
        if chosen is None or chosen.phase in (ChipPhase.FAILED, ChipPhase.STOPPING):
            answering = [card.key for card in self.cards if card.phase in ANSWERING]
            if answering:
                self.set_active(answering[0])
        self.changed.emit()

    # -- what the person does --------------------------------------------------------------------------------------
    def set_active(self, key: str) -> None:
        if key != self._active and key in self._cards:
            self._active = key
            self.active_changed.emit()
            self.changed.emit()

    def stopping(self, key: str) -> None:
        card = self._cards.get(key)
        if card is not None:
            self._put(replace(card, phase=ChipPhase.STOPPING))

    def removed(self, key: str) -> None:
        if self._cards.pop(key, None) is None:
            return
        if self._active == key:
            answering = [card.key for card in self.cards if card.phase in ANSWERING]
            self._active = answering[0] if answering else ""
            self.active_changed.emit()
        self.changed.emit()

    def _put(self, card: ModelCard) -> None:
        self._cards[card.key] = card
        self.changed.emit()


def _is_older(entry: dict[str, Any], card: ModelCard) -> bool:
    """Whether ``entry`` was taken before the load that ``card`` tells of had ended, and was delivered after it."""
    not_yet = ModelState(entry["state"]) in (
        ModelState.UNLOADED, ModelState.STARTING, ModelState.LOADING, ModelState.WARMING,
    )  # fmt: skip
    return not_yet and int(entry["loads"]) < int(card.entry.get("loads", 0))


def _card_of(entry: dict[str, Any]) -> ModelCard:
    counters = entry["requests"]
    error = entry.get("error") or {}
    return ModelCard(
        key=str(entry["id"]),
        name=str(entry["id"]),
        path=Path(str(entry.get("path", entry["id"]))),
        phase=_PHASES[ModelState(entry["state"])],
        task=str(entry["task"] or ""),
        format=str(entry["format"] or ""),
        device=str(entry["device"] or ""),
        window_requests=int(counters["window"]),
        network_requests=int(counters["network"]),
        problem=str(error.get("message", "")),
        spec=dict(entry.get("spec") or {}),
        entry=entry,
    )
