"""One load, from a path to a worker that is ready: a thread of its own, cancellable in every stage."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from engine import consent
from engine.errors import (
    ConsentRequired,
    EngineError,
    LoadCancelled,
    LoadFailed,
    LoadTimeout,
    ModelChanged,
    ModelCorrupt,
    ModelRefused,
    error_from_code,
)
from engine.events import Event, LoadProgress, LoadStage
from engine.inspector_client import InspectorClient
from engine.journal import Journal
from engine.model_spec import FAKE_RUNTIME, ModelSpec, TensorSpec, TrustClass
from engine.protocol import Message
from engine.settings import EngineLimits
from engine.spares import Spare
from engine.worker_client import Exit, WorkerClient

log = logging.getLogger(__name__)

TICK_S = 0.1
FULL_PRECISION = "float32"
PRECISIONS = (FULL_PRECISION, "bfloat16", "float16")
_MAX_STAGE_MESSAGES = 1000
FileStamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What a load needs of the engine."""

    limits: Callable[[], EngineLimits]
    """Those that hold now."""
    room: Callable[[str, int], AbstractContextManager[None]]
    """Makes room for a model of so many bytes, and keeps it while a load runs."""
    threads: Callable[[str], int]
    """Intra-operation threads for a worker of this model that starts now."""
    data_dir: Path
    inspector: InspectorClient
    consents: consent.ConsentStore
    journal: Journal
    post: Callable[[Event], None]
    head_start: Callable[[Path, int], Spare | None]
    """A process that imports what this model is likely to need, while it is still looked at; threads."""
    not_needed: Callable[[Spare], None]
    """Of a head start."""
    take_spare: Callable[
        [Spare | None, ModelSpec, Callable[[Message], None], Callable[[Exit], None], int], WorkerClient | None
    ]
    """The head start, or a spare that waits; what to do with messages and with its end; threads."""
    used: Callable[[ModelSpec], None]
    """Such a model is there; another one may follow."""
    start_worker: Callable[[ModelSpec, str, Callable[[Message], None], Callable[[Exit], None], int], WorkerClient]
    """Name, what to do with messages and with its end, threads."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker that is ready, and what it told of the model."""

    client: WorkerClient
    spec: ModelSpec
    device: str
    max_batch_size: int
    """Rows of one run, as the worker told: ``batch_limit``, or what the model itself has."""
    batch_limit: int
    """The limit that the worker was started with."""
    fingerprint: str
    stamp: FileStamp
    threads: int
    sandbox: dict[str, Any] | None = None
    """What the worker's process is kept from, as it told (``engine.worker.sandbox.Reached``)."""
    keeps_memory: bool = False
    """Whether its C library was told to keep what operators free (``engine.worker.allocator``)."""


class LoadOwner(Protocol):
    """The model host a load works for; its methods are called on the load's and the worker's threads."""

    def on_stage(self, run: LoadRun, stage: LoadStage) -> None: ...
    def on_loaded(self, run: LoadRun, loaded: Loaded) -> None: ...
    def on_load_failed(self, run: LoadRun, error: EngineError, spec: ModelSpec | None, crashed: bool) -> None: ...
    def on_worker_message(self, client: WorkerClient, message: Message) -> None: ...
    def on_worker_exit(self, client: WorkerClient, exit_: Exit) -> None: ...


def file_stamp(spec: ModelSpec) -> FileStamp:
    """Inode, size and mtime of every file the load may read: cheap, and changed by every ordinary replacement."""
    stamps = []
    for path in spec.files:
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelChanged(f"{path.name} is no longer there.") from error
        stamps.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(stamps)


class LoadRun:
    """``source`` is a path to recognise, or a spec given in code (or known from an earlier load of the same model)."""

    def __init__(
        self,
        context: LoadContext,
        owner: LoadOwner,
        model_id: str,
        source: Path | ModelSpec,
        *,
        device: str,
        trust: bool,
        precision: str | None = None,
        runtime: str | None = None,
        known: Loaded | None = None,
    ) -> None:
        self.model_id = model_id
        self._context = context
        self._owner = owner
        self._source = source
        self._device = device
        self._precision = precision
        self._threads = 1
        self._batch_limit = 1
        self._trust = trust
        self._runtime = runtime
        self._known = known
        """The load before this one, where this is a restart or a return to an earlier version."""
        self._events: queue.SimpleQueue[Message | Exit | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled = False
        self._handed_over = False
        self._client: WorkerClient | None = None
        self._stage: LoadStage | None = None
        self._stage_began = 0.0
        self._stages: dict[str, float] = {}
        self._learnt: dict[str, float] = {}
        self._bytes_total: int | None = None
        self._bytes_before = 0
        self._fraction = -1.0
        self._sandbox: dict[str, Any] | None = None
        self._ahead: Spare | None = None
        """The process that was started before the model was known; this load's until it is taken or not needed."""
        self._greeted = False
        self._was_spare = False
        self._had_waited = False
        """Its import was over before this load began, and tells nothing of how long one takes."""
        self._thread = threading.Thread(target=self._run, name=f"load-{model_id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """End the load; its worker, if there is one, is killed. Returns at once."""
        with self._lock:
            self._cancelled = True
            client = self._client
        self._events.put(None)
        if client is not None:
            client.kill("The load was cancelled.")

    def join(self, timeout_s: float) -> None:
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout_s)

    # -- the thread ------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        with ExitStack() as room:
            self._load(room)

    def _load(self, room: ExitStack) -> None:
        spec: ModelSpec | None = None
        location = str(self._source if isinstance(self._source, Path) else self._source.model_file)
        crashed = False
        failure: EngineError
        try:
            if isinstance(self._source, Path):
                self._ahead = self._context.head_start(self._source, self._context.threads(self.model_id))
            self._learnt = self._context.journal.learnt_stages(location)
            spec = self._recognise()
            if self._precision not in (None, spec.precision or FULL_PRECISION):
                evidence = spec.evidence | {"precision": "asked for by its owner"}
                spec = replace(spec, precision=self._precision or "", evidence=evidence)
            fingerprint = self._check_trust(spec)
            stamp = file_stamp(spec)
            room.enter_context(self._context.room(self.model_id, sum(size for _, _, size, _ in stamp)))
            self._enter(LoadStage.STARTING)
            self._start_worker(spec)
            info = self._await_ready(spec)
            loaded = self._loaded(spec, info, fingerprint, stamp)
            self._hand_over()
        except _Crashed as error:
            crashed, failure = True, error.error
        except EngineError as error:
            failure = error
        except Exception as error:
            log.exception("loading %s failed unexpectedly", self.model_id)
            failure = LoadFailed("Something unexpected went wrong while loading.", details=repr(error))
        else:
            self._finish_stage()
            self._context.journal.record_load(self.model_id, location, "ready", self._stages)
            self._owner.on_loaded(self, loaded)
            self._context.used(spec)
            return
        if self._ahead is not None:
            self._context.not_needed(self._ahead)
        with self._lock:
            client, cancelled = self._client, self._cancelled
        if client is not None:
            client.kill(str(failure))
            client.join(5.0)
        if cancelled:
            crashed, failure = False, LoadCancelled("The load was cancelled.")
        self._finish_stage()
        self._context.journal.record_load(self.model_id, location, failure.code, self._stages)
        self._owner.on_load_failed(self, failure, spec, crashed)

    def _recognise(self) -> ModelSpec:
        if isinstance(self._source, ModelSpec):
            return self._source.with_id(self.model_id)
        self._enter(LoadStage.RECOGNISING)
        call = self._context.inspector.call(
            "inspect",
            {"path": str(self._source), "data_dir": str(self._context.data_dir)},
            timeout_s=self._context.limits().inspect_timeout_s,
        )
        result, _ = self._wait_for(call)
        try:
            spec = ModelSpec.from_json(result["spec"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorrupt(f"{self._source.name} could not be described.", details=repr(error)) from error
        if spec.runtime == FAKE_RUNTIME:
            raise ModelRefused(f"{self._source.name} asks for a runtime that only tests may use.")
        if self._runtime is not None:
            spec = replace(spec, runtime=self._runtime)
        return spec.with_id(self.model_id)

    def _check_trust(self, spec: ModelSpec) -> str:
        """The fingerprint of a *program* class model that is consented to, "" for *data*. Raises otherwise."""
        if spec.trust_class is TrustClass.REFUSED:
            raise ModelRefused(f"{spec.path.name} is of a kind that is never opened, because opening it can run code.")
        known = self._known
        if spec.trust_class is not TrustClass.PROGRAM:
            if known is not None and known.stamp != file_stamp(spec):
                raise ModelChanged(f"{spec.path.name} is not the file that was opened before. Open it again to use it.")
            return ""
        if known is not None and known.fingerprint and known.stamp == file_stamp(spec):
            return known.fingerprint
        self._enter(LoadStage.HASHING)
        found = consent.fingerprint(spec, self._raise_if_cancelled)
        if known is not None and known.fingerprint != found:
            raise ModelChanged(f"{spec.path.name} is not the file that was opened before. Open it again to use it.")
        if self._trust:
            try:
                self._context.consents.consent(found, spec)
            except OSError as error:
                raise LoadFailed(f"Your consent could not be stored: {error.strerror or error}.") from error
        elif not self._context.consents.is_consented(found):
            raise ConsentRequired(
                f"{spec.path.name} is a program: opening it runs {consent.kind_of_code(spec)} from the file. "
                "It needs your consent first (--trust on the command line).",
                fingerprint=found,
            )
        return found

    def _start_worker(self, spec: ModelSpec, *, spare: bool = True) -> None:
        ahead, self._ahead = self._ahead, None
        # A head start is this load's process since the load began, and has the share of the cores of that moment.
        self._threads = ahead.threads if ahead is not None else self._context.threads(self.model_id)
        self._batch_limit = self._context.limits().max_batch_size
        client: WorkerClient | None = None
        if spare:
            client = self._context.take_spare(ahead, spec, self._on_message, self._on_exit, self._threads)
        self._was_spare = client is not None
        self._had_waited = client is not None and (ahead is None or client is not ahead.client)
        try:
            client = client or self._context.start_worker(
                spec, self.model_id, self._on_message, self._on_exit, self._threads
            )
        except OSError as error:
            raise LoadFailed(f"A process for the model could not be started: {error.strerror or error}.") from error
        with self._lock:
            self._client = client
        self._raise_if_cancelled()
        client.send(
            {
                "type": "load",
                "spec": spec.to_json(),
                "device": self._device,
                "threads": self._threads,
                "limits": {"max_batch_size": self._batch_limit},
            }
        )
        # What reads its answers' arrays is there before the first of them, and is imported while the worker works.
        import_module("engine.tensors")
        if self._was_spare:
            self._enter(LoadStage.IMPORTING)  # it has done so, or is at it

    def _await_ready(self, spec: ModelSpec) -> dict[str, Any]:
        last_progress = time.monotonic()
        seen = 0
        while True:
            try:
                event = self._events.get(timeout=TICK_S)
            except queue.Empty:
                if self._tick():
                    last_progress = time.monotonic()
                elif time.monotonic() - last_progress > (patience := self._context.limits().load_stall_s):
                    raise LoadTimeout(
                        f"{spec.path.name} showed no progress for {patience:.0f} s while loading."
                    ) from None
                continue
            self._raise_if_cancelled()
            if event is None:
                continue
            if isinstance(event, Exit):
                if self._was_spare and not self._greeted:
                    # It never was this model's: killed while it waited, or not to be held to the files of the load.
                    log.info("%s starts a process of its own: %s", self.model_id, event.sentence())
                    self._start_worker(spec, spare=False)
                    continue
                raise _Crashed(
                    LoadFailed(f"{spec.path.name} ended its process while loading.", details=event.last_words)
                )
            seen += 1
            last_progress = time.monotonic()
            header = event.header
            if event.type == "ready" and isinstance(header.get("info"), dict):
                return dict(header["info"])
            if event.type == "failed" and isinstance(header.get("error"), dict):
                error = header["error"]
                raise error_from_code(
                    str(error.get("code", "load_failed")), str(error.get("message", "")), str(error.get("details", ""))
                )
            if event.type == "stage" and seen < _MAX_STAGE_MESSAGES:
                self._on_stage(header)
            elif event.type == "hello":
                self._greeted = True
                self._sandbox = header.get("sandbox") if isinstance(header.get("sandbox"), dict) else None
            else:
                raise _Crashed(LoadFailed("The model's process sent something that is not an answer."))

    def _on_stage(self, header: dict[str, Any]) -> None:
        try:
            stage = LoadStage(str(header.get("stage")))
        except ValueError as error:
            raise _Crashed(LoadFailed("The model's process reported a stage that does not exist.")) from error
        total = header.get("total_bytes")
        self._enter(stage, int(total) if isinstance(total, int) and total > 0 else None)

    def _loaded(self, spec: ModelSpec, info: dict[str, Any], fingerprint: str, stamp: FileStamp) -> Loaded:
        if file_stamp(spec) != stamp:
            raise ModelChanged(f"{spec.path.name} changed while it was loaded. Open it again.")
        client = self._client
        assert client is not None
        try:
            updated = replace(
                spec,
                inputs=tuple(TensorSpec.from_json(t) for t in info["inputs"]),
                outputs=tuple(TensorSpec.from_json(t) for t in info["outputs"]),
                signatures=tuple(str(s) for s in info.get("signatures") or spec.signatures),
                labels=tuple(str(s) for s in info.get("labels") or spec.labels),
                evidence=spec.evidence | {str(k): str(v) for k, v in (info.get("evidence") or {}).items()},
            )
            batch = int(info.get("max_batch_size") or 1)
            device = str(info["device"])
        except (KeyError, TypeError, ValueError) as error:
            raise _Crashed(LoadFailed("The model's process described the model wrongly.")) from error
        return Loaded(
            client, updated, device, max(1, batch), self._batch_limit, fingerprint, stamp, self._threads, self._sandbox,
            info.get("keeps_memory") is True,
        )  # fmt: skip

    # -- waiting and progress --------------------------------------------------------------------------------------
    def _wait_for(self, call: Future[Any]) -> Any:
        call.add_done_callback(lambda _: self._events.put(None))
        while not call.done():
            try:
                self._events.get(timeout=TICK_S)
            except queue.Empty:
                self._tick()
            if self._cancelled:
                call.cancel()
                self._raise_if_cancelled()
        return call.result()

    def _raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise LoadCancelled("The load was cancelled.")

    def _enter(self, stage: LoadStage, bytes_total: int | None = None) -> None:
        self._raise_if_cancelled()
        self._finish_stage()
        self._stage, self._stage_began, self._bytes_total = stage, time.monotonic(), bytes_total
        self._fraction = -1.0
        if bytes_total is not None and self._client is not None:
            self._bytes_before = self._client.bytes_read() or 0
        self._owner.on_stage(self, stage)
        self._context.post(LoadProgress(self.model_id, stage, 0.0 if bytes_total else None, 0, bytes_total))

    def _finish_stage(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None and not (self._had_waited and stage is LoadStage.IMPORTING):
            spent = time.monotonic() - self._stage_began
            self._stages[str(stage)] = self._stages.get(str(stage), 0.0) + spent

    def _tick(self) -> bool:
        """Publish progress within the stage: measured in bytes, else learnt from the last load. True if bytes moved."""
        stage = self._stage
        if stage is None:
            return False
        if self._bytes_total and self._client is not None and (now := self._client.bytes_read()) is not None:
            done = max(0, min(self._bytes_total, now - self._bytes_before))
            fraction = done / self._bytes_total
            moved = fraction > self._fraction
            if moved:
                self._fraction = fraction
                self._context.post(LoadProgress(self.model_id, stage, fraction, done, self._bytes_total))
            return moved and done > 0
        learnt = self._learnt.get(str(stage))
        if learnt:
            fraction = min(0.99, (time.monotonic() - self._stage_began) / learnt)
            self._context.post(LoadProgress(self.model_id, stage, fraction, learnt=True))
        return False

    # -- the worker's threads --------------------------------------------------------------------------------------
    def _on_message(self, message: Message) -> None:
        with self._lock:
            client = self._client if self._handed_over else None
        if client is not None:
            self._owner.on_worker_message(client, message)
        else:
            self._events.put(message)

    def _on_exit(self, exit_: Exit) -> None:
        with self._lock:
            if not self._handed_over:
                self._events.put(exit_)
                return
            client = self._client
        assert client is not None
        self._owner.on_worker_exit(client, exit_)

    def _hand_over(self) -> None:
        """From here on the worker's messages go to the host. Raises _Crashed where the worker ended in between."""
        with self._lock:
            self._handed_over = True
            unexpected = []
            while not self._events.empty():
                if (event := self._events.get()) is not None:
                    unexpected.append(event)
        self._raise_if_cancelled()
        if unexpected:
            raise _Crashed(LoadFailed("The model's process did not wait for its first request."))


class _Crashed(EngineError):
    """The process ended, or broke the protocol, during the load: worth another try, unlike an error it reported."""

    def __init__(self, error: LoadFailed) -> None:
        super().__init__(error.message)
        self.error = error
