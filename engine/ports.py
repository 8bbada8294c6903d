"""The engine's face, as both doors use it: what :class:`engine.Engine` is, and what a fake or a client must be."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from engine.events import Event
from engine.model_spec import ModelSpec
from engine.prediction import ImagePreview, LoadTicket, Prediction, PredictRequest, TablePreview


class EnginePort(Protocol):
    """Thread-safe and never blocking the caller: what takes time comes back as a Future or a ticket."""

    def load(
        self, source: str | Path | ModelSpec, device: str | None = None, trust: bool = False, runtime: str | None = None
    ) -> LoadTicket:
        """Recognise, check consent, start a worker, load. ``device`` is ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or None
        (chosen automatically); ``trust`` stores consent to a *program* class model first. A model that is loaded or
        loading already gives its own ticket again. Every error arrives through ``ticket.future``."""

    def unload(self, model_id: str) -> Future[None]:
        """End the model's worker; requests waiting for it get ``draining``. Raises ModelNotFound through the future."""

    def offer(
        self, path: str | Path, device: str | None = None, trust: bool = False, runtime: str | None = None
    ) -> str:
        """Make a model known without loading it; the first request loads it. Returns its id."""

    def predict(self, request: PredictRequest) -> Future[Prediction]:
        """Queue one request. Cancelling the future drops the request if it still waits. Errors come through it."""

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        """Postprocess a kept raw result with other ``params``; no inference. Raises PredictionExpired through it."""

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        """What the file and its neighbours say, read in the inspector; needs no consent and loads nothing."""

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        """The picture as raw RGB, at most ``max_side`` pixels on its longer side, decoded in the inspector."""

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        """The head of a CSV table, parsed in the inspector."""

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` for every event; the result ends that."""

    def stats(self) -> dict[str, Any]:
        """``{"models": [{id, task, format, runtime, device, state, loads, requests: {window, network}, worker_pid,
        waiting, running, restarts, error: {code, message} | None, offered, path, spec}], "waiting", "running"}``."""

    def close(self) -> None:
        """End every worker and thread. Idempotent; the one call that blocks (bounded)."""
