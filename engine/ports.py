"""The engine's face, as both doors use it: what :class:`engine.Engine` is, and what a fake or a client must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from engine.events import Event
from engine.golden import GoldenReport, GoldenSample
from engine.model_spec import ModelSpec
from engine.prediction import (
    AudioPreview,
    Convention,
    ImagePreview,
    LoadTicket,
    Prediction,
    PredictRequest,
    TablePreview,
)
from engine.serving_types import RequestRecord
from engine.settings import EngineLimits


class EnginePort(Protocol):
    """Thread-safe and never blocking the caller: what takes time comes back as a Future or a ticket."""

    def load(
        self,
        source: str | Path | ModelSpec,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> LoadTicket:
        """Recognise, check consent, start a worker, load. ``device`` is ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or None
        (chosen automatically); ``trust`` stores consent to a *program* class model first; ``precision`` is ``float32``,
        ``bfloat16``, ``float16`` or None (as stated, else float32). A folder of numbered folders is one model whose
        highest number answers. A model that is loaded or loading already gives its own ticket again; one that computes
        in another precision is reloaded. Every error arrives through ``ticket.future``."""

    def unload(self, model_id: str) -> Future[None]:
        """End the model's worker; requests waiting for it get ``draining``. Raises ModelNotFound through the future."""

    def offer(
        self,
        path: str | Path,
        device: str | None = None,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
    ) -> str:
        """Make a model known without loading it; the first request loads it. Returns its id."""

    def reload(
        self, model_id: str, trust: bool = False, device: str | None = None, precision: str | None = None
    ) -> LoadTicket:
        """Load what now lies on the disk as the next version, beside the one that answers, and swap once it is ready
        and its golden sample agrees; no request is dropped. What goes wrong comes through ``ticket.future``, stands in
        the entry as ``swap_error``, and leaves the version before it answering."""

    def rollback(self, model_id: str) -> Future[dict[str, Any]]:
        """Let the version before this one answer again: at once where its worker is kept (``keep_previous_s``), else
        after loading it. The future is the model's entry; raises LoadFailed, ModelChanged through it."""

    def pin(self, model_id: str, pinned: bool) -> None:
        """Never, or again, close this model to save memory. Raises ModelNotFound."""

    def limit(self, limits: EngineLimits) -> None:
        """Let these limits hold from now on, in place of all that held before; of two calls the later one wins. A
        request that has a place in the line keeps it, also where there are fewer places now.

        A model that is closed for ``memory_budget_mb`` or ``unload_idle_s`` is offered, and its next question loads it
        again; one that is being asked, loaded or swapped, or is pinned, never is."""

    def keep_spares(self, model: str | Path | None = None) -> None:
        """Follow loads by a process that has the framework imported for the next one, from now on; have one soon for
        ``model``, judged by its name. ``worker.spare`` in the settings may forbid it, as does a small computer."""

    def predict(self, request: PredictRequest) -> Future[Prediction]:
        """Queue one request. Cancelling the future drops the request if it still waits. Errors come through it."""

    def cancel(self, request_id: str) -> bool:
        """Give up one request by the id of its record: one that waits is dropped, of one that runs the answer is. Its
        future is cancelled. False where it has been answered, or is not known."""

    def requests(self) -> tuple[RequestRecord, ...]:
        """The last hundred requests, newest first; those that wait have their position in the line."""

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        """Postprocess a kept raw result with other ``params``; no inference. Raises PredictionExpired through it."""

    def golden_sample(self, model_id: str) -> Future[GoldenSample | None]:
        """The stored question and answer of a loaded model; None where it has none."""

    def check_golden(self, model_id: str) -> Future[GoldenReport]:
        """Ask the model its golden sample now. Raises UnusableInput where it has none, Loading where it is not loaded,
        ModelNotFound. The entry's ``golden`` then has the result."""

    def keep_golden(self, prediction_id: str) -> Future[GoldenReport]:
        """Keep this answer as its model's golden sample, checked after each load; the future is its first check.
        Raises PredictionExpired where question and answer are no longer at hand (the last 100 are)."""

    def forget_golden(self, model_id: str) -> Future[None]:
        """Remove the kept answer; a sample that came with the model's package counts again."""

    def record_golden(self, model_id: str, report: GoldenReport) -> None:
        """A check that another door made (the server's, over the network)."""

    def save_sidecar(self, model_id: str, changes: Mapping[str, Any]) -> Future[Path]:
        """State ``changes`` in the model's sidecar, comments preserved; the future is the file written. Keys are the
        sidecar's, dotted (``preprocessing.scaling``, ``labels``); fields of [preprocessing] also without their section;
        None takes a key out. Raises SidecarInvalid naming the key; nothing is written then."""

    def try_conventions(self, model_id: str, data: bytes, content_type: str | None = None) -> Future[list[Convention]]:
        """One picture under every plausible way of preparing it that the model's spec only assumes. Ways in which no
        picture fits the model are left out. Raises UnusableInput where nothing is assumed or no way gives an answer."""

    def apply_preprocessing(self, model_id: str, changes: Mapping[str, Any]) -> Future[ModelSpec]:
        """Prepare pictures with ``changes`` (keys as of :meth:`save_sidecar`, of [preprocessing] only) from now on, at
        both doors, and after a restart of the worker; a new load reads the sidecar. Raises SidecarInvalid."""

    def inspect(self, path: str | Path) -> Future[ModelSpec]:
        """What the file and its neighbours say, read in the inspector; needs no consent and loads nothing."""

    def preview_image(self, source: bytes | Path, max_side: int = 2048) -> Future[ImagePreview]:
        """The picture as raw RGB, at most ``max_side`` pixels on its longer side, decoded in the inspector."""

    def preview_table(self, source: bytes | Path, max_rows: int = 1000) -> Future[TablePreview]:
        """The head of a CSV table, parsed in the inspector."""

    def preview_audio(self, source: bytes | Path, points: int = 1000) -> Future[AudioPreview]:
        """The outline of a recording in at most ``points`` parts, decoded in the inspector."""

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` for every event; the result ends that."""

    def stats(self) -> dict[str, Any]:
        """``{"models": [{id, task, format, runtime, device, state, loads, requests: {window, network}, worker_pid,
        inferences, waiting, running, restarts, error: {code, message} | None, offered, path, spec, version, versions,
        workers, swap, swap_error, golden, precision, threads, memory, device_memory, pinned, sandbox,
        keeps_memory, preparation}], "memory":
        {total, available, models, others, budget, devices: [{device, total, free, models, others}]}, "waiting",
        "running", "sandbox"}``.

        ``sandbox`` is what a process is kept from: ``{level: full | partial | none, files, network, processes, memory,
        reasons}``; of a model's worker, None without one; and of the inspector, None before it was asked.

        ``preparation`` is what came of trying faster ways to run a model (:mod:`engine.preparation`): ``{state, steps,
        gain, reason, batch}``, None without a worker; ``keeps_memory`` whether its C library keeps freed memory.

        ``memory`` is in bytes, measured every two seconds (0 before the first time): of a model's workers, None without
        one; of the computer, of all models, of all else, and the budget, None for none. ``device_memory`` is
        ``{allocated, reserved}`` of a GPU's, as PyTorch counts it in the model's workers, None without one; ``devices``
        has the GPUs that models run on.

        ``inferences``: how often the model itself was run for requests (a batch is one); :meth:`refine` adds none.

        ``versions``: their names; the serving one is last, and before it the one a rollback returns to. ``workers``:
        ``{version, state, worker_pid}`` of each version that is known, the serving one first. ``swap``: the state of
        the version being loaded beside it, or None; ``swap_error``: why the last one did not come, as ``error``.
        ``golden``: None, or ``{window, network: true | false | None, difference, tolerance, checked_at, version,
        source, message}``, see :class:`engine.golden.GoldenReport`. ``threads``: of the worker, None without one."""

    def close(self) -> None:
        """End every worker and thread. Idempotent; the one call that blocks (bounded)."""
