"""One version of a model inside the engine: its state, its line, its worker, and what is in flight.

Every method may be called from any thread. State changes under one lock; futures are settled and other parties called
only after it is released, so that nobody's callback runs inside.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import (
    DeadlineExceeded,
    Draining,
    EngineError,
    LoadCancelled,
    Loading,
    ModelFailed,
    PredictionExpired,
    Quarantined,
    RequestCancelled,
    RequestError,
    WorkerRestarted,
)
from engine.events import Event, LoadStage, ModelState, ModelStateChanged
from engine.futures import reject, resolve
from engine.jobs import Answer, Job, read_answer
from engine.load_run import PRECISIONS, LoadContext, Loaded, LoadRun
from engine.memory import DeviceMemory
from engine.model_spec import ASSUMED, FAKE_RUNTIME, SIDECAR, ModelSpec
from engine.prediction import LANES, Prediction
from engine.preparation import Preparation, PreparationState, Reason
from engine.protocol import Message, ProtocolError
from engine.scheduler import ModelQueue, Waiting
from engine.serving_types import RequestState
from engine.statistics import Statistics
from engine.supervisor import RestartPolicy
from engine.suspects import Suspects
from engine.worker_client import Exit, WorkerClient

log = logging.getLogger(__name__)

BATCHES_AHEAD = 1
"""Sent to the worker beyond those it runs at once: it is decoded and laid out while they compute."""
UNLOAD_GRACE_S = 5.0
_STAGE_STATES = {
    LoadStage.READING: ModelState.LOADING,
    LoadStage.BUILDING: ModelState.LOADING,
    LoadStage.MOVING: ModelState.LOADING,
    LoadStage.WARMING: ModelState.WARMING,
}
_BUSY_STATES = (ModelState.STARTING, ModelState.LOADING, ModelState.WARMING)


@dataclass(slots=True, eq=False)
class _Batch:
    """Items sent to the worker and not yet answered. ``since``: when it started, or, before that, when the worker last
    had something to show for itself. ``started``: it is not to be had back; ``told_started``: the worker said so, or
    had nothing else to do. ``rank``: place of the highest of its lanes, 0 the first."""

    id: int
    items: dict[str, Waiting[Job]]
    since: float
    rank: int
    started: bool = False
    told_started: bool = False
    recalled: bool = False

    @property
    def alone(self) -> bool:
        return any(item.alone for item in self.items.values())


@dataclass(slots=True)
class _Refinement:
    future: Future[Prediction]
    began: float


@dataclass(frozen=True, slots=True)
class HostContext:
    """What a host needs of the engine. ``wake`` asks for a tick no later than the given clock time."""

    load: LoadContext
    clock: Callable[[], float]
    wake: Callable[[float], None]
    mark_changed: Callable[[], None]
    on_removed: Callable[[ModelHost], None]
    on_ready: Callable[[ModelHost], None]
    """A load, or the start after a worker's death, has ended well."""
    on_orphans: Callable[[ModelHost, list[Job]], None]
    """Requests that a version other than the serving one took and can no longer answer."""


@dataclass(slots=True)
class Counts:
    loads: int = 0
    restarts: int = 0
    window: int = 0
    network: int = 0
    inferences: int = 0
    """How often the model was run for requests, as its processes counted."""
    statistics: Statistics = field(default_factory=Statistics)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.loads + other.loads,
            self.restarts + other.restarts,
            self.window + other.window,
            self.network + other.network,
            self.inferences + other.inferences,
            self.statistics + other.statistics,
        )


class ModelHost:
    """``source`` is the path, or a spec given in code; ``offered``: the first request loads it.

    ``name_version`` tells the version's name once the model is described. ``audible``: whether its states and its
    progress are the model's, and so are published. ``known`` is what an earlier worker of this very version told.
    """

    def __init__(
        self,
        context: HostContext,
        model_id: str,
        source: Path | ModelSpec,
        *,
        serial: int,
        device: str,
        offered: bool,
        trust: bool = False,
        runtime: str | None = None,
        precision: str | None = None,
        version: str = "",
        name_version: Callable[[ModelSpec], str] = lambda spec: spec.version,
        audible: bool = True,
        known: Loaded | None = None,
    ) -> None:
        self.id = model_id
        self.serial = serial
        self.source = source
        self.device_asked = device
        self.precision = precision
        self.audible = audible
        self._name_version = name_version
        self._version = version
        self._runtime = runtime
        self._context = context
        self._limits = context.load.limits
        self._load_context = replace(context.load, post=self._post)
        self._lock = threading.Lock()
        self._effects: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._offered = offered
        self._was_ready = False
        self._state = ModelState.UNLOADED
        self._error: EngineError | None = None
        self._loaded = known
        self._preprocessing: dict[str, Any] | None = None
        self._as_loaded: ModelSpec | None = None
        """What the files said when they were last read: what a change that is taken back gives way to."""
        self._client: WorkerClient | None = None
        self._run: LoadRun | None = None
        self._trust = trust
        self._tickets: list[Future[dict[str, Any]]] = []
        self._queue: ModelQueue[Job] = ModelQueue(self._limits, context.clock)
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._batch_ids = itertools.count(1)
        self._refinements: dict[str, _Refinement] = {}
        self._refinement_ids = itertools.count(1)
        self._fits: int | None = None
        """Rows of one run that the model, or its device's memory, was found to allow; None: as many as one likes."""
        self._preparation: Preparation | None = None
        self._may_prepare = True
        """False once a process has ended by itself with a prepared model, or while it prepared one."""
        self._device_memory: DeviceMemory | None = None
        self._memory_asked = False
        self._told_batch_limit = 0
        """The limit of rows that the process which runs now was told last."""
        self._suspects = Suspects()
        self._policy = RestartPolicy(self._limits)
        self._restart_at: float | None = None
        self._stop_at: float | None = None
        self._unloads: list[Future[None]] = []
        self._removed = False
        self._retiring = False
        self._resting = False
        self.used_at = context.clock()
        """Clock time of the last question, or of the end of the last load."""
        self._counts = Counts()
        self._told_inferences = 0
        """What the process that runs now last said that it had counted."""

    # -- the engine's calls ----------------------------------------------------------------------------------------
    @property
    def state(self) -> ModelState:
        return self._state

    @property
    def loaded(self) -> Loaded | None:
        """What the worker told of the model when it was ready last."""
        return self._loaded

    @property
    def version(self) -> str:
        """The version's name, "" before it is described."""
        return self._version

    @property
    def has_worker(self) -> bool:
        """Whether a process computes for it, or is about to."""
        return self._client is not None or self._run is not None

    @property
    def worker_pid(self) -> int | None:
        client = self._client
        return client.pid if client is not None else None

    @property
    def device_memory(self) -> DeviceMemory | None:
        """What its process told last of the GPU it runs on; None where it runs on none, or has not told yet."""
        return self._device_memory if self._client is not None else None

    def ask_device_memory(self) -> None:
        """Let the process of a model on a GPU tell what it has of it."""
        with self._exclusive():
            loaded, client = self._loaded, self._client
            if client is None or loaded is None or not loaded.device.startswith("cuda") or self._memory_asked:
                return
            self._memory_asked = True
            client.send({"type": "memory"})

    @property
    def was_ready(self) -> bool:
        return self._was_ready

    def load(self, trust: bool) -> Future[dict[str, Any]] | None:
        """Load unless loaded or loading; the future is the caller's own. None where this host is history."""
        ticket: Future[dict[str, Any]] = Future()
        with self._exclusive():
            if self._removed:
                return None
            if self._state is ModelState.READY:
                self._after(resolve, ticket, self._entry())
            elif self._state is ModelState.STOPPING:
                self._after(reject, ticket, Draining(f"{self.id} is being closed."))
            else:
                self._tickets.append(ticket)
                self._trust = self._trust or trust
                if self._state in (ModelState.UNLOADED, ModelState.FAILED) or self._restart_at is not None:
                    self._policy.reset()
                    self._may_prepare = True
                    self._begin_load(restart=self._is_known())
        return ticket

    def cancel_load(self) -> None:
        """End the load that runs now, if any; its tickets get LoadCancelled."""
        with self._exclusive():
            if self._run is not None:
                self._after(self._run.cancel)
            elif self._restart_at is not None:
                self._restart_at = None
                self._settle_failed_load(LoadCancelled("The load was cancelled."))

    def predict(self, job: Job) -> bool:
        """Put a request in line; every answer and every refusal comes through ``job.future``.

        False, and nothing done, where this version takes no more: another one answers.
        """
        with self._exclusive():
            if self._retiring:
                return False
            self.used_at = self._context.clock()
            refusal = self._refusal(job)
            if refusal is None:
                now = self._context.clock()
                job.deadline = job.deadline or now + job.request.timeout_s
                item = Waiting(
                    job.id,
                    job.lane,
                    job.client,
                    job.size,
                    now,
                    job.deadline,
                    job,
                    alone=self._suspects.is_suspect(job),
                    priority=job.request.priority,
                    key=job.request.key,
                )
                try:
                    self._queue.admit(item)
                except EngineError as error:
                    refusal = error
            if refusal is not None:
                self._finish(job, refusal)
                return True
            if self._state is ModelState.UNLOADED:
                self._begin_load(restart=self._is_known())
            elif self._state is ModelState.READY:
                self._recall_for(item)
                self._pump()
            self._context.wake(item.deadline)
        # Not of the job itself: its future would hold itself, and every answer wait for the garbage collector.
        job.future.add_done_callback(partial(self._on_future_done, weakref.ref(job)))
        return True

    def prepare(self, golden: Job | None, *, wanted: bool = True) -> None:
        """Let the worker try faster ways to run the model, once for each process, and compare them on ``golden`` too.

        Not where it is not ``wanted``, nor where a process has died of it, until the owner loads the model again.
        """
        with self._exclusive():
            client, loaded = self._client, self._loaded
            if client is None or loaded is None or self._preparation is not None or self._state is not ModelState.READY:
                return
            if loaded.spec.runtime == FAKE_RUNTIME and "prepare" not in loaded.spec.options:
                return
            if not wanted:
                self._preparation = Preparation(PreparationState.OFF)
            elif not self._may_prepare:
                self._preparation = Preparation(PreparationState.UNUSED, reason=Reason.DIED)
            else:
                self._preparation = Preparation(PreparationState.RUNNING)
                item = None if golden is None else golden.message_item(self._preprocessing)
                client.send({"type": "prepare", "golden": item}, [] if golden is None else list(golden.buffers))
            self._context.mark_changed()

    def refine(self, prediction_id: str, params: dict[str, Any]) -> Future[Prediction]:
        future: Future[Prediction] = Future()
        with self._exclusive():
            if self._state is not ModelState.READY or self._client is None:
                self._after(reject, future, PredictionExpired("This answer is no longer kept. Ask again."))
                return future
            key = f"refine-{next(self._refinement_ids)}"
            self._refinements[key] = _Refinement(future, self._context.clock())
            self._client.send({"type": "refine", "id": key, "prediction": prediction_id, "params": params})
        return future

    def unload(self) -> Future[None]:
        """End the worker; running requests get a few seconds, waiting ones are turned away at once."""
        done: Future[None] = Future()
        with self._exclusive():
            self._unloads.append(done)
            if self._removed:
                self._finish_unload()
            elif self._state is not ModelState.STOPPING:
                self._offered = False
                self._restart_at = None
                self._set_state(ModelState.STOPPING)
                self._turn_away(Draining(f"{self.id} is being closed."))
                if self._run is not None:
                    self._after(self._run.cancel)
                elif self._client is None:
                    self._finish_unload()
                else:
                    self._stop_at = self._context.clock() + UNLOAD_GRACE_S
                    self._context.wake(self._stop_at)
                    self._stop_if_idle()
        return done

    def rest(self) -> Callable[[], None] | None:
        """Give up the worker of a model that nobody asks; the next question loads it again. None, and nothing done,
        where it is not ready or not idle. Under the same lock as :meth:`predict`: no question is lost in between.

        The result ends the process, and is for the caller to call: it may hold a lock of its own, so that whatever
        forbids the rest comes before the decision or after it."""
        with self._lock:
            client = self._client
            busy = self._batches or len(self._queue) or self._refinements or self._tickets
            if client is None or self._state is not ModelState.READY or busy or self._retiring:
                return None
            self._client = None
            self._resting = self._offered = True
            self._set_state(ModelState.UNLOADED)
            return partial(client.kill, "The model rests until it is asked again.")

    def retire(self) -> None:
        """Take no more requests; end the worker once those taken are answered."""
        with self._exclusive():
            self._retiring = True

    def apply_preprocessing(self, changes: dict[str, Any]) -> ModelSpec:
        """Prepare pictures with ``changes`` (by field of Preprocessing) from the next batch on, and after a restart.

        None takes a change back: the value the load found, and where it was read, stand again. The result is the
        model's spec as it now is. Raises Loading where nothing is loaded.
        """
        with self._exclusive():
            if self._loaded is None:
                raise Loading("The model is not loaded.")
            spec = self._loaded.spec
            whole = spec.to_json()
            found = (self._as_loaded or spec).to_json()
            for name, value in changes.items():
                key = f"preprocessing.{name}"
                taken_back = value is None
                whole["preprocessing"][name] = found["preprocessing"][name] if taken_back else value
                whole["evidence"][key] = found["evidence"].get(key, ASSUMED) if taken_back else SIDECAR
            self._preprocessing = whole["preprocessing"]
            self._loaded = replace(self._loaded, spec=ModelSpec.from_json(whole))
            self._context.mark_changed()
            return self._loaded.spec

    def close(self) -> None:
        """End everything now, and wait for it (bounded)."""
        with self._exclusive():
            self._offered = False
            self._restart_at = None
            run, client = self._run, self._client
            self._set_state(ModelState.STOPPING)
            self._turn_away(Draining("Deskside is closing."))
            if run is not None:
                self._after(run.cancel)
            if client is not None:
                self._after(lambda: client.kill("Deskside is closing."))
        if run is not None:
            run.join(10.0)
        if client is not None:
            client.join(10.0)

    def limits_changed(self) -> None:
        """Others hold from now on: the line asks them itself, the worker has to be told."""
        with self._exclusive():
            self._tell_batch_limit()

    def tick(self) -> float | None:
        """Do what time asks for: deadlines, hangs, restarts, unloads. The clock time of the next tick, or None."""
        with self._exclusive():
            now = self._context.clock()
            for item in self._queue.expire():
                self._finish(item.payload, self._too_late())
            for batch in self._batches.values():
                for item in batch.items.values():
                    if item.deadline <= now and not item.payload.settled:
                        self._finish(item.payload, DeadlineExceeded("The model did not answer in time."))
            self._check_hang(now)
            if self._restart_at is not None and self._restart_at <= now:
                self._begin_load(restart=True)
            if self._stop_at is not None and self._stop_at <= now and self._client is not None:
                client, self._stop_at = self._client, None
                self._after(lambda: client.kill("The model was closed."))
            return self._next_tick()

    def entry(self) -> dict[str, Any]:
        with self._lock:
            return self._entry()

    def positions(self) -> dict[str, int]:
        """How many are before each request that waits, by its id."""
        with self._lock:
            return self._queue.positions()

    def counts(self) -> Counts:
        with self._lock:
            return Counts() + self._counts  # a copy

    # -- the load's calls ------------------------------------------------------------------------------------------
    def on_stage(self, run: LoadRun, stage: LoadStage) -> None:
        with self._exclusive():
            if run is self._run and self._state is not ModelState.STOPPING:
                self._set_state(_STAGE_STATES.get(stage, ModelState.STARTING))

    def on_loaded(self, run: LoadRun, loaded: Loaded) -> None:
        with self._exclusive():
            if run is not self._run or self._state is ModelState.STOPPING:
                self._run = None
                self._client = loaded.client
                self._reject_tickets(LoadCancelled("The load was cancelled."))
                self._after(lambda: loaded.client.kill("The model was closed."))
                if loaded.client.exit is not None:
                    self._worker_gone(loaded.client.exit)
                return
            self._run = None
            if not self._version or (self._loaded is not None and self._loaded.stamp != loaded.stamp):
                self._version = self._name_version(loaded.spec)
            self._loaded = replace(loaded, spec=replace(loaded.spec, version=self._version))
            self._told_inferences = 0
            self._preprocessing = None
            if self._as_loaded is None:
                self._as_loaded = loaded.spec
            self._client = loaded.client
            self._resting = False
            self.used_at = self._context.clock()
            self._device_memory, self._memory_asked = None, False
            self._preparation = None
            self._told_batch_limit = loaded.batch_limit
            if loaded.max_batch_size != loaded.batch_limit:
                self._learn(loaded.max_batch_size)
            self._tell_batch_limit()
            self._was_ready = True
            self._error = None
            self._trust = False
            self._counts.loads += 1
            self._set_state(ModelState.READY)
            tickets, self._tickets = self._tickets, []
            entry = self._entry()
            for ticket in tickets:
                self._after(resolve, ticket, entry)
            if loaded.client.exit is not None:
                self._worker_gone(loaded.client.exit)
            else:
                self._pump()
                self._after(self._context.on_ready, self)

    def on_load_failed(self, run: LoadRun, error: EngineError, spec: ModelSpec | None, crashed: bool) -> None:
        with self._exclusive():
            if run is not self._run:
                return
            self._run = None
            if self._state is ModelState.STOPPING:
                self._reject_tickets(LoadCancelled("The load was cancelled."))
                self._finish_unload()
            elif crashed and self._was_ready:
                self._restart_or_fail(error)
            else:
                self._settle_failed_load(error)

    # -- the worker's calls ----------------------------------------------------------------------------------------
    def on_worker_message(self, client: WorkerClient, message: Message) -> None:
        """Raises ProtocolError (which ends the worker) on a message that breaks a rule."""
        with self._exclusive():
            if client is not self._client:
                return
            if message.type == "done":
                self._on_done(message)
            elif message.type == "started":
                self._on_started(message)
            elif message.type == "recalled":
                self._on_recalled(message)
            elif message.type == "memory":
                self._on_memory(message)
            elif message.type == "prepared":
                self._on_prepared(message)
            elif message.type == "refined":
                self._on_refined(message)
            else:
                raise ProtocolError(f"unexpected message {message.type!r}")

    def on_worker_exit(self, client: WorkerClient, exit_: Exit) -> None:
        with self._exclusive():
            if client is self._client:
                self._worker_gone(exit_)

    # -- answers ---------------------------------------------------------------------------------------------------
    def _batch_of(self, message: Message) -> _Batch:
        number = message.header.get("batch")
        batch = self._batches.get(number) if isinstance(number, int) else None
        if batch is None:
            raise ProtocolError(f"an answer to batch {number!r}, which was not asked")
        return batch

    def _on_started(self, message: Message) -> None:
        batch = self._batch_of(message)
        if batch.told_started:
            raise ProtocolError("a batch that started twice")
        now = self._context.clock()
        batch.started = batch.told_started = True
        batch.since = now
        self._context.wake(now + self._limits().hang_after_s)

    def _on_done(self, message: Message) -> None:
        batch = self._batch_of(message)
        entries = message.header.get("items")
        if not isinstance(entries, list):
            raise ProtocolError("done without items")
        buffers: Iterator[Any] = iter(message.buffers)
        answers = [read_answer(entry, buffers) for entry in entries]
        if len(answers) != len(batch.items) or {answer.id for answer in answers} != batch.items.keys():
            raise ProtocolError("done does not answer what was asked")
        self._count_inferences(message)
        learnt = message.header.get("max_batch_size")
        if isinstance(learnt, int) and not isinstance(learnt, bool) and learnt >= 1:
            self._learn(learnt)
        del self._batches[batch.id]
        self._counts.statistics.ran(len(batch.items))
        now = self._context.clock()
        for answer in answers:
            item = batch.items[answer.id]
            self._suspects.answered(item.payload)
            self._answer(item, answer, now)
        self._others_are_next(now)
        if self._state is ModelState.STOPPING:
            self._stop_if_idle()
        else:
            self._pump()

    def _answer(self, item: Waiting[Job], answer: Answer, now: float) -> None:
        job = item.payload
        assert self._loaded is not None
        total_ms = (now - item.admitted_at) * 1000
        job.run_ms = answer.timing["infer"]
        job.wait_ms = max(0.0, total_ms - sum(answer.timing.values()))
        if answer.error is not None:
            self._finish(job, answer.error)
            return
        prediction = answer.prediction(self.id, self._version, self._loaded.spec.task, total_ms)
        if job.settled:
            return
        job.settled = True
        job.state = RequestState.ANSWERED
        if not job.own:
            self._count_answer(job)
            self._counts.statistics.answered(answer.timing, job.wait_ms, total_ms, answer.rows)
        self._record(job)
        self._after(resolve, job.future, prediction)

    def _count_inferences(self, message: Message) -> None:
        told = message.header.get("inferences", 0)
        if isinstance(told, bool) or not isinstance(told, int) or not 0 <= told < 1 << 53:
            raise ProtocolError("a count of inferences that is none")
        # An answer refined meanwhile may have been counted before the batch and arrive after it.
        self._counts.inferences += max(0, told - self._told_inferences)
        self._told_inferences = max(told, self._told_inferences)

    def _count_answer(self, job: Job) -> None:
        if job.lane.door == "window":
            self._counts.window += 1
        else:
            self._counts.network += 1

    def _on_recalled(self, message: Message) -> None:
        batch = self._batch_of(message)
        if not batch.recalled:
            raise ProtocolError("recalled what nobody recalled")
        if message.header.get("ok") is not True:
            batch.recalled = False
            batch.started = True
            return
        del self._batches[batch.id]
        live = []
        for item in batch.items.values():
            if not item.payload.settled:
                item.payload.state = RequestState.WAITING
                live.append(item)
        if self._state is ModelState.STOPPING:
            for item in live:
                self._finish(item.payload, Draining(f"{self.id} is being closed."))
            self._stop_if_idle()
            return
        self._queue.put_back(live)
        self._pump()

    def _on_refined(self, message: Message) -> None:
        refinement = self._refinements.pop(str(message.header.get("id")), None)
        if refinement is None or self._loaded is None:
            raise ProtocolError("refined what nobody asked")
        self._count_inferences(message)
        answer = read_answer(message.header, iter(message.buffers))
        if answer.error is not None:
            self._after(reject, refinement.future, answer.error)
            return
        total_ms = (self._context.clock() - refinement.began) * 1000
        prediction = answer.prediction(self.id, self._version, self._loaded.spec.task, total_ms)
        self._after(resolve, refinement.future, prediction)

    def _on_memory(self, message: Message) -> None:
        if not self._memory_asked:
            raise ProtocolError("told memory that nobody asked for")
        self._memory_asked = False
        told = message.header.get("memory")
        self._device_memory = None if told is None else DeviceMemory.read(told)

    def _on_prepared(self, message: Message) -> None:
        before = self._preparation
        if before is None or before.state not in (PreparationState.RUNNING, PreparationState.USED):
            raise ProtocolError("told of a preparation that nobody asked for")
        told = Preparation.read(message.header.get("preparation"))
        if self._loaded is not None and told.streams > self._loaded.threads:
            raise ProtocolError("more streams than the process was given threads")
        self._preparation = told
        log.info("%s: preparation %s (%s)", self.id, told.state, told.reason or ", ".join(told.steps))
        self._context.mark_changed()

    # -- sending ---------------------------------------------------------------------------------------------------
    def _pump(self) -> None:
        """Form batches late: only while the worker has room for one more."""
        while self._state is ModelState.READY and self._client is not None:
            if len(self._batches) >= self._most_batches or any(b.alone for b in self._batches.values()):
                return
            items = self._queue.take(self._next_batch)
            if not items:
                return
            live = [item for item in items if not self._turned_away(item)]
            if not live:
                continue
            if live[0].alone and self._batches:
                self._queue.put_back(live)
                return
            self._send(live)

    def _turned_away(self, item: Waiting[Job]) -> bool:
        """Whether a job taken from the line is not to run: settled or late by now, or quarantined while it waited."""
        job = item.payload
        if not job.settled and item.deadline <= self._context.clock():
            self._finish(job, self._too_late())
        elif self._suspects.is_quarantined(job):
            self._finish(job, _quarantined())
        return job.settled

    def _send(self, items: list[Waiting[Job]]) -> None:
        assert self._client is not None
        now = self._context.clock()
        is_lone = not self._batches
        batch = _Batch(
            next(self._batch_ids),
            {item.id: item for item in items},
            now,
            min(LANES.index(item.lane) for item in items),
            started=is_lone,
            told_started=is_lone,
        )
        self._batches[batch.id] = batch
        for item in items:
            item.payload.state = RequestState.RUNNING
        self._client.send(
            {
                "type": "batch",
                "batch": batch.id,
                **({"lone": True} if is_lone else {}),
                "items": [item.payload.message_item(self._preprocessing) for item in items],
            },
            [buffer for item in items for buffer in item.payload.buffers],
        )
        self._context.wake(now + self._limits().hang_after_s)
        self._context.mark_changed()

    def _recall_for(self, item: Waiting[Job]) -> None:
        """A higher lane displaces a prepared batch that has not started."""
        if len(self._batches) < self._most_batches or self._client is None:
            return
        batch = next(reversed(self._batches.values()))
        if batch.started or batch.recalled:
            return
        if batch.rank > LANES.index(item.lane) and not batch.alone:
            batch.recalled = True
            self._client.send({"type": "recall", "batch": batch.id})

    # -- ends ------------------------------------------------------------------------------------------------------
    def _worker_gone(self, exit_: Exit) -> None:
        """The worker's process ended: everything sent to it is answered now, what waits keeps waiting."""
        self._client = None
        if self._preparation is not None and not exit_.by_outside_signal:
            risky = (PreparationState.RUNNING, PreparationState.USED)
            self._may_prepare = self._may_prepare and self._preparation.state not in risky
        self._preparation = None
        batches, self._batches = self._batches, OrderedDict()
        for batch in batches.values():
            for item in batch.items.values():
                self._suspects.died_with(item.payload, alone=item.alone, outside=exit_.by_outside_signal)
                self._finish(
                    item.payload,
                    WorkerRestarted("The model's process ended while it had this request. Ask again.", retry_after_s=1),
                )
        for refinement in self._refinements.values():
            self._after(reject, refinement.future, PredictionExpired("This answer is no longer kept. Ask again."))
        self._refinements.clear()
        for item in self._queue:
            item.alone = self._suspects.is_suspect(item.payload)
        if self._state is ModelState.STOPPING:
            log.info("worker of %s: %s", self.id, exit_.sentence())
            self._finish_unload()
        else:
            log.warning("worker of %s: %s", self.id, exit_.sentence())
            self._restart_or_fail(ModelFailed(exit_.sentence(), details=exit_.last_words))

    def _restart_or_fail(self, cause: EngineError) -> None:
        now = self._context.clock()
        pause = self._policy.after_death(now)
        if pause is None:
            self._settle_failed_load(
                ModelFailed(
                    f"{self.id} stopped {self._limits().restarts + 1} times in a short while and is not started again. "
                    f"{cause.message}",
                    details=cause.details,
                )
            )
            return
        self._counts.restarts += 1
        self._restart_at = now + pause
        self._set_state(ModelState.STARTING, cause)
        self._context.wake(self._restart_at)

    def _begin_load(self, restart: bool = False) -> None:
        self._restart_at = None
        self._error = None
        source = self._loaded.spec if restart and self._loaded is not None else self.source
        if not restart:
            self._as_loaded = None
        self._run = LoadRun(
            self._load_context,
            self,
            self.id,
            source,
            device=self.device_asked,
            trust=self._trust,
            precision=self.precision,
            runtime=self._runtime,
            known=self._loaded if restart else None,
        )
        self._set_state(ModelState.STARTING)
        self._after(self._run.start)

    def _settle_failed_load(self, error: EngineError) -> None:
        """No worker, and none will be started by itself."""
        waiting_error: EngineError
        if isinstance(error, LoadCancelled):
            waiting_error = Loading("The model's load was cancelled.")
            state = ModelState.FAILED if self._was_ready and not self._offered else ModelState.UNLOADED
        else:
            waiting_error = ModelFailed(f"{self.id} could not be loaded. {error.message}")
            state = ModelState.FAILED
        self._error = error if state is ModelState.FAILED else None
        self._trust = self._resting = False  # opened again, it is read anew: its file may have changed
        if not self.audible and (orphans := [item.payload for item in self._queue.clear()]):
            self._after(self._context.on_orphans, self, orphans)
        if not self._offered and not self._was_ready:
            # Before anybody is told: who learns of the failure finds no model of it any more.
            self._removed = True
            self._after(self._context.on_removed, self)
        self._turn_away(waiting_error)
        self._reject_tickets(error)
        self._set_state(state, error)

    def _finish_unload(self) -> None:
        self._client = None
        self._loaded = None
        self._stop_at = None
        if not self._removed:
            self._removed = True
            self._set_state(ModelState.UNLOADED)
            self._after(self._context.on_removed, self)
        unloads, self._unloads = self._unloads, []
        for future in unloads:
            self._after(resolve, future, None)

    def _retire_if_idle(self) -> None:
        """What was taken is answered: end. A worker that is being restarted for nobody is not waited for."""
        if self._removed or self._batches or len(self._queue):
            return
        if self._run is not None and self._state is not ModelState.STOPPING:
            self._after(self._run.cancel)
        if self._state is not ModelState.STOPPING:
            self._restart_at = None
            self._set_state(ModelState.STOPPING)
        if self._run is None and self._client is None:
            self._finish_unload()
        else:
            self._stop_if_idle()

    def _is_known(self) -> bool:
        """Whether an earlier worker of this very version told what is to be loaded."""
        return self._loaded is not None and (self._resting or not self._was_ready)

    def _stop_if_idle(self) -> None:
        if not self._batches and self._client is not None:
            client = self._client
            self._after(lambda: client.kill("The model was closed."))

    # -- how many at once -------------------------------------------------------------------------------------------
    @property
    def _max_batch(self) -> int:
        knee = self._preparation.batch if self._preparation is not None else None
        return min(n for n in (self._limits().max_batch_size, self._fits, knee) if n is not None)

    @property
    def _streams(self) -> int:
        """How many batches the worker runs at once."""
        return self._preparation.streams if self._preparation is not None else 1

    @property
    def _most_batches(self) -> int:
        """How many batches the worker may have."""
        return self._streams + BATCHES_AHEAD

    @property
    def _next_batch(self) -> int:
        """How many requests the next batch takes at most. Where several run at once they share what is open: one that
        took all would leave the other cores idle."""
        if (streams := self._streams) == 1:
            return self._max_batch
        running = sum(len(batch.items) for batch in self._batches.values())
        return min(self._max_batch, -(-(len(self._queue) + running) // streams))

    def _learn(self, rows: int) -> None:
        self._fits = rows if self._fits is None else min(self._fits, rows)

    def _tell_batch_limit(self) -> None:
        limit = self._limits().max_batch_size
        if self._client is not None and limit != self._told_batch_limit:
            self._told_batch_limit = limit
            self._client.send({"type": "limit", "max_batch_size": limit})

    # -- small parts -----------------------------------------------------------------------------------------------
    def _exclusive(self) -> _Exclusive:
        return _Exclusive(self)

    def _after(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call once the lock is released."""
        self._effects.append((function, arguments))

    def _post(self, event: Event) -> None:
        if self.audible:
            self._context.load.post(event)

    def _set_state(self, state: ModelState, error: EngineError | None = None) -> None:
        if state is not self._state or error is not None:
            self._state = state
            self._post(ModelStateChanged(self.id, state, error))
            self._context.mark_changed()

    def _refusal(self, job: Job) -> EngineError | None:
        if self._state is ModelState.STOPPING or self._removed:
            return Draining(f"{self.id} is being closed.")
        if self._state is ModelState.FAILED:
            cause = self._error.message if self._error else ""
            return ModelFailed(f"{self.id} has failed and waits for its owner. {cause}".strip(), retry_after_s=30)
        if self._suspects.is_quarantined(job):
            return _quarantined()
        return None

    def _too_late(self) -> EngineError:
        if self._state is ModelState.READY:
            return DeadlineExceeded("The model did not answer in time.")
        return Loading("The model is still loading.", retry_after_s=2)

    def _check_hang(self, now: float) -> None:
        since = self._hangs_since()
        if since is not None and self._client is not None and since + self._limits().hang_after_s <= now:
            client = self._client
            seconds = self._limits().hang_after_s
            self._after(lambda: client.kill(f"The model ran longer than {seconds:.0f} s on one batch."))

    def _hangs_since(self) -> float | None:
        """What is to be counted from to find a hang: the start of each batch that runs, whatever becomes of others;
        where none runs, one is to start. What waits behind a batch that runs may wait."""
        running = [batch.since for batch in self._batches.values() if batch.told_started]
        return min(running or [batch.since for batch in self._batches.values()], default=None)

    def _others_are_next(self, now: float) -> None:
        """A batch is answered: what has not started has waited for that."""
        for batch in self._batches.values():
            if not batch.told_started:
                batch.since = now
        if self._batches:
            self._context.wake(now + self._limits().hang_after_s)

    def _next_tick(self) -> float | None:
        times = [t for t in (self._queue.next_deadline(), self._restart_at, self._stop_at) if t is not None]
        for batch in self._batches.values():
            times += [i.deadline for i in batch.items.values() if not i.payload.settled]
        if (since := self._hangs_since()) is not None:
            times.append(since + self._limits().hang_after_s)
        return min(times, default=None)

    def _turn_away(self, error: EngineError) -> None:
        for item in self._queue.clear():
            self._finish(item.payload, error)

    def _reject_tickets(self, error: EngineError) -> None:
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            self._after(reject, ticket, error)

    def _finish(self, job: Job, error: EngineError) -> None:
        if job.settled:
            return
        job.settled = True
        job.code = error.code
        if isinstance(error, DeadlineExceeded | Loading):
            job.state = RequestState.LATE
        elif isinstance(error, RequestError | Draining) or error.code in ("busy", "model_failed"):
            job.state = RequestState.REFUSED
        else:
            job.state = RequestState.FAILED
        self._record(job)
        self._after(reject, job.future, error)

    def _record(self, job: Job) -> None:
        if job.own:
            return
        if job.state is not RequestState.ANSWERED:
            self._counts.statistics.failed(job.code, (time.time() - job.received_at) * 1000)
        record = job.record()
        self._after(self._context.load.journal.record_request, record)
        self._context.mark_changed()

    def _on_future_done(self, reference: weakref.ref[Job], future: Future[Prediction]) -> None:
        job = reference()
        if job is None or not future.cancelled():
            return  # a job that still waits, or runs, is held by its line or its batch
        with self._exclusive():
            if job.settled:
                return
            job.settled = True
            self._queue.remove(job.id)
            job.state, job.code = RequestState.GONE, RequestCancelled.code
            self._record(job)

    def _entry(self) -> dict[str, Any]:
        loaded, counts = self._loaded, self._counts
        spec = loaded.spec if loaded else (self.source if isinstance(self.source, ModelSpec) else None)
        client = self._client
        return {
            "id": self.id,
            "task": spec.task if spec else None,
            "format": spec.format if spec else None,
            "runtime": spec.runtime if spec else None,
            "version": self._version or None,
            "device": loaded.device if loaded and client else self.device_asked,
            "precision": (spec.precision if spec else "") or self.precision or PRECISIONS[0],
            "threads": loaded.threads if loaded and client else None,
            "sandbox": loaded.sandbox if loaded and client else None,
            "keeps_memory": loaded.keeps_memory if loaded and client else None,
            "preparation": self._preparation.to_json() if self._preparation and client else None,
            "state": str(self._state),
            "loads": counts.loads,
            "requests": {"window": counts.window, "network": counts.network},
            "inferences": counts.inferences,
            "statistics": counts.statistics.to_json(),
            "worker_pid": client.pid if client else None,
            "waiting": len(self._queue),
            "running": sum(len(b.items) for b in self._batches.values()),
            "restarts": counts.restarts,
            "max_batch_size": self._max_batch,
            "error": {"code": self._error.code, "message": self._error.message} if self._error else None,
            "offered": self._state is not ModelState.STOPPING and not self._removed,
            "path": str(self.source.path if isinstance(self.source, ModelSpec) else self.source),
            "spec": spec.to_json() if spec else None,
        }


class _Exclusive:
    """Holds a host's lock; what was put off until it is released is done on leaving."""

    __slots__ = ("_host",)

    def __init__(self, host: ModelHost) -> None:
        self._host = host

    def __enter__(self) -> None:
        self._host._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        host = self._host
        effects: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        try:
            try:
                if kind is None and host._retiring:
                    host._retire_if_idle()
            finally:
                effects, host._effects = host._effects, effects
                host._lock.release()
        finally:
            for function, arguments in effects:
                function(*arguments)


def _quarantined() -> Quarantined:
    return Quarantined("This input ended the model's process twice and is not run again.")
